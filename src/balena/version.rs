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
        let (rest, metadata) = halves(text, '+')?;
        let (core, prerelease) = halves(rest, '-')?;
        let mut numbers = [0; 3];
        let mut parts = core.splitn(4, '.');
        let mut given = 0;
        for (number, part) in numbers.iter_mut().zip(parts.by_ref()) {
            *number = number_of(part)?;
            given += 1;
        }
        let old_metadata = parts.next().unwrap_or_default();
        let is_known = |word: &&str| old_metadata.starts_with(*word);
        let is_begun_with_more = given < 3 && core.len() < text.len();
        if is_begun_with_more
            || !["rev", "dev", "prod"].iter().any(is_known) && core.split('.').count() > 3
        {
            return None;
        }
        let mut words = old_metadata.split('.').chain(metadata.split('.'));
        let revision = words.clone().find_map(|word| number_of(word.strip_prefix("rev")?));
        let is_for_production = !words.any(|word| word == "dev");
        let is_final = prerelease.is_empty();
        Some((
            Self { numbers, is_final, revision: revision.unwrap_or(0), is_for_production },
            given,
        ))
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

/// A text before and behind a character; behind it there must be something.
fn halves(text: &str, at: char) -> Option<(&str, &str)> {
    match text.split_once(at) {
        None => Some((text, "")),
        Some((_, "")) => None,
        halves => halves,
    }
}

/// Digits and nothing else. Zeros before them are taken: months had them.
fn number_of(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
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
            (text, Some(Kind::Default))
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
    Error::usage("--version", &why)
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
        let why: Text<240> = Text::build(&mut |writer: &mut Writer<'_>| {
            uwrite!(writer, "the API has no {}; it has", self.wanted.text)?;
            for candidate in [&self.below, &self.above, &self.latest].into_iter().flatten() {
                uwrite!(writer, " {}", candidate.name)?;
            }
            Ok(())
        });
        Err(refuse(&why).advice("name one of them with -v, spelled like this"))
    }
}
