//! The network settings of the old OS, and the keyfiles that are made of them.
//!
//! Whatever a file holds: what is found fits the types' promises, as a keyfile it is read back as the same network with
//! the same addresses, and no secret is in what is said of it or shown.

use std::net::IpAddr;
use takeover::balena::keyfile;
use takeover::network::beside::{self, Completed, Form};
use takeover::network::given::{self, Given, How};
use takeover::network::ini::{self, Line};
use takeover::network::leases::{self, Lease};
use takeover::network::live::{Link, Part, State};
use takeover::network::manager::{self, Kind, Summary};
use takeover::network::matching::{Machine, Port};
use takeover::network::{
    Addresses, Family, Finding, Findings, Method, Prefixed, Route, Security, Ssid, Wifi, Wired,
    Wireless, connman, dhcpcd, ifupdown, iwd, names, networkd, supplicant,
};

/// Reads a file and checks each finding; true when a network was found.
fn read(bytes: &[u8], parse: impl Fn(&[u8], &mut Findings)) -> bool {
    let mut networks = 0;
    let mut secrets = Vec::new();
    let mut said = Vec::new();
    parse(bytes, &mut |finding| match finding {
        Finding::Wifi(wifi) => {
            networks += 1;
            secrets.extend(secret(&wifi.security));
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
        Finding::Lost(name, why) | Finding::LostWifi(name, why) | Finding::Doubtful(name, why) => {
            super::assert_printable(&name);
            said.push((name.to_string(), why));
        }
    });
    for secret in secrets {
        is_said_of_none(bytes, &secret, &said, &parse);
    }
    networks > 0
}

/// The password of a Wi-Fi.
fn secret(security: &Security) -> Option<String> {
    match security {
        Security::Psk(key) => Some(key.to_string()),
        Security::Sae(password) => Some(password.to_string()),
        Security::Enterprise(login) => Some(login.password.to_string()),
        Security::Open | Security::Owe => None,
    }
}

/// Another secret of the same kind.
fn other(secret: &str) -> String {
    let is_raw = secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_raw { "0" } else { "Q" }.repeat(secret.len())
}

/// With another secret in its place, where it stands once, the same is said.
fn is_said_of_none(
    bytes: &[u8],
    secret: &str,
    said: &[(String, &str)],
    parse: &impl Fn(&[u8], &mut Findings),
) {
    let mut places = bytes.windows(secret.len().max(1)).enumerate();
    let mut place = || places.find(|(_, word)| *word == secret.as_bytes()).map(|(at, _)| at);
    let (Some(at), None) = (place(), place()) else { return };
    // Else it may be a part of something else, and the secret itself be there in another spelling.
    let is_start = bytes[..at].last().is_none_or(|byte| b"=\" \t".contains(byte));
    let is_end = bytes[at + secret.len()..].first().is_none_or(|byte| b"\n\r\"".contains(byte));
    let is_plain = secret.len() >= 8 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !(is_start && is_end && is_plain) {
        return;
    }
    let mut changed = bytes.to_vec();
    changed[at..at + secret.len()].copy_from_slice(other(secret).as_bytes());
    let mut again = Vec::new();
    parse(&changed, &mut |finding| {
        if let Finding::Lost(name, why)
        | Finding::LostWifi(name, why)
        | Finding::Doubtful(name, why) = finding
        {
            again.push((name.to_string(), why));
        }
    });
    assert_eq!(said, again, "a secret is said");
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
    gives(&buffer[..length], &wifi.addresses);
    is_hidden(wifi, &buffer[..length]);
}

/// With another secret, the lines that are shown of its keyfile are the same.
fn is_hidden(wifi: &Wifi, keyfile: &[u8]) {
    let Some(secret) = secret(&wifi.security) else { return };
    let mut changed = wifi.clone();
    match &mut changed.security {
        Security::Psk(key) => *key = (&*other(&secret)).into(),
        Security::Sae(password) => *password = (&*other(&secret)).into(),
        Security::Enterprise(login) => login.password = (&*other(&secret)).into(),
        Security::Open | Security::Owe => {}
    }
    let mut buffer = [0; 8192];
    let length = keyfile::wifi(&changed, "an id", &mut buffer).expect("a keyfile");
    assert_eq!(shown(keyfile), shown(&buffer[..length]));
}

fn shown(keyfile: &[u8]) -> Vec<&[u8]> {
    let mut group: &[u8] = &[];
    let line = |line| {
        if <[u8]>::starts_with(line, b"[") {
            group = line;
        }
        manager::without_secret(group, line).unwrap_or(line)
    };
    keyfile.split(|byte| *byte == b'\n').map(line).collect()
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
    assert_eq!(summary.mac_address, wired.mac);
    gives(&buffer[..length], &wired.addresses);
}

/// The keyfile gives these addresses, and what goes with them.
fn gives(keyfile: &[u8], addresses: &Addresses) {
    let given = Given::read(keyfile).expect("a keyfile");
    assert!(!given.is_port);
    gives_family(&given.ipv4, &addresses.ipv4);
    gives_family(&given.ipv6, &addresses.ipv6);
    let mtu = value(keyfile, "ethernet", "mtu").or(value(keyfile, "wifi", "mtu"));
    assert_eq!(mtu.map_or(0, |mtu| mtu.parse().expect("a number")), addresses.mtu);
    for (group, family) in [("ipv4", &addresses.ipv4), ("ipv6", &addresses.ipv6)] {
        let has = |key| value(keyfile, group, key).is_some();
        if matches!(family.method, Method::Disabled | Method::LinkLocal) {
            assert!(!has("dns") && !has("dns-search") && !has("route-metric"));
            continue;
        }
        let servers: String = family.dns.iter().map(|server| format!("{};", &**server)).collect();
        assert_eq!(value(keyfile, group, "dns").unwrap_or_default(), servers);
        let metric = value(keyfile, group, "route-metric").map(|metric| metric.parse().unwrap());
        assert_eq!(metric, family.route_metric);
        for (key, is_set) in [
            ("ignore-auto-dns", family.ignores_auto_dns),
            ("ignore-auto-routes", family.ignores_auto_routes),
            ("never-default", family.never_default),
        ] {
            assert_eq!(has(key), is_set, "{key}");
        }
    }
}

fn value<'a>(keyfile: &'a [u8], wanted: &str, key: &str) -> Option<&'a str> {
    let mut group = "";
    ini::lines(keyfile).find_map(|line| match line {
        Line::Group(name) => {
            group = name;
            None
        }
        _ if group == wanted => line.value_of(key),
        _ => None,
    })
}

fn gives_family(given: &given::Family, family: &Family) {
    let how = match family.method {
        Method::Auto => How::Automatic,
        Method::Manual => How::Fixed,
        Method::Disabled | Method::LinkLocal => How::Not,
    };
    assert_eq!(given.how, how);
    assert_eq!(given.is_never_default, family.never_default && how != How::Not);
    if how == How::Not {
        assert!(given.addresses.is_empty() && given.gateway.is_none() && given.routes.is_empty());
        return;
    }
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let own = family.addresses.iter().map(|own| (ip(&own.address), own.prefix));
    assert!(own.eq(given.addresses.iter().copied()), "{family:?}");
    let via = |text: &str| {
        Some(text).filter(|text| !text.is_empty()).map(ip).filter(|via| !via.is_unspecified())
    };
    let is_default = |route: &&Route| route.to.prefix == 0;
    let routes = family.routes.iter().filter(|route| !is_default(route));
    let routes = routes.map(|route| (ip(&route.to.address), route.to.prefix, via(&route.via)));
    assert!(routes.eq(given.routes.iter().copied()), "{family:?}");
    assert!(family.gateway.is_empty() || !family.addresses.is_empty(), "{family:?}");
    let defaults = || family.routes.iter().filter(is_default).map(|route| via(&route.via));
    let gateway = via(&family.gateway).or_else(|| defaults().flatten().next());
    assert_eq!(given.gateway, gateway, "{family:?}");
    assert_eq!(given.is_default_on_link, defaults().any(|via| via.is_none()), "{family:?}");
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
    assert!(addresses.search.split(' ').all(|domain| domain.len() < 128));
    assert!(addresses.mtu == 0 || (68..=65535).contains(&addresses.mtu));
    check_family(&addresses.ipv4, false);
    check_family(&addresses.ipv6, true);
}

fn check_family(family: &Family, is_ipv6: bool) {
    assert!(family.method != Method::Manual || !family.addresses.is_empty(), "{family:?}");
    let routes = family.routes.iter();
    let networks = family.addresses.iter().chain(routes.clone().map(|route| &route.to));
    for network in networks {
        let address: IpAddr = network.address.parse().expect("an address");
        assert_eq!(address.is_ipv6(), is_ipv6);
        assert!(network.prefix <= if address.is_ipv4() { 32 } else { 128 });
    }
    let routers = routes.map(|route| &route.via).chain([&family.gateway]);
    for address in routers.filter(|address| !address.is_empty()).chain(&family.dns) {
        let address = address.parse::<IpAddr>().expect("an address");
        assert_eq!(address.is_ipv6(), is_ipv6);
    }
    for (at, server) in family.dns.iter().enumerate() {
        let server: IpAddr = server.parse().expect("an address");
        assert!(!server.is_loopback());
        assert!(family.dns[..at].iter().all(|other| other.parse() != Ok(server)), "{family:?}");
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
    read(bytes, supplicant::parse)
}

/// A settings file or a .config of connman.
pub fn connman(bytes: &[u8]) -> bool {
    read(bytes, connman::parse)
}

/// A network of iwd. The first line of the input is the file's name.
pub fn iwd(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let Ok(name) = core::str::from_utf8(&bytes[..end]) else {
        return false;
    };
    let file = bytes.get(end + 1..).unwrap_or_default();
    read(file, |file, found| iwd::parse(name, file, found))
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
    read(bytes, ifupdown::parse)
}

/// The files of systemd-networkd, on a machine with two interfaces and on an unknown one; or one of them alone.
pub fn networkd(bytes: &[u8]) -> bool {
    let port = |name: &str, mac: &str, is_wireless| Port {
        name: name.into(),
        mac: mac.into(),
        is_wireless,
        driver: "macb".into(),
        path: format!("platform-{name}").as_str().into(),
    };
    let ports =
        [port("eth0", "00:1b:21:00:00:01", false), port("wlan0", "00:1b:21:00:00:02", true)];
    let (id, command_line) = ("0123abcd", "console=tty1 quiet plant=3");
    let machine = Machine { ports: &ports, host: "press-3", id, command_line };
    let on = |machine: &Machine, bytes: &[u8], found: &mut Findings| {
        networkd::parse(bytes, machine, &mut |path, finding| {
            assert!(path.ends_with(".network"));
            found(finding);
        });
    };
    read(bytes, |bytes, found| on(&machine, bytes, found))
        | read(bytes, |bytes, found| on(&Machine::default(), bytes, found))
        | read(bytes, networkd::parse_one)
}

/// dhcpcd.conf.
pub fn dhcpcd(bytes: &[u8]) -> bool {
    read(bytes, dhcpcd::parse)
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
    given(bytes, &summary);
    true
}

/// What it gives an interface.
fn given(bytes: &[u8], summary: &Summary) {
    let given = Given::read(bytes).expect("a keyfile");
    assert_eq!(given.summary.uuid, summary.uuid);
    let mut link = Link {
        number: 2,
        name: "eth0".into(),
        mac: "00:1b:21:00:00:01".into(),
        is_made_by_software: false,
        is_tunnel: false,
        is_modem: false,
        is_bridge: false,
        master: 0,
    };
    for (name, is_made, is_modem) in
        [("eth0", false, false), ("br0", true, false), ("wwan0", false, true)]
    {
        (link.name, link.is_made_by_software, link.is_modem) = (name.into(), is_made, is_modem);
        for (is_wifi, ssid) in [(false, None), (true, None), (true, Some(&b"site"[..]))] {
            let rank = given.rank_for(&link, is_wifi, ssid);
            // One that comes up by itself, for this name and this Wi-Fi.
            let Some((priority, named)) = rank else { continue };
            assert!(named <= 2 && priority == summary.priority && summary.autoconnect);
            let is_its = *summary.interface_name == *name || summary.interface_name.is_empty();
            assert!(is_its || summary.kind == Kind::Gsm);
            let is_joined = ssid.is_none_or(|ssid| *summary.ssid == *ssid);
            assert!(is_joined || summary.kind == Kind::Gsm);
        }
    }
}

/// What stands beside addresses, in all the forms that it has, and the files that are named elsewhere. The first line
/// of the input is the key.
pub fn beside(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let key = std::str::from_utf8(&bytes[..end]).unwrap_or("DNS");
    let mut values = 0;
    for form in [Form::Entry(""), Form::Entry("Time"), Form::Word, Form::Directive, Form::Yaml] {
        beside::values(&bytes[end..], form, key, &mut |value| {
            values += 1;
            // A line that a backslash ends goes on in the next one.
            assert!(!value.replace("\\\n", "").contains('\n'), "{value:?}");
            let country = beside::country(value);
            assert!(country.is_none_or(|code| code.iter().all(u8::is_ascii_uppercase)));
            if beside::is_own_time_server(value) {
                // It needs no escape in config.json, and is one word.
                let is_odd = |letter: char| {
                    letter == '"' || letter == '\\' || letter.is_control() || letter == ' '
                };
                assert!(!value.contains(is_odd) && !value.is_empty());
            }
        });
    }
    supplicant::named_files(bytes, &mut |path| assert!(path.is_empty() || path.starts_with('/')));
    values > 0
}

/// What DHCP clients have written down of a lease, by the reader of each.
pub fn leases(bytes: &[u8]) -> bool {
    let wanted = IpAddr::from([10, 7, 0, 51]);
    let of_dhclient = leases::dhclient(bytes, wanted);
    assert!(of_dhclient.as_ref().is_none_or(|lease| lease.address == wanted));
    if of_dhclient.is_some() {
        // An entry that is not whole yet takes the place of none.
        let mut longer = bytes.to_vec();
        longer.extend(b"\nlease {\n  fixed-address 10.7.0.51;\n");
        assert_eq!(leases::dhclient(&longer, wanted), of_dhclient);
    }
    let message = leases::message(bytes);
    assert_eq!(message.is_some(), bytes.len() >= 20);
    // One that is cut says the same as far as it goes.
    if let (Some(cut), Some(whole)) = (leases::message(&bytes[..bytes.len() / 2]), &message) {
        assert!(whole.servers.starts_with(&cut.servers) && whole.routes.starts_with(&cut.routes));
    }
    let texts = [leases::networkd(bytes), leases::manager(bytes)];
    assert!(texts.iter().flatten().all(|lease| lease.routes.is_empty()));
    let found = texts.iter().flatten().chain(&of_dhclient);
    let is_found = found.clone().count() > 0;
    found.chain(&message).for_each(check_lease);
    is_found || message.is_some_and(|lease| !lease.servers.is_empty() || !lease.routes.is_empty())
}

/// Every network is one: no bit is set behind its prefix, as of those that the kernel has.
fn check_lease(lease: &Lease) {
    assert!(lease.address.is_ipv4());
    for (to, prefix) in &lease.routes {
        let IpAddr::V4(to) = to else { panic!("not IPv4") };
        assert!(*prefix <= 32);
        let behind = u32::MAX.checked_shr(u32::from(*prefix)).unwrap_or(0);
        assert_eq!(to.to_bits() & behind, 0, "{to}/{prefix}");
    }
}

/// NetworkManager.conf: true when it leaves an interface alone.
pub fn manager_config(bytes: &[u8]) -> bool {
    let mut config = manager::Config::default();
    config.take(bytes);
    let is_left = config.leaves_alone("eth0", "00:1b:21:00:00:0a");
    // What is left alone whatever it is, is left alone whoever it is.
    assert!(is_left || !config.leaves_alone("", ""));
    is_left
}

/// The files of resolvers: true when a name server is found that others can ask.
pub fn name_servers(bytes: &[u8]) -> bool {
    let mut is_found = false;
    for read in [beside::resolv_conf, beside::resolved_conf, beside::dnsmasq_conf] {
        let mut found = Addresses::default();
        read(bytes, &mut found);
        check_addresses(&found);
        is_found |= !found.ipv4.dns.is_empty() || !found.ipv6.dns.is_empty();
        // A second time adds nothing that there is room for.
        let mut again = found.clone();
        read(bytes, &mut again);
        assert_eq!(found.search, again.search);
        completes(&found);
    }
    is_found
}

/// A fixed address gets them once, and a second time nothing.
fn completes(device: &Addresses) {
    for (address, gateway) in [("10.0.0.2", "10.0.0.1"), ("10.0.0.2", ""), ("fd00::2", "fe80::1")] {
        let mut addresses = Addresses::default();
        let is_ipv6 = address.contains(':');
        let family = if is_ipv6 { &mut addresses.ipv6 } else { &mut addresses.ipv4 };
        family.method = Method::Manual;
        let own = Prefixed { address: address.into(), prefix: 24 };
        family.addresses.push(own).expect("room");
        family.gateway = gateway.into();
        let other = if is_ipv6 { &mut addresses.ipv4 } else { &mut addresses.ipv6 };
        other.method = Method::Disabled;
        let before = addresses.clone();
        let done = beside::complete(&mut addresses, device);
        let wired = Wired { interface: "eth0".into(), addresses, ..Wired::default() };
        check_wired(&wired);
        let has_any = !wired.addresses.ipv4.dns.is_empty() || !wired.addresses.ipv6.dns.is_empty();
        assert_eq!(has_any, done == Completed::Given);
        assert!(done == Completed::Given || wired.addresses == before);
        let mut twice = wired.addresses.clone();
        assert_ne!(beside::complete(&mut twice, device), Completed::Given);
        assert_eq!(twice, wired.addresses);
    }
}

/// The lines of a keyfile and the like: written down again, they are the same.
pub fn ini(bytes: &[u8]) -> bool {
    let mut rendered = String::new();
    let mut is_taken = false;
    for line in ini::lines(bytes) {
        match line {
            Line::Group(name) => {
                assert!(!name.contains('\n'));
                rendered += &format!("[{name}]\n");
            }
            Line::Entry(key, value) => {
                assert!(!key.is_empty() && key.trim() == key && !key.contains(['\n', '=']));
                assert!(!value.contains('\n') && value.trim_start() == value);
                if let Some(text) = ini::text(value) {
                    assert!(text.len() <= value.len());
                }
                is_taken |= !ini::is_true(value);
                // The end of a line with CR and LF is taken off once.
                rendered += &format!("{key}={value}\r\n");
            }
            Line::Bad => rendered += "=\n",
        }
    }
    assert!(ini::lines(bytes).eq(ini::lines(rendered.as_bytes())));
    is_taken
}

/// Datagrams of rtnetlink: true when something is in force.
pub fn netlink(bytes: &[u8]) -> bool {
    let mut state = State::default();
    let end = state.take(bytes);
    if let Part::Refused(errno) = end {
        assert!((1..4096).contains(&errno), "{errno}");
    }
    for link in &state.links {
        super::assert_printable(&link.name);
        assert!(link.mac.is_empty() || link.mac.len() == 17);
    }
    for own in &state.addresses {
        assert!(!own.address.is_loopback());
        assert!(own.prefix <= if own.address.is_ipv6() { 128 } else { 32 });
        assert!(state.way_to(own.address).is_some());
    }
    for route in &state.routes {
        assert!(route.prefix <= if route.to.is_ipv6() { 128 } else { 32 });
        let best = state.default_route(route.to.is_ipv6(), Some(route.link));
        assert!(route.prefix > 0 || best.is_some_and(|best| best.metric <= route.metric));
    }
    is_same_in_pieces(bytes, &state, end);
    !state.links.is_empty() || !state.addresses.is_empty() || !state.routes.is_empty()
}

/// Message by message there is the same in force.
fn is_same_in_pieces(bytes: &[u8], whole: &State, end: Part) {
    let mut state = State::default();
    let mut rest = bytes;
    let mut last = Part::More;
    while let Some(length) = rest.first_chunk().map(|head| u32::from_ne_bytes(*head) as usize) {
        let Some(piece) = rest.get(..length).filter(|_| length >= 16) else { break };
        last = state.take(piece);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if last != Part::More {
            break;
        }
    }
    assert_eq!(last, end);
    assert_eq!(state.links, whole.links);
    assert_eq!(state.addresses, whole.addresses);
    assert_eq!(state.routes, whole.routes);
    assert_eq!(state.is_cut, whole.is_cut);
}
