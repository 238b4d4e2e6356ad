//! The image file as it is read: on a disk, or on a server; with its SHA-256, where that is asked for.

use crate::error::Error;
use crate::image::digest::Digest;
use crate::image::source::{FileSource, Source};
use crate::text::Text;
use core::cell::RefCell;
#[cfg(feature = "http")]
use {
    crate::balena::config,
    crate::error::Doing,
    crate::image::source::RemoteSource,
    crate::net::client::{Client, Settings},
    crate::net::proxy::Proxies,
    crate::net::remote::Remote,
    crate::net::trust::Trust,
    crate::net::url::Url,
    crate::sys::map,
};

/// A file whose SHA-256 must be `wanted` (hexadecimal digits), and is checked when it was read to its end. Empty: none
/// is asked for.
pub struct Checked<'a> {
    source: &'a dyn Source,
    wanted: &'a str,
    digest: RefCell<Option<Digest>>,
}

impl<'a> Checked<'a> {
    /// Takes a file to check.
    pub fn new(source: &'a dyn Source, wanted: &'a str) -> Self {
        let digest = (!wanted.is_empty()).then(Digest::default);
        Self { source, wanted, digest: RefCell::new(digest) }
    }
}

impl Source for Checked<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let count = self.source.read_at(offset, buffer)?;
        if let Some(digest) = &mut *self.digest.borrow_mut() {
            digest.take(offset, buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }

    fn length(&self) -> u64 {
        self.source.length()
    }

    fn is_remote(&self) -> bool {
        self.source.is_remote()
    }

    fn finish(&self) -> Result<(), Error> {
        let Some(mut digest) = self.digest.borrow_mut().take() else {
            return Ok(());
        };
        let found = digest.finish(self.source)?;
        if found.eq_ignore_ascii_case(self.wanted) {
            return Ok(());
        }
        let why: Text<240> = crate::text!("it is {}, and must be {}", found, self.wanted);
        Err(Error::refused("comparing the SHA-256 of", "the image", &why)
            .advice("fetch it again, or correct the digest"))
    }
}

/// Where the bytes of the image file are.
// One of them is there in a run, and it stays where it is.
#[allow(clippy::large_enum_variant)]
pub enum Place {
    /// On a disk.
    File(FileSource),
    /// On a server, to be read by ranges.
    #[cfg(feature = "http")]
    Server(RemoteSource),
}

impl Source for Place {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        match self {
            Place::File(source) => source.read_at(offset, buffer),
            #[cfg(feature = "http")]
            Place::Server(source) => source.read_at(offset, buffer),
        }
    }

    fn length(&self) -> u64 {
        match self {
            Place::File(source) => source.length(),
            #[cfg(feature = "http")]
            Place::Server(source) => source.length(),
        }
    }

    fn is_remote(&self) -> bool {
        !matches!(self, Place::File(_))
    }
}

/// Opens the image file at a path or a URL. The certificates that `config` adds are believed.
#[cfg(feature = "http")]
pub fn open(image: &str, config: Option<&[u8]>) -> Result<Place, Error> {
    /// What is begun is worth waiting for: with the pauses between them a quarter of an hour.
    const ATTEMPTS: u32 = 36;
    if !is_url(image) {
        return FileSource::open(image).map(Place::File);
    }
    let config = config.unwrap_or_default();
    let place = map::buffer(config.len().max(1)).doing("reserving", "memory")?;
    let extra = config::root_certificates(config, place)?;
    let trust = Trust { extra, file: "", only_these: false };
    #[cfg(feature = "tls")]
    crate::net::trust::check(&trust)?;
    let proxies = Proxies::of_environment();
    let client = Client::new(Settings { proxies, trust, ..Settings::default() })?;
    let mut remote = Remote::open(client, &Url::parse(image)?, None, 0, None)?;
    remote.set_attempts(ATTEMPTS);
    RemoteSource::new(remote).map(Place::Server)
}

/// The same, in a build that reads no URLs.
#[cfg(not(feature = "http"))]
pub fn open(image: &str, _: Option<&[u8]>) -> Result<Place, Error> {
    if is_url(image) {
        return Err(Error::usage("image", "this build reads no URLs: those with http do"));
    }
    FileSource::open(image).map(Place::File)
}

fn is_url(image: &str) -> bool {
    ["http://", "https://"].iter().any(|start| image.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `sha256sum` says of "abc" (FIPS 180-4, example B.1).
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn the_digest_is_checked_at_the_end_whatever_the_case() {
        let file = b"abc".to_vec();
        let finish = |wanted: &str| {
            let checked = Checked::new(&file, wanted);
            checked.read_at(0, &mut [0; 2]).unwrap();
            checked.finish().map_err(|error| error.kind().exit_code())
        };
        assert_eq!(finish(ABC), Ok(()));
        assert_eq!(finish(&ABC.to_ascii_uppercase()), Ok(()));
        assert_eq!(finish(""), Ok(()));
        assert_eq!(finish(&"0".repeat(64)), Err(3));
    }
}
