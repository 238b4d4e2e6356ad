//! Which bytes of a disk outlive that its front is written, and how those of a file that do not are moved to others of
//! its blocks that do.
//!
//! Only arithmetic over pieces: who writes is told, piece by piece, what to copy where.

use super::extents::{Piece, Place, Pull};
use crate::error::Error;

/// What is left alone at the end of a disk, in bytes: the record of a failed flash is written there, and an old backup
/// GPT cleared.
pub const TAIL: u64 = 1 << 20;
/// Up to the next multiple of this, in bytes, what ends in it is taken to be overwritten. A medium may take more than
/// it was told to discard, up to a unit of its own, of 4 MiB at most; what that costs the packed image, nobody has.
const STEP: u64 = 4 << 20;

/// The ranges of a disk that are written: its front and its tail; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overwritten {
    front: u64,
    tail: u64,
}

impl Overwritten {
    /// Of a disk of `size` bytes, of which the first `written` are.
    pub fn of(size: u64, written: u64) -> Self {
        let front = written.next_multiple_of(STEP);
        Self { front, tail: size.saturating_sub(TAIL).max(front) }
    }

    /// Of a disk that is not written.
    pub const fn nothing() -> Self {
        Self { front: 0, tail: u64::MAX }
    }

    /// Whether the byte at `at` is overwritten, and for how many bytes from there on that is so.
    fn look(&self, at: u64) -> (bool, u64) {
        if at < self.front {
            (true, self.front - at)
        } else if at < self.tail {
            (false, self.tail - at)
        } else {
            (true, u64::MAX - at)
        }
    }

    /// How many of `length` bytes from `at` on outlive it.
    pub fn outlived(&self, at: u64, length: u64) -> u64 {
        let end = at.saturating_add(length).min(self.tail);
        end.saturating_sub(at.max(self.front))
    }

    /// The front of a piece for which one and the same is true, whether that is being overwritten, and the rest.
    fn split(&self, piece: Piece) -> (Piece, bool, Piece) {
        let (is_overwritten, length) = match piece.place {
            Place::Zeros => (false, piece.length),
            Place::Disk(at) => self.look(at),
        };
        let (front, rest) = piece.split(length);
        (front, is_overwritten, rest)
    }
}

/// What of a file outlives, and what does not.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sums {
    /// How many pieces it is in, with those that are divided.
    pub pieces: u64,
    /// The bytes of the file that are on the disk.
    pub on_disk: u64,
    /// Those of them that are overwritten.
    pub overwritten: u64,
}

/// Adds up the pieces of a file.
pub fn count(pieces: &mut dyn Pull, over: Overwritten) -> Result<Sums, Error> {
    let mut sums = Sums::default();
    while let Some(piece) = pieces.next()? {
        let mut left = piece;
        while left.length > 0 {
            let (front, is_overwritten, rest) = over.split(left);
            sums.pieces += 1;
            if front.place != Place::Zeros {
                sums.on_disk += front.length;
            }
            sums.overwritten += if is_overwritten { front.length } else { 0 };
            left = rest;
        }
    }
    Ok(sums)
}

/// What becomes of a piece of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It stays where it is.
    Stays(Piece),
    /// It is copied to `to`, a byte of the file that was set aside, and then lies at `place` of the disk.
    Copied {
        /// Where it begins in its file.
        from: u64,
        /// Its length.
        length: u64,
        /// Where its copy begins in the other file.
        to: u64,
        /// Where that is on the disk.
        place: u64,
    },
}

/// Gives each piece of a file in its order, and those that are overwritten a place among `spaces`, the pieces of a file
/// that was set aside. Fails when these are too few.
pub fn arrange(
    pieces: &mut dyn Pull,
    spaces: &mut dyn Pull,
    over: Overwritten,
    act: &mut dyn FnMut(Step) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut space = Space { all: spaces, over, left: None };
    while let Some(piece) = pieces.next()? {
        let mut left = piece;
        while left.length > 0 {
            let (mut front, is_overwritten, rest) = over.split(left);
            left = rest;
            if !is_overwritten {
                act(Step::Stays(front))?;
                continue;
            }
            while front.length > 0 {
                let (to, place, length) = space.take(front.length)?;
                act(Step::Copied { from: front.start, length, to, place })?;
                (_, front) = front.split(length);
            }
        }
    }
    Ok(())
}

/// The space that is left for copies.
struct Space<'a> {
    all: &'a mut dyn Pull,
    over: Overwritten,
    left: Option<Piece>,
}

impl Space<'_> {
    /// Up to `wanted` bytes in one piece: where they are in the file that was set aside, and on the disk.
    fn take(&mut self, wanted: u64) -> Result<(u64, u64, u64), Error> {
        loop {
            let piece = match self.left.take().filter(|left| left.length > 0) {
                Some(left) => left,
                None => self.all.next()?.ok_or_else(|| {
                    Error::failed("copying behind the image", "", "the space for it has gone")
                })?,
            };
            let (front, is_overwritten, rest) = self.over.split(piece);
            match front.place {
                Place::Disk(place) if !is_overwritten => {
                    let (used, unused) = front.split(wanted);
                    // What is behind the boundary is overwritten, or another piece's front.
                    let unused_length = unused.length + rest.length;
                    self.left = Some(Piece { length: unused_length, ..unused });
                    return Ok((used.start, place, used.length));
                }
                _ => self.left = Some(rest),
            }
        }
    }
}

/// How many bytes of a file that was set aside outlive.
pub fn usable(spaces: &mut dyn Pull, over: Overwritten) -> Result<u64, Error> {
    let sums = count(spaces, over)?;
    Ok(sums.on_disk - sums.overwritten)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Pieces that are known.
    pub struct Given<'a>(core::iter::Copied<core::slice::Iter<'a, Piece>>);

    impl<'a> Given<'a> {
        pub fn of(pieces: &'a [Piece]) -> Self {
            Self(pieces.iter().copied())
        }
    }

    impl Pull for Given<'_> {
        fn next(&mut self) -> Result<Option<Piece>, Error> {
            Ok(self.0.next())
        }
    }

    fn at(start: u64, length: u64, place: u64) -> Piece {
        Piece { start, length, place: Place::Disk(place) }
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_front_up_to_a_whole_step_and_the_last_mib_are_overwritten() {
        let over = Overwritten::of(100 * MIB, 10 * MIB - 5);
        assert_eq!(over.look(0), (true, 12 * MIB));
        assert_eq!(over.look(12 * MIB - 1), (true, 1));
        assert_eq!(over.look(12 * MIB), (false, 87 * MIB));
        assert!(over.look(99 * MIB).0);
        assert_eq!(over.outlived(9 * MIB, 200 * MIB), 87 * MIB);
        assert_eq!(over.outlived(0, 12 * MIB), 0);
        assert_eq!(over.outlived(50 * MIB, 7), 7);
        // The image fills the disk: nothing outlives.
        assert_eq!(Overwritten::of(100 * MIB, 100 * MIB).outlived(0, u64::MAX), 0);
        assert_eq!(Overwritten::nothing().outlived(3, 1000), 1000);
    }

    #[test]
    fn pieces_before_behind_and_across_the_end_are_counted_and_moved() {
        let over = Overwritten::of(100 * MIB, 12 * MIB);
        let pieces = [
            at(0, MIB, 50 * MIB),
            at(MIB, 2 * MIB, 11 * MIB),
            Piece { start: 3 * MIB, length: 10, place: Place::Zeros },
            at(3 * MIB + 10, 100, 3),
            at(3 * MIB + 110, 100, 99 * MIB - 50),
        ];
        let wanted = Sums { pieces: 7, on_disk: 3 * MIB + 200, overwritten: MIB + 150 };
        assert_eq!(count(&mut Given::of(&pieces), over).unwrap(), wanted);
        // In front of the end, across it, and behind it.
        let spaces =
            [at(0, 5 * MIB, MIB), at(5 * MIB, MIB, 12 * MIB - 7), at(6 * MIB, MIB, 20 * MIB)];
        assert_eq!(usable(&mut Given::of(&spaces), over).unwrap(), 2 * MIB - 7);
        let mut steps = Vec::new();
        let act = &mut |step| {
            steps.push(step);
            Ok(())
        };
        arrange(&mut Given::of(&pieces), &mut Given::of(&spaces), over, act).unwrap();
        let copied = |from, length, to, place| Step::Copied { from, length, to, place };
        let wanted = [
            Step::Stays(pieces[0]),
            copied(MIB, MIB - 7, 5 * MIB + 7, 12 * MIB),
            copied(2 * MIB - 7, 7, 6 * MIB, 20 * MIB),
            Step::Stays(at(2 * MIB, MIB, 12 * MIB)),
            Step::Stays(pieces[2]),
            copied(3 * MIB + 10, 100, 6 * MIB + 7, 20 * MIB + 7),
            Step::Stays(at(3 * MIB + 110, 50, 99 * MIB - 50)),
            copied(3 * MIB + 160, 50, 6 * MIB + 107, 20 * MIB + 107),
        ];
        assert_eq!(steps, wanted);
        let few = [at(0, MIB, 20 * MIB)];
        assert!(
            arrange(&mut Given::of(&pieces), &mut Given::of(&few), over, &mut |_| Ok(())).is_err()
        );
    }

    /// Pseudo-random numbers.
    pub struct Random(pub u64);

    impl Random {
        pub fn below(&mut self, end: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % end.max(1)
        }
    }

    /// A file in pieces all over a disk of `size` bytes, and spaces that nobody has: what a file system could give.
    pub fn layout(random: &mut Random, size: u64) -> (Vec<Piece>, Vec<Piece>) {
        let (mut pieces, mut spaces) = (Vec::new(), Vec::new());
        let mut place = 0;
        while place < size {
            let length = (1 + random.below(40_000)).min(size - place);
            match random.below(3) {
                0 => pieces.push(at(0, length, place)),
                1 => spaces.push(at(0, length, place)),
                _ => {}
            }
            place += length;
        }
        let mut shuffle = |all: &mut Vec<Piece>, has_holes: bool| {
            for index in (1..all.len()).rev() {
                all.swap(index, random.below(index as u64 + 1) as usize);
            }
            let mut start = 0;
            let mut filled = Vec::new();
            for piece in all.drain(..) {
                if has_holes && random.below(4) == 0 {
                    let length = 1 + random.below(5000);
                    filled.push(Piece { start, length, place: Place::Zeros });
                    start += length;
                }
                filled.push(Piece { start, ..piece });
                start += piece.length;
            }
            *all = filled;
        };
        shuffle(&mut pieces, true);
        shuffle(&mut spaces, false);
        (pieces, spaces)
    }

    /// Of a disk of `size` bytes the last MiB, and of the first 2 MiB as many.
    pub fn overwritten(random: &mut Random, size: u64) -> Overwritten {
        let front = random.below(2 * MIB).next_multiple_of(MIB);
        Overwritten { front, tail: size - TAIL }
    }

    #[test]
    fn whatever_the_layout_every_byte_ends_up_where_it_outlives() {
        let mut moved = 0;
        for seed in 0..300 {
            let mut random = Random(seed);
            let size = 4 * MIB;
            let over = overwritten(&mut random, size);
            let (pieces, spaces) = layout(&mut random, size);
            let need = count(&mut Given::of(&pieces), over).unwrap().overwritten;
            let has = usable(&mut Given::of(&spaces), over).unwrap();
            let mut next = 0;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            let mut copied = 0;
            let arranged =
                arrange(&mut Given::of(&pieces), &mut Given::of(&spaces), over, &mut |step| {
                    let (start, length, place) = match step {
                        Step::Stays(Piece { start, length, place: Place::Disk(at) }) => {
                            (start, length, at)
                        }
                        Step::Stays(piece) => {
                            assert_eq!(piece.start, next);
                            next += piece.length;
                            return Ok(());
                        }
                        Step::Copied { from, length, to, place } => {
                            let space =
                                spaces.iter().find(|s| s.start <= to && to < s.start + s.length);
                            let space = space.expect("it was set aside");
                            let Place::Disk(begin) = space.place else { panic!() };
                            assert_eq!(place, begin + (to - space.start));
                            assert!(to + length <= space.start + space.length);
                            copied += length;
                            (from, length, place)
                        }
                    };
                    assert_eq!(start, next, "seed {seed}");
                    assert!(length > 0);
                    assert_eq!(over.outlived(place, length), length, "seed {seed}");
                    taken.push((place, place + length));
                    next += length;
                    Ok(())
                });
            assert_eq!(arranged.is_ok(), has >= need, "seed {seed}");
            if arranged.is_ok() {
                assert_eq!(copied, need);
                assert_eq!(next, pieces.iter().map(|piece| piece.length).sum::<u64>());
                moved += u32::from(copied > 0);
            }
            taken.sort_unstable();
            assert!(taken.is_sorted_by(|a, b| a.1 <= b.0), "two pieces in one place");
        }
        assert!(moved > 50, "{moved}");
    }
}
