//! P-256 by RustCrypto's p256: the key exchange, and signatures of certificates and handshakes. ring's comes with a table
//! of 151,552 bytes on machines of 64 bits.
//!
//! Takes points as TLS has them, uncompressed (RFC 8446, 4.2.8.2), and none that is not on the curve: p256 sees to that.

use super::der;
use p256::ecdh::diffie_hellman;
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::{PublicKey, SecretKey};
use ring::{digest, rand};
use rustls::crypto::{ActiveKeyExchange, SharedSecret, SupportedKxGroup};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// The first byte of a point of which both coordinates are given (SEC 1, 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// The bytes of such a point.
const POINT: usize = 65;

/// A point on the curve, from what a peer or a certificate says.
fn point(bytes: &[u8]) -> Option<PublicKey> {
    if bytes.len() != POINT || bytes.first() != Some(&UNCOMPRESSED) {
        return None;
    }
    PublicKey::from_sec1_bytes(bytes).ok()
}

/// The key exchange.
pub static GROUP: Group = Group;

/// See [`GROUP`].
#[derive(Debug)]
pub struct Group;

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut bytes = [0; 32];
        // Of 2^32 numbers one is none of the curve's; of a source that gives none but those nothing can be made.
        for _ in 0..4 {
            rand::SecureRandom::fill(&rand::SystemRandom::new(), &mut bytes)
                .map_err(|_| Error::FailedToGetRandomBytes)?;
            if let Ok(secret) = SecretKey::from_slice(&bytes) {
                let mut public = [0; POINT];
                let point = secret.public_key().to_sec1_point(false);
                for (to, from) in public.iter_mut().zip(point.as_bytes()) {
                    *to = *from;
                }
                return Ok(Box::new(Exchange { secret, public }));
            }
        }
        Err(Error::FailedToGetRandomBytes)
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

struct Exchange {
    secret: SecretKey,
    public: [u8; POINT],
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = point(peer).ok_or(PeerMisbehaved::InvalidKeyShare)?;
        let shared = diffie_hellman(self.secret.to_nonzero_scalar(), peer.as_affine());
        Ok(SharedSecret::from(shared.raw_secret_bytes().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

/// ECDSA with SHA-256.
pub static SHA256: &dyn SignatureVerificationAlgorithm =
    &Ecdsa { digest: &digest::SHA256, identifier: alg_id::ECDSA_SHA256 };
/// ECDSA with SHA-384.
pub static SHA384: &dyn SignatureVerificationAlgorithm =
    &Ecdsa { digest: &digest::SHA384, identifier: alg_id::ECDSA_SHA384 };

#[derive(Debug)]
struct Ecdsa {
    digest: &'static digest::Algorithm,
    identifier: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let key = point(key).ok_or(InvalidSignature)?;
        let numbers = der::two_numbers(signature).ok_or(InvalidSignature)?;
        let signature = Signature::from_slice(&numbers).map_err(|_| InvalidSignature)?;
        let digest = digest::digest(self.digest, message);
        VerifyingKey::from(key)
            .verify_prehash(digest.as_ref(), &signature)
            .map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap();
        (0..hexadecimal.len()).step_by(2).map(byte).collect()
    }

    fn der(r: &str, s: &str) -> Vec<u8> {
        let number = |digits| {
            let mut number = bytes(digits);
            if number[0] >= 0x80 {
                number.insert(0, 0);
            }
            [&[2, number.len() as u8], &number[..]].concat()
        };
        let both = [number(r), number(s)].concat();
        [&[0x30, both.len() as u8], &both[..]].concat()
    }

    /// RFC 6979, A.2.5.
    const KEY: &str = "0460FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6\
                       7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299";
    const ORDER: &str = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
    const ZERO: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const R: &str = "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716";
    const S: &str = "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8";

    #[test]
    fn signatures_are_verified() {
        let key = bytes(KEY);
        let signature = der(R, S);
        assert!(SHA256.verify_signature(&key, b"sample", &signature).is_ok());
        assert!(SHA256.verify_signature(&key, b"simple", &signature).is_err());
        assert!(SHA384.verify_signature(&key, b"sample", &signature).is_err());
        let longer = der(
            "0EAFEA039B20E9B42309FB1D89E213057CBF973DC0CFC8F129EDDDC800EF7719",
            "4861F0491E6998B9455193E34E7B0D284DDD7149A74B95B9261F13ABDE940954",
        );
        assert!(SHA384.verify_signature(&key, b"sample", &longer).is_ok());
        for place in 0..signature.len() {
            let mut changed = signature.clone();
            changed[place] ^= 1;
            assert!(SHA256.verify_signature(&key, b"sample", &changed).is_err(), "{place}");
        }
        for place in 0..key.len() {
            let mut changed = key.clone();
            changed[place] ^= 1;
            assert!(SHA256.verify_signature(&changed, b"sample", &signature).is_err(), "{place}");
        }
        for (r, s) in [("01", ORDER), (ORDER, "01"), (R, ORDER), (ORDER, S)] {
            assert!(SHA256.verify_signature(&key, b"sample", &der(r, s)).is_err(), "{r} {s}");
        }
        for (r, s) in [(ZERO, S), (R, ZERO), (ZERO, ZERO)] {
            let zero =
                |digits: &str| if digits == ZERO { "00".to_string() } else { digits.to_string() };
            assert!(SHA256.verify_signature(&key, b"sample", &der(&zero(r), &zero(s))).is_err());
        }
    }

    #[test]
    fn both_ends_of_an_exchange_agree_on_points_of_the_curve_alone() {
        let (ours, theirs) = (GROUP.start().unwrap(), GROUP.start().unwrap());
        let (our_key, their_key) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
        assert_ne!(our_key, their_key);
        let (first, second) =
            (ours.complete(&their_key).unwrap(), theirs.complete(&our_key).unwrap());
        assert_eq!(first.secret_bytes(), second.secret_bytes());
        assert_eq!(first.secret_bytes().len(), 32);
        let mut beside = our_key.clone();
        beside[64] ^= 1;
        let compressed = [&[2 + (our_key[64] & 1)], &our_key[1..33]].concat();
        for wrong in
            [&beside[..], &compressed, &our_key[..64], &[0], &[], &[&our_key[..], &[0]].concat()]
        {
            assert!(GROUP.start().unwrap().complete(wrong).is_err(), "{wrong:?}");
        }
        // The ring that the other targets have comes to the same secret.
        let random = rand::SystemRandom::new();
        let key =
            ring::agreement::EphemeralPrivateKey::generate(&ring::agreement::ECDH_P256, &random)
                .unwrap();
        let public = key.compute_public_key().unwrap();
        let ours = GROUP.start().unwrap();
        let our_key = ring::agreement::UnparsedPublicKey::new(
            &ring::agreement::ECDH_P256,
            ours.pub_key().to_vec(),
        );
        let theirs = ring::agreement::agree_ephemeral(key, &our_key, <[u8]>::to_vec).unwrap();
        assert_eq!(ours.complete(public.as_ref()).unwrap().secret_bytes(), theirs);
    }
}
