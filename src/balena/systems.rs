//! Which operating systems are known to be taken over well: os-release read, and patterns instead of exact names.
//!
//! Works on bytes it is given. Every system of the table has an os-release; older ones are not in it.

use crate::text::{Text, Writer, is_unfit};
use ufmt::uWrite;

/// The largest os-release that is looked at, in bytes. Real ones have less than 1 KiB.
pub const MAX_LENGTH: usize = 8 * 1024;

/// What an os-release says (os-release(5)).
#[derive(Clone, Debug, Default)]
pub struct System {
    /// PRETTY_NAME, else NAME, else ID; empty when it has none of them.
    pub name: Text<80>,
    /// ID, in lower case.
    pub id: Text<32>,
    /// VERSION_ID; empty on rolling and unfinished systems.
    pub version: Text<32>,
}

/// A family of systems, and since when it is known to work.
struct Known {
    id: &'static str,
    /// The first version that is known, as major and minor number.
    since: (u32, u32),
}

/// By ID: Raspberry Pi OS calls itself raspbian, its 64-bit edition debian; Armbian mostly calls itself as its base
/// does.
static KNOWN: [Known; 9] = [
    Known { id: "raspbian", since: (8, 0) },
    Known { id: "debian", since: (8, 0) },
    Known { id: "ubuntu", since: (14, 4) },
    Known { id: "balena-os", since: (0, 0) },
    // The name of balenaOS until 2018.
    Known { id: "resin-os", since: (0, 0) },
    Known { id: "manjaro", since: (0, 0) },
    Known { id: "manjaro-arm", since: (0, 0) },
    Known { id: "armbian", since: (0, 0) },
    Known { id: "devuan", since: (0, 0) },
];

impl System {
    /// What the os-release in `bytes` says. Lines that are no assignments are passed over.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut system = System::default();
        let mut plain_name = Text::<80>::new();
        for line in bytes.split(|byte| *byte == b'\n') {
            let Ok(line) = core::str::from_utf8(line) else {
                continue;
            };
            let Some((key, value)) = line.trim_ascii().split_once('=') else {
                continue;
            };
            // A key that comes again counts, as in a shell.
            match key {
                "PRETTY_NAME" => system.name = unquoted(value),
                "NAME" => plain_name = unquoted(value),
                "ID" => system.id = unquoted(value),
                "VERSION_ID" => system.version = unquoted(value),
                _ => {}
            }
        }
        if system.name.is_empty() {
            system.name =
                if plain_name.is_empty() { Text::from(system.id.as_str()) } else { plain_name };
        }
        system
    }

    /// True for balenaOS, by whichever name.
    pub fn is_balena_os(&self) -> bool {
        matches!(self.id.as_str(), "balena-os" | "resin-os")
    }

    /// True when the system is known to be taken over well.
    pub fn is_known(&self) -> bool {
        KNOWN.iter().any(|known| {
            self.id.eq_ignore_ascii_case(known.id)
                && (self.version.is_empty() || version(&self.version) >= known.since)
        })
    }
}

/// Major and minor number of a version: (14, 4) of "14.04", (12, 0) of "12", (0, 0) of what is none.
fn version(text: &str) -> (u32, u32) {
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    let (major, minor) = text.split_once('.').unwrap_or((text, ""));
    (number(major), number(minor))
}

/// A value without its quotes and escapes: double quotes with backslashes, single quotes without, or none. Control
/// characters do not get through: it is shown in logs.
fn unquoted<const N: usize>(value: &str) -> Text<N> {
    Text::build(&mut |writer: &mut Writer| {
        let mut quote = None;
        let mut escaped = false;
        for character in value.chars().filter(|character| !is_unfit(*character)) {
            match (character, quote) {
                _ if escaped => escaped = false,
                ('\\', None | Some('"')) => {
                    escaped = true;
                    continue;
                }
                ('"' | '\'', None) => {
                    quote = Some(character);
                    continue;
                }
                (_, Some(open)) if open == character => {
                    quote = None;
                    continue;
                }
                // A space outside quotes ends the value in a shell: what follows is no part of it.
                (' ' | '\t', None) => break,
                _ => {}
            }
            writer.write_str(character.encode_utf8(&mut [0; 4]))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each file is an os-release; its name says whether it is known.
    fn fixture(name: &str) -> System {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/systems/");
        System::parse(&std::fs::read(format!("{folder}{name}")).unwrap())
    }

    #[test]
    fn every_distribution_named_is_known_and_old_or_other_ones_are_not() {
        let known = [
            ("raspbian-8", "Raspbian GNU/Linux 8 (jessie)"),
            ("raspbian-10", "Raspbian GNU/Linux 10 (buster)"),
            ("raspberry-pi-os-12-64", "Debian GNU/Linux 12 (bookworm)"),
            ("debian-8", "Debian GNU/Linux 8 (jessie)"),
            ("debian-13", "Debian GNU/Linux 13 (trixie)"),
            ("debian-sid", "Debian GNU/Linux trixie/sid"),
            ("ubuntu-14.04", "Ubuntu 14.04.6 LTS"),
            ("ubuntu-24.04", "Ubuntu 24.04.1 LTS"),
            ("balena-os", "balenaOS 6.1.25+rev2"),
            ("resin-os", "Resin OS 2.7.5+rev2"),
            ("manjaro", "Manjaro Linux"),
            ("manjaro-arm", "Manjaro ARM"),
            ("armbian-bookworm", "Armbian 24.2.1 bookworm"),
            ("armbian-noble", "Armbian_community 25.2.0 noble"),
            ("armbian-own-id", "Armbian 23.11.0 Bookworm"),
            ("devuan-4", "Devuan GNU/Linux 4 (chimaera)"),
            ("devuan-ceres", "Devuan GNU/Linux daedalus/ceres"),
        ];
        for (file, name) in known {
            let system = fixture(file);
            assert!(system.is_known(), "{file}");
            assert_eq!(system.name.as_str(), name);
            assert_eq!(system.is_balena_os(), file == "balena-os" || file == "resin-os", "{file}");
        }
        for file in ["debian-7", "raspbian-7", "ubuntu-12.04", "alpine", "fedora", "openwrt"] {
            let system = fixture(file);
            assert!(!system.is_known(), "{file}");
            assert!(!system.name.is_empty(), "{file}");
        }
        let count =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/systems"));
        assert_eq!(count.unwrap().count(), known.len() + 6, "each file is tested");
    }

    #[test]
    fn quotes_as_a_shell_reads_them() {
        for (line, version) in [
            ("VERSION_ID=12", "12"),
            ("VERSION_ID=\"12\"", "12"),
            ("VERSION_ID='12'", "12"),
            ("VERSION_ID=\"a\\\"b\\\\c\\$d\\`e\"", "a\"b\\c$d`e"),
            ("VERSION_ID='a\\b'", "a\\b"),
            ("VERSION_ID=a\\ b", "a b"),
            ("VERSION_ID=\"12\" # the rest", "12"),
            ("VERSION_ID=", ""),
            ("VERSION_ID=\"", ""),
            ("VERSION_ID=\"12\r", "12"),
            ("#VERSION_ID=12", ""),
            ("  VERSION_ID=12", "12"),
            ("VERSION_ID=1\nVERSION_ID=2", "2"),
            ("VERSION_ID=\"\x1b[2J12\"", "[2J12"),
            ("VERSION_ID", ""),
        ] {
            assert_eq!(System::parse(line.as_bytes()).version.as_str(), version, "{line:?}");
        }
        assert_eq!(System::parse(b"NAME=Foo\nID=foo\n").name.as_str(), "Foo");
        assert_eq!(System::parse(b"ID=foo\n\xff\xfe=x").name.as_str(), "foo");
        let long = [b"ID=".as_slice(), &[b'x'; 5000]].concat();
        assert_eq!(System::parse(&long).id.len(), 32);
        assert!(!System::parse(b"").is_known());
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("14.04"), (14, 4));
        assert!(version("8") < version("10"));
        assert_eq!(version("12.5+rev1"), (12, 5));
        assert_eq!(version("rolling"), (0, 0));
        assert_eq!(version("99999999999"), (0, 0));
    }
}
