//! The curves P-256 and P-384 (SP 800-186, 3.2.1): points, and sums of their multiples.
//!
//! One addition serves for all (Renes, Costello, Batina, "Complete addition formulas for prime order elliptic curves",
//! 2015, algorithm 4): it is right for every two points, also for equal ones and for the point at infinity, so there
//! are no cases that an attacker could look for.

use super::field::{Field, Number};
use super::modular::{Modulus, is_below, read, write};

/// A curve y^2 = x^3 - 3x + b, of prime order.
#[derive(Debug)]
pub struct Curve {
    prime: Modulus<'static>,
    order: Modulus<'static>,
    b: &'static [u32],
    /// The point that public keys are multiples of: x and y.
    base: [&'static [u32]; 2],
}

/// SP 800-186, 3.2.1.3.
pub static P256: Curve = Curve {
    prime: Modulus::new(&[
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0x0000_0000,
        0x0000_0000,
        0x0000_0000,
        0x0000_0001,
        0xffff_ffff,
    ]),
    order: Modulus::new(&[
        0xfc63_2551,
        0xf3b9_cac2,
        0xa717_9e84,
        0xbce6_faad,
        0xffff_ffff,
        0xffff_ffff,
        0x0000_0000,
        0xffff_ffff,
    ]),
    b: &[
        0x27d2_604b,
        0x3bce_3c3e,
        0xcc53_b0f6,
        0x651d_06b0,
        0x7698_86bc,
        0xb3eb_bd55,
        0xaa3a_93e7,
        0x5ac6_35d8,
    ],
    base: [
        &[
            0xd898_c296,
            0xf4a1_3945,
            0x2deb_33a0,
            0x7703_7d81,
            0x63a4_40f2,
            0xf8bc_e6e5,
            0xe12c_4247,
            0x6b17_d1f2,
        ],
        &[
            0x37bf_51f5,
            0xcbb6_4068,
            0x6b31_5ece,
            0x2bce_3357,
            0x7c0f_9e16,
            0x8ee7_eb4a,
            0xfe1a_7f9b,
            0x4fe3_42e2,
        ],
    ],
};

/// SP 800-186, 3.2.1.4.
pub static P384: Curve = Curve {
    prime: Modulus::new(&[
        0xffff_ffff,
        0x0000_0000,
        0x0000_0000,
        0xffff_ffff,
        0xffff_fffe,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
    ]),
    order: Modulus::new(&[
        0xccc5_2973,
        0xecec_196a,
        0x48b0_a77a,
        0x581a_0db2,
        0xf437_2ddf,
        0xc763_4d81,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
    ]),
    b: &[
        0xd3ec_2aef,
        0x2a85_c8ed,
        0x8a2e_d19d,
        0xc656_398d,
        0x5013_875a,
        0x0314_088f,
        0xfe81_4112,
        0x181d_9c6e,
        0xe3f8_2d19,
        0x988e_056b,
        0xe23e_e7e4,
        0xb331_2fa7,
    ],
    base: [
        &[
            0x7276_0ab7,
            0x3a54_5e38,
            0xbf55_296c,
            0x5502_f25d,
            0x8254_2a38,
            0x59f7_41e0,
            0x8ba7_9b98,
            0x6e1d_3b62,
            0xf320_ad74,
            0x8eb1_c71e,
            0xbe8b_0537,
            0xaa87_ca22,
        ],
        &[
            0x90ea_0e5f,
            0x7a43_1d7c,
            0x1d7e_819d,
            0x0a60_b1ce,
            0xb5f0_b8c0,
            0xe9da_3113,
            0x289a_147c,
            0xf8f4_1dbd,
            0x9292_dc29,
            0x5d9e_98bf,
            0x9626_2c6f,
            0x3617_de4a,
        ],
    ],
};

/// A point in homogeneous coordinates: X/Z and Y/Z, in Montgomery's form; Z is 0 at infinity.
#[derive(Clone, Copy, Debug)]
pub struct Point([Number; 3]);

/// A curve that is computed with.
#[derive(Debug)]
pub struct Arithmetic {
    curve: &'static Curve,
    field: Field,
    b: Number,
}

/// A number of fewer limbs.
fn long(limbs: &[u32]) -> Number {
    let mut number = Number::default();
    for (place, limb) in number.iter_mut().zip(limbs) {
        *place = *limb;
    }
    number
}

impl Curve {
    /// The length of a coordinate in bytes.
    pub const fn length(&self) -> usize {
        4 * self.prime.limbs().len()
    }

    /// The numbers modulo the order of its points.
    pub fn scalars(&self) -> Field {
        Field::new(self.order)
    }

    /// A number between 0 and the order, both left out, from its bytes, the highest first; None for any other.
    pub fn scalar(&self, bytes: &[u8]) -> Option<Number> {
        let number = number_below(&self.order, bytes)?;
        (bytes.len() <= self.length() && number != Number::default()).then_some(number)
    }

    /// What computes with it.
    pub fn arithmetic(&'static self) -> Arithmetic {
        let field = Field::new(self.prime);
        Arithmetic { b: field.enter(&long(self.b)), field, curve: self }
    }
}

fn number_below(modulus: &Modulus<'static>, bytes: &[u8]) -> Option<Number> {
    let mut number = Number::default();
    read(&mut number, bytes);
    is_below(&number, &long(modulus.limbs())).then_some(number)
}

impl Arithmetic {
    /// The base point.
    pub fn base(&self) -> Point {
        let [x, y] = self.curve.base.map(|limbs| self.field.enter(&long(limbs)));
        Point([x, y, self.field.one()])
    }

    fn infinity(&self) -> Point {
        Point([Number::default(), self.field.one(), Number::default()])
    }

    /// A point from what stands for it in certificates and handshakes (SEC 1, 2.3.4, not compressed); None when it is
    /// of another form, or not on the curve. All points on these curves are of the one order.
    pub fn point(&self, bytes: &[u8]) -> Option<Point> {
        let (kind, coordinates) = bytes.split_first()?;
        let length = self.curve.length();
        let (x, y) = coordinates.split_at_checked(length)?;
        if *kind != 4 || y.len() != length {
            return None;
        }
        let f = &self.field;
        let x = f.enter(&number_below(&self.curve.prime, x)?);
        let y = f.enter(&number_below(&self.curve.prime, y)?);
        let three = f.thrice(&f.one());
        let right = f.plus(&f.times(&x, &f.minus(&f.times(&x, &x), &three)), &self.b);
        (f.times(&y, &y) == right).then(|| Point([x, y, f.one()]))
    }

    /// The sum of any two points.
    fn sum(&self, one: &Point, other: &Point) -> Point {
        let f = &self.field;
        let (Point([x1, y1, z1]), Point([x2, y2, z2])) = (one, other);
        let (xx, yy, zz) = (f.times(x1, x2), f.times(y1, y2), f.times(z1, z2));
        // The sum of the two mixed products, by one multiplication (Karatsuba).
        let mixed = |a1, b1, a2, b2, aa, bb| {
            f.minus(&f.times(&f.plus(a1, b1), &f.plus(a2, b2)), &f.plus(aa, bb))
        };
        let xy = mixed(x1, y1, x2, y2, &xx, &yy);
        let yz = mixed(y1, z1, y2, z2, &yy, &zz);
        let xz = mixed(x1, z1, x2, z2, &xx, &zz);
        let part = f.thrice(&f.minus(&xz, &f.times(&self.b, &zz)));
        let (less, more) = (f.minus(&yy, &part), f.plus(&yy, &part));
        let zz = f.thrice(&zz);
        let cross = f.thrice(&f.minus(&f.minus(&f.times(&self.b, &xz), &zz), &xx));
        let left = f.minus(&f.thrice(&xx), &zz);
        Point([
            f.minus(&f.times(&more, &xy), &f.times(&yz, &cross)),
            f.plus(&f.times(&more, &less), &f.times(&left, &cross)),
            f.plus(&f.times(&yz, &less), &f.times(&xy, &left)),
        ])
    }

    /// So many times one point, and so many times another one, together.
    pub fn combine(&self, one: (&Number, &Point), other: (&Number, &Point)) -> Point {
        let table = [self.infinity(), *one.1, *other.1, self.sum(one.1, other.1)];
        let mut sum = self.infinity();
        for index in (0..8 * self.curve.length()).rev() {
            let bit = |number: &Number| bit_of(number, index);
            sum = self.sum(&sum, &sum);
            sum = self.sum(&sum, &selected(&table, bit(one.0) | bit(other.0) << 1));
        }
        sum
    }

    /// So many times this point. As long as `combine`.
    pub fn multiple(&self, number: &Number, point: &Point) -> Point {
        self.combine((number, point), (&Number::default(), point))
    }

    /// The coordinates of a point, out of Montgomery's form; None at infinity.
    pub fn coordinates(&self, point: &Point) -> Option<[Number; 2]> {
        let f = &self.field;
        let Point([x, y, z]) = point;
        let inverse = f.inverse(z);
        let coordinates = [x, y].map(|number| f.leave(&f.times(number, &inverse)));
        (*z != Number::default()).then_some(coordinates)
    }

    /// A point as `point` reads it, one byte and two coordinates: as much as there is room for. None at infinity.
    pub fn write(&self, point: &Point, place: &mut [u8]) -> Option<()> {
        let [x, y] = self.coordinates(point)?;
        let (kind, rest) = place.split_first_mut()?;
        let (place_of_x, place_of_y) = rest.split_at_mut_checked(self.curve.length())?;
        *kind = 4;
        write(place_of_x, &x);
        write(place_of_y, &y);
        Some(())
    }
}

/// A bit of a number, the lowest being 0.
pub fn bit_of(number: &Number, index: usize) -> u32 {
    number.get(index / 32).map_or(0, |limb| limb >> (index % 32) & 1)
}

/// The point of this index; all four are looked at.
fn selected(table: &[Point; 4], index: u32) -> Point {
    let mut point = Point([Number::default(); 3]);
    for (number, candidate) in (0..).zip(table) {
        // All ones for this index, else zeros; the compiler is not to make a branch of it.
        let mask = core::hint::black_box((number ^ index).wrapping_sub(1) >> 31).wrapping_neg();
        for (place, from) in point.0.iter_mut().zip(&candidate.0) {
            for (limb, from) in place.iter_mut().zip(from) {
                *limb |= from & mask;
            }
        }
    }
    point
}
