//! One helper thread on memory of ours, by the C library's pthreads.
//!
//! Not std::thread: that one brings names for threads, and with them printf, hooks and a heap: 12 KB, and allocations
//! at a moment of the thread's choosing. pthread_create(3), pthread_attr_setstack(3).

use core::ffi::{c_int, c_void};
use rustix::io::Errno;

/// What the new thread is told: a pointer to this is its argument.
struct Start<'a>(&'a (dyn Fn() + Sync));

/// Runs `helper` in a thread on `stack` while `work` runs in this one; returns when both have ended.
///
/// A panic aborts the process, so `work` cannot leave the thread behind.
pub fn alongside<R>(
    stack: &mut [u8],
    helper: &(dyn Fn() + Sync),
    work: impl FnOnce() -> R,
) -> Result<R, Errno> {
    let argument = Start(helper);
    let thread = way::begin(stack, &argument)?;
    let value = work();
    thread.join();
    Ok(value)
}

#[cfg(not(all(target_env = "musl", not(feature = "core"))))]
mod way {
    use super::{Errno, Start, c_int, c_void};

    /// As large as the attributes of any C library: glibc's have 56 bytes, musl's 9 longs.
    type Attributes = [u64; 16];

    unsafe extern "C" {
        fn pthread_attr_init(attributes: *mut Attributes) -> c_int;
        fn pthread_attr_setstack(
            attributes: *mut Attributes,
            stack: *mut c_void,
            size: usize,
        ) -> c_int;
        fn pthread_create(
            thread: *mut usize,
            attributes: *const Attributes,
            start: extern "C" fn(*mut c_void) -> *mut c_void,
            argument: *mut c_void,
        ) -> c_int;
        fn pthread_join(thread: usize, value: *mut *mut c_void) -> c_int;
    }

    extern "C" fn start(argument: *mut c_void) -> *mut c_void {
        // SAFETY: `begin` passes a pointer to a `Start` that lives until this thread is joined.
        let start = unsafe { &*argument.cast::<Start>() };
        (start.0)();
        core::ptr::null_mut()
    }

    pub struct Thread(usize);

    /// `argument` and `stack` must live until the thread is joined.
    pub fn begin(stack: &mut [u8], argument: &Start<'_>) -> Result<Thread, Errno> {
        let mut attributes: Attributes = [0; 16];
        let mut thread = 0;
        // SAFETY: `attributes` is large enough for any C library and initialised before use; the stack is exclusively
        // borrowed by the caller until the thread is joined; `argument` lives as long, and is only read.
        let result = unsafe {
            pthread_attr_init(&mut attributes);
            pthread_attr_setstack(&mut attributes, stack.as_mut_ptr().cast(), stack.len());
            let argument = (&raw const *argument).cast_mut().cast();
            pthread_create(&mut thread, &attributes, start, argument)
        };
        if result == 0 { Ok(Thread(thread)) } else { Err(Errno::from_raw_os_error(result)) }
    }

    impl Thread {
        pub fn join(self) {
            // SAFETY: the thread was created by `begin` and is joined once.
            unsafe { pthread_join(self.0, core::ptr::null_mut()) };
        }
    }
}

/// In the set `rescue`, where the 3 KB of pthreads count: clone(2) alone. The two threads share what the C library has
/// for each of its threads, which is errno: what it says of a call that failed may be said of a call of the other one.
/// It decides nothing there but the words of a warning; the waiting of std (futex) asks again whatever it is.
#[cfg(all(target_env = "musl", not(feature = "core")))]
mod way {
    use super::{Errno, Start, c_int, c_void};
    use core::sync::atomic::{AtomicI32, Ordering::Acquire};
    use core::time::Duration;
    use linux_raw_sys::general as raw;

    unsafe extern "C" {
        /// musl's own: the function, the end of its stack, flags, its argument; the places of the new thread's
        /// number in the parent, of its own data (none), and of its number that is cleared when it has ended. A
        /// negative errno when it failed.
        fn __clone(
            run: extern "C" fn(*mut c_void) -> c_int,
            stack: *mut c_void,
            flags: c_int,
            argument: *mut c_void,
            ...
        ) -> c_int;
    }

    const FLAGS: u32 = raw::CLONE_VM
        | raw::CLONE_FS
        | raw::CLONE_FILES
        | raw::CLONE_SIGHAND
        | raw::CLONE_THREAD
        | raw::CLONE_SYSVSEM
        | raw::CLONE_PARENT_SETTID
        | raw::CLONE_CHILD_CLEARTID;

    /// The number of the thread, until it has ended.
    static NUMBER: AtomicI32 = AtomicI32::new(0);

    extern "C" fn start(argument: *mut c_void) -> c_int {
        // SAFETY: `begin` passes a pointer to a `Start` that lives until this thread is joined.
        let start = unsafe { &*argument.cast::<Start>() };
        (start.0)();
        0
    }

    pub struct Thread;

    /// `argument` and `stack` must live until the thread is joined; there is but one at a time.
    pub fn begin(stack: &mut [u8], argument: &Start<'_>) -> Result<Thread, Errno> {
        let end = stack.as_mut_ptr_range().end;
        // SAFETY: the stack is exclusively borrowed by the caller until the thread is joined, and its end is brought to
        // the alignment of every ABI; `argument` lives as long, and is only read; `NUMBER` lives for ever.
        let result = unsafe {
            let top = end.sub(end as usize % 16);
            let argument: *mut c_void = (&raw const *argument).cast_mut().cast();
            let none = core::ptr::null_mut::<c_void>();
            let number = NUMBER.as_ptr();
            __clone(start, top.cast(), FLAGS as c_int, argument, number, none, number)
        };
        if result > 0 { Ok(Thread) } else { Err(Errno::from_raw_os_error(-result)) }
    }

    impl Thread {
        /// The kernel clears the number when the thread is off its stack (CLONE_CHILD_CLEARTID). It was told to end by
        /// then, so this is short.
        pub fn join(self) {
            while NUMBER.load(Acquire) != 0 {
                crate::sys::clock::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[test]
    fn both_run_and_both_have_ended() {
        let sum = AtomicU32::new(0);
        let stack = crate::sys::map::buffer(64 * 1024).unwrap();
        let helper = || {
            while sum.load(SeqCst) == 0 {
                std::hint::spin_loop();
            }
            sum.fetch_add(10, SeqCst);
        };
        let value = alongside(stack, &helper, || sum.fetch_add(1, SeqCst)).unwrap();
        assert_eq!((value, sum.load(SeqCst)), (0, 11));
    }
}
