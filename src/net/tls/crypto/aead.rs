//! Ciphers that also authenticate (RFC 5116): AES-GCM with keys of 128 and 256 bits, and ChaCha20-Poly1305 (RFC 8439).
//!
//! Put together here from the block cipher or the stream and the authenticator of the crates: what these have for that
//! goes through each byte by closures, which is slow where the compiler is to save bytes.

use aes::cipher::array::Array;
use aes::cipher::consts::{U16, U64};
use aes::cipher::typenum::Unsigned;
use aes::cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    KeyIvInit, StreamCipherCore,
};
use aes::{Aes128, Aes256};
use chacha20::variants::Ietf;
use chacha20::{ChaChaCore, R20};
use poly1305::Poly1305;
use polyval::Polyval;
use polyval::universal_hash::UniversalHash;

/// The length of a nonce, in bytes.
pub const NONCE: usize = 12;
/// The length of what proves that nothing was changed, in bytes.
pub const TAG: usize = 16;

/// Which cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// AES-128-GCM.
    Aes128,
    /// AES-256-GCM.
    Aes256,
    /// ChaCha20-Poly1305.
    ChaCha20,
}

impl Kind {
    /// The length of a key in bytes.
    pub const fn key_length(self) -> usize {
        if matches!(self, Self::Aes128) { 16 } else { 32 }
    }
}

/// A cipher with its key.
pub enum Key {
    /// AES-GCM.
    Aes(Box<Gcm>),
    /// ChaCha20-Poly1305.
    ChaCha20([u8; 32]),
}

impl Key {
    /// The cipher with this key; None when it has another length.
    pub fn new(kind: Kind, key: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::Aes128 => Self::aes(Aes::Short(Aes128::new_from_slice(key).ok()?)),
            Kind::Aes256 => Self::aes(Aes::Long(Aes256::new_from_slice(key).ok()?)),
            Kind::ChaCha20 => Self::ChaCha20(key.try_into().ok()?),
        })
    }

    fn aes(cipher: Aes) -> Self {
        Self::Aes(Box::new(Gcm::new(cipher)))
    }

    /// Encrypts `text` where it is, and gives the tag for it and for what goes with it in the clear.
    pub fn seal(&self, nonce: &[u8; NONCE], clear: &[u8], text: &mut [u8]) -> [u8; TAG] {
        match self {
            Self::Aes(gcm) => {
                gcm.cover(nonce, text);
                gcm.tag(nonce, clear, text)
            }
            Self::ChaCha20(key) => {
                let (mut stream, authenticator) = begin(key, nonce);
                cover(&mut stream, text);
                tag(authenticator, clear, text)
            }
        }
    }

    /// Decrypts `text` where it is; None, with the text as it was, when the tag is not its own.
    pub fn open(
        &self,
        nonce: &[u8; NONCE],
        clear: &[u8],
        text: &mut [u8],
        sent: &[u8; TAG],
    ) -> Option<()> {
        match self {
            Self::Aes(gcm) => {
                is_same(&gcm.tag(nonce, clear, text), sent).then_some(())?;
                gcm.cover(nonce, text);
            }
            Self::ChaCha20(key) => {
                let (mut stream, authenticator) = begin(key, nonce);
                is_same(&tag(authenticator, clear, text), sent).then_some(())?;
                cover(&mut stream, text);
            }
        }
        Some(())
    }
}

/// In the same time, wherever the first difference is.
fn is_same(one: &[u8; TAG], other: &[u8; TAG]) -> bool {
    u128::from_ne_bytes(*one) ^ u128::from_ne_bytes(*other) == 0
}

/// Adds the stream to the text.
fn add(text: &mut [u8], stream: &[u8]) {
    let (blocks, rest) = text.as_chunks_mut::<16>();
    let (keys, rest_of_keys) = stream.as_chunks::<16>();
    let unused = keys.get(blocks.len()).map_or(rest_of_keys, <[u8; 16]>::as_slice);
    for (block, key) in blocks.iter_mut().zip(keys) {
        *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(*key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(unused) {
        *byte ^= key;
    }
}

/// AES in the Galois/Counter Mode (SP 800-38D).
pub struct Gcm {
    cipher: Aes,
    /// GHASH with its key, in the form of POLYVAL, which has the bytes of each block the other way round (RFC 8452,
    /// appendix A).
    hash: Polyval,
}

/// So many bytes are encrypted and hashed at once: eight blocks, as the processors that have instructions for AES do.
const BATCH: usize = 8 * 16;

impl Gcm {
    fn new(cipher: Aes) -> Self {
        let mut batch = [0; BATCH];
        cipher.encrypt(&mut batch);
        let key = batch.first_chunk().map_or(0, |block| u128::from_be_bytes(*block));
        // Multiplied by x, in the field of POLYVAL.
        let carry = key >> 127;
        let key = key << 1 ^ carry ^ carry << 121 ^ carry << 126 ^ carry << 127;
        Self { cipher, hash: Polyval::new(&key.to_le_bytes().into()) }
    }

    /// The stream, from this block on.
    fn stream(&self, nonce: &[u8; NONCE], first: u32) -> [u8; BATCH] {
        let mut batch = [0; BATCH];
        for (counter, block) in (first..).zip(batch.as_chunks_mut::<16>().0) {
            if let Some((start, end)) = block.split_first_chunk_mut() {
                *start = *nonce;
                end.copy_from_slice(&counter.to_be_bytes());
            }
        }
        self.cipher.encrypt(&mut batch);
        batch
    }

    /// Adds the stream to the text; its first block is for the tag.
    fn cover(&self, nonce: &[u8; NONCE], text: &mut [u8]) {
        for (counter, piece) in (2..).step_by(BATCH / 16).zip(text.chunks_mut(BATCH)) {
            add(piece, &self.stream(nonce, counter));
        }
    }

    fn tag(&self, nonce: &[u8; NONCE], clear: &[u8], text: &[u8]) -> [u8; TAG] {
        let mut hash = self.hash.clone();
        for bytes in [clear, text] {
            for piece in bytes.chunks(BATCH) {
                let mut batch = [0; BATCH];
                if let Some(place) = batch.get_mut(..piece.len()) {
                    place.copy_from_slice(piece);
                }
                batch.as_chunks_mut().0.iter_mut().for_each(turn);
                let (blocks, _) = Array::slice_as_chunks(&batch);
                hash.update(blocks.get(..piece.len().div_ceil(16)).unwrap_or_default());
            }
        }
        let lengths = (clear.len() as u128) << 67 | (text.len() as u128) << 3;
        hash.update(&[lengths.to_le_bytes().into()]);
        let mut tag = hash.finalize().0;
        turn(&mut tag);
        add(&mut tag, &self.stream(nonce, 1));
        tag
    }
}

/// The bytes of a block the other way round.
fn turn(block: &mut [u8; 16]) {
    *block = u128::from_be_bytes(*block).to_le_bytes();
}

/// AES with either key, so that GCM is in the program once.
enum Aes {
    Short(Aes128),
    Long(Aes256),
}

impl Aes {
    fn encrypt(&self, batch: &mut [u8; BATCH]) {
        let (blocks, _) = Array::slice_as_chunks_mut(batch);
        match self {
            Self::Short(key) => key.encrypt_with_backend(Blocks(blocks)),
            Self::Long(key) => key.encrypt_with_backend(Blocks(blocks)),
        }
    }
}

/// Blocks to be encrypted by what this processor has: at once where that works on so many, or on fewer. Where it works
/// on more (VAES), one by one: then it has them all under way at the same time by itself.
struct Blocks<'a>(&'a mut [aes::Block]);

impl BlockSizeUser for Blocks<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Blocks<'_> {
    // Into a function that may use the instructions.
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let (batches, rest) = Array::<aes::Block, B::ParBlocksSize>::slice_as_chunks_mut(self.0);
        for batch in batches {
            backend.encrypt_par_blocks(batch.into());
        }
        // With parts of eight blocks nothing is left, and the compiler is told so: it leaves out the code for one.
        if B::ParBlocksSize::USIZE > BATCH / 16 {
            for block in rest {
                backend.encrypt_block(block.into());
            }
        }
    }
}

/// So many bytes of ChaCha20's stream at once: four blocks, as processors with vectors do.
const STREAM: usize = 4 * 64;

type ChaCha20 = ChaChaCore<R20, Ietf>;

/// The cipher and its authenticator for one record (RFC 8439, 2.8): the first block of the stream is the latter's key.
fn begin(key: &[u8; 32], nonce: &[u8; NONCE]) -> (ChaCha20, Poly1305) {
    let mut cipher = ChaCha20::new(key.into(), nonce.into());
    let mut first = [Array::<u8, U64>::default()];
    cipher.write_keystream_blocks(&mut first);
    let [first] = first;
    let key = first.first_chunk().copied().unwrap_or_default();
    (cipher, Poly1305::new(&Array(key)))
}

/// Adds the stream to the text.
fn cover(cipher: &mut ChaCha20, text: &mut [u8]) {
    for piece in text.chunks_mut(STREAM) {
        let mut stream = [0; STREAM];
        cipher.write_keystream_blocks(Array::slice_as_chunks_mut(&mut stream).0);
        add(piece, &stream);
    }
}

fn tag(mut authenticator: Poly1305, clear: &[u8], text: &[u8]) -> [u8; TAG] {
    authenticator.update_padded(clear);
    authenticator.update_padded(text);
    let lengths = (text.len() as u128) << 64 | clear.len() as u128;
    authenticator.update(&[lengths.to_le_bytes().into()]);
    authenticator.finalize().into()
}
