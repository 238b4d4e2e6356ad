//! The start of the program, in place of that of std.
//!
//! std's own start installs a handler for stack overflows (with a stack, signal handling and limits of the C library)
//! and prepares for what this program does not have: 3 KB. What matters of it is done here.

use core::ffi::{CStr, c_char, c_int};
use rustix::fd::{BorrowedFd, IntoRawFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The arguments of this process, the program's name first.
#[derive(Clone, Copy)]
pub struct Arguments {
    next: *const *const c_char,
    left: usize,
}

impl Arguments {
    /// What the C library passes to `main`.
    ///
    /// # Safety
    /// `values` must point to `count` strings that end in a NUL and live as long as the process.
    pub unsafe fn new(count: c_int, values: *const *const c_char) -> Self {
        Self { next: values, left: usize::try_from(count).unwrap_or(0) }
    }

    /// The next argument.
    pub fn next_text(&mut self) -> Option<&'static CStr> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `new` was promised as many strings as `left` counts down from.
        unsafe {
            let text = CStr::from_ptr(*self.next);
            self.next = self.next.add(1);
            Some(text)
        }
    }
}

impl Iterator for Arguments {
    type Item = OsString;
    fn next(&mut self) -> Option<OsString> {
        Some(OsStr::from_bytes(self.next_text()?.to_bytes()).to_os_string())
    }
}

/// What a run of this program begins with: no environment, and what std does before `main`. A write to a closed pipe is
/// an error and not the end (SIGPIPE, signal(7)), and no file that is opened later becomes standard input, output or
/// error.
///
/// # Safety
/// There must be no other thread.
pub unsafe fn prepare() {
    // SAFETY: as the caller promises.
    unsafe { super::process::leave_environment() };
    super::process::ignore_closed_pipes();
    for number in 0..3 {
        // SAFETY: only asked whether it is open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        if rustix::io::fcntl_getfd(descriptor) == Err(Errno::BADF) {
            // Takes the lowest free number, which is this one. When it fails there is nobody to tell.
            let null = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty());
            let _ = null.map(IntoRawFd::into_raw_fd);
        }
    }
}

unsafe extern "C" {
    /// Where a program of the C library begins.
    pub fn _start();
}

/// Makes `fn run(Arguments) -> i32` the start of the program.
///
/// The file of an audited build begins at `takeover_unpack` instead, which unpacks and goes on to the C library's own
/// beginning. It calls that with the stack as the kernel made it, the arguments on top, and with the one register that
/// may carry something (System V ABI, process initialization: what to do at the exit).
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the C library.
        ///
        /// # Safety
        /// `values` points to `count` strings that end in a NUL and live as long as the process.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn main(
            count: core::ffi::c_int,
            values: *const *const core::ffi::c_char,
        ) -> core::ffi::c_int {
            // SAFETY: nothing has started a thread yet.
            unsafe { $crate::sys::start::prepare() };
            // SAFETY: as the caller promises: the kernel put the arguments on the stack, for good.
            $run(unsafe { $crate::sys::start::Arguments::new(count, values) })
        }

        /// Called by the kernel.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub extern "C" fn takeover_unpack() {
            #[cfg(target_arch = "x86_64")]
            core::arch::naked_asm!(
                "mov rbx, rdx",
                "call {unpack}",
                "mov rdx, rbx",
                "jmp {start}",
                unpack = sym $crate::sys::unpack::unpack,
                start = sym $crate::sys::start::_start,
            );
            #[cfg(target_arch = "aarch64")]
            core::arch::naked_asm!(
                "mov x19, x0",
                "bl {unpack}",
                "mov x0, x19",
                "b {start}",
                unpack = sym $crate::sys::unpack::unpack,
                start = sym $crate::sys::start::_start,
            );
            // Called, and not gone to: a short jump of ARMv6's Thumb does not reach it.
            #[cfg(target_arch = "arm")]
            core::arch::naked_asm!(
                "mov r4, r0",
                "bl {unpack}",
                "mov r0, r4",
                "bl {start}",
                unpack = sym $crate::sys::unpack::unpack,
                start = sym $crate::sys::start::_start,
            );
        }
    };
}
