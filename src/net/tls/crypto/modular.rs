//! Arithmetic modulo an odd number of any length, in Montgomery's form ("Modular multiplication without trial
//! division", 1985): a number `x` is kept as `x * 2^(32 n)`, where the modulus has `n` limbs.
//!
//! A number is a row of limbs of 32 bits, the lowest first. Time and memory touched depend on lengths alone, and in
//! `power` on the exponent.

/// Adds `other`, `factor` times, to as many limbs of `number`; gives what is carried out of them.
fn add_times(number: &mut [u32], other: &[u32], factor: i64) -> i64 {
    let mut carry = 0;
    for (limb, other) in number.iter_mut().zip(other) {
        carry += i64::from(*limb) + i64::from(*other) * factor;
        *limb = carry as u32;
        carry >>= 32;
    }
    carry
}

/// True when one number is smaller than the other one, which has as many limbs.
pub fn is_below(number: &[u32], other: &[u32]) -> bool {
    let subtract = |carry: i64, (one, other): (&u32, &u32)| {
        (carry + i64::from(*one) - i64::from(*other)) >> 32
    };
    number.iter().zip(other).fold(0, subtract) < 0
}

/// Takes a number from its bytes, the highest first. What does not fit is left out.
pub fn read(limbs: &mut [u32], bytes: &[u8]) {
    limbs.fill(0);
    for (limb, piece) in limbs.iter_mut().zip(bytes.rchunks(4)) {
        *limb = piece.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte));
    }
}

/// Writes as many bytes of a number as there is room for, the highest first.
pub fn write(bytes: &mut [u8], limbs: &[u32]) {
    let lowest_first = limbs.iter().flat_map(|limb| limb.to_le_bytes());
    for (place, byte) in bytes.iter_mut().rev().zip(lowest_first) {
        *place = byte;
    }
}

/// What numbers are reduced by. Must be odd and more than 1.
#[derive(Clone, Copy, Debug)]
pub struct Modulus<'a> {
    limbs: &'a [u32],
    /// What the lowest limb has to be multiplied with to be -1, modulo 2^32.
    inverse: u32,
}

impl<'a> Modulus<'a> {
    /// The modulus of these limbs.
    pub const fn new(limbs: &'a [u32]) -> Self {
        let lowest = if let [lowest, ..] = limbs { *lowest } else { 1 };
        // Newton's iteration: each turn doubles the number of bits that are right.
        let mut inverse: u32 = 1;
        let mut bits = 1;
        while bits < 32 {
            inverse = inverse.wrapping_mul(2u32.wrapping_sub(lowest.wrapping_mul(inverse)));
            bits *= 2;
        }
        Self { limbs, inverse: inverse.wrapping_neg() }
    }

    /// Its limbs.
    pub const fn limbs(&self) -> &'a [u32] {
        self.limbs
    }

    /// Brings a number, `over` times 2^(32 n) larger than its limbs say and below twice the modulus, below the modulus.
    fn reduce(&self, number: &mut [u32], over: i64) {
        let missing = over + add_times(number, self.limbs, -1);
        add_times(number, self.limbs, -missing);
    }

    /// As many limbs as the modulus has.
    fn cut<'b>(&self, number: &'b [u32]) -> &'b [u32] {
        number.get(..self.limbs.len()).unwrap_or(number)
    }

    /// Adds a number; both are below the modulus.
    pub fn add(&self, number: &mut [u32], other: &[u32]) {
        let carry = add_times(number, self.cut(other), 1);
        self.reduce(number, carry);
    }

    /// Subtracts a number; both are below the modulus.
    pub fn subtract(&self, number: &mut [u32], other: &[u32]) {
        let missing = add_times(number, self.cut(other), -1);
        add_times(number, self.limbs, -missing);
    }

    /// The product of two numbers over 2^(32 n). One of them must be below the modulus; the result is.
    pub fn multiply(&self, product: &mut [u32], one: &[u32], other: &[u32]) {
        product.fill(0);
        let lowest = u64::from(other.first().copied().unwrap_or_default());
        let mut over = 0;
        for limb in one.iter().take(self.limbs.len()) {
            let limb = u64::from(*limb);
            let first = u64::from(product.first().copied().unwrap_or_default());
            // So many times the modulus makes the lowest limb zero, and the rest moves down by one.
            let times =
                (first.wrapping_add(limb.wrapping_mul(lowest)) as u32).wrapping_mul(self.inverse);
            let (mut carry, mut carry_of_modulus) = (0, 0);
            let mut dropped = 0;
            let mut below = &mut dropped;
            for ((place, other), modulus) in product.iter_mut().zip(other).zip(self.limbs) {
                carry += u64::from(*place) + limb * u64::from(*other);
                carry_of_modulus +=
                    u64::from(carry as u32) + u64::from(times) * u64::from(*modulus);
                *below = carry_of_modulus as u32;
                below = place;
                carry >>= 32;
                carry_of_modulus >>= 32;
            }
            over += carry + carry_of_modulus;
            *below = over as u32;
            over >>= 32;
        }
        self.reduce(product, over as i64);
    }

    /// 2 to this power: with 32 n it is 1 in Montgomery's form, with 64 n what a number is multiplied with to bring it
    /// into that form.
    pub fn power_of_two(&self, number: &mut [u32], exponent: usize) {
        number.fill(0);
        if let Some(lowest) = number.first_mut() {
            *lowest = 1;
        }
        for _ in 0..exponent {
            let mut carry = 0;
            for limb in number.iter_mut().take(self.limbs.len()) {
                (*limb, carry) = (*limb << 1 | carry, *limb >> 31);
            }
            self.reduce(number, i64::from(carry));
        }
    }

    /// A number to a power, which is no secret; `room` is as long as the number.
    pub fn power(&self, power: &mut [u32], number: &[u32], exponent: &[u32], room: &mut [u32]) {
        self.power_of_two(power, 32 * self.limbs.len());
        for limb in exponent.iter().rev() {
            for bit in (0..32).rev() {
                self.multiply(room, power, power);
                if limb >> bit & 1 == 1 {
                    self.multiply(power, room, number);
                } else {
                    power.copy_from_slice(room);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(state: &mut u64) -> u32 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Often the limbs at which carries go wrong.
        match *state >> 61 {
            0 => 0,
            1 => u32::MAX,
            _ => (*state >> 29) as u32,
        }
    }

    /// With more room than the modulus has.
    fn of(number: u128) -> [u32; 5] {
        [number as u32, (number >> 32) as u32, (number >> 64) as u32, 0, 0]
    }

    fn number(limbs: &[u32]) -> u128 {
        limbs.iter().rev().fold(0, |number, limb| number << 32 | u128::from(*limb))
    }

    /// The product of numbers of 96 bits, bit by bit.
    fn product(one: u128, other: u128, modulus: u128) -> u128 {
        (0..96).rev().fold(0, |sum, bit| {
            let sum = sum * 2 % modulus;
            if other >> bit & 1 == 1 { (sum + one) % modulus } else { sum }
        })
    }

    #[test]
    fn numbers_of_three_limbs_as_by_hand() {
        let mut state = 1;
        for _ in 0..3000 {
            let limbs = [random(&mut state) | 1, random(&mut state), random(&mut state)];
            let all = number(&limbs);
            if all == 1 {
                continue;
            }
            let mut any = || number(&[0; 3].map(|_: u32| random(&mut state))) % all;
            let (a, b) = (any(), any());
            let modulus = Modulus::new(&limbs);
            let (mut sum, mut difference) = (of(a), of(a));
            modulus.add(&mut sum, &of(b));
            modulus.subtract(&mut difference, &of(b));
            assert_eq!((number(&sum), number(&difference)), ((a + b) % all, (a + all - b) % all));
            let (mut into, mut inside, mut back) = ([0; 5], [0; 5], [0; 5]);
            modulus.power_of_two(&mut into, 192);
            modulus.multiply(&mut inside, &of(a), &into);
            modulus.multiply(&mut back, &inside, &of(b));
            assert_eq!(number(&back), product(a, b, all), "{a:x} {b:x} {all:x}");
            assert_eq!(is_below(&of(a), &of(b)), a < b);
            let (mut power, mut room) = ([0; 5], [0; 5]);
            modulus.power(&mut power, &inside, &[5], &mut room);
            modulus.multiply(&mut back, &power, &of(1));
            let square = product(a, a, all);
            assert_eq!(number(&back), product(product(square, square, all), a, all));
        }
    }

    #[test]
    fn bytes_and_limbs() {
        let mut limbs = [7; 3];
        read(&mut limbs, &[1, 2, 3, 4, 5, 6]);
        assert_eq!(limbs, [0x0304_0506, 0x0102, 0]);
        let mut bytes = [9; 7];
        write(&mut bytes, &limbs);
        assert_eq!(bytes, [0, 1, 2, 3, 4, 5, 6]);
    }
}
