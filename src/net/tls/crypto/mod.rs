//! The cryptography under TLS, knowing nothing of TLS: hashes, ciphers, key exchange, and the check of signatures.
//!
//! Hashes and ciphers come from the crates of RustCrypto. The arithmetic of long numbers, and curves and RSA on top of
//! it, is written here in few bytes: what the crates have for each curve and each length is ten times as long. It does
//! not sign, and keeps no key longer than a handshake. What computes with a secret (`curve`, `x25519`) takes the same
//! steps and touches the same memory whatever the secret is; the check of signatures knows only what is public.

pub mod aead;
#[cfg(test)]
mod against_ring;
pub mod curve;
pub mod ecdsa;
mod field;
pub mod hash;
mod integer;
mod modular;
pub mod rsa;
pub mod x25519;

/// Known answers for everything, from the documents that define it where they have some.
#[cfg(test)]
mod tests {
    use super::aead::{self, Key, NONCE};
    use super::curve::{Curve, P256, P384};
    use super::hash::{Kind, Mac, digest};
    use super::rsa::Padding;
    use super::{ecdsa, rsa, x25519};

    fn bytes(hexadecimal: &str) -> Vec<u8> {
        let digit = |index| u8::from_str_radix(&hexadecimal[index..index + 2], 16).unwrap();
        (0..hexadecimal.len()).step_by(2).map(digit).collect()
    }

    fn array<const N: usize>(hexadecimal: &str) -> [u8; N] {
        bytes(hexadecimal).try_into().unwrap()
    }

    #[test]
    fn digests_and_codes() {
        let expect = |found: &[u8], expected| assert_eq!(found, bytes(expected));
        // FIPS 180-4's examples.
        expect(
            digest(Kind::Sha256, &[b"a", b"bc"]).bytes(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        );
        expect(
            digest(Kind::Sha384, &[b"ab", b"c"]).bytes(),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
        );
        expect(
            digest(Kind::Sha512, &[b"abc"]).bytes(),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd\
             454d4423643ce80e2a9ac94fa54ca49f",
        );
        // RFC 4231, 4.3 and 4.7: a short key, and one that is longer than a block.
        let code = |kind, key: &[u8], text: &[u8]| {
            let mut mac = Mac::new(kind, key);
            text.chunks(5).for_each(|piece| mac.update(piece));
            mac.finish()
        };
        let (short, long) = (&b"Jefe"[..], [0xaa; 131]);
        let (text, other) = (
            &b"what do ya want for nothing?"[..],
            &b"Test Using Larger Than Block-Size Key - Hash Key First"[..],
        );
        expect(
            code(Kind::Sha256, short, text).bytes(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        expect(
            code(Kind::Sha384, short, text).bytes(),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        );
        expect(
            code(Kind::Sha256, &long, other).bytes(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
        expect(
            code(Kind::Sha384, &long, other).bytes(),
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
        );
    }

    /// The specification of GCM (McGrew, Viega), cases 4 and 16, and RFC 8439, 2.8.2.
    #[test]
    fn ciphers_of_the_standards() {
        const TEXT: &str = "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e24\
                            49a6b525b16aedf5aa0de657ba637b39";
        const SHORT: &str = "feffe9928665731c6d6a8f9467308308";
        const LONG: &str = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
        let gcm = ("cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", TEXT);
        let sunscreen = "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a2049662049\
                         20636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c20\
                         73756e73637265656e20776f756c642062652069742e";
        let chacha = ("070000004041424344454647", "50515253c0c1c2c3c4c5c6c7", sunscreen);
        for (kind, key, (nonce, clear, text), sealed) in [
            (
                aead::Kind::Aes128,
                SHORT,
                gcm,
                "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05\
                 1ba30b396a0aac973d58e0915bc94fbc3221a5db94fae95ae7121a47",
            ),
            (
                aead::Kind::Aes256,
                LONG,
                gcm,
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838\
                 c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b",
            ),
            (
                aead::Kind::ChaCha20,
                "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
                chacha,
                "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
                 1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
                 3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
            ),
        ] {
            let key = Key::new(kind, &bytes(key)).unwrap();
            let (nonce, clear) = (array(nonce), bytes(clear));
            let mut found = bytes(text);
            let tag = key.seal(&nonce, &clear, &mut found);
            found.extend(tag);
            assert_eq!(found, bytes(sealed), "{kind:?}");
        }
        assert!(Key::new(aead::Kind::Aes128, &[0; 32]).is_none());
    }

    /// The digests are of what OpenSSL makes of the same.
    #[test]
    fn ciphers_with_texts_of_any_length_and_nothing_changed_is_opened() {
        for (kind, expected) in [
            (
                aead::Kind::Aes128,
                "262e72ae9d93fe96eef124fe72f8e93e8426a604498a384edcaaa4a843c94da5",
            ),
            (
                aead::Kind::Aes256,
                "baea9e6c613919b7b5ed8d85b983e9a4ba3afa4db8e3e793d2b242acb99bc92c",
            ),
            (
                aead::Kind::ChaCha20,
                "384e60cbe30c88159e7e1a6bfe5215908708b4e99fde42c5c246eabc95517e05",
            ),
        ] {
            let key: Vec<u8> = (0..kind.key_length() as u8).collect();
            let key = Key::new(kind, &key).unwrap();
            let mut all = Vec::new();
            for length in 0..600usize {
                let text: Vec<u8> = (0..length).map(|i| (length * 7 + i * i) as u8).collect();
                let nonce: [u8; NONCE] = core::array::from_fn(|i| (length + i) as u8);
                let clear = &text[..length % 21];
                let mut sealed = text.clone();
                let mut tag = key.seal(&nonce, clear, &mut sealed);
                all.extend_from_slice(&sealed);
                all.extend_from_slice(&tag);
                let mut opened = sealed.clone();
                key.open(&nonce, clear, &mut opened, &tag).unwrap();
                assert_eq!(opened, text);
                if length > 0 {
                    sealed[length * 31 % length] ^= 1 << (length % 8);
                    assert!(key.open(&nonce, clear, &mut sealed.clone(), &tag).is_none());
                    sealed[length * 31 % length] ^= 1 << (length % 8);
                    assert!(
                        key.open(&nonce, &text, &mut sealed.clone(), &tag).is_none() || length < 21
                    );
                }
                tag[length % 16] ^= 1 << (length % 8);
                assert!(key.open(&nonce, clear, &mut sealed, &tag).is_none());
            }
            assert_eq!(digest(Kind::Sha256, &[&all]).bytes(), bytes(expected), "{kind:?}");
        }
    }

    /// RFC 7748, 5.2 and 6.1.
    #[test]
    fn x25519_of_the_standard() {
        for (scalar, u, result) in [
            (
                "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
                "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
                "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
            ),
            (
                "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
                "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
                "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
            ),
        ] {
            assert_eq!(x25519::multiple(&array(scalar), &array(u)), Some(array(result)));
        }
        let (one, other) = ([0x77; 32], [0x3c; 32]);
        let public = |secret| x25519::multiple(secret, &x25519::BASE).unwrap();
        let shared = x25519::multiple(&one, &public(&other));
        assert_eq!(shared, x25519::multiple(&other, &public(&one)));
        assert!(shared.is_some());
    }

    /// All points of small order, each also with the prime added where that fits, and with the highest bit set.
    #[test]
    fn x25519_gives_no_secret_of_zeros() {
        for u in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        ] {
            let mut u: [u8; 32] = array(u);
            assert_eq!(x25519::multiple(&[0x55; 32], &u), None);
            u[31] |= 0x80;
            assert_eq!(x25519::multiple(&[0x55; 32], &u), None);
        }
    }

    const RESPONDER_256: &str = "04d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf6356fbf3ca366cc23e8157\
                                 854c13c58d6aac23f046ada30f8353e74f33039872ab";
    const RESPONDER_384: &str = "04e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda\
                                 41d0774a3571dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142\
                                 209dff5eaad96db9e6386c";

    fn product(curve: &'static Curve, scalar: &str, point: Option<&str>) -> Vec<u8> {
        let arithmetic = curve.arithmetic();
        let point = match point {
            Some(point) => arithmetic.point(&bytes(point)).unwrap(),
            None => arithmetic.base(),
        };
        let product = arithmetic.multiple(&curve.scalar(&bytes(scalar)).unwrap(), &point);
        let mut place = vec![0; 1 + 2 * curve.length()];
        arithmetic.write(&product, &mut place).unwrap();
        place
    }

    /// RFC 5903, 8.1 and 8.2.
    #[test]
    fn exchanges_on_the_curves_of_nist() {
        for (curve, secret, other_secret, other, shared) in [
            (
                &P256,
                "c88f01f510d9ac3f70a292daa2316de544e9aab8afe84049c62a9c57862d1433",
                "c6ef9c5d78ae012a011164acb397ce2088685d8f06bf9be0b283ab46476bee53",
                RESPONDER_256,
                "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
            ),
            (
                &P384,
                "099f3c7034d4a2c699884d73a375a67f7624ef7c6b3c0f160647b67414dce655e35b538041e649ee3faef896783ab194",
                "41cb0779b4bdb85d47846725fbec3c9430fab46cc8dc5060855cc9bda0aa2942e0308312916b8ed2960e4bd55a7448fc",
                RESPONDER_384,
                "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
            ),
        ] {
            assert_eq!(product(curve, other_secret, None), bytes(other));
            let found = product(curve, secret, Some(other));
            assert_eq!(&found[1..=curve.length()], bytes(shared));
        }
    }

    #[test]
    fn what_is_no_point_of_the_curve_is_refused() {
        for (curve, point) in [(&P256, RESPONDER_256), (&P384, RESPONDER_384)] {
            let arithmetic = curve.arithmetic();
            let good = bytes(point);
            assert!(arithmetic.point(&good).is_some());
            let refused = |point: &[u8]| assert!(arithmetic.point(point).is_none());
            for bit in 0..8 * good.len() {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                refused(&bad);
            }
            // Compressed; too short; too long; nothing; infinity as SEC 1 has it; zeros.
            let mut compressed = good[..=curve.length()].to_vec();
            compressed[0] = 2 | good[good.len() - 1] & 1;
            refused(&compressed);
            refused(&good[..good.len() - 1]);
            refused(&[&good[..], &[0]].concat());
            refused(&[]);
            refused(&[0]);
            refused(&[&[4][..], &vec![0; 2 * curve.length()]].concat());
            refused(&[&[4][..], &vec![0xff; 2 * curve.length()]].concat());
        }
        // y and the prime less y are both right; the prime more than x is not, though it is the same number.
        let arithmetic = P256.arithmetic();
        let x = "0000000000000000000000000000000000000000000000000000000000000005";
        let y = "459243b9aa581806fe913bce99817ade11ca503c64d9a3c533415c083248fbcc";
        let more = "ffffffff00000001000000000000000000000001000000000000000000000004";
        assert!(arithmetic.point(&bytes(&format!("04{x}{y}"))).is_some());
        assert!(arithmetic.point(&bytes(&format!("04{more}{y}"))).is_none());
    }

    #[test]
    fn multiples_at_the_ends_of_the_order() {
        const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        assert!(P256.scalar(&bytes(ORDER)).is_none());
        assert!(P256.scalar(&[0; 32]).is_none());
        assert!(P256.scalar(&[1; 33]).is_none());
        let last = ORDER.replace("2551", "2550");
        let (first, last) = (product(&P256, "01", None), product(&P256, &last, None));
        // -1 times the point has its x, and the other y.
        assert_eq!(first[..33], last[..33]);
        assert_ne!(first, last);
        let arithmetic = P256.arithmetic();
        let (one, less) =
            (P256.scalar(&[1]).unwrap(), P256.scalar(&bytes(&ORDER.replace("2551", "2550"))));
        let base = arithmetic.base();
        let infinity = arithmetic.combine((&one, &base), (&less.unwrap(), &base));
        assert!(arithmetic.coordinates(&infinity).is_none());
    }

    struct Signed {
        algorithm: String,
        kind: Kind,
        key: Vec<u8>,
        signature: Vec<u8>,
    }

    fn signatures() -> Vec<Signed> {
        let text = include_str!("../../../../tests/fixtures/signatures.txt");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let all = lines.map(|line| {
            let [algorithm, hash, key, signature] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            Signed {
                algorithm: algorithm.to_string(),
                kind: match hash {
                    "sha256" => Kind::Sha256,
                    "sha384" => Kind::Sha384,
                    _ => Kind::Sha512,
                },
                key: bytes(key),
                signature: bytes(signature),
            }
        });
        all.collect()
    }

    fn is_right(signed: &Signed, text: &[u8], key: &[u8], signature: &[u8]) -> bool {
        let digest = digest(signed.kind, &[text]);
        let verified = match &*signed.algorithm {
            "p256" => ecdsa::verify(&P256, key, digest.bytes(), signature),
            "p384" => ecdsa::verify(&P384, key, digest.bytes(), signature),
            "pkcs1" => rsa::verify(Padding::Pkcs1, signed.kind, key, digest.bytes(), signature),
            _ => rsa::verify(Padding::Pss, signed.kind, key, digest.bytes(), signature),
        };
        verified.is_some()
    }

    #[test]
    fn signatures_are_right_and_with_anything_changed_wrong() {
        for signed in signatures() {
            let Signed { key, signature, .. } = &signed;
            assert!(is_right(&signed, b"sample", key, signature), "{}", signed.algorithm);
            assert!(!is_right(&signed, b"Sample", key, signature));
            for byte in 0..signature.len() {
                // Every bit of the first and the last ones, one of the others in some.
                let is_end = byte < 3 || byte + 3 > signature.len();
                let bits = if is_end { 0..8 } else { byte % 8..byte % 8 + 1 };
                for bit in bits.filter(|_| is_end || byte % 16 == 5) {
                    let mut wrong = signature.clone();
                    wrong[byte] ^= 1 << bit;
                    assert!(!is_right(&signed, b"sample", key, &wrong), "{}", signed.algorithm);
                }
            }
            assert!(!is_right(&signed, b"sample", key, &signature[1..]));
            assert!(!is_right(&signed, b"sample", key, &signature[..signature.len() - 1]));
            assert!(!is_right(&signed, b"sample", key, &[&signature[..], &[0]].concat()));
            assert!(!is_right(&signed, b"sample", key, &[]));
            assert!(!is_right(&signed, b"sample", &key[..key.len() - 1], signature));
            assert!(!is_right(&signed, b"sample", &[&key[..], &[0]].concat(), signature));
            assert!(!is_right(&signed, b"sample", &[], signature));
        }
    }

    #[test]
    fn one_padding_is_not_taken_for_the_other() {
        for mut signed in signatures() {
            let other = match &*signed.algorithm {
                "pkcs1" => "pss",
                "pss" => "pkcs1",
                _ => continue,
            };
            signed.algorithm = other.to_string();
            assert!(!is_right(&signed, b"sample", &signed.key, &signed.signature));
        }
    }

    /// An integer of DER, of any length.
    fn integer(number: &[u8]) -> Vec<u8> {
        tagged(2, &[&[0], number].concat())
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

    #[test]
    fn keys_that_nobody_should_have_are_refused_at_once() {
        let signed = signatures().into_iter().find(|signed| signed.algorithm == "pkcs1").unwrap();
        let key = |modulus: &[u8], exponent: &[u8]| {
            tagged(0x30, &[integer(modulus), integer(exponent)].concat())
        };
        let refused = |key: &[u8], length: usize| {
            for signature in [vec![0x11; length], vec![0; length], vec![0xff; length]] {
                assert!(!is_right(&signed, b"sample", key, &signature));
            }
        };
        let modulus = vec![0xc5; 256];
        let usual = [1, 0, 1];
        for exponent in [
            &[][..],
            &[0],
            &[0x81; 5],
            &[0x80, 0, 0, 0],
            &[0x81; 256],
            // It is 1, but for a zero in front, and one that is minus 1.
            &[0, 0x81],
        ] {
            refused(&key(&modulus, exponent), 256);
        }
        refused(&tagged(0x30, &[integer(&modulus), vec![2, 1, 1]].concat()), 256);
        refused(&tagged(0x30, &[integer(&modulus), vec![2, 1, 0]].concat()), 256);
        refused(&tagged(0x30, &[integer(&modulus), vec![2, 0]].concat()), 256);
        refused(&tagged(0x30, &integer(&modulus)), 256);
        refused(&tagged(0x30, &[integer(&modulus), vec![2, 1, 3], vec![2, 1, 3]].concat()), 256);
        // Negative; even; 2040 bits; tiny ones; none; 16,384 bits.
        refused(&tagged(0x30, &[tagged(2, &modulus), integer(&usual)].concat()), 256);
        refused(&key(&[0xc4; 256], &usual), 256);
        refused(&key(&[0xc5; 255], &usual), 255);
        for tiny in [&[0x81][..], &[0x83], &[0xff; 4], &[0xff; 127]] {
            refused(&key(tiny, &usual), tiny.len());
        }
        refused(&tagged(0x30, &[vec![2, 1, 0], vec![2, 1, 3]].concat()), 1);
        refused(&tagged(0x30, &[vec![2, 1, 1], vec![2, 1, 3]].concat()), 1);
        refused(&key(&[0xc5; 2048], &usual), 2048);
        refused(&key(&[0xc5; 1025], &usual), 1025);
        // 2047 bits, the highest byte there.
        let mut short = modulus.clone();
        short[0] = 0x7f;
        refused(&tagged(0x30, &[tagged(2, &short), integer(&[0x81])].concat()), 256);
        // What is no prime's product is computed with all the same; the largest, with the largest exponent.
        refused(&key(&[0xff; 1024], &[0xff; 4]), 1024);
        refused(&key(&[0xff; 256], &[0xff; 4]), 256);
    }

    #[test]
    fn numbers_of_ecdsa_are_below_the_order_and_not_zero() {
        const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
        let signed = signatures().into_iter().find(|signed| signed.algorithm == "p256").unwrap();
        let half = |number: &[u8]| integer(number);
        let order = half(&bytes(ORDER));
        let one = vec![2, 1, 1];
        let zero = vec![2, 1, 0];
        let huge = half(&[0x99; 33]);
        let negative = vec![2, 1, 0x81];
        let padded = vec![2, 2, 0, 1];
        let empty = vec![2, 0];
        for (r, s) in [
            (&zero, &one),
            (&one, &zero),
            (&order, &one),
            (&one, &order),
            (&huge, &one),
            (&one, &huge),
            (&negative, &one),
            (&padded, &one),
            (&empty, &one),
            (&one, &one),
        ] {
            let signature = tagged(0x30, &[&r[..], &s[..]].concat());
            assert!(!is_right(&signed, b"sample", &signed.key, &signature));
        }
    }
}
