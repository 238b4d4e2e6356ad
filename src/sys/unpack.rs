//! Unpacks the texts and tables of an audited build, which lie packed in its file (`size-report/pack`), to where its
//! instructions look for them. In other builds nothing is packed, and this is not called.
//!
//! It is the first that runs, before the C library has started. So it may use nothing of what it unpacks, no table, no
//! text, no constant that an instruction cannot hold; and nothing that is one for each thread: no call of the C library
//! that sets errno.

use crate::packed;
use core::ffi::c_void;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// Where what is packed lies, and where it goes, as addresses and numbers of bytes. All zeros: nothing is packed.
/// `size-report/pack` writes it into the file, so it may not be a constant for the compiler.
#[repr(C)]
struct Packed {
    from: usize,
    packed: usize,
    to: usize,
    length: usize,
}

/// Found by this name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".data")]
static TAKEOVER_PACKED: Packed = Packed { from: 0, packed: 0, to: 0, length: 0 };

/// Said when it fails: apart from all other texts.
#[unsafe(link_section = ".data")]
static FAILURE: [u8; 61] = *b"takeover: no memory for its own texts, or its file is broken\n";

/// Unpacks, and ends the process where that fails.
///
/// # Safety
/// To be called once, before anything else of the program.
pub unsafe extern "C" fn unpack() {
    // SAFETY: it is a static; volatile, since its value in the file is another one than here.
    let place = unsafe { core::ptr::read_volatile(&raw const TAKEOVER_PACKED) };
    if place.packed != 0 && !unpack_to(&place) {
        // SAFETY: as above: the bytes are those of the static.
        let text =
            unsafe { core::slice::from_raw_parts((&raw const FAILURE).cast(), FAILURE.len()) };
        // Nobody else to tell.
        let _ = rustix::io::write(rustix::stdio::stderr(), text);
        super::process::exit(1);
    }
}

/// Memory where the texts are looked for, with the texts in it, which nobody can change any more.
fn unpack_to(place: &Packed) -> bool {
    let to = place.to as *mut c_void;
    let writable = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the file has a hole at these addresses, made for this, and nothing else is mapped yet.
    let mapped = unsafe { rustix::mm::mmap_anonymous(to, place.length, writable, flags) };
    if mapped.is_err() {
        return false;
    }
    // SAFETY: the kernel has mapped this part of the file, for good (`size-report/pack`).
    let packed = unsafe { core::slice::from_raw_parts(place.from as *const u8, place.packed) };
    // SAFETY: just mapped, so all zeros, and nobody else knows of it.
    let unpacked = unsafe { core::slice::from_raw_parts_mut(to.cast::<u8>(), place.length) };
    let is_whole = packed::unpack(packed, unpacked);
    // SAFETY: the same memory; nobody writes to what has the type of a constant.
    is_whole && unsafe { rustix::mm::mprotect(to, place.length, MprotectFlags::READ) }.is_ok()
}
