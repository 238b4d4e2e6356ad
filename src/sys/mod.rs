//! Thin safe wrappers for what rustix does not have.
//!
//! The only room with `unsafe`. A wrapper names its system call and nothing else: no policy, no logging, no
//! retries. Facts about arguments come from the manual page that each item names.

pub mod block;
pub mod heap;
pub mod map;
pub mod process;

use rustix::io::Errno;

unsafe extern "C" {
    /// syscall(2), from the C library that std links.
    fn syscall(number: core::ffi::c_long, ...) -> core::ffi::c_long;
}

/// Turns the C library's −1 into the calling thread's errno.
fn checked(result: core::ffi::c_long) -> Result<usize, Errno> {
    if result >= 0 {
        return Ok(result as usize);
    }
    let code = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    Err(Errno::from_raw_os_error(code))
}
