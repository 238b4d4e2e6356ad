//! For which interfaces a file of systemd-networkd is: `[Match]` of systemd.network(5), version 256.
//!
//! What is not known of an interface decides nothing: then the file may be for it. Opens no file.

use super::Ssid;
use super::names;
use super::wifi;
use super::words::{assignment, is_like, lines, text, words};
use crate::text::Text;

/// An interface of this machine with hardware of its own.
#[derive(Clone, Default, Debug)]
pub struct Port {
    /// The kernel's name of it.
    pub name: Text<15>,
    /// Its hardware address, `aa:bb:cc:dd:ee:ff`.
    pub mac: Text<17>,
    /// Its driver; may be empty.
    pub driver: Text<32>,
    /// Where it is on its bus, as udev says it (`ID_PATH`); may be empty.
    pub path: Text<96>,
    /// It is a Wi-Fi.
    pub is_wireless: bool,
}

/// What is known of the machine; what is empty is not.
#[derive(Clone, Copy, Default)]
pub struct Machine<'a> {
    /// Its interfaces.
    pub ports: &'a [Port],
    /// Its name.
    pub host: &'a str,
    /// What /etc/machine-id says.
    pub id: &'a str,
    /// The command line of the kernel.
    pub command_line: &'a str,
}

impl Machine<'_> {
    /// Whether it has this name or number (condition_test_host in condition.c).
    fn is_host(&self, asked: &[u8]) -> bool {
        let is_it = |known: &str| known.as_bytes().eq_ignore_ascii_case(asked);
        is_it(self.host) || is_it(self.id) || is_like(asked, self.host.as_bytes())
    }

    /// Whether the kernel was given this word, or a value for it (condition_test_kernel_command_line).
    fn was_given(&self, asked: &[u8]) -> bool {
        self.command_line.split_ascii_whitespace().any(|word| {
            let rest = word.as_bytes().strip_prefix(asked);
            rest.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with(b"=") && !asked.contains(&b'=')
            })
        })
    }
}

/// Whether a file is for an interface.
#[derive(Clone, Copy, Default, PartialEq)]
pub(super) enum Fit {
    #[default]
    No,
    /// Something that was not looked at decides.
    Maybe,
    Yes,
}

/// An interface that a file is, or may be, for.
#[derive(Default)]
pub(super) struct Target<'a> {
    /// What its settings go by, when that is a name.
    pub(super) name: &'a str,
    /// What they go by, when that is a hardware address.
    pub(super) mac: Text<17>,
    /// The Wi-Fi that it has to have joined.
    pub(super) ssid: Option<Ssid>,
    pub(super) fit: Fit,
    /// Another file may be for it in place of this one: what decides is not known.
    pub(super) is_open: bool,
    port: Option<&'a Port>,
}

/// Interfaces that a file is for.
pub(super) type Targets<'a> = heapless::Vec<Target<'a>, 16>;

/// Words of which each may be taken or ruled out.
#[derive(Default)]
struct List<'a> {
    words: heapless::Vec<(&'a [u8], bool), 24>,
    /// There are more.
    is_cut: bool,
}

impl<'a> List<'a> {
    /// One line more; an empty one takes back what was said before. `!` in front rules out all of its words.
    fn add(&mut self, value: &'a [u8]) {
        if value.is_empty() {
            *self = Self::default();
        }
        let is_out = value.starts_with(b"!");
        for word in words(value.strip_prefix(b"!").unwrap_or(value)) {
            self.is_cut |= self.words.push((word, is_out)).is_err();
        }
    }

    fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The words that are not ruled out.
    fn wanted(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.words.iter().filter(|(_, is_out)| !is_out).map(|(word, _)| *word)
    }

    /// Whether it takes this text (net_condition_test_strv in net-condition.c).
    fn takes(&self, text: &str) -> bool {
        let is_like_it = |(word, _): &&(&[u8], bool)| is_like(word, text.as_bytes());
        let mut like = self.words.iter().filter(is_like_it).peekable();
        let is_wanted = like.peek().is_some() || self.wanted().next().is_none() || self.is_cut;
        is_wanted && !like.any(|(_, is_out)| *is_out)
    }
}

/// What `[Match]` says.
#[derive(Default)]
pub(super) struct Match<'a> {
    names: List<'a>,
    macs: List<'a>,
    types: List<'a>,
    kinds: List<'a>,
    drivers: List<'a>,
    paths: List<'a>,
    /// `SSID=` as it is written, and two conditions.
    ssid: &'a [u8],
    host: &'a [u8],
    command_line: &'a [u8],
    is_wireless: bool,
    is_conditional: bool,
    /// It is for what takeover does not run in.
    is_for_container: bool,
    /// It is for some of the Wi-Fis, or for an access point.
    pub(super) is_special: bool,
    /// Nothing is said: systemd-networkd leaves such a file out.
    pub(super) is_empty: bool,
}

/// Whether a line begins a section; then its name.
pub(super) fn header(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(b"[")?.strip_suffix(b"]")
}

impl<'a> Match<'a> {
    /// Reads it in a file, with what was added to it.
    pub(super) fn of(file: &'a [u8]) -> Self {
        let mut matched = Self { is_empty: true, ..Self::default() };
        let mut section: &[u8] = b"";
        for line in lines(file) {
            section = header(line).unwrap_or(section);
            if let Some((name, value)) = assignment(line).filter(|_| section == b"Match") {
                matched.is_empty = false;
                matched.line(name, value);
            }
        }
        matched
    }

    fn line(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"Name" | b"OriginalName" => self.names.add(value),
            b"MACAddress" | b"PermanentMACAddress" => {
                let is_mac = |word| !names::mac(text(word)).is_empty();
                if value.is_empty() || words(value).any(is_mac) {
                    self.macs.add(value);
                }
            }
            b"Type" => self.types.add(value),
            b"Kind" => self.kinds.add(value),
            b"Driver" => self.drivers.add(value),
            b"Path" => self.paths.add(value),
            b"SSID" => {
                // Two lines are one list.
                self.is_special |= !self.ssid.is_empty() && !value.is_empty();
                self.ssid = value;
                self.is_wireless |= !value.is_empty();
            }
            b"WLANInterfaceType" | b"BSSID" => {
                self.is_wireless = true;
                self.is_special |= value != b"station";
            }
            b"Host" => self.host = value,
            b"KernelCommandLine" => self.command_line = value,
            b"Virtualization" if value == b"container" => self.is_for_container = true,
            b"Virtualization" if value == b"!container" => {}
            // Property=, KernelVersion= and the like, and what later versions will have.
            _ => self.is_conditional |= !value.is_empty(),
        }
    }

    /// Why an interface of this kind cannot be carried over, when only those made by software are meant.
    pub(super) fn made(&self) -> Option<&'static str> {
        let is_hardware = ["ether", "wlan", "wwan"].iter().any(|kind| self.types.takes(kind));
        let types = self.types.wanted().filter(|_| !is_hardware);
        let first = self.kinds.wanted().chain(types).next();
        let of_driver = self.drivers.wanted().find_map(names::of_kind);
        first.map(|kind| names::of_kind(kind).unwrap_or(names::OTHER)).or(of_driver)
    }

    /// Whether what it asks of the machine is so.
    fn condition(&self, machine: &Machine) -> Fit {
        let mut fit = if self.is_conditional { Fit::Maybe } else { Fit::Yes };
        for (asked, known, is_host) in
            [(self.host, machine.host, true), (self.command_line, machine.command_line, false)]
        {
            let bare = asked.strip_prefix(b"!").unwrap_or(asked).trim_ascii_start();
            let is_so = if is_host { machine.is_host(bare) } else { machine.was_given(bare) };
            match (asked.is_empty(), known.is_empty()) {
                (true, _) => {}
                (false, true) => fit = Fit::Maybe,
                (false, false) if is_so != asked.starts_with(b"!") => {}
                (false, false) => return Fit::No,
            }
        }
        fit
    }

    /// Whether it is for an interface.
    pub(super) fn fits(&self, machine: &Machine, target: &Target) -> Fit {
        let name = target.port.map_or(target.name, |port| &*port.name);
        let mac = target.port.map_or(&*target.mac, |port| &*port.mac);
        let (driver, path) = target.port.map_or(("", ""), |port| (&*port.driver, &*port.path));
        let is_mac = |word: &[u8]| *names::mac(text(word)) == *mac;
        let mut fit = self.condition(machine);
        for (list, known, takes) in [
            (&self.names, name, self.names.takes(name)),
            (&self.macs, mac, self.macs.wanted().any(is_mac)),
            (&self.drivers, driver, self.drivers.takes(driver)),
            (&self.paths, path, self.paths.takes(path)),
        ] {
            match (list.is_empty(), known.is_empty()) {
                (true, _) => {}
                (false, true) => fit = Fit::Maybe,
                (false, false) if takes => {}
                (false, false) => return Fit::No,
            }
        }
        let wireless = target.is_wireless();
        let takes_type = |is_wlan: bool| {
            let other = if name.starts_with("ww") { "wwan" } else { "ether" };
            self.types.takes(if is_wlan { "wlan" } else { other })
        };
        let takes_it = match wireless {
            Some(is_wlan) => takes_type(is_wlan) && (is_wlan || !self.is_wireless),
            None => takes_type(true) || takes_type(false),
        };
        let is_out = self.is_empty || self.is_for_container || fit == Fit::No;
        if !takes_it || is_out || self.made().is_some() {
            return Fit::No;
        }
        match (&target.ssid, one_ssid(self.ssid)) {
            _ if self.ssid.is_empty() && !self.is_special => fit,
            (Some(one), Some(other)) if !self.is_special && *one != other => Fit::No,
            (Some(_), Some(_)) if !self.is_special => fit,
            _ => Fit::Maybe,
        }
    }

    /// Whether something that is not known of the interface decides.
    pub(super) fn depends(&self, machine: &Machine, target: &Target) -> bool {
        let is_unknown = |list: &List, known: fn(&Port) -> &str| {
            !list.is_empty() && target.port.is_none_or(|port| known(port).is_empty())
        };
        self.condition(machine) == Fit::Maybe
            || is_unknown(&self.drivers, |port| &port.driver)
            || is_unknown(&self.paths, |port| &port.path)
    }

    /// The Wi-Fi that the interface has to have joined, if it is one. None for several, or for a pattern.
    pub(super) fn ssid(&self) -> Option<Ssid> {
        one_ssid(self.ssid).filter(|_| !self.is_special)
    }

    /// Whether the Wi-Fis of the interface are all meant, or just one.
    pub(super) fn has_plain_ssid(&self) -> bool {
        !self.is_special && (self.ssid.is_empty() || self.ssid().is_some())
    }

    /// Whether it is for what joins Wi-Fis.
    pub(super) fn is_for_wireless(&self) -> bool {
        let takes = |kind| self.types.takes(kind);
        self.is_wireless || !self.types.is_empty() && takes("wlan") && !takes("ether")
    }

    /// What messages call the interfaces.
    pub(super) fn shown(&self) -> &'a [u8] {
        let word = |list: &List<'a>| list.words.first().map(|(word, _)| *word);
        word(&self.names)
            .or(word(&self.macs))
            .or(Some(self.ssid).filter(|ssid| !ssid.is_empty()))
            .unwrap_or(b"any interface")
    }

    /// The interfaces that it is for: those that it names, and those of this machine that it takes. One without a name
    /// when it is not to be known which, and none when there is none.
    pub(super) fn targets(&self, machine: &Machine<'a>) -> Targets<'a> {
        let ports = machine.ports;
        let mut targets = Targets::new();
        if self.is_empty || self.is_for_container {
            return targets;
        }
        let mut add = |name: &'a str, mac, port| {
            let ssid = self.ssid();
            let mut target = Target { name, mac, port, ssid, ..Target::default() };
            let is_made = self.made().is_some() && !name.is_empty();
            target.fit = if is_made { Fit::Yes } else { self.fits(machine, &target) };
            if target.fit != Fit::No {
                // More of one file are nobody's.
                let _ = targets.push(target);
            }
        };
        let is_name = |word: &&[u8]| names::is_interface(text(word));
        let mut named = self.names.wanted().filter(is_name).map(text);
        let macs = || self.macs.wanted().map(|mac| names::mac(text(mac)));
        if macs().any(|mac| !mac.is_empty()) {
            let one = named.next().filter(|_| named.next().is_none()).unwrap_or_default();
            for mac in macs().filter(|mac| !mac.is_empty()) {
                let port = ports.iter().find(|port| *port.mac == *mac);
                add(one, mac, port);
            }
            return targets;
        }
        for name in named.clone() {
            add(name, Text::new(), ports.iter().find(|port| *port.name == *name));
        }
        let is_named = |port: &&Port| named.clone().any(|name| *name == *port.name);
        let has_patterns = self.names.words.iter().any(|(word, out)| *out || !is_name(word));
        let is_open = has_patterns || self.names.is_empty();
        let is_by_ssid = self.names.is_empty() && !self.ssid.is_empty();
        if is_open && self.made().is_none() {
            if ports.is_empty() || is_by_ssid {
                add("", Text::new(), None);
            } else {
                ports.iter().filter(|port| !is_named(port)).for_each(|port| {
                    add(&port.name, Text::new(), Some(port));
                });
            }
        }
        self.without_guesses(targets)
    }

    /// Of several interfaces of which only one may be meant it is not known which.
    fn without_guesses(&self, mut targets: Targets<'a>) -> Targets<'a> {
        let is_guess = |target: &Target| target.fit == Fit::Maybe && target.port.is_some();
        let is_by_name = !self.names.is_empty();
        if !is_by_name && targets.iter().filter(|target| is_guess(target)).count() > 1 {
            targets.clear();
            let nameless = Target { ssid: self.ssid(), fit: Fit::Maybe, ..Target::default() };
            let _ = targets.push(nameless);
        }
        targets
    }
}

impl Target<'_> {
    /// Whether it is a Wi-Fi, when that is known.
    fn is_wireless(&self) -> Option<bool> {
        let by_name = || names::is_wireless(self.name).then_some(true);
        self.port.map(|port| port.is_wireless).or_else(by_name)
    }

    /// Whether it is known to be a Wi-Fi.
    pub(super) fn is_known_wireless(&self) -> bool {
        self.is_wireless() == Some(true)
    }
}

/// The Wi-Fi that `SSID=` names, when it is one: a list of words, each with quotation marks around it or not, in which
/// `*`, `?`, `[`, `!` and `\` mean more than themselves.
fn one_ssid(value: &[u8]) -> Option<Ssid> {
    let quoted = |mark: &[u8]| value.strip_prefix(mark)?.strip_suffix(mark);
    let bare = quoted(b"\"").or(quoted(b"'"));
    let is_one = bare.is_some() || words(value).nth(1).is_none();
    let name = bare.unwrap_or(value);
    let is_special = |byte: &u8| b"*?[!\\\"'".contains(byte);
    wifi::ssid(name).filter(|name| is_one && !name.iter().any(is_special))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, mac: &str, driver: &str) -> Port {
        Port {
            name: Text::from(name),
            mac: Text::from(mac),
            driver: Text::from(driver),
            path: Text::from(&*format!("platform-{name}")),
            is_wireless: name.starts_with("wl"),
        }
    }

    /// The names or hardware addresses that a file is for; `?` behind what depends on something.
    fn meant(text: &str, ports: &[Port]) -> String {
        let command_line = "console=tty1 quiet plant=3";
        let machine = Machine { ports, host: "Press-3", id: "0123abcd", command_line };
        meant_on(text, &machine)
    }

    fn meant_on(text: &str, machine: &Machine) -> String {
        let text = format!("[Match]\n{text}\n[Network]\nDHCP=yes\n");
        let matched = Match::of(text.as_bytes());
        let shown = |target: &Target| {
            let by = if target.name.is_empty() { "-" } else { target.name };
            let mark = if target.fit == Fit::Maybe { "?" } else { "" };
            format!("{by}{}{mark}", if target.mac.is_empty() { "" } else { "+mac" })
        };
        matched.targets(machine).iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_key_is_held_against_what_is_there() {
        let ports = [
            port("eth0", "00:1b:21:00:00:01", "macb"),
            port("enp3s0", "00:1b:21:00:00:02", "e1000e"),
            port("wlan0", "00:1b:21:00:00:03", "brcmfmac"),
        ];
        for (text, wanted) in [
            ("", ""),
            ("Name=eth0", "eth0"),
            ("Name=eth0 usb0", "eth0 usb0"),
            ("Name=e*", "eth0 enp3s0"),
            ("Name=en[a-p]*", "enp3s0"),
            ("Name=!eth0 wl*", "enp3s0"),
            ("Name=eth*\nName=\nName=wl*", "wlan0"),
            ("Name=eth0\nName=wlan0", "eth0 wlan0"),
            ("Name=* !eth0", "eth0 enp3s0 wlan0"),
            ("Name=bat*", ""),
            ("OriginalName=eth0", "eth0"),
            ("MACAddress=00-1B-21-00-00-02", "-+mac"),
            ("MACAddress=00-1B-21-00-00-02\nName=enp3s0", "enp3s0+mac"),
            ("MACAddress=00-1B-21-00-00-02\nName=eth0", ""),
            ("PermanentMACAddress=001b.2100.0001 00:1b:21:00:00:0f", "-+mac -+mac"),
            ("MACAddress=00:1b:21\nName=eth0", "eth0"),
            ("Type=ether", "eth0 enp3s0"),
            ("Type=wlan", "wlan0"),
            ("Type=!wlan\nName=e* wl*", "eth0 enp3s0"),
            ("Type=!vlan bond bridge\nMACAddress=00:1b:21:00:00:01", "-+mac"),
            ("Type=wlan\nName=mlan0", "mlan0"),
            ("Type=wwan", ""),
            ("Driver=e1000*", "enp3s0"),
            ("Driver=!macb brcmfmac", "enp3s0"),
            ("Driver=macb\nName=enp3s0", ""),
            ("Driver=macb\nName=usb0", "usb0?"),
            ("Path=platform-eth*", "eth0"),
            ("Path=pci-*\nName=eth0", ""),
            ("Property=ID_X=1\nName=eth0", "eth0?"),
            ("Property=ID_X=1", "-?"),
            ("Kind=!*\nName=eth0", "eth0"),
            ("Kind=vlan\nName=eth7", "eth7"),
            ("Kind=veth\nName=ve-*", ""),
            ("Driver=veth\nName=ve-*", ""),
            ("Type=sit\nName=6rd-*", ""),
            ("Virtualization=container\nName=host0", ""),
            ("Virtualization=!container\nName=eth0", "eth0"),
            ("Virtualization=vm\nName=eth0", "eth0?"),
            ("Host=press-3\nName=eth0", "eth0"),
            ("Host=Press-*\nName=eth0", "eth0"),
            ("Host=0123abcd\nName=eth0", "eth0"),
            ("Host=press-4\nName=eth0", ""),
            ("Host=!press-4\nName=eth0", "eth0"),
            ("Host=! press-3\nName=eth0", ""),
            ("Host=x\nHost=\nName=eth0", "eth0"),
            ("KernelCommandLine=quiet\nName=eth0", "eth0"),
            ("KernelCommandLine=plant\nName=eth0", "eth0"),
            ("KernelCommandLine=plant=3\nName=eth0", "eth0"),
            ("KernelCommandLine=plant=4\nName=eth0", ""),
            ("KernelCommandLine=!debug\nName=eth0", "eth0"),
            ("KernelCommandLine=qui\nName=eth0", ""),
            ("KernelVersion=>5\nName=wlan0", "wlan0?"),
            ("WLANInterfaceType=station", "wlan0"),
            ("WLANInterfaceType=ap", "wlan0?"),
            ("WLANInterfaceType=station\nName=eth0", ""),
            ("SSID=lab", "-"),
            ("SSID=lab\nName=wlan0", "wlan0"),
        ] {
            assert_eq!(meant(text, &ports), wanted, "{text}");
        }
    }

    #[test]
    fn without_knowing_the_machine_only_names_are_known() {
        for (text, wanted) in [
            ("Name=e*", "-?"),
            ("Name=e* usb0", "usb0 -?"),
            ("Type=ether", "-"),
            ("Driver=macb", "-?"),
            ("Name=eth0\nHost=x", "eth0?"),
            ("Name=eth0\nKernelCommandLine=!x", "eth0?"),
            ("Driver=veth\nName=ve-*", ""),
            ("MACAddress=00:1b:21:00:00:02\nName=e*", "-+mac?"),
        ] {
            assert_eq!(meant_on(text, &Machine::default()), wanted, "{text}");
        }
    }
}
