//! Versions of balenaOS: semantic versions (semver.org, 2.0.0) with balena's revisions in the build metadata, and which
//! of all that the API names is the wanted one.
//!
//! The choice is made while they are read: there may be thousands, and no list of them is kept.

use crate::error::Error;
use crate::text::{self, Text, Writer};
use core::cmp::Ordering;
use ufmt::uwrite;

/// A version as the API spells it, build metadata included.
pub type Name = Text<LONGEST>;

const LONGEST: usize = 48;

/// What decides between versions, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Version {
    numbers: [u32; 3],
    /// No prerelease.
    is_final: bool,
    /// N of `+revN`; 0 without.
    revision: u32,
    /// Not the variant for development, which lets everybody in without a password.
    is_for_production: bool,
}

impl Version {
    /// Behind all others.
    const LAST: Self = Self {
        numbers: [u32::MAX; 3],
        is_final: true,
        revision: u32::MAX,
        is_for_production: true,
    };

    /// Reads one with all its numbers.
    fn parse(text: &str) -> Option<Self> {
        Self::parse_begun(text).filter(|(_, given)| *given == 3).map(|(version, _)| version)
    }

    /// Reads one whose last numbers may be missing; gives how many are there, too. `2.0.0.rev1` and `2.0.0.dev` are old
    /// spellings of `2.0.0+rev1` and `2.0.0+dev` (balena-semver).
    fn parse_begun(text: &str) -> Option<(Self, usize)> {
        let is_of_one = |byte: u8| byte.is_ascii_alphanumeric() || b".+-".contains(&byte);
        if text.len() > LONGEST || !text.bytes().all(is_of_one) {
            return None;
        }
        let (mut numbers, mut given) = ([0; 3], 0);
        let mut rest = text;
        for number in &mut numbers {
            let end = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            // Zeros before them are taken: months had them.
            *number = rest.get(..end)?.parse().ok()?;
            rest = rest.get(end..)?;
            given += 1;
            match rest.strip_prefix('.') {
                Some(next) if given < 3 => rest = next,
                _ => break,
            }
        }
        let is_final = !rest.starts_with('-');
        let is_well_set_off = rest.is_empty()
            || given == 3
                && rest.len() > 1
                && !rest.ends_with(['+', '-'])
                && ["-", "+", ".rev", ".dev", ".prod"].iter().any(|start| rest.starts_with(start));
        if !is_well_set_off {
            return None;
        }
        let mut version = Self { numbers, is_final, revision: 0, is_for_production: true };
        for word in rest.split(['.', '+']) {
            if word == "dev" {
                version.is_for_production = false;
            } else if let Some(Ok(number)) = word.strip_prefix("rev").map(str::parse) {
                version.revision = number;
            }
        }
        Some((version, given))
    }

    /// True for what nobody gets who does not ask for it exactly.
    fn is_special(&self) -> bool {
        !self.is_final || !self.is_for_production || self.numbers == [0; 3]
    }

    /// True for those of the line with extended support, which are called by year and month (balena-sdk tells them by
    /// that, too).
    fn is_of_calendar(&self) -> bool {
        self.numbers[0] > 2000
    }
}

/// Which version is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// As it was asked for, without a `v` before a number.
    text: Name,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The highest one that is no prerelease.
    Default,
    /// The highest one with the first so many numbers of this one, and not below it.
    Range(Version, usize),
    /// The one that is spelled like the text.
    Exact(Version),
}

impl Wanted {
    /// Reads what `--version` was given: `default`; `~` or `^` and a version whose last numbers may be missing, which
    /// mean what they mean to Cargo and npm; or a version.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (name, kind) = if text == "default" {
            ("default version", Some(Kind::Default))
        } else if let Some(least) = text.strip_prefix(['~', '^']) {
            (text, Self::range(least, text.starts_with('~')))
        } else {
            let name = text.strip_prefix('v').unwrap_or(text);
            (name, Version::parse(name).map(Kind::Exact))
        };
        let kind = kind.ok_or_else(|| unusable(text))?;
        Ok(Self { text: Name::from(name), kind })
    }

    fn range(least: &str, is_tilde: bool) -> Option<Kind> {
        let (least, given) = Version::parse_begun(least).filter(|(least, _)| least.is_final)?;
        let first = least.numbers.iter().position(|number| *number > 0).unwrap_or(3);
        let kept = if is_tilde { 2 } else { first + 1 };
        Some(Kind::Range(least, kept.min(given)))
    }
}

#[cold]
fn unusable(text: &str) -> Error {
    let shown: Text<64> = text::printable(text.as_bytes());
    let why: Text<160> = crate::text!("'{}' is none of default, ~x.y, ^x.y.z and a version", shown);
    Error::usage("--version", &why).advice("see takeover --help")
}

/// A version and its spelling.
#[derive(Clone)]
struct Candidate {
    version: Version,
    name: Name,
}

/// Keeps `candidate` where there is none yet or it stands on this side of the one that is there.
fn keep(place: &mut Option<Candidate>, version: Version, name: &str, side: Ordering) {
    if place.as_ref().is_none_or(|kept| version.cmp(&kept.version) == side) {
        *place = Some(Candidate { version, name: Name::from(name) });
    }
}

/// The choice between versions that come one after the other, in any order.
pub struct Choice<'a> {
    wanted: &'a Wanted,
    /// Next to this one are those that an error names.
    near: Version,
    best: Option<Candidate>,
    /// What `default` would be.
    latest: Option<Candidate>,
    below: Option<Candidate>,
    above: Option<Candidate>,
}

impl<'a> Choice<'a> {
    /// Before the first one.
    pub fn new(wanted: &'a Wanted) -> Self {
        let near = match wanted.kind {
            Kind::Default => Version::LAST,
            Kind::Range(version, _) | Kind::Exact(version) => version,
        };
        Self { wanted, near, best: None, latest: None, below: None, above: None }
    }

    /// The next one.
    pub fn consider(&mut self, name: &str) {
        let Some(version) = Version::parse(name) else {
            let shown: Text<64> = text::printable(name.as_bytes());
            crate::debug!("'{}' is no version, and left out", shown);
            return;
        };
        let is_default = !version.is_special() && !version.is_of_calendar();
        if is_default {
            keep(&mut self.latest, version, name, Ordering::Greater);
        }
        let is_wanted = match self.wanted.kind {
            Kind::Default => is_default,
            Kind::Range(least, kept) => {
                let same =
                    version.numbers.iter().zip(&least.numbers).take(kept).all(|(a, b)| a == b);
                same && version >= least && !version.is_special()
            }
            Kind::Exact(_) => *self.wanted.text == *name,
        };
        if is_wanted {
            keep(&mut self.best, version, name, Ordering::Greater);
        } else if version <= self.near {
            keep(&mut self.below, version, name, Ordering::Greater);
        } else {
            keep(&mut self.above, version, name, Ordering::Less);
        }
    }

    /// The one that was chosen, of those for a device type; else an error that names what there is.
    pub fn finish(self, device_type: &str) -> Result<Name, Error> {
        const DOING: &str = "choosing a version of balenaOS for";
        if let Some(best) = self.best {
            return Ok(best.name);
        }
        let refuse = |why: &str| Error::refused(DOING, device_type, why);
        if self.below.is_none() && self.above.is_none() {
            return Err(refuse("the API has none").advice("give an image of your own with -i"));
        }
        // Named once: it may be one of the others.
        let is_other = |latest: &Candidate| {
            ![&self.below, &self.above].into_iter().flatten().any(|near| near.name == latest.name)
        };
        let latest = &self.latest.clone().filter(is_other);
        let why: Text<240> = Text::build(&mut |writer: &mut Writer<'_>| {
            uwrite!(writer, "the API has no {}; it has", self.wanted.text)?;
            let mut sign = " ";
            for candidate in [&self.below, &self.above, latest].into_iter().flatten() {
                uwrite!(writer, "{}{}", sign, candidate.name)?;
                sign = ", ";
            }
            Ok(())
        });
        Err(refuse(&why).advice("name one of them with -v, spelled like this"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: &str, all: &[&str]) -> Result<String, Error> {
        let wanted = Wanted::parse(wanted)?;
        let mut choice = Choice::new(&wanted);
        all.iter().for_each(|name| choice.consider(name));
        choice.finish("raspberrypi3").map(|name| name.to_string())
    }

    fn message(error: &Error) -> String {
        let text: Text<600> = crate::text!("{}", error);
        text.to_string()
    }

    /// What is wanted, from what, and what is chosen; `-` where it is refused.
    const CHOICES: &[(&str, &str, &str)] = &[
        // The highest, by numbers and not by letters.
        ("default", "2.9.0 2.10.0 2.8.9", "2.10.0"),
        ("default", "5.1.20+rev1 3.2.25 3.3.0 4.0.26+rev 5.0.1+rev1 0.0.0+rev60", "5.1.20+rev1"),
        ("default", "6.0.10 6.0.9+rev7", "6.0.10"),
        // The highest revision of it, by number, in any order.
        ("default", "5.1.20 5.1.20+rev1 5.1.20+rev10 5.1.20+rev9", "5.1.20+rev10"),
        ("default", "5.1.20+rev1 5.1.20", "5.1.20+rev1"),
        ("default", "5.1.20+rev2 5.1.21", "5.1.21"),
        ("default", "2.0.0.rev2 2.0.0+rev1", "2.0.0.rev2"),
        // No prerelease, and nothing for development.
        ("default", "5.2.0-1704382553234 5.1.20", "5.1.20"),
        ("default", "5.2.0-rc1+rev1", "-"),
        ("default", "2.50.1+rev1.dev 2.50.1+rev1.prod", "2.50.1+rev1.prod"),
        ("default", "2.51.0+rev1.dev 2.50.1+rev1.prod", "2.50.1+rev1.prod"),
        ("default", "2.51.0+dev 2.51.0.dev 2.50.1+prod", "2.50.1+prod"),
        // Not the line with extended support, whatever its numbers; and no release without a version.
        ("default", "2022.7.0 2023.4.1 5.1.20+rev1", "5.1.20+rev1"),
        ("default", "2022.7.0", "-"),
        ("default", "0.0.0+rev60", "-"),
        ("~2022.7", "2022.7.0 2022.7.1 2022.10.0 5.1.20", "2022.7.1"),
        ("^2022.7", "2022.7.0 2022.10.0 2023.4.0 5.1.20", "2022.10.0"),
        ("2022.01.0", "2022.01.0 5.1.20", "2022.01.0"),
        ("~2022.1", "2022.01.0 5.1.20", "2022.01.0"),
        // Invalid ones are left out.
        ("default", "nonsense 1.2 1.2.3.4 v9.9.9 9.9.9+ 9.9.9- 9.9.99999999999 1.0.0", "1.0.0"),
        ("default", "9..9 .9.9 9.9. +9.9.9 9.9.9+rev\u{7} 1.0.0", "1.0.0"),
        ("default", "", "-"),
        // Tilde: the last number given may grow, or all but the first two.
        ("~3.2", "3.2.25 3.3.0 3.2.3 4.0.0", "3.2.25"),
        ("~3.2.8", "3.2.25 3.3.0 3.2.3", "3.2.25"),
        ("~3.2.26", "3.2.25 3.3.0", "-"),
        ("~3", "3.2.25 3.3.0 4.0.0", "3.3.0"),
        ("~3.2", "3.2.25+rev1 3.2.25+rev2 3.2.25", "3.2.25+rev2"),
        ("~3.2.25+rev2", "3.2.25+rev1 3.2.25+rev3 3.2.25", "3.2.25+rev3"),
        ("~3.2.25+rev2", "3.2.25+rev1 3.2.25", "-"),
        ("~0.0", "0.0.1 0.1.0", "0.0.1"),
        ("~3.2", "3.2.26-rc1 3.2.26+dev 3.2.25", "3.2.25"),
        // Caret: the first number that is not zero stays.
        ("^3.2", "3.2.25 3.3.0 4.0.0 3.1.9", "3.3.0"),
        ("^3.2.26", "3.2.25 3.3.0+rev1 4.0.0", "3.3.0+rev1"),
        ("^3.4", "3.2.25 3.3.0 4.0.0", "-"),
        ("^3", "3.2.25 3.3.0 4.0.0", "3.3.0"),
        ("^0.2", "0.2.1 0.2.9 0.3.0 1.0.0", "0.2.9"),
        ("^0.2.3", "0.2.2 0.2.4 0.3.0", "0.2.4"),
        ("^0.0.3", "0.0.3 0.0.4 0.0.2", "0.0.3"),
        ("^0.0", "0.0.3 0.0.4 0.1.0", "0.0.4"),
        ("^0", "0.0.3 0.9.4 1.1.0", "0.9.4"),
        // Exactly: build metadata included, prereleases and all.
        ("4.0.26+rev", "5.1.20 4.0.26+rev 4.0.26", "4.0.26+rev"),
        ("5.1.20", "5.1.20+rev1 5.1.20 5.1.20+rev2", "5.1.20"),
        ("5.1.20", "5.1.20+rev1", "-"),
        ("5.1.20+rev1", "5.1.20 5.1.20+rev2", "-"),
        ("v5.1.20+rev1", "5.1.20 5.1.20+rev1", "5.1.20+rev1"),
        ("5.2.0-1704382553234", "5.2.0-1704382553234 5.2.0", "5.2.0-1704382553234"),
        ("2.50.1+rev1.dev", "2.50.1+rev1.dev 2.50.1+rev1.prod", "2.50.1+rev1.dev"),
        ("2.50.1+rev1", "2.50.1+rev1.dev 2.50.1+rev1.prod", "-"),
        ("0.0.0+rev60", "0.0.0+rev60", "0.0.0+rev60"),
    ];

    #[test]
    fn choices() {
        for (wanted, all, best) in CHOICES {
            let mut all: Vec<_> = all.split(' ').filter(|name| !name.is_empty()).collect();
            for _ in 0..all.len().max(1) {
                let result = chosen(wanted, &all).unwrap_or_else(|_| "-".to_string());
                assert_eq!(result, *best, "{wanted} of {all:?}");
                all.reverse();
                let result = chosen(wanted, &all).unwrap_or_else(|_| "-".to_string());
                assert_eq!(result, *best, "{wanted} of {all:?}");
                all.reverse();
                if !all.is_empty() {
                    all.rotate_left(1);
                }
            }
        }
    }

    #[test]
    fn what_there_is_instead_is_named() {
        let refusal = |wanted, all: &str| {
            let error = chosen(wanted, &all.split(' ').collect::<Vec<_>>()).unwrap_err();
            assert_eq!(error.kind().exit_code(), 3);
            message(&error)
        };
        let all = "4.0.1 5.1.19 5.1.20+rev1 5.1.20+rev2 5.3.0 6.0.1+rev2 6.1.0-rc1 2023.4.0";
        assert_eq!(
            refusal("5.1.20", all),
            "choosing a version of balenaOS for raspberrypi3: the API has no 5.1.20; \
             it has 5.1.19, 5.1.20+rev1, 6.0.1+rev2; name one of them with -v, spelled like this"
        );
        assert!(refusal("~7.0", all).contains("no ~7.0; it has 6.1.0-rc1, 2023.4.0, 6.0.1+rev2;"));
        assert!(refusal("5.1.21+rev1", "5.1.20").contains("it has 5.1.20;"), "each once");
        assert!(
            refusal("default", "5.2.0-rc1 2022.7.0")
                .contains("no default version; it has 2022.7.0;")
        );
        assert!(
            refusal("default", "")
                .contains(": the API has none; give an image of your own with -i")
        );
        assert!(refusal("default", "no version").contains("the API has none;"));
    }

    #[test]
    fn what_is_wanted_is_understood_or_refused() {
        for good in ["default", "~1", "^1.2", "~1.2.3+rev1", "1.2.3-rc1+rev1.prod", "2.0.0.dev"] {
            assert!(Wanted::parse(good).is_ok(), "{good}");
        }
        let long = format!("1.2.3+{}", "a".repeat(LONGEST));
        for bad in
            ["", "latest", "5", "5.1", "~", "^x", "~1.2.3-rc1", "~1.2+rev1", ">=1.0.0", &long]
        {
            let error = Wanted::parse(bad).unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{bad}");
            assert!(message(&error).contains("is none of default, ~x.y, ^x.y.z and a version"));
        }
        let error = Wanted::parse("1.2.3&x='\n").unwrap_err();
        assert!(message(&error).contains("'1.2.3&x='?'"));
    }

    #[test]
    fn thousands_are_chosen_from_without_a_list() {
        let wanted = Wanted::parse("~7.42").unwrap();
        let mut choice = Choice::new(&wanted);
        for number in 0..100_000 {
            let mixed = number * 7919 % 100_000;
            choice.consider(&format!("{}.{}.{}", mixed / 10_000, mixed / 100 % 100, mixed % 100));
        }
        assert_eq!(&*choice.finish("x").unwrap(), "7.42.99");
        assert!(size_of::<Choice>() < 512);
    }
}
