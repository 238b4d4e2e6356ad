//! The image, decoded once from end to end and looked into, before anything else is decided.

use crate::balena::layout::{self, DataPartition, Layout};
use crate::disk::reader::ReadAt;
use crate::disk::table::{self, Table};
use crate::error::{Error, Kind};
use crate::image::decode::Decoder;
use crate::image::format::{self, Format, Stream};
use crate::image::map::ChunkMap;
use crate::image::reader::ImageReader;
use crate::image::scan::{self, Scan};
use crate::image::source::Source;
use crate::log::Stopwatch;

/// An image that was decoded from end to end and looked into.
pub struct Examined<'a> {
    /// Its bytes.
    pub source: &'a dyn Source,
    /// Where in them it is, and how it is packed.
    pub stream: Stream,
    /// What the scan found.
    pub scan: Scan,
    /// What each chunk must be.
    pub map: ChunkMap,
    /// Its partitions.
    pub table: Table,
    /// What the new OS boots from.
    pub layout: Layout,
    /// Where its data goes, when something is put there.
    pub data: Option<DataPartition>,
    /// How long the scan took, in milliseconds; 0 when it had to wait for the network.
    pub scan_time: u64,
}

/// What is done where the boot partition of an image of so many bytes was found, before the rest is looked at: nobody
/// steps back for it.
pub type AtBoot<'a> = &'a mut dyn FnMut(&mut dyn ReadAt, &Layout, u64) -> Result<(), Error>;

/// An image file of a known format, before anything slow.
pub struct ImageFile<'a> {
    source: &'a dyn Source,
    stream: Stream,
}

impl<'a> ImageFile<'a> {
    /// Tells the format of an image file, of which people know by this name.
    pub fn open(source: &'a dyn Source, name: &str) -> Result<Self, Error> {
        let stream = format::detect(source, name);
        let stream = stream.inspect_err(|error| reject(source, error))?;
        Ok(Self { source, stream })
    }

    /// How many bytes the packed image has. A raw one takes less memory than it has bytes.
    #[cfg(feature = "http")]
    pub fn packed_length(&self) -> Option<u64> {
        (self.stream.format != Format::Raw).then_some(self.stream.length)
    }

    /// The length of the image in bytes, as far as it is known before the scan: gzip tells it only modulo 4 GiB, and so
    /// do some archives, whose image is longer then.
    pub fn length(&self) -> Option<u64> {
        match self.stream.format {
            Format::Raw => Some(self.stream.length),
            Format::Zip => Some(self.stream.promised_length),
            Format::Gzip => None,
        }
    }

    /// What the boot partition says, decoded no further than that takes. Where the length is not known, tables that
    /// reach too far are found by the scan.
    // Not in the large frame of its caller (size-report/README.md).
    #[inline(never)]
    pub fn peek(&self, buffer: &mut [u8]) -> Result<Layout, Error> {
        let mut decoder = Decoder::new(self.source, self.stream);
        let mut reader = ImageReader::new(&mut decoder, buffer, None);
        // Of a packed one an archive may tell only the lower 32 bits.
        let length = match self.stream.format {
            Format::Raw => self.stream.length,
            Format::Gzip | Format::Zip => u64::MAX,
        };
        let mut look = || {
            let mut table = table::begin(&mut reader, length)?;
            layout::find_boot(&mut reader, &mut table)
        };
        look().map_err(|error| error.about("the image"))
    }
}

/// Decodes the image to its end and looks into it; for the data partition only when that is used. `buffer` is
/// [`crate::image::decode::BUFFER`] long.
pub fn examine<'a>(
    file: ImageFile<'a>,
    is_data_used: bool,
    buffer: &mut [u8],
    at_boot: AtBoot<'_>,
) -> Result<Examined<'a>, Error> {
    let watch = Stopwatch::start();
    let ImageFile { source, stream } = file;
    let is_here = source.to_come() == 0;
    let map = ChunkMap::create()?;
    let mut decoder = Decoder::new(source, stream);
    let about = |error: Error| error.about("the image");
    let mut examined = || {
        // A packed image is decoded once: it is looked into on the way, and how long it is shows at its end. A raw
        // one is read wherever one likes, by what was scanned.
        let is_raw = stream.format == Format::Raw;
        let mut scan = None;
        let mut reader = if is_raw {
            scan = Some(scan::scan(&mut decoder, buffer, &map)?);
            ImageReader::new(&mut decoder, buffer, Some(&map))
        } else {
            ImageReader::before_scan(&mut decoder, buffer, &map)
        };
        let length = match scan {
            Some(scan) => scan.length,
            None => reader.length_seen()?,
        };
        let looked = look_into(&mut reader, length, is_data_used, at_boot);
        let (table, layout, data) = looked.map_err(about)?;
        let seen = reader.seen();
        let scan = match scan {
            Some(scan) => scan,
            None => scan::scan_on(&mut decoder, buffer, &map, seen)?,
        };
        table.lies_within(scan.length).map_err(about)?;
        source.finish()?;
        Ok((scan, table, layout, data))
    };
    let (scan, table, layout, data) =
        examined().inspect_err(|error: &Error| reject(source, error))?;
    let scan_time = if is_here { watch.elapsed() } else { 0 };
    let image = Examined { source, stream, scan, map, table, layout, data, scan_time };
    image.log(watch);
    Ok(image)
}

/// What was found to be no image, or not the one that was wanted, is not kept; what could not be read to its end is.
fn reject(source: &dyn Source, error: &Error) {
    if error.kind() == Kind::Refused {
        source.reject();
    }
}

/// Looks into an image of `length` bytes, in the order in which balenaOS has things on a disk: a packed image is
/// decoded once, as far as its last logical partition.
#[inline(never)]
fn look_into(
    image: &mut dyn ReadAt,
    length: u64,
    is_data_used: bool,
    at_boot: AtBoot<'_>,
) -> Result<(Table, Layout, Option<DataPartition>), Error> {
    let mut table = table::begin(image, length)?;
    let layout = layout::find_boot(image, &mut table)?;
    at_boot(image, &layout, length)?;
    let data = if is_data_used { layout::find_data(image, &mut table, &layout)? } else { None };
    table.finish(image, length)?;
    Ok((table, layout, data))
}

impl Examined<'_> {
    /// Does once more what is done at the boot partition.
    #[inline(never)]
    pub fn again_at_boot(&self, buffer: &mut [u8], at_boot: AtBoot<'_>) -> Result<(), Error> {
        let mut decoder = Decoder::new(self.source, self.stream);
        let mut reader = ImageReader::new(&mut decoder, buffer, Some(&self.map));
        at_boot(&mut reader, &self.layout, self.scan.length)
    }

    /// The share of its chunks that are zeros, in per cent.
    pub fn zero_share(&self) -> u64 {
        u64::from(self.scan.zero_chunks) * 100 / u64::from(self.scan.chunks.max(1))
    }

    /// MBR or GPT.
    pub fn table_name(&self) -> &'static str {
        match self.table.kind {
            table::Kind::Mbr => "MBR",
            table::Kind::Gpt => "GPT",
        }
    }

    fn log(&self, watch: Stopwatch) {
        let device_type =
            if self.layout.device_type.is_empty() { "no device" } else { &self.layout.device_type };
        crate::info!(
            "the image: {}, {} bytes ({}), {} % zeros, {} (partitions: {}), for {} ({} s)",
            self.stream.format.name(),
            self.scan.length,
            crate::text::Size(self.scan.length),
            self.zero_share(),
            self.table_name(),
            self.table.partitions.len(),
            device_type,
            watch.shown()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{fat, mbr};
    use crate::image::CHUNK;
    use crate::image::decode::{BUFFER, tests as fixtures};
    use core::cell::Cell;

    /// A file that counts what is read of it.
    struct Counting<'a> {
        file: &'a Vec<u8>,
        read: Cell<usize>,
        is_remote: bool,
    }

    impl Source for Counting<'_> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
            let count = self.file.read_at(offset, buffer)?;
            self.read.set(self.read.get() + count);
            Ok(count)
        }
        fn length(&self) -> u64 {
            self.file.length()
        }
        fn is_remote(&self) -> bool {
            self.is_remote
        }
    }

    /// An image of 12 chunks with the partitions of balenaOS: this label on the first, logical ones behind it. The
    /// first begins at byte `start`.
    fn image(boot_label: &str, start: usize) -> Vec<u8> {
        let in_chunks = |(kind, start, end): (u8, u32, u32)| {
            let sectors = CHUNK as u32 / 512;
            (kind, start * sectors, (end - start) * sectors)
        };
        let mut primary = [(0x0c, 1, 2), (0x83, 2, 3), (0x83, 3, 7), (0x0f, 7, 12)].map(in_chunks);
        primary[0].1 = start as u32 / 512;
        let mut image = mbr::tests::disk(&primary, 12 * CHUNK / 512);
        mbr::tests::put(&mut image, 7 * CHUNK / 512, 0, in_chunks((0x83, 1, 2)));
        mbr::tests::put(&mut image, 7 * CHUNK / 512, 1, in_chunks((0x05, 2, 5)));
        mbr::tests::put(&mut image, 9 * CHUNK / 512, 0, in_chunks((0x83, 1, 3)));
        let mut volume =
            fat::tests::volume_of(boot_label, &[("device-type.json", "{\"slug\":\"x\"}")]);
        layout::tests::put_loaders(&mut volume, [4, 5, 0], &["BOOTX64.EFI"]);
        image[start..start + volume.len()].copy_from_slice(&volume);
        for (chunk, label) in [(2, "resin-rootA"), (8, "resin-state"), (10, "resin-data")] {
            layout::tests::ext4(&mut image, chunk * CHUNK, label);
        }
        image
    }

    /// How many bytes of the packed image are read, and how many it has.
    fn read_and_length(image: &[u8], is_data_used: bool) -> (usize, usize) {
        let file = fixtures::stored_member(image, u16::MAX);
        let source = Counting { file: &file, read: Cell::new(0), is_remote: false };
        let stream = format::detect(&source, "x").unwrap();
        let mut decoder = Decoder::new(&source, stream);
        let mut buffer = vec![0; BUFFER];
        let mut reader = ImageReader::new(&mut decoder, &mut buffer, None);
        let length = image.len() as u64;
        let (table, layout, data) =
            look_into(&mut reader, length, is_data_used, &mut |_, _, _| Ok(())).unwrap();
        let numbers: Vec<_> = table.partitions.iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
        assert_eq!((layout.boot_number, &*layout.device_type), (1, "x"));
        assert_eq!(data.map(|data| data.number), is_data_used.then_some(6));
        (source.read.get(), file.len())
    }

    #[test]
    fn a_packed_image_is_read_forward_once() {
        for (label, is_data_used) in [("resin-boot", true), ("resin-boot", false), ("x", false)] {
            let (read, length) = read_and_length(&image(label, CHUNK), is_data_used);
            assert!(read <= length, "{read} bytes of {length} were read");
        }
    }

    #[test]
    fn a_packed_image_on_a_server_is_decoded_once_and_found_the_same() {
        let image = image("resin-boot", CHUNK);
        let packed = fixtures::stored_member(&image, u16::MAX);
        let mut examined = [&packed, &image].map(|file| {
            [false, true].map(|is_remote| {
                let source = Box::new(Counting { file, read: Cell::new(0), is_remote });
                let source: &Counting = Box::leak(source);
                let opened = ImageFile::open(source, "x").unwrap();
                source.read.set(0);
                let at_boot = &mut |_: &mut dyn ReadAt, _: &Layout, _| Ok(());
                let examined = examine(opened, true, &mut vec![0; BUFFER], at_boot).unwrap();
                (examined, source.read.get())
            })
        });
        for [(here, _), (there, read)] in &mut examined {
            assert_eq!(here.scan, there.scan);
            for index in 0..here.scan.chunks {
                assert_eq!(here.map.get(index).unwrap(), there.map.get(index).unwrap());
            }
            assert_eq!(here.table.partitions.len(), there.table.partitions.len());
            assert_eq!(here.data.map(|data| data.start), there.data.map(|data| data.start));
            if here.stream.format == Format::Gzip {
                assert_eq!(*read, packed.len());
            }
        }
    }

    #[test]
    fn an_image_on_a_server_that_is_cut_short_is_refused() {
        let mut image = image("resin-boot", CHUNK);
        image.truncate(11 * CHUNK);
        let file = fixtures::stored_member(&image, u16::MAX);
        let source = Counting { file: &file, read: Cell::new(0), is_remote: true };
        let opened = ImageFile::open(&source, "x").unwrap();
        let examined = examine(opened, false, &mut vec![0; BUFFER], &mut |_, _, _| Ok(()));
        let error = examined.err().unwrap();
        let text: crate::text::Text<400> = crate::text!("{}", error);
        assert!(text.contains("it is cut short: partition"), "{text:?}");
    }

    #[test]
    fn the_one_step_back_is_that_to_the_table_of_the_boot_partition() {
        // The table lies in chunk 0, the root directory and the files in chunk 1.
        let (read, _) = read_and_length(&image("resin-boot", CHUNK - 2048), true);
        let last = 10;
        assert!(read < (2 + last + 1) * CHUNK + CHUNK / 4, "{read} bytes were read");
    }
}
