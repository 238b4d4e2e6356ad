//! For tests: runs a reader over the files of tests/fixtures/network/FOLDER and compares what it finds with the
//! neighbour `NAME.expected`. `BLESS=1 cargo test` writes these anew; read them before you believe them.

use super::{Family, Finding, Findings, Method, Prefixed, Security, Wifi, Wired};
use std::fmt::Write;
use std::path::PathBuf;

pub(super) type Parse = fn(&[u8], &mut Findings);

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/network").join(name)
}

/// The fixtures of a folder, sorted.
fn fixtures(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().unwrap() != "expected").collect();
    paths.sort();
    assert!(paths.len() >= 5, "the fixtures of {name} have moved");
    paths
}

/// All findings of a file, one a line; long ones take more.
pub(super) fn findings(bytes: &[u8], parse: Parse) -> String {
    let mut shown = String::new();
    parse(bytes, &mut |finding| match &finding {
        Finding::Wifi(wifi) => show_wifi(&mut shown, wifi),
        Finding::Wired(wired) => show_wired(&mut shown, wired),
        Finding::Lost(name, why) => writeln!(shown, "lost {}: {why}", name.as_str()).unwrap(),
        Finding::LostWifi(name, why) => {
            writeln!(shown, "lost Wi-Fi {}: {why}", name.as_str()).unwrap()
        }
        Finding::Doubtful(name, why) => {
            writeln!(shown, "doubtful {}: {why}", name.as_str()).unwrap()
        }
    });
    shown
}

fn show_wifi(shown: &mut String, wifi: &Wifi) {
    let security = match &wifi.security {
        Security::Owe => "owe".into(),
        Security::Open => "open".to_string(),
        Security::Psk(key) => format!("psk={}", key.as_str()),
        Security::Sae(key) => format!("sae={}", key.as_str()),
        Security::Enterprise(_) => "802.1X".to_string(),
    };
    let ssid = String::from_utf8_lossy(&wifi.ssid);
    let Wifi { hidden, priority, autoconnect, .. } = wifi;
    writeln!(
        shown,
        "wifi {ssid:?} {security} hidden={hidden} priority={priority} auto={autoconnect}"
    )
    .unwrap();
}

fn show_wired(shown: &mut String, wired: &Wired) {
    let Wired { interface, mac, search, mtu, .. } = wired;
    let (interface, mac, search) = (interface.as_str(), mac.as_str(), search.as_str());
    writeln!(shown, "wired interface={interface:?} mac={mac:?} search={search:?} mtu={mtu}")
        .unwrap();
    for (name, family) in [("ipv4", &wired.ipv4), ("ipv6", &wired.ipv6)] {
        show_family(shown, name, family);
    }
}

fn show_family(shown: &mut String, name: &str, family: &Family) {
    let method = match family.method {
        Method::Auto => "auto",
        Method::Manual => "manual",
        Method::Disabled => "disabled",
    };
    write!(shown, "  {name} {method}").unwrap();
    let slash = |net: &Prefixed| format!("{}/{}", net.address.as_str(), net.prefix);
    for address in &family.addresses {
        write!(shown, " address={}", slash(address)).unwrap();
    }
    if !family.gateway.is_empty() {
        write!(shown, " gateway={}", family.gateway.as_str()).unwrap();
    }
    for server in &family.dns {
        write!(shown, " dns={}", server.as_str()).unwrap();
    }
    for route in &family.routes {
        write!(shown, " route={}>{}", slash(&route.to), route.via.as_str()).unwrap();
        if let Some(metric) = route.metric {
            write!(shown, "@{metric}").unwrap();
        }
    }
    shown.push('\n');
}

/// Every fixture gives exactly the findings that stand beside it.
pub(super) fn check(name: &str, parse: Parse) {
    for path in fixtures(name) {
        let shown = findings(&std::fs::read(&path).unwrap(), parse);
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&expected, &shown).unwrap();
        }
        let expected = std::fs::read_to_string(&expected)
            .unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(shown, expected, "{}", path.display());
    }
}

/// Every fixture cut at every byte, and with a byte spoilt (a NUL, no UTF-8, a line feed or a backslash); and files that
/// are one long line, or lines of one kind. Nothing may panic, or take for ever, or find without end.
pub(super) fn torture(name: &str, parse: Parse) {
    let count = |bytes: &[u8]| {
        let mut count = 0;
        parse(bytes, &mut |_| count += 1);
        assert!(count <= bytes.len() + 1, "more findings than bytes");
    };
    for path in fixtures(name) {
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            count(&whole[..at]);
            let mut spoilt = whole.clone();
            spoilt[at] = [0, 0xff, b'\n', b'\\'][at % 4];
            count(&spoilt);
        }
        for line in whole.split(|&byte| byte == b'\n') {
            count(&[line, &[b'x'; 100_000]].concat());
            count(&[line, b"\n"].concat().repeat(2000));
            count(&[line, b" \\\n"].concat().repeat(2000));
        }
    }
    count(&[0; 100_000]);
    count(&[b'\\'; 100_000]);
    count(&b"\\\n".repeat(50_000));
}
