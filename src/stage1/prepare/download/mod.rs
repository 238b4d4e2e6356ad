//! An image that is fetched into the work directory, and read while it comes.
//!
//! It goes into `NAME.part`, which gets its name when all of it is there and was found good. Beside it stands
//! `NAME.state`: from where it is, how long, and by what the server knows whether it is still the same. By that a
//! download is taken up again where it ended, however the program ended, and a whole file is not fetched a second time:
//! of both the last byte that is there is asked for, if the file is unchanged. What is odd in the directory (symbolic
//! links, files of others, files of these names that no takeover has made) is refused, not followed and not removed.

use crate::error::{Doing, Error};
use crate::files;
use crate::image::source::Source;
use crate::log::Stopwatch;
use crate::net::client::{Client, Validator};
use crate::net::remote::Remote;
use crate::net::url::Url;
use crate::progress::Rate;
use crate::text::{PathText, Size, Text, Writer, decimal};
use core::cell::RefCell;
use rustix::fd::OwnedFd;
use rustix::fs::{Access, FlockOperation, OFlags};
use rustix::io::Errno;
use ufmt::uwrite;

/// How much is fetched at once where nobody waits for it, in bytes.
const PIECE: usize = 16 * 1024;
/// What is read further ahead than this is not fetched on the way: the directory of an archive, at its end.
const FAR: u64 = 1 << 20;
/// The longest name of a file that is made, in bytes.
const LONGEST_NAME: usize = 100;

/// What is to be fetched, and where to.
pub struct Order<'a> {
    /// From where.
    pub url: &'a Url,
    /// The token that goes with it.
    pub bearer: Option<&'static str>,
    /// What the file is to be called; made fit for a file name.
    pub name: &'a str,
    /// The work directory.
    pub folder: &'a str,
}

/// A file that is being fetched, or has been.
pub struct Download {
    place: Place,
    length: u64,
    inner: RefCell<Inner>,
}

/// What changes while it is fetched.
struct Inner {
    remote: Remote,
    file: OwnedFd,
    /// How many bytes are in the file.
    arrived: u64,
    /// It has its own name.
    is_whole: bool,
    /// It was the network or the disk that ended it: what has come is good.
    is_broken: bool,
    rate: Rate,
    watch: Stopwatch,
}

impl Download {
    /// Asks for the file, from where an earlier run ended if it is still the same. What is not good at the server is
    /// refused before anything is written.
    pub fn open(client: Client, order: &Order<'_>) -> Result<Self, Error> {
        let place = Place::new(order.folder, order.name)?;
        let url = order.url.shown();
        let found = place.find(&url)?;
        let from = found.as_ref().map_or(0, |found| found.held.min(found.state.length - 1));
        let validator = found.as_ref().map(|found| &found.state.validator);
        let remote = Remote::open(client, order.url, order.bearer, from, validator)?;
        let now = State {
            url,
            length: remote.length().unwrap_or(0),
            validator: remote.validator().clone(),
        };
        let is_same = |found: &Found| remote.start() == from && found.state.is_still(&now);
        let kept = found.filter(is_same);
        let arrived = kept.as_ref().map_or(0, |found| found.held);
        if kept.is_none() {
            // What cannot be gone on from is in nobody's way.
            remove(&place.path(PART)?)?;
        }
        place.check_space(now.length - arrived.min(now.length))?;
        let is_whole = kept.as_ref().is_some_and(|found| found.is_whole);
        let file = match kept {
            Some(found) => found.file,
            None => place.begin(&now)?,
        };
        place.log(arrived, now.length);
        let mut inner = Inner {
            remote,
            file,
            arrived,
            is_whole,
            is_broken: false,
            rate: Rate::start_from("download", now.length, arrived),
            watch: Stopwatch::start(),
        };
        let length = match now.length {
            0 => inner.fetch_all(&place)?,
            length => length,
        };
        Ok(Self { place, length, inner: RefCell::new(inner) })
    }

    /// Refuses what `open` would, and writes nothing: for a dry run. Gives the length of the file, which is read to its
    /// end for that where the server does not tell it, and how many bytes of it `open` would still fetch.
    pub fn check(order: &Order<'_>, remote: &mut Remote) -> Result<(u64, u64), Error> {
        let place = Place::new(order.folder, order.name)?;
        let held = place.find(&order.url.shown())?.map_or(0, |found| found.held);
        rustix::fs::access(&*place.folder, Access::WRITE_OK)
            .doing("looking whether files can be made in", &place.folder)
            .map_err(|error| error.as_refusal().advice("name another directory (-w DIR)"))?;
        let length = remote.find_length(place.free()?)?;
        let to_come = length.saturating_sub(held);
        place.check_space(to_come)?;
        Ok((length, to_come))
    }

    /// Where the file is, once it is whole.
    pub fn path(&self) -> Result<PathText, Error> {
        self.place.path("")
    }
}

impl Source for Download {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let wanted = self.length.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let inner = &mut *self.inner.borrow_mut();
        let ahead = offset.saturating_sub(inner.arrived);
        if ahead > FAR && inner.remote.can_take_up() && wanted > 0 {
            let far = inner.remote.read_at(offset, buffer);
            return far.inspect_err(|_| inner.is_broken = true);
        }
        if ahead > 0 {
            inner.fetch_until(offset, &self.place)?;
        }
        let there = inner.arrived.saturating_sub(offset).min(wanted as u64) as usize;
        let (there, to_come) = buffer.split_at_mut(there);
        inner.read_back(offset, there, &self.place)?;
        if !to_come.is_empty() {
            inner.fetch(to_come, &self.place)?;
        }
        Ok(wanted)
    }

    fn length(&self) -> u64 {
        self.length
    }

    fn to_come(&self) -> u64 {
        self.length - self.inner.borrow().arrived
    }

    fn finish(&self) -> Result<(), Error> {
        let inner = &mut *self.inner.borrow_mut();
        inner.fetch_until(self.length, &self.place)?;
        if inner.is_whole {
            return Ok(());
        }
        self.place.keep(&inner.file)?;
        inner.is_whole = true;
        let path = self.path()?;
        let watch = inner.watch;
        crate::info!("downloaded: {}, {} ({} s)", path, Size(self.length), watch.shown());
        Ok(())
    }

    /// But for what the network or the disk has ended: that goes on the next time.
    fn reject(&self) {
        let inner = self.inner.borrow();
        if !inner.is_broken {
            self.place.remove(inner.is_whole);
        }
    }
}

impl Inner {
    /// Fetches the next bytes, as many as `buffer` takes, into the file, too.
    fn fetch(&mut self, buffer: &mut [u8], place: &Place) -> Result<usize, Error> {
        let fetched = self.fetch_some(buffer, place);
        if fetched.is_err() {
            self.is_broken = true;
            if self.remote.can_take_up() && self.remote.length().is_some() {
                crate::warn!(
                    "{} of {} are there: started again, the download goes on from there",
                    Size(self.arrived),
                    place.name
                );
            } else {
                crate::warn!("this server cannot be asked for the rest: it begins anew");
                place.remove(false);
            }
        }
        fetched
    }

    fn fetch_some(&mut self, buffer: &mut [u8], place: &Place) -> Result<usize, Error> {
        let count = self.remote.read_at(self.arrived, buffer)?;
        let path = place.path(PART)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        files::write_all(&self.file, bytes)
            .doing("writing", &path)
            .map_err(|error| error.advice("make room there, or name another directory (-w DIR)"))?;
        self.arrived += count as u64;
        self.rate.advance(self.arrived);
        Ok(count)
    }

    /// Fetches until so many bytes are there.
    fn fetch_until(&mut self, end: u64, place: &Place) -> Result<(), Error> {
        let mut piece = [0; PIECE];
        while self.arrived < end {
            let wanted = (end - self.arrived).min(PIECE as u64) as usize;
            let count = self.fetch(piece.get_mut(..wanted).unwrap_or_default(), place)?;
            if count < wanted {
                self.is_broken = true;
                return Err(Error::failed("fetching", &place.name, "it is shorter than was said"));
            }
        }
        Ok(())
    }

    /// Fetches a file whose length the server does not tell, and gives its length.
    fn fetch_all(&mut self, place: &Place) -> Result<u64, Error> {
        let mut piece = [0; PIECE];
        while self.fetch(&mut piece, place)? == PIECE {}
        Ok(self.arrived)
    }

    /// Reads what is in the file.
    fn read_back(&self, offset: u64, buffer: &mut [u8], place: &Place) -> Result<(), Error> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let path = place.path(PART)?;
            match rustix::io::pread(&self.file, rest, offset + done as u64) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(Error::failed("reading", &path, "somebody has cut it short")),
                result => done += result.doing("reading", &path)?,
            }
        }
        Ok(())
    }
}

/// What an unfinished file has behind its name, and what the file beside has.
const PART: &str = ".part";
const STATE: &str = ".state";

/// The directory, and the name of the file there.
struct Place {
    folder: PathText,
    name: Text<LONGEST_NAME>,
}

/// What an earlier run has left.
struct Found {
    file: OwnedFd,
    held: u64,
    is_whole: bool,
    state: State,
}

impl Place {
    fn new(folder: &str, name: &str) -> Result<Self, Error> {
        Ok(Self { folder: crate::path!("{}", folder)?, name: file_name(name) })
    }

    fn path(&self, end: &str) -> Result<PathText, Error> {
        crate::path!("{}/{}{}", self.folder.as_str(), self.name, end)
    }

    /// What an earlier run has left of the file at `url`, if it can go on from there. Refuses what no takeover, or
    /// another user, has made.
    fn find(&self, url: &str) -> Result<Option<Found>, Error> {
        let (part, whole) = (self.open_own(PART)?, self.open_own("")?);
        let Some(file) = self.open_own(STATE)? else {
            return match (part, whole) {
                (None, None) => Ok(None),
                (Some(_), _) => Err(self.odd(PART, NOT_OURS)),
                (None, Some(_)) => Err(self.odd("", NOT_OURS)),
            };
        };
        let mut buffer = [0; 1024];
        let count = files::read_to_end(&file, &mut buffer).unwrap_or(0);
        let state = State::parse(files::as_text(buffer.get(..count).unwrap_or_default()));
        let Some(state) = state.filter(|state| &*state.url == url) else {
            return match whole {
                Some(_) => Err(self.odd("", "it was not fetched from this URL")),
                None => Ok(None),
            };
        };
        let is_whole = part.is_none();
        let Some(file) = part.or(whole) else {
            return Ok(None);
        };
        let held = size_of(&file);
        let is_sound = if is_whole { held == state.length } else { held <= state.length };
        let found = Found { file, held, is_whole, state };
        Ok(Some(found).filter(|found| is_sound && found.state.can_be_resumed()))
    }

    /// Opens a file of ours, alone: of this user, no link, and nobody else's download.
    fn open_own(&self, end: &str) -> Result<Option<OwnedFd>, Error> {
        let name: Text<{ LONGEST_NAME + 6 }> = crate::text!("{}{}", self.name, end);
        let file = match files::open_plain(&self.folder, &name, OFlags::RDWR | OFlags::APPEND) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.odd(end, "it is no plain file, or has two names")),
            result => result.doing("opening", &self.path(end)?).map_err(Error::as_refusal)?,
        };
        let status = rustix::fs::fstat(&file).doing("looking at", &self.path(end)?)?;
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return Err(self.odd(end, "it is another user's"));
        }
        self.lock(&file, end)?;
        Ok(Some(file))
    }

    fn lock(&self, file: &OwnedFd, end: &str) -> Result<(), Error> {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => Err(self.odd(end, "another takeover is fetching it")),
            // File systems without locks, as some of networks.
            _ => Ok(()),
        }
    }

    fn odd(&self, end: &str, why: &str) -> Error {
        let path = self.path(end).unwrap_or_default();
        Error::refused("downloading to", &path, why).advice(
            "move it away, or name another directory (-w DIR), or give the file itself (-i FILE)",
        )
    }

    /// How many bytes more there is room for.
    fn free(&self) -> Result<u64, Error> {
        let space = files::space(&self.folder).doing("looking at the space of", &self.folder)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Room for so many bytes more.
    fn check_space(&self, needed: u64) -> Result<(), Error> {
        let free = self.free()?;
        if needed <= free {
            return Ok(());
        }
        let why: Text<120> =
            crate::text!("{} are to be fetched, and {} are free", Size(needed), Size(free));
        Err(Error::refused("downloading to", &self.folder, &why)
            .advice("make room there, or name another directory (-w DIR)"))
    }

    /// Begins anew, with nothing. The state is there before the file that it is about: one without is somebody else's.
    fn begin(&self, state: &State) -> Result<OwnedFd, Error> {
        let beside = match self.open_own(STATE)? {
            Some(file) => file,
            None => self.create(STATE)?,
        };
        let path = self.path(STATE)?;
        rustix::fs::ftruncate(&beside, 0).doing("emptying", &path)?;
        remove(&self.path(PART)?)?;
        let file = self.create(PART)?;
        files::write_all(&beside, state.text().as_bytes()).doing("writing", &path)?;
        Ok(file)
    }

    fn create(&self, end: &str) -> Result<OwnedFd, Error> {
        let path = self.path(end)?;
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL;
        let file = files::open(&path, flags | OFlags::NOFOLLOW)
            .doing("making", &path)
            .map_err(|error| error.as_refusal().advice("name another directory (-w DIR)"))?;
        self.lock(&file, end)?;
        Ok(file)
    }

    /// Gives a whole file its name, for good.
    fn keep(&self, file: &OwnedFd) -> Result<(), Error> {
        let (part, whole) = (self.path(PART)?, self.path("")?);
        rustix::fs::fsync(file).doing("syncing", &part)?;
        files::rename(&part, &whole).doing("renaming", &part)?;
        let folder = files::opened(&self.folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fsync(folder).doing("syncing", &self.folder)
    }

    /// Removes what was fetched, and what stands beside it.
    fn remove(&self, is_whole: bool) {
        // Without the state an earlier whole one would be nobody's, and in the way.
        let ends = if is_whole { &["", STATE][..] } else { &[PART, STATE, ""] };
        for end in ends {
            let removed = self.path(end).and_then(|path| remove(&path));
            if let Err(error) = removed {
                crate::warn!("{}", error);
            }
        }
        crate::info!("{}: what was fetched is removed", self.name);
    }

    fn log(&self, arrived: u64, length: u64) {
        let path = self.path("").unwrap_or_default();
        if arrived > 0 && arrived == length {
            crate::info!("{} is there already, and unchanged at the server", path);
        } else if arrived > 0 {
            crate::info!("fetching {}: {} of {} are there", path, Size(arrived), Size(length));
        } else if length > 0 {
            crate::info!("fetching {}: {}", path, Size(length));
        } else {
            crate::info!("fetching {}: the server does not tell its length", path);
        }
    }
}

const NOT_OURS: &str = "there is such a file, and no takeover has made it";

/// Removes a file, if there is one.
fn remove(path: &str) -> Result<(), Error> {
    match files::remove(path) {
        Err(Errno::NOENT) => Ok(()),
        result => result.doing("removing", path),
    }
}

fn size_of(file: &OwnedFd) -> u64 {
    rustix::fs::fstat(file).map_or(0, |status| status.st_size.max(0) as u64)
}

/// A name for a file: nothing of a path in it, and nothing that shells and people stumble over.
fn file_name(wanted: &str) -> Text<LONGEST_NAME> {
    let name: Text<LONGEST_NAME> = Text::build(&mut |writer: &mut Writer| {
        for (at, character) in wanted.char_indices() {
            let is_plain = character.is_ascii_alphanumeric()
                || "_+%~@=,".contains(character)
                || at > 0 && "-.".contains(character);
            uwrite!(writer, "{}", if is_plain { character } else { '_' })?;
        }
        Ok(())
    });
    if name.is_empty() { Text::from("image") } else { name }
}

/// What the file beside an image says: see the module's text.
#[derive(Clone, PartialEq, Debug)]
struct State {
    /// Without what is secret: the validator tells two files of one path apart.
    url: Text<160>,
    /// 0 when the server does not tell.
    length: u64,
    validator: Validator,
}

const HEADING: &str = "takeover download 1";

impl State {
    fn text(&self) -> Text<512> {
        let Validator { tag, modified } = &self.validator;
        Text::build(&mut |writer: &mut Writer| {
            uwrite!(writer, "{}\n{}\n{}\n", HEADING, self.url, self.length)?;
            uwrite!(writer, "{}\n{}\n", tag, modified)
        })
    }

    /// Whatever is odd in it makes it worthless: then the download begins anew.
    fn parse(text: &str) -> Option<Self> {
        let is_printable = |byte: u8| (b' '..=b'~').contains(&byte);
        let mut lines = text.split('\n').map(|line| line.bytes().all(is_printable).then_some(line));
        let mut next = || lines.next().unwrap_or(Some("")).filter(|line| line.len() <= 160);
        next().filter(|line| *line == HEADING)?;
        let url = Text::from(next()?);
        let length = decimal(next()?)?;
        let tag = next().filter(|tag| tag.len() <= 128)?;
        let modified = next().filter(|modified| modified.len() <= 40)?;
        let validator = Validator { tag: Text::from(tag), modified: Text::from(modified) };
        Some(Self { url, length, validator })
    }

    /// Its server can tell whether the file is still the same.
    fn can_be_resumed(&self) -> bool {
        let Validator { tag, modified } = &self.validator;
        self.length > 0 && !(tag.is_empty() && modified.is_empty())
    }

    /// The answer to a request for the rest is about the same file. With If-Range a server may leave out what it was
    /// asked by (RFC 9110, 15.3.7).
    fn is_still(&self, now: &Self) -> bool {
        let is_same = |before: &str, now: &str| now.is_empty() || before == now;
        self.length == now.length
            && is_same(&self.validator.tag, &now.validator.tag)
            && is_same(&self.validator.modified, &now.validator.modified)
    }
}

#[cfg(test)]
mod tests;
