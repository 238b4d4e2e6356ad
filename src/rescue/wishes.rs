//! What is wanted: from the kernel's command line (`takeover.image=…`) or from that of the program (`--image …`), by
//! one table. Touches nothing of the system.

use crate::error::Error;
use crate::plan::OnFailure;
use crate::text::{Text, digits};

/// What is wanted. What was not said is empty.
pub struct Wishes {
    /// The image: see [`super::devices`], or a URL.
    pub image: &'static str,
    /// The disk.
    pub to: &'static str,
    /// config.json.
    pub config: &'static str,
    /// What the image file must be, in hexadecimal digits.
    pub sha256: &'static str,
    /// What comes when all tries have failed.
    pub on_failure: OnFailure,
    /// How long disks are waited for, in seconds.
    pub wait: u64,
    /// Go on with an image that is for another device type.
    pub no_dt_check: bool,
    /// Check everything, and write nothing.
    pub dry_run: bool,
    /// Ask no question.
    pub no_ack: bool,
}

/// What something that is wanted does.
enum Effect {
    Keep(fn(&mut Wishes) -> &mut &'static str),
    Read(fn(&mut Wishes, &str) -> Option<()>, &'static str),
    Set(fn(&mut Wishes) -> &mut bool),
}

use Effect::{Keep, Read, Set};

/// Each by its name, and by its letter on the program's command line.
static TABLE: [(&str, u8, Effect); 10] = [
    ("image", b'i', Keep(|wishes| &mut wishes.image)),
    ("to", 0, Keep(|wishes| &mut wishes.to)),
    ("flash-to", b'f', Keep(|wishes| &mut wishes.to)),
    ("config", b'c', Keep(|wishes| &mut wishes.config)),
    ("sha256", 0, Keep(|wishes| &mut wishes.sha256)),
    ("on-failure", 0, Read(on_failure, "it is none of retry, halt and reboot")),
    ("wait", 0, Read(wait, "it is not a number from 1 to 86400")),
    ("no-dt-check", 0, Set(|wishes| &mut wishes.no_dt_check)),
    ("dry-run", 0, Set(|wishes| &mut wishes.dry_run)),
    ("no-ack", 0, Set(|wishes| &mut wishes.no_ack)),
];

/// What a parameter of the kernel that is for this program begins with. The kernel leaves those with a dot alone.
const PREFIX: &str = "takeover.";

impl Wishes {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            image: "",
            to: "",
            config: "",
            sha256: "",
            on_failure: OnFailure::Retry,
            wait: 60,
            no_dt_check: false,
            dry_run: false,
            no_ack: false,
        }
    }

    /// True when the kernel's command line has something for this program.
    pub fn are_in(line: &'static str) -> bool {
        Words(line).any(|word| word.starts_with(PREFIX))
    }

    /// From the kernel's command line. The last one counts.
    pub fn take_kernel_line(&mut self, line: &'static str) -> Result<(), Error> {
        for word in Words(line) {
            let Some(word) = word.strip_prefix(PREFIX) else {
                continue;
            };
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(unquoted(value))),
                None => (word, None),
            };
            let shown: Text<60> = crate::text!("{}{}", PREFIX, name);
            if !self.take(&shown, name, 0, &mut || value)? {
                return Err(Error::usage(&shown, "there is no such parameter"));
            }
        }
        Ok(())
    }

    /// Takes what bears this name or letter; its value, if it has one, is asked for. False for what is not known.
    pub fn take(
        &mut self,
        shown: &str,
        name: &str,
        letter: u8,
        value: &mut dyn FnMut() -> Option<&'static str>,
    ) -> Result<bool, Error> {
        let is_it = |(known, short, _): &&(&str, u8, Effect)| {
            *known == name || letter > 0 && *short == letter
        };
        let Some((_, _, effect)) = TABLE.iter().find(is_it) else {
            return Ok(false);
        };
        if let Set(flag) = effect {
            *flag(self) = true;
            return Ok(true);
        }
        let wrong = |why| Error::usage(shown, why);
        let value = value().filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| wrong("it needs a value"))?;
        match effect {
            Keep(place) => *place(self) = value,
            Read(read, why) => read(self, value).ok_or_else(|| wrong(why))?,
            Set(_) => {}
        }
        Ok(true)
    }

    /// What is missing, or cannot be.
    pub fn check(&self) -> Result<(), Error> {
        let is_digest =
            self.sha256.len() == 64 && self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (what, why) = if self.image.is_empty() {
            ("takeover.image (--image)", "no image was named")
        } else if self.to.is_empty() {
            ("takeover.to (--flash-to)", "no disk was named")
        } else if !self.sha256.is_empty() && !is_digest {
            ("takeover.sha256 (--sha256)", "it is not 64 hexadecimal digits")
        } else {
            return Ok(());
        };
        Err(Error::usage(what, why))
    }
}

fn on_failure(wishes: &mut Wishes, value: &str) -> Option<()> {
    wishes.on_failure = match value {
        "retry" => OnFailure::Retry,
        "halt" => OnFailure::Halt,
        "reboot" => OnFailure::Reboot,
        _ => return None,
    };
    Some(())
}

fn wait(wishes: &mut Wishes, value: &str) -> Option<()> {
    wishes.wait = digits(value).filter(|seconds| (1..=86_400).contains(seconds))?;
    Some(())
}

/// The words of the kernel's command line: blanks part them, but not between double quotes (next_arg() in
/// lib/cmdline.c).
struct Words(&'static str);

impl Iterator for Words {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        let rest = self.0.trim_ascii_start();
        let mut is_quoted = false;
        let ends = |byte: u8| {
            is_quoted ^= byte == b'"';
            byte.is_ascii_whitespace() && !is_quoted
        };
        let end = rest.bytes().position(ends).unwrap_or(rest.len());
        let (word, rest) = rest.split_at_checked(end)?;
        self.0 = rest;
        Some(unquoted(word)).filter(|word| !word.is_empty())
    }
}

/// Without the double quotes around it; of a word that only begins with one, without that.
fn unquoted(word: &str) -> &str {
    word.strip_prefix('"').map_or(word, |word| word.strip_suffix('"').unwrap_or(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &'static str) -> Result<Wishes, String> {
        let mut wishes = Wishes::new();
        let read = wishes.take_kernel_line(line).and_then(|()| wishes.check());
        read.map(|()| wishes).map_err(|error| {
            assert_eq!(error.kind().exit_code(), 2);
            let text: Text<300> = crate::text!("{}", error);
            text.to_string()
        })
    }

    #[test]
    fn the_kernels_command_line_says_what_is_wanted() {
        let wishes = read(
            "quiet takeover.image=/dev/sda1:/a.img.gz root=/dev/x  takeover.to=/dev/sdb \
             takeover.config=LABEL=STICK:/config.json takeover.on-failure=halt takeover.wait=5\n",
        );
        let wishes = wishes.unwrap();
        assert_eq!((wishes.image, wishes.to), ("/dev/sda1:/a.img.gz", "/dev/sdb"));
        assert_eq!((wishes.config, wishes.wait), ("LABEL=STICK:/config.json", 5));
        assert_eq!(wishes.on_failure, OnFailure::Halt);
        assert!(!wishes.no_dt_check && !wishes.dry_run);
        let wishes = read("takeover.image=a takeover.to=b takeover.no-dt-check takeover.dry-run");
        assert!(wishes.is_ok_and(|wishes| wishes.no_dt_check && wishes.dry_run));
    }

    #[test]
    fn blanks_stand_between_quotes() {
        for line in [
            "takeover.to=/dev/b takeover.image=\"/dev/a:/my images/a\" takeover.wait=1",
            "\"takeover.image=/dev/a:/my images/a\" takeover.to=/dev/b",
            "takeover.to=/dev/b takeover.image=\"/dev/a:/my images/a",
        ] {
            assert_eq!(read(line).unwrap().image, "/dev/a:/my images/a", "{line}");
        }
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (line, wanted) in [
            ("", "takeover.image (--image): no image was named"),
            ("takeover.image=a", "takeover.to (--flash-to): no disk was named"),
            ("takeover.image=", "takeover.image: it needs a value"),
            ("takeover.to", "takeover.to: it needs a value"),
            ("takeover.imgae=a", "takeover.imgae: there is no such parameter"),
            ("takeover.on-failure=never", "takeover.on-failure: it is none of"),
            ("takeover.wait=0", "takeover.wait: it is not a number"),
            ("takeover.image=a takeover.to=b takeover.sha256=12", "(--sha256): it is not 64"),
        ] {
            let error = read(line).err().unwrap();
            assert!(error.contains(wanted), "{line}: {error}");
        }
    }
}
