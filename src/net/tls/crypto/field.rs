//! Numbers modulo a prime: the coordinates of points, and what points are multiplied with.
//!
//! All have the length of the longest, so that each function is in the program once; only as many limbs as the prime
//! has are computed with, the others are zero.

use super::modular::Modulus;

/// The limbs of the longest number: 384 bits.
const MOST: usize = 12;

/// A number, its lowest limb first.
pub type Number = [u32; MOST];

const ONE: Number = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A prime, and what the numbers modulo it need. They are in Montgomery's form, where nothing else is said, and below
/// the prime.
#[derive(Debug)]
pub struct Field {
    prime: Modulus<'static>,
    one: Number,
    into_form: Number,
}

impl Field {
    /// The numbers modulo this prime.
    pub fn new(prime: Modulus<'static>) -> Self {
        let mut field = Self { prime, one: Number::default(), into_form: Number::default() };
        let bits = 32 * prime.limbs().len();
        prime.power_of_two(&mut field.one, bits);
        prime.power_of_two(&mut field.into_form, 2 * bits);
        field
    }

    /// 1.
    pub fn one(&self) -> Number {
        self.one
    }

    /// The product. In Montgomery's form when both numbers are, out of it when only one is; the other one may then be
    /// above the prime.
    pub fn times(&self, one: &Number, other: &Number) -> Number {
        let mut product = Number::default();
        self.prime.multiply(&mut product, one, other);
        product
    }

    /// The sum.
    pub fn plus(&self, one: &Number, other: &Number) -> Number {
        let mut sum = *one;
        self.prime.add(&mut sum, other);
        sum
    }

    /// Three times the number.
    pub fn thrice(&self, number: &Number) -> Number {
        self.plus(&self.plus(number, number), number)
    }

    /// The difference.
    pub fn minus(&self, one: &Number, other: &Number) -> Number {
        let mut difference = *one;
        self.prime.subtract(&mut difference, other);
        difference
    }

    /// One over this number, by Fermat's little theorem; 0 for 0.
    pub fn inverse(&self, number: &Number) -> Number {
        let mut exponent = Number::default();
        for (limb, of_prime) in exponent.iter_mut().zip(self.prime.limbs()) {
            *limb = *of_prime;
        }
        // None of the primes has less than 2 in its lowest limb.
        if let Some(lowest) = exponent.first_mut() {
            *lowest = lowest.wrapping_sub(2);
        }
        let (mut inverse, mut room) = (Number::default(), Number::default());
        self.prime.power(&mut inverse, number, &exponent, &mut room);
        inverse
    }

    /// Brings a number into Montgomery's form, and below the prime.
    pub fn enter(&self, number: &Number) -> Number {
        self.times(number, &self.into_form)
    }

    /// Brings a number out of Montgomery's form.
    pub fn leave(&self, number: &Number) -> Number {
        self.times(number, &ONE)
    }
}
