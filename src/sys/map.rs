//! Memory that is mapped once: work buffers and the page that PID 1 and its worker share.

use core::ffi::c_void;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use rustix::process::{Resource, getrlimit};

/// Maps `length` bytes of zeros, private, page-aligned, faulted in at once (mmap(2), MAP_POPULATE), for ever.
pub fn buffer(length: usize) -> Result<&'static mut [u8], Errno> {
    bytes(length, MapFlags::PRIVATE)
}

/// The same, shared with the children of this process (MAP_SHARED): what one of them leaves there the next one finds.
/// Only one process at a time may use it.
pub fn shared_buffer(length: usize) -> Result<&'static mut [u8], Errno> {
    bytes(length, MapFlags::SHARED)
}

fn bytes(length: usize, flags: MapFlags) -> Result<&'static mut [u8], Errno> {
    let address = map(length, flags | MapFlags::POPULATE)?;
    // SAFETY: a fresh mapping of `length` readable and writable bytes that nothing else refers to and that
    // is never unmapped, so the exclusive reference may live for ever.
    Ok(unsafe { core::slice::from_raw_parts_mut(address.cast(), length) })
}

/// Puts a value that is large or must not move into memory of its own, mapped once, for ever.
pub fn place<T: 'static>(value: T) -> Result<&'static mut T, Errno> {
    const { assert!(align_of::<T>() <= 4096) };
    let address: *mut T = map(size_of::<T>(), MapFlags::PRIVATE | MapFlags::POPULATE)?.cast();
    // SAFETY: a fresh mapping, page-aligned and large enough for a `T`, that nothing else refers to and that is never
    // unmapped; written before it is referred to.
    unsafe {
        address.write(value);
        Ok(&mut *address)
    }
}

/// Maps a stack of `length` bytes with a page below it that nobody may touch: a thread that needs more than its stack
/// is ended by the kernel, and does not write over what happens to lie below.
pub fn stack(length: usize) -> Result<&'static mut [u8], Errno> {
    let guard = page_size();
    let all = buffer(length + guard)?;
    let address = all.as_mut_ptr().cast();
    // SAFETY: the first page of a fresh mapping, which is not touched any more: what is given out lies behind it.
    unsafe { rustix::mm::mprotect(address, guard, rustix::mm::MprotectFlags::empty())? };
    Ok(all.get_mut(guard..).unwrap_or_default())
}

/// A value that may live in memory that several processes share.
///
/// # Safety
/// All zero bytes must be a valid value, and every field must be an atomic: other processes write it at any time.
pub unsafe trait Shared: Sync {}

// SAFETY: made of atomics of integers and booleans, for which zeros are valid.
unsafe impl Shared for crate::progress::Shared {}

/// Maps a zeroed `T` that children of this process share with it (mmap(2), MAP_SHARED), for ever.
pub fn shared<T: Shared>() -> Result<&'static T, Errno> {
    let address = map(size_of::<T>(), MapFlags::SHARED | MapFlags::POPULATE)?;
    // SAFETY: page-aligned, at least as large as `T`, zeroed, never unmapped; `Shared` promises that zeros are a
    // valid `T` and that it is made of atomics.
    Ok(unsafe { &*address.cast::<T>() })
}

fn map(length: usize, flags: MapFlags) -> Result<*mut c_void, Errno> {
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory that exists.
    unsafe {
        mmap_anonymous(core::ptr::null_mut(), length, ProtFlags::READ | ProtFlags::WRITE, flags)
    }
}

/// Keeps the first `length` bytes of a file in memory, as long as this process lives: mapped, faulted in and locked.
/// For what must not be swapped out.
pub fn pin(file: impl AsFd, length: usize) -> Result<(), Errno> {
    if length == 0 {
        return Ok(());
    }
    let flags = MapFlags::SHARED | MapFlags::POPULATE;
    // SAFETY: a mapping at an address of the kernel's choice, which nobody uses: it touches no memory that exists.
    unsafe {
        let address = mmap(core::ptr::null_mut(), length, ProtFlags::READ, flags, file, 0)?;
        rustix::mm::mlock(address, length)
    }
}

/// Locks all that is mapped now into memory: mlockall(2), MCL_CURRENT. Not MCL_FUTURE: a growing thread stack would
/// be populated whole.
pub fn lock_current() -> Result<(), Errno> {
    const MCL_CURRENT: usize = 1;
    // SAFETY: mlockall takes one integer and changes no memory content.
    let result = unsafe { super::syscall(linux_raw_sys::general::__NR_mlockall as _, MCL_CURRENT) };
    super::checked(result).map(drop)
}

/// Locks into memory all that is mapped now or later, each page when it is first used (mlockall(2), MCL_ONFAULT since
/// Linux 4.4), or at once where the kernel cannot wait. So it costs no more than what is used anyway.
pub fn lock_as_used() -> Result<(), Errno> {
    const MCL_CURRENT: usize = 1;
    const MCL_FUTURE: usize = 2;
    const MCL_ONFAULT: usize = 4;
    let lock = |flags: usize| {
        // SAFETY: mlockall takes one integer and changes no memory content.
        let result = unsafe { super::syscall(linux_raw_sys::general::__NR_mlockall as _, flags) };
        super::checked(result).map(drop)
    };
    lock(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT).or_else(|_| lock(MCL_CURRENT | MCL_FUTURE))?;
    // The set rescue is root on its own machine, whom no limit counts for.
    if crate::IS_WHOLE && is_limited() {
        // SAFETY: munlockall takes nothing and changes no memory content.
        unsafe { super::syscall(linux_raw_sys::general::__NR_munlockall as _) };
        return Err(Errno::PERM);
    }
    Ok(())
}

/// True when RLIMIT_MEMLOCK counts for this process, in which all is locked: it counts for who has no CAP_IPC_LOCK on
/// the machine (mlock(2)). Once that is reached there is no more memory, and who needs more of its stack is ended:
/// mlock_future_ok() and acct_stack_growth() in mm/mmap.c. Asked by a mapping that is longer, and never touched.
fn is_limited() -> bool {
    let Some(limit) = getrlimit(Resource::Memlock).current else {
        return false;
    };
    let length = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(1);
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a mapping at an address of the kernel's choice, which nobody uses and nobody knows: it is gone again.
    unsafe {
        match mmap_anonymous(core::ptr::null_mut(), length, ProtFlags::empty(), flags) {
            Ok(address) => rustix::mm::munmap(address, length).is_err(),
            Err(errno) => errno == Errno::AGAIN,
        }
    }
}

/// The size of a page in bytes: 4 KiB mostly, 16 or 64 on some arm64 kernels. getpagesize(2).
pub fn page_size() -> usize {
    unsafe extern "C" {
        safe fn getpagesize() -> core::ffi::c_int;
    }
    getpagesize().max(4096) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal, WaitOptions, WaitStatus, waitpid};

    /// How a process ends that writes so many bytes above the end of the page below a stack.
    fn end_of_writing_at(distance: isize) -> WaitStatus {
        let stack = stack(8192).unwrap().as_mut_ptr();
        let child = crate::sys::process::spawn(|| {
            // SAFETY: within the stack, or in the page below it, which the kernel does not let anybody touch.
            unsafe { stack.offset(distance).write_volatile(1) };
            0
        });
        waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap().1
    }

    #[test]
    fn what_a_child_leaves_in_a_shared_buffer_the_next_one_finds() {
        let shared = shared_buffer(8192).unwrap();
        let alone = buffer(8192).unwrap();
        let mut code_of_next = || {
            let child = crate::sys::process::spawn(|| {
                shared[8191] += 1;
                alone[8191] += 1;
                i32::from(shared[8191] * 10 + alone[8191])
            });
            waitpid(Some(child.unwrap()), WaitOptions::empty()).unwrap().unwrap().1.exit_status()
        };
        assert_eq!([code_of_next(), code_of_next()], [Some(11), Some(21)]);
    }

    #[test]
    fn a_value_is_what_it_was() {
        assert_eq!(place([7u64; 1000]).unwrap(), &[7; 1000]);
    }

    #[test]
    fn who_needs_more_than_the_stack_is_ended() {
        assert_eq!(end_of_writing_at(0).exit_status(), Some(0));
        assert_eq!(end_of_writing_at(8191).exit_status(), Some(0));
        let signal = Some(Signal::SEGV.as_raw());
        assert_eq!(end_of_writing_at(-1).terminating_signal(), signal);
        assert_eq!(end_of_writing_at(-4096).terminating_signal(), signal);
    }
}
