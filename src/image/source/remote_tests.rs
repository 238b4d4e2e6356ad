//! Images on a server, and the server that the tests of images and downloads have.

use super::*;
use crate::image::decode::tests as decoding;
use crate::image::map::ChunkMap;
use crate::image::scan;
use crate::image::{CHUNK, decode, format};
use crate::net::fixtures::{Server, client, shown};
use std::sync::{Arc, Mutex, MutexGuard};

/// A file on a server, and what that server can do.
#[derive(Clone)]
pub(crate) struct File {
    pub body: Vec<u8>,
    pub tag: &'static str,
    pub modified: &'static str,
    pub has_ranges: bool,
    pub tells_length: bool,
    /// It takes the range, but looks at no If-Range.
    pub ignores_condition: bool,
    /// Each answer ends after so many bytes of the body.
    pub cut: usize,
    /// From so many answers on it gives none.
    pub answers: usize,
    pub status: &'static str,
}

impl File {
    pub fn of(body: &[u8]) -> Self {
        Self {
            body: body.to_vec(),
            tag: "\"one\"",
            modified: "",
            has_ranges: true,
            tells_length: true,
            ignores_condition: false,
            cut: usize::MAX,
            answers: usize::MAX,
            status: "200 OK",
        }
    }

    fn answer(&mut self, request: &str) -> (Vec<u8>, bool) {
        if self.answers == 0 {
            return (Vec::new(), false);
        }
        self.answers -= 1;
        let field = |name: &str| request.lines().find_map(|line| line.strip_prefix(name));
        let length = self.body.len();
        let from = field("Range: bytes=").map(|text| text.trim_end_matches('-').parse().unwrap());
        let is_same = self.ignores_condition
            || field("If-Range: ").is_none_or(|known| known == self.tag || known == self.modified);
        let from: Option<usize> = from.filter(|_| self.has_ranges && is_same);
        let (head, body) = match from {
            Some(from) if from >= length => {
                let head = format!("416 No\r\nContent-Range: bytes */{length}");
                (head, &[][..])
            }
            Some(from) if self.status.starts_with("200") => {
                let last = length - 1;
                let head = format!("206 Part\r\nContent-Range: bytes {from}-{last}/{length}");
                (head, &self.body[from..])
            }
            _ => (self.status.to_string(), &self.body[..]),
        };
        let mut answer = format!("HTTP/1.1 {head}\r\nConnection: close\r\n");
        for (name, value) in [("ETag", self.tag), ("Last-Modified", self.modified)] {
            if !value.is_empty() {
                answer += &format!("{name}: {value}\r\n");
            }
        }
        let sent = &body[..body.len().min(self.cut)];
        let mut answer = if self.tells_length {
            format!("{answer}Content-Length: {}\r\n\r\n", body.len()).into_bytes()
        } else {
            format!("{answer}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes()
        };
        answer.extend(sent);
        if !self.tells_length && sent.len() == body.len() {
            answer.extend(b"\r\n0\r\n\r\n");
        }
        (answer, false)
    }
}

/// A server with one file, which may change.
pub(crate) struct Shelf {
    pub server: Server,
    file: Arc<Mutex<File>>,
}

impl Shelf {
    pub fn with(file: File) -> Self {
        let file = Arc::new(Mutex::new(file));
        let served = Arc::clone(&file);
        let server = Server::start(move |_, request| served.lock().unwrap().answer(request));
        Self { server, file }
    }

    pub fn file(&self) -> MutexGuard<'_, File> {
        self.file.lock().unwrap()
    }

    fn open(&self) -> Result<RemoteSource, Error> {
        RemoteSource::new(Remote::open(client(), &self.server.url("/a.img"), None, 0, None)?)
    }
}

fn sample() -> Vec<u8> {
    decoding::member(&decoding::sample(3 * CHUNK + 77))
}

/// Decodes the whole image; gives the CRC of the packed bytes.
fn scan(source: &dyn Source) -> Result<u32, Error> {
    let stream = format::detect(source, "x")?;
    let map = ChunkMap::create()?;
    let mut decoder = decode::Decoder::new(source, stream);
    Ok(scan::scan(&mut decoder, &mut vec![0; decode::BUFFER], &map)?.packed_crc)
}

#[test]
fn an_image_is_read_at_its_server_as_from_a_file() {
    let packed = sample();
    let shelf = Shelf::with(File::of(&packed));
    let source = shelf.open().unwrap();
    assert_eq!((source.length(), source.is_remote()), (packed.len() as u64, true));
    for passes in 1..3 {
        assert_eq!(scan(&source).unwrap(), crate::crc32::crc32(&packed));
        assert_eq!(shelf.server.seen().len(), passes, "one request for each pass");
    }
    for (offset, count) in [(0, 10), (packed.len() - 5, 5), (packed.len(), 0), (usize::MAX, 0)] {
        let mut bytes = [0; 10];
        assert_eq!(source.read_at(offset as u64, &mut bytes).unwrap(), count);
        let start = offset.min(packed.len());
        assert_eq!(bytes[..count], packed[start..start + count]);
    }
}

#[test]
fn an_archive_is_found_by_its_end_and_read_at_its_server() {
    let image = decoding::sample(2 * CHUNK);
    let packed = miniz_oxide::deflate::compress_to_vec(&image, 6);
    let crc = crate::crc32::crc32(&image);
    let file = crate::image::zip::tests::archive(&packed, image.len() as u64, crc, 1, 8, false);
    let source = Shelf::with(File::of(&file)).open().unwrap();
    assert_eq!(scan(&source).unwrap(), crate::crc32::crc32(&packed));
}

#[test]
fn a_connection_that_breaks_again_and_again_is_taken_up_again() {
    let packed = sample();
    let shelf = Shelf::with(File { cut: 200_000, ..File::of(&packed) });
    assert_eq!(scan(&shelf.open().unwrap()).unwrap(), crate::crc32::crc32(&packed));
    assert!(shelf.server.seen().len() > packed.len() / 200_000);
}

#[test]
fn a_file_that_changes_between_two_passes_is_refused() {
    let packed = sample();
    let changed = |change: &dyn Fn(&mut File)| {
        let shelf = Shelf::with(File::of(&packed));
        let source = shelf.open().unwrap();
        scan(&source).unwrap();
        change(&mut shelf.file());
        shown(&scan(&source).unwrap_err())
    };
    let with_tag = changed(&|file| file.tag = "\"two\"");
    assert!(with_tag.contains("has changed since"), "{with_tag}");
    let ignoring = changed(&|file| (file.tag, file.ignores_condition) = ("\"two\"", true));
    assert!(ignoring.contains("has changed since"), "{ignoring}");
    let shorter = changed(&|file| file.body.truncate(1000));
    assert!(shorter.contains("has changed since"), "{shorter}");
}

#[test]
fn a_server_that_gives_no_ranges_no_length_or_no_validator_is_refused() {
    let file = File::of(&sample());
    for (file, why) in [
        (File { has_ranges: false, ..file.clone() }, "no ranges"),
        (File { has_ranges: false, tells_length: false, ..file.clone() }, "no ranges"),
        (File { tag: "", ..file.clone() }, "does not tell when a file changes"),
        (File { tag: "W/\"weak\"", ..file }, "does not tell when a file changes"),
    ] {
        let error = Shelf::with(file).open().err().unwrap();
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        let text = shown(&error);
        assert!(text.contains(why) && text.contains("takeover -d"), "{text}");
    }
}

#[test]
fn whoever_writes_nothing_reads_it_from_a_server_without_ranges_as_often_as_it_takes() {
    let packed = sample();
    let shelf = Shelf::with(File { has_ranges: false, ..File::of(&packed) });
    let open = || {
        let remote = Remote::open(client(), &shelf.server.url("/a.img"), None, 0, None)?;
        look_at(remote)
    };
    let source = open().unwrap();
    for _ in 0..2 {
        let crc = scan(&source).map_err(|error| shown(&error));
        assert_eq!(crc, Ok(crate::crc32::crc32(&packed)));
    }
    shelf.file().tag = "\"two\"";
    assert!(shown(&scan(&source).unwrap_err()).contains("has changed since"));
}

fn look_at(mut remote: Remote) -> Result<RemoteSource, Error> {
    let length = remote.find_length(u64::MAX)?;
    RemoteSource::for_a_look(remote, length)
}

#[test]
fn whoever_writes_nothing_reads_it_from_any_server() {
    let packed = sample();
    let image = decoding::sample(2 * CHUNK);
    let deflated = miniz_oxide::deflate::compress_to_vec(&image, 6);
    let (length, crc) = (image.len() as u64, crate::crc32::crc32(&image));
    // What tells the format of this one is at its end.
    let archive = crate::image::zip::tests::archive(&deflated, length, crc, 1, 8, false);
    for (body, crc) in
        [(&packed, crate::crc32::crc32(&packed)), (&archive, crate::crc32::crc32(&deflated))]
    {
        for (tag, has_ranges, tells_length) in
            [("", true, true), ("", false, true), ("", false, false), ("\"one\"", false, false)]
        {
            let file = File { tag, has_ranges, tells_length, ..File::of(body) };
            let shelf = Shelf::with(file.clone());
            let remote = Remote::open(client(), &shelf.server.url("/a"), None, 0, None).unwrap();
            let source = look_at(remote).unwrap();
            assert_eq!(source.length(), body.len() as u64);
            for _ in 0..2 {
                let found = scan(&source).map_err(|error| shown(&error));
                assert_eq!(found, Ok(crc), "{tag} {has_ranges} {tells_length}");
            }
            // Whoever cannot ask for the rest does not go on with another file's.
            shelf.file().cut = 300_000;
            assert!(scan(&source).is_err(), "{tag} {has_ranges} {tells_length}");
        }
    }
}

#[test]
fn the_length_of_what_has_no_end_is_not_found() {
    let file = File { tells_length: false, has_ranges: false, ..File::of(&vec![b'x'; 1_000_000]) };
    let shelf = Shelf::with(file);
    let mut remote = Remote::open(client(), &shelf.server.url("/a"), None, 0, None).unwrap();
    let found = remote.find_length(100_000).unwrap();
    assert!((100_001..200_000).contains(&found), "{found}");
}
