//! The one error type: what was being done, to what, why it failed, what to do about it.
//!
//! Its text is of fixed size and lies in one of a few static slots, and the error itself is the number of that slot:
//! stage 2 can make one without a heap, and a `Result` stays as small as an errno. (As plain data of 450 bytes, errors
//! were copied at every `?`, and that was a third of the program.)

use crate::text::Text;
use rustix::io::Errno;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    /// `takeover flash` failed in the middle: the disk is incomplete. Exit code 4.
    Incomplete,
}

impl Kind {
    /// The exit code of the command line for this kind of end.
    pub const fn exit_code(self) -> i32 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::Incomplete => 4,
        }
    }
}

/// The parts of an error that a reader needs.
struct Details {
    used: bool,
    kind: Kind,
    lasts: bool,
    // None and not "": all zeros, so the slots need no room in the file.
    doing: Option<&'static str>,
    object: Text<160>,
    why: Text<240>,
    advice: Option<&'static str>,
}

/// More errors than this are not alive at once: one is handled before the next is made. Should they be, the last
/// slot is shared, and its older text is lost.
const SLOTS: usize = if cfg!(test) { 256 } else { 8 };

const LAST: u8 = (SLOTS - 1) as u8;

type Slots = [Mutex<Details>; SLOTS];

static DETAILS: Slots = [const { Mutex::new(Details::EMPTY) }; SLOTS];

impl Details {
    const EMPTY: Self = Self {
        used: false,
        kind: Kind::Failed,
        lasts: false,
        doing: None,
        object: Text::new(),
        why: Text::new(),
        advice: None,
    };
}

/// An error. See the module's text for why it is a number.
#[derive(Debug)]
pub struct Error {
    slot: u8,
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

    /// The command line is wrong: this `option` of it, or as a whole where it is empty, and `why`.
    pub fn usage(option: &str, why: &str) -> Self {
        Self::new(Kind::Usage, "reading the command line", option, why)
    }

    /// A system call failed.
    #[cold]
    #[inline(never)]
    pub fn os(doing: &'static str, object: &str, errno: Errno) -> Self {
        let error = Self::new(Kind::Failed, doing, object, &errno_text(errno));
        error.details().lasts = lasts(errno);
        error
    }

    #[cold]
    #[inline(never)]
    fn new(kind: Kind, doing: &'static str, object: &str, why: &str) -> Self {
        let (slot, mut details) = take(&DETAILS);
        details.used = true;
        details.kind = kind;
        details.lasts = false;
        details.doing = Some(doing);
        details.object = Text::from(object);
        details.why = Text::from(why);
        details.advice = None;
        Self { slot }
    }

    fn details(&self) -> MutexGuard<'static, Details> {
        details(self.slot)
    }

    /// What to do about it, as a clause that follows a semicolon.
    #[inline(never)]
    pub fn advice(self, advice: &'static str) -> Self {
        self.details().advice = Some(advice);
        self
    }

    /// True when it says already what to do about it.
    #[cfg(feature = "http")]
    pub fn has_advice(&self) -> bool {
        self.details().advice.is_some()
    }

    /// What to do about it, where it does not say so already.
    #[cfg(feature = "core")]
    #[inline(never)]
    pub fn or_advice(self, advice: &'static str) -> Self {
        self.details().advice.get_or_insert(advice);
        self
    }

    /// The same with the name of the image's file, where it is about the image: who decodes one does not know that.
    #[cfg(feature = "core")]
    #[inline(never)]
    pub fn of_image(self, name: &str) -> Self {
        let mut details = self.details();
        if matches!(&*details.object, "the image" | "the image file") {
            details.object = crate::text!("the image {}", name);
        }
        drop(details);
        self
    }

    /// The same, about this object, when it names none yet: who reads tables does not know what has them.
    pub fn about(self, object: &str) -> Self {
        let mut details = self.details();
        if details.object.is_empty() {
            details.object = Text::from(object);
        }
        drop(details);
        self
    }

    /// The same, as a refusal: found by a check, before anything was changed.
    #[inline(never)]
    pub fn as_refusal(self) -> Self {
        self.details().kind = Kind::Refused;
        self
    }

    /// The same, as a failure: a refusal after which something is not as it was.
    pub fn as_failure(self) -> Self {
        self.details().kind = Kind::Failed;
        self
    }

    /// The same, found when a part of the disk was written already.
    pub fn as_incomplete(self) -> Self {
        self.details().kind = Kind::Incomplete;
        self
    }

    /// The same, where it would come again however often it is tried.
    pub fn lasting(self) -> Self {
        self.details().lasts = true;
        self
    }

    /// True when it would come again however often it is tried. Where nobody can tell it may pass.
    pub fn lasts(&self) -> bool {
        self.details().lasts
    }

    /// The kind of end.
    pub fn kind(&self) -> Kind {
        self.details().kind
    }
}

fn details(slot: u8) -> MutexGuard<'static, Details> {
    locked(&DETAILS, slot)
}

fn locked(slots: &Slots, slot: u8) -> MutexGuard<'_, Details> {
    let index = usize::from(slot);
    // A panic aborts, so there is no poison.
    slots[index].lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a free slot, else the last one.
fn take(slots: &Slots) -> (u8, MutexGuard<'_, Details>) {
    // Found and taken under one lock: another thread may be failing too.
    let free = |slot: &u8| !core::mem::replace(&mut locked(slots, *slot).used, true);
    let slot = (0..LAST).find(free).unwrap_or(LAST);
    (slot, locked(slots, slot))
}

impl Drop for Error {
    #[inline(never)]
    fn drop(&mut self) {
        self.details().used = false;
    }
}

impl uDisplay for Error {
    fn fmt<W: uWrite + ?Sized>(&self, f: &mut Formatter<'_, W>) -> Result<(), W::Error> {
        let details = self.details();
        f.write_str(details.doing.unwrap_or_default())?;
        if !details.object.is_empty() {
            ufmt::uwrite!(f, " {}", details.object)?;
        }
        ufmt::uwrite!(f, ": {}", details.why)?;
        if let Some(advice) = details.advice {
            ufmt::uwrite!(f, "; {}", advice)?;
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

/// The words for those that this program meets (errno(3)).
const WORDS: [(Errno, &str); 28] = [
    (Errno::PERM, "operation not permitted"),
    (Errno::NOENT, "no such file or directory"),
    (Errno::IO, "input/output error"),
    (Errno::NXIO, "no such device or address"),
    (Errno::NOEXEC, "exec format error"),
    (Errno::CHILD, "no child process"),
    (Errno::AGAIN, "resource temporarily unavailable"),
    (Errno::NOMEM, "out of memory"),
    (Errno::ACCESS, "permission denied"),
    (Errno::BUSY, "device or resource busy"),
    (Errno::EXIST, "file exists"),
    (Errno::NODEV, "no such device"),
    (Errno::NOTDIR, "not a directory"),
    (Errno::ISDIR, "is a directory"),
    (Errno::INVAL, "invalid argument"),
    (Errno::NOTTY, "not supported by this device"),
    (Errno::FBIG, "file too large"),
    (Errno::NOSPC, "no space left"),
    (Errno::ROFS, "read-only file system"),
    (Errno::LOOP, "too many symbolic links"),
    (Errno::NODATA, "no data (medium error)"),
    (Errno::OPNOTSUPP, "operation not supported"),
    (Errno::NOSYS, "system call not in this kernel"),
    (Errno::NAMETOOLONG, "name too long"),
    (Errno::NOTBLK, "not a block device"),
    (Errno::UCLEAN, "structure needs cleaning"),
    (Errno::REMOTEIO, "remote input/output error"),
    (Errno::TIMEDOUT, "timed out"),
];

/// True for an errno that says what a file, a file system, a device or the kernel is like: asked again, they say the
/// same. Not what a bus that is being reset, memory that is short or somebody else at work may cause: EIO, ENODEV,
/// ENOMEM, EBUSY and their like.
fn lasts(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::PERM
            | Errno::NOEXEC
            | Errno::ACCESS
            | Errno::NOTBLK
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::INVAL
            | Errno::UCLEAN
            | Errno::NOTTY
            | Errno::FBIG
            | Errno::NAMETOOLONG
            | Errno::NOSYS
            | Errno::LOOP
            | Errno::OPNOTSUPP
    )
}

/// The same for what only sockets say.
#[cfg(feature = "http")]
const NETWORK: [(Errno, &str); 12] = [
    (Errno::PIPE, "closed by the other end"),
    (Errno::AFNOSUPPORT, "address family not in this kernel"),
    (Errno::ADDRNOTAVAIL, "no address to reach it from"),
    (Errno::NETDOWN, "network down"),
    (Errno::NETUNREACH, "network unreachable"),
    (Errno::CONNABORTED, "connection aborted"),
    (Errno::CONNRESET, "connection reset"),
    (Errno::NOBUFS, "no buffer space"),
    (Errno::CONNREFUSED, "connection refused"),
    (Errno::HOSTUNREACH, "host unreachable"),
    (Errno::BADMSG, "malformed answer"),
    (Errno::MSGSIZE, "message too long"),
];
#[cfg(not(feature = "http"))]
const NETWORK: [(Errno, &str); 0] = [];

/// An errno in words, or its number.
pub fn errno_text(errno: Errno) -> Text<64> {
    match WORDS.iter().chain(&NETWORK).find(|(known, _)| *known == errno) {
        Some((_, words)) => Text::from(*words),
        None => crate::text!("errno {}", errno.raw_os_error()),
    }
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
        assert_eq!(error.kind().exit_code(), 1);
        let error = error.as_refusal();
        assert_eq!(error.kind().exit_code(), 3);
        assert_eq!(error.as_failure().kind().exit_code(), 1);
    }

    #[test]
    fn what_does_not_pass_is_known_by_its_errno_or_said_by_who_knows() {
        let lasts = |errno| Error::os("mounting", "x", errno).advice("y").about("z").lasts();
        for errno in [Errno::INVAL, Errno::UCLEAN, Errno::NOTTY, Errno::FBIG, Errno::OPNOTSUPP] {
            assert!(lasts(errno), "{errno:?}");
        }
        let may_pass = [
            Errno::IO,
            Errno::TIMEDOUT,
            Errno::NODEV,
            Errno::NXIO,
            Errno::NOENT,
            Errno::NOMEM,
            Errno::AGAIN,
            Errno::BUSY,
            Errno::NODATA,
            Errno::REMOTEIO,
        ];
        for errno in may_pass {
            assert!(!lasts(errno), "{errno:?}");
        }
        assert!(!Error::failed("x", "y", "z").lasts());
        assert!(Error::failed("x", "y", "z").lasting().lasts());
    }

    #[test]
    fn whose_table_it_is_is_said_by_the_caller_and_what_was_said_stays() {
        let error = Error::refused("reading the table of", "", "broken").about("the image");
        assert_eq!(shown(&error), "reading the table of the image: broken");
        assert_eq!(shown(&error.about("a disk")), "reading the table of the image: broken");
    }

    #[test]
    #[cfg(feature = "core")]
    fn what_is_about_the_image_has_the_name_of_its_file() {
        let error = |object| Error::failed("reading", object, "x").of_image("a.img");
        assert_eq!(shown(&error("the image file")), "reading the image a.img: x");
        assert_eq!(shown(&error("a disk").or_advice("y").or_advice("z")), "reading a disk: x; y");
    }

    #[test]
    fn slots_are_given_back() {
        for _ in 0..3 * SLOTS {
            // Were they not, the shared last one would be reached.
            assert!(Error::failed("x", "y", "z").slot < LAST);
        }
    }

    #[test]
    fn slots_never_run_out_for_the_last_one_is_shared() {
        // Other tests have errors of their own in the program's.
        static OTHERS: Slots = [const { Mutex::new(Details::EMPTY) }; SLOTS];
        let next = || take(&OTHERS).0;
        let taken = (0..2 * SLOTS).map(|_| next());
        let wanted = (0..2 * SLOTS).map(|number| number.min(SLOTS - 1) as u8);
        assert!(taken.eq(wanted));
        locked(&OTHERS, 7).used = false;
        assert_eq!((next(), next()), (7, LAST));
    }

    #[test]
    fn an_unknown_errno_shows_its_number() {
        let error = Error::os("reading", "x", Errno::from_raw_os_error(133));
        assert_eq!(shown(&error), "reading x: errno 133");
    }
}
