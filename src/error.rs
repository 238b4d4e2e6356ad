//! The one error type: what was being done, to what, why it failed, what to do about it.
//!
//! An error is plain data of fixed size, so that stage 2 can make one without a heap.

use crate::text::Text;
use rustix::io::Errno;
use ufmt::{Formatter, uDisplay, uWrite};

/// What kind of end an error is; decides the exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Something that should have worked did not; all is undone. Exit code 1.
    Failed,
    /// The command line makes no sense. Exit code 2.
    Usage,
    /// A check says that this cannot work here. Nothing was changed. Exit code 3.
    Refused,
}

impl Kind {
    /// The exit code of the command line for this kind of end.
    pub const fn exit_code(self) -> i32 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
        }
    }
}

/// An error, in the parts a reader needs.
#[derive(Clone, Debug)]
pub struct Error {
    /// The kind of end.
    pub kind: Kind,
    doing: &'static str,
    object: Text<160>,
    why: Text<240>,
    advice: &'static str,
}

impl Error {
    /// Something failed: `doing` what, to which `object`, and `why`.
    pub fn failed(doing: &'static str, object: &str, why: &str) -> Self {
        Self::new(Kind::Failed, doing, object, why)
    }

    /// A check refuses: `doing` what, to which `object`, and `why`.
    pub fn refused(doing: &'static str, object: &str, why: &str) -> Self {
        Self::new(Kind::Refused, doing, object, why)
    }

    /// The command line is wrong.
    pub fn usage(doing: &'static str, object: &str, why: &str) -> Self {
        Self::new(Kind::Usage, doing, object, why)
    }

    /// A system call failed.
    pub fn os(doing: &'static str, object: &str, errno: Errno) -> Self {
        Self::new(Kind::Failed, doing, object, &errno_text(errno))
    }

    fn new(kind: Kind, doing: &'static str, object: &str, why: &str) -> Self {
        Self { kind, doing, object: Text::from(object), why: Text::from(why), advice: "" }
    }

    /// What to do about it, as a clause that follows a semicolon.
    pub fn advice(mut self, advice: &'static str) -> Self {
        self.advice = advice;
        self
    }

    /// The same, as a refusal: found by a check, before anything was changed.
    pub fn as_refusal(mut self) -> Self {
        self.kind = Kind::Refused;
        self
    }
}

impl uDisplay for Error {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        f.write_str(self.doing)?;
        if !self.object.is_empty() {
            ufmt::uwrite!(f, " {}", self.object)?;
        }
        ufmt::uwrite!(f, ": {}", self.why)?;
        if !self.advice.is_empty() {
            ufmt::uwrite!(f, "; {}", self.advice)?;
        }
        Ok(())
    }
}

/// Adds what was being done, and to what, to the errno of a failed system call.
pub trait Doing<T> {
    /// `doing` what, to which `object`.
    fn doing(self, doing: &'static str, object: &str) -> Result<T, Error>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, doing: &'static str, object: &str) -> Result<T, Error> {
        self.map_err(|errno| Error::os(doing, object, errno))
    }
}

/// An errno in words, for those that this program meets; the number for the others (errno(3)).
fn errno_text(errno: Errno) -> Text<64> {
    let words = match errno {
        Errno::PERM => "operation not permitted",
        Errno::NOENT => "no such file or directory",
        Errno::IO => "input/output error",
        Errno::NXIO => "no such device or address",
        Errno::NOEXEC => "exec format error",
        Errno::CHILD => "no child process",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::NOMEM => "out of memory",
        Errno::ACCESS => "permission denied",
        Errno::BUSY => "device or resource busy",
        Errno::EXIST => "file exists",
        Errno::NODEV => "no such device",
        Errno::NOTDIR => "not a directory",
        Errno::ISDIR => "is a directory",
        Errno::INVAL => "invalid argument",
        Errno::NOTTY => "not supported by this device",
        Errno::FBIG => "file too large",
        Errno::NOSPC => "no space left",
        Errno::ROFS => "read-only file system",
        Errno::LOOP => "too many symbolic links",
        Errno::NODATA => "no data (medium error)",
        Errno::OPNOTSUPP => "operation not supported",
        Errno::NOSYS => "system call not in this kernel",
        Errno::NAMETOOLONG => "name too long",
        Errno::NOTBLK => "not a block device",
        Errno::REMOTEIO => "remote input/output error",
        Errno::TIMEDOUT => "timed out",
        _ => return crate::text!("errno {}", errno.raw_os_error()),
    };
    Text::from(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(error: &Error) -> String {
        let text: Text<512> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn an_error_names_act_object_reason_and_remedy() {
        let error = Error::os("opening the image", "/a.img", Errno::NOENT).advice("check the path");
        assert_eq!(
            shown(&error),
            "opening the image /a.img: no such file or directory; check the path"
        );
        assert_eq!(error.kind.exit_code(), 1);
        assert_eq!(error.as_refusal().kind.exit_code(), 3);
    }

    #[test]
    fn an_unknown_errno_shows_its_number() {
        let error = Error::os("reading", "x", Errno::from_raw_os_error(133));
        assert_eq!(shown(&error), "reading x: errno 133");
    }
}
