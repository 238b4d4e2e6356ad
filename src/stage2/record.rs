//! Keeping the end of stage 2's log in the last sectors of a disk on which the new OS could not be placed: whoever has
//! the disk on a table reads there why.

use super::target::{self, Target};
use crate::disk::record;
use crate::error::{Doing, Error};
use crate::plan::{Plan, names};
use crate::progress::Shared;
use crate::sys::map;
use crate::{crc32, files};
use core::sync::atomic::Ordering::SeqCst;
use rustix::fs::OFlags;

const PLACE: &str = "the last sectors of the disk";

/// Puts it there, with `result` as its last line, and reads it back. `base` is where the RAMFS is mounted. Only for a
/// disk that was written to: before, these sectors are the old OS's.
pub fn keep(plan: &Plan, base: &str, result: &str, shared: &Shared) -> Result<(), Error> {
    let failed = |why| Error::failed("keeping the log in", PLACE, why);
    if shared.head_only.load(SeqCst) {
        return Err(failed("all but the first MiB of the disk is still the old OS's"));
    }
    let offset = record::offset(plan.target.size, plan.image.length);
    let offset = offset.ok_or_else(|| failed("the image leaves no room there"))?;
    let record = map::buffer(record::LENGTH).doing("reserving memory for", "a record")?;
    let length = gather(base, result, record::text_of(record));
    record::seal(record, length);
    let written = crc32::crc32(record);
    let (target, _) = target::claim_disk(plan, base, shared)?;
    target.write_once(offset, record)?;
    target.flush()?;
    target.read(offset, record)?;
    if crc32::crc32(record) != written {
        return Err(failed("it reads back otherwise"));
    }
    crate::info!("the log is in {}, too: takeover log DEV prints it", PLACE);
    Ok(())
}

/// Clears a record of before, when the new OS is on the disk: what is said there is no longer so. `scratch` has
/// [`record::HEADER`] bytes or more.
pub fn forget(target: &Target, plan: &Plan, scratch: &mut [u8], shared: &Shared) {
    let offset = record::offset(plan.target.size, plan.image.length);
    let (Some(offset), Some(header)) = (offset, scratch.get_mut(..record::HEADER)) else { return };
    // What cannot be read there is none.
    if target.read(offset, header).is_ok() && record::begins(header) {
        header.fill(0);
        if let Err(error) = target.write(offset, header, shared) {
            crate::warn!("{}; the log of an earlier failure stays in {}", error, PLACE);
        }
    }
}

/// The end of the log, from the beginning of a line on, and the result behind it; how long that is. Without a log the
/// result alone.
fn gather(base: &str, result: &str, text: &mut [u8]) -> usize {
    let room = text.len().saturating_sub(result.len());
    let mut length = 0;
    if let Some(log) = text.get_mut(..room) {
        length = log_end(base, log).unwrap_or(0);
    }
    for (to, from) in text.iter_mut().skip(length).zip(result.bytes()) {
        *to = from;
    }
    (length + result.len()).min(text.len())
}

fn log_end(base: &str, text: &mut [u8]) -> Option<usize> {
    let file = files::opened(&files::below(base, names::LOG).ok()?, OFlags::RDONLY).ok()?;
    let size = u64::try_from(rustix::fs::fstat(&file).ok()?.st_size).ok()?;
    let start = size.saturating_sub(text.len() as u64);
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(start)).ok()?;
    let length = files::read_to_end(&file, text).ok()?;
    if start == 0 {
        return Some(length);
    }
    let line = text.get(..length)?.iter().position(|byte| *byte == b'\n')? + 1;
    text.copy_within(line..length, 0);
    Some(length - line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(log: Option<&[u8]>, result: &str, room: usize) -> String {
        let base = std::env::temp_dir()
            .join(std::format!("takeover-record-{}-{room}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        if let Some(log) = log {
            std::fs::write(base.join(names::LOG), log).unwrap();
        }
        let mut text = vec![b'?'; room];
        let length = gather(base.to_str().unwrap(), result, &mut text);
        std::fs::remove_dir_all(base).unwrap();
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn nothing_is_put_where_the_old_os_may_still_be_put_back() {
        let plan = crate::plan::tests::sample();
        let shared = Shared::default();
        shared.destroyed.store(true, SeqCst);
        shared.head_only.store(true, SeqCst);
        let error = keep(&plan, "/nowhere", "{}\n", &shared).unwrap_err();
        let text: crate::text::Text<300> = crate::text!("{}", error);
        assert!(text.contains("still the old OS's"), "{}", &*text);
    }

    #[test]
    fn the_end_of_the_log_begins_with_a_line_and_ends_with_the_result() {
        let log = Some(&b"one\ntwo\nthree\n"[..]);
        assert_eq!(gathered(log, "{}\n", 100), "one\ntwo\nthree\n{}\n");
        assert_eq!(gathered(log, "{}\n", 17), "one\ntwo\nthree\n{}\n");
        assert_eq!(gathered(log, "{}\n", 16), "two\nthree\n{}\n");
        assert_eq!(gathered(log, "{}\n", 12), "three\n{}\n");
        assert_eq!(gathered(None, "{}\n", 99), "{}\n");
    }
}
