//! One helper thread on memory of ours, by the C library's pthreads.
//!
//! Not std::thread: that one brings names for threads, and with them printf, hooks and a heap: 12 KB, and allocations
//! at a moment of the thread's choosing. pthread_create(3), pthread_attr_setstack(3).

use core::ffi::{c_int, c_void};
use rustix::io::Errno;

/// As large as the attributes of any C library: glibc's have 56 bytes, musl's 9 longs.
type Attributes = [u64; 16];

unsafe extern "C" {
    fn pthread_attr_init(attributes: *mut Attributes) -> c_int;
    fn pthread_attr_setstack(attributes: *mut Attributes, stack: *mut c_void, size: usize)
    -> c_int;
    fn pthread_create(
        thread: *mut usize,
        attributes: *const Attributes,
        start: extern "C" fn(*mut c_void) -> *mut c_void,
        argument: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: usize, value: *mut *mut c_void) -> c_int;
}

/// What the new thread is told: a pointer to this is its argument.
struct Start<'a>(&'a (dyn Fn() + Sync));

extern "C" fn start(argument: *mut c_void) -> *mut c_void {
    // SAFETY: `alongside` passes a pointer to a `Start` that lives until this thread is joined.
    let start = unsafe { &*argument.cast::<Start>() };
    (start.0)();
    core::ptr::null_mut()
}

/// Runs `helper` in a thread on `stack` while `work` runs in this one; returns when both have ended.
///
/// A panic aborts the process, so `work` cannot leave the thread behind.
pub fn alongside<R>(
    stack: &mut [u8],
    helper: &(dyn Fn() + Sync),
    work: impl FnOnce() -> R,
) -> Result<R, Errno> {
    let mut attributes: Attributes = [0; 16];
    let mut thread = 0;
    let mut argument = Start(helper);
    // SAFETY: `attributes` is large enough for any C library and initialised before use; the stack is exclusively
    // borrowed until the thread is joined below; `argument` lives as long.
    let result = unsafe {
        pthread_attr_init(&mut attributes);
        pthread_attr_setstack(&mut attributes, stack.as_mut_ptr().cast(), stack.len());
        pthread_create(&mut thread, &attributes, start, (&raw mut argument).cast())
    };
    if result != 0 {
        return Err(Errno::from_raw_os_error(result));
    }
    let value = work();
    // SAFETY: the thread was created above and is joined once.
    unsafe { pthread_join(thread, core::ptr::null_mut()) };
    Ok(value)
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
