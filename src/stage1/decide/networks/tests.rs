//! The settings of old OSes, from their files to the new one's.

use super::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The root of an old OS, made for one test.
struct Root(PathBuf);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("networks-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let root = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&root.0).unwrap();
        // Fixed addresses need somebody to ask for names.
        root.add("etc/resolv.conf", b"nameserver 10.0.0.53\n");
        for (path, content) in files {
            root.add(path, content.as_bytes());
        }
        root
    }

    fn add(&self, path: &str, content: &[u8]) {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn path(&self, path: &str) -> String {
        self.0.join(path).to_str().unwrap().to_string()
    }

    fn gather(&self, selection: &Selection) -> Outcome {
        Outcome::of(&self.0, selection)
    }
}

impl Outcome {
    fn of(root: &Path, selection: &Selection) -> Self {
        let mut outcome = Self::default();
        let mut scratch = vec![0; SCRATCH];
        let result = gather(
            root.to_str().unwrap(),
            selection,
            &mut scratch,
            &mut |path, _, bytes| {
                let text = String::from_utf8_lossy(bytes).into_owned();
                outcome.files.push((path.to_string(), text));
                Ok(())
            },
            &mut |note| {
                let file = Path::new(&*note.file).strip_prefix(root);
                let file = file.map_or(note.file.to_string(), |file| file.display().to_string());
                let line = format!("{:?} {file}: {}: {}", note.level, &*note.name, note.why);
                outcome.notes.push(line);
            },
        );
        if let Err(error) = result {
            assert_eq!(error.kind().exit_code(), 3);
            let text: Text<600> = crate::text!("{}", error);
            outcome.refusal = text.to_string();
            assert!(outcome.files.is_empty(), "stored before the refusal");
        }
        for text in outcome.notes.iter().chain([&outcome.refusal]) {
            assert!(!text.contains("s3cret"), "{text}");
        }
        outcome
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[derive(Default, Debug)]
struct Outcome {
    files: Vec<(String, String)>,
    notes: Vec<String>,
    refusal: String,
}

impl Outcome {
    /// The names of the files and the SSIDs or ids in them.
    fn names(&self) -> Vec<(&str, String)> {
        let name = |text: &str| {
            let summary = manager::summarise(text.as_bytes());
            summary.map_or(String::new(), |summary| summary.name().to_string())
        };
        let short = |path: &'_ str| path.rsplit('/').next().unwrap().len();
        self.files
            .iter()
            .map(|(path, text)| (&path[path.len() - short(path)..], name(text)))
            .collect()
    }

    fn has_note(&self, start: &str, part: &str) -> bool {
        self.notes.iter().any(|note| note.starts_with(start) && note.contains(part))
    }
}

fn supplicant(ssid: &str, more: &str) -> String {
    format!("network={{\nssid=\"{ssid}\"\npsk=\"s3cret s3cret\"\n{more}\n}}\n")
}

fn keyfile(ssid: &str, more: &str) -> String {
    format!(
        "[connection]\nid=id of {ssid}\ntype=wifi\n{more}\n[wifi]\nssid={ssid}\n\
         [wifi-security]\nkey-mgmt=wpa-psk\npsk=s3cret s3cret\n"
    )
}

fn iwd() -> &'static str {
    "[Security]\nPassphrase=s3cret s3cret\n"
}

fn pairs<'a>(pairs: &[(&'a str, &str)]) -> Vec<(&'a str, String)> {
    pairs.iter().map(|(file, name)| (*file, name.to_string())).collect()
}

/// Each folder of tests/fixtures/network/roots is the root of an old OS, and gives exactly what stands beside it in
/// `NAME.expected`. `BLESS=1 cargo test` writes these anew; read them before you believe them.
#[test]
fn roots_of_old_systems_give_exactly_these_files() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network/roots");
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let roots: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    assert!(roots.len() >= 15, "the roots have moved");
    for root in roots {
        let outcome = Outcome::of(&root, &Selection::default());
        let mut shown = String::new();
        for (path, text) in &outcome.files {
            shown += &format!("# {path}\n\n{text}\n");
        }
        for note in outcome.notes.iter().chain([&outcome.refusal]) {
            if !note.is_empty() && !note.starts_with("Debug") {
                let note = note.replace(root.to_str().unwrap(), "");
                shown += &format!("# {note}\n");
            }
        }
        shown += &shown_beside(&root);
        let expected = root.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        let expected = std::fs::read_to_string(&expected)
            .unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(shown, expected, "{}", root.display());
    }
}

/// What stands beside the networks of a root, as lines.
fn shown_beside(root: &Path) -> String {
    let mut shown = String::new();
    let mut scratch = vec![0; SCRATCH];
    let path = root.to_str().unwrap();
    let found = beside(path, &mut scratch, &mut |note| {
        shown += &format!("# {:?}{}\n", note.level, note.text().replace(path, " "));
    });
    let found = found.unwrap();
    for (key, value) in [("country", &*found.country), ("ntpServers", &*found.ntp_servers)] {
        if !value.is_empty() {
            shown += &format!("# config.json: {key}: {value}\n");
        }
    }
    assert!(!shown.contains("s3cret"), "{shown}");
    shown
}

const CONNECTIONS: &str = "etc/NetworkManager/system-connections";

#[test]
fn each_network_of_all_places_comes_once() {
    let root = Root::new(&[
        ("var/lib/iwd/a.psk", iwd()),
        ("var/lib/iwd/b.psk", iwd()),
        ("var/lib/iwd/c.psk", iwd()),
        ("var/lib/iwd/d.psk", iwd()),
        ("var/lib/iwd/guests.open", ""),
        ("var/lib/iwd/other.known", "x"),
        (
            "var/lib/connman/wifi_1_63_managed_psk/settings",
            "[wifi_1_63_managed_psk]\nPassphrase=s3cret s3cret\n",
        ),
        ("var/lib/connman/settings", "[WiFi]\nEnable=true\n"),
        ("var/lib/connman/my.config", "[service_e]\nType=wifi\nName=e\nPassphrase=s3cret s3cret\n"),
    ]);
    root.add(&format!("{CONNECTIONS}/a.nmconnection"), keyfile("a", "").as_bytes());
    root.add("etc/wpa_supplicant/wpa_supplicant.conf", supplicant("a", "").as_bytes());
    root.add("etc/wpa_supplicant/wpa_supplicant-wlan0.conf", supplicant("b", "").as_bytes());
    root.add("etc/wpa_supplicant/other.conf", supplicant("x", "").as_bytes());
    root.add("etc/wpa_supplicant.conf", supplicant("f", "").as_bytes());
    root.add("run/netplan/wpa-wlan0.conf", supplicant("g", "").as_bytes());
    let outcome = root.gather(&Selection::default());
    let wanted = pairs(&[
        ("balena-wifi-01", "a"),
        ("balena-wifi-02", "b"),
        ("balena-wifi-03", "f"),
        ("balena-wifi-04", "g"),
        ("balena-wifi-05", "e"),
        ("balena-wifi-06", "c"),
        ("balena-wifi-07", "d"),
        ("balena-wifi-08", "guests"),
    ]);
    assert_eq!(outcome.names(), wanted);
    assert_eq!(outcome.files[0].0, "system-connections/balena-wifi-01");
    assert_eq!(outcome.files[0].1, keyfile("a", ""), "not byte for byte");
    assert!(outcome.has_note("Debug var/lib/iwd/a.psk: a: left out", ""));
}

#[test]
fn of_one_owner_the_higher_priority_is_taken() {
    let text = supplicant("a", "priority=1\nscan_ssid=0")
        + &supplicant("a", "priority=9\ndisabled=1")
        + &supplicant("a", "priority=5")
        + &supplicant("a", "priority=5\nbssid=02:00:00:00:00:01");
    let root = Root::new(&[("etc/wpa_supplicant/wpa_supplicant.conf", &text)]);
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.files.len(), 1);
    assert!(outcome.files[0].1.contains("autoconnect-priority=5\n"));
}

#[test]
fn the_same_uuid_is_the_same_connection_and_volatile_ones_stay() {
    let root = Root::new(&[
        (
            "usr/lib/NetworkManager/system-connections/old.nmconnection",
            "[connection]\nid=old\ntype=gsm\nuuid=u1\nautoconnect-priority=9\n",
        ),
        ("usr/lib/NetworkManager/system-connections/no-ending", "[connection]\nid=no\ntype=gsm\n"),
        (
            "run/NetworkManager/system-connections/v.nmconnection",
            "[connection]\nid=v\ntype=bridge\n[.nmmeta]\nvolatile=true\n",
        ),
    ]);
    root.add(&format!("{CONNECTIONS}/new"), b"[connection]\nid=new\ntype=gsm\nuuid=u1\n");
    root.add(&format!("{CONNECTIONS}/new~"), b"[connection]\nid=backup\ntype=gsm\n");
    root.add(&format!("{CONNECTIONS}/broken"), b"[connection\n");
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.names(), pairs(&[("balena-01", "new")]));
    assert!(outcome.has_note(&format!("Warn {CONNECTIONS}/broken"), "neither a group"));
}

#[test]
fn all_kinds_of_connections_are_carried_over() {
    let root = Root::new(&[(
        "var/lib/connman/eth.config",
        "[service_x]\nType=ethernet\nInterface=eth0\nIPv4=10.0.0.2/8/10.0.0.1\n[service_y]\nType=ethernet\nInterface=eth1\nIPv4=10.0.0.3/8/10.0.0.1\n",
    )]);
    for (name, kind, interface) in [
        ("a", "ethernet", "eth0"),
        ("b", "gsm", "ttyUSB2"),
        ("c", "vpn", "tun0"),
        ("d", "vlan", "eth0.5"),
    ] {
        let text = format!("[connection]\nid={name}\ntype={kind}\ninterface-name={interface}\n");
        root.add(&format!("{CONNECTIONS}/{name}"), text.as_bytes());
    }
    let outcome = root.gather(&Selection::default());
    let wanted = pairs(&[
        ("balena-01", "a"),
        ("balena-02", "b"),
        ("balena-03", "c"),
        ("balena-04", "d"),
        // eth0 is NetworkManager's.
        ("balena-05", "balena-05"),
    ]);
    assert_eq!(outcome.names(), wanted);
    assert!(outcome.files[4].1.contains("interface-name=eth1\n"));
    for (name, is_bound) in [("a", false), ("b", true), ("c", false), ("d", false)] {
        let start = format!("Warn {CONNECTIONS}/{name}");
        assert_eq!(outcome.has_note(&start, "interface name"), is_bound, "{name}");
    }
    assert!(outcome.has_note("Warn var/lib/connman/eth.config: eth1", "another name"));
}

#[test]
fn only_what_was_asked_for() {
    let text = supplicant("a", "") + &supplicant("b", "") + &supplicant("lost", "psk=ext:x");
    let root = Root::new(&[("etc/wpa_supplicant/wpa_supplicant.conf", &text)]);
    root.add(&format!("{CONNECTIONS}/c"), keyfile("c", "").as_bytes());
    root.add(&format!("{CONNECTIONS}/d"), b"[connection]\nid=modem\ntype=gsm\n");
    let only = ["b".to_string()];
    let outcome = root.gather(&Selection { only: &only, ..Selection::default() });
    assert_eq!(outcome.names(), pairs(&[("balena-01", "modem"), ("balena-wifi-01", "b")]));
    let only = ["b".to_string(), "missing".to_string()];
    let refusal = root.gather(&Selection { only: &only, ..Selection::default() }).refusal;
    assert!(refusal.contains("the Wi-Fi missing"), "{refusal}");
    let only = ["lost".to_string()];
    let refusal = root.gather(&Selection { only: &only, ..Selection::default() }).refusal;
    assert!(refusal.contains("the network lost: its password"), "{refusal}");
    let outcome = root.gather(&Selection { no_wifis: true, ..Selection::default() });
    assert_eq!(outcome.names(), pairs(&[("balena-01", "modem")]));
}

#[test]
fn an_unwanted_wifi_of_a_file_with_cables_is_not_missed() {
    let text = "iface wlan0 inet dhcp\nwpa-ssid campus\nwpa-key-mgmt WPA-EAP\n\
        iface wlan0 inet6 auto\nwpa-ssid campus\nwpa-key-mgmt WPA-EAP\n\
        iface wlan1 inet dhcp\nwpa-ssid home\nwpa-psk s3cret s3cret\n\
        iface eth0 inet static\naddress 10.0.0.2/8\n";
    let root = Root::new(&[("etc/network/interfaces", text)]);
    let refusal = root.gather(&Selection::default()).refusal;
    assert!(refusal.contains("the network campus: "), "{refusal}");
    let outcome = root.gather(&Selection { no_wifis: true, ..Selection::default() });
    assert_eq!(outcome.refusal, "");
    assert_eq!(outcome.files.len(), 1);
    let only = ["home".to_string()];
    let outcome = root.gather(&Selection { only: &only, ..Selection::default() });
    assert_eq!(outcome.files.len(), 2);
    assert!(!outcome.notes.iter().any(|note| note.contains("campus")), "{:?}", outcome.notes);
    let only = ["campus".to_string()];
    let refusal = root.gather(&Selection { only: &only, ..Selection::default() }).refusal;
    assert!(refusal.contains("the network campus: "), "{refusal}");
    // A cable of the same file is missed all the same.
    root.add(
        "etc/network/interfaces",
        (text.to_string() + "iface br0 inet static\naddress 10.0.0.3/8\n").as_bytes(),
    );
    let refusal = root.gather(&Selection { no_wifis: true, ..Selection::default() }).refusal;
    assert!(refusal.contains("the network br0: "), "{refusal}");
}

#[test]
fn a_wifi_keeps_its_fixed_address_or_it_is_said() {
    let text =
        "iface wlan0 inet static\naddress 10.0.0.2/8\nwpa-ssid home\nwpa-psk s3cret s3cret\n";
    let root = Root::new(&[("etc/network/interfaces", text)]);
    let outcome = root.gather(&Selection::default());
    assert!(outcome.files[0].1.contains("address1=10.0.0.2/8\n"), "{:?}", outcome.files);
    assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
    root.add("etc/wpa_supplicant/wpa_supplicant.conf", supplicant("home", "").as_bytes());
    let outcome = root.gather(&Selection::default());
    assert!(outcome.has_note("Warn etc/network/interfaces: home", "fixed addresses"));
    root.add("my/own", keyfile("home", "").as_bytes());
    let inject = [root.path("my/own")];
    let outcome = root.gather(&Selection { inject: &inject, ..Selection::default() });
    assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
}

#[test]
fn without_an_old_os_only_what_was_given_is_placed() {
    let root = Root::new(&[]);
    root.add("etc/wpa_supplicant/wpa_supplicant.conf", supplicant("rescue", "").as_bytes());
    root.add("my/own", keyfile("home", "").as_bytes());
    let inject = [root.path("my/own")];
    let selection = Selection { inject: &inject, old: OldOs::None, ..Selection::default() };
    assert_eq!(root.gather(&selection).files.len(), 1);
    root.add("my/own", b"no keyfile");
    assert!(!root.gather(&selection).refusal.is_empty());
    // Nor is anything said of DHCP: the image is what it is.
    let nothing = Selection { old: OldOs::None, ..Selection::default() };
    assert!(!root.gather(&nothing).has_note("Info", "DHCP"));
}

#[test]
fn the_address_of_a_wifi_that_only_another_file_can_give_is_missed() {
    let text =
        "iface wlan0 inet static\naddress 10.0.0.2/8\nwpa-ssid campus\nwpa-key-mgmt WPA-EAP\n";
    let root = Root::new(&[("etc/network/interfaces", text)]);
    let login = "network={\nssid=\"campus\"\nkey_mgmt=WPA-EAP\neap=PEAP\nidentity=\"a\"\n\
        password=\"s3cret\"\n}\n";
    root.add("etc/wpa_supplicant/wpa_supplicant.conf", login.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.names(), pairs(&[("balena-wifi-01", "campus")]));
    assert!(outcome.has_note("Warn etc/network/interfaces: wlan0: ", "address settings"));
    root.add(
        "etc/network/interfaces",
        text.replace("static\naddress 10.0.0.2/8", "dhcp").as_bytes(),
    );
    let outcome = root.gather(&Selection::default());
    assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
}

#[test]
fn the_files_of_ifupdown_are_one_text() {
    let v4 = "iface eth0 inet static\naddress 10.0.0.2/8";
    let v6 = "iface eth0 inet6 static\naddress 2001:db8::2/64\ngateway 2001:db8::1\n";
    let root = Root::new(&[
        ("etc/network/interfaces.d/a", v4),
        ("etc/network/interfaces.d/b", v6),
        ("etc/network/interfaces.d/c.cfg", "iface eth0 inet static\naddress 10.0.0.3/8\n"),
        ("etc/network/interfaces.d/folder/d", v4),
    ]);
    assert!(root.gather(&Selection::default()).files.is_empty(), "no main file");
    root.add("etc/network/interfaces", b"iface eth0 inet manual\n");
    assert!(root.gather(&Selection::default()).files.is_empty(), "not included");
    root.add("etc/network/interfaces", b"source-directory /etc/network/interfaces.d");
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.files.len(), 1);
    let keyfile = &outcome.files[0].1;
    assert!(keyfile.contains("address1=10.0.0.2/8\n"), "{keyfile}");
    assert!(keyfile.contains("address1=2001:db8::2/64,2001:db8::1\n"), "{keyfile}");
    assert!(!keyfile.contains("10.0.0.3"), "{keyfile}");
    root.add("etc/network/interfaces", b"source interfaces.d/*\n");
    let outcome = root.gather(&Selection::default());
    assert!(outcome.files[0].1.contains("address2=10.0.0.3/8\n"), "{:?}", outcome.files);
    // Each is behind its path in a line.
    let label = |name: &str| 3 + root.path(&format!("etc/network/interfaces.d/{name}")).len();
    let length = "source interfaces.d/*\n".len()
        + v4.len()
        + v6.len()
        + label("a")
        + label("b")
        + label("c.cfg");
    root.add("etc/network/interfaces.d/c.cfg", &vec![b'#'; MAX_FILE - length]);
    assert_eq!(root.gather(&Selection::default()).refusal, "");
    for length in [MAX_FILE - length + 1, MAX_FILE - 1, MAX_FILE, MAX_FILE + 1] {
        root.add("etc/network/interfaces.d/c.cfg", &vec![b'#'; length]);
        let refusal = root.gather(&Selection::default()).refusal;
        assert!(refusal.contains("interfaces"), "{refusal}");
        assert!(refusal.contains("larger than 64 KiB"), "{refusal}");
    }
}

#[test]
fn a_file_that_an_included_file_includes_is_read() {
    let root = Root::new(&[
        ("etc/network/interfaces", "source /etc/network/interfaces.d/main"),
        // Includes itself, too.
        ("etc/network/interfaces.d/main", "source-directory /etc/network/interfaces.d"),
        ("etc/network/interfaces.d/first", "source /etc/network/interfaces.d/cable.cfg"),
        ("etc/network/interfaces.d/cable.cfg", "iface eth0 inet static\naddress 10.0.0.2/8\n"),
        ("etc/network/interfaces.d/other.cfg", "iface eth0 inet static\naddress 10.0.0.3/8\n"),
    ]);
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.files.len(), 1);
    assert!(outcome.files[0].1.contains("address1=10.0.0.2/8\n"), "{:?}", outcome.files);
    assert!(!outcome.files[0].1.contains("10.0.0.3"), "{:?}", outcome.files);
    // A chain against the order of the names, and round.
    root.add("etc/network/interfaces", b"source interfaces.d/8");
    for (number, next) in
        ["8 /etc/network/interfaces.d/main", "0", "1", "2", "3", "4", "5", "6", "7"]
            .iter()
            .enumerate()
    {
        let text = format!("source /etc/network/interfaces.d/{next}");
        root.add(&format!("etc/network/interfaces.d/{number}"), text.as_bytes());
    }
    assert_eq!(root.gather(&Selection::default()).files.len(), 1);
}

#[test]
fn a_hardware_address_that_may_be_made_up_is_warned_of_whoever_names_it() {
    let networkd = |mac| format!("[Match]\nMACAddress={mac}\n[Network]\nDNS=9.9.9.9\n");
    let connman = |mac| {
        format!(
            "[ethernet_{mac}_cable]\nIPv4.method=manual\nIPv4.local_address=10.0.0.3\n\
            IPv4.netmask_prefixlen=8\n"
        )
    };
    for (made_up, digits) in
        [("06:1b:21:00:00:0a", "061b2100000a"), ("01:1b:21:00:00:0a", "011b2100000a")]
    {
        for (path, text, lasting) in [
            ("etc/systemd/network/a.network", networkd(made_up), networkd("00:1b:21:00:00:0a")),
            ("var/lib/connman/ethernet_0_cable/settings", connman(digits), connman("001b2100000a")),
        ] {
            let root = Root::new(&[(path, &text)]);
            let outcome = root.gather(&Selection::default());
            let start = format!("Warn {path}: {made_up}: ");
            assert!(outcome.has_note(&start, "made up"), "{:?}", outcome.notes);
            root.add(path, lasting.as_bytes());
            let outcome = root.gather(&Selection::default());
            assert_eq!(outcome.files.len(), 1);
            assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
        }
    }
}

/// An interface in sysfs.
fn card(root: &Root, name: &str, mac: &str, assigned: &str) {
    for (file, text) in [("address", mac), ("addr_assign_type", assigned), ("type", "1")] {
        root.add(&format!("sys/class/net/{name}/{file}"), format!("{text}\n").as_bytes());
    }
}

/// Settings for cables in every form, and sysfs beside them.
fn cables() -> Root {
    let root = Root::new(&[
        ("etc/network/interfaces", "iface enp3s0 inet static\naddress 10.0.0.2/8\n"),
        ("etc/dhcpcd.conf", "interface enp4s0\nstatic ip_address=10.0.0.3/8\n"),
        ("etc/systemd/network/a.network", "[Match]\nName=enp5s0\n[Network]\nAddress=10.0.0.4/8\n"),
        (
            "var/lib/connman/eth.config",
            "[service_x]\nType=ethernet\nInterface=enp6s0\nIPv4=10.0.0.6/8/10.0.0.1\n",
        ),
        // Says its address itself, and sysfs does not know it.
        (
            "etc/systemd/network/b.network",
            "[Match]\nName=enp7s0\nMACAddress=00:1b:21:00:00:07\n[Network]\nAddress=10.0.0.5/8\n",
        ),
        ("etc/systemd/network/c.network", "[Match]\nName=eth0\n[Network]\nDNS=9.9.9.9\n"),
    ]);
    for number in [3, 4, 5, 6] {
        card(&root, &format!("enp{number}s0"), &format!("00:1b:21:00:00:0{number}"), "0");
    }
    card(&root, "eth0", "00:1b:21:00:00:00", "0");
    root
}

#[test]
fn a_cable_with_a_name_that_may_change_goes_by_its_hardware_address() {
    let outcome = cables().gather(&Selection::default());
    assert_eq!(outcome.files.len(), 6);
    assert!(!outcome.has_note("Warn", "another name"), "{:?}", outcome.notes);
    for number in [3, 4, 5, 6, 7] {
        let line = format!("mac-address=00:1b:21:00:00:0{number}\n");
        let of_it = |(_, text): &&(String, String)| text.contains(&line);
        let (_, text) = outcome.files.iter().find(of_it).expect(&line);
        assert!(!text.contains("interface-name"), "{text}");
    }
    let of_eth0 = |(_, text): &(String, String)| {
        text.contains("interface-name=eth0\n") && !text.contains("mac-address")
    };
    assert!(outcome.files.iter().any(of_eth0));
}

#[test]
fn on_a_bus_that_systemd_has_names_for_even_eth0_and_wlan0_may_change() {
    let root = cables();
    for (id, kind, rest) in [
        ("cable", "ethernet", "interface-name=eth0\n"),
        ("tagged", "vlan", "interface-name=eth0.5\n[vlan]\nid=5\nparent=eth0\n"),
        ("tunnel", "macvlan", "[macvlan]\nparent=br0\n"),
        ("second", "macvlan", "[macvlan]\nparent=d9b9e0c0-8a6f-4d8c-9a53-1f5b0e1c2a11\n"),
    ] {
        let text = format!("[connection]\nid={id}\ntype={kind}\n{rest}");
        root.add(&format!("{CONNECTIONS}/{id}"), text.as_bytes());
    }
    let wifi = keyfile("home", "interface-name=wlan0");
    root.add(&format!("{CONNECTIONS}/home"), wifi.as_bytes());
    let put_on = |bus: &str| {
        for name in ["eth0", "wlan0"] {
            let folder = root.path(&format!("sys/class/net/{name}/device"));
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            let to = format!("../../../../bus/{bus}");
            std::os::unix::fs::symlink(to, format!("{folder}/subsystem")).unwrap();
        }
        let outcome = root.gather(&Selection::default());
        let warned = ["cable", "tagged", "tunnel", "second", "home"].into_iter().filter(|id| {
            outcome.has_note(&format!("Warn {CONNECTIONS}/{id}: "), "new OS may not use")
        });
        warned.collect::<Vec<_>>().join(" ")
    };
    for (bus, warned) in
        [("platform", ""), ("sdio", ""), ("usb", "home"), ("pci", "cable tagged home")]
    {
        assert_eq!(put_on(bus), warned, "{bus}");
    }
    // What is translated goes by its hardware address.
    std::fs::remove_file(root.path(&format!("{CONNECTIONS}/cable"))).unwrap();
    for (bus, line) in [("usb", "interface-name=eth0"), ("pci", "mac-address=00:1b:21:00:00:00")] {
        put_on(bus);
        let outcome = root.gather(&Selection::default());
        let of_eth0 = |(_, text): &&(String, String)| text.contains("dns=9.9.9.9");
        let (_, text) = outcome.files.iter().find(of_eth0).unwrap();
        assert!(text.lines().any(|other| other == line), "{bus}: {text}");
        assert_eq!(text.contains("interface-name"), bus == "usb", "{text}");
    }
}

#[test]
fn without_a_lasting_address_it_goes_by_its_name_and_that_is_said() {
    let root = cables();
    // Made up, set by software, locally administered, and one address twice.
    card(&root, "enp3s0", "00:1b:21:00:00:03", "1");
    card(&root, "enp4s0", "00:1b:21:00:00:04", "3");
    card(&root, "enp5s0", "02:1b:21:00:00:05", "0");
    card(&root, "lan1", "00:1b:21:00:00:06", "0");
    let outcome = root.gather(&Selection::default());
    for name in ["enp3s0", "enp4s0", "enp5s0", "enp6s0"] {
        let is_said =
            |note: &String| note.contains(&format!(" {name}: ")) && note.contains("another name");
        assert!(outcome.notes.iter().any(is_said), "{name}: {:?}", outcome.notes);
        let line = format!("interface-name={name}\n");
        assert!(outcome.files.iter().any(|(_, text)| text.contains(&line)), "{line}");
    }
}

#[test]
fn what_cannot_be_carried_over_is_refused_by_name() {
    let text =
        supplicant("one", "psk=ext:x") + &supplicant("two", "psk=ext:x") + &supplicant("fine", "");
    let root = Root::new(&[("etc/wpa_supplicant/wpa_supplicant.conf", &text)]);
    let text = keyfile("three", "permissions=user:alice:;");
    root.add(&format!("{CONNECTIONS}/c"), text.as_bytes());
    let port = "[connection]\nid=port\ntype=ethernet\n[802-1x]\neap=tls\nca-cert=/ca.pem\n";
    root.add(&format!("{CONNECTIONS}/d"), port.as_bytes());
    let refusal = root.gather(&Selection::default()).refusal;
    assert!(refusal.contains("the network three, port, one, two: "), "{refusal}");
    assert!(refusal.contains("--nwmgr-cfg FILE"), "{refusal}");
    // A cable's login is not a matter of Wi-Fis.
    let refusal = root.gather(&Selection { no_wifis: true, ..Selection::default() }).refusal;
    assert!(refusal.contains("the network port: "), "{refusal}");
    let outcome = root.gather(&Selection { no_nwmgr_check: true, ..Selection::default() });
    assert_eq!(outcome.names(), pairs(&[("balena-wifi-01", "fine")]));
    let lost = outcome.notes.iter().filter(|note| note.starts_with("Warn"));
    assert_eq!(lost.count(), 4);
    assert!(outcome.has_note("Warn etc/wpa_supplicant/wpa_supplicant.conf: one", "password"));
}

#[test]
fn a_given_keyfile_stands_in_for_what_is_lost() {
    let text = supplicant("lost", "psk=ext:x") + &supplicant("given", "");
    let root = Root::new(&[("etc/wpa_supplicant/wpa_supplicant.conf", &text)]);
    root.add("my/first", keyfile("lost", "").as_bytes());
    root.add("my/second.nmconnection", keyfile("given", "interface-name=wlan9").as_bytes());
    root.add("my/broken", b"s3cret");
    let inject = [root.path("my/first"), root.path("my/second.nmconnection")];
    let outcome = root.gather(&Selection { inject: &inject, ..Selection::default() });
    assert_eq!(outcome.names(), pairs(&[("balena-01", "lost"), ("balena-02", "given")]));
    assert!(outcome.has_note("Warn my/second.nmconnection", "interface name"));
    for bad in ["my/broken", "my/missing", "my"] {
        let inject = [root.path(bad)];
        let refusal = root.gather(&Selection { inject: &inject, ..Selection::default() }).refusal;
        assert!(refusal.contains(bad) && refusal.contains("--nwmgr-cfg"), "{refusal}");
    }
}

#[test]
fn a_balena_os_keeps_its_files_and_their_names() {
    let root = Root::new(&[
        ("mnt/boot/system-connections/README.ignore", "x"),
        ("mnt/boot/system-connections/balena-sample.ignore", "[connection]\nid=x\ntype=wifi\n"),
        ("mnt/boot/system-connections/ca.pem", "a certificate"),
        (
            "mnt/boot/system-connections/campus",
            "[connection]\nid=campus\ntype=wifi\n[wifi]\nssid=campus\n[802-1x]\nca-cert=ca.pem\n",
        ),
        ("mnt/boot/system-proxy/redsocks.conf", "redsocks { }"),
        ("mnt/boot/system-proxy/no_proxy", "10.0.0.0/8"),
        ("mnt/boot/system-proxy/redsocks.conf.ignore", "x"),
        ("etc/NetworkManager/system-connections/modem", "[connection]\nid=modem\ntype=gsm\n"),
        ("etc/NetworkManager/system-connections/campus", "[connection]\nid=copy\ntype=gsm\n"),
        ("etc/wpa_supplicant/wpa_supplicant.conf", "network={\nssid=\"x\"\nkey_mgmt=NONE\n}\n"),
    ]);
    root.add("my/own", keyfile("own", "").as_bytes());
    root.add("my/own.ignore", keyfile("own", "").as_bytes());
    root.add("other/own", keyfile("other", "").as_bytes());
    let inject = [root.path("my/own")];
    let selection = Selection { old: OldOs::Balena, inject: &inject, ..Selection::default() };
    let outcome = root.gather(&selection);
    let names: Vec<_> = outcome.files.iter().map(|(path, _)| path.as_str()).collect();
    let wanted = [
        "system-connections/own",
        "system-connections/ca.pem",
        "system-connections/campus",
        "system-connections/modem",
        "system-proxy/no_proxy",
        "system-proxy/redsocks.conf",
    ];
    assert_eq!(names, wanted);
    assert!(outcome.files[2].1.contains("ssid=campus"));
    assert!(outcome.has_note("Warn mnt/boot/system-connections/campus", "certificate"));
    for bad in [vec![root.path("my/own.ignore")], vec![root.path("my/own"), root.path("other/own")]]
    {
        let refusal = root.gather(&Selection { inject: &bad, ..selection }).refusal;
        assert!(refusal.contains("own"), "{refusal}");
    }
}

#[test]
fn a_device_is_not_cut_off() {
    let sys = |name: &str, file: &str| format!("sys/class/net/{name}/{file}");
    let root = Root::new(&[
        (&sys("lo", "carrier"), "1\n"),
        (&sys("docker0", "carrier"), "1\n"),
        (&sys("eth0", "carrier"), "0\n"),
        (&sys("eth0", "device/x"), ""),
        (&sys("wlan0", "wireless/x"), ""),
        (&sys("wlan0", "operstate"), "up\n"),
    ]);
    let refusal = root.gather(&Selection::default()).refusal;
    assert!(refusal.contains("only way online"), "{refusal}");
    let outcome = root.gather(&Selection { no_nwmgr_check: true, ..Selection::default() });
    assert!(outcome.has_note("Warn", "only way online"));
    root.add(&sys("eth0", "carrier"), b"1\n");
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.refusal, "");
    assert!(outcome.has_note("Info", "DHCP"));
    root.add(&sys("eth0", "carrier"), b"0\n");
    root.add("var/lib/iwd/a.psk", iwd().as_bytes());
    assert_eq!(root.gather(&Selection::default()).refusal, "");
    let refusal = root.gather(&Selection { no_wifis: true, ..Selection::default() }).refusal;
    assert!(refusal.contains("only way online"), "{refusal}");
}

#[test]
fn nothing_at_all_is_fine_and_too_much_is_named() {
    let root = Root::new(&[]);
    assert!(root.gather(&Selection::default()).has_note("Info", "DHCP"));
    root.add("var/lib/iwd/large.psk", &vec![b'#'; MAX_FILE]);
    assert!(root.gather(&Selection::default()).refusal.contains("large"));
    root.add("var/lib/iwd/large.psk", &vec![b'#'; MAX_FILE + 1]);
    assert!(
        root.gather(&Selection::default()).refusal.contains("large.psk: it is larger than 64 KiB")
    );
    let root = Root::new(&[]);
    let many: String = (0..57).map(|number| supplicant(&number.to_string(), "")).collect();
    root.add("etc/wpa_supplicant/wpa_supplicant.conf", many.as_bytes());
    assert!(root.gather(&Selection::default()).refusal.contains("more than 56 networks"));
}

const SUPPLICANT: &str = "etc/wpa_supplicant/wpa_supplicant.conf";
const FIXED: &str = "interface wlan0\nstatic ip_address=10.0.0.2/8\nstatic routers=10.0.0.1\n\
    static domain_search=lan.example\nstatic interface_mtu=1400\n";
/// The same in other forms.
const FIXED_BY_NETWORKD: &str = "[Match]\nName=wlan0\n[Link]\nMTUBytes=1400\n\
    [Network]\nAddress=10.0.0.2/8\nGateway=10.0.0.1\nDomains=lan.example\n";
const FIXED_BY_IFUPDOWN: &str = "iface wlan0 inet static\naddress 10.0.0.2/8\ngateway 10.0.0.1\n\
    mtu 1400\ndns-search lan.example\nwpa-conf /etc/wpa_supplicant/wpa_supplicant.conf\n";

#[test]
fn what_nobody_reads_is_named_of_a_system_that_does_not_run() {
    let files = [
        "etc/sysconfig/network-scripts/ifcfg-eth0",
        "etc/sysconfig/network/ifcfg-eth0",
        "etc/netplan/50-cloud-init.yaml",
        "etc/netctl/office",
        "etc/conf.d/net",
        "etc/config/network",
    ];
    let others =
        ["etc/sysconfig/network/ifcfg-lo", "etc/netctl/examples/dhcp", "etc/conf.d/netmount"];
    let root = Root::new(&files.map(|path| (path, "IPADDR=10.0.0.5\n")));
    others.iter().for_each(|path| root.add(path, b"x"));
    let outcome = root.gather(&Selection::default());
    for path in files {
        assert!(outcome.has_note(&format!("Warn {path}: "), "are not read"), "{path} {outcome:?}");
    }
    let count = outcome.notes.iter().filter(|note| note.contains("are not read")).count();
    assert_eq!(count, files.len(), "{outcome:?}");
}

/// The names of the Wi-Fis whose keyfiles have this line.
fn with_line(outcome: &Outcome, line: &str) -> String {
    let names = outcome.names();
    let files = outcome.files.iter().zip(names);
    let found = files.filter(|((_, text), _)| text.lines().any(|other| other == line));
    let mut found: Vec<_> = found.map(|(_, (_, name))| name).collect();
    found.sort();
    found.join(" ")
}

#[test]
fn a_fixed_address_of_a_wireless_interface_goes_to_its_wifis() {
    for (path, text, wanted) in [
        ("etc/dhcpcd.conf", FIXED, "a b c"),
        ("etc/systemd/network/a.network", FIXED_BY_NETWORKD, "a b c"),
        // It names the file of wpa_supplicant.
        ("etc/network/interfaces", FIXED_BY_IFUPDOWN, "a b"),
    ] {
        let root = Root::new(&[(path, text), ("var/lib/iwd/c.psk", iwd())]);
        root.add(SUPPLICANT, (supplicant("a", "") + &supplicant("b", "")).as_bytes());
        root.add(&format!("{CONNECTIONS}/d"), keyfile("d", "").as_bytes());
        let connman = "[service_e]\nType=wifi\nName=e\nPassphrase=s3cret s3cret\n";
        root.add("var/lib/connman/e.config", connman.as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(outcome.files.len(), 5);
        for line in ["address1=10.0.0.2/8,10.0.0.1", "dns-search=lan.example;", "mtu=1400"] {
            assert_eq!(with_line(&outcome, line), wanted, "{path}: {line}");
        }
        assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
        for name in wanted.split(' ') {
            assert!(outcome.has_note("Info", &format!(": {name}: it is given the address")));
        }
        // Where no Wi-Fi gets it, that is said.
        std::fs::remove_file(root.path(SUPPLICANT)).unwrap();
        std::fs::remove_file(root.path("var/lib/iwd/c.psk")).unwrap();
        let outcome = root.gather(&Selection::default());
        assert!(outcome.has_note(&format!("Warn {path}: wlan0: "), "no Wi-Fi that"));
        let outcome = root.gather(&Selection { no_wifis: true, ..Selection::default() });
        assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
    }
}

#[test]
fn an_access_point_gives_no_wifi_its_address() {
    for (path, text) in [
        ("etc/hostapd/hostapd.conf", "ssid=Mine\n interface=wlan0 \r\n"),
        ("etc/hostapd/x.conf", "#interface=wlan1\ninterface=wlan0"),
        ("etc/dhcpcd.conf", &*(FIXED.to_string() + "nohook wpa_supplicant\n")),
    ] {
        let root = Root::new(&[("etc/dhcpcd.conf", FIXED), (path, text)]);
        root.add(SUPPLICANT, supplicant("a", "").as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(with_line(&outcome, "mtu=1400"), "", "{path}");
        assert!(outcome.has_note("Warn etc/dhcpcd.conf: wlan0: ", "access point"), "{path}");
    }
    let root = Root::new(&[("etc/dhcpcd.conf", FIXED)]);
    root.add(SUPPLICANT, supplicant("a", "").as_bytes());
    root.add("etc/hostapd/x.conf", b"#interface=wlan0\ninterface=wlan01\n");
    root.add("etc/hostapd/other", b"interface=wlan0\n");
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "a");
}

#[test]
fn an_interface_of_unknown_name_may_be_the_access_point() {
    let text = FIXED_BY_NETWORKD.replace("Name=wlan0", "Type=wlan\nMACAddress=B8:27:EB:00:00:01");
    let root = Root::new(&[("etc/systemd/network/a.network", &text)]);
    root.add(SUPPLICANT, supplicant("a", "").as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "a");
    root.add("etc/hostapd/hostapd.conf", b"interface=wlan1\n");
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "");
    let start = "Warn etc/systemd/network/a.network: b8:27:eb:00:00:01: ";
    assert!(outcome.has_note(start, "may make it an access point"), "{:?}", outcome.notes);
    card(&root, "wlan0", "b8:27:eb:00:00:01", "0");
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "a");
}

#[test]
fn a_fifo_among_the_files_of_hostapd_is_not_waited_for() {
    let root = Root::new(&[("etc/dhcpcd.conf", FIXED), ("etc/hostapd/x.conf", "")]);
    root.add(SUPPLICANT, supplicant("a", "").as_bytes());
    let fifo = root.path("etc/hostapd/a.conf");
    crate::files::make_node(&fifo, rustix::fs::FileType::Fifo, 0).unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let found = std::thread::scope(|scope| {
        let root = &root;
        scope.spawn(move || sender.send(root.gather(&Selection::default())));
        let found = receiver.recv_timeout(std::time::Duration::from_secs(10));
        // Whoever waits for a writer goes on, and reads nothing.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&fifo));
        found
    });
    assert_eq!(with_line(&found.expect("it waits for the FIFO"), "mtu=1400"), "a");
}

#[test]
fn a_wifi_of_another_interface_gets_no_address_of_this_one() {
    let folder = "etc/wpa_supplicant/wpa_supplicant";
    let root = Root::new(&[("etc/dhcpcd.conf", FIXED)]);
    for (path, ssid) in [
        (format!("{folder}.conf"), "general"),
        (format!("{folder}-home.conf"), "home"),
        (format!("{folder}-wlan0.conf"), "own"),
        (format!("{folder}-nl80211-wlan0.conf"), "own2"),
        (format!("{folder}-wlan1.conf"), "other"),
        (format!("{folder}-nl80211-wlan1.conf"), "other2"),
        ("run/netplan/wpa-wlan0.conf".to_string(), "own3"),
        ("run/netplan/wpa-wlan1.conf".to_string(), "other3"),
    ] {
        root.add(&path, supplicant(ssid, "").as_bytes());
    }
    // With files of its own, the general one is not read for it.
    let wanted = "own own2 own3";
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), wanted);
    // By the hardware address, when sysfs knows whose it is.
    std::fs::remove_file(root.path("etc/dhcpcd.conf")).unwrap();
    let text = FIXED_BY_NETWORKD.replace("Name=wlan0", "Type=wlan\nMACAddress=B8:27:EB:00:00:01");
    root.add("etc/systemd/network/a.network", text.as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "general home");
    card(&root, "wlan0", "b8:27:eb:00:00:01", "0");
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), wanted);
    // The same interface by its name is the same, and these settings are the same.
    root.add("etc/dhcpcd.conf", FIXED.as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), wanted);
}

#[test]
fn the_general_file_is_read_for_an_interface_without_a_file_of_its_own() {
    for (own, wanted) in [
        ("etc/wpa_supplicant/wpa_supplicant-wlan0.conf", "own"),
        ("etc/wpa_supplicant/wpa_supplicant-nl80211-wlan0.conf", "own"),
        ("etc/wpa_supplicant/wpa_supplicant-wext-wlan0.conf", "own"),
        ("run/netplan/wpa-wlan0.conf", "own"),
        ("etc/wpa_supplicant/wpa_supplicant-wlan1.conf", "general general2"),
    ] {
        let root = Root::new(&[("etc/dhcpcd.conf", FIXED)]);
        root.add(SUPPLICANT, supplicant("general", "").as_bytes());
        root.add("etc/wpa_supplicant.conf", supplicant("general2", "").as_bytes());
        root.add(own, supplicant("own", "").as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(with_line(&outcome, "mtu=1400"), wanted, "{own}");
    }
}

#[test]
fn a_file_that_ifupdown_names_is_the_one_whose_wifis_get_the_address() {
    let folder = "etc/wpa_supplicant/wpa_supplicant";
    let files = ["", "-wlan0", "-wlan1", "-home", "-site2"];
    let root = Root::new(&[("var/lib/iwd/iwd.psk", iwd())]);
    for file in files {
        let ssid = format!("in{file}");
        root.add(&format!("{folder}{file}.conf"), supplicant(&ssid, "").as_bytes());
    }
    root.add("etc/wpa_supplicant.conf", supplicant("etc", "").as_bytes());
    for file in files {
        let text =
            FIXED_BY_IFUPDOWN.replace("wpa_supplicant.conf", &format!("wpa_supplicant{file}.conf"));
        root.add("etc/network/interfaces", text.as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(with_line(&outcome, "mtu=1400"), format!("in{file}"));
        assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
    }
    // One for each family of addresses.
    let text = "iface wlan0 inet dhcp\nmtu 1400\nwpa-conf /etc/wpa_supplicant/wpa_supplicant.conf\n\
        iface wlan0 inet6 auto\nwpa-conf /etc/wpa_supplicant/wpa_supplicant-FILE.conf\n\
        iface wlan0 inet6 auto\nwpa-conf /etc/wpa_supplicant/wpa_supplicant-FILE.conf\n";
    root.add("etc/network/interfaces", text.replace("FILE", "home").as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "");
    assert!(outcome.has_note("Warn etc/network/interfaces: wlan0: ", "will use DHCP"));
    root.add("etc/network/interfaces", text.replace("-FILE", "").as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "in");
}

#[test]
fn where_it_is_not_clear_which_address_is_meant_none_is_taken() {
    let root = Root::new(&[("etc/dhcpcd.conf", FIXED), ("var/lib/iwd/a.psk", iwd())]);
    root.add("etc/network/interfaces", FIXED_BY_IFUPDOWN.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "a", "twice the same");
    root.add("etc/network/interfaces", FIXED_BY_IFUPDOWN.replace("0.2", "0.3").as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "");
    for path in ["etc/dhcpcd.conf", "etc/network/interfaces"] {
        assert!(outcome.has_note(&format!("Warn {path}: wlan0: "), "more than one place"));
    }
    // Two interfaces, each with its own.
    std::fs::remove_file(root.path("etc/network/interfaces")).unwrap();
    let text = FIXED.to_string() + "interface wlan1\nstatic ip_address=10.0.0.3/8\n";
    root.add("etc/dhcpcd.conf", text.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "");
    for name in ["wlan0", "wlan1"] {
        let start = format!("Warn etc/dhcpcd.conf: {name}: ");
        assert!(outcome.has_note(&start, "more than one wireless interface"));
    }
    // Cables are no such interface.
    let text = FIXED.to_string() + "interface eth0\nstatic ip_address=10.0.0.3/8\n";
    root.add("etc/dhcpcd.conf", text.as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "a");
}

#[test]
fn what_a_wifi_says_itself_stays() {
    let root = Root::new(&[("etc/dhcpcd.conf", FIXED)]);
    let text = |more| iwd().to_string() + more;
    root.add("var/lib/iwd/own.psk", text("[IPv4]\nAddress=10.9.0.9/8\n").as_bytes());
    root.add("var/lib/iwd/dns.psk", text("[IPv4]\nDNS=9.9.9.9\n").as_bytes());
    root.add("var/lib/iwd/four.psk", text("[IPv6]\nEnabled=false\n").as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "address1=10.9.0.9/8"), "own");
    assert_eq!(with_line(&outcome, "address1=10.0.0.2/8,10.0.0.1"), "dns four");
    assert_eq!(with_line(&outcome, "dns=9.9.9.9;"), "dns");
    assert_eq!(with_line(&outcome, "method=disabled"), "four");
    assert!(!outcome.has_note("Info", "own: it is given"), "{:?}", outcome.notes);
}

#[test]
fn settings_for_one_wifi_go_to_this_one() {
    let text = FIXED.to_string()
        + "ssid one\nstatic ip_address=10.0.0.3/8\nssid two\nstatic domain_name_servers=9.9.9.9\n\
           ssid three\nstatic ip_address=10.0.0.4/8\nssid four\nstatic ip_address=10.0.0.5/8\n";
    let root = Root::new(&[("etc/dhcpcd.conf", &text)]);
    let all = ["one", "two", "four", "five"].map(|ssid| supplicant(ssid, "")).concat();
    root.add(SUPPLICANT, all.as_bytes());
    root.add(&format!("{CONNECTIONS}/three"), keyfile("three", "").as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "address1=10.0.0.3/8"), "one");
    // The one whose own settings are not carried over is not given other ones.
    assert_eq!(with_line(&outcome, "address1=10.0.0.2/8,10.0.0.1"), "five two");
    assert_eq!(with_line(&outcome, "mtu=1400"), "five two");
    assert_eq!(with_line(&outcome, "dns=9.9.9.9;"), "two");
    assert_eq!(with_line(&outcome, "address1=10.0.0.4/8"), "");
    assert!(outcome.has_note("Info", ": one: it is given the address settings that go by"));
    assert!(outcome.has_note("Warn etc/dhcpcd.conf: three: ", "no Wi-Fi that"));
    assert!(outcome.has_note("Warn etc/dhcpcd.conf: four: ", "more than 3 Wi-Fis"));
    let only = ["two".to_string()];
    let outcome = root.gather(&Selection { only: &only, ..Selection::default() });
    assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
    // In two places, and not the same.
    let text = "[Match]\nType=wlan\nSSID=one\n[Network]\nAddress=10.0.0.9/8\n";
    root.add("etc/systemd/network/a.network", text.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "address1=10.0.0.2/8,10.0.0.1"), "five two");
    assert_eq!(with_line(&outcome, "mtu=1400"), "five two");
    assert!(outcome.has_note("Warn etc/dhcpcd.conf: one: ", "more than one place"));
}

#[test]
fn of_the_files_of_networkd_that_match_only_one_is_applied() {
    let lab =
        |name: &str, text: &str| format!("[Match]\nName={name}\nSSID=lab\n[Network]\n{text}\n");
    for (name, text, address, mtu) in [
        ("wlan0", "DHCP=yes", "other", "other"),
        ("wlan0", "", "other", "other"),
        ("wlan0", "DHCP=yes\nDNS=9.9.9.9", "other", "other"),
        ("wlan0", "Address=nonsense", "other", "other"),
        ("wlan0", "DHCPServer=yes\nAddress=10.0.0.9/8", "other", "other"),
        ("wl*", "DHCP=yes", "other", "other"),
        // Another interface joins it.
        ("wlan1", "DHCP=yes", "lab other", "lab other"),
    ] {
        let root = Root::new(&[("etc/systemd/network/20.network", FIXED_BY_NETWORKD)]);
        root.add("etc/systemd/network/10.network", lab(name, text).as_bytes());
        let wifis = supplicant("lab", "") + &supplicant("other", "");
        root.add("etc/wpa_supplicant/wpa_supplicant-wlan0.conf", wifis.as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(with_line(&outcome, "address1=10.0.0.2/8,10.0.0.1"), address, "{text}");
        assert_eq!(with_line(&outcome, "mtu=1400"), mtu, "{text}");
        let dns = if text.contains("DNS") { "lab" } else { "" };
        assert_eq!(with_line(&outcome, "dns=9.9.9.9;"), dns);
        let is_said = text.contains("Address=");
        assert_eq!(outcome.has_note("Warn", ""), is_said, "{:?}", outcome.notes);
    }
    // Of two files for it, too.
    for (first, address) in [("10.network", ""), ("30.network", "lab")] {
        let root = Root::new(&[(SUPPLICANT, &*supplicant("lab", ""))]);
        let folder = "etc/systemd/network";
        root.add(&format!("{folder}/{first}"), lab("wlan0", "DHCP=yes").as_bytes());
        root.add(&format!("{folder}/20.network"), lab("wlan0", "Address=10.0.0.9/8").as_bytes());
        let outcome = root.gather(&Selection::default());
        assert_eq!(with_line(&outcome, "address1=10.0.0.9/8"), address);
        let other = if address.is_empty() { "20.network" } else { first };
        let start = format!("Warn {folder}/{other}: ");
        assert!(outcome.has_note(&start, "not in force"), "{:?}", outcome.notes);
    }
}

#[test]
fn wifis_with_plain_dhcp_of_their_own_take_no_place_of_others() {
    let root = Root::new(&[("etc/systemd/network/20.network", FIXED_BY_NETWORKD)]);
    let mut wifis = supplicant("other", "");
    for number in 10..16 {
        let network = if number < 14 { "DHCP=yes" } else { "Address=10.0.0.9/8" };
        let text = format!("[Match]\nSSID=s{number}\n[Network]\n{network}\n");
        root.add(&format!("etc/systemd/network/{number}.network"), text.as_bytes());
        wifis += &supplicant(&format!("s{number}"), "");
    }
    root.add(SUPPLICANT, wifis.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "address1=10.0.0.9/8"), "s14 s15");
    assert_eq!(with_line(&outcome, "mtu=1400"), "other");
    assert!(!outcome.has_note("Warn", ""), "{:?}", outcome.notes);
}

#[test]
fn with_too_many_wifis_that_have_their_own_address_none_gets_the_interfaces() {
    let own = |number: usize| format!("ssid s{number}\nstatic ip_address=10.0.1.{number}/8\n");
    let text = |count| FIXED.to_string() + &(1..=count).map(own).collect::<String>();
    let root = Root::new(&[]);
    root.add(SUPPLICANT, (supplicant("a", "") + &supplicant("s36", "")).as_bytes());
    // dhcpcd.rs takes 32 interfaces and Wi-Fis of one file.
    root.add("etc/dhcpcd.conf", text(31).as_bytes());
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "a s36");
    for number in 32..=35 {
        let text = format!("[Match]\nSSID=s{number}\n[Network]\nAddress=10.0.1.{number}/8\n");
        root.add(&format!("etc/systemd/network/{number}.network"), text.as_bytes());
    }
    assert_eq!(with_line(&root.gather(&Selection::default()), "mtu=1400"), "a s36");
    let text = "[Match]\nSSID=s36\n[Network]\nAddress=10.0.1.36/8\n";
    root.add("etc/systemd/network/36.network", text.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(with_line(&outcome, "mtu=1400"), "");
    assert_eq!(with_line(&outcome, "address1=10.0.1.36/8"), "");
    assert!(outcome.has_note("Warn etc/dhcpcd.conf: wlan0: ", "more than 32 Wi-Fis"));
}

#[test]
fn a_cable_does_not_lose_its_fixed_address_without_a_word() {
    let dhcp = "iface eth0 inet dhcp\ndns-nameservers 9.9.9.9\n";
    let fixed = "iface eth0 inet static\naddress 10.0.0.3/8\n";
    let other = "interface eth0\nstatic ip_address=10.0.0.2/8\n";
    let dns = "interface eth0\nstatic domain_name_servers=9.9.9.9\n";
    let keyfile = |ipv4: &str| {
        let text = "[connection]\nid=port\ntype=ethernet\ninterface-name=eth0\n";
        format!("{text}[ipv4]\n{ipv4}\n[ipv6]\naddr-gen-mode=stable-privacy\n")
    };
    for (first, second, is_said) in
        [(dhcp, other, true), (fixed, other, false), (dhcp, dns, false), (fixed, dns, false)]
    {
        let root = Root::new(&[("etc/network/interfaces", first), ("etc/dhcpcd.conf", second)]);
        let lost = "Warn etc/dhcpcd.conf: eth0: left out with its fixed addresses";
        assert_eq!(root.gather(&Selection::default()).has_note(lost, ""), is_said, "{first}");
        for (ipv4, is_said) in [
            ("method=auto", second == other),
            ("method=manual\naddress1=10.0.0.4/8", false),
            ("method=manual\naddresses1=10.0.0.4;8;0.0.0.0;", false),
        ] {
            root.add(&format!("{CONNECTIONS}/port"), keyfile(ipv4).as_bytes());
            let outcome = root.gather(&Selection::default());
            assert_eq!(outcome.names(), pairs(&[("balena-01", "port")]));
            assert_eq!(outcome.has_note(lost, ""), is_said, "{ipv4}");
        }
    }
}

#[test]
fn a_port_is_the_same_by_its_name_and_by_its_hardware_address() {
    let connman = "[ethernet_001b2100000a_cable]\nIPv4.method=manual\n\
        IPv4.local_address=10.0.0.3\nIPv4.netmask_prefixlen=8\n";
    let root = Root::new(&[
        ("etc/network/interfaces", "iface eth0 inet static\naddress 10.0.0.2/8\n"),
        ("var/lib/connman/ethernet_001b2100000a_cable/settings", connman),
    ]);
    assert_eq!(root.gather(&Selection::default()).files.len(), 2, "without sysfs");
    card(&root, "eth0", "00:1b:21:00:00:0a", "0");
    card(&root, "br0", "00:1b:21:00:00:0a", "1");
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.files.len(), 1);
    assert!(outcome.files[0].1.contains("address1=10.0.0.3/8\n"), "connman comes first");
    assert!(outcome.has_note("Warn etc/network/interfaces: eth0: left out", ""));
    let text = "[connection]\nid=port\ntype=ethernet\n[ethernet]\nmac-address=00:1B:21:00:00:0A\n";
    root.add(&format!("{CONNECTIONS}/port"), text.as_bytes());
    let outcome = root.gather(&Selection::default());
    assert_eq!(outcome.names(), pairs(&[("balena-01", "port")]));
    // A port of a switch, which has the address of another.
    std::fs::remove_file(root.path(&format!("{CONNECTIONS}/port"))).unwrap();
    card(&root, "lan1", "00:1b:21:00:00:0a", "0");
    assert_eq!(root.gather(&Selection::default()).files.len(), 2, "a switch");
}

#[test]
fn settings_of_one_interface_are_taken_rather_than_a_profile_for_any_cable() {
    let any = |more: &str| format!("[connection]\nid=any\ntype=ethernet\n{more}");
    let priority_of = |more: &str| {
        let interfaces = "auto eth0\niface eth0 inet static\naddress 10.0.0.2/8\n";
        let root = Root::new(&[("etc/network/interfaces", interfaces)]);
        root.add(&format!("{CONNECTIONS}/any"), any(more).as_bytes());
        let outcome = root.gather(&Selection::default());
        let made = outcome.files.iter().find(|(_, text)| text.contains("10.0.0.2")).unwrap();
        let summary = manager::summarise(made.1.as_bytes()).unwrap();
        (summary.priority, outcome.has_note("Warn", "the new OS may prefer it"))
    };
    assert_eq!(priority_of(""), (1, false));
    assert_eq!(priority_of("autoconnect-priority=41\n"), (42, false));
    assert_eq!(priority_of("autoconnect-priority=-7\n"), (0, false));
    // There is none above it.
    assert_eq!(priority_of("autoconnect-priority=999\n"), (999, true));
    // These are not for this cable, or not taken at all.
    for more in ["interface-name=eth1\n", "autoconnect=false\n"] {
        assert_eq!(priority_of(more), (0, false), "{more}");
    }
}

#[test]
fn the_country_and_the_time_servers_of_netplan_and_systemd_are_found() {
    let of = |path: &str, content: &str| {
        let root = Root::new(&[(path, content)]);
        shown_beside(&root.0)
    };
    let unit = "[Unit]\nAfter=network.target\n[Service]\nType=oneshot\nExecStart=/usr/sbin/iw reg set DE\n";
    let yaml = "network:\n  wifis:\n    wlan0:\n      regulatory-domain: \"DE\"\n";
    for (path, content) in [
        ("run/systemd/system/netplan-regdom.service", unit),
        ("run/systemd/generator.late/netplan-regdom.service", unit),
        ("etc/netplan/50-cloud-init.yaml", yaml),
    ] {
        assert_eq!(of(path, content), "# config.json: country: DE\n", "{path}");
    }
    for folder in ["etc/systemd", "run/systemd", "usr/lib/systemd", "usr/local/lib/systemd"] {
        for (name, content) in [
            ("timesyncd.conf", "[Time]\nNTP=10.0.0.9\n"),
            ("timesyncd.conf", "[Time]\nFallbackNTP=10.0.0.9\n"),
            ("timesyncd.conf.d/site.conf", "[Time]\nNTP=10.0.0.9\n"),
            ("timesyncd.conf.d/site.conf", "[Time]\nFallbackNTP=10.0.0.9\n"),
            ("network/10-eth0.network", "[Match]\nName=eth0\n[Network]\nNTP=10.0.0.9\n"),
            ("network/10-eth0.network.d/site.conf", "[Network]\nNTP=10.0.0.9\n"),
        ] {
            let found = of(&format!("{folder}/{name}"), content);
            assert_eq!(found, "# config.json: ntpServers: 10.0.0.9\n", "{folder}/{name}");
        }
    }
    let root = Root::new(&[
        ("etc/systemd/timesyncd.conf", "[Time]\nFallbackNTP=10.0.0.8 10.0.0.7\n"),
        ("usr/lib/systemd/network/10-eth0.network.d/site.conf", "[Network]\nNTP=10.0.0.9\n"),
    ]);
    assert_eq!(shown_beside(&root.0), "# config.json: ntpServers: 10.0.0.9\n");
}

#[test]
fn a_name_that_an_administrator_gave_an_interface_is_not_relied_upon() {
    let interfaces = "auto eth0\niface eth0 inet static\naddress 10.0.0.2/8\n";
    let link = "[Match]\nMACAddress=00:1b:21:00:00:0a\n[Link]\nName=eth0\n";
    let rule = "SUBSYSTEM==\"net\", ATTR{address}==\"00:1b:21:00:00:0a\", NAME=\"eth0\"\n";
    for (path, content, is_given) in [
        ("etc/systemd/network/10-eth0.link", link, true),
        ("etc/udev/rules.d/70-persistent-net.rules", rule, true),
        ("etc/systemd/network/10-eth1.link", "[Link]\nName=eth1\n", false),
        ("etc/systemd/network/10-eth0.txt", link, false),
    ] {
        let root = Root::new(&[("etc/network/interfaces", interfaces), (path, content)]);
        let outcome = root.gather(&Selection::default());
        let is_said = outcome.has_note(
            "Warn etc/network/interfaces: eth0",
            "bound to the interface, which may have another name",
        );
        assert_eq!(is_said, is_given, "{path}");
        // With a maker's address the settings go by that.
        card(&root, "eth0", "00:1b:21:00:00:0a", "0");
        let outcome = root.gather(&Selection::default());
        let is_bound = outcome.files[0].1.contains("mac-address=00:1b:21:00:00:0a\n");
        assert_eq!(is_bound, is_given, "{path}");
    }
}
