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
use crate::text::Text;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// How many bytes of scratch [`check`] needs: the largest description, and one byte to see that it is not larger.
pub const SCRATCH: usize = description::LARGEST + 1;

/// Reads and checks a backup description. `scratch` needs [`SCRATCH`] bytes. An empty list is no error: nothing is to
/// be backed up then.
pub fn check(path: &str, scratch: &mut [u8]) -> Result<Description, Error> {
    // A pipe without a writer would wait for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = files::open(path, flags).doing("opening the backup description", path)?;
    let count = files::read_to_end(&file, scratch).doing("reading the backup description", path)?;
    let description = parse(scratch.get(..count).unwrap_or_default())?;
    for volume in &description.volumes {
        warn_about_name(&volume.name);
    }
    Ok(description)
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

/// A file without a name in `work_dir`, for the archive: mode 0600, gone when it is closed.
pub fn temporary(work_dir: &str) -> Result<OwnedFd, Error> {
    match files::open(work_dir, OFlags::RDWR | OFlags::TMPFILE) {
        Ok(file) => Ok(file),
        // What kernels and file systems without O_TMPFILE say (open(2)).
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => unlinked(work_dir),
        Err(errno) => Err(Error::os("making a file in", work_dir, errno)),
    }
}

/// The same in two steps. The name is random: a file that is there already is never opened.
fn unlinked(work_dir: &str) -> Result<OwnedFd, Error> {
    let mut random = [0; 8];
    files::read_start("/dev/urandom", &mut random).doing("reading", "/dev/urandom")?;
    let name = u64::from_ne_bytes(random);
    let path = crate::path!("{}/takeover-backup-{:016x}", work_dir, name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = files::open(&path, flags).doing("making", &path)?;
    files::remove(&path).doing("removing", &path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_private_and_has_no_name() {
        let path = std::env::temp_dir().join(format!("takeover-temporary-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        for make in [temporary, unlinked] {
            let file = make(path.to_str().unwrap()).unwrap();
            let status = rustix::fs::fstat(&file).unwrap();
            assert_eq!((status.st_nlink, status.st_mode & 0o777), (0, 0o600));
            files::write_all(&file, b"x").unwrap();
        }
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0);
        std::fs::remove_dir(&path).unwrap();
        assert!(temporary(path.to_str().unwrap()).is_err());
    }

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
