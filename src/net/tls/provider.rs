//! The cryptography that rustls uses: ring's, and of it what servers of today need. (P-256 on machines of 64 bits is in
//! `p256.rs`.)
//!
//! The one file of TLS that names ring (a digest of an image does, too): another library goes in here. Not the provider
//! that rustls has for ring: that one brings QUIC, keys of clients and a way to protect records for each of three
//! kinds.

#[cfg(target_pointer_width = "64")]
use super::p256;
use ring::{aead, agreement, digest, hmac, rand};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter,
    MessageEncrypter, Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls12_aad,
    make_tls13_aad,
};
use rustls::crypto::hash::{self, HashAlgorithm};
use rustls::crypto::tls12::PrfUsingHmac;
use rustls::crypto::tls13::HkdfUsingHmac;
use rustls::crypto::{
    self, ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyExchangeAlgorithm, KeyProvider,
    SecureRandom, SharedSecret, SupportedKxGroup, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::sign::SigningKey;
use rustls::{
    CipherSuite, CipherSuiteCommon, ConnectionTrafficSecrets, ContentType, Error, NamedGroup,
    PeerMisbehaved, ProtocolVersion, SignatureScheme, SupportedCipherSuite, Tls12CipherSuite,
    Tls13CipherSuite,
};
use std::sync::Arc;
use webpki::ring as signatures;

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

/// Those of certificates, and for handshakes by what TLS calls them. In TLS 1.2 a scheme of ECDSA says nothing of the
/// curve (RFC 8422, 5.1.1), so each has both. Not Ed25519: no public authority signs with it.
const SIGNATURES: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        p256::SHA256,
        p256::SHA384,
        signatures::ECDSA_P384_SHA256,
        signatures::ECDSA_P384_SHA384,
        signatures::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        signatures::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        signatures::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        signatures::RSA_PKCS1_2048_8192_SHA256,
        signatures::RSA_PKCS1_2048_8192_SHA384,
        signatures::RSA_PKCS1_2048_8192_SHA512,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[p256::SHA256, signatures::ECDSA_P384_SHA256]),
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[signatures::ECDSA_P384_SHA384, p256::SHA384]),
        (SignatureScheme::RSA_PSS_SHA256, &[signatures::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[signatures::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA512, &[signatures::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[signatures::RSA_PKCS1_2048_8192_SHA256]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[signatures::RSA_PKCS1_2048_8192_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[signatures::RSA_PKCS1_2048_8192_SHA512]),
    ],
};

/// Random numbers of the kernel.
#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), GetRandomFailed> {
        rand::SecureRandom::fill(&rand::SystemRandom::new(), buffer).map_err(|_| GetRandomFailed)
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

static SHA256: Hash = Hash(&digest::SHA256, HashAlgorithm::SHA256);
static SHA384: Hash = Hash(&digest::SHA384, HashAlgorithm::SHA384);

struct Hash(&'static digest::Algorithm, HashAlgorithm);

impl hash::Hash for Hash {
    fn start(&self) -> Box<dyn hash::Context> {
        Box::new(Context(digest::Context::new(self.0)))
    }

    fn hash(&self, data: &[u8]) -> hash::Output {
        hash::Output::new(digest::digest(self.0, data).as_ref())
    }

    fn output_len(&self) -> usize {
        self.0.output_len()
    }

    fn algorithm(&self) -> HashAlgorithm {
        self.1
    }
}

struct Context(digest::Context);

impl hash::Context for Context {
    fn fork_finish(&self) -> hash::Output {
        hash::Output::new(self.0.clone().finish().as_ref())
    }

    fn fork(&self) -> Box<dyn hash::Context> {
        Box::new(Self(self.0.clone()))
    }

    fn finish(self: Box<Self>) -> hash::Output {
        hash::Output::new(self.0.finish().as_ref())
    }

    fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }
}

static MAC256: Mac = Mac(&hmac::HMAC_SHA256);
static MAC384: Mac = Mac(&hmac::HMAC_SHA384);

struct Mac(&'static hmac::Algorithm);

impl crypto::hmac::Hmac for Mac {
    fn with_key(&self, key: &[u8]) -> Box<dyn crypto::hmac::Key> {
        Box::new(MacKey(hmac::Key::new(*self.0, key)))
    }

    fn hash_output_len(&self) -> usize {
        self.0.digest_algorithm().output_len()
    }
}

struct MacKey(hmac::Key);

impl crypto::hmac::Key for MacKey {
    fn sign_concat(&self, first: &[u8], middle: &[&[u8]], last: &[u8]) -> crypto::hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(first);
        middle.iter().for_each(|piece| context.update(piece));
        context.update(last);
        crypto::hmac::Tag::new(context.sign().as_ref())
    }

    fn tag_len(&self) -> usize {
        self.0.algorithm().digest_algorithm().output_len()
    }
}

/// P-256 by ring, where it is the smaller one: see `p256.rs`.
#[cfg(not(target_pointer_width = "64"))]
mod p256 {
    use super::{Group, NamedGroup, agreement, signatures};
    use rustls::pki_types::SignatureVerificationAlgorithm;

    pub static GROUP: Group = Group(NamedGroup::secp256r1, &agreement::ECDH_P256);
    pub static SHA256: &dyn SignatureVerificationAlgorithm = signatures::ECDSA_P256_SHA256;
    pub static SHA384: &dyn SignatureVerificationAlgorithm = signatures::ECDSA_P256_SHA384;
}

static GROUPS: &[&dyn SupportedKxGroup] = &[
    &Group(NamedGroup::X25519, &agreement::X25519),
    &p256::GROUP,
    &Group(NamedGroup::secp384r1, &agreement::ECDH_P384),
];

#[derive(Debug)]
struct Group(NamedGroup, &'static agreement::Algorithm);

impl SupportedKxGroup for Group {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let key = agreement::EphemeralPrivateKey::generate(self.1, &rand::SystemRandom::new());
        let key = key.map_err(|_| Error::FailedToGetRandomBytes)?;
        let public = key.compute_public_key().map_err(|_| Error::FailedToGetRandomBytes)?;
        Ok(Box::new(Exchange { name: self.0, key, public }))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

struct Exchange {
    name: NamedGroup,
    key: agreement::EphemeralPrivateKey,
    public: agreement::PublicKey,
}

impl ActiveKeyExchange for Exchange {
    /// ring takes no point that is not on the curve, none in another form than TLS has, and no secret of zeros.
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = agreement::UnparsedPublicKey::new(self.key.algorithm(), peer);
        agreement::agree_ephemeral(self.key, &peer, |secret| SharedSecret::from(secret))
            .map_err(|_| PeerMisbehaved::InvalidKeyShare.into())
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_ref()
    }

    fn group(&self) -> NamedGroup {
        self.name
    }
}

static AES_128: Cipher = Cipher(&aead::AES_128_GCM);
static AES_256: Cipher = Cipher(&aead::AES_256_GCM);
static CHACHA20: Cipher = Cipher(&aead::CHACHA20_POLY1305);

struct Cipher(&'static aead::Algorithm);

/// How a record says what it is, and which nonce it has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// RFC 8446, 5.2: the type is encrypted behind the text; the nonce is the number of the record.
    Tls13,
    /// TLS 1.2, RFC 7905: the nonce is the number of the record.
    Counted,
    /// TLS 1.2, RFC 5288: eight bytes of the nonce stand in front.
    Explicit,
}

/// The bytes of the nonce that stand in front.
const EXPLICIT: usize = 8;

impl Cipher {
    fn record(&self, key: &AeadKey, iv: Iv, form: Form) -> Box<Record> {
        // rustls makes keys of the length that was asked for.
        let key = aead::UnboundKey::new(self.0, key.as_ref()).ok().map(aead::LessSafeKey::new);
        Box::new(Record { key, iv, form })
    }

    /// What TLS 1.2 has for this cipher.
    fn old_form(&self) -> Form {
        if *self.0 == aead::CHACHA20_POLY1305 { Form::Counted } else { Form::Explicit }
    }
}

impl Tls13AeadAlgorithm for Cipher {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        self.record(&key, iv, Form::Tls13)
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.record(&key, iv, Form::Tls13)
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

impl Tls12AeadAlgorithm for Cipher {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        self.record(&key, joined(iv, extra), self.old_form())
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        self.record(&key, joined(iv, &[]), self.old_form())
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        let explicit_nonce_len = if self.old_form() == Form::Explicit { EXPLICIT } else { 0 };
        KeyBlockShape {
            enc_key_len: self.0.key_len(),
            fixed_iv_len: aead::NONCE_LEN - explicit_nonce_len,
            explicit_nonce_len,
        }
    }

    fn extract_keys(
        &self,
        _: AeadKey,
        _: &[u8],
        _: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// The two parts of a nonce; zeros where there is none.
fn joined(fixed: &[u8], explicit: &[u8]) -> Iv {
    let mut nonce = [0; aead::NONCE_LEN];
    for (place, byte) in nonce.iter_mut().zip(fixed.iter().chain(explicit)) {
        *place = *byte;
    }
    Iv::from(nonce)
}

/// What protects the records of one direction.
struct Record {
    key: Option<aead::LessSafeKey>,
    iv: Iv,
    form: Form,
}

impl Record {
    /// How many bytes stand in front of the text.
    fn skipped(&self) -> usize {
        if self.form == Form::Explicit { EXPLICIT } else { 0 }
    }
}

/// What is authenticated with a record: 5 bytes in TLS 1.3, 13 in TLS 1.2.
struct Additional([u8; 13], usize);

impl Additional {
    fn of_tls13(length: usize) -> Self {
        let mut all = [0; 13];
        let bytes = make_tls13_aad(length);
        for (place, byte) in all.iter_mut().zip(bytes) {
            *place = byte;
        }
        Self(all, bytes.len())
    }

    fn of_tls12(number: u64, kind: ContentType, version: ProtocolVersion, length: usize) -> Self {
        let all = make_tls12_aad(number, kind, version, length);
        Self(all, all.len())
    }

    fn bytes(&self) -> aead::Aad<&[u8]> {
        aead::Aad::from(self.0.get(..self.1).unwrap_or_default())
    }
}

impl MessageEncrypter for Record {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let key = self.key.as_ref().ok_or(Error::EncryptError)?;
        let length = message.payload.len();
        let whole = self.encrypted_payload_len(length);
        let mut payload = PrefixedPayload::with_capacity(whole);
        let nonce = Nonce::new(&self.iv, number).0;
        if self.form == Form::Explicit {
            payload.extend_from_slice(nonce.get(nonce.len() - EXPLICIT..).unwrap_or_default());
        }
        payload.extend_from_chunks(&message.payload);
        let (kind, version, additional);
        if self.form == Form::Tls13 {
            payload.extend_from_slice(&message.typ.to_array());
            (kind, version) = (ContentType::ApplicationData, ProtocolVersion::TLSv1_2);
            additional = Additional::of_tls13(whole);
        } else {
            (kind, version) = (message.typ, message.version);
            additional = Additional::of_tls12(number, kind, version, length);
        }
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        let text = payload.as_mut().get_mut(self.skipped()..).unwrap_or_default();
        let tag = key.seal_in_place_separate_tag(nonce, additional.bytes(), text);
        payload.extend_from_slice(tag.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(OutboundOpaqueMessage::new(kind, version, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        let kind = if self.form == Form::Tls13 { 1 } else { 0 };
        self.skipped() + length + kind + aead::MAX_TAG_LEN
    }
}

impl MessageDecrypter for Record {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        number: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let key = self.key.as_ref().ok_or(Error::DecryptError)?;
        let skipped = self.skipped();
        let length = message.payload.len();
        let text = length.checked_sub(skipped + aead::MAX_TAG_LEN).ok_or(Error::DecryptError)?;
        let mut nonce = Nonce::new(&self.iv, number).0;
        if let (Form::Explicit, Some(sent)) = (self.form, message.payload.get(..EXPLICIT)) {
            nonce = Nonce::new(
                &joined(nonce.get(..aead::NONCE_LEN - EXPLICIT).unwrap_or_default(), sent),
                0,
            )
            .0;
        }
        let additional = if self.form == Form::Tls13 {
            Additional::of_tls13(length)
        } else {
            Additional::of_tls12(number, message.typ, message.version, text)
        };
        let nonce = aead::Nonce::assume_unique_for_key(nonce);
        key.open_within(nonce, additional.bytes(), &mut message.payload, skipped..)
            .map_err(|_| Error::DecryptError)?;
        message.payload.truncate(text);
        if self.form == Form::Tls13 {
            return message.into_tls13_unpadded_message();
        }
        // RFC 5246, 6.2.1.
        if text > 1 << 14 {
            return Err(Error::PeerSentOversizedRecord);
        }
        Ok(message.into_plain_message())
    }
}
