//! The preview: what will happen, on one page, before the question. Decides nothing.

use super::boot_blob;
use super::boot_entry::BootEntry;
use super::budget::Budget;
use super::page::{Form, Page};
use super::reach::Reach;
use super::report::Report;
use super::stage::Decided;
use crate::boot_blob::BootBlob;
use crate::cli::{Flag, Options};
use crate::error::Error;
use crate::new_os::examination::Examined;
use crate::new_os::new_files::NewFiles;
use crate::plan::Place;
use crate::stage1::look::facts::{Facts, Init};
use crate::stage1::look::identity::Identity;
use crate::stage1::look::uses;
use crate::text::Text;
use std::os::fd::AsFd;

/// How many of the mounts and other uses of the disk are shown to people: a host of containers has hundreds.
const USES: u32 = 12;

/// All that the page tells of.
pub struct Preview<'a> {
    /// The command line.
    pub options: &'a Options,
    /// The device's disk, memory and init.
    pub facts: &'a Facts,
    /// The device itself.
    pub identity: &'a Identity,
    /// The image.
    pub image: &'a Examined<'a>,
    /// Where it comes from.
    pub image_name: &'a str,
    /// What the new OS gets.
    pub new_files: &'a NewFiles,
    /// The loaders that it comes with, where they are written.
    pub boot_blob: Option<&'a BootBlob>,
    /// How it is reached.
    pub reach: &'a Reach,
    /// How the firmware starts it.
    pub boot_entry: &'a BootEntry,
    /// The device type that the new OS will have.
    pub device_type: &'a str,
    /// The name that it will have; none when config.json decides.
    pub hostname: Option<&'a str>,
    /// Where the image waits.
    pub stage: &'a Decided,
    /// How long it takes to read it from there, in seconds.
    pub stage_seconds: u64,
    /// The memory that is needed.
    pub budget: &'a Budget,
    /// The memory that is there, in bytes.
    pub available: u64,
    /// Where the old OS finds the log when nothing was written.
    pub old_log: Option<&'a str>,
    /// How long the device will be on its own, in seconds.
    pub seconds_alone: u64,
    /// What to think about.
    pub report: &'a Report,
}

impl Preview<'_> {
    /// Prints the page to standard output: for people, or with `--json` for programs.
    pub fn print(&self) -> Result<(), Error> {
        let form = if self.options.has(Flag::Json) { Form::Json } else { Form::People };
        let output = rustix::stdio::stdout();
        let mut page = Page::new(form, output.as_fd());
        // In the order of what a person must know to say yes.
        self.device(&mut page);
        self.disk(&mut page)?;
        self.image(&mut page);
        self.new_os(&mut page);
        self.reach.show(&mut page);
        self.demands(&mut page);
        self.report.show(&mut page);
        page.finish()
    }

    fn device(&self, page: &mut Page) {
        let identity = self.identity;
        page.section("device", "This device");
        page.text("model", "model", &identity.model);
        page.text("board", "", identity.board.map_or("", |board| board.name));
        page.text("machine", "", &identity.machine);
        page.truth("runs_64_bit", "", identity.runs_64_bit);
        page.truth("efi", "", identity.efi);
        page.section("os", "");
        page.text("name", "its OS", &identity.system.name);
        page.text("version", "", &identity.system.version);
        page.text("hostname", "hostname", &identity.hostname);
        page.text("init", "init", self.facts.init.name());
        page.text("hand_over", "handed over", &hand_over(&self.facts.init));
    }

    fn disk(&self, page: &mut Page) -> Result<(), Error> {
        let target = &self.facts.target;
        page.section("disk", "What will be lost: everything on this disk");
        let path: Text<40> = crate::text!("/dev/{}", target.name);
        page.text("path", "disk", &path);
        page.bytes("bytes", "size", target.size);
        page.list("uses", "in use", "nothing");
        let mut count = 0_u32;
        uses::for_each(self.facts, &mut |clause| {
            count += 1;
            if count <= USES || self.options.has(Flag::Json) {
                page.entry(clause);
            }
        })?;
        if count > USES && !self.options.has(Flag::Json) {
            let more: Text<40> = crate::text!("{} more", count - USES);
            page.entry(&more);
        }
        Ok(())
    }

    fn image(&self, page: &mut Page) {
        let image = self.image;
        page.section("image", "What will be there");
        page.text("file", "image", self.image_name);
        page.text("format", "", image.stream.format.name());
        page.bytes("packed_bytes", "", image.stream.length);
        page.bytes("bytes", "its size", image.scan.length);
        page.number("zero_percent", "", image.zero_share(), "");
        page.text("table", "", image.table_name());
        page.number("partitions", "", image.table.partitions.len() as u64, "");
        page.text("device_type", "made for", &image.layout.device_type);
        page.text("version", "version", &image.layout.version);
    }

    fn new_os(&self, page: &mut Page) {
        page.section("new_os", "");
        let is_same = *self.device_type == *self.image.layout.device_type;
        page.text("device_type", if is_same { "" } else { "device type" }, self.device_type);
        // Without a config.json nothing is placed.
        let as_it_is = if self.device_type.is_empty() {
            "as the image has it"
        } else {
            "as config.json has it"
        };
        page.text("hostname", "hostname", self.hostname.unwrap_or(as_it_is));
        let (files, bytes) = self.new_files.count(Place::Boot);
        page.number("boot_files", "", files as u64, "");
        page.bytes("boot_bytes", "", bytes);
        let (_, backup) = self.new_files.count(Place::Data);
        let described = self.options.backup.as_deref().unwrap_or_default();
        let is_kept = !described.is_empty();
        page.text("backup", if is_kept { "data kept" } else { "" }, described);
        page.bytes("backup_bytes", if is_kept { "packed" } else { "" }, backup);
        if let Some(blob) = self.boot_blob.filter(|_| !cfg!(target_arch = "arm")) {
            page.text("boot_blob", "boot blob", &boot_blob::shown(blob));
        }
        // Without firmware of that kind there is none, as usual.
        let is_told = self.boot_entry.change.is_some() || self.identity.efi;
        page.text("boot_entry", if is_told { "boot entry" } else { "" }, &self.boot_entry.text);
        let is_any = !self.boot_entry.gone.is_empty();
        page.list("boot_entries_removed", if is_any { "removed" } else { "" }, "");
        for name in &self.boot_entry.gone {
            let text: Text<120> = crate::text!("the boot entry {}", name);
            page.entry(&text);
        }
        page.section("networks", "");
        let none = if self.device_type.is_empty() { "as the image has them" } else { DHCP };
        show_networks(self.new_files, none, page);
    }

    fn demands(&self, page: &mut Page) {
        page.section("demands", "How it goes");
        page.text("stage", "image waits", self.stage.name());
        page.text("stage_why", "because", &self.stage.why);
        let copied = self.stage.copied();
        let is_copied = self.stage.name() == "disk" && copied > 0;
        page.bytes("stage_copied", if is_copied { "copied first" } else { "" }, copied);
        page.seconds("seconds_alone", "alone for about", self.seconds_alone);
        let is_read = self.stage_seconds > 0;
        page.seconds(
            "stage_seconds",
            if is_read { "of it reading" } else { "" },
            self.stage_seconds,
        );
        let then = if self.options.has(Flag::Pretend) {
            "restart the old OS: --pretend"
        } else {
            "restart into the new OS"
        };
        page.text("then", "and then", then);
        page.bytes("memory_needed", "memory needed", self.budget.needed());
        page.bytes("memory_available", "memory free", self.available);
        if !self.facts.swaps.is_empty() {
            page.bytes("swapped", "from swap", self.budget.swapped);
            page.list("swap_off", "swap off", "none");
            for swap in &self.facts.swaps {
                let text: Text<300> = crate::text!("swap on {} is turned off", swap.path);
                page.entry(&text);
            }
        }
        self.logs(page);
    }

    /// Where the log can be read, while it goes on and afterwards.
    fn logs(&self, page: &mut Page) {
        let options = self.options;
        page.list("logs", "log", "none");
        page.entry("meanwhile: on every console");
        if let Some(receiver) = options.log_udp.as_deref() {
            let text: Text<120> = crate::text!("meanwhile: at {} (UDP)", receiver);
            page.entry(&text);
        }
        if let Some(device) = options.log_to.as_deref() {
            let text: Text<300> = crate::text!("afterwards: takeover.log on {}", device);
            page.entry(&text);
        }
        if options.has(Flag::FallbackLog) {
            let (folder, name) = (&*options.fallback_log_dir, &*options.fallback_log_name);
            let text: Text<160> =
                crate::text!("afterwards: {}/{} on the new data partition", folder, name);
            page.entry(&text);
        }
        if let Some(path) = self.old_log {
            let text: Text<300> = crate::text!("given up before writing: {} of the old OS", path);
            page.entry(&text);
        }
    }
}

/// What is said where no network is carried over.
pub const DHCP: &str = "none: a cable with DHCP always works";

/// Lists the networks of the new OS.
pub fn show_networks(new_files: &NewFiles, none: &'static str, page: &mut Page) {
    page.list("names", "networks", none);
    for (label, file) in new_files.labels() {
        let text: Text<200> = crate::text!("{} ({})", label, file);
        page.entry(&text);
    }
}

/// How PID 1 is handed over.
fn hand_over(init: &Init) -> Text<200> {
    match (init.asked(), init.obstacle) {
        (None, _) => Text::from("by ptrace"),
        (Some(_), None) => Text::from("when asked; else by ptrace"),
        (Some(_), Some(obstacle)) => {
            crate::text!("when asked, and in no other way: {}", obstacle.why)
        }
    }
}
