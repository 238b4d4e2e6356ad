//! The network settings of the old OS, and the keyfiles that are made of them.
//!
//! Whatever a file holds: what is found fits the types' promises, and as a keyfile it is read back as the same network.

use std::net::IpAddr;
use takeover::balena::keyfile;
use takeover::network::beside::{self, Form};
use takeover::network::manager::{self, Kind, Summary};
use takeover::network::matching::{Machine, Port};
use takeover::network::{
    Addresses, Family, Finding, Findings, Method, Security, Ssid, Wifi, Wired, Wireless, connman,
    dhcpcd, ifupdown, iwd, names, networkd, supplicant,
};

/// Reads a file and checks each finding; true when a network was found.
fn read(parse: impl FnOnce(&mut Findings)) -> bool {
    let mut networks = 0;
    parse(&mut |finding| match finding {
        Finding::Wifi(wifi) => {
            networks += 1;
            check_wifi(&wifi);
        }
        Finding::Wired(wired) => {
            networks += 1;
            check_wired(&wired);
        }
        Finding::Wireless(apart) => {
            networks += 1;
            check_wireless(&apart);
        }
        Finding::Lost(name, _) | Finding::LostWifi(name, _) | Finding::Doubtful(name, _) => {
            super::assert_printable(&name);
        }
    });
    networks > 0
}

fn check_wifi(wifi: &Wifi) {
    assert!(!wifi.ssid.is_empty());
    match &wifi.security {
        Security::Psk(key) => {
            let is_raw = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
            assert!(is_raw || (8..64).contains(&key.len()));
        }
        Security::Sae(password) => assert!(!password.is_empty()),
        Security::Enterprise(login) => {
            assert!(!login.identity.is_empty());
            assert!(["peap", "ttls", "pwd", "fast", "leap", "md5"].contains(&&*login.method));
        }
        _ => {}
    }
    check_addresses(&wifi.addresses);
    let mut buffer = [0; 8192];
    let length = keyfile::wifi(wifi, "an id", &mut buffer).expect("a keyfile");
    let summary = read_back(&buffer[..length]);
    assert_eq!(summary.kind, Kind::Wifi);
    assert_eq!(summary.ssid, wifi.ssid);
    assert_eq!(summary.autoconnect, wifi.autoconnect);
    assert_eq!(summary.priority, wifi.priority.clamp(-999, 999));
    assert!(!summary.is_own_network);
}

fn check_wired(wired: &Wired) {
    super::assert_printable(&wired.interface);
    assert!(wired.mac.is_empty() || wired.mac.len() == 17);
    check_addresses(&wired.addresses);
    let mut buffer = [0; 8192];
    let length = keyfile::wired(wired, "an id", &mut buffer).expect("a keyfile");
    let summary = read_back(&buffer[..length]);
    assert_eq!(summary.kind, Kind::Ethernet);
    assert_eq!(summary.interface_name, wired.interface);
    assert_eq!(summary.mac_pinned, !wired.mac.is_empty());
}

/// What a Wi-Fi gets from its interface makes a keyfile of it.
fn check_wireless(apart: &Wireless) {
    let settings = &apart.settings;
    assert!(!(apart.ssid.is_empty() && settings.interface.is_empty() && settings.mac.is_empty()));
    super::assert_printable(&apart.name());
    check_wired(settings);
    let ssid = if apart.ssid.is_empty() { b"any" } else { &apart.ssid[..] };
    let mut wifi = Wifi::new(Ssid::from_slice(ssid).expect("a name"), Security::Open);
    wifi.addresses.inherit(&settings.addresses);
    check_wifi(&wifi);
}

fn check_addresses(addresses: &Addresses) {
    super::assert_printable(&addresses.search);
    check_family(&addresses.ipv4);
    check_family(&addresses.ipv6);
}

fn check_family(family: &Family) {
    assert!(family.method != Method::Manual || !family.addresses.is_empty(), "{family:?}");
    let routes = family.routes.iter();
    let networks = family.addresses.iter().chain(routes.clone().map(|route| &route.to));
    for network in networks {
        let address: IpAddr = network.address.parse().expect("an address");
        assert!(network.prefix <= if address.is_ipv4() { 32 } else { 128 });
    }
    let routers = routes.map(|route| &route.via).chain([&family.gateway]);
    for address in routers.filter(|address| !address.is_empty()).chain(&family.dns) {
        address.parse::<IpAddr>().expect("an address");
    }
}

/// A keyfile that was written is one, line by line, and lacks nothing.
fn read_back(bytes: &[u8]) -> Summary {
    let text = core::str::from_utf8(bytes).expect("UTF-8");
    for line in text.lines() {
        super::assert_printable(line);
        let is_group = line.starts_with('[') && line.ends_with(']');
        assert!(line.is_empty() || is_group || line.contains('='), "{line}");
    }
    let summary = manager::summarise(bytes).expect("a keyfile");
    assert_eq!(&*summary.id, "an id");
    summary.findings(&names::name_may_change, &mut |finding| {
        assert!(matches!(finding, Finding::Doubtful(..)), "{finding:?}");
    });
    summary
}

/// wpa_supplicant.conf.
pub fn supplicant(bytes: &[u8]) -> bool {
    read(|found| supplicant::parse(bytes, found))
}

/// A settings file or a .config of connman.
pub fn connman(bytes: &[u8]) -> bool {
    read(|found| connman::parse(bytes, found))
}

/// A network of iwd. The first line of the input is the file's name.
pub fn iwd(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(name) = core::str::from_utf8(&bytes[..end]) else {
        return false;
    };
    read(|found| iwd::parse(name, bytes.get(end + 1..).unwrap_or_default(), found))
}

/// /etc/network/interfaces with the files behind it, and which files it names.
pub fn ifupdown(bytes: &[u8]) -> bool {
    for number in 0..3 {
        if let Some(source) = ifupdown::source(bytes, number) {
            source.has("10-uplink.cfg");
        }
        ifupdown::wpa_file(bytes, number);
    }
    assert!(ifupdown::wpa_files(bytes).count() <= bytes.len());
    read(|found| ifupdown::parse(bytes, found))
}

/// The files of systemd-networkd, on a machine with two interfaces and on an unknown one; or one of them alone.
pub fn networkd(bytes: &[u8]) -> bool {
    let port = |name: &str, mac: &str, is_wireless| Port {
        name: name.into(),
        mac: mac.into(),
        is_wireless,
        ..Port::default()
    };
    let ports =
        [port("eth0", "00:1b:21:00:00:01", false), port("wlan0", "00:1b:21:00:00:02", true)];
    let machine = Machine { ports: &ports, host: "press-3", ..Machine::default() };
    let several = |found: &mut Findings| {
        networkd::parse(bytes, &machine, &mut |path, finding| {
            assert!(path.ends_with(".network"));
            found(finding);
        });
    };
    let is_found = read(several);
    read(|found| networkd::parse(bytes, &Machine::default(), &mut |_, finding| found(finding)))
        | read(|found| networkd::parse_one(bytes, found))
        | is_found
}

/// dhcpcd.conf.
pub fn dhcpcd(bytes: &[u8]) -> bool {
    read(|found| dhcpcd::parse(bytes, found))
}

/// A keyfile of NetworkManager: what is said of it can be shown.
pub fn keyfile(bytes: &[u8]) -> bool {
    let Ok(summary) = manager::summarise(bytes) else {
        return false;
    };
    super::assert_printable(&summary.id);
    super::assert_printable(&summary.interface_name);
    super::assert_printable(&summary.name());
    summary.findings(&names::name_may_change, &mut |finding| match finding {
        Finding::Lost(name, _) | Finding::LostWifi(name, _) | Finding::Doubtful(name, _) => {
            super::assert_printable(&name);
        }
        Finding::Wifi(_) | Finding::Wired(_) | Finding::Wireless(_) => {
            panic!("a keyfile is copied, not read")
        }
    });
    true
}

/// What stands beside addresses, in all the forms that it has, and the files that are named elsewhere. The first line
/// of the input is the key.
pub fn beside(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let key = std::str::from_utf8(&bytes[..end]).unwrap_or("DNS");
    let mut values = 0;
    for form in [Form::Entry(""), Form::Entry("Time"), Form::Word, Form::Directive] {
        beside::values(&bytes[end..], form, key, &mut |value| {
            values += 1;
            let country = beside::country(value);
            assert!(country.is_none_or(|code| code.iter().all(u8::is_ascii_uppercase)));
            if beside::is_own_time_server(value) {
                // It needs no escape in config.json.
                assert!(!value.contains(|letter: char| letter == '"'
                    || letter == '\\'
                    || letter.is_control()));
            }
        });
    }
    let mut addresses = Addresses::default();
    beside::resolv_conf(bytes, &mut addresses);
    beside::resolved_conf(bytes, &mut addresses);
    check_addresses(&addresses);
    let mut config = manager::Config::default();
    config.take(bytes);
    config.leaves_alone("eth0", "00:1b:21:00:00:0a");
    supplicant::named_files(bytes, &mut |path| assert!(path.is_empty() || path.starts_with('/')));
    values > 0
}
