//! What stage 1 decided, in the form that stage 2 reads: a JSON file in the RAMFS.
//!
//! Holds values, never pointers, and no path of the old root except those that are only logged: when stage 2 reads
//! this, the old root is gone.
//!
//! The JSON is one list: the numbers in the order of [`Plan::numbers`], then the texts. Objects with names, options and
//! enumerations cost 10 KB of code to write and to read, and nobody reads this but the same program.

use crate::disk::device::{Disk, Number};
use crate::error::{Doing, Error};
use crate::files;
use crate::image::format::{Format, Stream};
use crate::log::Level;
use core::fmt;
use heapless::string::StringView;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

/// The names of the files in the RAMFS. In stage 1 they are below its mount point, in stage 2 below `/`.
pub mod names {
    /// This program.
    pub const PROGRAM: &str = "takeover";
    /// The plan, until PID 1 claims it.
    pub const PLAN: &str = "plan.json";
    /// The plan that PID 1 has claimed: the proof that the hand-over happened.
    pub const CLAIMED: &str = "plan.claimed";
    /// The plan that stage 1 took back.
    pub const REVOKED: &str = "plan.revoked";
    /// The image as it came, packed or not; not there when it waits on a disk.
    pub const IMAGE: &str = "image";
    /// The list of the pieces that the image waits in on a disk: see [`crate::image::pieces`].
    pub const PIECES: &str = "pieces";
    /// The chunk map.
    pub const MAP: &str = "map";
    /// The patches of the image.
    pub const PATCHES: &str = "patches";
    /// What is changed of the firmware's boot entries: see [`crate::efi::change`].
    pub const BOOT_ENTRY: &str = "boot-entry";
    /// Where the variables of the firmware are mounted.
    pub const VARIABLES: &str = "variables";
    /// What is written to the device of the loaders: see [`crate::boot_blob`].
    pub const BOOT_BLOB: &str = "boot-blob";
    /// What a server is told about the end: see [`crate::notice`].
    pub const NOTICE: &str = "notice";
    /// The log, from the first line of stage 1 on.
    pub const LOG: &str = "log";
    /// What the names of watchdogs in /dev begin with.
    pub const WATCHDOG: &str = "watchdog";
    /// Device nodes.
    pub const DEV: &str = "dev";
    /// Where the old root goes.
    pub const OLD: &str = "old";
    /// Where a new file system is mounted.
    pub const MOUNT: &str = "mnt";
    /// The files for the new OS.
    pub const FILES: &str = "files";
}

/// How long a worker of stage 2 may show no progress, in seconds. A slow card that is flushed takes minutes.
pub const STALL: u32 = 300;

/// The most files that are placed on the new disk.
pub const MAX_NEW_FILES: usize = 64;
/// The most bytes that a plan takes as JSON.
const MAX_JSON: usize = 24 * 1024;

/// What to do when the flash has failed and all retries are spent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// Try again for ever, with pauses.
    Retry,
    /// Stop, with the reason on the console.
    Halt,
    /// Restart, come what may.
    Reboot,
}

/// The image, as the scan found it.
#[derive(Clone, Copy, Debug)]
pub struct ImagePlan {
    /// Where the image's bytes are in the staged file, and how they are packed.
    pub stream: Stream,
    /// Its length on the disk, in bytes.
    pub length: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are all zeros.
    pub zero_chunks: u32,
    /// The CRC-32 of the chunk map, which has the CRC-32 of each chunk with its patches.
    pub map_crc: u32,
    /// The CRC-32 of the packed bytes, by which they are proven once more before the first write.
    pub packed_crc: u32,
    /// How many sectors are patched: see [`crate::image::patches`].
    pub patches: u32,
    /// The CRC-32 of the patches, by which they are proven likewise.
    pub patches_crc: u32,
}

/// Where the packed image waits, when that is on a disk and not in memory.
#[derive(Clone, Debug)]
pub struct PackedPlan {
    /// The disk: the target, or another one.
    pub disk: DiskPlan,
    /// How many pieces the image waits in.
    pub pieces: u32,
    /// The CRC-32 of the list of pieces, which has the CRC-32 of each.
    pub list_crc: u32,
    /// The file of the old OS with what was copied of it, if one can be removed there: when the old OS lives on.
    pub copies: Option<FilePlan>,
}

/// A disk: the one that is written, and the one that the packed image waits on.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// The kernel's name of it.
    pub name: heapless::String<32>,
    /// Its device number.
    pub number: Number,
    /// Its size in bytes, checked again before the first write.
    pub size: u64,
    /// Its logical block in bytes.
    pub logical_block: u32,
    /// What it is, whatever its number; empty when it does not say, or another one says the same. See
    /// [`crate::disk::identity`].
    pub identity: heapless::String<{ crate::disk::identity::LONGEST }>,
}

/// A partition of the new OS with an ext4 file system: it is mounted to place files on it.
#[derive(Clone, Copy, Debug)]
pub struct PartitionPlan {
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// Which partition of the new OS a file is placed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// The boot partition.
    Boot,
    /// The data partition.
    Data,
}

/// A file that is placed on a partition that is mounted for it; those on a FAT are part of the image.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Its name below `files/` in the RAMFS.
    pub from: heapless::String<32>,
    /// Its path on its partition.
    pub to: heapless::String<128>,
    /// Which partition that is.
    pub place: Place,
}

/// A file on a partition, which is mounted for that: a log that stage 2 may write, or what stage 1 has left.
#[derive(Clone, Debug)]
pub struct FilePlan {
    /// The partition's device number.
    pub number: Number,
    /// The type of its file system, as mount(2) takes it.
    pub file_system: heapless::String<16>,
    /// The file's path on it.
    pub path: heapless::String<128>,
}

/// All that stage 2 needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Stop after the proof that the disk is free, and restart the old OS.
    pub pretend: bool,
    /// What to do when all retries are spent.
    pub on_failure: OnFailure,
    /// How much stage 2 logs.
    pub log_level: Level,
    /// With which time a watchdog is started when none runs, in seconds; 0: none is (`--watchdog`).
    pub watchdog: u32,
    /// Without any progress for this long a worker is ended, in seconds: [`STALL`]. Tests wait less.
    pub stall: u32,
    /// The image.
    pub image: ImagePlan,
    /// Where it waits on a disk, if it does.
    pub packed: Option<PackedPlan>,
    /// The disk.
    pub target: DiskPlan,
    /// The boot partition, when it is ext4 and files are placed on it.
    pub boot: Option<PartitionPlan>,
    /// The data partition, when files are placed on it.
    pub data: Option<PartitionPlan>,
    /// The files.
    pub new_files: heapless::Vec<NewFile, MAX_NEW_FILES>,
    /// Where the log goes on the data partition when all is done (`--fallback-log`).
    pub fallback_log: Option<heapless::String<96>>,
    /// Where the log goes when stage 2 gives up before the first write: the old root.
    pub old_log: Option<FilePlan>,
    /// Where the log goes in any case (`--log-to`).
    pub log_device: Option<FilePlan>,
    /// The address and port to which the log of stage 2 is sent (`--log-udp`), if it is.
    pub log_receiver: heapless::String<64>,
}

/// How many numbers a plan has.
const NUMBERS: usize = 46;

impl DiskPlan {
    fn numbers(&self) -> [u64; 4] {
        let Number { major, minor } = self.number;
        [major.into(), minor.into(), self.size, self.logical_block.into()]
    }

    /// A disk that is not looked for when it goes away.
    #[inline(always)]
    pub fn of(disk: &Disk) -> Result<Self, Error> {
        Ok(Self {
            name: bounded("use a disk with a shorter name", &disk.name)?,
            number: disk.number,
            size: disk.size,
            logical_block: disk.logical_block,
            identity: heapless::String::new(),
        })
    }
}

impl Plan {
    /// An image for a disk, and nothing that was asked for beside.
    // A plan is large, and copied when it is handed over.
    #[inline(always)]
    pub fn of(image: ImagePlan, target: DiskPlan) -> Self {
        Self {
            image,
            packed: None,
            target,
            pretend: false,
            on_failure: OnFailure::Retry,
            log_level: Level::Info,
            watchdog: 0,
            stall: STALL,
            boot: None,
            data: None,
            new_files: heapless::Vec::new(),
            fallback_log: None,
            old_log: None,
            log_device: None,
            log_receiver: heapless::String::new(),
        }
    }

    /// Every number of the plan; a choice is the index of what was chosen, something optional a number more that
    /// says whether it is there.
    fn numbers(&self) -> [u64; NUMBERS] {
        let stream = &self.image.stream;
        let [boot, boot_start, boot_length] = partition_numbers(&self.boot);
        let [data, data_start, data_length] = partition_numbers(&self.data);
        let [old_log, old_log_major, old_log_minor] = file_numbers(self.old_log.as_ref());
        let [log_device, log_major, log_minor] = file_numbers(self.log_device.as_ref());
        let [major, minor, size, block] = self.target.numbers();
        let packed = self.packed.as_ref();
        let [copies, copies_major, copies_minor] =
            file_numbers(packed.and_then(|packed| packed.copies.as_ref()));
        let [packed_major, packed_minor, packed_size, packed_block] =
            packed.map_or([0; 4], |packed| packed.disk.numbers());
        let [pieces, list_crc] =
            packed.map_or([0; 2], |packed| [packed.pieces.into(), packed.list_crc.into()]);
        [
            self.pretend.into(),
            self.on_failure as u64,
            self.log_level as u64,
            stream.format as u64,
            stream.offset,
            stream.length,
            stream.promised_crc.into(),
            stream.promised_length,
            self.image.length,
            self.image.chunks.into(),
            self.image.zero_chunks.into(),
            self.image.map_crc.into(),
            self.image.packed_crc.into(),
            self.image.patches.into(),
            self.image.patches_crc.into(),
            major,
            minor,
            size,
            block,
            boot,
            boot_start,
            boot_length,
            data,
            data_start,
            data_length,
            old_log,
            old_log_major,
            old_log_minor,
            log_device,
            log_major,
            log_minor,
            self.fallback_log.is_some().into(),
            self.new_files.len() as u64,
            self.places(),
            self.watchdog.into(),
            self.stall.into(),
            packed.is_some().into(),
            packed_major,
            packed_minor,
            packed_size,
            packed_block,
            pieces,
            list_crc,
            copies,
            copies_major,
            copies_minor,
        ]
    }

    /// A plan with these numbers and empty texts; nothing when one is out of range.
    fn from_numbers(numbers: [u64; NUMBERS]) -> Option<Self> {
        let mut next = Numbers(numbers.iter());
        Some(Self {
            pretend: next.is_set()?,
            on_failure: next.choice(&ON_FAILURE)?,
            log_level: next.choice(&LEVELS)?,
            image: ImagePlan {
                stream: Stream {
                    format: next.choice(&FORMATS)?,
                    offset: next.long()?,
                    length: next.long()?,
                    promised_crc: next.short()?,
                    promised_length: next.long()?,
                },
                length: next.long()?,
                chunks: next.short()?,
                zero_chunks: next.short()?,
                map_crc: next.short()?,
                packed_crc: next.short()?,
                patches: next.short()?,
                patches_crc: next.short()?,
            },
            target: next.disk()?,
            boot: next.partition()?,
            data: next.partition()?,
            old_log: next.file()?,
            log_device: next.file()?,
            fallback_log: next.is_set()?.then(heapless::String::new),
            new_files: next.new_files()?,
            watchdog: next.short()?,
            log_receiver: heapless::String::new(),
            stall: next.short()?,
            packed: next.packed()?,
        })
    }

    /// Which files are placed on the data partition, a bit each; the others go to the boot partition.
    fn places(&self) -> u64 {
        let mut bits = 0;
        for (bit, file) in self.new_files.iter().enumerate() {
            bits |= u64::from(file.place == Place::Data) << bit;
        }
        bits
    }

    /// Calls `visit` with every text, always in the same order.
    fn for_each_text<E>(
        &self,
        visit: &mut dyn FnMut(&StringView) -> Result<(), E>,
    ) -> Result<(), E> {
        visit(&self.target.name)?;
        visit(&self.target.identity)?;
        visit(&self.log_receiver)?;
        let copies = self.packed.as_ref().and_then(|packed| packed.copies.as_ref());
        for file in [self.old_log.as_ref(), self.log_device.as_ref(), copies].into_iter().flatten()
        {
            visit(&file.file_system)?;
            visit(&file.path)?;
        }
        if let Some(path) = &self.fallback_log {
            visit(path)?;
        }
        if let Some(packed) = &self.packed {
            visit(&packed.disk.name)?;
            visit(&packed.disk.identity)?;
        }
        for file in &self.new_files {
            visit(&file.from)?;
            visit(&file.to)?;
        }
        Ok(())
    }

    /// The same, to fill them in.
    fn for_each_text_mut<E>(
        &mut self,
        visit: &mut dyn FnMut(&mut StringView) -> Result<(), E>,
    ) -> Result<(), E> {
        visit(&mut self.target.name)?;
        visit(&mut self.target.identity)?;
        visit(&mut self.log_receiver)?;
        let copies = self.packed.as_mut().and_then(|packed| packed.copies.as_mut());
        for file in [self.old_log.as_mut(), self.log_device.as_mut(), copies].into_iter().flatten()
        {
            visit(&mut file.file_system)?;
            visit(&mut file.path)?;
        }
        if let Some(path) = &mut self.fallback_log {
            visit(path)?;
        }
        if let Some(packed) = &mut self.packed {
            visit(&mut packed.disk.name)?;
            visit(&mut packed.disk.identity)?;
        }
        for file in &mut self.new_files {
            visit(&mut file.from)?;
            visit(&mut file.to)?;
        }
        Ok(())
    }

    /// Writes the plan as JSON to a new file, mode 0600, and reads it back: PID 1 must find the very same.
    pub fn write(&self, path: &str) -> Result<(), Error> {
        let mut buffer = [0; MAX_JSON];
        drop(files::create(path, self.to_json(path, &mut buffer)?)?);
        self.prove(path)
    }

    /// What is read from there is this plan.
    fn prove(&self, path: &str) -> Result<(), Error> {
        let (mut wanted, mut found) = ([0; MAX_JSON], [0; MAX_JSON]);
        if Self::read(path)?.to_json(path, &mut found)? == self.to_json(path, &mut wanted)? {
            Ok(())
        } else {
            Err(Error::failed("reading back the plan", path, "it differs"))
        }
    }

    fn to_json<'a>(&self, path: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
        let length = serde_json_core::to_slice(self, buffer)
            .map_err(|_| Error::failed("writing the plan", path, "it is larger than 24 KiB"))?;
        Ok(buffer.get(..length).unwrap_or_default())
    }

    /// Reads the plan, on the stack.
    pub fn read(path: &str) -> Result<Self, Error> {
        let mut buffer = [0; MAX_JSON];
        let bytes = files::read(path, &mut buffer).doing("reading the plan", path)?;
        let mut unescaped = [0; crate::disk::identity::LONGEST];
        let (plan, _) = serde_json_core::from_slice_escaped(bytes, &mut unescaped)
            .map_err(|_| Error::failed("reading the plan", path, "it is not a plan"))?;
        Ok(plan)
    }
}

/// The choices by their numbers.
const ON_FAILURE: [OnFailure; 3] = [OnFailure::Retry, OnFailure::Halt, OnFailure::Reboot];
const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
const FORMATS: [Format; 3] = [Format::Raw, Format::Gzip, Format::Zip];

/// Stands for the device number of a file that is not there.
const NOWHERE: Number = Number { major: 0, minor: 0 };

/// Whether there is such a file, and the number of its partition.
fn file_numbers(file: Option<&FilePlan>) -> [u64; 3] {
    let Number { major, minor } = file.map_or(NOWHERE, |file| file.number);
    [file.is_some().into(), major.into(), minor.into()]
}

fn partition_numbers(partition: &Option<PartitionPlan>) -> [u64; 3] {
    partition.map_or([0; 3], |partition| [1, partition.start, partition.length])
}

// Each has a bit of one number: see `Plan::places`.
const _: () = assert!(MAX_NEW_FILES <= 64);

/// The numbers of a plan, taken one by one in the order of [`Plan::numbers`]; nothing when one is out of range.
struct Numbers<'a>(core::slice::Iter<'a, u64>);

impl Numbers<'_> {
    fn long(&mut self) -> Option<u64> {
        self.0.next().copied()
    }

    fn short(&mut self) -> Option<u32> {
        self.long()?.try_into().ok()
    }

    fn is_set(&mut self) -> Option<bool> {
        Some(self.long()? != 0)
    }

    fn choice<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        choices.get(usize::try_from(self.long()?).ok()?).copied()
    }

    fn device(&mut self) -> Option<Number> {
        Some(Number { major: self.short()?, minor: self.short()? })
    }

    fn disk(&mut self) -> Option<DiskPlan> {
        let (number, size, logical_block) = (self.device()?, self.long()?, self.short()?);
        let (name, identity) = (heapless::String::new(), heapless::String::new());
        Some(DiskPlan { name, number, size, logical_block, identity })
    }

    fn partition(&mut self) -> Option<Option<PartitionPlan>> {
        let is_there = self.is_set()?;
        let (start, length) = (self.long()?, self.long()?);
        Some(is_there.then_some(PartitionPlan { start, length }))
    }

    fn file(&mut self) -> Option<Option<FilePlan>> {
        let is_there = self.is_set()?;
        let number = self.device()?;
        let (file_system, path) = (heapless::String::new(), heapless::String::new());
        Some(is_there.then_some(FilePlan { number, file_system, path }))
    }

    fn packed(&mut self) -> Option<Option<PackedPlan>> {
        let is_there = self.is_set()?;
        let disk = self.disk()?;
        let (pieces, list_crc) = (self.short()?, self.short()?);
        let copies = self.file()?;
        Some(is_there.then_some(PackedPlan { disk, pieces, list_crc, copies }))
    }

    fn new_files(&mut self) -> Option<heapless::Vec<NewFile, MAX_NEW_FILES>> {
        let (count, places) = (self.short()?, self.long()?);
        let mut all = heapless::Vec::new();
        for bit in 0..count {
            let place = match places.checked_shr(bit)? & 1 {
                0 => Place::Boot,
                _ => Place::Data,
            };
            let (from, to) = (heapless::String::new(), heapless::String::new());
            all.push(NewFile { from, to, place }).ok()?;
        }
        Some(all)
    }
}

impl Serialize for Plan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for number in self.numbers() {
            list.serialize_element(&number)?;
        }
        self.for_each_text(&mut |text| list.serialize_element(text.as_str()))?;
        list.end()
    }
}

impl<'de> Deserialize<'de> for Plan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(List)
    }
}

/// Reads the list.
struct List;

impl<'de> Visitor<'de> for List {
    type Value = Plan;

    fn expecting(&self, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Plan, A::Error> {
        let wrong = || A::Error::custom("");
        let mut numbers = [0; NUMBERS];
        for number in &mut numbers {
            *number = list.next_element()?.ok_or_else(wrong)?;
        }
        let mut plan = Plan::from_numbers(numbers).ok_or_else(wrong)?;
        plan.for_each_text_mut(&mut |text| {
            list.next_element_seed(TextSeed(text))?.ok_or_else(wrong)
        })?;
        Ok(plan)
    }
}

/// Reads a text to where it belongs; one that does not fit is an error.
struct TextSeed<'a>(&'a mut StringView);

impl<'de> DeserializeSeed<'de> for TextSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for TextSeed<'_> {
    type Value = ();

    fn expecting(&self, _: &mut fmt::Formatter) -> fmt::Result {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.0.push_str(text).map_err(|_| E::custom(""))
    }
}

/// A bounded string of a plan, or an error that names what is too long.
pub fn bounded<const N: usize>(
    what: &'static str,
    text: &str,
) -> Result<heapless::String<N>, Error> {
    heapless::String::try_from(text)
        .map_err(|_| Error::refused("planning with", text, "the name is too long").advice(what))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::image::format::Format;

    fn disk(name: &str, major: u32, size: u64, logical_block: u32, identity: &str) -> DiskPlan {
        let name = heapless::String::try_from(name).unwrap();
        let identity = heapless::String::try_from(identity).unwrap();
        DiskPlan { name, number: Number { major, minor: 0 }, size, logical_block, identity }
    }

    /// A plan with every optional part.
    pub fn sample() -> Plan {
        let log = FilePlan {
            number: Number { major: 8, minor: 1 },
            file_system: heapless::String::try_from("vfat").unwrap(),
            path: heapless::String::try_from("var/log/x").unwrap(),
        };
        let mut new_files = heapless::Vec::new();
        for index in 0..MAX_NEW_FILES {
            let file = NewFile {
                from: heapless::String::try_from(index.to_string().as_str()).unwrap(),
                to: heapless::String::try_from("a \"quoted\" \\ name é").unwrap(),
                place: if index % 2 == 0 { Place::Boot } else { Place::Data },
            };
            new_files.push(file).unwrap();
        }
        Plan {
            pretend: true,
            on_failure: OnFailure::Halt,
            log_level: Level::Debug,
            watchdog: 3600,
            stall: STALL,
            image: ImagePlan {
                stream: Stream {
                    format: Format::Zip,
                    offset: 37,
                    length: u64::MAX,
                    promised_crc: u32::MAX,
                    promised_length: 1 << 40,
                },
                length: 1 << 40,
                chunks: 1 << 20,
                zero_chunks: 5,
                map_crc: 6,
                packed_crc: 7,
                patches: 8,
                patches_crc: 9,
            },
            packed: Some(PackedPlan {
                disk: disk("sda", 8, 1 << 42, 4096, "usb=DD56419 unit=0"),
                pieces: 1 << 20,
                list_crc: u32::MAX,
                copies: Some(log.clone()),
            }),
            target: disk("mmcblk0", 179, 1 << 41, 512, "wwid=eui.0025 \"x\""),
            boot: Some(PartitionPlan { start: 1 << 22, length: 1 << 26 }),
            data: Some(PartitionPlan { start: 1 << 32, length: 1 << 30 }),
            new_files,
            fallback_log: Some(heapless::String::try_from("fallback_log/a.log").unwrap()),
            old_log: Some(log.clone()),
            log_device: Some(log),
            log_receiver: heapless::String::try_from("[fe80::1234%7]:65535").unwrap(),
        }
    }

    #[test]
    fn a_plan_comes_back_as_it_was_written() {
        let path = std::env::temp_dir().join(format!("takeover-plan-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let plan = sample();
        plan.write(path).unwrap();
        let back = Plan::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{back:?}"));
    }

    #[test]
    fn a_plan_that_does_not_come_back_as_it_is_is_an_error() {
        let path = std::env::temp_dir().join(format!("takeover-proof-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let plan = sample();
        plan.write(path).unwrap();
        plan.prove(path).unwrap();
        assert!(Plan { pretend: !plan.pretend, ..plan.clone() }.prove(path).is_err());
        assert!(Plan { fallback_log: None, ..plan.clone() }.prove(path).is_err());
        let mut other = plan.clone();
        other.new_files[MAX_NEW_FILES - 1].to.push('x').unwrap();
        assert!(other.prove(path).is_err());
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() - 10]).unwrap();
        assert!(plan.prove(path).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn choices_have_the_numbers_of_their_places() {
        for (number, choice) in ON_FAILURE.iter().enumerate() {
            assert_eq!(*choice as usize, number);
        }
        for (number, choice) in LEVELS.iter().enumerate() {
            assert_eq!(*choice as usize, number);
        }
        for (number, choice) in FORMATS.iter().enumerate() {
            assert_eq!(*choice as usize, number);
        }
    }

    #[test]
    fn a_bare_plan_comes_back_too() {
        let path = std::env::temp_dir().join(format!("takeover-bare-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let plan = Plan {
            pretend: false,
            boot: None,
            data: None,
            new_files: heapless::Vec::new(),
            fallback_log: None,
            old_log: None,
            packed: None,
            log_receiver: heapless::String::new(),
            ..sample()
        };
        plan.write(path).unwrap();
        let back = Plan::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(format!("{plan:?}"), format!("{back:?}"));
    }

    #[test]
    fn a_plan_that_was_tampered_with_is_an_error() {
        let path = std::env::temp_dir().join(format!("takeover-tampered-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let numbers = sample().numbers();
        let written = |numbers: &[u64], texts: &str| {
            let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
            std::fs::write(path, format!("[{}{texts}]", numbers.join(","))).unwrap();
            Plan::read(path)
        };
        let texts = ",\"x\"".repeat(12 + 2 * MAX_NEW_FILES);
        assert!(written(&numbers, &texts).is_ok());
        assert!(written(&numbers, &texts[4..]).is_err(), "a text is missing");
        assert!(written(&numbers[1..], &texts).is_err(), "a number is missing");
        let long = format!(",\"{}\"{}", "x".repeat(33), &texts[4..]);
        assert!(written(&numbers, &long).is_err(), "a text is too long");
        // The failure's way, the level, the format, a CRC, the chunks, the files.
        for (place, value) in [
            (1, 3),
            (2, 5),
            (3, 3),
            (6, 1 << 32),
            (9, 1 << 32),
            (13, 1 << 32),
            (32, 65),
            (34, 1 << 32),
            (42, 1 << 32),
        ] {
            let mut numbers = numbers;
            numbers[place] = value;
            assert!(written(&numbers, &texts).is_err(), "number {place}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn what_is_no_plan_is_an_error() {
        assert!(Plan::read("/dev/null").is_err());
        assert!(Plan::read("/nowhere").is_err());
    }
}
