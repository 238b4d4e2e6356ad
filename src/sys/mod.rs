//! Thin safe wrappers for what rustix does not have.
//!
//! The only room with `unsafe`. A wrapper names its system call and nothing else: no policy, no logging, no
//! retries. Facts about arguments come from the manual page that each item names.

#[cfg(any(feature = "backup", feature = "tls"))]
pub mod arena;
pub mod block;
pub mod clock;
pub mod crc;
#[cfg(feature = "core")]
pub mod extents;
pub mod heap;
pub mod map;
pub mod process;
pub mod ptrace;
pub mod start;
pub mod thread;
pub mod unpack;
pub mod wireless;

use rustix::io::Errno;

unsafe extern "C" {
    /// syscall(2), from the C library that std links.
    fn syscall(number: core::ffi::c_long, ...) -> core::ffi::c_long;
}

/// A string as the kernel takes it: ended by a NUL, and holding none.
pub fn terminated<const N: usize>(text: &str) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    let place = bytes.get_mut(..text.len()).filter(|_| text.len() < N);
    place.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(text.as_bytes());
    if text.as_bytes().contains(&0) { Err(Errno::INVAL) } else { Ok(bytes) }
}

/// Turns the C library's −1 into the calling thread's errno.
fn checked(result: core::ffi::c_long) -> Result<usize, Errno> {
    if result >= 0 {
        return Ok(result as usize);
    }
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(Errno::from_raw_os_error(code))
}
