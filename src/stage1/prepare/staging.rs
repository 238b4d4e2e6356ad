//! Copying the image, the chunk map and the files of the new OS into the RAMFS.
//!
//! What is read for the copy is proven against the scan: a file that changed in between is found out here, while the
//! old OS is still in place. The copy itself is proven by stage 2, before the first write.

use super::ramfs::Ramfs;
use super::undo::interrupted;
use crate::boot_blob::BootBlob;
use crate::crc32;
use crate::efi::change::Change;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::format::Format;
use crate::image::map::{ChunkMap, RECORD};
use crate::image::patches::Patches;
use crate::image::scan::Scan;
use crate::image::source::Source;
use crate::image::{CHUNK, format::Stream, is_zero};
use crate::log;
use crate::new_os::new_files::NewFiles;
use crate::plan::{ImagePlan, Plan, names};
use crate::progress::Rate;
use rustix::fd::{AsFd, BorrowedFd};

/// Copies the image's part of its file to the RAMFS and proves what was read. Pages of zeros of a raw image become
/// holes: they cost no memory.
pub fn stage_image(
    ramfs: &Ramfs,
    source: &dyn Source,
    stream: Stream,
    scan: &Scan,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let path = ramfs.inside(names::IMAGE)?;
    let page_size = crate::sys::map::page_size();
    let file = files::create(&path, b"")?;
    rustix::fs::ftruncate(&file, stream.length).doing("sizing", &path)?;
    // In whole chunks, so that pages are aligned whatever their size.
    let buffer = buffer.get_mut(..CHUNK).unwrap_or_default();
    let mut crc = 0;
    let mut done = 0;
    let mut rate = Rate::start("copy to memory", stream.length);
    while done < stream.length {
        interrupted()?;
        let wanted = (stream.length - done).min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let count = source.read_at(stream.offset + done, piece)?;
        let piece = piece.get(..count).filter(|piece| !piece.is_empty()).ok_or_else(changed)?;
        crc = crc32::extend(crc, piece);
        for (index, page) in piece.chunks(page_size).enumerate() {
            if stream.format == Format::Raw && is_zero(page) {
                continue;
            }
            write_at(&file, page, done + (index * page_size) as u64)?;
        }
        done += count as u64;
        rate.advance(done);
    }
    rate.end("what is left to be written by others, then the hand-over");
    if crc == scan.packed_crc { Ok(()) } else { Err(changed()) }
}

fn write_at(file: &rustix::fd::OwnedFd, page: &[u8], at: u64) -> Result<(), Error> {
    let written = rustix::io::pwrite(file, page, at).doing("copying the image to", "memory")?;
    if written == page.len() {
        Ok(())
    } else {
        Err(Error::failed("copying the image to", "memory", "not all of it was written"))
    }
}

fn changed() -> Error {
    Error::failed("copying", "the image", "the file changed after it was checked")
}

/// Copies the chunk map to the RAMFS.
pub fn stage_map(
    ramfs: &Ramfs,
    map: &ChunkMap,
    image: &ImagePlan,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let path = ramfs.inside(names::MAP)?;
    copy(map.descriptor().as_fd(), 0, u64::from(image.chunks) * RECORD, &path, buffer)?;
    if ChunkMap::open(&path)?.crc(image.chunks)? == image.map_crc {
        return Ok(());
    }
    Err(Error::failed("copying", "the chunk map", "the copy differs"))
}

/// Copies the patches of the image to the RAMFS, and proves the copy.
pub fn stage_patches(ramfs: &Ramfs, patches: &Patches, buffer: &mut [u8]) -> Result<(), Error> {
    let Some(file) = patches.descriptor() else {
        return Ok(());
    };
    let path = ramfs.inside(names::PATCHES)?;
    copy(file.as_fd(), 0, patches.length(), &path, buffer)?;
    if Patches::open(&path, patches.count())?.crc()? == patches.crc()? {
        return Ok(());
    }
    Err(Error::failed("copying", "the patches of the image", "the copy differs"))
}

/// Copies the files of the new OS that stage 2 places to the RAMFS.
pub fn stage_files(ramfs: &Ramfs, new_files: &NewFiles, plan: &Plan) -> Result<(), Error> {
    for (index, bytes) in new_files.placed(plan.boot.is_some()) {
        let path = crate::path!("{}/{}/{}", ramfs.path.as_str(), names::FILES, index)?;
        drop(files::create(&path, bytes)?);
    }
    Ok(())
}

/// Leaves what is to be changed of the boot entries.
pub fn stage_boot_entry(ramfs: &Ramfs, change: &Change) -> Result<(), Error> {
    files::create(&ramfs.inside(names::BOOT_ENTRY)?, &change.to_bytes()).map(drop)
}

/// Leaves what was logged until now, with which stage 2's log begins.
pub fn stage_log(ramfs: &Ramfs) -> Result<(), Error> {
    let path = ramfs.inside(names::LOG)?;
    log::copy_to(&files::create(&path, b"")?, &path)
}

/// Leaves where the boot blob lies, and what it goes to.
pub fn stage_boot_blob(ramfs: &Ramfs, blob: &BootBlob) -> Result<(), Error> {
    files::create(&ramfs.inside(names::BOOT_BLOB)?, &blob.to_bytes()).map(drop)
}

/// Leaves what a server is told about the end.
pub fn stage_notice(ramfs: &Ramfs, notice: &[u8]) -> Result<(), Error> {
    files::create(&ramfs.inside(names::NOTICE)?, notice).map(drop)
}

fn copy(
    source: BorrowedFd,
    start: u64,
    length: u64,
    path: &str,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let to = files::create(path, b"")?;
    let mut done = 0;
    while done < length {
        let wanted = (length - done).min(buffer.len() as u64) as usize;
        let piece = buffer.get_mut(..wanted).unwrap_or_default();
        let count =
            rustix::io::pread(source, &mut *piece, start + done).doing("reading for", path)?;
        let piece = piece.get(..count).filter(|piece| !piece.is_empty()).ok_or_else(|| {
            Error::failed("reading for", path, "it is shorter than when it was made")
        })?;
        files::write_all(&to, piece).doing("writing", path)?;
        done += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode::{BUFFER, Decoder, tests as fixtures};
    use crate::image::map::Record;
    use crate::image::{format, scan};

    /// A RAMFS that is only a directory, an image file, and what the scan made of it.
    struct Case {
        ramfs: Ramfs,
        file: Vec<u8>,
        stream: Stream,
        scan: Scan,
        map: ChunkMap,
        buffer: Vec<u8>,
    }

    impl Case {
        fn new(name: &str, file: Vec<u8>) -> Self {
            let path = format!("takeover-staging-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(path);
            std::fs::create_dir(&path).unwrap();
            let stream = format::detect(&file, "x").unwrap();
            let map = ChunkMap::create().unwrap();
            let mut buffer = vec![0; BUFFER];
            let mut decoder = Decoder::new(&file, stream);
            let scan = scan::scan(&mut decoder, &mut buffer, &map).unwrap();
            let ramfs = Ramfs::at(path.to_str().unwrap());
            Self { ramfs, file, stream, scan, map, buffer }
        }

        fn stage_image(&mut self) -> Result<Vec<u8>, Error> {
            let path = self.ramfs.inside(names::IMAGE)?;
            let _ = std::fs::remove_file(&*path);
            stage_image(&self.ramfs, &self.file, self.stream, &self.scan, &mut self.buffer)?;
            Ok(std::fs::read(&*path).unwrap())
        }

        fn stage_map(&mut self) -> Result<(), Error> {
            let _ = std::fs::remove_file(&*self.ramfs.inside(names::MAP)?);
            let plan = ImagePlan {
                chunks: self.scan.chunks,
                map_crc: self.scan.map_crc,
                ..crate::plan::tests::sample().image
            };
            stage_map(&self.ramfs, &self.map, &plan, &mut self.buffer)
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&*self.ramfs.path);
        }
    }

    #[test]
    fn an_image_that_changed_after_the_scan_is_not_staged() {
        let image = fixtures::sample(2 * CHUNK + 700);
        for (name, file) in [("gzip", fixtures::member(&image)), ("raw", image)] {
            let mut case = Case::new(name, file);
            assert!(case.stage_image().unwrap() == case.file, "{name}: the copy differs");
            for at in [20, case.file.len() / 2, case.file.len() - 1] {
                case.file[at] ^= 1;
                assert!(case.stage_image().is_err(), "{name}: byte {at} has changed");
                case.file[at] ^= 1;
            }
            case.file.pop();
            assert!(case.stage_image().is_err(), "{name}: it became shorter");
        }
    }

    #[test]
    fn a_chunk_map_that_changed_after_the_scan_is_not_staged() {
        let mut case = Case::new("map", fixtures::sample(2 * CHUNK + 700));
        case.stage_map().unwrap();
        let record = case.map.get(1).unwrap();
        case.map.set(1, Record { crc: record.crc ^ 1, ..record }).unwrap();
        assert!(case.stage_map().is_err());
    }

    #[test]
    fn zeros_of_a_raw_image_take_no_memory() {
        let mut image = vec![0; 3 * CHUNK + 512];
        image[CHUNK + 5] = 1;
        let mut case = Case::new("holes", image);
        assert!(case.stage_image().unwrap() == case.file);
        let status = std::fs::metadata(&*case.ramfs.inside(names::IMAGE).unwrap()).unwrap();
        assert!(std::os::linux::fs::MetadataExt::st_blocks(&status) <= 128);
    }

    #[test]
    fn each_file_is_staged_with_its_own_bytes() {
        let folder = std::env::temp_dir().join(format!("takeover-stage-{}", std::process::id()));
        std::fs::create_dir_all(folder.join(names::FILES)).unwrap();
        let mut files = NewFiles::new();
        files.add("config.json", "", b"{}").unwrap();
        files.add("system-connections/a", "", &[7; 10_000]).unwrap();
        files.add_backup(5000).unwrap();
        let ramfs = Ramfs::at(folder.to_str().unwrap());
        let mut plan = crate::plan::tests::sample();
        stage_files(&ramfs, &files, &plan).unwrap();
        let read = |name| std::fs::read(folder.join(names::FILES).join(name)).unwrap();
        assert_eq!(read("0"), b"{}");
        assert_eq!(read("1"), [7; 10_000]);
        assert!(!folder.join(names::FILES).join("2").exists(), "the backup is made later");
        plan.boot = None;
        std::fs::remove_file(folder.join(names::FILES).join("0")).unwrap();
        stage_files(&ramfs, &files, &plan).unwrap();
        assert!(!folder.join(names::FILES).join("0").exists(), "it is part of the image");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
