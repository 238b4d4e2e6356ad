//! What a plan keeps: the sectors that it looks at and changes, and where contents lie.
//!
//! All numbers are those of sectors of 512 bytes, counted from the disk's start.

use super::super::Fat;
use super::refusal::{damaged, refuse};
use crate::disk::reader::ReadAt;
use crate::error::Error;
use crate::text::Text;

/// What a sector is here, in bytes, whatever the volume takes for one.
pub const SECTOR: usize = super::super::SECTOR as usize;
/// The most sectors of directories that are looked at, and of tables that change. Of a thousand random volumes with up
/// to 57 files none needed more than 80, and those like the boot partitions of balenaOS 25.
const SECTORS: usize = 128;
/// The most pieces that contents may lie in. The same volumes: 79, and 66.
const RUNS: usize = 256;
/// The most clusters of all directories that files are wanted in: those of 512 bytes have 16 entries each.
pub const DIRECTORY_CLUSTERS: usize = 512;

/// What a sector of the disk becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// These bytes.
    Bytes(&'a [u8; SECTOR]),
    /// Nothing but zeros.
    Zeros,
    /// A piece of a wanted file, and zeros where the file ends before.
    File {
        /// Which of the wanted files.
        index: u8,
        /// Where in it the piece begins, in bytes.
        offset: u32,
    },
}

struct Sector {
    /// 0 for none: the first sector of a disk or a volume is no table and no directory.
    number: u32,
    is_changed: bool,
    bytes: [u8; SECTOR],
}

impl Sector {
    const NONE: Self = Self { number: 0, is_changed: false, bytes: [0; SECTOR] };
}

/// What lies in a run of sectors.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Zeros: a cluster that a directory got.
    Zeros,
    /// A wanted file, from this offset of it on.
    File { index: u8, offset: u32 },
}

struct Run {
    first: u32,
    count: u32,
    source: Source,
}

impl Run {
    /// One past the last sector. None lies behind 2^32.
    fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// The sectors of a volume as they will be.
pub struct Changes {
    sectors: heapless::Vec<Sector, SECTORS>,
    /// Contents; changed sectors lie over them.
    runs: heapless::Vec<Run, RUNS>,
    /// The clusters of directories that files are wanted in.
    directories: heapless::Vec<u32, DIRECTORY_CLUSTERS>,
    /// The sector that was only passed by last. It is none of `sectors`.
    passed: Sector,
}

impl Changes {
    /// None.
    pub const fn new() -> Self {
        Self {
            sectors: heapless::Vec::new(),
            runs: heapless::Vec::new(),
            directories: heapless::Vec::new(),
            passed: Sector::NONE,
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.sectors.clear();
        self.runs.clear();
        self.directories.clear();
        self.passed.number = 0;
    }

    /// The bytes of a sector, for one look.
    pub fn look(&mut self, disk: &mut dyn ReadAt, number: u32) -> Result<&[u8; SECTOR], Error> {
        if self.passed.number != number {
            if let Some(place) = self.sectors.iter().position(|sector| sector.number == number) {
                return Ok(&self.sectors[place].bytes);
            }
            // While it is read it is none.
            self.passed.number = 0;
            disk.read_exact_at(u64::from(number) * SECTOR as u64, &mut self.passed.bytes)?;
            self.passed.number = number;
        }
        Ok(&self.passed.bytes)
    }

    /// The same, of one that will be looked at again or changed: it is read once.
    pub fn keep(&mut self, disk: &mut dyn ReadAt, number: u32) -> Result<&[u8; SECTOR], Error> {
        let place = self.place(disk, number)?;
        Ok(&self.sectors[place].bytes)
    }

    /// The same, to change.
    pub fn change(
        &mut self,
        disk: &mut dyn ReadAt,
        number: u32,
    ) -> Result<&mut [u8; SECTOR], Error> {
        let place = self.place(disk, number)?;
        let sector = &mut self.sectors[place];
        sector.is_changed = true;
        Ok(&mut sector.bytes)
    }

    /// Where a sector is kept, from now on if it was not before.
    fn place(&mut self, disk: &mut dyn ReadAt, number: u32) -> Result<usize, Error> {
        if let Some(place) = self.sectors.iter().position(|sector| sector.number == number) {
            return Ok(place);
        }
        let mut sector = Sector { number, ..Sector::NONE };
        if !self.is_zeroed(number) {
            sector.bytes = *self.look(disk, number)?;
        }
        if self.passed.number == number {
            self.passed.number = 0;
        }
        self.sectors.push(sector).map_err(|_| {
            let why: Text<120> =
                crate::text!("its directories and tables would change in over {} sectors", SECTORS);
            refuse(&why).advice("give fewer files, or shorter names")
        })?;
        Ok(self.sectors.len() - 1)
    }

    /// True for a sector of a cluster that a directory got.
    fn is_zeroed(&self, number: u32) -> bool {
        self.run_of(number).is_some_and(|run| run.source == Source::Zeros)
    }

    /// Notes a cluster as a directory's. An error for one that is one already: a chain that loops, or meets another's.
    pub fn add_to_directory(&mut self, cluster: u32) -> Result<(), Error> {
        if self.is_of_directory(cluster) {
            return Err(damaged("the chain of a directory loops or meets another one's"));
        }
        self.directories.push(cluster).map_err(|_| {
            let why: Text<120> =
                crate::text!("its directories take more than {} clusters", DIRECTORY_CLUSTERS);
            refuse(&why).advice("take an image with fewer files in these directories")
        })
    }

    /// True for a cluster of a directory that files are wanted in.
    pub fn is_of_directory(&self, cluster: u32) -> bool {
        self.directories.contains(&cluster)
    }

    /// True for a sector that something was laid over.
    pub fn is_taken(&self, number: u32) -> bool {
        self.run_of(number).is_some()
    }

    fn run_of(&self, number: u32) -> Option<&Run> {
        self.runs.iter().find(|run| (run.first..run.end()).contains(&number))
    }

    /// Lays something over sectors: a run of its own, or the last one's going on.
    pub fn lay(&mut self, first: u32, count: u32, source: Source) -> Result<(), Error> {
        if let Some(last) = self.runs.last_mut() {
            let goes_on = match (last.source, source) {
                (Source::File { index, offset }, Source::File { index: next, offset: at }) => {
                    index == next && u64::from(offset) + bytes(last.count) == u64::from(at)
                }
                _ => false,
            };
            if goes_on && last.end() == first {
                last.count += count;
                return Ok(());
            }
        }
        self.runs.push(Run { first, count, source }).map_err(|_| {
            let why: Text<120> = crate::text!("the files would lie in over {} pieces on it", RUNS);
            refuse(&why).advice("give fewer or shorter files")
        })
    }

    /// Calls `visit` with each sector that changes, in ascending order, and with what it becomes.
    pub fn for_each(
        &self,
        fat: &Fat,
        visit: &mut dyn FnMut(u32, Content<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut from = 0;
        while let Some((number, content)) = self.first_from(fat, from) {
            visit(number, content)?;
            from = number + 1;
        }
        Ok(())
    }

    /// The first sector that changes, of those from a number on. A search instead of a sorted list: sectors of the
    /// tables stand here once and change in every table, and directories lie over runs.
    fn first_from(&self, fat: &Fat, from: u32) -> Option<(u32, Content<'_>)> {
        let mut first: Option<(u32, Content<'_>)> = None;
        let mut offer = |number: u32, content| {
            if number >= from && first.is_none_or(|(least, _)| number < least) {
                first = Some((number, content));
            }
        };
        let table = fat.table / SECTOR as u64;
        let length = fat.table_length / SECTOR as u64;
        for sector in self.sectors.iter().filter(|sector| sector.is_changed) {
            let number = u64::from(sector.number);
            let copies = if (table..table + length).contains(&number) { fat.tables } else { 1 };
            for copy in 0..copies {
                offer((number + copy * length) as u32, Content::Bytes(&sector.bytes));
            }
        }
        for run in &self.runs {
            let number = run.first.max(from);
            if number < run.end() {
                let skipped = bytes(number - run.first) as u32;
                let content = match run.source {
                    Source::Zeros => Content::Zeros,
                    Source::File { index, offset } => {
                        Content::File { index, offset: offset + skipped }
                    }
                };
                offer(number, content);
            }
        }
        first
    }
}

/// The bytes of that many sectors.
fn bytes(sectors: u32) -> u64 {
    u64::from(sectors) * SECTOR as u64
}
