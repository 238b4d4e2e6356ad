//! Tests: everything of this room held against ring, with random numbers and with those at which arithmetic goes wrong.
//!
//! What one end makes the other one must take, and what is changed both must refuse. ring keeps its secrets and its
//! random numbers to itself, so no run is like the one before: each failure shows what it was about.

use super::super::der;
use super::aead::{Key, Kind as Cipher, NONCE, TAG};
use super::curve::{Arithmetic, Curve, P256, P384, Point};
use super::field::{Field, Number};
use super::hash::{Kind, Mac, digest};
use super::modular::{Modulus, read, write};
use super::rsa::Padding;
use super::{ecdsa, rsa, x25519};
use ring::rand::SystemRandom;
use ring::rsa::KeyPair as RsaKeyPair;
use ring::signature::{self, EcdsaKeyPair, KeyPair, UnparsedPublicKey, VerificationAlgorithm};
use ring::{aead, agreement, hmac};

/// Numbers that look random, the same ones in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Bytes of a number whose limbs are often those at which carries go wrong.
    fn limbs(&mut self, length: usize) -> Vec<u8> {
        let mut limb = || match self.next() % 8 {
            0 => vec![0; 4],
            1 => vec![0xff; 4],
            _ => self.bytes(4),
        };
        (0..length / 4).flat_map(|_| limb()).collect()
    }

    /// The same with one bit changed.
    fn changed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let byte = self.next() % bytes.len();
            bytes[byte] ^= 1 << (self.next() % 8);
        }
        bytes
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn of_hexadecimal(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn tagged(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len() as u16;
    let length = match length {
        0..0x80 => vec![length as u8],
        0x80..0x100 => vec![0x81, length as u8],
        _ => vec![0x82, (length >> 8) as u8, length as u8],
    };
    [&[tag], &length[..], contents].concat()
}

/// An integer of DER.
fn integer(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros.min(number.len() - 1)..];
    let front: &[u8] = if number[0] >= 0x80 { &[0] } else { &[] };
    tagged(2, &[front, number].concat())
}

fn pair(one: &[u8], other: &[u8]) -> Vec<u8> {
    tagged(0x30, &[integer(one), integer(other)].concat())
}

/// The same DER with lengths that are longer than they need be, and with more or less at the ends.
fn written_otherwise(good: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = good;
    let (tag, contents) = der::take(&mut rest).unwrap();
    let mut all = vec![
        good[..good.len() - 1].to_vec(),
        [good, &[0]].concat(),
        tagged(tag, &[contents, &[0]].concat()),
        tagged(tag, &[contents, &[5, 0]].concat()),
        tagged(tag ^ 0x20, contents),
        tagged(tag, &[&[2, 1, 1], contents].concat()),
        Vec::new(),
        vec![0x30],
        vec![0x30, 0x80],
        [&[0x30, 0x80], contents, &[0, 0]].concat(),
    ];
    let two_bytes = |length: usize| [0x82, (length >> 8) as u8, length as u8];
    if contents.len() < 0x100 {
        all.push([&[tag][..], &two_bytes(contents.len()), contents].concat());
    }
    if contents.len() < 0x80 {
        all.push([&[tag, 0x81, contents.len() as u8], contents].concat());
    }
    let three = [tag, 0x83, 0, (contents.len() >> 8) as u8, contents.len() as u8];
    all.push([&three, contents].concat());
    // The same with each of the two integers.
    let mut inside = contents;
    let (_, first) = der::take(&mut inside).unwrap();
    let (_, second) = der::take(&mut inside).unwrap();
    let long = |number: &[u8]| [&[2][..], &two_bytes(number.len()), number].concat();
    let short = |number: &[u8]| tagged(2, number);
    let zero = |number: &[u8]| tagged(2, &[&[0], number].concat());
    if first.len() < 0x100 {
        all.push(tagged(tag, &[long(first), short(second)].concat()));
    }
    all.push(tagged(tag, &[short(first), long(second)].concat()));
    all.push(tagged(tag, &[zero(first), short(second)].concat()));
    all.push(tagged(tag, &[short(first), zero(second)].concat()));
    all
}

#[test]
fn digests_and_codes() {
    let mut numbers = Numbers(1);
    for (kind, theirs, code) in [
        (Kind::Sha256, &ring::digest::SHA256, hmac::HMAC_SHA256),
        (Kind::Sha384, &ring::digest::SHA384, hmac::HMAC_SHA384),
        (Kind::Sha512, &ring::digest::SHA512, hmac::HMAC_SHA512),
    ] {
        for length in (0..300).chain([4096, 16_384, 16_401]) {
            let text = numbers.bytes(length);
            let (start, end) = text.split_at(numbers.next() % (length + 1));
            let expected = ring::digest::digest(theirs, &text);
            assert_eq!(digest(kind, &[start, end]).bytes(), expected.as_ref(), "{length}");
            let key = numbers.bytes(length % 300);
            let mut mac = Mac::new(kind, &key);
            mac.update(start);
            mac.update(end);
            let expected = hmac::sign(&hmac::Key::new(code, &key), &text);
            assert_eq!(mac.finish().bytes(), expected.as_ref(), "{length}");
        }
    }
}

#[test]
fn ciphers_open_what_the_other_end_sealed_and_nothing_changed() {
    let mut numbers = Numbers(2);
    for (kind, theirs) in [
        (Cipher::Aes128, &aead::AES_128_GCM),
        (Cipher::Aes256, &aead::AES_256_GCM),
        (Cipher::ChaCha20, &aead::CHACHA20_POLY1305),
    ] {
        let lengths = (0..=70).chain(120..=136).chain(250..=262).chain(16_380..=16_390);
        for length in lengths.chain([16_384 + 256, 16_384 + 257]) {
            let key = numbers.bytes(kind.key_length());
            let ours = Key::new(kind, &key).unwrap();
            let theirs = aead::LessSafeKey::new(aead::UnboundKey::new(theirs, &key).unwrap());
            let nonce: [u8; NONCE] = numbers.bytes(NONCE).try_into().unwrap();
            let of_ring = || aead::Nonce::assume_unique_for_key(nonce);
            let length_of_clear = numbers.next() % 40;
            let clear = numbers.bytes(length_of_clear);
            let text = numbers.bytes(length);
            let mut sealed = text.clone();
            let tag = ours.seal(&nonce, &clear, &mut sealed);
            let mut expected = text.clone();
            theirs
                .seal_in_place_append_tag(of_ring(), aead::Aad::from(&clear), &mut expected)
                .unwrap();
            let mut whole = [&sealed[..], &tag].concat();
            assert_eq!(whole, expected, "{kind:?} {length}");
            let opened =
                theirs.open_in_place(of_ring(), aead::Aad::from(&clear), &mut whole).unwrap();
            assert_eq!(opened, text);
            let mut opened = sealed.clone();
            assert!(ours.open(&nonce, &clear, &mut opened, &tag).is_some());
            assert_eq!(opened, text);
            // What is refused is not decrypted.
            let refused = |nonce: &[u8; NONCE], clear: &[u8], sealed: &[u8], tag: &[u8; TAG]| {
                let mut place = sealed.to_vec();
                assert!(ours.open(nonce, clear, &mut place, tag).is_none(), "{kind:?} {length}");
                assert_eq!(place, sealed);
            };
            refused(&nonce, &clear, &sealed, &numbers.changed(&tag).try_into().unwrap());
            refused(&numbers.changed(&nonce).try_into().unwrap(), &clear, &sealed, &tag);
            refused(&nonce, &[&clear[..], &[0]].concat(), &sealed, &tag);
            refused(&nonce, &clear, &[&sealed[..], &[0]].concat(), &tag);
            if length > 0 {
                refused(&nonce, &clear, &numbers.changed(&sealed), &tag);
                refused(&nonce, &clear, &sealed[1..], &tag);
            }
            if length_of_clear > 0 {
                refused(&nonce, &numbers.changed(&clear), &sealed, &tag);
            }
        }
    }
}

/// What ring computes with a new secret of its own and this public key, and the public key of the secret.
fn theirs(algorithm: &'static agreement::Algorithm, peer: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    let secret = agreement::EphemeralPrivateKey::generate(algorithm, &SystemRandom::new()).unwrap();
    let public = secret.compute_public_key().unwrap().as_ref().to_vec();
    let peer = agreement::UnparsedPublicKey::new(algorithm, peer);
    (public, agreement::agree_ephemeral(secret, &peer, <[u8]>::to_vec).ok())
}

fn written(arithmetic: &Arithmetic, curve: &Curve, point: &Point) -> Option<Vec<u8>> {
    let mut place = vec![0; 1 + 2 * curve.length()];
    arithmetic.write(point, &mut place).map(|()| place)
}

/// A curve, and what ring has of it.
struct Case {
    curve: &'static Curve,
    agreement: &'static agreement::Algorithm,
    signing: &'static signature::EcdsaSigningAlgorithm,
    kind: Kind,
    /// With each hash.
    verification: [(Kind, &'static dyn VerificationAlgorithm); 2],
    prime: &'static str,
    order: &'static str,
}

const CASE_256: Case = Case {
    curve: &P256,
    agreement: &agreement::ECDH_P256,
    signing: &signature::ECDSA_P256_SHA256_ASN1_SIGNING,
    kind: Kind::Sha256,
    verification: [
        (Kind::Sha256, &signature::ECDSA_P256_SHA256_ASN1),
        (Kind::Sha384, &signature::ECDSA_P256_SHA384_ASN1),
    ],
    prime: "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
    order: "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
};

const CASE_384: Case = Case {
    curve: &P384,
    agreement: &agreement::ECDH_P384,
    signing: &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
    kind: Kind::Sha384,
    verification: [
        (Kind::Sha256, &signature::ECDSA_P384_SHA256_ASN1),
        (Kind::Sha384, &signature::ECDSA_P384_SHA384_ASN1),
    ],
    prime: "fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffeffffffff0000000000000000ffffffff",
    order: "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
};

impl Case {
    fn order(&self) -> Vec<u8> {
        of_hexadecimal(self.order)
    }

    /// The order and a number as small as this, together.
    fn near_order(&self, more: i8) -> Vec<u8> {
        let mut order = self.order();
        let last = order.last_mut().unwrap();
        *last = last.wrapping_add_signed(more);
        order
    }

    /// Numbers to multiply with: those at the ends, then what the source gives.
    fn scalars(&self, numbers: &mut Numbers, count: usize) -> Vec<Vec<u8>> {
        let length = self.curve.length();
        let small = |number: u8| [vec![0; length - 1], vec![number]].concat();
        let mut all = vec![small(1), small(2), small(3), self.near_order(-1), self.near_order(-2)];
        while all.len() < count {
            let scalar = numbers.limbs(length);
            if self.curve.scalar(&scalar).is_some() {
                all.push(scalar);
            }
        }
        all
    }

    fn exchanges(&self, count: usize) {
        let mut numbers = Numbers(3);
        let arithmetic = self.curve.arithmetic();
        for secret in self.scalars(&mut numbers, count) {
            let scalar = self.curve.scalar(&secret).unwrap();
            let multiple = |point: &Point| {
                written(&arithmetic, self.curve, &arithmetic.multiple(&scalar, point)).unwrap()
            };
            let public = multiple(&arithmetic.base());
            let (peer, shared) = theirs(self.agreement, &public);
            let ours = multiple(&arithmetic.point(&peer).unwrap());
            let context = (hexadecimal(&secret), hexadecimal(&peer));
            assert_eq!(Some(&ours[1..=self.curve.length()]), shared.as_deref(), "{context:?}");
        }
    }

    /// Points that are none, and some that are.
    fn points(&self, count: usize) {
        let mut numbers = Numbers(4);
        let arithmetic = self.curve.arithmetic();
        let length = self.curve.length();
        let prime = of_hexadecimal(self.prime);
        let mut good = written(&arithmetic, self.curve, &arithmetic.base()).unwrap();
        let agree = |point: &[u8]| {
            let (peer, shared) = theirs(self.agreement, point);
            let is_point = arithmetic.point(point).is_some();
            assert_eq!(is_point, shared.is_some(), "{}", hexadecimal(point));
            (peer, is_point)
        };
        for _ in 0..count {
            (good, _) = agree(&good);
            let (x, y) = good[1..].split_at(length);
            // The other point of this x: the prime less y.
            let mut borrow = 0;
            let mut other = prime.clone();
            for (place, byte) in other.iter_mut().rev().zip(y.iter().rev()) {
                let difference = i16::from(*place) - i16::from(*byte) - borrow;
                (*place, borrow) = (difference as u8, i16::from(difference < 0));
            }
            assert!(agree(&[&[4], x, &other].concat()).1);
            assert!(!agree(&[&[4], x, x].concat()).1);
            assert!(!agree(&[&[4], &prime[..], y].concat()).1);
            assert!(!agree(&[&[4], x, &prime].concat()).1);
            assert!(!agree(&[&[2 | y[length - 1] & 1], x].concat()).1);
            assert!(!agree(&[&[6 | y[length - 1] & 1], x, y].concat()).1);
            assert!(!agree(&numbers.changed(&good)).1);
            let random = numbers.limbs(2 * length);
            agree(&[&[4], &random[..]].concat());
        }
        for wrong in [&[][..], &[0], &[4], &good[1..], &[&[0], &good[1..]].concat()] {
            assert!(!agree(wrong).1);
        }
    }

    /// ring and this room say the same of a signature; true when it is right.
    fn is_right(&self, way: usize, key: &[u8], text: &[u8], signature: &[u8]) -> bool {
        let (kind, algorithm) = self.verification[way];
        let hash = digest(kind, &[text]);
        let ours = ecdsa::verify(self.curve, key, hash.bytes(), signature).is_some();
        let theirs = UnparsedPublicKey::new(algorithm, key).verify(text, signature).is_ok();
        let context = [key, text, signature].map(hexadecimal);
        assert_eq!(ours, theirs, "{kind:?} {context:?}");
        ours
    }

    fn signatures(&self, count: usize) {
        let mut numbers = Numbers(5);
        let random = SystemRandom::new();
        let way = usize::from(self.kind == Kind::Sha384);
        let arithmetic = self.curve.arithmetic();
        for (index, secret) in self.scalars(&mut numbers, count).iter().enumerate() {
            let scalar = self.curve.scalar(secret).unwrap();
            let public = arithmetic.multiple(&scalar, &arithmetic.base());
            let key = written(&arithmetic, self.curve, &public).unwrap();
            // ring computes the public key as well, and compares.
            let signer =
                EcdsaKeyPair::from_private_key_and_public_key(self.signing, secret, &key, &random)
                    .unwrap();
            assert_eq!(signer.public_key().as_ref(), key);
            let length = numbers.next() % 200;
            let text = numbers.bytes(length);
            let signature = signer.sign(&random, &text).unwrap();
            let signature = signature.as_ref();
            assert!(self.is_right(way, &key, &text, signature));
            assert!(!self.is_right(
                way,
                &key,
                &numbers.changed(&[&text[..], &[0]].concat()),
                signature
            ));
            assert!(!self.is_right(way, &numbers.changed(&key), &text, signature));
            assert!(!self.is_right(way, &key, &text, &numbers.changed(signature)));
            if index % 8 == 0 {
                assert!(!self.is_right(1 - way, &key, &text, signature));
                self.otherwise(way, &key, &text, signature);
            }
        }
    }

    /// A right signature, written and computed in other ways.
    fn otherwise(&self, way: usize, key: &[u8], text: &[u8], signature: &[u8]) {
        for other in written_otherwise(signature) {
            assert!(!self.is_right(way, key, text, &other));
        }
        let mut contents = signature;
        let mut contents = der::take_tagged(&mut contents, der::SEQUENCE).unwrap();
        let [r, s] = [(); 2].map(|()| der::take_tagged(&mut contents, 2).unwrap().to_vec());
        // The order less s is right as well.
        let field = self.curve.scalars();
        let mut number = Number::default();
        read(&mut number, &s);
        let less = field.minus(&Number::default(), &number);
        let mut bytes = vec![0; self.curve.length()];
        write(&mut bytes, &less);
        assert!(self.is_right(way, key, text, &pair(&r, &bytes)));
        for wrong in [
            vec![0],
            vec![1],
            self.order(),
            self.near_order(-1),
            self.near_order(1),
            vec![0xff; 49],
        ] {
            assert!(!self.is_right(way, key, text, &pair(&wrong, &s)));
            assert!(!self.is_right(way, key, text, &pair(&r, &wrong)));
            assert!(!self.is_right(way, key, text, &pair(&wrong, &wrong)));
        }
        assert!(!self.is_right(way, key, text, &pair(&s, &r)));
    }

    /// A point whose x is this number; None when there is none.
    fn point_of_x(&self, x: &[u8]) -> Option<Point> {
        // Both primes are 3 modulo 4: a root is the power with (p + 1) / 4. b is where x is 0.
        let mut limbs = [0; 12];
        let prime: &'static str = self.prime;
        read(&mut limbs, &of_hexadecimal(prime));
        let count = self.curve.length() / 4;
        let limbs: &'static [u32] = Box::leak(limbs[..count].to_vec().into_boxed_slice());
        let modulus = Modulus::new(limbs);
        let field = Field::new(modulus);
        let enter = |bytes: &[u8]| {
            let mut number = Number::default();
            read(&mut number, bytes);
            field.enter(&number)
        };
        let arithmetic = self.curve.arithmetic();
        // b, from the base point: y^2 - x^3 + 3x.
        let [base_x, base_y] = arithmetic.coordinates(&arithmetic.base())?.map(|n| field.enter(&n));
        let without_b =
            |x: &Number| field.minus(&field.times(x, &field.times(x, x)), &field.thrice(x));
        let b = field.minus(&field.times(&base_y, &base_y), &without_b(&base_x));
        let square = field.plus(&without_b(&enter(x)), &b);
        // (p + 1) / 4, the carry of the addition included.
        let mut exponent = [0u32; 13];
        let mut carry = 1;
        for (place, limb) in exponent.iter_mut().zip(limbs.iter().chain(&[0])) {
            let sum = u64::from(*limb) + carry;
            (*place, carry) = (sum as u32, sum >> 32);
        }
        let quarter: Vec<u32> =
            exponent.windows(2).map(|pair| pair[0] >> 2 | pair[1] << 30).collect();
        let (mut root, mut room) = (Number::default(), Number::default());
        modulus.power(&mut root, &square, &quarter, &mut room);
        let mut bytes = vec![4; 1 + 2 * self.curve.length()];
        let (place_of_x, place_of_y) = bytes[1..].split_at_mut(self.curve.length());
        place_of_x.copy_from_slice(x);
        write(place_of_y, &field.leave(&root));
        arithmetic.point(&bytes)
    }

    /// Signatures whose point has an x that is not below the order, which nobody finds by chance; and such whose point
    /// is at infinity. The key is computed from the signature.
    fn rare_signatures(&self) {
        let arithmetic = self.curve.arithmetic();
        let field = self.curve.scalars();
        let length = self.curve.length();
        let number = |bytes: &[u8]| {
            let mut number = Number::default();
            read(&mut number, &bytes[..bytes.len().min(length)]);
            number
        };
        let bytes_of = |number: &Number| {
            let mut bytes = vec![0; length];
            write(&mut bytes, number);
            bytes
        };
        let (text, mut found) = (b"a text", 0);
        for small in 1..40u8 {
            for is_above in [true, false] {
                let r = [vec![0; length - 1], vec![small]].concat();
                let x = if is_above { self.near_order(small as i8) } else { r.clone() };
                let Some(point) = self.point_of_x(&x) else { continue };
                let s = number(&[0x5a; 20]);
                for (way, (kind, _)) in self.verification.iter().enumerate() {
                    let hash = number(digest(*kind, &[text]).bytes());
                    // s R = h G + r Q, so Q is R by s / r less G by h / r.
                    let inverse = field.inverse(&field.enter(&number(&r)));
                    let of_point = field.times(&inverse, &s);
                    let of_base = field.minus(&Number::default(), &field.times(&inverse, &hash));
                    let key =
                        arithmetic.combine((&of_point, &point), (&of_base, &arithmetic.base()));
                    let key = written(&arithmetic, self.curve, &key).unwrap();
                    assert!(self.is_right(way, &key, text, &pair(&r, &bytes_of(&s))));
                    // Not by what x is before it is reduced.
                    let unreduced = pair(&x, &bytes_of(&s));
                    assert_eq!(self.is_right(way, &key, text, &unreduced), !is_above);
                    found += usize::from(is_above);
                }
            }
            if found >= 4 {
                break;
            }
        }
        assert!(found >= 4);
        // The key is the base point: at infinity where r is -h.
        let (kind, _) = self.verification[0];
        let hash = number(digest(kind, &[text]).bytes());
        let hash = field.leave(&field.enter(&hash));
        let r = field.minus(&Number::default(), &hash);
        let key = written(&arithmetic, self.curve, &arithmetic.base()).unwrap();
        assert!(!self.is_right(0, &key, text, &pair(&bytes_of(&r), &[5])));
    }
}

#[test]
fn exchanges_on_p256() {
    CASE_256.exchanges(60);
}

#[test]
fn exchanges_on_p384() {
    CASE_384.exchanges(14);
}

#[test]
fn points_of_p256() {
    CASE_256.points(40);
}

#[test]
fn points_of_p384() {
    CASE_384.points(40);
}

#[test]
fn signatures_of_p256() {
    CASE_256.signatures(40);
}

#[test]
fn signatures_of_p384() {
    CASE_384.signatures(10);
}

#[test]
fn rare_signatures_of_p256() {
    CASE_256.rare_signatures();
}

#[test]
fn rare_signatures_of_p384() {
    CASE_384.rare_signatures();
}

#[test]
fn exchanges_on_curve25519() {
    let mut numbers = Numbers(6);
    for _ in 0..60 {
        let secret: [u8; 32] = numbers.limbs(32).try_into().unwrap();
        let mut public = x25519::multiple(&secret, &x25519::BASE).unwrap();
        // The highest bit does not count.
        public[31] |= (numbers.next() as u8) << 7;
        let (mut peer, shared) = theirs(&agreement::X25519, &public);
        peer[31] |= (numbers.next() as u8) << 7;
        let ours = x25519::multiple(&secret, peer[..].try_into().unwrap());
        let context = (hexadecimal(&secret), hexadecimal(&peer));
        assert_eq!(ours.map(Vec::from), shared, "{context:?}");
    }
}

/// Those that are not below the prime, small ones, and any: both ends take the same ones.
#[test]
fn odd_points_of_curve25519() {
    let mut numbers = Numbers(7);
    let secret = [0x42; 32];
    for small in 0..19u8 {
        let mut least = [0; 32];
        least[0] = small;
        let mut more = [0xff; 32];
        (more[0], more[31]) = (0xed + small.min(18), 0x7f);
        let ours = x25519::multiple(&secret, &least);
        assert_eq!(ours, x25519::multiple(&secret, &more), "{small}");
        for u in [least, more] {
            let (public, shared) = theirs(&agreement::X25519, &u);
            assert_eq!(ours.is_some(), shared.is_some(), "{small}");
            if small == x25519::BASE[0] {
                assert_eq!(Some(public), shared);
            }
        }
    }
    for _ in 0..40 {
        let u: [u8; 32] = numbers.limbs(32).try_into().unwrap();
        let ours = x25519::multiple(&secret, &u).is_some();
        assert_eq!(ours, theirs(&agreement::X25519, &u).1.is_some(), "{}", hexadecimal(&u));
    }
}

/// Numbers of a key, and the public key as certificates have it.
struct RsaKey {
    all: Vec<u8>,
    modulus: Vec<u8>,
    private: Vec<u8>,
    public: Vec<u8>,
}

fn rsa_keys(wanted: core::ops::RangeInclusive<usize>) -> Vec<RsaKey> {
    let text = include_str!("../../../../tests/fixtures/rsa_keys.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let all = lines.filter_map(|line| {
        let (bits, key) = line.split_once(' ').unwrap();
        wanted.contains(&bits.parse().unwrap()).then(|| {
            let all = of_hexadecimal(key);
            // RFC 8017, A.1.2: the version is first.
            let mut rest = der::take(&mut &all[..]).unwrap().1;
            let [_, n, e, d] = [(); 4].map(|()| der::take(&mut rest).unwrap().1);
            let modulus = n[usize::from(n[0] == 0)..].to_vec();
            RsaKey { public: pair(n, e), private: d.to_vec(), modulus, all: all.clone() }
        })
    });
    all.collect()
}

/// Ways to sign with RSA: ours and ring's.
fn rsa_ways()
-> [(Padding, Kind, &'static dyn signature::RsaEncoding, &'static dyn VerificationAlgorithm); 6] {
    use signature as s;
    [
        (Padding::Pkcs1, Kind::Sha256, &s::RSA_PKCS1_SHA256, &s::RSA_PKCS1_2048_8192_SHA256),
        (Padding::Pkcs1, Kind::Sha384, &s::RSA_PKCS1_SHA384, &s::RSA_PKCS1_2048_8192_SHA384),
        (Padding::Pkcs1, Kind::Sha512, &s::RSA_PKCS1_SHA512, &s::RSA_PKCS1_2048_8192_SHA512),
        (Padding::Pss, Kind::Sha256, &s::RSA_PSS_SHA256, &s::RSA_PSS_2048_8192_SHA256),
        (Padding::Pss, Kind::Sha384, &s::RSA_PSS_SHA384, &s::RSA_PSS_2048_8192_SHA384),
        (Padding::Pss, Kind::Sha512, &s::RSA_PSS_SHA512, &s::RSA_PSS_2048_8192_SHA512),
    ]
}

/// ring and this room say the same of a signature; true when it is right.
fn rsa_right(way: usize, key: &[u8], text: &[u8], signature: &[u8]) -> bool {
    let (padding, kind, _, algorithm) = rsa_ways()[way];
    let hash = digest(kind, &[text]);
    let ours = rsa::verify(padding, kind, key, hash.bytes(), signature).is_some();
    let theirs = UnparsedPublicKey::new(algorithm, key).verify(text, signature).is_ok();
    let context = [key, text, signature].map(hexadecimal);
    assert_eq!(ours, theirs, "{padding:?} {kind:?} {context:?}");
    ours
}

fn rsa_signatures(bits: usize, count: usize) {
    let mut numbers = Numbers(8);
    let RsaKey { all, modulus, public, .. } = &rsa_keys(bits..=bits)[0];
    let signer = RsaKeyPair::from_der(all).unwrap();
    assert_eq!(signer.public().as_ref(), public);
    for turn in 0..count {
        for (way, (_, _, encoding, _)) in rsa_ways().into_iter().enumerate() {
            let length = numbers.next() % 200;
            let text = numbers.bytes(length);
            let mut signature = vec![0; modulus.len()];
            signer.sign(encoding, &SystemRandom::new(), &text, &mut signature).unwrap();
            let right = |key: &[u8], signature: &[u8]| rsa_right(way, key, &text, signature);
            assert!(right(public, &signature));
            assert!(!right(public, &numbers.changed(&signature)));
            let other = (way + 1 + numbers.next() % 5) % 6;
            assert!(!rsa_right(other, public, &text, &signature));
            if turn > 0 {
                continue;
            }
            assert!(!rsa_right(way, public, &[&text[..], &[0]].concat(), &signature));
            assert!(!right(&numbers.changed(public), &signature));
            for length in [0, 1, signature.len() - 1] {
                assert!(!right(public, &signature[..length]));
            }
            assert!(!right(public, &[&signature[..], &[0]].concat()));
            assert!(!right(public, &[&[0], &signature[..]].concat()));
            // The same number but for a modulus, where that is as long; the modulus; what is above it.
            let (mut sum, mut carry) = (signature.clone(), 0);
            for (place, byte) in sum.iter_mut().zip(modulus).rev() {
                carry += u16::from(*place) + u16::from(*byte);
                (*place, carry) = (carry as u8, carry >> 8);
            }
            for wrong in [&sum, modulus, &vec![0xff; modulus.len()], &vec![0; modulus.len()]] {
                assert!(!right(public, wrong));
            }
            if bits == 2048 {
                written_otherwise(public).iter().for_each(|key| assert!(!right(key, &signature)));
            }
        }
    }
}

#[test]
fn rsa_signatures_of_2048_bits() {
    rsa_signatures(2048, 10);
}

#[test]
fn rsa_signatures_of_3072_bits() {
    rsa_signatures(3072, 2);
}

#[test]
fn rsa_signatures_of_4096_bits() {
    rsa_signatures(4096, 1);
}

/// What stands for the text, to the power of the private exponent.
fn raised(key: &RsaKey, message: &[u8]) -> Vec<u8> {
    assert!(message.len() == key.modulus.len() && *message < key.modulus[..]);
    let count = key.modulus.len().div_ceil(4);
    let room = || vec![0; count];
    let (mut limbs, mut exponent) = (room(), room());
    let (mut number, mut inside, mut power, mut scratch) = (room(), room(), room(), room());
    read(&mut limbs, &key.modulus);
    read(&mut exponent, &key.private);
    read(&mut number, message);
    let modulus = Modulus::new(&limbs);
    modulus.power_of_two(&mut power, 64 * count);
    modulus.multiply(&mut inside, &number, &power);
    modulus.power(&mut power, &inside, &exponent, &mut scratch);
    modulus.power_of_two(&mut number, 0);
    modulus.multiply(&mut scratch, &power, &number);
    let mut signature = vec![0; key.modulus.len()];
    write(&mut signature, &scratch);
    signature
}

/// EMSA-PSS (RFC 8017, 9.1.1) with SHA-256, as long as the modulus: with this salt, what stands before it, what the
/// first byte is changed by, and what stands behind it all.
fn salted(key: &RsaKey, text: &[u8], salt: &[u8], before: u8, first: u8, end: u8) -> Vec<u8> {
    let zeros = key.modulus[0].leading_zeros();
    let skipped = usize::from(zeros == 7);
    let length = key.modulus.len() - skipped;
    let hash = digest(Kind::Sha256, &[&[0; 8], digest(Kind::Sha256, &[text]).bytes(), salt]);
    let mut masked = vec![0; length - 33];
    let at = masked.len() - salt.len();
    masked[at..].copy_from_slice(salt);
    masked[at - 1] = before;
    for (counter, piece) in (0u32..).zip(masked.chunks_mut(32)) {
        let mask = digest(Kind::Sha256, &[hash.bytes(), &counter.to_be_bytes()]);
        piece.iter_mut().zip(mask.bytes()).for_each(|(byte, mask)| *byte ^= mask);
    }
    masked[0] &= if skipped == 1 { 0xff } else { 0x7f >> zeros };
    masked[0] ^= first;
    [&vec![0; skipped][..], &masked, hash.bytes(), &[end]].concat()
}

/// Each number of zeros in front of a modulus.
#[test]
fn pss_with_moduli_of_any_length() {
    let keys = rsa_keys(2049..=2055);
    assert_eq!(keys.len(), 7);
    for key in &keys {
        let message = salted(key, b"sample", &[0x33; 32], 1, 0, 0xbc);
        let signature = raised(key, &message);
        assert!(rsa_right(3, &key.public, b"sample", &signature));
        assert!(!rsa_right(3, &key.public, b"Sample", &signature));
    }
    // The highest bit that must be 0 is not; for 2049 bits, the byte that is in front.
    let mut message = salted(&keys[0], b"sample", &[0x33; 32], 1, 0, 0xbc);
    message[0] = 1;
    (message[1], message[2]) = (0, 0);
    assert!(!rsa_right(3, &keys[0].public, b"sample", &raised(&keys[0], &message)));
    let message = salted(&keys[3], b"sample", &[0x33; 32], 1, 8, 0xbc);
    assert!(!rsa_right(3, &keys[3].public, b"sample", &raised(&keys[3], &message)));
}

#[test]
fn paddings_that_are_nearly_right() {
    let key = &rsa_keys(2048..=2048)[0];
    let right = |way, message: &[u8]| rsa_right(way, &key.public, b"sample", &raised(key, message));
    let salt = [0x33; 33];
    assert!(right(3, &salted(key, b"sample", &salt[..32], 1, 0, 0xbc)));
    // A longer salt, a shorter one, none; another byte before it, behind it all, and in front of it all.
    assert!(!right(3, &salted(key, b"sample", &salt, 1, 0, 0xbc)));
    assert!(!right(3, &salted(key, b"sample", &salt[..31], 1, 0, 0xbc)));
    assert!(!right(3, &salted(key, b"sample", &[], 1, 0, 0xbc)));
    assert!(!right(3, &salted(key, b"sample", &salt[..32], 2, 0, 0xbc)));
    assert!(!right(3, &salted(key, b"sample", &salt[..32], 1, 0, 0xbd)));
    assert!(!right(3, &salted(key, b"sample", &salt[..32], 1, 1, 0xbc)));
    // PKCS #1: what stands before the digest, and what is filled with what.
    let hash = digest(Kind::Sha256, &[b"sample"]);
    let packed = |kind: u8, filling: u8, zero: u8, info: &[u8], behind: &[u8]| {
        let end = [&[zero], info, hash.bytes(), behind].concat();
        [&[0, kind][..], &vec![filling; 254 - end.len()], &end].concat()
    };
    const INFO: [u8; 19] =
        [0x30, 49, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 32];
    const WITHOUT_PARAMETERS: [u8; 17] =
        [0x30, 47, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 4, 32];
    let mut other_hash = INFO;
    other_hash[14] = 2;
    assert!(right(0, &packed(1, 0xff, 0, &INFO, &[])));
    assert!(!right(0, &packed(1, 0xff, 0, &WITHOUT_PARAMETERS, &[])));
    assert!(!right(0, &packed(1, 0xff, 0, &other_hash, &[])));
    assert!(!right(0, &packed(1, 0xff, 0, &[], &[])));
    assert!(!right(0, &packed(2, 0xff, 0, &INFO, &[])));
    assert!(!right(0, &packed(1, 0xfe, 0, &INFO, &[])));
    assert!(!right(0, &packed(1, 0xff, 1, &INFO, &[])));
    assert!(!right(0, &packed(1, 0xff, 0, &INFO, &[0; 100])));
}
