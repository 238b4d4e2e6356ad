//! Where the image comes from: a file, a server that is read by ranges, or a download into the work directory.
//!
//! Which of them it is, and what digest it must have, no decoder needs to know: see [`Source`].

#[cfg(feature = "http")]
use super::download::Download;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::digest::{Digest, Hex};
#[cfg(feature = "http")]
use crate::image::source::RemoteSource;
use crate::image::source::{FileSource, Source};
#[cfg(feature = "http")]
use crate::text::PathText;
use crate::text::Text;
use core::cell::RefCell;
use rustix::fd::OwnedFd;
use rustix::fs::FileType;
#[cfg(feature = "http")]
use rustix::fs::OFlags;

/// The bytes of the image file that was asked for.
pub struct ImageSource {
    bytes: Bytes,
    name: Text<160>,
    digest: RefCell<Option<Digest>>,
    /// What it must be, and once the file was read to its end, what it is. Empty: nobody asks.
    wanted: Hex,
    found: RefCell<Hex>,
    /// What a takeover would put into the work directory where a dry run puts nothing, in bytes.
    #[cfg(feature = "http")]
    not_stored: u64,
}

/// What is asked about the SHA-256 of a file.
#[derive(Clone, Copy, Default)]
pub struct Sum<'a> {
    /// What it must be, in lower case.
    pub wanted: Option<&'a str>,
    /// It is said what it is.
    pub is_told: bool,
}

// One of them is there in a run, and it stays where it is.
#[allow(clippy::large_enum_variant)]
enum Bytes {
    File(FileSource),
    #[cfg(feature = "http")]
    Remote(RemoteSource),
    #[cfg(feature = "http")]
    Download(Download),
}

/// True for the URL of an image, of which nothing is known yet.
pub fn is_url(image: &str) -> bool {
    image.split_once("://").is_some_and(|(scheme, _)| {
        ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
    })
}

impl ImageSource {
    /// The file at this path.
    pub fn file(path: &str, sum: Sum<'_>) -> Result<Self, Error> {
        let is_folder = files::status(path)
            .is_ok_and(|it| FileType::from_raw_mode(it.st_mode) == FileType::Directory);
        let opened = if is_folder {
            Err(Error::refused("opening", path, "it is a folder"))
        } else {
            FileSource::open(path)
        };
        let source = opened.map_err(|error| {
            error.as_refusal().or_advice("give the path of an image file, or a URL")
        })?;
        Ok(Self::new(Bytes::File(source), Text::from(path), sum))
    }

    /// A file on a server, which is read by ranges and not stored.
    #[cfg(feature = "http")]
    pub fn remote(source: RemoteSource, name: Text<160>, sum: Sum<'_>) -> Self {
        Self::new(Bytes::Remote(source), name, sum)
    }

    /// A file on a server, which is fetched while it is read.
    #[cfg(feature = "http")]
    pub fn download(download: Download, name: Text<160>, sum: Sum<'_>) -> Self {
        Self::new(Bytes::Download(download), name, sum)
    }

    fn new(bytes: Bytes, name: Text<160>, sum: Sum<'_>) -> Self {
        let is_asked_for = sum.wanted.is_some() || sum.is_told;
        let digest = RefCell::new(is_asked_for.then(Digest::default));
        let wanted = sum.wanted.map(Text::from).unwrap_or_default();
        Self {
            bytes,
            name,
            digest,
            wanted,
            found: RefCell::default(),
            #[cfg(feature = "http")]
            not_stored: 0,
        }
    }

    /// The same, of which a takeover would put so many bytes into the work directory.
    #[cfg(feature = "http")]
    pub fn storing(self, not_stored: u64) -> Self {
        Self { not_stored, ..self }
    }

    /// How many bytes a takeover still puts into the work directory: in a dry run all of them, to its end.
    #[cfg(feature = "http")]
    pub fn to_be_stored(&self) -> u64 {
        self.not_stored + self.to_come()
    }

    /// What people are told that it is: a path, or a URL without what is secret.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the file is that was fetched, and its SHA-256.
    #[cfg(feature = "http")]
    pub fn kept(&self) -> Option<(PathText, Hex)> {
        match &self.bytes {
            Bytes::Download(download) => Some((download.path().ok()?, self.found.borrow().clone())),
            _ => None,
        }
    }

    /// The file once more, open; nothing for what is on a server only.
    pub fn opened(&self) -> Result<Option<OwnedFd>, Error> {
        match &self.bytes {
            Bytes::File(source) => {
                let copy = rustix::io::fcntl_dupfd_cloexec(source.descriptor(), 0);
                copy.doing("opening again", &self.name).map(Some)
            }
            #[cfg(feature = "http")]
            Bytes::Remote(_) => Ok(None),
            #[cfg(feature = "http")]
            Bytes::Download(source) => files::opened(&source.path()?, OFlags::RDONLY).map(Some),
        }
    }

    fn bytes(&self) -> &dyn Source {
        match &self.bytes {
            Bytes::File(source) => source,
            #[cfg(feature = "http")]
            Bytes::Remote(source) => source,
            #[cfg(feature = "http")]
            Bytes::Download(source) => source,
        }
    }

    fn check_digest(&self) -> Result<(), Error> {
        let Some(mut digest) = self.digest.borrow_mut().take() else {
            return Ok(());
        };
        let found = digest.finish(self.bytes())?;
        if !self.wanted.is_empty() && found != self.wanted {
            let why: Text<240> = crate::text!("it is {}, and must be {}", found, self.wanted);
            return Err(Error::refused("comparing the SHA-256 of", &self.name, &why)
                .advice("fetch it again, or correct --sha256"));
        }
        self.found.replace(found);
        Ok(())
    }
}

impl Source for ImageSource {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = self.bytes().read_at(offset, buffer);
        let count = read.map_err(|error| {
            error.or_advice("try again; if that stays, fetch the image anew, or to another disk")
        })?;
        if let Some(digest) = &mut *self.digest.borrow_mut() {
            digest.take(offset, buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }

    fn length(&self) -> u64 {
        self.bytes().length()
    }

    fn is_remote(&self) -> bool {
        self.bytes().is_remote()
    }

    fn to_come(&self) -> u64 {
        self.bytes().to_come()
    }

    fn finish(&self) -> Result<(), Error> {
        self.check_digest()?;
        self.bytes().finish()
    }

    fn reject(&self) {
        self.bytes().reject();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::CHUNK;
    use crate::image::decode::{BUFFER, tests as decoding};
    use crate::new_os::examination::{ImageFile, examine};

    fn sum(wanted: &str) -> Sum<'_> {
        Sum { wanted: Some(wanted), is_told: false }
    }

    fn digest_of(bytes: &[u8]) -> Hex {
        Digest::default().finish(&bytes.to_vec()).unwrap()
    }

    /// An image with a partition table, in an archive: its directory and a comment are never decoded.
    fn archive() -> Vec<u8> {
        let mut image = crate::disk::mbr::tests::disk(&[(0x0c, 2048, 200)], 6144);
        image[CHUNK..2 * CHUNK].copy_from_slice(&decoding::sample(CHUNK));
        let volume = crate::disk::fat::tests::volume_of("x", &[]);
        image[CHUNK..CHUNK + volume.len()].copy_from_slice(&volume);
        let packed = miniz_oxide::deflate::compress_to_vec(&image, 6);
        let (length, crc) = (image.len() as u64, crate::crc32::crc32(&image));
        let mut file = crate::image::zip::tests::archive(&packed, length, crc, 1, 8, false);
        file.extend([7; 3000]);
        file
    }

    fn look(source: &ImageSource) -> Result<(), String> {
        let looked = ImageFile::open(source, source.name()).and_then(|file| {
            examine(file, false, &mut vec![0; BUFFER], &mut |_, _, _| Ok(())).map(drop)
        });
        looked.map_err(|error| {
            assert_eq!(error.kind(), crate::error::Kind::Refused);
            let text: Text<500> = crate::text!("{}", error);
            text.to_string()
        })
    }

    #[test]
    fn all_of_a_file_is_what_its_digest_is_of() {
        let path = std::env::temp_dir().join(format!("takeover-digest-{}", std::process::id()));
        let path = path.to_str().unwrap();
        let mut file = archive();
        let digest = digest_of(&file);
        std::fs::write(path, &file).unwrap();
        look(&ImageSource::file(path, sum(&digest)).unwrap()).unwrap();
        // Behind everything that is decoded.
        *file.last_mut().unwrap() ^= 1;
        std::fs::write(path, &file).unwrap();
        let why = look(&ImageSource::file(path, sum(&digest)).unwrap()).unwrap_err();
        let other = digest_of(&file);
        assert!(why.contains(&*digest) && why.contains(&*other) && why.contains(path), "{why}");
        std::fs::remove_file(path).unwrap();
    }

    #[cfg(feature = "http")]
    #[test]
    fn what_has_not_the_digest_is_not_kept() {
        use crate::image::source::remote_tests::{File, Shelf};
        use crate::net::fixtures::client;
        use crate::net::remote::Remote;
        use crate::stage1::prepare::download::Order;
        let folder = std::env::temp_dir().join(format!("takeover-sums-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = archive();
        let shelf = Shelf::with(File::of(&file));
        let url = shelf.server.url("/a.zip?secret");
        let folder_name = folder.to_str().unwrap();
        let order = Order { url: &url, bearer: None, name: url.file_name(), folder: folder_name };
        let fetch = |sum| {
            ImageSource::download(Download::open(client(), &order).unwrap(), url.shown(), sum)
        };
        let zeros = "0".repeat(64);
        let why = look(&fetch(sum(&zeros))).unwrap_err();
        assert!(why.contains(&zeros) && why.contains(&*digest_of(&file)), "{why}");
        assert!(!why.contains("secret"), "{why}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let remote = Remote::open(client(), &url, None, 0, None).unwrap();
        let remote = RemoteSource::new(remote).unwrap();
        let remote = ImageSource::remote(remote, url.shown(), sum(&zeros));
        assert!(look(&remote).is_err() && remote.kept().is_none());

        let source = fetch(Sum { wanted: Some(&digest_of(&file)), is_told: true });
        look(&source).unwrap();
        let (path, digest) = source.kept().unwrap();
        assert_eq!((std::fs::read(&*path).unwrap(), digest), (file.clone(), digest_of(&file)));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn urls_are_told_from_files() {
        for (image, expected) in [
            ("http://a/b", true),
            ("HTTPS://a/b", true),
            ("ftp://a/b", false),
            ("./http/a", false),
            ("http:/a", false),
            ("image.img", false),
        ] {
            assert_eq!(is_url(image), expected, "{image}");
        }
    }
}
