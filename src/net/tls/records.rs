//! How records are protected, as rustls asks for it: in TLS 1.3 and 1.2, with any of the ciphers.

use super::crypto::aead::{Key, Kind, NONCE, TAG};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter,
    MessageEncrypter, Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload,
    Tls12AeadAlgorithm, Tls13AeadAlgorithm, UnsupportedOperationError, make_tls12_aad,
    make_tls13_aad,
};
use rustls::{ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion};

/// AES-128-GCM.
pub static AES_128: Cipher = Cipher(Kind::Aes128);
/// AES-256-GCM.
pub static AES_256: Cipher = Cipher(Kind::Aes256);
/// ChaCha20-Poly1305.
pub static CHACHA20: Cipher = Cipher(Kind::ChaCha20);

/// A cipher.
pub struct Cipher(Kind);

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
        Box::new(Record { key: Key::new(self.0, key.as_ref()), iv, form })
    }

    /// What TLS 1.2 has for this cipher.
    fn old_form(&self) -> Form {
        if self.0 == Kind::ChaCha20 { Form::Counted } else { Form::Explicit }
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
        self.0.key_length()
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
            enc_key_len: self.0.key_length(),
            fixed_iv_len: NONCE - explicit_nonce_len,
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
    let mut nonce = [0; NONCE];
    for (place, byte) in nonce.iter_mut().zip(fixed.iter().chain(explicit)) {
        *place = *byte;
    }
    Iv::from(nonce)
}

/// What protects the records of one direction.
struct Record {
    key: Option<Key>,
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

    fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
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
        let text = payload.as_mut().get_mut(self.skipped()..).unwrap_or_default();
        let tag = key.seal(&nonce, additional.bytes(), text);
        payload.extend_from_slice(&tag);
        Ok(OutboundOpaqueMessage::new(kind, version, payload))
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        let kind = if self.form == Form::Tls13 { 1 } else { 0 };
        self.skipped() + length + kind + TAG
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
        let text = length.checked_sub(skipped + TAG).ok_or(Error::DecryptError)?;
        let mut nonce = Nonce::new(&self.iv, number).0;
        if let (Form::Explicit, Some(sent)) = (self.form, message.payload.get(..EXPLICIT)) {
            nonce =
                Nonce::new(&joined(nonce.get(..NONCE - EXPLICIT).unwrap_or_default(), sent), 0).0;
        }
        let additional = if self.form == Form::Tls13 {
            Additional::of_tls13(length)
        } else {
            Additional::of_tls12(number, message.typ, message.version, text)
        };
        let whole = message.payload.get_mut(skipped..).unwrap_or_default();
        let (cipher, tag) = whole.split_last_chunk_mut().ok_or(Error::DecryptError)?;
        key.open(&nonce, additional.bytes(), cipher, tag).ok_or(Error::DecryptError)?;
        message.payload.copy_within(skipped..skipped + text, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use ring::aead;
    use rustls::crypto::cipher::OutboundChunks;

    const SECRET: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
    const FIXED: [u8; 12] = [1, 2, 3, 4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc];
    const NUMBER: u64 = 0x0102_0304_0506_0708;
    /// The fixed bytes with the number added, bit by bit without carry (RFC 8446, 5.3).
    const COUNTED: [u8; 12] = [1, 2, 3, 4, 0xf4, 0xf4, 0xf4, 0xfc, 0xfc, 0xfc, 0xfc, 0xf4];

    struct Case {
        form: Form,
        ours: &'static Cipher,
        theirs: &'static aead::Algorithm,
    }

    const CASES: [Case; 4] = [
        Case { form: Form::Tls13, ours: &AES_256, theirs: &aead::AES_256_GCM },
        Case { form: Form::Tls13, ours: &CHACHA20, theirs: &aead::CHACHA20_POLY1305 },
        Case { form: Form::Explicit, ours: &AES_256, theirs: &aead::AES_256_GCM },
        Case { form: Form::Counted, ours: &CHACHA20, theirs: &aead::CHACHA20_POLY1305 },
    ];

    impl Case {
        fn encrypt(&self, text: &[u8]) -> Vec<u8> {
            let key = AeadKey::from(SECRET);
            let mut record = match self.form {
                Form::Tls13 => Tls13AeadAlgorithm::encrypter(self.ours, key, FIXED.into()),
                Form::Counted => Tls12AeadAlgorithm::encrypter(self.ours, key, &FIXED, &[]),
                Form::Explicit => {
                    Tls12AeadAlgorithm::encrypter(self.ours, key, &FIXED[..4], &FIXED[4..])
                }
            };
            let message = OutboundPlainMessage {
                typ: ContentType::Handshake,
                version: ProtocolVersion::TLSv1_2,
                payload: OutboundChunks::from(text),
            };
            let whole = record.encrypt(message, NUMBER).unwrap().encode();
            assert_eq!(whole.len(), 5 + record.encrypted_payload_len(text.len()));
            whole
        }

        /// The type, and the text; what stands in the place of the payload afterwards is left there.
        fn decrypt(
            &self,
            payload: &mut [u8],
            number: u64,
        ) -> Result<(ContentType, Vec<u8>), Error> {
            let key = AeadKey::from(SECRET);
            let (mut record, kind) = match self.form {
                Form::Tls13 => (
                    Tls13AeadAlgorithm::decrypter(self.ours, key, FIXED.into()),
                    ContentType::ApplicationData,
                ),
                Form::Counted => {
                    (Tls12AeadAlgorithm::decrypter(self.ours, key, &FIXED), ContentType::Handshake)
                }
                Form::Explicit => (
                    Tls12AeadAlgorithm::decrypter(self.ours, key, &FIXED[..4]),
                    ContentType::Handshake,
                ),
            };
            let message = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, payload);
            record.decrypt(message, number).map(|plain| (plain.typ, plain.payload.to_vec()))
        }

        /// A payload as ring makes it, with this explicit nonce where there is one.
        fn made(&self, text: &[u8], explicit: [u8; 8]) -> Vec<u8> {
            let key = aead::LessSafeKey::new(aead::UnboundKey::new(self.theirs, &SECRET).unwrap());
            let seal = |nonce: [u8; 12], clear: &[u8], text: &[u8]| {
                let mut text = text.to_vec();
                let nonce = aead::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(nonce, aead::Aad::from(clear), &mut text).unwrap();
                text
            };
            let length = text.len() as u16;
            // RFC 8446, 5.2, and RFC 5246, 6.2.3.3.
            let new = [&[23, 3, 3][..], &(length + 17).to_be_bytes()].concat();
            let old = [&NUMBER.to_be_bytes()[..], &[22, 3, 3], &length.to_be_bytes()].concat();
            match self.form {
                Form::Tls13 => seal(COUNTED, &new, &[text, &[22]].concat()),
                Form::Counted => seal(COUNTED, &old, text),
                Form::Explicit => {
                    let nonce = [&FIXED[..4], &explicit].concat().try_into().unwrap();
                    [&explicit[..], &seal(nonce, &old, text)].concat()
                }
            }
        }
    }

    #[test]
    fn records_are_as_the_standards_say() {
        for case in CASES {
            let explicit = *COUNTED.last_chunk().unwrap();
            for length in [0, 1, 15, 16, 17, 300, 1 << 14] {
                let text: Vec<u8> = (0..length).map(|at| at as u8 ^ 0x55).collect();
                let whole = case.encrypt(&text);
                let kind = if case.form == Form::Tls13 { 23 } else { 22 };
                let size = ((whole.len() - 5) as u16).to_be_bytes();
                assert_eq!(whole[..5], [kind, 3, 3, size[0], size[1]]);
                let mut made = case.made(&text, explicit);
                assert_eq!(whole[5..], made);
                let found = case.decrypt(&mut made, NUMBER);
                assert_eq!(found, Ok((ContentType::Handshake, text.clone())));
                // What the other end counts explicitly is its own affair.
                let found = case.decrypt(&mut case.made(&text, *b"anything"), NUMBER);
                assert_eq!(found, Ok((ContentType::Handshake, text)));
            }
        }
    }

    #[test]
    fn what_was_changed_is_refused_and_not_decrypted() {
        for case in CASES {
            let good = case.made(b"some text", *b"explicit");
            let refused = |payload: &[u8], number| {
                let mut place = payload.to_vec();
                assert_eq!(case.decrypt(&mut place, number), Err(Error::DecryptError));
                assert_eq!(place, payload);
            };
            for bit in 0..8 * good.len() {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                refused(&bad, NUMBER);
            }
            (0..good.len()).for_each(|length| refused(&good[..length], NUMBER));
            refused(&[&good[..], &[0]].concat(), NUMBER);
            refused(&good, NUMBER + 1);
        }
    }

    #[test]
    fn a_record_that_is_too_long_is_refused() {
        for case in CASES {
            let mut made = case.made(&vec![7; (1 << 14) + 1], *b"explicit");
            let found = case.decrypt(&mut made, NUMBER);
            assert_eq!(found, Err(Error::PeerSentOversizedRecord));
        }
    }
}
