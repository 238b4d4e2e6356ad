//! Hashes and HMAC as rustls asks for them.

use super::crypto::hash::{self as ours, Kind, digest};
use rustls::crypto::hash::{self, HashAlgorithm};
use rustls::crypto::hmac;

/// SHA-256.
pub static SHA256: Hash = Hash(Kind::Sha256, HashAlgorithm::SHA256);
/// SHA-384.
pub static SHA384: Hash = Hash(Kind::Sha384, HashAlgorithm::SHA384);

/// A hash.
pub struct Hash(Kind, HashAlgorithm);

impl hash::Hash for Hash {
    fn start(&self) -> Box<dyn hash::Context> {
        Box::new(Context(ours::Hash::new(self.0)))
    }

    fn hash(&self, data: &[u8]) -> hash::Output {
        hash::Output::new(digest(self.0, &[data]).bytes())
    }

    fn output_len(&self) -> usize {
        self.0.length()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.1
    }
}

struct Context(ours::Hash);

impl hash::Context for Context {
    fn fork_finish(&self) -> hash::Output {
        hash::Output::new(self.0.clone().finish().bytes())
    }

    fn fork(&self) -> Box<dyn hash::Context> {
        Box::new(Self(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> hash::Output {
        hash::Output::new(self.0.finish().bytes())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

/// HMAC with SHA-256.
pub static MAC256: Mac = Mac(Kind::Sha256);
/// HMAC with SHA-384.
pub static MAC384: Mac = Mac(Kind::Sha384);

/// HMAC.
pub struct Mac(Kind);

impl hmac::Hmac for Mac {
    fn with_key(&self, key: &[u8]) -> Box<dyn hmac::Key> {
        Box::new(MacKey(ours::Mac::new(self.0, key), self.0.length()))
    }

    fn hash_output_len(&self) -> usize {
        self.0.length()
    }
}

struct MacKey(ours::Mac, usize);

impl hmac::Key for MacKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> hmac::Tag {
        let mut mac = self.0.clone();
        mac.update(first);
        middle.iter().for_each(|piece| mac.update(piece));
        mac.update(last);
        hmac::Tag::new(mac.finish().bytes())
    }

    fn tag_len(&self) -> usize {
        self.1
    }
}
