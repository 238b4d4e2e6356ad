//! Diffie and Hellman's exchange on Curve25519 (RFC 7748, 5).

use super::curve::bit_of;
use super::field::{Field, Number};
use super::modular::{Modulus, read, write};

/// 2^255 - 19.
static PRIME: Modulus<'static> = Modulus::new(&[
    0xffff_ffed,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0x7fff_ffff,
]);

/// The base point.
pub const BASE: [u8; 32] = [
    9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// (486662 - 2) / 4, of the equation of the curve.
const A24: Number = [121_665, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The point `u`, `scalar` times; the public key, with the base point. Both are read as the standard says: bits of them
/// are fixed. None where the result would be zero, as it is for points of small order.
pub fn multiple(scalar: &[u8; 32], u: &[u8; 32]) -> Option<[u8; 32]> {
    let field = Field::new(PRIME);
    let (mut scalar, mut u) = (*scalar, *u);
    scalar.reverse();
    u.reverse();
    let ([highest, .., lowest], [highest_of_u, ..]) = (&mut scalar, &mut u);
    *lowest &= !7;
    *highest = *highest & 0x7f | 0x40;
    *highest_of_u &= 0x7f;
    let (mut number, mut point) = (Number::default(), Number::default());
    read(&mut number, &scalar);
    read(&mut point, &u);
    let result = ladder(&field, &number, &field.enter(&point));
    let mut bytes = [0; 32];
    write(&mut bytes, &field.leave(&result));
    bytes.reverse();
    (bytes.iter().fold(0, |all, byte| all | byte) != 0).then_some(bytes)
}

/// Montgomery's ladder, with the standard's names.
fn ladder(f: &Field, scalar: &Number, x1: &Number) -> Number {
    let a24 = f.enter(&A24);
    let (mut x2, mut z2, mut x3, mut z3) = (f.one(), Number::default(), *x1, f.one());
    let mut swap = 0;
    for index in (0..255).rev() {
        let bit = bit_of(scalar, index);
        exchange(swap ^ bit, &mut x2, &mut x3);
        exchange(swap ^ bit, &mut z2, &mut z3);
        swap = bit;
        let (a, b) = (f.plus(&x2, &z2), f.minus(&x2, &z2));
        let (aa, bb) = (f.times(&a, &a), f.times(&b, &b));
        let e = f.minus(&aa, &bb);
        let (c, d) = (f.plus(&x3, &z3), f.minus(&x3, &z3));
        let (da, cb) = (f.times(&d, &a), f.times(&c, &b));
        let (sum, difference) = (f.plus(&da, &cb), f.minus(&da, &cb));
        x3 = f.times(&sum, &sum);
        z3 = f.times(x1, &f.times(&difference, &difference));
        x2 = f.times(&aa, &bb);
        z2 = f.times(&e, &f.plus(&aa, &f.times(&a24, &e)));
    }
    // The lowest bits of the scalar are 0, so there is nothing left to exchange.
    f.times(&x2, &f.inverse(&z2))
}

/// Exchanges two numbers when `bit` is 1; the compiler is not to make a branch of it.
fn exchange(bit: u32, one: &mut Number, other: &mut Number) {
    let mask = core::hint::black_box(bit).wrapping_neg();
    for (one, other) in one.iter_mut().zip(other) {
        let difference = (*one ^ *other) & mask;
        *one ^= difference;
        *other ^= difference;
    }
}
