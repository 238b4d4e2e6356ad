//! How long the device will be on its own: from the hand-over until the new OS starts.
//!
//! An estimate, from what the scan and a short reading of the disk took. Writing is not tried, since nothing may be
//! changed yet; cards and eMMCs write at about half the rate that they read at.

use super::stage::Decided;
use crate::disk::device::Disk;
use crate::files;
use crate::image::CHUNK;
use crate::log::Stopwatch;
use crate::new_os::examination::Examined;
use rustix::fs::OFlags;

/// What is read of the disk at most, in bytes.
const SAMPLE: u64 = 64 << 20;
/// How long that may take, in milliseconds.
const PATIENCE: u64 = 1000;
/// Ending processes, unmounting, placing files and the restart itself, in seconds.
const REST: u64 = 30;

/// The rate that a disk is read at, in bytes per second; none when it cannot be told.
fn read_rate(disk: &Disk, buffer: &mut [u8]) -> Option<u64> {
    let path = files::below("/dev", &disk.name).ok()?;
    let file = files::open(&path, OFlags::RDONLY | OFlags::DIRECT).ok()?;
    let buffer = buffer.get_mut(..CHUNK)?;
    let watch = Stopwatch::start();
    let mut done = 0;
    while done < SAMPLE.min(disk.size) && watch.elapsed() < PATIENCE {
        match rustix::io::pread(&file, &mut *buffer, done).ok()? {
            0 => break,
            count => done += count as u64,
        }
    }
    Some(done * 1000 / watch.elapsed().max(1)).filter(|rate| *rate > 0)
}

/// The expected time in seconds, and how many of them it takes to read the image from the disk that it waits on, first
/// for the proof that it is there and then while flashing. `buffer` is [`crate::image::decode::BUFFER`] long.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn seconds_alone(
    disk: &Disk,
    image: &Examined,
    stage: &Decided,
    buffer: &mut [u8],
) -> (u64, u64) {
    let written = u64::from(image.scan.chunks - image.scan.zero_chunks) * CHUNK as u64;
    let (rate, source_rate) = rates(disk, stage.disk(), &mut |disk| read_rate(disk, buffer));
    let reading = stage.read(image.stream.length) * 2 / source_rate.max(1);
    (expected(image.scan_time, written, image.scan.length, rate) + reading, reading)
}

/// The rates that the target and the disk that the image waits on are read at; each disk is tried once.
fn rates(
    target: &Disk,
    source: Option<&Disk>,
    read: &mut dyn FnMut(&Disk) -> Option<u64>,
) -> (u64, u64) {
    let rate = read(target).unwrap_or(20 << 20);
    let source = source.filter(|source| source.number != target.number);
    (rate, source.and_then(read).unwrap_or(rate))
}

/// From the scan's time in milliseconds, the bytes to write and to read back, and the rate of reading.
fn expected(scan_time: u64, written: u64, length: u64, rate: u64) -> u64 {
    // Decoding and writing overlap: the slower one counts.
    let flash = (scan_time / 1000).max(written / (rate / 2).max(1));
    REST + flash + length / rate.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_read_at_the_rate_of_the_disk_that_it_is_on() {
        let disk = |minor| Disk {
            name: crate::text::Text::from("sda"),
            number: crate::disk::device::Number { major: 8, minor },
            size: 0,
            logical_block: 512,
            read_only: false,
        };
        let found = |source: Option<u32>| {
            let mut tried = Vec::new();
            let rates = rates(&disk(0), source.map(disk).as_ref(), &mut |disk| {
                tried.push(disk.number.minor);
                [Some(100), Some(7), None].get(disk.number.minor as usize).copied().flatten()
            });
            (rates, tried)
        };
        assert_eq!(found(None), ((100, 100), vec![0]));
        assert_eq!(found(Some(0)), ((100, 100), vec![0]));
        assert_eq!(found(Some(1)), ((100, 7), vec![0, 1]));
        assert_eq!(found(Some(2)), ((100, 100), vec![0, 2]));
    }

    #[test]
    fn the_slower_of_decoding_and_writing_counts() {
        assert_eq!(expected(40_000, 100 << 20, 1 << 30, 100 << 20), REST + 40 + 10);
        assert_eq!(expected(1_000, 500 << 20, 1 << 30, 20 << 20), REST + 50 + 51);
        assert_eq!(expected(0, 0, 0, 0), REST);
    }
}
