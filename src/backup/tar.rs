//! Headers of tar entries: ustar (POSIX.1-1988), and GNU's ways for what does not fit there.
//!
//! The supervisor unpacks with the `tar` of its image, which is Alpine's and so busybox: of a pax header that one reads
//! the path and no size or owner, but it reads GNU's long names and numbers in base 256, as GNU tar, libarchive and
//! node's tar do. Names of users and groups are left out: they mean nothing on the new OS.

/// The size of a header and of what contents are padded to, in bytes.
pub const BLOCK: usize = 512;

/// What kind of entry it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A file with contents.
    File,
    /// A directory; its name ends in `/`.
    Directory,
    /// The name of the next entry, too long for a header, ended by a NUL.
    LongName,
}

/// What an entry keeps of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// The owner's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
    /// The time of the last change, in seconds since 1970.
    pub modified: i64,
}

/// The longest name in a header, in bytes.
pub const SHORT_NAME: usize = 100;

/// A header block. A name of more than [`SHORT_NAME`] bytes is cut: the caller writes a [`Kind::LongName`] entry
/// before.
pub fn header(name: &[u8], kind: Kind, attributes: &Attributes, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block, 0, name.get(..name.len().min(SHORT_NAME)).unwrap_or_default());
    number(&mut block, 100, 8, u64::from(attributes.mode & 0o7777));
    number(&mut block, 108, 8, u64::from(attributes.user));
    number(&mut block, 116, 8, u64::from(attributes.group));
    number(&mut block, 124, 12, size);
    // Eleven octal digits last until 2242; before 1970 there is nothing.
    number(&mut block, 136, 12, attributes.modified.clamp(0, 0o777_7777_7777) as u64);
    let flag: &[u8] = match kind {
        Kind::File => b"0",
        Kind::Directory => b"5",
        Kind::LongName => b"L",
    };
    put(&mut block, 156, flag);
    put(&mut block, 257, b"ustar\x0000");
    number(&mut block, 329, 8, 0);
    number(&mut block, 337, 8, 0);
    // The checksum is that of the block with blanks in its place: six digits, NUL, blank.
    put(&mut block, 148, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    number(&mut block, 148, 7, sum);
    block
}

/// How many zero bytes follow contents of `size` bytes.
pub const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    for (to, from) in block.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// A number in a field of `width` bytes: octal with a NUL behind it, or GNU's base 256 with the first bit set.
fn number(block: &mut [u8; BLOCK], at: usize, width: usize, value: u64) {
    let field = block.get_mut(at..at + width).unwrap_or_default();
    let digits = width - 1;
    let mut rest = value;
    if value >> (3 * digits) == 0 {
        for byte in field.iter_mut().take(digits).rev() {
            *byte = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
        if let Some(last) = field.last_mut() {
            *last = 0;
        }
        return;
    }
    for byte in field.iter_mut().rev() {
        *byte = rest as u8;
        rest = rest.checked_shr(8).unwrap_or(0);
    }
    if let Some(first) = field.first_mut() {
        *first |= 0x80;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Attributes = Attributes { mode: 0o4755, user: 1000, group: 5, modified: 8 };

    fn text(block: &[u8], at: usize, width: usize) -> &str {
        core::str::from_utf8(&block[at..at + width]).unwrap().trim_end_matches('\0')
    }

    #[test]
    fn a_header_has_its_fields_at_their_places() {
        let block = header(b"data/", Kind::Directory, &SOME, 0);
        assert_eq!(text(&block, 0, 100), "data/");
        assert_eq!(text(&block, 100, 8), "0004755");
        assert_eq!(text(&block, 108, 8), "0001750");
        assert_eq!(text(&block, 116, 8), "0000005");
        assert_eq!(text(&block, 124, 12), "00000000000");
        assert_eq!(text(&block, 136, 12), "00000000010");
        assert_eq!(block[156], b'5');
        assert_eq!(&block[257..265], b"ustar\x0000");
        assert_eq!(block[155], b' ');
        let given = u32::from_str_radix(text(&block, 148, 7), 8).unwrap();
        let mut blank = block;
        blank[148..156].fill(b' ');
        assert_eq!(given, blank.iter().map(|byte| u32::from(*byte)).sum());
    }

    #[test]
    fn what_octal_cannot_hold_is_in_base_256() {
        let attributes = Attributes { user: 0o7777777, group: 0o10000000, ..SOME };
        let block = header(b"a", Kind::File, &attributes, 0o77777777777);
        assert_eq!(text(&block, 108, 8), "7777777");
        assert_eq!(block[116..124], [0x80, 0, 0, 0, 0, 0x20, 0, 0]);
        assert_eq!(text(&block, 124, 12), "77777777777");
        let block = header(b"a", Kind::File, &attributes, 1 << 33);
        assert_eq!(block[124..136], [0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]);
        let block = header(b"a", Kind::File, &attributes, u64::MAX);
        assert_eq!(block[124..136], [0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
    }

    #[test]
    fn times_outside_the_field_are_clamped() {
        for (time, shown) in [(-1, "00000000000"), (i64::MAX, "77777777777")] {
            let block = header(b"a", Kind::File, &Attributes { modified: time, ..SOME }, 0);
            assert_eq!(text(&block, 136, 12), shown);
        }
    }

    #[test]
    fn a_long_name_is_cut_and_contents_are_padded() {
        let block = header(&[b'x'; 300], Kind::File, &SOME, 0);
        assert_eq!(text(&block, 0, 100).len(), 100);
        assert_eq!([0, 1, 511, 512, 513].map(padding), [0, 511, 1, 0, 511]);
    }
}
