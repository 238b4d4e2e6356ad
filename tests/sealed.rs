//! Between the first and the last destructive byte nothing is allocated: the real flash, read-back and repair run here
//! over a file while the heap is sealed. An allocation in them aborts this process, and the test fails.
//!
//! What a disk does to them is played by a supervisor of the flashing thread's system calls: see [`watched`].
//!
//! One process and no harness, since the seal is for the whole process. It lives under the shipped heap cap too, so
//! everything large is mapped.

use linux_raw_sys::general;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use takeover::crc32;
use takeover::disk::device::Number;
use takeover::error::Error;
use takeover::image::decode::{BUFFER, Decoder};
use takeover::image::map::ChunkMap;
use takeover::image::patches::Patches;
use takeover::image::source::FileSource;
use takeover::image::{CHUNK, format, scan};
use takeover::plan::{DiskPlan, ImagePlan, OnFailure, Plan};
use takeover::progress::Shared;
use takeover::stage2::{Buffers, Staged, Target, only_head_is_gone, restore_head, write_to};
use takeover::text::Text;
use takeover::{memory, sys};

const IMAGE: usize = 6 * CHUNK + 1536;
const DISK: usize = 8 * CHUNK;
/// <linux/fs.h>
const BLKZEROOUT: u64 = 0x127f;
const BLKDISCARD: u64 = 0x1277;
/// FALLOC_FL_KEEP_SIZE and FALLOC_FL_PUNCH_HOLE of <linux/falloc.h>.
const PUNCH: u64 = 1 | 2;
/// EIO.
const IO_ERROR: i32 = 5;
/// EOPNOTSUPP.
const NOT_SUPPORTED: i32 = 95;

/// A test by its name.
type Test = (&'static str, fn(&Path));

const TESTS: [Test; 35] = [
    ("flash_and_read_back_do_not_allocate", flash_and_read_back),
    ("a_head_with_zeros_at_its_end_and_a_short_image_are_written_whole", zeros_in_the_head),
    ("bad_chunks_and_zeros_that_are_none_are_repaired", bad_chunks_and_zeros),
    ("a_stale_backup_gpt_is_cleared", stale_backup_gpt),
    ("the_end_of_an_image_is_kept_where_a_backup_gpt_would_be", long_image),
    ("a_backup_gpt_that_cannot_be_cleared_is_no_failure", unwritable_end),
    ("a_disk_that_takes_no_writes_is_as_it_was", no_writes),
    ("zeros_that_were_only_promised_are_written", promised_zeros),
    ("where_no_hole_is_punched_discards_that_make_zeros_do", discarded_zeros),
    ("a_discard_that_leaves_what_was_there_is_not_asked_for_again", useless_discards),
    ("a_discard_of_what_was_zeros_before_proves_nothing", discards_of_zeros),
    ("zeros_that_a_discard_made_in_part_are_written", half_discarded),
    ("a_discard_that_leaves_something_else_later_is_repaired", forgetful_discards),
    ("zeros_that_the_kernel_did_not_write_are_written", unwritten_zeros),
    ("a_head_that_was_written_or_was_empty_is_no_proof", no_proof),
    ("a_bad_sector_in_the_head_leaves_the_old_os_whole", bad_sector_in_head),
    ("a_sector_of_the_head_that_went_bad_is_the_end_of_the_old_os", lost_sector_in_head),
    ("what_could_not_be_read_of_the_head_before_is_no_loss", unread_sector_in_head),
    ("a_head_that_cannot_be_read_is_not_written", unreadable_head),
    ("the_cleared_head_is_flushed_before_anything_else_is_written", head_is_flushed),
    ("every_chunk_is_read_back_and_the_head_is_written_last", rot),
    ("the_first_block_is_written_when_all_behind_it_was_read_back", head_in_order),
    ("a_head_that_is_not_whole_has_no_table", head_in_part),
    ("a_head_that_does_not_read_back_as_zeros_is_not_cleared", half_cleared),
    ("the_old_head_is_put_back_by_the_next_worker", old_head_of_another),
    ("of_a_head_with_a_gap_that_the_next_worker_puts_back_that_is_said", old_head_with_a_gap),
    ("files_are_placed_while_the_disk_does_not_boot_yet", files_before_the_head),
    ("the_image_is_written_and_read_back_with_its_patches", patched),
    ("zeros_are_repaired_without_the_image_and_not_asked_for_again", repaired_zeros),
    ("a_medium_that_cannot_be_read_is_written_again", unreadable_medium),
    ("a_medium_that_stays_bad_is_an_error", bad_medium),
    ("a_sector_that_cannot_be_written_is_an_error", bad_sector),
    ("a_sealed_heap_refuses", sealed_heap_refuses),
    ("the_heap_has_a_cap", heap_has_a_cap),
    ("a_panic_without_heap_ends_the_process", panic_without_heap),
];

fn main() {
    // As main does first: a failing test could not say so with a backtrace.
    // SAFETY: no thread has been started.
    unsafe { sys::process::leave_environment() };
    if let Some(kind) = std::env::args().nth(1) {
        panic_as_asked(&kind);
    }
    let directory = std::env::temp_dir().join(format!("takeover-sealed-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    for (name, test) in TESTS {
        test(&directory);
        println!("test {name} ... ok");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    println!("test result: ok. {} passed; 0 failed", TESTS.len());
}

fn flash_and_read_back(directory: &Path) {
    let image = image();
    let disk = flash(directory, image, &|_| {});
    assert!(disk[..IMAGE] == *image, "the disk differs from the image");
    assert!(disk[IMAGE..].iter().all(|byte| *byte == 0xee), "written behind the image");
}

/// The first chunk waits without the zeros at its end.
fn zeros_in_the_head(directory: &Path) {
    for start in [0, 1, CHUNK / 2, CHUNK - 4096] {
        let image = image();
        image[start..CHUNK].fill(0);
        let disk = flash(directory, image, &|_| {});
        assert!(disk[..IMAGE] == *image, "zeros from {start} on: the disk differs");
    }
    let image = &image()[..1536];
    let disk = flash(directory, image, &|_| {});
    assert!(disk[..1536] == *image, "an image shorter than a chunk: the disk differs");
    assert!(disk[4096..].iter().all(|byte| *byte == 0xee), "written behind the image");
}

/// Chunks that went bad and zeros that are none, in one run.
fn bad_chunks_and_zeros(directory: &Path) {
    let image = image();
    let bench = Bench::new(directory, image);
    let mut flushes = 0;
    let result = bench.run(&mut |call| match call.name() {
        Name::Zero => Answer::Pretends(0),
        Name::Flush => {
            flushes += 1;
            // All but the head is written.
            if flushes == 2 {
                [1, 5].into_iter().for_each(|index| bench.spoil(index));
            }
            Answer::Real
        }
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    assert_eq!(bench.shared.repaired.load(SeqCst), 4);
}

fn stale_backup_gpt(directory: &Path) {
    let end = DISK as u64 - 512;
    let disk = flash(directory, image(), &|disk| disk.write_all_at(b"EFI PART", end).unwrap());
    let start = DISK - 34 * 512;
    assert!(disk[start..].iter().all(|byte| *byte == 0), "the backup GPT is still there");
    assert!(disk[start - 1] == 0xee, "more than the backup GPT was cleared");

    // In whole blocks: O_DIRECT takes nothing else.
    let mut bench = Bench::new(directory, image());
    bench.plan.target.logical_block = 4096;
    bench.disk.write_all_at(b"EFI PART", DISK as u64 - 4096).unwrap();
    let mut whole = true;
    let result = bench.run(&mut |call| {
        let [_, _, length, offset, ..] = call.arguments;
        whole &= call.name() != Name::Write || (length | offset) % 4096 == 0;
        Answer::Real
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(whole, "a write that is not in whole blocks");
    let disk = bench.contents();
    assert!(disk[start / 4096 * 4096..].iter().all(|byte| *byte == 0), "the backup GPT is there");
}

fn unwritable_end(directory: &Path) {
    let (start, image) = (DISK as u64 - 34 * 512, image());
    let bench = Bench::new(directory, image);
    bench.disk.write_all_at(b"EFI PART", DISK as u64 - 512).unwrap();
    let result = bench.run(&mut |call| match (call.name(), call.arguments[3] >= start) {
        (Name::Write, true) => Answer::Fails(IO_ERROR),
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
}

fn no_writes(directory: &Path) {
    for was_destroyed in [false, true] {
        for refuses in [false, true] {
            let bench = Bench::new(directory, image());
            bench.shared.destroyed.store(was_destroyed, SeqCst);
            let error = bench.run(&mut |call| match (call.name(), refuses) {
                (Name::Write | Name::Zero, true) => Answer::Fails(IO_ERROR),
                (Name::Write, false) => Answer::Pretends(call.arguments[2] as i64),
                (Name::Zero, false) => Answer::Pretends(0),
                _ => Answer::Real,
            });
            let error = error.unwrap_err();
            assert!(error.contains("it takes no writes"), "{error}");
            assert_eq!(error.contains("nothing was changed"), !was_destroyed, "{error}");
            assert_eq!(bench.shared.destroyed.load(SeqCst), was_destroyed);
            assert!(bench.contents().iter().all(|byte| *byte == 0xee), "something was written");
        }
    }
}

fn promised_zeros(directory: &Path) {
    let image = image();
    let bench = Bench::new(directory, image);
    let result = bench.run(&mut |call| match call.name() {
        Name::Zero => Answer::Pretends(0),
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    assert_eq!(bench.shared.repaired.load(SeqCst), 2);
}

/// A disk that punches no holes. What becomes of a range that is discarded `discard` says; gives how many discards
/// there were, and how often the kernel was asked to write zeros.
fn without_holes(bench: &Bench, discard: &dyn Fn(u64, u64)) -> (u32, u32) {
    without_holes_in(image(), bench, discard)
}

/// The same with another image.
fn without_holes_in(image: &[u8], bench: &Bench, discard: &dyn Fn(u64, u64)) -> (u32, u32) {
    let (mut discards, mut zeroings) = (0, 0);
    let result = bench.run(&mut |call| match call.name() {
        Name::Zero => Answer::Fails(NOT_SUPPORTED),
        Name::Discard => {
            discards += 1;
            // SAFETY: the range that the flashing thread waits with, which is of this process.
            let [offset, length] = unsafe { *(call.arguments[2] as *const [u64; 2]) };
            discard(offset, length);
            Answer::Pretends(0)
        }
        Name::WriteZeros => {
            zeroings += 1;
            Answer::Real
        }
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    (discards, zeroings)
}

fn discarded_zeros(directory: &Path) {
    let bench = Bench::new(directory, image());
    let zeros = sys::map::buffer(2 * CHUNK).unwrap();
    let zeros =
        |offset, length| bench.disk.write_all_at(&zeros[..length as usize], offset).unwrap();
    assert_eq!(without_holes(&bench, &zeros), (1, 0));
    assert_eq!(bench.shared.repaired.load(SeqCst), 0);
}

fn useless_discards(directory: &Path) {
    // Nothing happens, or what nobody has written stands there.
    for garbage in [0xee, 0x55, 0xff] {
        let bench = Bench::new(directory, image());
        let bytes = sys::map::buffer(2 * CHUNK).unwrap();
        bytes.fill(garbage);
        let fill =
            |offset, length| bench.disk.write_all_at(&bytes[..length as usize], offset).unwrap();
        assert_eq!(without_holes(&bench, &fill), (1, 1));
        // Noticed at once, and not by the read-back.
        assert_eq!(bench.shared.repaired.load(SeqCst), 0);
    }
}

fn discards_of_zeros(directory: &Path) {
    // What is zeros already says nothing of a discard: something else is put there first.
    for makes_zeros in [false, true] {
        let bench = Bench::new(directory, image());
        bench.disk.write_all_at(&[0; CHUNK], 3 * CHUNK as u64 - CHUNK as u64 / 2).unwrap();
        let zeros = sys::map::buffer(2 * CHUNK).unwrap();
        let answer = |offset, length| {
            let length = if makes_zeros { length as usize } else { 0 };
            bench.disk.write_all_at(&zeros[..length], offset).unwrap();
        };
        assert_eq!(without_holes(&bench, &answer), (1, u32::from(!makes_zeros)));
        assert_eq!(bench.shared.repaired.load(SeqCst), 0);
    }
}

fn half_discarded(directory: &Path) {
    let zeros = sys::map::buffer(2 * CHUNK).unwrap();
    // What starts no MiB of the range is found by the read-back.
    let bench = Bench::new(directory, image());
    let part = |offset, length| {
        bench.disk.write_all_at(&zeros[..length as usize / 4 * 3], offset).unwrap()
    };
    assert_eq!(without_holes(&bench, &part), (1, 0));
    assert_eq!(bench.shared.repaired.load(SeqCst), 1);
    assert!(bench.shared.zeroing_lied.load(SeqCst));

    // A unit of the device that the range has only the end of stays as it was: the kernel is asked for its zeros, and
    // has none for a file, neither for this piece nor for the whole range.
    let bench = Bench::new(directory, image());
    let whole_units = |offset, length: u64| {
        bench.disk.write_all_at(&zeros[..length as usize / 2], offset + length / 4).unwrap();
    };
    assert_eq!(without_holes(&bench, &whole_units), (1, 2));
    assert_eq!(bench.shared.repaired.load(SeqCst), 0);
    assert!(!bench.shared.zeroing_lied.load(SeqCst));
}

fn forgetful_discards(directory: &Path) {
    let image = image();
    // A run of two chunks, and one of one.
    image[5 * CHUNK..6 * CHUNK].fill(0);
    let bench = Bench::new(directory, image);
    let bytes = sys::map::buffer(3 * CHUNK).unwrap();
    let (zeros, garbage) = bytes.split_at_mut(2 * CHUNK);
    garbage[CHUNK / 2..].fill(0x55);
    let only_once = |offset, length: u64| {
        let made = if length == CHUNK as u64 { &*garbage } else { &*zeros };
        bench.disk.write_all_at(made, offset).unwrap();
    };
    // It has shown that it makes zeros, so of the second one only the beginning was looked at.
    assert_eq!(without_holes_in(image, &bench, &only_once), (2, 0));
    assert_eq!(bench.shared.repaired.load(SeqCst), 1);
    assert!(bench.shared.zeroing_lied.load(SeqCst));
}

fn unwritten_zeros(directory: &Path) {
    let (image, mut asked) = (image(), 0);
    let bench = Bench::new(directory, image);
    let result = bench.run(&mut |call| match call.name() {
        Name::Zero | Name::Discard => Answer::Fails(NOT_SUPPORTED),
        Name::WriteZeros => {
            asked += 1;
            Answer::Pretends(0)
        }
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    assert_eq!((asked, bench.shared.repaired.load(SeqCst)), (1, 2));
}

fn no_proof(directory: &Path) {
    // A part of it was written.
    let bench = Bench::new(directory, image());
    let mut writes = 0;
    let error = bench.run(&mut |call| {
        writes += u32::from(call.name() == Name::Write);
        match writes {
            0 | 1 => Answer::Real,
            _ => Answer::Fails(IO_ERROR),
        }
    });
    assert!(error.unwrap_err().contains("writing sector"));
    assert!(bench.shared.destroyed.load(SeqCst));
    // It was zeros before: nobody knows whether the disk takes writes.
    let bench = Bench::new(directory, image());
    bench.disk.write_all_at(&[0; CHUNK], 0).unwrap();
    let error = bench.run(&mut |call| match (call.name(), call.arguments[3] < CHUNK as u64) {
        (Name::Write, true) => Answer::Pretends(call.arguments[2] as i64),
        (Name::Write, false) => Answer::Fails(IO_ERROR),
        _ => Answer::Real,
    });
    assert!(error.unwrap_err().contains("writing sector"));
    assert!(bench.shared.destroyed.load(SeqCst));
    // It was zeros before, and does not take even those.
    let bench = Bench::new(directory, image());
    bench.disk.write_all_at(&[0; CHUNK], 0).unwrap();
    let error = bench.run(&mut |call| match call.name() {
        Name::Write | Name::Zero => Answer::Fails(IO_ERROR),
        _ => Answer::Real,
    });
    assert!(error.unwrap_err().contains("nothing was changed"));
    assert!(!bench.shared.destroyed.load(SeqCst));
}

/// A sector of the head, and whether a read or a write of the disk touches it.
const BAD: u64 = 20 * 4096 + 5 * 512;

fn touches_bad(call: &Call) -> bool {
    let [_, _, length, offset, ..] = call.arguments;
    offset <= BAD && BAD < offset + length
}

fn bad_sector_in_head(directory: &Path) {
    let bench = Bench::new(directory, image());
    bench.disk.write_all_at(b"the old system", BAD - 512).unwrap();
    let before = bench.contents();
    let mut zeros = false;
    let error = bench.run(&mut |call| {
        zeros |= !bench.boots();
        match call.name() {
            Name::Write if touches_bad(call) => Answer::Fails(IO_ERROR),
            _ => Answer::Real,
        }
    });
    let error = error.unwrap_err();
    assert!(error.contains("writing sector") && error.contains("nothing was changed"), "{error}");
    assert!(!bench.shared.destroyed.load(SeqCst));
    assert!(bench.contents() == before, "the head was not put back");

    // One that the drive accepts and loses its cache over, for a moment.
    let bench = Bench::new(directory, image());
    let mut flushes = 0;
    let error = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        zeros |= !bench.boots();
        if call.name() == Name::Flush && flushes == 1 {
            return Answer::Fails(IO_ERROR);
        }
        Answer::Real
    });
    let error = error.unwrap_err();
    assert!(error.contains("flushing") && error.contains("nothing was changed"), "{error}");
    assert!(!bench.shared.destroyed.load(SeqCst));
    assert!(bench.contents().iter().all(|byte| *byte == 0xee) && flushes == 2);
    assert!(zeros, "nothing had to be put back");

    // In a later run the disk is half-written, and what was there is not put back: it could boot.
    let bench = Bench::new(directory, image());
    bench.shared.destroyed.store(true, SeqCst);
    let error = bench.run(&mut |call| match call.name() {
        Name::Write if touches_bad(call) => Answer::Fails(IO_ERROR),
        _ => Answer::Real,
    });
    assert!(!error.unwrap_err().contains("nothing was changed"));
    assert!(bench.shared.destroyed.load(SeqCst));
}

fn lost_sector_in_head(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut is_lost = false;
    let error = bench.run(&mut |call| match call.name() {
        Name::Write if touches_bad(call) => {
            is_lost = true;
            Answer::Fails(IO_ERROR)
        }
        Name::Read if is_lost && bench.is_of_disk(call) && touches_bad(call) => {
            Answer::Fails(IO_ERROR)
        }
        _ => Answer::Real,
    });
    let error = error.unwrap_err();
    assert!(error.contains("writing sector") && !error.contains("nothing was changed"), "{error}");
    assert!(bench.shared.destroyed.load(SeqCst));
    // What can be put back is, all the same.
    assert!(bench.contents().iter().all(|byte| *byte == 0xee));
}

fn unread_sector_in_head(directory: &Path) {
    for writes_end_at in [3 * 4096, CHUNK as u64 / 2] {
        let bench = Bench::new(directory, image());
        let error = bench.run(&mut |call| match call.name() {
            Name::Read if bench.is_of_disk(call) && touches_bad(call) => Answer::Fails(IO_ERROR),
            Name::Write if call.arguments[3] + call.arguments[2] > writes_end_at => {
                Answer::Fails(IO_ERROR)
            }
            _ => Answer::Real,
        });
        let error = error.unwrap_err();
        assert!(
            error.contains("at sector 165: nothing else")
                || error.contains("at sector 165; nothing else"),
            "{error}"
        );
        assert!(!bench.shared.destroyed.load(SeqCst));
        let disk = bench.contents();
        let bad = BAD as usize..BAD as usize + 512;
        assert!(disk[..bad.start].iter().chain(&disk[bad.end..]).all(|byte| *byte == 0xee));
    }
    // A write heals it.
    let bench = Bench::new(directory, image());
    let mut is_written = false;
    let result = bench.run(&mut |call| match call.name() {
        Name::Read if bench.is_of_disk(call) && touches_bad(call) && !is_written => {
            Answer::Fails(IO_ERROR)
        }
        Name::Write => {
            is_written = true;
            Answer::Real
        }
        _ => Answer::Real,
    });
    assert!(result.is_ok(), "{result:?}");
}

fn unreadable_head(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut writes = 0;
    let error = bench.run(&mut |call| match call.name() {
        Name::Read if bench.is_of_disk(call) => Answer::Fails(IO_ERROR),
        Name::Write | Name::Zero => {
            writes += 1;
            Answer::Real
        }
        _ => Answer::Real,
    });
    let error = error.unwrap_err();
    assert!(error.contains("cannot be read; nothing was changed"), "{error}");
    assert!(writes == 0 && !bench.shared.destroyed.load(SeqCst));
}

fn head_is_flushed(directory: &Path) {
    let bench = Bench::new(directory, image());
    let error = bench.run(&mut |call| match call.name() {
        Name::Flush => {
            let disk = bench.contents();
            let rest = &disk[CHUNK..];
            assert!(rest.iter().all(|byte| *byte == 0xee), "written before the head was flushed");
            Answer::Fails(IO_ERROR)
        }
        _ => Answer::Real,
    });
    assert!(error.unwrap_err().contains("flushing"));
    assert!(!bench.shared.destroyed.load(SeqCst));
    assert!(bench.contents().iter().all(|byte| *byte == 0xee), "the head was not put back");
}

fn rot(directory: &Path) {
    let image = image();
    let bench = Bench::new(directory, image);
    let (mut flushes, mut bootable) = (0, false);
    let result = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        match (call.name(), flushes) {
            // All but the head is written: a chunk, one of zeros, the short last one.
            (Name::Flush, 2) => [1, 3, 6].into_iter().for_each(|index| bench.spoil(index)),
            // And repaired.
            (Name::Flush, 3) => bootable = bench.boots(),
            // The head is written, its first block last.
            (Name::Flush, 5) => bench.spoil(0),
            _ => {}
        }
        Answer::Real
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    assert_eq!(bench.shared.repaired.load(SeqCst), 4);
    assert!(!bootable, "the head was written before everything else was read back");
}

/// The beginning of the disk, which is written last, in bytes.
const FIRST_BLOCK: usize = 4096;

fn head_in_order(directory: &Path) {
    let image = image();
    // Behind the first block: before that is written, and after it.
    for (spoilt_at, wanted) in [(3, 1), (4, 2)] {
        let bench = Bench::new(directory, image);
        let (mut flushes, mut times, mut in_order) = (0, 0, true);
        let result = bench.run(&mut |call| {
            flushes += u32::from(call.name() == Name::Flush);
            if call.name() == Name::Flush && flushes == spoilt_at {
                bench.disk.write_all_at(b"rotten", 9000).unwrap();
            }
            if call.name() == Name::Write && flushes > 2 && call.arguments[3] == 0 {
                let is_whole = bench.contents()[FIRST_BLOCK..CHUNK] == image[FIRST_BLOCK..CHUNK];
                // Written, or cleared before the rest is repaired.
                in_order &= call.arguments[2] == FIRST_BLOCK as u64 && is_whole != bench.boots();
                times += u32::from(is_whole);
            } else if call.name() == Name::Write && flushes > 2 {
                in_order &= !bench.boots();
            }
            Answer::Real
        });
        assert!(result.is_ok() && in_order && times == wanted, "{result:?} {in_order} {times}");
        assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
    }
}

fn head_in_part(directory: &Path) {
    let fails = |answer: &mut dyn FnMut(&Bench, &Call, u32) -> Answer, boots_before: bool| {
        let bench = Bench::new(directory, image());
        let (mut flushes, mut has_booted) = (0, false);
        let error = bench.run(&mut |call| {
            flushes += u32::from(call.name() == Name::Flush);
            has_booted |= flushes > 2 && bench.boots();
            answer(&bench, call, flushes)
        });
        assert!(
            error.is_err() && has_booted == boots_before,
            "{error:?} {has_booted} {boots_before}"
        );
        assert!(!bench.boots() && !bench.shared.complete.load(SeqCst), "{error:?}: it boots");
    };
    let is_at = |call: &Call, place: u64| {
        let [_, _, length, offset, ..] = call.arguments;
        (offset..offset + length).contains(&place)
    };
    let io_error = |is_time: bool| if is_time { Answer::Fails(IO_ERROR) } else { Answer::Real };
    // A bad sector behind the first block.
    fails(
        &mut |_, call, flushes| {
            io_error(call.name() == Name::Write && flushes > 1 && is_at(call, 9000))
        },
        false,
    );
    // One in the first block, which takes zeros, of which the sectors before it were written.
    let mut writes = 0;
    fails(
        &mut |bench, call, flushes| {
            let is_first = call.name() == Name::Write && flushes > 2 && is_at(call, 0);
            writes += u32::from(is_first);
            if is_first && writes <= 4 {
                bench.disk.write_all_at(&image()[..1024], 0).unwrap();
            }
            io_error(is_first && writes <= 4)
        },
        true,
    );
    // It was written, and cannot be read, or is another every time, or cannot be flushed.
    fails(
        &mut |bench, call, _| {
            let is_read = call.name() == Name::Read && bench.is_of_disk(call);
            io_error(is_read && is_at(call, 0) && bench.contents()[4 * CHUNK] != 0xee)
        },
        true,
    );
    fails(
        &mut |bench, call, _| {
            if call.name() == Name::Flush && bench.boots() && bench.contents()[4 * CHUNK] != 0xee {
                bench.disk.write_all_at(b"rotten", 2000).unwrap();
            }
            Answer::Real
        },
        true,
    );
    fails(
        &mut |bench, call, flushes| {
            io_error(call.name() == Name::Flush && flushes > 3 && bench.boots())
        },
        true,
    );
}

fn half_cleared(directory: &Path) {
    for kept in [true, false] {
        let bench = Bench::new(directory, image());
        let mut writes = 0;
        let error = bench.run(&mut |call| {
            writes += u32::from(call.name() == Name::Write);
            match call.name() {
                // A piece of the zeros is promised only.
                Name::Write if kept && writes == 5 => Answer::Pretends(call.arguments[2] as i64),
                // Or a sector cannot be read once it was written.
                Name::Read if !kept && writes > 0 && touches_bad(call) => Answer::Fails(IO_ERROR),
                _ => Answer::Real,
            }
        });
        let error = error.unwrap_err();
        assert!(error.contains("it does not read back as zeros"), "{error}");
        assert_eq!(error.contains("nothing was changed"), kept, "{error}");
        assert_eq!(bench.shared.destroyed.load(SeqCst), !kept);
        assert!(bench.contents().iter().all(|byte| *byte == 0xee), "it was not put back");
    }
}

fn old_head_of_another(directory: &Path) {
    // The first worker comes to an end where nothing can be put back; the second one can, or cannot.
    for can in [true, false] {
        let bench = Bench::new(directory, image());
        bench.disk.write_all_at(b"the old system", 512).unwrap();
        let before = bench.contents();
        let mut writes = 0;
        let mut run = |fails_from: u32| {
            bench.run(&mut |call| {
                writes += u32::from(call.name() == Name::Write);
                match call.name() {
                    Name::Write if writes >= fails_from => Answer::Fails(IO_ERROR),
                    _ => Answer::Real,
                }
            })
        };
        assert!(!run(5).unwrap_err().contains("nothing was changed"));
        assert!(bench.shared.destroyed.load(SeqCst) && bench.contents() != before);
        if can {
            let error = run(u32::MAX).unwrap_err();
            assert!(error.contains("nothing was changed"), "{error}");
            assert!(!bench.shared.destroyed.load(SeqCst) && bench.contents() == before);
        } else {
            assert!(!run(0).unwrap_err().contains("nothing was changed"));
            assert!(bench.shared.destroyed.load(SeqCst));
        }
        // What is left is the new OS.
        let result = run(u32::MAX);
        assert!(result.is_ok() && bench.contents()[..IMAGE] == *image(), "{result:?}");
        // From the moment that anything else is written the old head is of no use.
        assert!(run(5).is_err() && run(u32::MAX).is_ok());
    }
}

/// The first worker cannot read one sector, and can put nothing back.
fn old_head_with_a_gap(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut writes = 0;
    let mut run = |fails_from: u32, can_read: bool| {
        bench.run(&mut |call| {
            writes += u32::from(call.name() == Name::Write);
            match call.name() {
                Name::Read if !can_read && bench.is_of_disk(call) && touches_bad(call) => {
                    Answer::Fails(IO_ERROR)
                }
                Name::Write if writes >= fails_from => Answer::Fails(IO_ERROR),
                _ => Answer::Real,
            }
        })
    };
    assert!(run(5, false).is_err() && bench.shared.destroyed.load(SeqCst));
    // A write has healed it since.
    let error = run(u32::MAX, true).unwrap_err();
    assert!(error.contains("what of it could not be read before is zeros now"), "{error}");
    assert!(!bench.shared.destroyed.load(SeqCst));
    let disk = bench.contents();
    let bad = BAD as usize..BAD as usize + 512;
    assert!(disk[..bad.start].iter().chain(&disk[bad.end..]).all(|byte| *byte == 0xee));
    assert!(disk[bad].iter().all(|byte| *byte == 0));
}

fn files_before_the_head(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut seen = false;
    let result = bench.run_with(&mut |_| Answer::Real, &mut || {
        // Everything else is on the disk.
        seen = !bench.boots() && bench.contents()[CHUNK..IMAGE] == image()[CHUNK..];
        Ok(())
    });
    assert!(result.is_ok() && seen && bench.shared.complete.load(SeqCst), "{result:?}");

    let bench = Bench::new(directory, image());
    let fail = &mut || Err(Error::failed("placing", "a file", "this is a test"));
    let error = bench.run_with(&mut |_| Answer::Real, fail).unwrap_err();
    assert!(error.contains("this is a test"), "{error}");
    assert!(!bench.boots() && !bench.shared.complete.load(SeqCst), "config.json is missing");
}

fn patched(directory: &Path) {
    // In the head, in a chunk of zeros, over a border, in the short last one.
    let sectors = [3, 4100, 10_239, 10_240, 12_289];
    let bench = Bench::patched(directory, image(), &sectors);
    let mut flushes = 0;
    let result = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        if call.name() == Name::Flush && flushes == 2 {
            [2, 4, 6].into_iter().for_each(|index| bench.spoil(index));
        }
        Answer::Real
    });
    assert!(result.is_ok(), "{result:?}");
    let wanted = sys::map::buffer(IMAGE).unwrap();
    wanted.copy_from_slice(image());
    for sector in sectors {
        wanted[sector as usize * 512..][..512].fill(0xc5);
    }
    assert!(bench.contents()[..IMAGE] == *wanted, "the disk differs from image and patches");
    assert_eq!(bench.shared.repaired.load(SeqCst), 3);
}

fn repaired_zeros(directory: &Path) {
    let bench = Bench::new(directory, image());
    let (mut flushes, mut zeroings) = (0, 0);
    // Opened before: the heap is sealed for this thread too.
    let packed = File::options().write(true).open(directory.join("image.gz")).unwrap();
    let result = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        zeroings += u32::from(call.name() == Name::Zero);
        if call.name() == Name::Flush && flushes == 2 {
            bench.spoil(3);
            // Whoever decodes it now fails.
            packed.set_len(100).unwrap();
        }
        Answer::Real
    });
    assert!(result.is_ok(), "{result:?}");
    assert!(bench.contents()[..IMAGE] == *image(), "the disk differs from the image");
    assert_eq!((bench.shared.repaired.load(SeqCst), zeroings), (1, 1));
    // The next worker does not ask either.
    let again = Bench { shared: bench.shared, ..Bench::new(directory, image()) };
    let result = again.run(&mut |call| {
        zeroings += u32::from(call.name() == Name::Zero);
        Answer::Real
    });
    assert!(result.is_ok() && zeroings == 1, "{result:?}");
    assert!(again.contents()[..IMAGE] == *image(), "the disk differs from the image");
}

/// The image ends where the last sectors of a backup GPT begin: those are cleared, and nothing of the image.
fn long_image(directory: &Path) {
    let length = DISK - 4 * 512;
    let image = sys::map::buffer(length).unwrap();
    image[..IMAGE].copy_from_slice(self::image());
    image[IMAGE..].fill(0x77);
    let bench = Bench::new(directory, image);
    bench.disk.write_all_at(b"EFI PART", DISK as u64 - 512).unwrap();
    let result = bench.run(&mut |_| Answer::Real);
    assert!(result.is_ok(), "{result:?}");
    let disk = bench.contents();
    assert!(disk[..length] == *image, "the disk differs from the image");
    assert!(disk[length..].iter().all(|byte| *byte == 0), "the backup GPT is still there");
    assert_eq!(bench.shared.repaired.load(SeqCst), 0, "the end of the image was overwritten");
}

/// What cannot be read is not what was written: here the disk ends in the middle until it is written again.
fn unreadable_medium(directory: &Path) {
    let image = image();
    let bench = Bench::new(directory, image);
    let mut flushes = 0;
    let result = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        if call.name() == Name::Flush && flushes == 2 {
            bench.disk.set_len(5 * CHUNK as u64).unwrap();
        }
        Answer::Real
    });
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(bench.shared.repaired.load(SeqCst), 2);
    bench.disk.set_len(DISK as u64).unwrap();
    assert!(bench.contents()[..IMAGE] == *image, "the disk differs from the image");
}

fn bad_medium(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut flushes = 0;
    let error = bench.run(&mut |call| {
        flushes += u32::from(call.name() == Name::Flush);
        if call.name() == Name::Flush && flushes > 1 {
            bench.spoil(5);
        }
        end_unless(flushes < 20, "a bad chunk is repaired for ever");
        Answer::Real
    });
    assert!(error.unwrap_err().contains("still wrong after three repairs"));
    assert!(!bench.boots(), "the disk boots, and is not what it should be");
}

fn bad_sector(directory: &Path) {
    let bench = Bench::new(directory, image());
    let mut failed = 0;
    let error = bench.run(&mut |call| {
        if call.name() != Name::Write || call.arguments[3] < 5 * CHUNK as u64 {
            return Answer::Real;
        }
        failed += 1;
        end_unless(failed < 20, "a bad sector is written for ever");
        Answer::Fails(IO_ERROR)
    });
    let error = error.unwrap_err();
    assert!(error.contains("writing sector 10240: input/output error"), "{error}");
    assert!(!bench.boots(), "the disk boots, and is not what it should be");
}

/// Ends this program when it would go on for ever otherwise; not by a panic, which would wait for the flash.
fn end_unless(condition: bool, why: &str) {
    if !condition {
        eprintln!("{why}");
        std::process::exit(1);
    }
}

fn sealed_heap_refuses(_: &Path) {
    let before = memory::heap_refused();
    memory::seal();
    let refused = Vec::<u8>::new().try_reserve(1).is_err();
    memory::unseal();
    assert!(refused);
    assert_eq!(memory::heap_refused(), before + 1);
    assert!(Vec::<u8>::new().try_reserve(1).is_ok());
}

fn heap_has_a_cap(_: &Path) {
    assert!(Vec::<u8>::new().try_reserve(memory::HEAP_CAP + 1).is_err());
    assert!(Vec::<u8>::new().try_reserve(memory::HEAP_CAP / 2).is_ok());
    assert!(memory::heap_high_water() < memory::HEAP_CAP);
}

/// A panic for which there is no heap.
fn panic_as_asked(kind: &str) -> ! {
    // A little is left: std begins with its backtrace.
    let mut left = Vec::<u8>::with_capacity(16 * 1024);
    let mut size = memory::HEAP_CAP;
    while kind == "full" && size > 0 {
        let mut taken = Vec::<u8>::new();
        match taken.try_reserve_exact(size) {
            Ok(()) => std::mem::forget(taken),
            Err(_) => size /= 2,
        }
    }
    left.shrink_to(0);
    if kind != "full" {
        memory::seal();
    }
    match kind {
        "formatted" => panic!("with {kind}"),
        _ => panic!("with a fixed message"),
    }
}

fn panic_without_heap(_: &Path) {
    for (kind, said) in [
        ("full", "panicked at tests/sealed.rs:"),
        ("fixed", "panicked at tests/sealed.rs:"),
        ("formatted", "memory allocation of "),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(kind)
            .env("RUST_BACKTRACE", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > Duration::from_secs(10) {
                child.kill().unwrap();
                child.wait().unwrap();
                // Not a panic: this one would not end either.
                eprintln!("{kind}: the panic does not end");
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        child.stderr.unwrap().read_to_string(&mut text).unwrap();
        // By a signal in the program; tests unwind.
        assert!(!status.success(), "{kind}: {text}");
        assert!(text.contains(said), "{kind}: {text}");
    }
}

/// Seven chunks: two of zeros, the last one short and no multiple of 4 KiB.
fn image() -> &'static mut [u8] {
    let image = sys::map::buffer(IMAGE).unwrap();
    for (position, byte) in image.iter_mut().enumerate() {
        *byte = (position / 7 + position / 4096) as u8;
    }
    image[2 * CHUNK..4 * CHUNK].fill(0);
    image
}

/// A gzip member of stored blocks: no packer is needed, and any inflater reads it.
fn pack(path: &Path, image: &[u8]) {
    let file = File::create(path).unwrap();
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        file.write_all_at(bytes, at).unwrap();
        at += bytes.len() as u64;
    };
    put(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    let blocks = image.chunks(65_535).count();
    for (index, block) in image.chunks(65_535).enumerate() {
        put(&[u8::from(index + 1 == blocks)]);
        put(&(block.len() as u16).to_le_bytes());
        put(&(!(block.len() as u16)).to_le_bytes());
        put(block);
    }
    put(&crc32::crc32(image).to_le_bytes());
    put(&(image.len() as u32).to_le_bytes());
}

/// Flashes the image to a file full of 0xee that `prepare` has changed, and gives what is in it then.
fn flash(directory: &Path, image: &[u8], prepare: &dyn Fn(&File)) -> &'static [u8] {
    let bench = Bench::new(directory, image);
    prepare(&bench.disk);
    let result = bench.run(&mut |_| Answer::Real);
    assert!(result.is_ok(), "{result:?}");
    bench.contents()
}

/// An image, scanned, and a file full of 0xee for a disk.
struct Bench {
    source: FileSource,
    map: ChunkMap,
    patches: (OwnedFd, u32),
    plan: Plan,
    disk: File,
    shared: &'static Shared,
    buffers: Mutex<Buffers>,
    /// The descriptor that the disk is written and read by.
    descriptor: AtomicIsize,
}

impl Bench {
    fn new(directory: &Path, image: &[u8]) -> Self {
        Self::patched(directory, image, &[])
    }

    /// The same with patches over these sectors, of bytes 0xc5.
    fn patched(directory: &Path, image: &[u8], sectors: &[u64]) -> Self {
        let packed = directory.join("image.gz");
        pack(&packed, image);
        let path = directory.join("disk");
        let bytes = sys::map::buffer(DISK).unwrap();
        bytes.fill(0xee);
        std::fs::write(&path, &*bytes).unwrap();
        let disk = File::options().read(true).write(true).open(&path).unwrap();
        let source = FileSource::open(packed.to_str().unwrap()).unwrap();
        let stream = format::detect(&source, "image.gz").unwrap();
        let map = ChunkMap::create().unwrap();
        let buffer = sys::map::buffer(BUFFER).unwrap();
        let mut patches = Patches::create().unwrap();
        for sector in sectors {
            patches.push(*sector, &[0xc5; 512]).unwrap();
        }
        let kept = patches.descriptor().unwrap().try_clone().unwrap();
        let mut decoder = Decoder::new(&source, stream);
        let patches_crc = patches.crc().unwrap();
        decoder.patch(patches);
        let found = scan::scan(&mut decoder, buffer, &map).unwrap();
        let mut plan = plan(stream, &found);
        (plan.image.patches, plan.image.patches_crc) = (sectors.len() as u32, patches_crc);
        let patches = (kept, sectors.len() as u32);
        let (shared, descriptor) = (sys::map::shared().unwrap(), AtomicIsize::new(-1));
        let buffers = Mutex::new(Buffers::map(sys::map::buffer(BUFFER).unwrap()).unwrap());
        Self { source, map, patches, plan, disk, shared, buffers, descriptor }
    }

    /// Flashes while the heap is sealed; `answer` plays the disk. Gives the error in words.
    fn run(&self, answer: &mut dyn FnMut(&Call) -> Answer) -> Result<(), String> {
        self.run_with(answer, &mut || Ok(()))
    }

    /// The same, with files that are placed.
    fn run_with(
        &self,
        answer: &mut dyn FnMut(&Call) -> Answer,
        place: &mut (dyn FnMut() -> Result<(), Error> + Send),
    ) -> Result<(), String> {
        let size = self.plan.target.size;
        let disk: OwnedFd = self.disk.try_clone().unwrap().into();
        self.descriptor.store(disk.as_raw_fd() as isize, SeqCst);
        let target = Target::new(disk, size, self.plan.target.logical_block);
        let buffers = &mut *self.buffers.lock().unwrap();
        let stream = self.plan.image.stream;
        let (file, count) = &self.patches;
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        let patches = Patches::open(&path, *count).unwrap();
        let work = || {
            let staged = Staged { source: &self.source, stream, patches, map: &self.map };
            // As main does before any of this: a refused allocation aborts, and this test with it.
            memory::seal();
            let restored = if only_head_is_gone(self.shared) {
                restore_head(&target, &self.plan, buffers, self.shared)
            } else {
                Ok(())
            };
            let result = restored.and_then(|()| {
                write_to(&target, &self.plan, staged, buffers, self.shared, &mut |_| place())
            });
            memory::unseal();
            result
        };
        let before = memory::heap_refused();
        let result = watched(work, answer);
        assert_eq!(memory::heap_refused(), before, "something was allocated while sealed");
        result.map_err(|error| (takeover::text!("{}", error) as Text<300>).to_string())
    }

    /// True when a call is about the disk, not about the image.
    fn is_of_disk(&self, call: &Call) -> bool {
        call.arguments[0] as isize == self.descriptor.load(SeqCst)
    }

    /// Changes a byte of a chunk on the disk.
    fn spoil(&self, index: u64) {
        let place = index * CHUNK as u64 + 1234;
        let mut byte = [0];
        self.disk.read_exact_at(&mut byte, place).unwrap();
        self.disk.write_all_at(&[byte[0] ^ 4], place).unwrap();
    }

    /// True when the first sector is not zeros.
    fn boots(&self) -> bool {
        let mut sector = [0; 512];
        self.disk.read_exact_at(&mut sector, 0).unwrap();
        sector != [0; 512]
    }

    /// What is on the disk.
    fn contents(&self) -> &'static [u8] {
        let bytes = sys::map::buffer(DISK).unwrap();
        self.disk.read_exact_at(bytes, 0).unwrap();
        bytes
    }
}

/// What a system call of the flashing threads does to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    Read,
    Write,
    /// A hole is punched.
    Zero,
    Discard,
    /// The kernel is asked to write zeros.
    WriteZeros,
    Flush,
    Other,
}

/// A system call of the flashing threads, before it is carried out: struct seccomp_notif of <linux/seccomp.h>.
#[repr(C)]
#[derive(Default)]
struct Call {
    identity: u64,
    process: u32,
    flags: u32,
    number: i32,
    architecture: u32,
    instruction: u64,
    arguments: [u64; 6],
}

impl Call {
    fn name(&self) -> Name {
        match self.number as u32 {
            general::__NR_pread64 => Name::Read,
            general::__NR_pwrite64 => Name::Write,
            general::__NR_fallocate if self.arguments[1] == PUNCH => Name::Zero,
            general::__NR_ioctl if self.arguments[1] == BLKDISCARD => Name::Discard,
            general::__NR_ioctl if self.arguments[1] == BLKZEROOUT => Name::WriteZeros,
            general::__NR_fdatasync => Name::Flush,
            _ => Name::Other,
        }
    }
}

/// What becomes of a system call.
enum Answer {
    /// It is carried out.
    Real,
    /// It is not, and gives this all the same.
    Pretends(i64),
    /// It is not, and fails with this errno.
    Fails(i32),
}

unsafe extern "C" {
    fn syscall(number: isize, ...) -> isize;
}

/// Runs `work` in a thread whose reads, writes, flushes and ioctls, and those of its threads, are asked about first:
/// seccomp(2), SECCOMP_RET_USER_NOTIF; seccomp_unotify(2).
fn watched<R: Send>(work: impl FnOnce() -> R + Send, answer: &mut dyn FnMut(&Call) -> Answer) -> R {
    let listener = AtomicIsize::new(-1);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            listener.store(listen(), SeqCst);
            work()
        });
        // Closed with the end of this closure: then nobody waits for an answer any more.
        let mut owner = None;
        while !worker.is_finished() {
            let (listener, mut call) = (listener.load(SeqCst), Call::default());
            if listener < 0 {
                continue;
            }
            // SAFETY: the descriptor was made for this.
            owner.get_or_insert_with(|| unsafe { OwnedFd::from_raw_fd(listener as i32) });
            if !is_asked(listener) {
                continue;
            }
            // _IOWR('!', 0, struct seccomp_notif)
            // SAFETY: the request writes a Call, which has the layout of the kernel's structure.
            let received = unsafe {
                syscall(general::__NR_ioctl as isize, listener, 0xc050_2100usize, &raw mut call)
            };
            if received != 0 {
                continue;
            }
            let (value, error, flags) = match answer(&call) {
                Answer::Real => (0, 0, 1u32),
                Answer::Pretends(value) => (value, 0, 0),
                Answer::Fails(errno) => (0, -errno, 0),
            };
            #[repr(C)]
            struct Reply(u64, i64, i32, u32);
            let reply = Reply(call.identity, value, error, flags);
            // _IOWR('!', 1, struct seccomp_notif_resp)
            // SAFETY: the request reads a Reply, which has the layout of the kernel's structure.
            unsafe {
                syscall(general::__NR_ioctl as isize, listener, 0xc018_2101usize, &raw const reply);
            }
        }
        worker.join().unwrap()
    })
}

/// Puts this thread under supervision, and gives the descriptor of who supervises.
fn listen() -> isize {
    /// struct sock_filter of <linux/filter.h>.
    #[repr(C)]
    struct Step(u16, u8, u8, u32);
    let is = |number: u32, to_the_end| Step(0x15, to_the_end, 0, number);
    let filter = [
        Step(0x20, 0, 0, 0),
        is(general::__NR_pread64, 5),
        is(general::__NR_pwrite64, 4),
        is(general::__NR_fallocate, 3),
        is(general::__NR_ioctl, 2),
        is(general::__NR_fdatasync, 1),
        Step(0x06, 0, 0, 0x7fff_0000),
        Step(0x06, 0, 0, 0x7fc0_0000),
    ];
    #[repr(C)]
    struct Program(u16, *const Step);
    let program = Program(filter.len() as u16, filter.as_ptr());
    // PR_SET_NO_NEW_PRIVS; SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_NEW_LISTENER.
    // SAFETY: the program lives until the call returns; the kernel checks it.
    unsafe {
        assert_eq!(
            syscall(general::__NR_prctl as isize, 38usize, 1usize, 0usize, 0usize, 0usize),
            0
        );
        let listener = syscall(general::__NR_seccomp as isize, 1usize, 8usize, &raw const program);
        assert!(listener >= 0, "this kernel, or a container, has no seccomp listeners");
        listener
    }
}

/// True when a system call waits for its answer; waits 20 ms for one.
fn is_asked(listener: isize) -> bool {
    let mut entry = [listener as u32, 1];
    let time = [0isize, 20_000_000];
    // SAFETY: one struct pollfd (a descriptor; POLLIN, and no result yet) and one timespec.
    let count = unsafe {
        let (entry, time) = (&raw mut entry, &raw const time);
        syscall(general::__NR_ppoll as isize, entry, 1usize, time, 0usize, 0usize)
    };
    count == 1 && entry[1] >> 16 & 1 != 0
}

fn plan(stream: format::Stream, found: &scan::Scan) -> Plan {
    let image = ImagePlan {
        stream,
        length: found.length,
        chunks: found.chunks,
        zero_chunks: found.zero_chunks,
        map_crc: found.map_crc,
        packed_crc: found.packed_crc,
        patches: 0,
        patches_crc: 0,
    };
    let target = DiskPlan {
        name: heapless::String::new(),
        number: Number { major: 0, minor: 0 },
        size: DISK as u64,
        logical_block: 512,
        identity: heapless::String::new(),
    };
    Plan { on_failure: OnFailure::Halt, ..Plan::of(image, target) }
}
