//! What stage 1 decided, in the form that stage 2 reads: a JSON file in the RAMFS.
//!
//! Holds values, never pointers, and no path of the old root except those that are only logged: when stage 2 reads
//! this, the old root is gone.

use crate::disk::device::Number;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::format::Stream;
use crate::log::Level;
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
    /// The image as it came, packed or not.
    pub const IMAGE: &str = "image";
    /// The chunk map.
    pub const MAP: &str = "map";
    /// The log of stage 2.
    pub const LOG: &str = "log";
    /// Device nodes.
    pub const DEV: &str = "dev";
    /// Where the old root goes.
    pub const OLD: &str = "old";
    /// Where a new file system is mounted.
    pub const MOUNT: &str = "mnt";
    /// The files for the new OS.
    pub const FURNISHINGS: &str = "furnish";
}

/// The most files that are placed on the new disk.
pub const MAX_FURNISHINGS: usize = 64;
/// The most bytes that a plan takes as JSON.
const MAX_JSON: usize = 24 * 1024;

/// A file system that the kernel mounts for us.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum FileSystem {
    /// FAT of any width.
    Vfat,
    /// ext2, ext3 and ext4.
    Ext4,
}

impl FileSystem {
    /// The name that mount(2) takes.
    pub const fn name(self) -> &'static str {
        match self {
            FileSystem::Vfat => "vfat",
            FileSystem::Ext4 => "ext4",
        }
    }
}

/// What to do when the flash has failed and all retries are spent.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum OnFailure {
    /// Try again for ever, with pauses.
    Retry,
    /// Stop, with the reason on the console.
    Halt,
    /// Restart, come what may.
    Reboot,
}

/// The image, as the scan found it.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub struct ImagePlan {
    /// Where the image's bytes are in the staged file, and how they are packed.
    pub stream: Stream,
    /// Its length on the disk, in bytes.
    pub length: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are all zeros.
    pub zero_chunks: u32,
    /// The CRC-32 of the chunk map.
    pub map_crc: u32,
}

/// The disk that is written.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct TargetPlan {
    /// The kernel's name of it.
    pub name: heapless::String<32>,
    /// Its device number.
    pub number: Number,
    /// Its size in bytes, checked again before the first write.
    pub size: u64,
    /// Its logical block in bytes.
    pub logical_block: u32,
}

/// A partition of the new OS.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
pub struct PartitionPlan {
    /// Where it begins on the disk, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
    /// Its file system.
    pub file_system: FileSystem,
}

/// Which partition of the new OS a file is placed on.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub enum Place {
    /// The boot partition.
    Boot,
    /// The data partition.
    Data,
}

/// A file that is placed on the new disk.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Furnishing {
    /// Its name below `furnish/` in the RAMFS.
    pub from: heapless::String<32>,
    /// Its path on its partition.
    pub to: heapless::String<128>,
    /// Which partition that is.
    pub place: Place,
}

/// A partition that stage 2 may write a log to.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct LogPlan {
    /// Its device number.
    pub number: Number,
    /// The type of its file system, as mount(2) takes it.
    pub file_system: heapless::String<16>,
    /// The log's path on it.
    pub path: heapless::String<64>,
}

/// All that stage 2 needs to know.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Plan {
    /// Stop after the proof that the disk is free, and restart the old OS.
    pub pretend: bool,
    /// What to do when all retries are spent.
    pub on_failure: OnFailure,
    /// How much stage 2 logs.
    pub log_level: Level,
    /// The image.
    pub image: ImagePlan,
    /// The disk.
    pub target: TargetPlan,
    /// The boot partition, when files are placed on it.
    pub boot: Option<PartitionPlan>,
    /// The data partition, when files are placed on it.
    pub data: Option<PartitionPlan>,
    /// The files.
    pub furnishings: heapless::Vec<Furnishing, MAX_FURNISHINGS>,
    /// Where the log goes on the data partition when all is done (`--fallback-log`).
    pub fallback_log: Option<heapless::String<96>>,
    /// Where the log goes when stage 2 gives up before the first write: the old root.
    pub old_log: Option<LogPlan>,
    /// Where the log goes in any case (`--log-to`).
    pub log_device: Option<LogPlan>,
}

impl Plan {
    /// Writes the plan as JSON to a new file, mode 0600.
    pub fn write(&self, path: &str) -> Result<(), Error> {
        let mut buffer = [0; MAX_JSON];
        let length = serde_json_core::to_slice(self, &mut buffer)
            .map_err(|_| Error::failed("writing the plan", path, "it is larger than 24 KiB"))?;
        files::create(path, buffer.get(..length).unwrap_or_default()).map(drop)
    }

    /// Reads the plan, on the stack.
    pub fn read(path: &str) -> Result<Self, Error> {
        let mut buffer = [0; MAX_JSON];
        let bytes = files::read(path, &mut buffer).doing("reading the plan", path)?;
        let mut unescaped = [0; 256];
        let (plan, _) = serde_json_core::from_slice_escaped(bytes, &mut unescaped)
            .map_err(|_| Error::failed("reading the plan", path, "it is not a plan"))?;
        Ok(plan)
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

    /// A plan with every optional part.
    pub fn sample() -> Plan {
        let log = LogPlan {
            number: Number { major: 8, minor: 1 },
            file_system: heapless::String::try_from("vfat").unwrap(),
            path: heapless::String::try_from("var/log/x").unwrap(),
        };
        let mut furnishings = heapless::Vec::new();
        for index in 0..MAX_FURNISHINGS {
            let furnishing = Furnishing {
                from: heapless::String::try_from(index.to_string().as_str()).unwrap(),
                to: heapless::String::try_from("a \"quoted\" \\ name é").unwrap(),
                place: if index % 2 == 0 { Place::Boot } else { Place::Data },
            };
            furnishings.push(furnishing).unwrap();
        }
        Plan {
            pretend: true,
            on_failure: OnFailure::Halt,
            log_level: Level::Debug,
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
            },
            target: TargetPlan {
                name: heapless::String::try_from("mmcblk0").unwrap(),
                number: Number { major: 179, minor: 0 },
                size: 1 << 41,
                logical_block: 512,
            },
            boot: Some(PartitionPlan {
                start: 1 << 22,
                length: 1 << 26,
                file_system: FileSystem::Vfat,
            }),
            data: Some(PartitionPlan {
                start: 1 << 32,
                length: 1 << 30,
                file_system: FileSystem::Ext4,
            }),
            furnishings,
            fallback_log: Some(heapless::String::try_from("fallback_log/a.log").unwrap()),
            old_log: Some(log.clone()),
            log_device: Some(log),
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
    fn what_is_no_plan_is_an_error() {
        assert!(Plan::read("/dev/null").is_err());
        assert!(Plan::read("/nowhere").is_err());
    }
}
