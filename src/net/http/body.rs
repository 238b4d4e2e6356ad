//! The body of an answer: where it ends, and its bytes without the chunks around them (RFC 9112, 6 and 7).

/// What is wrong with an answer.
pub type Problem = &'static str;

/// How a body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// There is none.
    Nothing,
    /// After so many bytes.
    Length(u64),
    /// After a chunk without bytes.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// The longest line around a chunk, extensions included, and the most bytes of trailers. A bound is all they need: both
/// are skipped.
const LONGEST_LINE: usize = 4096;

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// Bytes of the body.
    Data,
    /// The size of a chunk.
    Size,
    /// Blanks behind a size.
    Blank,
    /// What is said of a chunk behind its size.
    Extension,
    /// The end of the line of a chunk's size.
    SizeEnd,
    /// The end of the line behind a chunk's bytes.
    DataEnd,
    /// A line behind the last chunk; true when it has anything in it.
    Trailer(bool),
    /// Nothing: this was all.
    Nothing,
}

/// A body that is being read.
pub struct Body {
    next: Next,
    /// The bytes left of it, or of this chunk.
    left: u64,
    framing: Framing,
    /// Bytes since the last ones that were data.
    around: usize,
    /// Bytes of data so far.
    given: u64,
}

impl Body {
    /// One that ends like this.
    pub fn new(framing: Framing) -> Self {
        let (next, left) = match framing {
            Framing::Nothing | Framing::Length(0) => (Next::Nothing, 0),
            Framing::Length(length) => (Next::Data, length),
            Framing::Chunked => (Next::Size, 0),
            Framing::UntilClose => (Next::Data, u64::MAX),
        };
        Self { next, left, framing, around: 0, given: 0 }
    }

    /// True when all of it was read.
    pub fn has_ended(&self) -> bool {
        self.next == Next::Nothing
    }

    /// True when it ends with the connection.
    pub fn ends_with_connection(&self) -> bool {
        self.framing == Framing::UntilClose
    }

    /// How many bytes it had so far.
    pub fn given(&self) -> u64 {
        self.given
    }

    /// How many bytes it has in all, where that is known.
    pub fn length(&self) -> Option<u64> {
        if let Framing::Length(length) = self.framing { Some(length) } else { None }
    }

    /// How many of the bytes that come next are data and nothing else: they may be read to where they belong.
    pub fn data_ahead(&self) -> usize {
        if self.next == Next::Data { usize::try_from(self.left).unwrap_or(usize::MAX) } else { 0 }
    }

    /// Notes that so many bytes of data were read, at most as many as are ahead.
    pub fn note_data(&mut self, count: usize) {
        self.given += count as u64;
        self.around = 0;
        if self.ends_with_connection() {
            return;
        }
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            let is_chunk = self.framing == Framing::Chunked;
            self.next = if is_chunk { Next::DataEnd } else { Next::Nothing };
        }
    }

    /// Takes bytes that came and gives the data among them: how many were taken, and how many given. Stops where the
    /// output is full, and at the end of the body.
    pub fn feed(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Problem> {
        let (mut taken, mut given) = (0, 0);
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.has_ended() {
                break;
            }
            if self.next == Next::Data {
                let space = output.get_mut(given..).unwrap_or_default();
                let count = rest.len().min(space.len()).min(self.data_ahead());
                let (Some(from), Some(to)) = (rest.get(..count), space.get_mut(..count)) else {
                    break;
                };
                if count == 0 {
                    break;
                }
                to.copy_from_slice(from);
                self.note_data(count);
                (taken, given) = (taken + count, given + count);
            } else {
                self.take(rest.first().copied().unwrap_or_default())?;
                taken += 1;
            }
        }
        Ok((taken, given))
    }

    /// Notes that the connection has ended; a problem unless the body ends with it.
    pub fn end(&mut self) -> Result<(), Problem> {
        if self.ends_with_connection() {
            self.next = Next::Nothing;
        }
        if self.has_ended() { Ok(()) } else { Err("the connection ended before the answer did") }
    }

    /// One byte of what is around the chunks. A line feed alone ends a line, too.
    fn take(&mut self, byte: u8) -> Result<(), Problem> {
        self.around += 1;
        if self.around > LONGEST_LINE {
            return Err("there is too much around its chunks");
        }
        self.next = match (self.next, byte) {
            (Next::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let size = self.left.checked_mul(16).ok_or("a chunk is too long")?;
                self.left = size | u64::from(digit);
                Next::Size
            }
            // Without a digit it is no size: the line feed that ended the line before came last.
            (Next::Size, b'\r' | b'\n' | b' ' | b'\t' | b';') if self.around > 1 => {
                self.behind_size(byte)?
            }
            (Next::Blank, b'\r' | b'\n' | b' ' | b'\t' | b';') => self.behind_size(byte)?,
            (Next::Extension, b'\n') | (Next::SizeEnd, b'\n') => self.behind_size(b'\n')?,
            (Next::Extension, _) => Next::Extension,
            (Next::DataEnd, b'\r') => Next::DataEnd,
            (Next::DataEnd, b'\n') => {
                self.around = 0;
                Next::Size
            }
            (Next::Trailer(false), b'\n') => Next::Nothing,
            (Next::Trailer(_), b'\n') => Next::Trailer(false),
            (Next::Trailer(has_any), _) => Next::Trailer(has_any || byte != b'\r'),
            _ => return Err("its chunks are broken"),
        };
        Ok(())
    }

    fn behind_size(&mut self, byte: u8) -> Result<Next, Problem> {
        Ok(match byte {
            b'\r' => Next::SizeEnd,
            b';' => Next::Extension,
            b'\n' if self.left == 0 => Next::Trailer(false),
            b'\n' => Next::Data,
            _ => Next::Blank,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of a body that comes in pieces of this size, and how many bytes of the input were taken; room for so
    /// many bytes each time.
    fn read(
        framing: Framing,
        input: &[u8],
        piece: usize,
        room: usize,
    ) -> Result<(Vec<u8>, usize), Problem> {
        let mut body = Body::new(framing);
        let (mut data, mut at) = (Vec::new(), 0);
        while at < input.len() && !body.has_ended() {
            let mut output = vec![0; room];
            let end = input.len().min(at + piece);
            let (taken, given) = body.feed(&input[at..end], &mut output)?;
            assert!(taken > 0);
            data.extend(&output[..given]);
            at += taken;
        }
        body.end()?;
        assert_eq!(body.given(), data.len() as u64);
        Ok((data, at))
    }

    fn chunks(input: &str) -> Result<String, Problem> {
        let whole = read(Framing::Chunked, input.as_bytes(), 1000, 1000);
        for (piece, room) in [(1, 1), (2, 7), (7, 2)] {
            assert_eq!(read(Framing::Chunked, input.as_bytes(), piece, room), whole);
        }
        let (data, taken) = whole?;
        assert!(["", "NEXT"].contains(&&input[taken..]));
        Ok(String::from_utf8(data).unwrap())
    }

    #[test]
    fn a_length_is_kept_to() {
        for (piece, room) in [(1, 1), (3, 2), (100, 100)] {
            let read = |input: &[u8]| read(Framing::Length(5), input, piece, room);
            assert_eq!(read(b"helloNEXT"), Ok((b"hello".to_vec(), 5)));
            assert!(read(b"hell").is_err());
        }
        assert_eq!(read(Framing::Length(0), b"NEXT", 1, 1), Ok((Vec::new(), 0)));
        assert_eq!(read(Framing::Nothing, b"NEXT", 1, 1), Ok((Vec::new(), 0)));
    }

    #[test]
    fn what_ends_with_the_connection_ends_there() {
        assert_eq!(read(Framing::UntilClose, b"hello", 2, 3), Ok((b"hello".to_vec(), 5)));
        assert_eq!(read(Framing::UntilClose, b"", 2, 3), Ok((Vec::new(), 0)));
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(chunks("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nNEXT"), Ok("hello world".into()));
        assert_eq!(chunks("0\r\n\r\nNEXT"), Ok(String::new()));
        assert_eq!(chunks("0a\r\n0123456789\r\n000\r\n\r\n"), Ok("0123456789".into()));
        assert_eq!(chunks("A\r\n0123456789\r\n0\r\n\r\n"), Ok("0123456789".into()));
    }

    #[test]
    fn extensions_trailers_and_odd_spellings_are_skipped() {
        let long =
            format!("1;name=\"{}\"\r\na\r\n0;x\r\nDigest: x\r\nY: z\r\n\r\nNEXT", "x".repeat(4000));
        assert_eq!(chunks(&long), Ok("a".into()));
        assert_eq!(chunks("1 \t;x\r\na\r\n1\t\r\nb\r\n0 \r\n\r\n"), Ok("ab".into()));
        assert_eq!(chunks("1\na\n0\n\nNEXT"), Ok("a".into()));
    }

    #[test]
    fn broken_chunks_are_refused() {
        for input in [
            "\r\n",
            ";x\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\na",
            "1 1\r\na",
            "1\rx",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\r\n\r\n",
            "10000000000000000\r\n",
        ] {
            assert!(chunks(input).is_err(), "{input:?}");
        }
    }

    #[test]
    fn what_is_around_chunks_is_bounded() {
        let problem = Err("there is too much around its chunks");
        assert_eq!(chunks(&format!("1;{}", "x".repeat(5000))), problem);
        assert_eq!(chunks(&format!("0\r\n{}", "X: y\r\n".repeat(1000))), problem);
        assert_eq!(chunks(&"0".repeat(5000)), problem);
    }

    #[test]
    fn chunks_that_end_too_early_are_a_problem() {
        let whole = "5\r\nhello\r\n0\r\n\r\n";
        for end in 0..whole.len() {
            assert!(chunks(&whole[..end]).is_err(), "{end}");
        }
        assert!(chunks(whole).is_ok());
    }
}
