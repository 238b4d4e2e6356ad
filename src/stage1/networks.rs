//! Which networks would be carried over, and how the new OS would be reached: what people look at before they migrate.
//! Changes nothing but the folder that is named for the keyfiles.

use super::decide::carry;
use super::decide::configuration::Beside;
use super::decide::page::{Form, Page};
use super::decide::preview::{DHCP, show_networks};
use super::decide::reach::{self, Reach};
use super::decide::report::Report;
use super::look::{identity, live};
use crate::cli::{Flag, Options};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::BUFFER;
use crate::network::manager;
use crate::new_os::new_files::NewFiles;
use crate::sys::map;
use crate::text::{Text, printable};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Prints what would be carried over, from this system or from one that is mounted somewhere (`--root`), and writes the
/// keyfiles to a folder (`--output`). What a takeover would refuse is refused here, too, once everything is shown.
pub fn print_networks(options: &Options) -> Result<(), Error> {
    super::stay_in_memory();
    let root = options.root.as_deref().unwrap_or_default().trim_end_matches('/');
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let here = crate::path!("{}/", root)?;
    files::open(&here, flags).doing("opening the root", &here).map_err(|error| {
        error.as_refusal().advice("name the folder where that system is mounted (--root DIR)")
    })?;
    let buffer = map::buffer(BUFFER).doing("reserving", "memory")?;
    let identity = identity::gather(root)?;
    let mut report = Report::new();
    let mut new_files = NewFiles::new();
    let is_strict = !options.has(Flag::NoNetworkCheck);
    let mut gather = |is_strict, new_files: &mut NewFiles, report: &mut Report| {
        carry::networks_of(options, root, is_strict, Some(&identity), buffer, new_files, report)
    };
    let mut refusal = gather(is_strict, &mut new_files, &mut report).err();
    if refusal.is_some() {
        // What is refused is among the warnings then.
        (report, new_files) = (Report::quiet(), NewFiles::new());
        gather(false, &mut new_files, &mut report)?;
    }
    let beside = carry::beside(root, Some(&identity), buffer, &mut report)?;
    let mut reach = Reach::default();
    if root.is_empty() {
        let live = live::gather(buffer)?;
        let name_servers = carry::name_servers(buffer)?;
        reach = reach::compare(live, &name_servers, &mut new_files, buffer, &mut report)?;
        refusal = refusal.or(reach.check(options).err());
    }
    print(options, &new_files, &reach, &report)?;
    print_beside(options, &beside)?;
    if let Some(folder) = options.output.as_deref() {
        write(folder, &new_files)?;
    }
    refusal.map_or(Ok(()), Err)
}

fn print(
    options: &Options,
    new_files: &NewFiles,
    reach: &Reach,
    report: &Report,
) -> Result<(), Error> {
    let form = if options.has(Flag::Json) { Form::Json } else { Form::People };
    let output = rustix::stdio::stdout();
    let mut page = Page::new(form, output.as_fd());
    page.section("networks", "The networks of the new OS");
    show_networks(new_files, DHCP, &mut page);
    reach.show(&mut page);
    report.show(&mut page);
    page.finish()?;
    if form == Form::Json {
        return Ok(());
    }
    for (path, bytes) in new_files.named_connections() {
        let title: Text<200> = crate::text!("\n{}\n", name_of(path));
        put(&title)?;
        let mut group: &[u8] = &[];
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // Blanks around it are none of the name.
            if line.trim_ascii().starts_with(b"[") {
                group = line.trim_ascii();
            }
            // Keys of networks are nobody's to see over a shoulder.
            let line: Text<300> = match manager::without_secret(group, line) {
                Some(key) => crate::text!("  {}=(hidden)\n", printable::<100>(key)),
                None => crate::text!("  {}\n", printable::<290>(line)),
            };
            put(&line)?;
        }
    }
    Ok(())
}

/// What goes into config.json where that says nothing of it.
fn print_beside(options: &Options, beside: &Beside) -> Result<(), Error> {
    let has_any = beside.values().any(|(_, value)| value.is_some());
    if options.has(Flag::Json) || !has_any {
        return Ok(());
    }
    put("\nconfig.json, where it has none\n")?;
    for (key, value) in beside.values() {
        if let Some(value) = value {
            let line: Text<240> =
                crate::text!("  {}: {}\n", key, printable::<200>(value.as_bytes()));
            put(&line)?;
        }
    }
    Ok(())
}

fn put(text: &str) -> Result<(), Error> {
    files::write_all(rustix::stdio::stdout(), text.as_bytes())
        .doing("writing to", "standard output")
}

/// Each keyfile as a file of its own, mode 0600. One that is there already is left alone, and that is an error.
fn write(folder: &str, new_files: &NewFiles) -> Result<(), Error> {
    match files::make_directory(folder) {
        Ok(()) | Err(Errno::EXIST) => {}
        result => result
            .doing("making the folder", folder)
            .map_err(|error| error.advice("name a folder that can be made (--output DIR)"))?,
    }
    for (path, bytes) in new_files.named_connections() {
        let file = files::below(folder, name_of(path))?;
        files::create(&file, bytes)
            .map_err(|error| error.advice("name a folder that is empty, or not there yet"))?;
    }
    Ok(())
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}
