//! What a takeover that failed left on its disk, for whoever has the disk now. Reads, and changes nothing.

use crate::cli::Options;
use crate::disk::record;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::map;
use crate::text::{Text, printable};
use rustix::fs::{OFlags, SeekFrom};

/// Prints the record that a flash which failed for good left on a disk, or in a copy of one.
pub fn print_record(options: &Options) -> Result<(), Error> {
    let disk = options.flash_to.as_deref().unwrap_or_default();
    let reading =
        || Error::failed("reading the log of a failed takeover on", disk, "there is none");
    let none = || reading().advice("a new OS that was started since may have written over it");
    let record = map::buffer(record::LENGTH).doing("reserving", "memory")?;
    let advise = |error: Error| error.advice("name the disk, as /dev/sda: lsblk lists them");
    // Not to be held up by a named pipe.
    let file = files::opened(disk, OFlags::RDONLY | OFlags::NONBLOCK).map_err(advise)?;
    let length = rustix::fs::seek(&file, SeekFrom::End(0))
        .map_err(|_| advise(Error::failed("asking the size of", disk, "it is no disk")))?;
    let offset = record::offset(length, 0).ok_or_else(none)?;
    rustix::fs::seek(&file, SeekFrom::Start(offset)).doing("reading", disk)?;
    files::read_to_end(&file, record).doing("reading", disk)?;
    let text = record::read(record).ok_or_else(none)?;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        // What stands on a disk may be anybody's.
        let line: Text<1000> = printable(line.strip_suffix(b"\n").unwrap_or(line));
        let line: Text<1001> = crate::text!("{}\n", line);
        files::write_all(rustix::stdio::stdout(), line.as_bytes())
            .doing("writing to", "standard output")?;
    }
    Ok(())
}
