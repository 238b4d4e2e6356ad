//! Our inflater against another one (miniz_oxide): the same bytes, the same verdict, however input and output are cut.

use inflate::{Inflate, Status};
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
use miniz_oxide::deflate::{compress_to_vec, core::create_comp_flags_from_zip_params};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// Bytes in which there is something for every part of an inflater: noise, runs, texts, far and near repetitions.
fn sample(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let count = 1 + random.below(600);
        match random.below(5) {
            0 => bytes.extend((0..count).map(|_| random.below(256) as u8)),
            1 => bytes.extend(std::iter::repeat_n(random.below(3) as u8, count * 4)),
            2 => bytes.extend((0..count).map(|_| b"the disk is written "[random.below(20)])),
            3 => bytes.extend((0..count).map(|_| (random.below(16) * random.below(16)) as u8)),
            _ if bytes.is_empty() => {}
            _ => {
                let distance = 1 + random.below(bytes.len().min(if count.is_multiple_of(2) {
                    12
                } else {
                    32_768
                }));
                (0..count).for_each(|_| bytes.push(bytes[bytes.len() - distance]));
            }
        }
    }
    bytes.truncate(length);
    bytes
}

/// Inflates in pieces of input and output of these sizes; what is unread is shown again. The output has room for
/// `most`.
fn ours(
    packed: &[u8],
    most: usize,
    piece: usize,
    window: usize,
) -> Result<(Vec<u8>, usize), Status> {
    let mut inflate = Inflate::new();
    let mut output = vec![0xee; most];
    let (mut read, mut at, mut shown) = (0, 0, piece);
    let mut room = window;
    loop {
        let input = &packed[read..(read + shown).min(packed.len())];
        let end = room.min(most);
        let (status, used, written) = inflate.inflate(input, &mut output[..end], at);
        assert!(used <= input.len() && at + written <= end, "beyond what was given");
        read += used;
        at += written;
        match status {
            Status::Done => {
                output.truncate(at);
                return Ok((output, read));
            }
            // All that is left was shown.
            Status::Input if input.len() - used >= packed.len() - read => return Err(status),
            Status::Input => shown = input.len() - used + piece,
            Status::Output if end == most => return Err(status),
            Status::Output => room += window,
            Status::Broken => return Err(status),
        }
    }
}

fn theirs(packed: &[u8], most: usize) -> Result<(Vec<u8>, usize), TINFLStatus> {
    let mut output = vec![0; most];
    let mut inflate = Box::<DecompressorOxide>::default();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (status, read, written) = decompress(&mut inflate, packed, &mut output, 0, flags);
    output.truncate(written);
    if status == TINFLStatus::Done { Ok((output, read)) } else { Err(status) }
}

#[test]
fn what_was_packed_comes_out_however_it_is_cut() {
    let mut random = Random(1);
    for round in 0..150 {
        let length = [0, 1, 2, 300, 5000, 70_000, 200_000][round % 7];
        let bytes = sample(&mut random, length);
        let level = (round / 7 % 11) as u8;
        let mut packed = compress_to_vec(&bytes, level);
        let length = packed.len();
        // Behind the end lies something else, of which nothing may be read.
        packed.extend([0xff; 20]);
        for (piece, window) in
            [(usize::MAX >> 1, usize::MAX >> 1), (4096, 32_768), (1, 1), (7, 300), (600, 1000)]
        {
            if piece < 100 && length > 20_000 {
                continue;
            }
            let (found, read) = ours(&packed, bytes.len() + 1, piece, window).unwrap();
            assert!(found == bytes, "round {round}, pieces of {piece} and {window}");
            assert_eq!(read, length, "round {round}, pieces of {piece} and {window}");
        }
        for cut in [0, length / 3, length - 1] {
            assert_eq!(ours(&packed[..cut], bytes.len() + 1, 4096, 32_768), Err(Status::Input));
        }
    }
}

#[test]
fn every_strategy_of_a_packer_is_understood() {
    let mut random = Random(2);
    let bytes = sample(&mut random, 100_000);
    // Default, filtered, Huffman alone, runs, fixed codes: zlib's numbers.
    for strategy in 0..5 {
        let mut packer = CompressorOxide::new(create_comp_flags_from_zip_params(6, -15, strategy));
        let mut packed = Vec::new();
        compress_to_output(&mut packer, &bytes, TDEFLFlush::Finish, |piece| {
            packed.extend(piece);
            true
        });
        assert!(ours(&packed, bytes.len(), 4096, 32_768).unwrap().0 == bytes, "{strategy}");
    }
}

#[test]
fn what_is_broken_is_taken_or_refused_as_by_others() {
    let mut random = Random(3);
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..6000 {
        let length = 20 + random.below(3000);
        let bytes = sample(&mut random, length);
        let level = random.below(10) as u8;
        let mut packed = compress_to_vec(&bytes, level);
        for _ in 0..1 + random.below(3) {
            // The headers of the blocks are where it matters.
            let near = packed.len().min(if random.below(2) == 0 { 100 } else { usize::MAX });
            packed[random.below(near)] ^= 1 << random.below(8);
        }
        // Cut short is what both may say in other words.
        packed.extend([0; 64]);
        let most = 1 << 17;
        let expected = theirs(&packed, most);
        let all = ours(&packed, most, usize::MAX >> 1, usize::MAX >> 1);
        let cut = ours(&packed, most, 13, 57);
        assert_eq!(all.is_ok(), cut.is_ok());
        if let (Ok(all), Ok(cut)) = (&all, &cut) {
            assert!(all == cut);
        }
        match (&expected, &all) {
            (Ok(expected), Ok(found)) => {
                assert!(expected == found);
                taken += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            _ => panic!(
                "theirs {:?}, ours {:?}: {packed:x?}",
                expected.as_ref().err(),
                all.as_ref().err()
            ),
        }
    }
    assert!(taken > 100 && refused > 1000, "{taken} and {refused}");
}

#[test]
fn codes_that_are_none_are_refused() {
    // RFC 1951 by hand: bits from the lowest of each byte on.
    let pack = |fields: &[(u32, u32)]| {
        let mut bits: Vec<bool> = Vec::new();
        for (value, count) in fields {
            bits.extend((0..*count).map(|bit| value >> bit & 1 == 1));
        }
        bits.resize(bits.len() + 800, false);
        bits.chunks(8)
            .map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | u8::from(*bit)))
            .collect::<Vec<u8>>()
    };
    let status = |fields: &[(u32, u32)]| {
        ours(&pack(fields), 4096, usize::MAX >> 1, usize::MAX >> 1).map(|(bytes, _)| bytes)
    };
    // A stored block: its length and not that of its complement.
    assert_eq!(status(&[(1, 3), (0, 5), (1, 16), (0xfffe, 16), (65, 8)]), Ok(vec![65]));
    assert_eq!(status(&[(1, 3), (0, 5), (1, 16), (0xfffd, 16), (65, 8)]), Err(Status::Broken));
    // A block of the fourth kind.
    assert_eq!(status(&[(7, 3)]), Err(Status::Broken));
    // Too many lengths, too many distances.
    assert_eq!(status(&[(5, 3), (30, 5), (0, 5), (0, 4)]), Err(Status::Broken));
    assert_eq!(status(&[(5, 3), (0, 5), (30, 5), (0, 4)]), Err(Status::Broken));
    // A code of lengths with one symbol, and one that is over-subscribed.
    assert_eq!(status(&[(5, 3), (0, 5), (0, 5), (0, 4), (1, 3)]), Err(Status::Broken));
    assert_eq!(
        status(&[(5, 3), (0, 5), (0, 5), (0, 4), (1, 3), (1, 3), (1, 3)]),
        Err(Status::Broken)
    );
    // 16 first, with nothing to repeat: codes of 16 and 17 are a bit each.
    assert_eq!(
        status(&[(5, 3), (0, 5), (0, 5), (0, 4), (1, 3), (1, 3), (0, 6), (0, 1)]),
        Err(Status::Broken)
    );
    // Fixed codes: a copy from before the start (length 3: 0000001, distance 1: 00000).
    assert_eq!(status(&[(3, 3), (0b100_0000, 7), (0, 5)]), Err(Status::Broken));
    // The same behind a literal (0: 00110000), and the end.
    assert_eq!(
        status(&[(3, 3), (0b0000_1100, 8), (0b100_0000, 7), (0, 5), (0, 7)]),
        Ok(vec![0; 4])
    );
    // Distances 30 and 31 have a code and no meaning (11110).
    assert_eq!(
        status(&[(3, 3), (0b0000_1100, 8), (0b100_0000, 7), (0b01111, 5)]),
        Err(Status::Broken)
    );
    // So have lengths 286 and 287 (11000110).
    assert_eq!(status(&[(3, 3), (0b0110_0011, 8)]), Err(Status::Broken));
}
