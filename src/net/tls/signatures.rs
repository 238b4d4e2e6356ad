//! The signatures that are understood, as webpki and rustls ask for them.

use super::crypto::curve::{Curve, P256, P384};
use super::crypto::ecdsa;
use super::crypto::hash::{Kind, digest};
use super::crypto::rsa::{self, Padding};
use pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;

#[derive(Debug)]
enum Way {
    Ecdsa(&'static Curve),
    Rsa(Padding),
}

/// A way to sign, and what certificates call it.
#[derive(Debug)]
struct Algorithm {
    way: Way,
    hash: Kind,
    key: AlgorithmIdentifier,
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Algorithm {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let digest = digest(self.hash, &[message]);
        let digest = digest.bytes();
        let verified = match self.way {
            Way::Ecdsa(curve) => ecdsa::verify(curve, key, digest, signature),
            Way::Rsa(padding) => rsa::verify(padding, self.hash, key, digest, signature),
        };
        verified.ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }
}

type Any = &'static dyn SignatureVerificationAlgorithm;

macro_rules! algorithm {
    ($name:ident, $way:expr, $hash:ident, $key:ident, $signature:ident) => {
        static $name: Any = &Algorithm {
            way: $way,
            hash: Kind::$hash,
            key: alg_id::$key,
            signature: alg_id::$signature,
        };
    };
}

algorithm!(P256_SHA256, Way::Ecdsa(&P256), Sha256, ECDSA_P256, ECDSA_SHA256);
algorithm!(P256_SHA384, Way::Ecdsa(&P256), Sha384, ECDSA_P256, ECDSA_SHA384);
algorithm!(P384_SHA256, Way::Ecdsa(&P384), Sha256, ECDSA_P384, ECDSA_SHA256);
algorithm!(P384_SHA384, Way::Ecdsa(&P384), Sha384, ECDSA_P384, ECDSA_SHA384);
algorithm!(PSS_SHA256, Way::Rsa(Padding::Pss), Sha256, RSA_ENCRYPTION, RSA_PSS_SHA256);
algorithm!(PSS_SHA384, Way::Rsa(Padding::Pss), Sha384, RSA_ENCRYPTION, RSA_PSS_SHA384);
algorithm!(PSS_SHA512, Way::Rsa(Padding::Pss), Sha512, RSA_ENCRYPTION, RSA_PSS_SHA512);
algorithm!(PKCS1_SHA256, Way::Rsa(Padding::Pkcs1), Sha256, RSA_ENCRYPTION, RSA_PKCS1_SHA256);
algorithm!(PKCS1_SHA384, Way::Rsa(Padding::Pkcs1), Sha384, RSA_ENCRYPTION, RSA_PKCS1_SHA384);
algorithm!(PKCS1_SHA512, Way::Rsa(Padding::Pkcs1), Sha512, RSA_ENCRYPTION, RSA_PKCS1_SHA512);

/// Those of certificates, and for handshakes by what TLS calls them. In TLS 1.2 a scheme of ECDSA says nothing of the
/// curve (RFC 8422, 5.1.1), so each has both. Not Ed25519: no public authority signs with it.
pub static SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        P256_SHA256,
        P256_SHA384,
        P384_SHA256,
        P384_SHA384,
        PSS_SHA256,
        PSS_SHA384,
        PSS_SHA512,
        PKCS1_SHA256,
        PKCS1_SHA384,
        PKCS1_SHA512,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[P256_SHA256, P384_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[P384_SHA384, P256_SHA384]),
        (SignatureScheme::RSA_PSS_SHA256, &[PSS_SHA256]),
        (SignatureScheme::RSA_PSS_SHA384, &[PSS_SHA384]),
        (SignatureScheme::RSA_PSS_SHA512, &[PSS_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[PKCS1_SHA256]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[PKCS1_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[PKCS1_SHA512]),
    ],
};
