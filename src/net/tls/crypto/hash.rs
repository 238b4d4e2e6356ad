//! SHA-256, SHA-384 and SHA-512 (FIPS 180-4), chosen at run time, and HMAC with them (RFC 2104).

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Kind {
    /// The length of a digest in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The length of what is hashed at once, in bytes.
    const fn block(self) -> usize {
        if matches!(self, Self::Sha256) { 64 } else { 128 }
    }

    /// The last byte of its object identifier, 2.16.840.1.101.3.4.2.x (RFC 8017, appendix B.1).
    pub const fn identifier(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        }
    }
}

/// A digest.
#[derive(Clone, Copy, Debug)]
pub struct Output([u8; 64], usize);

impl Output {
    fn new(bytes: &[u8]) -> Self {
        let mut all = [0; 64];
        for (place, byte) in all.iter_mut().zip(bytes) {
            *place = *byte;
        }
        Self(all, bytes.len())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

/// A hash that is being computed.
#[derive(Clone)]
pub enum Hash {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
    /// SHA-512.
    Sha512(Sha512),
}

impl Hash {
    /// That of nothing yet.
    pub fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sha256 => Self::Sha256(Sha256::new()),
            Kind::Sha384 => Self::Sha384(Sha384::new()),
            Kind::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// Takes in more.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha384(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// The digest of all that was taken in.
    pub fn finish(self) -> Output {
        match self {
            Self::Sha256(hash) => Output::new(&hash.finalize()),
            Self::Sha384(hash) => Output::new(&hash.finalize()),
            Self::Sha512(hash) => Output::new(&hash.finalize()),
        }
    }
}

/// The digest of these pieces, one behind the other.
pub fn digest(kind: Kind, pieces: &[&[u8]]) -> Output {
    let mut hash = Hash::new(kind);
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finish()
}

/// HMAC with a key: the inner and the outer hash, each with the key taken in.
#[derive(Clone)]
pub struct Mac {
    inner: Hash,
    outer: Hash,
}

impl Mac {
    /// That of nothing yet.
    pub fn new(kind: Kind, key: &[u8]) -> Self {
        let mut block = [0; 128];
        let digest = digest(kind, &[key]);
        let key = if key.len() > kind.block() { digest.bytes() } else { key };
        for (place, byte) in block.iter_mut().zip(key) {
            *place = *byte;
        }
        let keyed = |pad: u8| {
            let mut hash = Hash::new(kind);
            hash.update(block.map(|byte| byte ^ pad).get(..kind.block()).unwrap_or_default());
            hash
        };
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    /// Takes in more.
    pub fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    /// The code of all that was taken in.
    pub fn finish(mut self) -> Output {
        self.outer.update(self.inner.finish().bytes());
        self.outer.finish()
    }
}
