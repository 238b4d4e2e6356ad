//! For tests: runs a reader over the files of tests/fixtures/network/FOLDER and compares what it finds, as keyfiles,
//! with the neighbour `NAME.expected`. `BLESS=1 cargo test` writes these anew; read them before you believe them.

use super::{Finding, Findings, Security, Ssid, Wifi};
use crate::balena::keyfile;
use std::collections::BTreeSet;
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

/// All findings of a file: keyfiles, which tests/test_networkmanager.py hands to a real NetworkManager, and lines that
/// begin with `#` for all else.
pub(super) fn findings(bytes: &[u8], parse: impl FnOnce(&[u8], &mut Findings)) -> String {
    let mut shown = String::new();
    let mut count = 0;
    parse(bytes, &mut |finding| match &finding {
        Finding::Wifi(wifi) => {
            count += 1;
            show(&mut shown, |output| {
                keyfile::wifi(wifi, &format!("balena-wifi-{count:02}"), output)
            });
        }
        Finding::Wired(wired) => {
            count += 1;
            show(&mut shown, |output| keyfile::wired(wired, &format!("balena-{count:02}"), output));
        }
        Finding::Wireless(apart) => {
            count += 1;
            writeln!(shown, "# for the Wi-Fis of {}, such as:\n", apart.name().as_str()).unwrap();
            let ssid = if apart.ssid.is_empty() { b"any" } else { &apart.ssid[..] };
            let mut wifi = Wifi::new(Ssid::from_slice(ssid).unwrap(), Security::Open);
            wifi.addresses.inherit(&apart.settings.addresses);
            show(&mut shown, |output| {
                keyfile::wifi(&wifi, &format!("balena-wifi-{count:02}"), output)
            });
        }
        Finding::Lost(name, why) => writeln!(shown, "# lost: {}: {why}\n", name.as_str()).unwrap(),
        Finding::LostWifi(name, why) => {
            writeln!(shown, "# lost Wi-Fi: {}: {why}\n", name.as_str()).unwrap()
        }
        Finding::Doubtful(name, why) => {
            writeln!(shown, "# doubtful: {}: {why}\n", name.as_str()).unwrap()
        }
    });
    shown
}

fn show(shown: &mut String, write_keyfile: impl FnOnce(&mut [u8]) -> Option<usize>) {
    let mut buffer = [0; 4096];
    let length = write_keyfile(&mut buffer).expect("a keyfile");
    writeln!(shown, "{}", str::from_utf8(&buffer[..length]).unwrap()).unwrap();
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

/// Every fixture cut at every byte, and with a byte spoilt (a NUL, no UTF-8, a line feed or a backslash); and files
/// that are one long line, or lines of one kind. Nothing may panic, or take for ever, or find without end.
pub(super) fn torture(name: &str, parse: Parse) {
    let count = |bytes: &[u8]| {
        let mut count = 0;
        parse(bytes, &mut |_| count += 1);
        assert!(count <= bytes.len() + 1, "more findings than bytes");
    };
    // The fixtures have many lines in common.
    let mut seen = BTreeSet::new();
    for path in fixtures(name) {
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            count(&whole[..at]);
            let mut spoilt = whole.clone();
            spoilt[at] = [0, 0xff, b'\n', b'\\'][at % 4];
            count(&spoilt);
        }
        for line in whole.split(|&byte| byte == b'\n').filter(|line| seen.insert(line.to_vec())) {
            count(&[line, &[b'x'; 30_000]].concat());
            count(&[line, b"\n"].concat().repeat(700));
            count(&[line, b" \\\n"].concat().repeat(700));
        }
    }
    count(&[0; 100_000]);
    count(&[b'\\'; 100_000]);
    count(&b"\\\n".repeat(50_000));
}
