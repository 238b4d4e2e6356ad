//! From packed bytes to the disk's bytes, chunk by chunk, in memory of fixed size.
//!
//! Inflates straight into the caller's buffer, which carries the last 32 KiB before the chunk in front of it: no byte
//! is copied twice. Every length and CRC that the format promises is checked where it stands. The CRC of each chunk
//! falls out of the same pass.

use super::gzip::{self, damaged};
use super::patches::Patches;
use super::source::Source;
use super::stream::{Format, Stream};
use super::{CHUNK, is_zero};
use crate::crc32;
use crate::error::Error;
use inflate::{Inflate, Status};

/// How far back deflate may refer, in bytes (RFC 1951, section 2).
pub const WINDOW: usize = 32 * 1024;

/// The length of the buffer that [`Decoder::fill`] wants: the window, then a chunk. Both are multiples of every
/// block size, so a page-aligned buffer has its chunk aligned for O_DIRECT.
pub const BUFFER: usize = WINDOW + CHUNK;

const INPUT: usize = 32 * 1024;

/// What one [`Decoder::fill`] brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filled {
    /// The chunk's length; less than [`CHUNK`] at the end of the image, 0 behind it.
    pub length: usize,
    /// The chunk's CRC-32.
    pub crc: u32,
    /// True when all its bytes are zero.
    pub zero: bool,
}

impl Filled {
    const NONE: Filled = Filled { length: 0, crc: 0, zero: true };

    /// Takes in the next piece of the chunk, and gives the CRC of that piece.
    fn add(&mut self, piece: &[u8]) -> u32 {
        let zero = is_zero(piece);
        let crc = if zero { crc32::of_zeros(piece.len() as u64) } else { crc32::crc32(piece) };
        self.crc = crc32::combine(self.crc, crc, piece.len() as u64);
        self.length += piece.len();
        self.zero &= zero;
        crc
    }
}

/// What of the packed stream comes next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Header,
    Body,
    Trailer,
    End,
}

/// Decodes an image from its beginning to its end. About 100 KiB.
pub struct Decoder<'a> {
    source: &'a dyn Source,
    stream: Stream,
    /// How much of the stream was read into `input`.
    taken: u64,
    input: [u8; INPUT],
    unread: core::ops::Range<usize>,
    next: Next,
    inflate: Inflate,
    history: [u8; WINDOW],
    members: u32,
    member_length: u64,
    member_crc: u32,
    packed_crc: u32,
    patches: Patches,
    /// The first patch that no chunk has had yet, and where the next chunk begins.
    next_patch: u32,
    produced: u64,
    /// The last chunk without its patches.
    bare: Filled,
}

impl<'a> Decoder<'a> {
    /// A decoder at the beginning of the image in `source`.
    pub fn new(source: &'a dyn Source, stream: Stream) -> Self {
        let mut decoder = Self {
            source,
            stream,
            taken: 0,
            input: [0; INPUT],
            unread: 0..0,
            next: Next::Header,
            inflate: Inflate::new(),
            history: [0; WINDOW],
            members: 0,
            member_length: 0,
            member_crc: 0,
            packed_crc: 0,
            patches: Patches::none(),
            next_patch: 0,
            produced: 0,
            bare: Filled::NONE,
        };
        decoder.restart();
        decoder
    }

    /// From the beginning on, gives the image with these patches in it, instead of those that are given back.
    pub fn patch(&mut self, patches: Patches) -> Patches {
        self.restart();
        core::mem::replace(&mut self.patches, patches)
    }

    /// What the last [`Decoder::fill`] brought before patches were laid over it: the image's own.
    pub fn bare(&self) -> Filled {
        self.bare
    }

    /// Goes back to the beginning.
    pub fn restart(&mut self) {
        self.taken = 0;
        self.unread = 0..0;
        self.members = 0;
        self.packed_crc = 0;
        self.next_patch = 0;
        self.produced = 0;
        match self.stream.format {
            Format::Gzip => self.next = Next::Header,
            Format::Raw | Format::Zip => self.begin_member(),
        }
    }

    /// Where the packed bytes lie.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The packed file.
    pub fn source(&self) -> &'a dyn Source {
        self.source
    }

    /// How many packed bytes were consumed.
    pub fn consumed(&self) -> u64 {
        self.taken - self.unread.len() as u64
    }

    /// How many bytes of the image were given.
    pub fn produced(&self) -> u64 {
        self.produced
    }

    /// The CRC-32 of the packed bytes that were read.
    pub fn packed_crc(&self) -> u32 {
        self.packed_crc
    }

    /// Decodes the next chunk into `buffer[WINDOW..]` and lays the patches over it; `buffer` is [`BUFFER`] long. A
    /// length of 0 means the end, and that everything the format promises has been checked.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<Filled, Error> {
        let start = self.produced;
        let mut filled = self.fill_bare(buffer)?;
        self.bare = filled;
        self.produced += filled.length as u64;
        if self.patches.meets(self.next_patch, start)? {
            let chunk = buffer.get_mut(WINDOW..WINDOW + filled.length).unwrap_or_default();
            self.next_patch = self.patches.lay_over(self.next_patch, start, chunk)?;
            filled = Filled::NONE;
            filled.add(chunk);
        }
        Ok(filled)
    }

    /// The same without patches.
    fn fill_bare(&mut self, buffer: &mut [u8]) -> Result<Filled, Error> {
        if self.stream.format == Format::Raw {
            return self.fill_raw(buffer);
        }
        if let Some(front) = buffer.get_mut(..WINDOW) {
            front.copy_from_slice(&self.history);
        }
        let mut filled = Filled::NONE;
        while filled.length < CHUNK && self.next != Next::End {
            match self.next {
                Next::Header => {
                    gzip::read_header(&mut || self.next_byte())?;
                    self.begin_member();
                }
                Next::Body => self.inflate_piece(buffer, &mut filled)?,
                Next::Trailer => self.check_trailer()?,
                Next::End => {}
            }
        }
        if let Some(last) = buffer.get(filled.length..filled.length + WINDOW) {
            self.history.copy_from_slice(last);
        }
        Ok(filled)
    }

    fn fill_raw(&mut self, buffer: &mut [u8]) -> Result<Filled, Error> {
        let left = self.stream.length - self.taken;
        let wanted = left.min(CHUNK as u64) as usize;
        let chunk = buffer.get_mut(WINDOW..WINDOW + wanted).unwrap_or_default();
        let count = self.source.read_at(self.stream.offset + self.taken, chunk)?;
        if count < wanted {
            return Err(shortened());
        }
        self.taken += count as u64;
        let mut filled = Filled::NONE;
        let crc = filled.add(chunk);
        self.packed_crc = crc32::combine(self.packed_crc, crc, count as u64);
        // The stored entry of a zip archive.
        let is_promised = self.stream.promised_length != 0 && self.taken == self.stream.length;
        if is_promised && self.packed_crc != self.stream.promised_crc {
            return Err(self.mismatch("CRC"));
        }
        Ok(filled)
    }

    /// Moves what is unread to the front and reads more behind it. True when there was more, false at the end of the
    /// packed bytes; when the file ends before them, whoever asks would ask for ever, so that is an error.
    fn read_more(&mut self) -> Result<bool, Error> {
        self.input.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let left = self.stream.length - self.taken;
        let space = self.input.get_mut(self.unread.end..).unwrap_or_default();
        let wanted = left.min(space.len() as u64) as usize;
        let space = space.get_mut(..wanted).unwrap_or_default();
        let count = self.source.read_at(self.stream.offset + self.taken, space)?;
        if count == 0 && wanted > 0 {
            return Err(shortened());
        }
        let new = space.get(..count).unwrap_or_default();
        self.packed_crc = crc32::extend(self.packed_crc, new);
        self.taken += count as u64;
        self.unread.end += count;
        Ok(count > 0)
    }

    fn pending(&self) -> &[u8] {
        self.input.get(self.unread.clone()).unwrap_or_default()
    }

    fn begin_member(&mut self) {
        self.inflate.restart();
        self.members += 1;
        self.member_length = 0;
        self.member_crc = 0;
        self.next = Next::Body;
    }

    fn next_byte(&mut self) -> Result<Option<u8>, Error> {
        if self.unread.is_empty() && !self.read_more()? {
            return Ok(None);
        }
        let byte = self.pending().first().copied();
        self.unread.start += 1;
        Ok(byte)
    }

    fn inflate_piece(&mut self, buffer: &mut [u8], filled: &mut Filled) -> Result<(), Error> {
        if self.unread.is_empty() {
            self.read_more()?;
        }
        let at = WINDOW + filled.length;
        let input = self.input.get(self.unread.clone()).unwrap_or_default();
        // Nothing before the member's start is shown: a distance into it is broken data (RFC 1951, section 3.2.3), and
        // would bring in what a former pass has left there, so that the scan and the flash could differ.
        let back = self.member_length.min(at as u64) as usize;
        let output = buffer.get_mut(at - back..).unwrap_or_default();
        let (status, read, written) = self.inflate.inflate(input, output, back);
        self.unread.start += read;
        let piece = buffer.get(at..at + written).unwrap_or_default();
        let crc = filled.add(piece);
        self.member_crc = crc32::combine(self.member_crc, crc, written as u64);
        self.member_length += written as u64;
        match status {
            Status::Done => self.next = Next::Trailer,
            Status::Output => {}
            // What is left of the input is shown again with more behind it.
            Status::Input => {
                if !self.read_more()? {
                    let why = "it ends in the middle of the packed data: the file is cut short";
                    return Err(damaged(why));
                }
            }
            Status::Broken => {
                let why: crate::text::Text<120> = crate::text!(
                    "the packed data is broken near byte {} of the file (member {})",
                    self.stream.offset + self.consumed(),
                    self.members
                );
                return Err(damaged(&why));
            }
        }
        Ok(())
    }

    fn check_trailer(&mut self) -> Result<(), Error> {
        if self.stream.format == Format::Zip {
            return self.check_zip_end();
        }
        while self.unread.len() < 8 {
            if !self.read_more()? {
                return Err(damaged(
                    "the last gzip member has no end (CRC and length): the file is cut short",
                ));
            }
        }
        let &[a, b, c, d, e, f, g, h] = self.pending().first_chunk().unwrap_or(&[0; 8]);
        self.unread.start += 8;
        if u32::from_le_bytes([a, b, c, d]) != self.member_crc {
            return Err(self.mismatch("CRC"));
        }
        if u32::from_le_bytes([e, f, g, h]) != self.member_length as u32 {
            return Err(self.mismatch("length"));
        }
        self.look_behind_member()
    }

    /// Behind a member lies a further one, or the end of the file, or zeros up to there: whoever writes to tapes and
    /// disks fills their blocks. All else gzip(1) leaves out with a warning, even members behind zeros: whether it
    /// belongs to the image nobody can tell here.
    fn look_behind_member(&mut self) -> Result<(), Error> {
        while self.unread.len() < 2 && self.read_more()? {}
        match self.pending() {
            [0x1f, 0x8b, ..] => self.next = Next::Header,
            [] => self.next = Next::End,
            // One byte only, which gzip(1) takes for the first one of a header, too.
            [byte] if *byte != 0 => return Err(gzip::cut()),
            _ => {
                while is_zero(self.pending()) {
                    self.unread = 0..0;
                    if !self.read_more()? {
                        self.next = Next::End;
                        return Ok(());
                    }
                }
                return Err(trailing());
            }
        }
        Ok(())
    }

    fn check_zip_end(&mut self) -> Result<(), Error> {
        // As unzip does, without a word on what follows the end of the deflate stream in the entry.
        self.unread = 0..0;
        while self.read_more()? {
            self.unread = 0..0;
        }
        if self.member_crc != self.stream.promised_crc {
            return Err(self.mismatch("CRC"));
        }
        // There are archivers that write the length of what is longer than 4 GiB modulo 2^32.
        if self.member_length as u32 != self.stream.promised_length as u32 {
            return Err(self.mismatch("length"));
        }
        self.next = Next::End;
        Ok(())
    }

    fn mismatch(&self, what: &'static str) -> Error {
        let why: crate::text::Text<120> = crate::text!(
            "the {} of member {} is not the one that was recorded: the file is damaged",
            what,
            self.members
        );
        damaged(&why)
    }
}

fn shortened() -> Error {
    Error::refused("decoding", "the image", "the file became shorter while it was read")
        .advice("nothing may write to it meanwhile")
}

/// Bytes behind the last member, which some publish on purpose: to fetch the file again would not help.
fn trailing() -> Error {
    let why = "after a whole gzip member there are bytes that are no further member";
    Error::refused("decoding", "the image", why)
        .advice("unpack it with gunzip, which leaves them out, and give the raw file")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::text::Text;
    use miniz_oxide::deflate::compress_to_vec;

    /// Bytes that pack to about half: pseudo-random nibbles with runs of zeros.
    pub fn sample(length: usize) -> Vec<u8> {
        let mut state = 0x1234_5678u32;
        (0..length)
            .map(|position| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let nibble = (state >> 28) as u8;
                if position % 5000 < 1000 { 0 } else { nibble }
            })
            .collect()
    }

    pub fn member(bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        file.extend(compress_to_vec(bytes, 6));
        file.extend(crc32::crc32(bytes).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file
    }

    fn stream(format: Format, file: &[u8]) -> Stream {
        Stream { format, offset: 0, length: file.len() as u64, promised_crc: 0, promised_length: 0 }
    }

    fn decode(file: &dyn Source, stream: Stream) -> Result<Vec<u8>, Error> {
        let mut decoder = Decoder::new(file, stream);
        let mut buffer = vec![0xaa; BUFFER];
        let mut image = Vec::new();
        loop {
            let filled = decoder.fill(&mut buffer)?;
            let chunk = &buffer[WINDOW..WINDOW + filled.length];
            assert_eq!(filled.crc, crc32::crc32(chunk));
            assert_eq!(filled.zero, is_zero(chunk));
            if filled.length == 0 {
                return Ok(image);
            }
            image.extend(chunk);
        }
    }

    fn refusal(file: &Vec<u8>) -> String {
        let error = decode(file, stream(Format::Gzip, file)).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let text: Text<500> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn any_number_of_members_is_one_image() {
        let image = sample(3 * CHUNK + 12_345);
        for cuts in [vec![], vec![CHUNK], vec![1, CHUNK + 7, 2 * CHUNK], vec![0, 0]] {
            let mut file = Vec::new();
            let mut start = 0;
            for end in cuts.into_iter().chain([image.len()]) {
                file.extend(member(&image[start..end]));
                start = end;
            }
            assert!(decode(&file, stream(Format::Gzip, &file)).unwrap() == image);
        }
    }

    #[test]
    fn patches_are_part_of_what_is_decoded_and_of_nothing_else() {
        let mut image = sample(2 * CHUNK + 1024);
        image[CHUNK..2 * CHUNK].fill(0);
        let sectors = [0, 2046, 2047, 2048, 4097];
        let mut wanted = image.clone();
        for sector in sectors {
            wanted[sector as usize * 512..][..512].fill(0xa5);
        }
        for file in [member(&image), image.clone()] {
            let mut patches = Patches::create().unwrap();
            for sector in sectors {
                patches.push(sector, &[0xa5; 512]).unwrap();
            }
            let found = crate::image::format::detect(&file, "x").unwrap();
            let mut decoder = Decoder::new(&file, found);
            let (mut buffer, mut packed_crc) = (vec![0; BUFFER], 0);
            for (round, wanted) in [&image, &wanted, &wanted].into_iter().enumerate() {
                let mut decoded = Vec::<u8>::new();
                loop {
                    let filled = decoder.fill(&mut buffer).unwrap();
                    let chunk = &buffer[WINDOW..WINDOW + filled.length];
                    assert_eq!((filled.crc, filled.zero), (crc32::crc32(chunk), is_zero(chunk)));
                    decoded.extend(chunk);
                    if filled.length == 0 {
                        break;
                    }
                }
                assert!(decoded == *wanted, "round {round}");
                assert!(round == 0 || packed_crc == decoder.packed_crc(), "the file's own CRC");
                packed_crc = decoder.packed_crc();
                if round == 0 {
                    let patches = core::mem::replace(&mut patches, Patches::none());
                    decoder.patch(patches);
                }
                decoder.restart();
            }
        }
    }

    #[test]
    fn raw_and_zip_give_the_same_bytes() {
        let image = sample(2 * CHUNK + 512);
        assert!(decode(&image, stream(Format::Raw, &image)).unwrap() == image);
        let packed = compress_to_vec(&image, 6);
        let crc = crc32::crc32(&image);
        let file = crate::image::zip::tests::archive(&packed, image.len() as u64, crc, 1, 8, false);
        let found = crate::image::zip::find_entry(&file, "x").unwrap();
        assert!(decode(&file, found).unwrap() == image);
        let wrong = Stream { promised_crc: crc ^ 1, ..found };
        assert!(decode(&file, wrong).is_err());
        let wrong = Stream { promised_length: 1, ..found };
        assert!(decode(&file, wrong).is_err());
    }

    #[test]
    fn a_restart_begins_again() {
        let image = sample(CHUNK + 100);
        let file = member(&image);
        let mut decoder = Decoder::new(&file, stream(Format::Gzip, &file));
        let mut buffer = vec![0; BUFFER];
        let first = decoder.fill(&mut buffer).unwrap();
        decoder.fill(&mut buffer).unwrap();
        decoder.restart();
        assert_eq!(decoder.fill(&mut buffer).unwrap(), first);
    }

    #[test]
    fn a_cut_file_is_refused_wherever_it_is_cut() {
        let file = member(&sample(5000));
        for end in [3, 9, 10, 11, 500, file.len() - 9, file.len() - 8, file.len() - 1] {
            assert!(refusal(&file[..end].to_vec()).contains("cut short"), "cut at {end}");
        }
    }

    /// A file that had `promised` bytes when it was opened.
    struct Shortened {
        bytes: Vec<u8>,
        promised: u64,
        empty_reads: std::cell::Cell<u32>,
    }

    impl Source for Shortened {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
            let count = self.bytes.read_at(offset, buffer)?;
            let empty = self.empty_reads.get() + u32::from(count == 0);
            self.empty_reads.set(empty);
            assert!(empty < 100, "it is read for ever");
            Ok(count)
        }
        fn length(&self) -> u64 {
            self.promised
        }
    }

    /// Why a file is refused that was cut at `end` after it was opened.
    fn refusal_when_shortened(file: &[u8], stream: Stream, end: usize) -> String {
        let bytes = file[..end].to_vec();
        let promised = file.len() as u64;
        let source = Shortened { bytes, promised, empty_reads: Default::default() };
        let mut decoder = Decoder::new(&source, stream);
        let mut buffer = vec![0; BUFFER];
        let error = loop {
            match decoder.fill(&mut buffer) {
                Ok(filled) => assert_ne!(filled.length, 0, "cut at {end}, it is whole"),
                Err(error) => break error,
            }
        };
        let text: Text<500> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn a_file_that_became_shorter_is_refused_and_not_read_for_ever() {
        let shorter = "became shorter";
        let image = sample(CHUNK + 300_000);
        let first = member(&image);
        let file = [&first[..], &first].concat();
        let (header, trailer) = (first.len() + 4, file.len() - 5);
        for end in [0, 1, 5, 10, 11, INPUT, INPUT + 1, first.len(), header, header + 6, trailer] {
            let why = refusal_when_shortened(&file, stream(Format::Gzip, &file), end);
            assert!(why.contains(shorter), "gzip cut at {end}: {why}");
        }
        let packed = compress_to_vec(&image, 6);
        let crc = crc32::crc32(&image);
        let file = crate::image::zip::tests::archive(&packed, image.len() as u64, crc, 1, 8, false);
        let found = crate::image::zip::find_entry(&file, "x").unwrap();
        let start = found.offset as usize;
        for end in [0, start, start + 1, start + INPUT, start + packed.len() - 1] {
            let why = refusal_when_shortened(&file, found, end);
            assert!(why.contains(shorter), "zip cut at {end}: {why}");
        }
        for end in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, image.len() - 1] {
            let why = refusal_when_shortened(&image, stream(Format::Raw, &image), end);
            assert!(why.contains(shorter), "raw cut at {end}: {why}");
        }
    }

    /// A member of stored blocks: of about the length of what it holds.
    pub fn stored_member(bytes: &[u8], block_length: u16) -> Vec<u8> {
        let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        let mut blocks = bytes.chunks(block_length.into()).peekable();
        while let Some(block) = blocks.next() {
            let length = block.len() as u16;
            file.push(blocks.peek().is_none().into());
            file.extend(length.to_le_bytes());
            file.extend((!length).to_le_bytes());
            file.extend(block);
        }
        file.extend(crc32::crc32(bytes).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file
    }

    /// A gzip file of one member that ends at `end`, and what it holds.
    fn member_that_ends_at(end: usize) -> (Vec<u8>, Vec<u8>) {
        // The header, five bytes before each of two blocks, CRC and length.
        let content = sample(end - 10 - 2 * 5 - 8);
        let file = stored_member(&content, 30_000);
        assert_eq!(file.len(), end);
        (file, content)
    }

    /// A member whose header has a name of `length` bytes.
    fn named_member(length: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = member(bytes);
        file[3] = 8;
        file.splice(10..10, std::iter::repeat_n(b'n', length).chain([0]));
        file
    }

    #[test]
    fn headers_and_trailers_across_the_end_of_the_input_buffer() {
        for before in 0..=20 {
            for name in [0, 5, before + 1, 3000] {
                let (mut file, mut image) = member_that_ends_at(INPUT - before);
                let second = sample(40_000);
                file.extend(named_member(name, &second));
                image.extend(second);
                let decoded = decode(&file, stream(Format::Gzip, &file));
                assert!(decoded.unwrap() == image, "{before} bytes before, a name of {name}");
            }
        }
        // The first member's trailer itself.
        for behind in 1..8 {
            let (mut file, mut image) = member_that_ends_at(INPUT + behind);
            file.extend(member(b"second"));
            image.extend(b"second");
            assert!(decode(&file, stream(Format::Gzip, &file)).unwrap() == image, "{behind}");
        }
    }

    /// Gives at most `most` bytes a time.
    struct Sparing<'a> {
        bytes: &'a Vec<u8>,
        most: usize,
    }

    impl Source for Sparing<'_> {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
            let most = buffer.len().min(self.most);
            self.bytes.read_at(offset, &mut buffer[..most])
        }
        fn length(&self) -> u64 {
            self.bytes.length()
        }
    }

    #[test]
    fn bytes_that_come_a_few_at_a_time() {
        let content = sample(3000);
        let parts = [&content[..7], &content[7..7], &content[7..2000], &content[2000..]];
        let file: Vec<_> = parts.into_iter().flat_map(|part| named_member(12, part)).collect();
        let packed = compress_to_vec(&content, 6);
        let (length, crc) = (content.len() as u64, crc32::crc32(&content));
        let archive = crate::image::zip::tests::archive(&packed, length, crc, 1, 8, false);
        let entry = crate::image::zip::find_entry(&archive, "x").unwrap();
        for most in 1..40 {
            for (bytes, stream) in [(&file, stream(Format::Gzip, &file)), (&archive, entry)] {
                let decoded = decode(&Sparing { bytes, most }, stream);
                assert!(decoded.unwrap() == content, "{most} bytes a time");
            }
        }
    }

    #[test]
    fn a_distance_to_before_the_member_is_refused() {
        // A block of fixed codes: the literal `a`, a match of length 3 at distance 2, the end.
        let mut reaching = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b, 0x04, 0x42, 0];
        let zeros = [&reaching[..], &crc32::crc32(b"a\0a\0").to_le_bytes(), &[4, 0, 0, 0]].concat();
        assert!(refusal(&zeros).contains("broken"));
        reaching.extend(crc32::crc32(b"azaz").to_le_bytes());
        reaching.extend([4, 0, 0, 0]);
        let into_the_member_before = [member(b"xyz"), reaching].concat();
        assert!(refusal(&into_the_member_before).contains("member 2"));
    }

    #[test]
    fn damage_is_refused_and_named() {
        let good = member(&sample(200_000));
        let mut wrong_crc = good.clone();
        let at = wrong_crc.len() - 8;
        wrong_crc[at] ^= 1;
        assert!(refusal(&wrong_crc).contains("CRC of member 1"));
        let mut wrong_length = good.clone();
        let at = wrong_length.len() - 1;
        wrong_length[at] ^= 1;
        assert!(refusal(&wrong_length).contains("length of member 1"));
        let mut second = good.clone();
        second.extend(member(&sample(100_000)));
        let middle = good.len() + 1000;
        second[middle..middle + 50].fill(0xff);
        assert!(refusal(&second).contains("member 2"));
    }

    #[test]
    fn a_raw_file_that_becomes_shorter_is_no_shorter_image() {
        let file = sample(CHUNK + 512);
        let promised = Stream { length: file.len() as u64 + 1, ..stream(Format::Raw, &file) };
        let mut decoder = Decoder::new(&file, promised);
        let mut buffer = vec![0; BUFFER];
        assert_eq!(decoder.fill(&mut buffer).unwrap().length, CHUNK);
        let text: Text<500> = crate::text!("{}", decoder.fill(&mut buffer).unwrap_err());
        assert!(text.contains("became shorter"), "{}", &*text);
    }

    #[test]
    fn zeros_behind_the_last_member_are_taken() {
        let image = sample(5000);
        for zeros in [1, 2, 7, 511, INPUT - 1, INPUT, 3 * INPUT + 1] {
            let mut file = member(&image);
            file.resize(file.len() + zeros, 0);
            let mut decoder = Decoder::new(&file, stream(Format::Gzip, &file));
            let mut buffer = vec![0; BUFFER];
            assert_eq!(decoder.fill(&mut buffer).unwrap().length, image.len());
            assert_eq!(decoder.fill(&mut buffer).unwrap().length, 0);
            assert_eq!(
                (decoder.consumed(), decoder.packed_crc()),
                (file.len() as u64, crc32::crc32(&file))
            );
            let source = Sparing { bytes: &file, most: 3 };
            assert!(decode(&source, stream(Format::Gzip, &file)).unwrap() == image);
        }
    }

    #[test]
    fn other_bytes_behind_the_last_member_are_refused_with_what_helps() {
        let zeros = vec![0; 2 * INPUT];
        for behind in [&b"garbage"[..], b"\x1f\x00", b"PK", b"\x00\x1f\x8b\x08", b"\x00\x00x"] {
            let file = [&member(b"content"), behind].concat();
            assert!(refusal(&file).contains("gunzip"), "{behind:?}");
            let file = [&member(b"content"), &zeros[..], behind].concat();
            assert!(refusal(&file).contains("gunzip"), "zeros and {behind:?}");
        }
        // Gzip(1) says of these that they are cut short.
        for behind in [&b"x"[..], b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08"] {
            let file = [&member(b"content"), behind].concat();
            assert!(refusal(&file).contains("cut short"), "{behind:?}");
        }
    }

    #[test]
    fn a_stored_entry_of_a_zip_is_checked_by_its_crc() {
        let image = sample(CHUNK + 512);
        let crc = crc32::crc32(&image);
        let file = crate::image::zip::tests::archive(&image, image.len() as u64, crc, 1, 0, false);
        let found = crate::image::zip::find_entry(&file, "x").unwrap();
        assert!(decode(&file, found).unwrap() == image);
        let mut damaged = file.clone();
        damaged[found.offset as usize + CHUNK + 7] ^= 1;
        let text: Text<500> = crate::text!("{}", decode(&damaged, found).unwrap_err());
        assert!(text.contains("CRC"), "{}", &*text);
    }

    #[test]
    fn bytes_behind_the_end_in_a_zip_entry_are_left_out() {
        let image = sample(5000);
        let mut packed = compress_to_vec(&image, 6);
        packed.resize(packed.len() + 2 * INPUT, 7);
        let crc = crc32::crc32(&image);
        let file = crate::image::zip::tests::archive(&packed, image.len() as u64, crc, 1, 8, false);
        let found = crate::image::zip::find_entry(&file, "x").unwrap();
        assert!(decode(&file, found).unwrap() == image);
    }
}
