//! DNS messages (RFC 1035): the question for the addresses of a name, and what an answer to it says.
//!
//! Pure functions over slices. Whatever a server sends, reading it ends.

use super::add;
use crate::net::Addresses;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The record of an IPv4 address (RFC 1035, 3.2.2).
pub const A: u8 = 1;
/// The record of an IPv6 address (RFC 3596, 2.1).
pub const AAAA: u8 = 28;
const CNAME: u8 = 5;

const HEADER: usize = 12;
/// The longest name on the wire (RFC 1035, 2.3.4).
const LONGEST_NAME: usize = 255;
const LONGEST_QUERY: usize = HEADER + LONGEST_NAME + 4;

/// A name has no more labels: each takes two bytes at least.
const MOST_LABELS: u8 = 128;
/// A name that is an alias of an alias, and so on, is followed so far: musl and BIND stop at 16, too.
const MOST_ALIASES: usize = 16;

/// What a server answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Addresses.
    Addresses,
    /// There is such a name, with no address of this kind.
    NoAddress,
    /// There is no such name.
    NoSuchName,
    /// It did not fit: to be asked again over TCP.
    Truncated,
    /// The server cannot or will not say: the response code (RFC 1035, 4.1.1).
    Failed(u8),
}

/// The response code of who cannot read a question; here also that of an answer that cannot be read.
pub const MALFORMED: u8 = 1;
/// The response code of who does not answer this question for us.
pub const REFUSED: u8 = 5;
const NO_SUCH_NAME: u8 = 3;

/// A question.
pub struct Query {
    message: heapless::Vec<u8, LONGEST_QUERY>,
}

impl Query {
    /// For `name` in `domain`, which may be empty; none when that is no name.
    pub fn new(name: &str, domain: &str) -> Option<Self> {
        let mut message = heapless::Vec::new();
        // One question, and recursion is desired.
        message.extend_from_slice(&[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
        for label in name.split('.').chain(domain.split('.')).filter(|label| !label.is_empty()) {
            let length = u8::try_from(label.len()).ok().filter(|length| *length < 64)?;
            message.push(length).ok()?;
            message.extend_from_slice(label.as_bytes()).ok()?;
        }
        if message.len() >= HEADER + LONGEST_NAME {
            return None;
        }
        // The root, then type and class.
        message.extend_from_slice(&[0, 0, A, 0, 1]).ok()?;
        Some(Self { message })
    }

    /// The message that asks for this kind of record.
    pub fn ask(&mut self, kind: u8, id: [u8; 2]) -> &[u8] {
        if let [high, low, .., of_kind, _, _] = &mut *self.message {
            [*high, *low] = id;
            *of_kind = kind;
        }
        &self.message
    }
}

/// Reads an answer to `query`, and adds its addresses to those found; none when it answers something else.
pub fn read(message: &[u8], query: &[u8], found: &mut Addresses) -> Option<Answer> {
    let [id @ .., flags, code, 0, 1, _, _, _, _, _, _] = message.first_chunk::<HEADER>()? else {
        return None;
    };
    // Length bytes are no letters: names are compared with all around them.
    let question = message.get(HEADER..query.len())?;
    let is_same = question.eq_ignore_ascii_case(query.get(HEADER..)?);
    // A response, to a standard query.
    if !is_same || !query.starts_with(id) || flags & 0xf8 != 0x80 {
        return None;
    }
    let is_authority = flags & 4 != 0;
    let would_recurse = code & 0x80 != 0;
    Some(match code & 0xf {
        0 if flags & 2 != 0 => Answer::Truncated,
        0 => match addresses(message, query, found) {
            // It names other servers, to be asked instead: not by us (RFC 1034, 4.3.1).
            Answer::NoAddress if !is_authority && !would_recurse => Answer::Failed(REFUSED),
            answer => answer,
        },
        NO_SUCH_NAME => Answer::NoSuchName,
        code => Answer::Failed(code),
    })
}

/// The addresses at the end of the chain of aliases that begins with the name in the question, whatever the order of
/// the records.
fn addresses(message: &[u8], query: &[u8], found: &mut Addresses) -> Answer {
    let [.., kind, _, _] = *query else {
        return Answer::NoAddress;
    };
    let mut owner = HEADER;
    for _ in 0..MOST_ALIASES {
        let mut records = Records::of(message, query.len());
        let mut alias = None;
        let mut answer = None;
        for record in &mut records {
            if !same_name(message, record.name, owner) {
                continue;
            }
            if record.kind == kind.into()
                && let Some(address) = address(record.data)
            {
                add(found, address);
                answer = Some(Answer::Addresses);
            } else if record.kind == CNAME.into() {
                alias = Some(record.data_at);
            }
        }
        if let Some(answer) = answer {
            return answer;
        }
        if records.left > 0 {
            return Answer::Failed(MALFORMED);
        }
        let Some(next) = alias else {
            break;
        };
        owner = next;
    }
    Answer::NoAddress
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(data).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

/// A record of the class of the Internet, or of another with type 0.
struct Record<'a> {
    /// Where its name is in the message.
    name: usize,
    kind: u16,
    data: &'a [u8],
    data_at: usize,
}

/// The records of the answer section.
struct Records<'a> {
    message: &'a [u8],
    at: usize,
    /// How many are to come.
    left: u16,
}

impl<'a> Records<'a> {
    fn of(message: &'a [u8], at: usize) -> Self {
        let count = message.get(6..8).and_then(|count| count.first_chunk());
        Self { message, at, left: count.map_or(0, |count| u16::from_be_bytes(*count)) }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    /// The next one; none where what follows is none, and then some are `left`.
    fn next(&mut self) -> Option<Record<'a>> {
        if self.left == 0 {
            return None;
        }
        let name = self.at;
        let fields_at = name_end(self.message, name)?;
        let fields = self.message.get(fields_at..)?.first_chunk::<10>()?;
        let [k1, k2, c1, c2, _, _, _, _, l1, l2] = *fields;
        let data_at = fields_at + fields.len();
        let end = data_at + usize::from(u16::from_be_bytes([l1, l2]));
        let data = self.message.get(data_at..end)?;
        let kind = if [c1, c2] == [0, 1] { u16::from_be_bytes([k1, k2]) } else { 0 };
        self.at = end;
        self.left -= 1;
        Some(Record { name, kind, data, data_at })
    }
}

/// Where the name ends that begins there: behind the root, or behind a pointer (RFC 1035, 4.1.4).
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            length => at += 1 + length,
        }
    }
}

/// The labels of a name.
struct Labels<'a> {
    message: &'a [u8],
    at: usize,
    left: u8,
}

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    /// The next one; none at the root, and at what is no name.
    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let length = *self.message.get(self.at)?;
            let next = self.at + 1;
            if length < 0xc0 {
                self.left = self.left.checked_sub(1)?;
                self.at = next + usize::from(length);
                return self.message.get(next..self.at).filter(|label| !label.is_empty());
            }
            let target = usize::from(length & 0x3f) << 8 | usize::from(*self.message.get(next)?);
            // A pointer leads back: then a row of them ends.
            if target >= self.at {
                return None;
            }
            self.at = target;
        }
    }
}

fn same_name(message: &[u8], one: usize, other: usize) -> bool {
    let labels = |at| Labels { message, at, left: MOST_LABELS };
    let (mut ones, mut others) = (labels(one), labels(other));
    loop {
        match (ones.next(), others.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one.eq_ignore_ascii_case(other) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 2] = [0xab, 0xcd];

    fn query(kind: u8) -> Vec<u8> {
        Query::new("www.example", "org").unwrap().ask(kind, ID).to_vec()
    }

    /// A record: name, type, data.
    type Written<'a> = (&'a [u8], u8, &'a [u8]);

    fn answer(query: &[u8], records: &[Written]) -> Vec<u8> {
        let mut message = query.to_vec();
        message[2] = 0x81;
        message[3] = 0x80;
        message[7] = records.len() as u8;
        for (name, kind, data) in records {
            message.extend_from_slice(name);
            message.extend_from_slice(&[0, *kind, 0, 1, 0, 0, 0, 9, 0, data.len() as u8]);
            message.extend_from_slice(data);
        }
        message
    }

    fn read_all(message: &[u8], query: &[u8]) -> (Option<Answer>, Vec<String>) {
        let mut found = Addresses::new();
        let answer = read(message, query, &mut found);
        (answer, found.iter().map(|address| address.to_string()).collect())
    }

    /// The name in the question.
    const ASKED: &[u8] = &[0xc0, 12];
    const V4: &[u8] = &[192, 0, 2, 1];

    #[test]
    fn a_question_is_as_the_rfc_has_it() {
        let written = query(AAAA);
        assert_eq!(written[..12], [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(written[12..], *b"\x03www\x07example\x03org\0\0\x1c\0\x01");
        let same = Query::new("www.example.org.", "").unwrap().ask(AAAA, ID).to_vec();
        assert_eq!(written, same);
    }

    #[test]
    fn names_that_are_too_long_are_no_question() {
        let label = "x".repeat(63);
        assert!(Query::new(&label, &label).is_some());
        assert!(Query::new(&"x".repeat(64), "").is_none());
        // 3 × 64 + 62 bytes and the root are 255.
        let longest = [&label, &label, &label, &"x".repeat(61)].map(|label| &**label).join(".");
        assert_eq!(Query::new(&longest, "").unwrap().ask(A, ID).len(), LONGEST_QUERY);
        assert!(Query::new(&longest, "y").is_none());
        assert!(Query::new(&format!("{longest}x"), "").is_none());
    }

    #[test]
    fn addresses_are_taken_from_answers_of_their_kind() {
        let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let records: &[Written] = &[
            (ASKED, A, V4),
            (ASKED, 16, b"text"),
            (ASKED, A, &[192, 0, 2, 2]),
            (ASKED, AAAA, &v6),
        ];
        let of = |kind| read_all(&answer(&query(kind), records), &query(kind));
        let v4 = ["192.0.2.1".to_string(), "192.0.2.2".to_string()];
        assert_eq!(of(A), (Some(Answer::Addresses), v4.to_vec()));
        assert_eq!(of(AAAA), (Some(Answer::Addresses), vec!["2001:db8::1".to_string()]));
    }

    #[test]
    fn what_answers_another_question_is_none() {
        let asked = query(A);
        let good = answer(&asked, &[(ASKED, A, V4)]);
        let mut other_case = good.clone();
        other_case[13..16].copy_from_slice(b"WwW");
        assert_eq!(read_all(&other_case, &asked).0, Some(Answer::Addresses));
        // Identifier, kind of message, count of questions, name, type, class.
        for (at, value) in
            [(0, 1), (1, 1), (2, 0x01), (2, 0x91), (5, 2), (14, b'x'), (30, AAAA), (32, 3)]
        {
            let mut bad = good.clone();
            assert_ne!(bad[at], value);
            bad[at] = value;
            assert_eq!(read_all(&bad, &asked), (None, vec![]), "{at}");
        }
        for length in 0..asked.len() {
            assert_eq!(read_all(&good[..length], &asked), (None, vec![]));
        }
    }

    #[test]
    fn aliases_are_followed_in_any_order() {
        let asked = query(A);
        let chain: [Written; 4] = [
            (b"\x01b\0", A, V4),
            (b"\x01a\0", CNAME, b"\x01B\0"),
            (b"\x01c\0", A, &[10, 0, 0, 1]),
            (ASKED, CNAME, b"\x01A\0"),
        ];
        let wanted = (Some(Answer::Addresses), vec!["192.0.2.1".to_string()]);
        assert_eq!(read_all(&answer(&asked, &chain), &asked), wanted);
        let mut backward = chain;
        backward.reverse();
        assert_eq!(read_all(&answer(&asked, &backward), &asked), wanted);
        // An alias of something without addresses; one of itself.
        let nothing = (Some(Answer::NoAddress), vec![]);
        assert_eq!(read_all(&answer(&asked, &chain[1..]), &asked), nothing);
        assert_eq!(read_all(&answer(&asked, &[(ASKED, CNAME, ASKED)]), &asked), nothing);
    }

    #[test]
    fn what_a_server_says_instead_is_told_apart() {
        let asked = query(A);
        let with = |flags: u8, code: u8| {
            let mut message = answer(&asked, &[]);
            message[2..4].copy_from_slice(&[flags, code]);
            read_all(&message, &asked).0.unwrap()
        };
        assert_eq!(with(0x81, 0x80), Answer::NoAddress);
        assert_eq!(with(0x81, 0x83), Answer::NoSuchName);
        assert_eq!(with(0x83, 0x80), Answer::Truncated);
        assert_eq!(with(0x81, 0x82), Answer::Failed(2));
        assert_eq!(with(0x81, 0x85), Answer::Failed(REFUSED));
        // Neither an authority nor somebody who asks others; the authority itself.
        assert_eq!(with(0x81, 0), Answer::Failed(REFUSED));
        assert_eq!(with(0x85, 0), Answer::NoAddress);
    }

    #[test]
    fn broken_answers_are_said_to_be_so_and_end() {
        let asked = query(A);
        let good = answer(&asked, &[(ASKED, 16, b"text"), (ASKED, A, V4)]);
        for length in asked.len()..good.len() {
            let read = read_all(&good[..length], &asked);
            assert_eq!(read, (Some(Answer::Failed(MALFORMED)), vec![]), "{length}");
        }
        // Pointers to themselves, forward, in a circle with a label between, and behind the end.
        let at = asked.len() as u8;
        for name in [&[0xc0, at][..], &[0xc0, at + 2], &[1, b'x', 0xc0, at], &[0xff, 0xff]] {
            let message = answer(&asked, &[(name, A, V4), (name, CNAME, name)]);
            assert_eq!(read_all(&message, &asked), (Some(Answer::NoAddress), vec![]));
        }
        let short = answer(&asked, &[(ASKED, A, b"abc")]);
        assert_eq!(read_all(&short, &asked).0, Some(Answer::NoAddress));
    }
}
