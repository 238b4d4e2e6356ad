//! The image, decoded once from end to end and looked into, before anything else is decided.

use crate::balena::layout::{self, DataPartition, Layout};
use crate::cli::{Flag, Options};
use crate::disk::table::{self, Table};
use crate::error::Error;
use crate::image::decode::Decoder;
use crate::image::format::{self, Stream};
use crate::image::map::ChunkMap;
use crate::image::reader::ImageReader;
use crate::image::scan::{self, Scan};
use crate::image::source::FileSource;
use crate::log::Stopwatch;

/// An image that was decoded from end to end and looked into.
pub struct Examined {
    /// Its bytes.
    pub source: FileSource,
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
    /// How long the scan took, in milliseconds.
    pub scan_time: u64,
}

/// Decodes the image to its end and looks into it. `buffer` is [`crate::image::decode::BUFFER`] long.
pub fn examine(options: &Options, buffer: &mut [u8]) -> Result<Examined, Error> {
    let watch = Stopwatch::start();
    let path = options.image.as_deref().unwrap_or_default();
    let source = FileSource::open(path).map_err(Error::as_refusal)?;
    let stream = format::detect(&source, path)?;
    let map = ChunkMap::create()?;
    let mut decoder = Decoder::new(&source, stream);
    let scan = scan::scan(&mut decoder, buffer, &map)?;
    let scan_time = watch.elapsed();
    let mut reader = ImageReader::new(&mut decoder, buffer);
    let of_image = |error: Error| error.about("the image");
    let table = table::read(&mut reader, scan.length).map_err(of_image)?;
    let layout = layout::find_boot(&mut reader, &table).map_err(of_image)?;
    let data = match options.backup.is_some() || options.has(Flag::FallbackLog) {
        true => layout::find_data(&mut reader, &table)?,
        false => None,
    };
    let image = Examined { source, stream, scan, map, table, layout, data, scan_time };
    image.log(watch);
    Ok(image)
}

impl Examined {
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
        let device_type = match self.layout.device_type.is_empty() {
            true => "no device",
            false => &self.layout.device_type,
        };
        crate::info!(
            "the image: {}, {} bytes ({}), {} chunks, {} % zeros, {} with {} partitions, for {} ({} s)",
            self.stream.format.name(),
            self.scan.length,
            crate::text::Size(self.scan.length),
            self.scan.chunks,
            self.zero_share(),
            self.table_name(),
            self.table.partitions.len(),
            device_type,
            watch.shown()
        );
    }
}
