//! The check of RSA signatures (RFC 8017, 8.1.2 and 8.2.2), with keys of 2048 to 8192 bits.

use super::hash::{self, Kind};
use super::integer;
use super::modular::{Modulus, is_below, read, write};

/// The bytes of a modulus.
const SHORTEST: usize = 256;
const LONGEST: usize = 1024;

/// How the digest is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// EMSA-PKCS1-v1_5.
    Pkcs1,
    /// EMSA-PSS, with MGF1 of the same hash and a salt as long as the digest.
    Pss,
}

/// Some when `signature` is one of what has this digest, by whom this public key belongs to; None when not, also where
/// the key is none, or too short or too long.
pub fn verify(
    padding: Padding,
    kind: Kind,
    key: &[u8],
    digest: &[u8],
    signature: &[u8],
) -> Option<()> {
    let [modulus, exponent] = integer::pair(key)?;
    let mut message = [0; LONGEST];
    let message = message.get_mut(..modulus.len())?;
    is_fit(modulus, exponent).then_some(())?;
    raise(modulus, exponent, signature, message)?;
    match padding {
        Padding::Pkcs1 => is_packed(kind, digest, message).then_some(()),
        Padding::Pss => salted(kind, digest, message, modulus.first()?.leading_zeros()),
    }
}

/// A key as authorities make them. An even modulus cannot be computed with; an exponent of 1 signs nothing, and one of
/// more than 32 bits, which nobody has, would cost time.
fn is_fit(modulus: &[u8], exponent: &[u8]) -> bool {
    let is_odd = |number: &[u8]| number.last().is_some_and(|lowest| lowest & 1 == 1);
    let is_long = modulus.len() > SHORTEST
        || modulus.len() == SHORTEST && modulus.first().is_some_and(|first| *first >= 0x80);
    is_long
        && modulus.len() <= LONGEST
        && is_odd(modulus)
        && exponent.len() <= 4
        && is_odd(exponent)
        && exponent != [1]
}

/// The signature to the power of the exponent, as bytes.
fn raise(modulus: &[u8], exponent: &[u8], signature: &[u8], message: &mut [u8]) -> Option<()> {
    let count = modulus.len().div_ceil(4);
    let mut numbers = [[0; LONGEST / 4]; 4];
    let [limbs, number, power, room] = &mut numbers;
    let limbs = limbs.get_mut(..count)?;
    let (number, power) = (number.get_mut(..count)?, power.get_mut(..count)?);
    let room = room.get_mut(..count)?;
    let mut short = [0];
    read(limbs, modulus);
    read(number, signature);
    read(&mut short, exponent);
    if signature.len() != modulus.len() || !is_below(number, limbs) {
        return None;
    }
    let modulus = Modulus::new(limbs);
    modulus.power_of_two(power, 64 * count);
    modulus.multiply(room, number, power);
    number.copy_from_slice(room);
    modulus.power(power, number, &short, room);
    // Out of Montgomery's form: times 1.
    modulus.power_of_two(number, 0);
    modulus.multiply(room, power, number);
    write(message, room);
    Some(())
}

/// RFC 8017, 9.2: the digest stands behind its name, and what is left in front is filled.
fn is_packed(kind: Kind, digest: &[u8], message: &[u8]) -> bool {
    let length = digest.len() as u8;
    // DigestInfo, up to the digest (note 1).
    let (sequence, identifier) = (17 + length, kind.identifier());
    let info = [0x30, sequence, 0x30, 13, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, identifier];
    let end = [5, 0, 4, length];
    let info = info.iter().chain(&end).chain(digest);
    // 19 bytes of it, and three that are not filled.
    let filled = message.len().saturating_sub(digest.len() + 22);
    let filling = core::iter::repeat_n(&0xff, filled);
    [0, 1].iter().chain(filling).chain(&[0]).chain(info).eq(message.iter())
}

/// RFC 8017, 9.1.2; so many of the highest bits of the modulus are 0. Some when it is right.
fn salted(kind: Kind, digest: &[u8], message: &mut [u8], zeros: u32) -> Option<()> {
    // What was packed has one bit less than the modulus, and so a byte less, maybe.
    let (message, used) = match (zeros, message) {
        (7, [0, rest @ ..]) => (rest, 0xff),
        (7, _) => return None,
        (_, all) => (all, 0x7f_u8 >> zeros),
    };
    let ([0xbc], rest) = message.split_last_mut().map(|(last, rest)| ([*last], rest))? else {
        return None;
    };
    let (masked, hash) = rest.split_at_mut_checked(rest.len().checked_sub(digest.len())?)?;
    if *masked.first()? & !used != 0 {
        return None;
    }
    // MGF1 (B.2.1).
    for (counter, piece) in (0u32..).zip(masked.chunks_mut(digest.len())) {
        let mask = hash::digest(kind, &[hash, &counter.to_be_bytes()]);
        for (byte, mask) in piece.iter_mut().zip(mask.bytes()) {
            *byte ^= mask;
        }
    }
    *masked.first_mut()? &= used;
    let (filling, salt) = masked.split_at_checked(masked.len().checked_sub(digest.len())?)?;
    let (last, filling) = filling.split_last()?;
    let is_filled = *last == 1 && filling.iter().all(|byte| *byte == 0);
    let expected = hash::digest(kind, &[&[0; 8], digest, salt]);
    (is_filled && expected.bytes() == hash).then_some(())
}
