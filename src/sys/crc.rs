//! CRC-32 (that of gzip, polynomial 0xEDB88320 reflected) by instructions of the processor, where it has them.
//!
//! Which processors have them is asked of the processor or the kernel at run time: the programs are made for the
//! oldest of their kind. Tables for all others are in `crate::crc32`, where what the state is, too.

/// What is shorter is not worth the asking, in bytes.
pub const LEAST: usize = 64;

/// Takes as many of the bytes into the state as there are instructions for, and gives the state and the bytes that are
/// left: all of them where there are none.
pub fn extend(state: u32, bytes: &[u8]) -> (u32, &[u8]) {
    if bytes.len() < LEAST { (state, bytes) } else { way::extend(state, bytes) }
}

/// PCLMULQDQ: sixteen bytes are multiplied on to where the next sixteen or sixty-four lie, four times at once. Gopal
/// and others, "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel 2009; the constants
/// are those of its last page, reflected.
#[cfg(target_arch = "x86_64")]
mod way {
    use core::arch::x86_64::*;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// CPUID, leaf 1, ECX: PCLMULQDQ and SSE4.1.
    const WANTED: u32 = 1 << 1 | 1 << 19;
    /// What CPUID said, and a bit that it never has together with [`WANTED`] being asked for: that it was asked. To ask
    /// is slow in a virtual machine.
    static FEATURES: AtomicU32 = AtomicU32::new(0);
    const ASKED: u32 = 1 << 31;

    fn features() -> u32 {
        let known = FEATURES.load(Relaxed);
        if known != 0 {
            return known;
        }
        #[allow(unused_unsafe)]
        // SAFETY: every processor of x86_64 has CPUID and its leaf 1.
        let found = unsafe { __cpuid(1) }.ecx | ASKED;
        FEATURES.store(found, Relaxed);
        found
    }

    pub fn extend(state: u32, bytes: &[u8]) -> (u32, &[u8]) {
        let (blocks, rest) = bytes.as_chunks();
        if features() & WANTED != WANTED {
            return (state, bytes);
        }
        // SAFETY: the processor has what the function is compiled for.
        (unsafe { fold(state, blocks) }, rest)
    }

    /// Multiplies a block on by two constants, and adds another block.
    macro_rules! fold {
        ($block:expr, $by:expr, $next:expr) => {{
            let low = _mm_clmulepi64_si128::<0x00>($block, $by);
            let high = _mm_clmulepi64_si128::<0x11>($block, $by);
            _mm_xor_si128(_mm_xor_si128(low, high), $next)
        }};
    }

    #[target_feature(enable = "pclmulqdq,sse4.1")]
    fn fold(state: u32, blocks: &[[u8; 16]]) -> u32 {
        // SAFETY: sixteen bytes that are read unaligned.
        let load = |block: &[u8; 16]| unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        let (fours, rest) = blocks.as_chunks::<4>();
        let Some(([a, b, c, d], fours)) = fours.split_first() else {
            return state;
        };
        let [mut a, mut b, mut c, mut d] = [load(a), load(b), load(c), load(d)];
        a = _mm_xor_si128(a, _mm_cvtsi32_si128(state as i32));
        let by = _mm_set_epi64x(0x1_c6e4_1596, 0x1_5444_2bd4);
        for [next_a, next_b, next_c, next_d] in fours {
            a = fold!(a, by, load(next_a));
            b = fold!(b, by, load(next_b));
            c = fold!(c, by, load(next_c));
            d = fold!(d, by, load(next_d));
        }
        let by = _mm_set_epi64x(0x0_ccaa_009e, 0x1_7519_97d0);
        a = fold!(a, by, b);
        a = fold!(a, by, c);
        a = fold!(a, by, d);
        for next in rest {
            a = fold!(a, by, load(next));
        }
        // 128 bits to 64.
        let low_words = _mm_setr_epi32(!0, 0, !0, 0);
        a = _mm_xor_si128(_mm_srli_si128::<8>(a), _mm_clmulepi64_si128::<0x10>(a, by));
        let by = _mm_set_epi64x(0, 0x1_63cd_6124);
        let high = _mm_srli_si128::<4>(a);
        a = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x00>(_mm_and_si128(a, low_words), by));
        // And to 32, after Barrett: the quotient, times the polynomial.
        let by = _mm_set_epi64x(0x1_f701_1641, 0x1_db71_0641);
        let quotient = _mm_clmulepi64_si128::<0x10>(_mm_and_si128(a, low_words), by);
        let product = _mm_clmulepi64_si128::<0x00>(_mm_and_si128(quotient, low_words), by);
        _mm_extract_epi32::<1>(_mm_xor_si128(a, product)) as u32
    }
}

/// The CRC32 instructions of ARMv8, which a program for ARMv7 may use on such a processor, too.
// Not on 32-bit ARM in the set rescue, which has no room for it.
#[cfg(any(target_arch = "aarch64", all(target_arch = "arm", feature = "core")))]
mod way {
    use core::ffi::c_ulong;
    use linux_raw_sys::auxvec;

    /// HWCAP_CRC32 in arch/arm64/include/uapi/asm/hwcap.h, HWCAP2_CRC32 in arch/arm/include/uapi/asm/hwcap.h.
    #[cfg(target_arch = "aarch64")]
    const WANTED: (u32, c_ulong) = (auxvec::AT_HWCAP, 1 << 7);
    #[cfg(target_arch = "arm")]
    const WANTED: (u32, c_ulong) = (auxvec::AT_HWCAP2, 1 << 4);

    unsafe extern "C" {
        /// getauxval(3); 0 for what the kernel does not say.
        safe fn getauxval(kind: c_ulong) -> c_ulong;
    }

    pub fn extend(state: u32, bytes: &[u8]) -> (u32, &[u8]) {
        let (blocks, rest) = bytes.as_chunks();
        let (kind, bit) = WANTED;
        if getauxval(kind.into()) & bit == 0 {
            return (state, bytes);
        }
        // SAFETY: the kernel says that the processor has the instructions.
        (unsafe { add(state, blocks) }, rest)
    }

    /// Bytes that are taken in a round.
    type Block = [u8; 16];

    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "crc")]
    fn add(mut state: u32, blocks: &[Block]) -> u32 {
        for block in blocks {
            let both = u128::from_le_bytes(*block);
            state = core::arch::aarch64::__crc32d(state, both as u64);
            state = core::arch::aarch64::__crc32d(state, (both >> 64) as u64);
        }
        state
    }

    /// The compiler has these instructions for whole programs only, so the assembler is told.
    ///
    /// # Safety
    /// The processor must have them.
    #[cfg(target_arch = "arm")]
    unsafe fn add(mut state: u32, blocks: &[Block]) -> u32 {
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for word in words {
                // SAFETY: one instruction, which the caller promises to be there; registers to registers.
                unsafe {
                    core::arch::asm!(
                        ".arch armv8-a",
                        ".arch_extension crc",
                        "crc32w {0}, {0}, {1}",
                        inout(reg) state,
                        in(reg) u32::from_le_bytes(*word),
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
            }
        }
        state
    }
}

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_arch = "arm", feature = "core")
)))]
mod way {
    pub fn extend(state: u32, bytes: &[u8]) -> (u32, &[u8]) {
        (state, bytes)
    }
}
