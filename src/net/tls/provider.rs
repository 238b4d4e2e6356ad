//! The cryptography that rustls uses: what servers of today need, in one list.

use super::exchange::{GROUPS, random};
use super::hashes::{Hash, MAC256, MAC384, SHA256, SHA384};
use super::records::{AES_128, AES_256, CHACHA20};
use super::signatures::SIGNATURES;
use rustls::crypto::tls12::PrfUsingHmac;
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{
    CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, KeyProvider, SecureRandom,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{
    CipherSuite, CipherSuiteCommon, Error, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite,
    Tls13CipherSuite,
};
use std::sync::Arc;

/// The suites, groups and signatures.
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: SUITES.to_vec(),
        kx_groups: GROUPS.to_vec(),
        signature_verification_algorithms: SIGNATURES,
        secure_random: &Random,
        key_provider: &NoKeys,
    }
}

/// The preferred ones first. Boards with ARM cores have no instructions for AES mostly, and then ChaCha20 is twice as
/// fast.
static SUITES: &[SupportedCipherSuite] = if cfg!(target_arch = "x86_64") {
    &[
        TLS13_AES_128,
        TLS13_AES_256,
        TLS13_CHACHA20,
        ECDSA_AES_128,
        RSA_AES_128,
        ECDSA_AES_256,
        RSA_AES_256,
        ECDSA_CHACHA20,
        RSA_CHACHA20,
    ]
} else {
    &[
        TLS13_CHACHA20,
        TLS13_AES_128,
        TLS13_AES_256,
        ECDSA_CHACHA20,
        RSA_CHACHA20,
        ECDSA_AES_128,
        RSA_AES_128,
        ECDSA_AES_256,
        RSA_AES_256,
    ]
};

/// How much may be protected with one key (RFC 8446, 5.5): so many records, rustls changes the key before.
const RECORDS_OF_AES: u64 = 1 << 24;
const RECORDS_OF_CHACHA20: u64 = u64::MAX;

const fn common(suite: CipherSuite, hash: &'static Hash, limit: u64) -> CipherSuiteCommon {
    CipherSuiteCommon { suite, hash_provider: hash, confidentiality_limit: limit }
}

/// A suite of TLS 1.3 (RFC 8446, B.4).
macro_rules! tls13 {
    ($suite:ident, $hash:ident, $mac:ident, $cipher:ident, $limit:ident) => {
        SupportedCipherSuite::Tls13(&Tls13CipherSuite {
            common: common(CipherSuite::$suite, &$hash, $limit),
            hkdf_provider: &HkdfUsingHmac(&$mac),
            aead_alg: &$cipher,
            quic: None,
        })
    };
}

/// A suite of TLS 1.2 (RFC 5289, RFC 7905).
macro_rules! tls12 {
    ($suite:ident, $sign:ident, $hash:ident, $mac:ident, $cipher:ident, $limit:ident) => {
        SupportedCipherSuite::Tls12(&Tls12CipherSuite {
            common: common(CipherSuite::$suite, &$hash, $limit),
            kx: KeyExchangeAlgorithm::ECDHE,
            sign: $sign,
            aead_alg: &$cipher,
            prf_provider: &PrfUsingHmac(&$mac),
        })
    };
}

const TLS13_AES_128: SupportedCipherSuite =
    tls13!(TLS13_AES_128_GCM_SHA256, SHA256, MAC256, AES_128, RECORDS_OF_AES);
const TLS13_AES_256: SupportedCipherSuite =
    tls13!(TLS13_AES_256_GCM_SHA384, SHA384, MAC384, AES_256, RECORDS_OF_AES);
const TLS13_CHACHA20: SupportedCipherSuite =
    tls13!(TLS13_CHACHA20_POLY1305_SHA256, SHA256, MAC256, CHACHA20, RECORDS_OF_CHACHA20);
const ECDSA_AES_128: SupportedCipherSuite =
    tls12!(TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, ECDSA, SHA256, MAC256, AES_128, RECORDS_OF_AES);
const ECDSA_AES_256: SupportedCipherSuite =
    tls12!(TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, ECDSA, SHA384, MAC384, AES_256, RECORDS_OF_AES);
const ECDSA_CHACHA20: SupportedCipherSuite = tls12!(
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ECDSA,
    SHA256,
    MAC256,
    CHACHA20,
    RECORDS_OF_CHACHA20
);
const RSA_AES_128: SupportedCipherSuite =
    tls12!(TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, RSA, SHA256, MAC256, AES_128, RECORDS_OF_AES);
const RSA_AES_256: SupportedCipherSuite =
    tls12!(TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, RSA, SHA384, MAC384, AES_256, RECORDS_OF_AES);
const RSA_CHACHA20: SupportedCipherSuite = tls12!(
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    RSA,
    SHA256,
    MAC256,
    CHACHA20,
    RECORDS_OF_CHACHA20
);

static ECDSA: &[SignatureScheme] =
    &[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384];
static RSA: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Random numbers of the kernel.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        random(buffer).ok_or(GetRandomFailed)
    }
}

/// Clients have no keys here.
#[derive(Debug)]
struct NoKeys;

impl KeyProvider for NoKeys {
    fn load_private_key(&self, _: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        Err(Error::EncryptError)
    }
}
