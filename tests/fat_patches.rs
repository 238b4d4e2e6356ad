//! Plans files onto FAT volumes, for `tests/test_fat.py`: many volumes in one process, with every check of a debug
//! build.
//!
//! Takes lines of fields with tabs between them: image, where the volume begins in it in bytes, the file that the plan
//! goes to, date and time, then path and length of each file. Answers each with a line: `refused WHY`, or `planned` and
//! how often it was read at a place before the last one, tables aside.
//!
//! The plan: for each sector its number (u32, little-endian), a byte that says what it is, and 512 bytes for 0, nothing
//! for 1 (zeros), or for 2 the index (u8) of the file and the offset (u32) in it.

use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use takeover::disk::fat::patch::{self, Content, Memory, Wanted};
use takeover::disk::fat::{self, Fat};
use takeover::disk::reader::ReadAt;
use takeover::error::Error;
use takeover::text::Text;

/// More than any volume of the tests needs: a plan that does not end is found, not waited for.
const MOST_READS: usize = 1_000_000;

struct Disk {
    file: File,
    /// Where the first table ends: until there a caller has all in memory.
    table_end: u64,
    last: u64,
    back: usize,
    reads: usize,
}

impl ReadAt for Disk {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.reads += 1;
        assert!(self.reads < MOST_READS, "it reads for ever");
        if offset >= self.table_end {
            self.back += usize::from(offset < self.last);
            self.last = offset;
        }
        let read = self.file.read_exact_at(buffer, offset);
        read.map_err(|_| Error::refused("reading", "the image", "too short"))
    }
}

static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());

fn plan(fields: &[&str]) -> Result<usize, Error> {
    let [image, start, out, stamp, files @ ..] = fields else { panic!("too few fields") };
    let (start, stamp) = (start.parse().unwrap(), stamp.parse().unwrap());
    let file = File::open(image).unwrap();
    let mut disk = Disk { file, table_end: u64::MAX, last: 0, back: 0, reads: 0 };
    let Some(fat) = fat::open(&mut disk, start)? else {
        return Err(Error::refused("opening", "the image", "no FAT"));
    };
    disk.table_end = table_end(&disk, start);
    let wanted: Vec<_> = files
        .chunks(2)
        .map(|pair| Wanted { path: pair[0], length: pair[1].parse().unwrap() })
        .collect();
    let memory = &mut *MEMORY.lock().unwrap();
    patch::plan(&mut disk, &fat, &wanted, stamp, memory)?;
    write(&fat, start, memory, &File::create(out).unwrap())?;
    Ok(disk.back)
}

/// Where the first table ends, by the boot sector.
fn table_end(disk: &Disk, start: u64) -> u64 {
    let mut boot = [0; 512];
    disk.file.read_exact_at(&mut boot, start).unwrap();
    let number = |at: usize, length: usize| {
        boot[at..at + length].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let table = if number(22, 2) == 0 { number(36, 4) } else { number(22, 2) };
    start + (number(14, 2) + table) * number(11, 2)
}

fn write(fat: &Fat, start: u64, memory: &Memory, out: &File) -> Result<(), Error> {
    let mut out = BufWriter::new(out);
    let mut last = None;
    patch::for_each(fat, memory, &mut |number, content| {
        assert!(last.is_none_or(|last| last < number), "out of order");
        last = Some(number);
        let end = (u64::from(number) + 1) * 512;
        assert!(end > start + 512 && end <= start + fat.length(), "outside");
        out.write_all(&number.to_le_bytes()).unwrap();
        match content {
            Content::Bytes(bytes) => {
                out.write_all(&[0]).unwrap();
                out.write_all(bytes).unwrap();
            }
            Content::Zeros => out.write_all(&[1]).unwrap(),
            Content::File { index, offset } => {
                out.write_all(&[2, index]).unwrap();
                out.write_all(&offset.to_le_bytes()).unwrap();
            }
        }
        Ok(())
    })?;
    out.flush().unwrap();
    Ok(())
}

fn main() {
    // The hook of std would look for a backtrace: that takes more heap than the program's cap.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let fields: Vec<_> = line.split('\t').collect();
        match plan(&fields) {
            Ok(back) => println!("planned {back}"),
            Err(error) => {
                let text: Text<600> = takeover::text!("{}", error);
                println!("refused {}", &*text);
            }
        }
    }
}
