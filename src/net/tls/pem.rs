//! Certificates in PEM (RFC 7468), read byte by byte in fixed memory: files of any size, lines of any length, text
//! between the blocks.
//!
//! Blocks with other labels are skipped, such as the "TRUSTED CERTIFICATE" of OpenSSL, which is no certificate alone.

use crate::base64;

/// The largest certificate that is read, in bytes. One of an authority has 2,000 at most.
pub const MAX_CERTIFICATE: usize = 6144;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";

/// How far a block got that is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    Inside,
    /// Inside of one that is not base64, or too large.
    Broken,
}

/// Takes the bytes of a file one after the other, and gives the certificates in it.
pub struct Reader {
    state: State,
    /// The start of the line: enough to know where a block begins and ends.
    line: heapless::Vec<u8, 40>,
    /// The last bits of base64, of which so many do not make a byte yet.
    bits: u32,
    count: u32,
    is_padded: bool,
    certificate: heapless::Vec<u8, MAX_CERTIFICATE>,
    /// How many blocks were broken, too large, or not ended.
    pub broken: u32,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

impl Reader {
    /// Before the first byte.
    pub const fn new() -> Self {
        Self {
            state: State::Outside,
            line: heapless::Vec::new(),
            bits: 0,
            count: 0,
            is_padded: false,
            certificate: heapless::Vec::new(),
            broken: 0,
        }
    }

    /// Takes some more bytes. `found` gets each certificate that ends in them, as DER.
    pub fn push(&mut self, bytes: &[u8], found: &mut dyn FnMut(&[u8])) {
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => self.end_line(found),
                byte => self.take(*byte),
            }
        }
    }

    /// The file has ended, behind the end of a line: a block that has not is broken.
    pub fn end(&mut self) {
        self.broken += u32::from(self.state != State::Outside);
        self.state = State::Outside;
    }

    fn take(&mut self, byte: u8) {
        // The end of a longer line is not kept: no line with a label is as long.
        let _ = self.line.push(byte);
        let is_label = self.line.first() == Some(&b'-');
        if self.state == State::Inside && !is_label && !self.decode(byte) {
            self.state = State::Broken;
        }
    }

    /// Takes one character of base64; false when it is none, or none may follow, or the certificate is too large.
    fn decode(&mut self, byte: u8) -> bool {
        if byte == b'=' {
            self.is_padded = true;
            return true;
        }
        let Some(value) = base64::value(byte) else {
            return byte == b' ' || byte == b'\t';
        };
        self.bits = self.bits << 6 | value;
        self.count += 6;
        if self.count < 8 {
            return !self.is_padded;
        }
        self.count -= 8;
        self.certificate.push((self.bits >> self.count) as u8).is_ok() && !self.is_padded
    }

    fn end_line(&mut self, found: &mut dyn FnMut(&[u8])) {
        let line = self.line.trim_ascii_end();
        // Not `==`: some editors put a byte order mark first.
        if line.ends_with(BEGIN) {
            // One that was not ended.
            self.broken += u32::from(self.state != State::Outside);
            self.state = State::Inside;
            (self.count, self.is_padded) = (0, false);
            self.certificate.clear();
        } else if line == END && self.state != State::Outside {
            // A single character makes no byte.
            if self.state == State::Inside && self.count < 6 {
                found(&self.certificate);
            } else {
                self.broken += 1;
            }
            self.state = State::Outside;
        }
        self.line.clear();
    }
}

/// Writes a certificate as a block of PEM; gives how many bytes, 0 when it does not fit.
pub fn write(certificate: &[u8], place: &mut [u8]) -> usize {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut place = place.iter_mut();
    let mut count = 0;
    let mut put = |bytes: &[u8]| {
        bytes.iter().all(|byte| {
            count += 1;
            place.next().map(|place| *place = *byte).is_some()
        })
    };
    let mut fits = put(BEGIN) && put(b"\n");
    for line in certificate.chunks(48) {
        for group in line.chunks(3) {
            let bits = (0..3)
                .fold(0, |bits, at| bits << 8 | group.get(at).map_or(0, |byte| u32::from(*byte)));
            for digit in 0..4 {
                let value = (bits >> (18 - 6 * digit)) as usize & 63;
                let digit = if digit > group.len() { b'=' } else { DIGITS[value] };
                fits = fits && put(&[digit]);
            }
        }
        fits = fits && put(b"\n");
    }
    fits = fits && put(END) && put(b"\n");
    if fits { count } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The certificates in these pieces of a file, and how many blocks were broken.
    fn all(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, u32) {
        let (mut reader, mut found) = (Reader::new(), Vec::new());
        for piece in pieces {
            reader.push(piece, &mut |certificate| found.push(certificate.to_vec()));
        }
        reader.push(b"\n", &mut |certificate| found.push(certificate.to_vec()));
        reader.end();
        (found, reader.broken)
    }

    fn block(certificate: &[u8]) -> Vec<u8> {
        let mut text = [0; 2 * MAX_CERTIFICATE];
        let count = write(certificate, &mut text);
        text[..count].to_vec()
    }

    #[test]
    fn what_is_written_is_read_whatever_the_pieces_and_the_ends_of_lines() {
        for length in [0, 1, 2, 3, 47, 48, 49, 1000, MAX_CERTIFICATE] {
            let certificate: Vec<u8> = (0..length).map(|at| (at * 7 + at / 256) as u8).collect();
            let text = block(&certificate);
            let windows = String::from_utf8(text.clone()).unwrap().replace('\n', "\r\n");
            let one_line = String::from_utf8(text.clone()).unwrap().replace('\n', "");
            let one_line = one_line.replace("E-----", "E-----\n").replace("-----EN", "\n-----EN");
            for text in
                [&text[..], windows.as_bytes(), one_line.as_bytes(), &text[..text.len() - 1]]
            {
                for size in [1, 7, text.len()] {
                    let pieces: Vec<_> = text.chunks(size).collect();
                    assert_eq!(all(&pieces), (vec![certificate.clone()], 0), "{length} {size}");
                }
            }
        }
    }

    #[test]
    fn as_openssl_writes_it() {
        let text = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
        assert_eq!(block(&[0x30, 3, 2, 1, 1]), text);
        assert_eq!(write(&[0x30, 3, 2, 1, 1], &mut [0; 62]), 0);
        // Text, a byte order mark, white space behind, and what is no certificate by itself.
        let around = [
            b"\xef\xbb\xbf",
            &text[..],
            b"CN = a root\n-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n-----END TRUSTED CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----  \n MAMC\tAQE \n-----END CERTIFICATE-----\t",
        ];
        assert_eq!(all(&around), (vec![vec![0x30, 3, 2, 1, 1]; 2], 0));
    }

    #[test]
    fn what_is_broken_is_counted_and_the_next_one_read() {
        let good = block(b"good");
        let large = block(&[0; MAX_CERTIFICATE]).split_off(28);
        let large = [b"-----BEGIN CERTIFICATE-----\nAAAA\n", &large[..]].concat();
        for broken in [
            b"-----BEGIN CERTIFICATE-----\nAA!A\n-----END CERTIFICATE-----\n".as_slice(),
            b"-----BEGIN CERTIFICATE-----\nAA==AAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAAA\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n",
            &large,
        ] {
            let (found, count) = all(&[&good, broken, &good]);
            assert_eq!((found, count), (vec![b"good".to_vec(); 2], 1));
            assert_eq!(all(&[broken]), (vec![], 1));
        }
    }
}
