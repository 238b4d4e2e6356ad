//! The backup: files of the old OS that become volumes of the new one.
//!
//! A description in YAML says what goes where, an archive (tar, gzip) is made of it, and stage 2 puts that on the new
//! data partition as `backup.tgz`, where balena's supervisor unpacks it. The supervisor takes each directory at the top
//! for a volume of the release and tries again for ever when one is something else, so nothing else is ever at the top.
//!
//! This is the one room besides the command line that uses the heap, for YAML, regular expressions and the packer: all
//! of it runs in stage 1, before anything is changed. The caller unseals the heap around [`check`] and [`write`], and
//! lets go of the [`Description`] whenever it likes. Memory is bounded: `memory::HEAP_CAP` says by what.

mod archive;
pub mod description;
pub mod filter;
mod listing;
mod pack;
mod tar;

pub use archive::{Progress, Summary, write};
pub use description::{Description, Item, Volume, parse};
pub use filter::Filter;

use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::text::{Size, Text};
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// How many bytes of scratch [`check`] needs: the largest description, and one byte to see that it is not larger.
pub const SCRATCH: usize = description::LARGEST + 1;

/// Reads and checks a backup description. `scratch` needs [`SCRATCH`] bytes. An empty list is no error: nothing is to
/// be backed up then.
pub fn check(path: &str, scratch: &mut [u8]) -> Result<Description, Error> {
    // A pipe without a writer would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = files::open(path, flags)
        .doing("opening the backup description", path)
        .map_err(Error::as_refusal)?;
    let count = files::read_to_end(&file, scratch)
        .doing("reading the backup description", path)
        .map_err(Error::as_refusal)?;
    let description = parse(scratch.get(..count).unwrap_or_default())?;
    for volume in &description.volumes {
        warn_about_name(&volume.name);
    }
    Ok(description)
}

/// Makes the archive that a description asks for, of at most `limit` bytes, and gives its length; nothing when the
/// description asks for nothing. `scratch` needs [`SCRATCH`] bytes. The heap must not be sealed.
pub fn make(
    path: &str,
    file: &OwnedFd,
    limit: u64,
    scratch: &mut [u8],
) -> Result<Option<u64>, Error> {
    let watch = Stopwatch::start();
    let description = check(path, scratch)?;
    if description.volumes.is_empty() {
        return Ok(None);
    }
    let summary = write(&description, "/", file, limit, &mut |_| Ok(()))?;
    crate::info!(
        "the backup: {} files of {} volumes, {} packed to {} ({} s)",
        summary.files,
        summary.volumes,
        Size(summary.content),
        Size(summary.bytes),
        watch.shown()
    );
    Ok(Some(summary.bytes))
}

/// The supervisor cannot say that a volume is unknown: it fails, and tries again for ever.
fn warn_about_name(name: &str) {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if !starts_well || !name.bytes().all(is_inner) {
        let name: Text<100> = crate::text::printable(name.as_bytes());
        crate::warn!(
            "backup: no release can have a volume called '{}' (letters, digits, _ . and - only): balena's supervisor will not restore it",
            name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_from_its_file_and_must_not_be_larger_than_the_limit() {
        let mut scratch = vec![0; SCRATCH];
        let good = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/backup/good/full.yaml");
        assert_eq!(check(good, &mut scratch).ok().unwrap().volumes.len(), 3);
        let shown = |error: Error| -> Text<400> { crate::text!("{}", error) };
        let error = check("/nowhere/at/all", &mut scratch).err().unwrap();
        assert!(shown(error).contains("/nowhere/at/all: no such file"));
        let error = check("/dev/zero", &mut scratch).err().unwrap();
        assert!(shown(error).contains("larger than 64 KiB"));
    }
}
