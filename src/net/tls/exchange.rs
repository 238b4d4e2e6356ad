//! The exchange of keys as rustls asks for it: X25519, P-256 and P-384 (RFC 8446, 4.2.8.2), and random numbers.
//!
//! A secret is used once: rustls asks for a new one with every handshake.

use super::crypto::curve::{Curve, P256, P384};
use super::crypto::x25519;
use rustix::rand::{GetRandomFlags, getrandom};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// The preferred one first: it alone is sent without being asked for.
pub static GROUPS: &[&dyn SupportedKxGroup] = &[
    &Group(NamedGroup::X25519, None),
    &Group(NamedGroup::secp256r1, Some(&P256)),
    &Group(NamedGroup::secp384r1, Some(&P384)),
];

/// The longest coordinate, in bytes.
const LONGEST: usize = 48;

/// A group, with its curve; without one it is X25519.
#[derive(Debug)]
struct Group(NamedGroup, Option<&'static Curve>);

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut secret = [0; LONGEST];
        random(&mut secret).ok_or(Error::FailedToGetRandomBytes)?;
        let mut exchange = Exchange {
            group: self.0,
            curve: self.1,
            secret,
            public: [0; 1 + 2 * LONGEST],
            length: self.1.map_or(32, |curve| 1 + 2 * curve.length()),
        };
        // A number that is no scalar comes up once in 2^32 times.
        exchange.publish().ok_or(Error::FailedToGetRandomBytes)?;
        Ok(Box::new(exchange))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

struct Exchange {
    group: NamedGroup,
    curve: Option<&'static Curve>,
    secret: [u8; LONGEST],
    /// What the other end is sent: so many bytes.
    public: [u8; 1 + 2 * LONGEST],
    length: usize,
}

impl Exchange {
    fn secret_of_32(&self) -> Option<&[u8; 32]> {
        self.secret.first_chunk()
    }

    /// Computes what the other end is sent.
    fn publish(&mut self) -> Option<()> {
        let Some(curve) = self.curve else {
            let public = x25519::multiple(self.secret_of_32()?, &x25519::BASE)?;
            *self.public.first_chunk_mut()? = public;
            return Some(());
        };
        let scalar = curve.scalar(self.secret.get(..curve.length())?)?;
        let arithmetic = curve.arithmetic();
        let point = arithmetic.multiple(&scalar, &arithmetic.base());
        arithmetic.write(&point, self.public.get_mut(..self.length)?)
    }

    /// What both ends know then, from what the other end sent: its point must be on the curve, and for X25519 none of
    /// small order, whose secret would be zeros.
    fn shared(&self, peer: &[u8]) -> Option<SharedSecret> {
        let Some(curve) = self.curve else {
            let shared = x25519::multiple(self.secret_of_32()?, peer.try_into().ok()?)?;
            return Some(SharedSecret::from(&shared[..]));
        };
        let scalar = curve.scalar(self.secret.get(..curve.length())?)?;
        let arithmetic = curve.arithmetic();
        let point = arithmetic.multiple(&scalar, &arithmetic.point(peer)?);
        let mut bytes = [0; 1 + 2 * LONGEST];
        arithmetic.write(&point, bytes.get_mut(..self.length)?)?;
        // x alone.
        bytes.get(1..=curve.length()).map(SharedSecret::from)
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        self.shared(peer).ok_or_else(|| PeerMisbehaved::InvalidKeyShare.into())
    }

    fn pub_key(&self) -> &[u8] {
        self.public.get(..self.length).unwrap_or_default()
    }

    fn group(&self) -> NamedGroup {
        self.group
    }
}

/// Fills it with random bytes of the kernel; None where it has none. Waits until it has, right after the start.
pub fn random(mut bytes: &mut [u8]) -> Option<()> {
    while !bytes.is_empty() {
        let count = getrandom(&mut *bytes, GetRandomFlags::empty()).ok()?;
        bytes = bytes.get_mut(count..)?;
    }
    Some(())
}
