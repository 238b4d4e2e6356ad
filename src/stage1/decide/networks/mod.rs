//! Which networks the new OS is given: the settings of the old one are found, read, each network is taken once, and
//! becomes a file for the new boot partition.
//!
//! Changes nothing. The files are gone through twice: first to choose, and to refuse what cannot be carried over, then
//! to write. So nothing is stored when something is refused, and no network is kept in memory, but for the settings of
//! a wireless interface: its Wi-Fis, which get them, are written before these are met again.

mod beside;
mod choice;
mod in_force;
mod sources;
mod wireless;

use crate::balena::keyfile;
use crate::error::Error;
use crate::log::Level;
use crate::network::beside::{Completed, complete};
use crate::network::matching::Machine;
use crate::network::{
    Addresses, Finding, Wifi, Wired, Wireless, ifupdown, manager, names, networkd, wifi,
};
use crate::text::{PathText, Text, Writer, printable};
pub use beside::{beside, name_servers};
use choice::{Candidate, Owner, Sort};
use in_force::InForce;
use sources::{
    BALENA_LOCATIONS, COMMAND_LINE, LOCATIONS, Location, Reader, Together, UNREAD, about_machine,
    for_each_name, has_own_wifis, interface_of, interface_with, is_access_point, is_sample,
    is_wifi_only, lasting_mac, name_may_change, ports, read, read_networkd, read_supplicant,
    read_together,
};
use wireless::SettingsApart;

/// The largest file that is read, in bytes. Real ones are a few hundred bytes each.
const MAX_FILE: usize = 64 * 1024;
/// The least scratch memory that [`gather`] works with, in bytes.
pub const SCRATCH: usize = 256 * 1024;
/// The most networks that are carried over: there are 64 places on the boot partition for all files together.
const MAX_NETWORKS: usize = 56;
/// The most files of one folder that are looked at.
const MAX_FILES: usize = 256;

/// The longest name that a file keeps, in bytes.
const MAX_NAME: usize = 100;

/// The OS whose networks are carried over.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum OldOs {
    /// Any: whatever has settings of networks is read.
    #[default]
    Any,
    /// A balenaOS: its files keep their names.
    Balena,
    /// None, as in a rescue system: only what was given is placed.
    None,
}

/// What the user wants.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Only these Wi-Fis (`--wifi`); all when empty.
    pub only: &'a [String],
    /// No Wi-Fi at all (`--no-wifis`).
    pub no_wifis: bool,
    /// Paths of keyfiles that are given to the new OS (`--nwmgr-cfg`).
    pub inject: &'a [String],
    /// Whose networks they are.
    pub old: OldOs,
    /// What cannot be carried over is only warned of (`--no-nwmgr-check`).
    pub no_nwmgr_check: bool,
}

/// Something to tell the user.
pub struct Note {
    /// How important it is.
    pub level: Level,
    /// The file that it is about; empty for all of them.
    pub file: PathText,
    /// The network that it is about; may be empty.
    pub name: Text<64>,
    /// What there is to say.
    pub why: &'static str,
}

impl Note {
    /// The note as a sentence.
    pub fn text(&self) -> Text<500> {
        let colon = |text: &str| if text.is_empty() { "" } else { ": " };
        Text::build(&mut |line: &mut Writer| {
            ufmt::uwrite!(line, "{}{}", self.file, colon(&self.file))?;
            ufmt::uwrite!(line, "{}{}{}", self.name, colon(&self.name), self.why)
        })
    }

    /// Writes it to the log.
    pub fn log(&self) {
        let text = self.text();
        crate::log::write(self.level, crate::format!("{}", text));
    }
}

/// Where a file for the boot partition goes: its path there, what people call it, and its bytes. They are the scratch
/// memory's.
pub type Store<'a> = dyn FnMut(&str, &str, &[u8]) -> Result<(), Error> + 'a;
/// Where notes go.
pub type Report<'a> = dyn FnMut(Note) + 'a;

/// A network that cannot be carried over.
struct Lost {
    file: PathText,
    name: Text<64>,
    why: &'static str,
}

/// Finds the networks of the OS below `root` (empty for the running one) and hands a file for each to `store`. A
/// refusal names what cannot be carried over, and then nothing was stored. `scratch`: at least [`SCRATCH`] bytes.
pub fn gather(
    root: &str,
    selection: &Selection,
    scratch: &mut [u8],
    store: &mut Store,
    report: &mut Report,
) -> Result<(), Error> {
    let Some((content, output)) = scratch.split_at_mut_checked(MAX_FILE + 1) else {
        return Err(Error::failed("reading", "the network settings", "there is too little memory"));
    };
    let mut gathering = Gathering {
        root,
        selection,
        store,
        report,
        is_choosing: true,
        ordinal: 0,
        candidates: heapless::Vec::new(),
        lost: heapless::Vec::new(),
        apart: SettingsApart::default(),
        resolver: Addresses::default(),
        in_force: InForce::default(),
        wifis: 0,
        others: 0,
    };
    if selection.old == OldOs::Any {
        gathering.resolver = beside::name_servers(root, content)?;
        gathering.in_force = InForce::of(root, content)?;
    }
    gathering.go_through(content, output)?;
    if selection.old != OldOs::None {
        gathering.look_at_wireless_interface(content)?;
        gathering.check_wanted()?;
        gathering.check_lost()?;
        gathering.check_way_online()?;
    }
    gathering.is_choosing = false;
    gathering.ordinal = 0;
    gathering.go_through(content, output)?;
    if selection.old == OldOs::Balena {
        gathering.proxies(content)?;
    }
    if selection.old == OldOs::Any && !root.is_empty() {
        gathering.tell_of_unread(content)?;
    }
    if gathering.wifis + gathering.others == 0 && selection.old != OldOs::None {
        let why = "no network is configured: the new OS uses DHCP on cables";
        gathering.note(Level::Info, "", "", why);
    }
    Ok(())
}

/// A file that is being looked at.
struct File<'a> {
    path: &'a str,
    name: &'a str,
    owner: Owner,
    bytes: &'a [u8],
}

struct Gathering<'a, 'b> {
    root: &'a str,
    selection: &'a Selection<'a>,
    store: &'a mut Store<'b>,
    report: &'a mut Report<'b>,
    /// The first time through.
    is_choosing: bool,
    /// How many networks were seen this time through.
    ordinal: u32,
    candidates: heapless::Vec<Candidate, MAX_NETWORKS>,
    lost: heapless::Vec<Lost, 32>,
    apart: SettingsApart,
    /// The name servers and search domains of the device.
    resolver: Addresses,
    /// Whose settings are in force.
    in_force: InForce,
    /// How many files were written for Wi-Fis.
    wifis: u32,
    /// How many were written for other networks, or were given.
    others: u32,
}

impl Gathering<'_, '_> {
    fn is_from_balena(&self) -> bool {
        self.selection.old == OldOs::Balena
    }

    fn note(&mut self, level: Level, file: &str, name: &str, why: &'static str) {
        (self.report)(Note { level, file: Text::from(file), name: Text::from(name), why });
    }

    /// Looks at every file there is: first the user's, then those of the old OS.
    fn go_through(&mut self, content: &mut [u8], output: &mut [u8]) -> Result<(), Error> {
        let selection = self.selection;
        for path in selection.inject {
            let name = path.rsplit('/').next().unwrap_or_default();
            let bytes = read(path, content)?.ok_or_else(|| {
                Error::refused("reading the keyfile", path, "it is not a file")
                    .advice("check the path that --nwmgr-cfg names")
            })?;
            self.connection(&File { path, name, owner: Owner::User, bytes })?;
        }
        let locations: &[Location] = match self.selection.old {
            OldOs::Any => &LOCATIONS,
            OldOs::Balena => &BALENA_LOCATIONS,
            OldOs::None => &[],
        };
        for location in locations {
            if location.together == Together::All {
                self.networkd(content, output)?;
                continue;
            }
            let folder = crate::path!("{}{}", self.root, self.in_force.folder(location.folder))?;
            for_each_name(&folder, location.start, location.end, &mut |name| {
                let path = crate::path!("{}/{}{}", folder, name, location.below)?;
                let Some(bytes) = read_together(self.root, location, &path, content)? else {
                    return Ok(());
                };
                let file = File { path: &path, name, owner: location.owner, bytes };
                if location.together == Together::Included {
                    // Before the settings of those that join these Wi-Fis.
                    self.named_wpa_files(bytes, output)?;
                }
                match location.read {
                    Some(read) => self.settings(&file, read, output),
                    None => self.connection(&file),
                }
            })?;
        }
        let named = self.in_force.wpa_files.clone();
        for path in &named {
            let path = crate::path!("{}{}", self.root, *path)?;
            let name = path.rsplit('/').next().unwrap_or_default();
            if let Some(bytes) = read(&path, content)? {
                let file = File { path: &path, name, owner: Owner::Supplicant, bytes };
                self.settings(&file, read_supplicant, output)?;
            }
        }
        Ok(())
    }

    /// The files of systemd-networkd, which are one set of settings.
    fn networkd(&mut self, content: &mut [u8], output: &mut [u8]) -> Result<(), Error> {
        let bytes = read_networkd(self.root, content)?;
        let ports = ports(self.root);
        let mut lines = [[0; COMMAND_LINE]; 3];
        let [host, id, command_line] = about_machine(self.root, &mut lines);
        let machine = Machine { ports: &ports, host, id, command_line };
        let mut result = Ok(());
        networkd::parse(bytes, &machine, &mut |path, finding| {
            if result.is_ok() {
                let name = path.rsplit('/').next().unwrap_or_default();
                let file = File { path, name, owner: Owner::Wired, bytes: b"" };
                result = self.finding(&file, finding, output);
            }
        });
        result
    }

    /// The files of wpa_supplicant that settings of ifupdown name, wherever they lie.
    fn named_wpa_files(&mut self, bytes: &[u8], output: &mut [u8]) -> Result<(), Error> {
        for (path, bytes) in ifupdown::wpa_files(bytes) {
            let name = path.rsplit('/').next().unwrap_or_default();
            let path: PathText = crate::path!("{}{}", self.root, path)?;
            let file = File { path: &path, name, owner: Owner::Supplicant, bytes };
            self.settings(&file, read_supplicant, output)?;
        }
        Ok(())
    }

    fn settings(&mut self, file: &File, read: Reader, output: &mut [u8]) -> Result<(), Error> {
        let mut result = Ok(());
        read(file.name, file.bytes, &mut |finding| {
            if result.is_ok() {
                result = self.finding(file, finding, output);
            }
        });
        result
    }

    fn finding(&mut self, file: &File, finding: Finding, output: &mut [u8]) -> Result<(), Error> {
        if let Some(why) = self.in_force.why_not(file.owner, file.path) {
            return self.idle(file, finding, why, output);
        }
        match finding {
            Finding::Wifi(wifi) => self.wifi(file, wifi, output),
            Finding::Wired(wired) => self.wired(file, wired, output),
            Finding::Wireless(apart) => {
                self.wireless(file, apart);
                Ok(())
            }
            Finding::Lost(name, why) => {
                self.lose(file, &name, why);
                Ok(())
            }
            Finding::LostWifi(name, why) => {
                self.lose_wifi(file, &name, why);
                Ok(())
            }
            Finding::Doubtful(name, why) => {
                self.doubt(file, &name, why);
                Ok(())
            }
        }
    }

    /// What a program says that does not run. Its Wi-Fis are carried over all the same, as any that is configured: they
    /// are joined where there is no other. What it would do to an interface is not in force.
    fn idle(
        &mut self,
        file: &File,
        finding: Finding,
        why: &'static str,
        output: &mut [u8],
    ) -> Result<(), Error> {
        let mut say = |name: &str| self.note_once(Level::Warn, file.path, name, why);
        match finding {
            Finding::Wifi(wifi) => return self.wifi(file, wifi, output),
            Finding::Wired(wired) if wired.interface.is_empty() => say(&wired.mac),
            Finding::Wired(wired) => say(&wired.interface),
            Finding::Wireless(apart) => say(&apart.name()),
            Finding::Lost(name, _) | Finding::LostWifi(name, _) => say(&name),
            Finding::Doubtful(..) => {}
        }
        Ok(())
    }

    /// Tells of something when what is carried over is chosen.
    fn note_once(&mut self, level: Level, file: &str, name: &str, why: &'static str) {
        if !self.is_choosing {
            self.note(level, file, name, why);
        }
    }

    /// A Wi-Fi that nobody wants is not lost.
    fn lose_wifi(&mut self, file: &File, name: &str, why: &'static str) {
        if self.wants(name.as_bytes()) {
            self.lose(file, name, why);
        }
    }

    fn lose(&mut self, file: &File, name: &str, why: &'static str) {
        if !self.is_choosing {
            return;
        }
        // A Wi-Fi may be named for each family of addresses.
        let is_same = |lost: &Lost| *lost.name == *name && *lost.file == *file.path;
        if self.lost.iter().any(is_same) {
            return;
        }
        let lost = Lost { file: Text::from(file.path), name: Text::from(name), why };
        if self.lost.push(lost).is_err() {
            // One more does not change the outcome.
            self.note(Level::Warn, file.path, name, why);
        }
    }

    /// Tells of what may not survive; about a Wi-Fi only when it is one that is carried over.
    fn doubt(&mut self, file: &File, name: &str, why: &'static str) {
        if self.is_choosing {
            return;
        }
        let is_it = |candidate: &&Candidate| *wifi::shown(&candidate.ssid) == *name;
        let is_left_out = match self.candidates.iter().find(is_it) {
            Some(chosen) => chosen.owner != file.owner,
            None => !self.wants(name.as_bytes()),
        };
        let is_of_wifis = matches!(file.owner, Owner::Supplicant | Owner::Connman | Owner::Iwd);
        let level = if is_of_wifis && is_left_out { Level::Debug } else { Level::Warn };
        self.note(level, file.path, name, why);
    }

    /// True when the user wants the Wi-Fi of this name.
    fn wants(&self, ssid: &[u8]) -> bool {
        let only = self.selection.only;
        let is_asked_for = only.iter().any(|asked| is_name(asked, ssid));
        !self.selection.no_wifis && (only.is_empty() || is_asked_for)
    }

    /// The first time through, enters the candidate unless there is a better one; the second time, says whether it is
    /// the one that was entered. `shown`: what people call it.
    fn is_taken(
        &mut self,
        file: &File,
        shown: &str,
        mut candidate: Candidate,
    ) -> Result<bool, Error> {
        self.ordinal += 1;
        candidate.ordinal = self.ordinal;
        if !self.is_choosing {
            return Ok(self.candidates.iter().any(|other| other.ordinal == candidate.ordinal));
        }
        let same = self.candidates.iter_mut().find(|other| other.is_same(&candidate));
        let Some(other) = same else {
            return match self.candidates.push(candidate) {
                Ok(()) => Ok(true),
                Err(_) => Err(Error::refused(
                    "carrying over",
                    file.path,
                    "there are more than 56 networks",
                )
                .advice("choose with --wifi SSID")),
            };
        };
        if candidate.owner == Owner::User {
            // Users come first, so the other one is one, too.
            let why = "another one of --nwmgr-cfg has the same name or uuid";
            return Err(Error::refused("taking the keyfile", file.path, why)
                .advice("leave one of them out"));
        }
        let is_ifupdowns = other.owner == Owner::Manager && self.in_force.is_ifupdowns(file.path);
        let is_better = candidate.is_better(other) || is_ifupdowns;
        // Of a Wi-Fi they are mostly the same.
        let level = if candidate.sort == Sort::Wifi { Level::Debug } else { Level::Warn };
        let (level, why) = match is_better {
            true if candidate.drops_addresses_of(other) => (
                Level::Warn,
                "taken without its fixed addresses, which are in other settings of the same network",
            ),
            true => (level, "taken instead of other settings of the same network"),
            false if other.drops_addresses_of(&candidate) => (
                Level::Warn,
                "left out with its fixed addresses: other settings of the same network are taken",
            ),
            false => (level, "left out: other settings of the same network are taken"),
        };
        if is_better {
            *other = candidate;
        }
        self.note(level, file.path, shown, why);
        Ok(is_better)
    }

    fn wifi(&mut self, file: &File, mut wifi: Wifi, output: &mut [u8]) -> Result<(), Error> {
        if !self.wants(&wifi.ssid) {
            return Ok(());
        }
        let not_in_force = self.in_force.why_no_addresses(file.owner, file.path);
        if let Some(why) = not_in_force.filter(|_| !wifi.addresses.is_plain()) {
            self.note_once(Level::Warn, file.path, &wifi::shown(&wifi.ssid), why);
            wifi.addresses = Addresses::default();
        }
        let candidate = Candidate {
            ssid: wifi.ssid.clone(),
            autoconnect: wifi.autoconnect,
            priority: wifi.priority,
            is_fixed: wifi.addresses.is_fixed(),
            ..Candidate::new(file.owner, Sort::Wifi)
        };
        let shown = wifi::shown(&wifi.ssid);
        if !self.is_taken(file, &shown, candidate)? || self.is_choosing {
            return Ok(());
        }
        // The other owners of Wi-Fis set their addresses, too.
        let given = match file.owner {
            Owner::Supplicant => {
                let path = file.path.strip_prefix(self.root).unwrap_or_default();
                self.apart.give(path, interface_of(file.name), &mut wifi)
            }
            Owner::Iwd => self.apart.give("", "", &mut wifi),
            _ => None,
        };
        if let Some(what) = given {
            self.note(Level::Info, file.path, &shown, what);
        }
        self.complete(file, &shown, &mut wifi.addresses);
        if !wifi.autoconnect {
            self.tell_of_idle_wifi(file, &shown);
        }
        let name = self.next_wifi();
        let length = keyfile::wifi(&wifi, &name, output);
        self.store_written(file, &name, &shown, length, output)
    }

    /// Gives fixed addresses the name servers of the device where they have none.
    fn complete(&mut self, file: &File, name: &str, addresses: &mut Addresses) {
        match complete(addresses, &self.resolver) {
            Completed::AsTheyWere => {}
            Completed::Given => {
                let why = "its fixed address is given the name servers that the device has";
                self.note(Level::Info, file.path, name, why);
            }
            Completed::Missing => self.note(Level::Warn, file.path, name, manager::NO_NAME_SERVER),
        }
    }

    /// Nobody joins such a Wi-Fi after the restart: of weight when there is no other.
    fn tell_of_idle_wifi(&mut self, file: &File, name: &str) {
        let joins = |found: &Candidate| found.sort == Sort::Wifi && found.autoconnect;
        let is_alone = !self.candidates.iter().any(joins);
        let level = if is_alone { Level::Warn } else { Level::Info };
        self.note(level, file.path, name, manager::NOT_BY_ITSELF);
    }

    /// What else is known of the interface whose settings its Wi-Fis would get.
    fn look_at_wireless_interface(&mut self, content: &mut [u8]) -> Result<(), Error> {
        let Some(interface) = self.apart.interface() else { return Ok(()) };
        let has_own_file = has_own_wifis(self.root, interface);
        if is_access_point(self.root, interface, content)? {
            self.apart.set_access_point();
        }
        if has_own_file {
            self.apart.set_own_file();
        }
        Ok(())
    }

    /// Settings for Wi-Fis that are read before them: kept the first time through, and the second time told of when
    /// they were given to nobody.
    fn wireless(&mut self, file: &File, mut apart: Wireless) {
        if !self.is_choosing {
            let Wired { interface, mac, .. } = &apart.settings;
            if self.is_nowhere(file, interface, mac) {
                return;
            }
            if let Some(why) = self.apart.verdict(&apart) {
                let is_there = |found: &Candidate| found.ssid == apart.ssid;
                let is_missed = !self.selection.no_wifis
                    && (apart.ssid.is_empty() || self.candidates.iter().any(is_there));
                let level = if is_missed { Level::Warn } else { Level::Debug };
                self.note(level, file.path, &apart.name(), why);
            }
            return;
        }
        let Wired { interface, mac, .. } = &mut apart.settings;
        if in_force::is_absent(self.root, interface, mac) {
            return;
        }
        let port = self.port(interface, mac);
        if interface.is_empty() {
            *interface = interface_with(self.root, mac);
        }
        self.apart.add(&port, apart);
    }

    /// What an interface goes by when settings are compared: its lasting hardware address, or else its name.
    fn port(&self, interface: &str, mac: &str) -> Text<17> {
        // Who is taken is only asked the first time through.
        let by_name = || lasting_mac(self.root, interface).unwrap_or_else(|| Text::from(interface));
        match interface.is_empty() {
            true => Text::from(mac),
            false if self.is_choosing => by_name(),
            false => Text::new(),
        }
    }

    fn wired(&mut self, file: &File, mut wired: Wired, output: &mut [u8]) -> Result<(), Error> {
        let shown: Text<17> = if wired.interface.is_empty() {
            wired.mac.clone()
        } else {
            Text::from(&*wired.interface)
        };
        let port = self.port(&wired.interface, &wired.mac);
        let is_fixed = wired.addresses.is_fixed();
        let candidate = Candidate { port, is_fixed, ..Candidate::new(file.owner, Sort::Wired) };
        if self.is_nowhere(file, &wired.interface, &wired.mac)
            || !self.is_taken(file, &shown, candidate)?
            || self.is_choosing
        {
            return Ok(());
        }
        self.complete(file, &shown, &mut wired.addresses);
        if !wired.interface.is_empty() && name_may_change(self.root, &wired.interface) {
            self.bind_to_hardware(file, &mut wired);
        }
        if !wired.mac.is_empty() && !names::is_makers_mac(&wired.mac) {
            let why = "its settings go by a hardware address that the old OS may have made up";
            self.note(Level::Warn, file.path, &shown, why);
        }
        // Whatever is for any cable would be taken as well as these.
        let needed = self.candidates.iter().map(|found| found.priority_before);
        wired.priority = needed.max().unwrap_or(0);
        let name = self.next_other();
        let length = keyfile::wired(&wired, &name, output);
        self.store_written(file, &name, &shown, length, output)
    }

    /// Whether settings are for an interface that is not there, as far as that is known; that is said.
    fn is_nowhere(&mut self, file: &File, interface: &str, mac: &str) -> bool {
        let is_nowhere =
            file.owner != Owner::User && in_force::is_absent(self.root, interface, mac);
        if is_nowhere {
            let name = if interface.is_empty() { mac } else { interface };
            let why = "its settings are not carried over: there is no such interface";
            self.note_once(Level::Warn, file.path, name, why);
        }
        is_nowhere
    }

    /// Binds settings to a hardware address instead of a name that may change, or warns.
    fn bind_to_hardware(&mut self, file: &File, wired: &mut Wired) {
        let mac = if wired.mac.is_empty() {
            lasting_mac(self.root, &wired.interface)
        } else {
            Some(wired.mac.clone()).filter(|mac| names::is_makers_mac(mac))
        };
        match mac {
            Some(mac) => {
                wired.mac = mac;
                wired.interface = Text::new();
            }
            None => {
                let why = "its settings are bound to the interface, which may have another name in the new OS";
                self.note(Level::Warn, file.path, &wired.interface, why);
            }
        }
    }

    fn next_wifi(&mut self) -> Text<MAX_NAME> {
        self.wifis += 1;
        numbered("balena-wifi-", self.wifis)
    }

    /// The next name of a file that is no Wi-Fi's.
    fn next_other(&mut self) -> Text<MAX_NAME> {
        self.others += 1;
        numbered("balena-", self.others)
    }

    fn store_written(
        &mut self,
        file: &File,
        name: &str,
        label: &str,
        length: Option<usize>,
        output: &[u8],
    ) -> Result<(), Error> {
        let bytes = length.and_then(|length| output.get(..length));
        let why = "its settings do not make a keyfile";
        let bytes = bytes.ok_or_else(|| Error::refused("translating", file.path, why))?;
        self.store_connection(name, label, bytes)
    }

    fn store_connection(&mut self, name: &str, label: &str, bytes: &[u8]) -> Result<(), Error> {
        let path: PathText = crate::path!("system-connections/{}", name)?;
        (self.store)(&path, label, bytes)
    }

    /// A keyfile: the user's or NetworkManager's. It is carried over byte for byte.
    fn connection(&mut self, file: &File) -> Result<(), Error> {
        let is_named = manager::is_connection_file_name(file.name);
        let keeps_name = self.is_from_balena();
        if keeps_name && file.name.len() > MAX_NAME {
            return Err(Error::refused(
                "carrying over",
                file.path,
                "its name is longer than 100 bytes",
            )
            .advice("rename the file"));
        }
        let mut result = manager::summarise(file.bytes);
        if !is_named && (keeps_name || file.owner != Owner::User) {
            result = Err("the new OS takes no file of that name for a connection");
        }
        let mut summary = match result {
            Ok(summary) => summary,
            Err(why) => return self.no_connection(file, why, is_named),
        };
        summary.name_after(file.name);
        let is_wifi = summary.kind == manager::Kind::Wifi;
        let is_wanted = !is_wifi || file.owner == Owner::User || self.wants(&summary.ssid);
        if summary.is_volatile
            || !is_wanted
            || self.is_idle(file, &summary)
            || self.is_lost(file, &summary)
        {
            return Ok(());
        }
        let candidate = self.connection_candidate(file, &summary);
        let sort = candidate.sort;
        if !self.is_taken(file, &summary.name(), candidate)? || self.is_choosing {
            return Ok(());
        }
        self.tell_of_connection(file, &summary, sort);
        let name = self.name_connection(file, sort);
        self.store_connection(&name, &summary.name(), file.bytes)
    }

    /// What is to be said of a connection that is carried over.
    fn tell_of_connection(&mut self, file: &File, summary: &manager::Summary, sort: Sort) {
        let root = self.root;
        summary.findings(&|name| name_may_change(root, name), &mut |finding| {
            if let Finding::Lost(name, why)
            | Finding::LostWifi(name, why)
            | Finding::Doubtful(name, why) = finding
            {
                self.note(Level::Warn, file.path, &name, why);
            }
        });
        if sort == Sort::Wifi && !summary.autoconnect {
            self.tell_of_idle_wifi(file, &summary.name());
        }
        let is_first = summary.is_before_all() && file.owner != Owner::User;
        if is_first && self.candidates.iter().any(|found| found.sort == Sort::Wired) {
            let why = "it is for any cable, and the new OS may prefer it to the settings of one interface that another program has";
            self.note(Level::Warn, file.path, &summary.name(), why);
        }
    }

    /// Whether a connection of the old NetworkManager is not in force; that is said.
    fn is_idle(&mut self, file: &File, summary: &manager::Summary) -> bool {
        use manager::Kind;
        if file.owner == Owner::User || self.is_from_balena() {
            return false;
        }
        let manager::Summary { kind, interface_name, mac_address, .. } = summary;
        if matches!(kind, Kind::Ethernet | Kind::Wifi)
            && self.is_nowhere(file, interface_name, mac_address)
        {
            return true;
        }
        if in_force::is_hidden(self.root, file.path, &summary.uuid) {
            return true;
        }
        let is_wifi = *kind == Kind::Wifi;
        let idle = self.in_force.why_not(file.owner, file.path).filter(|_| !is_wifi);
        let left_alone = self.in_force.why_left_alone(interface_name, mac_address);
        let insecure = in_force::is_insecure(self.root, file.path).then_some(in_force::INSECURE);
        let why = idle.or(left_alone).or(insecure);
        if let Some(why) = why {
            self.note_once(Level::Warn, file.path, &summary.name(), why);
        }
        // A Wi-Fi is joined where there is no other; that does no harm.
        why.is_some() && !(is_wifi && why == insecure)
    }

    /// A file that is no connection: the user's is refused. What else lies beside the connections of a balenaOS may be
    /// a certificate of one of them, and goes with them.
    fn no_connection(
        &mut self,
        file: &File,
        why: &'static str,
        is_named: bool,
    ) -> Result<(), Error> {
        if file.owner == Owner::User {
            return Err(Error::refused("reading the keyfile", file.path, why)
                .advice("correct the file that --nwmgr-cfg names"));
        }
        if self.is_from_balena() && !is_sample(file.name) {
            let candidate = Candidate {
                file_name: Text::from(file.name),
                ..Candidate::new(file.owner, Sort::Other)
            };
            if self.is_taken(file, file.name, candidate)? && !self.is_choosing {
                self.others += 1;
                self.store_connection(file.name, file.name, file.bytes)?;
            }
        } else if self.is_choosing && is_named {
            self.note(Level::Warn, file.path, "", why);
        }
        Ok(())
    }

    fn connection_candidate(&self, file: &File, summary: &manager::Summary) -> Candidate {
        use manager::Kind;
        let sort = match summary.kind {
            // An access point of this device is no way online: another Wi-Fi may have its name.
            Kind::Wifi if !summary.is_own_network => Sort::Wifi,
            Kind::Gsm => Sort::Modem,
            _ => Sort::Other,
        };
        // A bridge and what belongs to it, or two profiles for one port, are told apart by their uuid only.
        let port = match summary.kind {
            Kind::Ethernet => self.port(&summary.interface_name, &summary.mac_address),
            _ => Text::new(),
        };
        let name = if self.is_from_balena() { file.name } else { "" };
        Candidate {
            ssid: summary.ssid.clone(),
            port,
            uuid: summary.uuid.clone(),
            file_name: Text::from(name),
            autoconnect: summary.autoconnect,
            priority: summary.priority,
            priority_before: summary.priority_before(),
            is_fixed: summary.is_fixed,
            ..Candidate::new(file.owner, sort)
        }
    }

    /// Counts a connection and names its file.
    fn name_connection(&mut self, file: &File, sort: Sort) -> Text<MAX_NAME> {
        let generated = if sort == Sort::Wifi && file.owner != Owner::User {
            self.next_wifi()
        } else {
            self.next_other()
        };
        if self.is_from_balena() { Text::from(file.name) } else { generated }
    }

    /// True when a connection cannot be carried over. What the user gives, and what a balenaOS has, is in any case.
    fn is_lost(&mut self, file: &File, summary: &manager::Summary) -> bool {
        if file.owner == Owner::User || self.is_from_balena() {
            return false;
        }
        let mut is_lost = false;
        // One reason is enough; no name is one.
        summary.findings(&|_| false, &mut |finding| match finding {
            _ if is_lost => {}
            Finding::Lost(name, why) => {
                self.lose(file, &name, why);
                is_lost = true;
            }
            Finding::LostWifi(name, why) => {
                self.lose_wifi(file, &name, why);
                is_lost = true;
            }
            _ => {}
        });
        is_lost
    }

    /// Every Wi-Fi that was asked for by name must be there.
    fn check_wanted(&self) -> Result<(), Error> {
        for asked in self.selection.only {
            let is_there = self.candidates.iter().any(|found| is_name(asked, &found.ssid))
                || self.lost.iter().any(|lost| *lost.name == **asked);
            if !is_there {
                let why = "no settings of it were found";
                return Err(Error::refused("looking for the Wi-Fi", asked, why)
                    .advice("check the spelling, or give a keyfile for it with --nwmgr-cfg FILE"));
            }
        }
        Ok(())
    }

    /// What cannot be carried over, and is not there in another form, is a refusal.
    fn check_lost(&mut self) -> Result<(), Error> {
        let mut names = Text::<160>::new();
        let mut first = None;
        for lost in core::mem::take(&mut self.lost) {
            let is_there = |found: &Candidate| {
                found.sort == Sort::Wifi && *wifi::shown(&found.ssid) == *lost.name
            };
            if self.candidates.iter().any(is_there) {
                self.note(Level::Debug, &lost.file, &lost.name, lost.why);
                continue;
            }
            // What a bridge has that is in force goes to its cable, and what cannot is refused there (reach.rs).
            if self.root.is_empty() && lost.why == names::BRIDGE {
                self.note(Level::Warn, &lost.file, &lost.name, lost.why);
                continue;
            }
            self.note(Level::Warn, &lost.file, &lost.name, lost.why);
            let gap = if names.is_empty() { "" } else { ", " };
            names = crate::text!("{}{}{}", names, gap, lost.name);
            first = Some(match first {
                Some(why) if why != lost.why => "for the reasons that the warnings name",
                _ => lost.why,
            });
        }
        match first {
            Some(why) if !self.selection.no_nwmgr_check => {
                Err(Error::refused("carrying over the network", &names, why).advice(
                    "give the same as a keyfile (--nwmgr-cfg FILE), take no Wi-Fi (--no-wifis), or go on without \
                     (--no-nwmgr-check)",
                ))
            }
            _ => Ok(()),
        }
    }

    /// A device that is online by Wi-Fi only would be lost without one.
    fn check_way_online(&mut self) -> Result<(), Error> {
        let is_way = |found: &Candidate| {
            let is_one = matches!(found.sort, Sort::Wifi | Sort::Modem);
            is_one && found.autoconnect || found.owner == Owner::User
        };
        if self.candidates.iter().any(is_way) || !is_wifi_only(self.root)? {
            return Ok(());
        }
        let has_wifi = self.candidates.iter().any(|found| found.sort == Sort::Wifi);
        let why = if has_wifi {
            "a Wi-Fi is its only way online, and none that is carried over is joined by itself"
        } else {
            "a Wi-Fi is its only way online, and no settings of one are carried over"
        };
        if self.selection.no_nwmgr_check {
            self.note(Level::Warn, "", "this device", why);
            Ok(())
        } else {
            Err(Error::refused("looking at the networks of", "this device", why).advice(
                "give a keyfile (--nwmgr-cfg FILE), connect a cable, or go on without (--no-nwmgr-check)",
            ))
        }
    }

    /// Names the files of a system that does not run which only the running one explains.
    fn tell_of_unread(&mut self, content: &mut [u8]) -> Result<(), Error> {
        for (folder, start, end) in UNREAD {
            let folder = crate::path!("{}{}", self.root, folder)?;
            for_each_name(&folder, start, end, &mut |name| {
                let path = crate::path!("{}/{}", folder, name)?;
                if name != "ifcfg-lo" && read(&path, content)?.is_some() {
                    let why = "its settings are not read: what they set is seen on the running system only";
                    self.note(Level::Warn, &path, "", why);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// The files of the proxy of a balenaOS.
    fn proxies(&mut self, content: &mut [u8]) -> Result<(), Error> {
        let folder = crate::path!("{}/mnt/boot/system-proxy", self.root)?;
        for_each_name(&folder, "", "", &mut |name| {
            let path = crate::path!("{}/{}", folder, name)?;
            if let Some(bytes) = read(&path, content)?.filter(|_| !is_sample(name)) {
                let to = crate::path!("system-proxy/{}", name)?;
                (self.store)(&to, name, bytes)?;
            }
            Ok(())
        })
    }
}

/// A name with a number of at least two digits.
fn numbered(start: &str, number: u32) -> Text<MAX_NAME> {
    let zero = if number < 10 { "0" } else { "" };
    crate::text!("{}{}{}", start, zero, number)
}

/// True when a Wi-Fi is called what the user typed: its bytes, or the way it is shown.
fn is_name(asked: &str, ssid: &[u8]) -> bool {
    asked.as_bytes() == ssid || !ssid.is_empty() && *printable::<64>(ssid) == *asked
}

#[cfg(test)]
mod tests;
