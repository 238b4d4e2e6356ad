//! The check of signatures of ECDSA (FIPS 186-5, 6.4.2).

use super::curve::Curve;
use super::field::Number;
use super::integer;
use super::modular::read;

/// Some when `signature` is one of what has this digest, by whom this public key belongs to; None when not, also where
/// the key is no point of the curve.
pub fn verify(curve: &'static Curve, key: &[u8], digest: &[u8], signature: &[u8]) -> Option<()> {
    let [r, s] = integer::pair(signature)?;
    let (r, s) = (curve.scalar(r)?, curve.scalar(s)?);
    let arithmetic = curve.arithmetic();
    let key = arithmetic.point(key)?;
    // As many bytes of the digest as the order has.
    let mut hash = Number::default();
    read(&mut hash, digest.get(..curve.length()).unwrap_or(digest));
    let scalars = curve.scalars();
    let inverse = scalars.inverse(&scalars.enter(&s));
    let (of_base, of_key) = (scalars.times(&inverse, &hash), scalars.times(&inverse, &r));
    let sum = arithmetic.combine((&of_base, &arithmetic.base()), (&of_key, &key));
    let [x, _] = arithmetic.coordinates(&sum)?;
    // Into the form and out of it: modulo the order.
    (scalars.leave(&scalars.enter(&x)) == r).then_some(())
}
