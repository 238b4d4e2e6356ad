//! Processes: fork, the one execve, signals to everyone, inherited descriptors, swap.

use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use linux_raw_sys::general as raw;
use rustix::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::Pid;

unsafe extern "C" {
    // musl's fork takes locks and runs handlers for the sake of other threads and of its allocator.
    #[cfg_attr(target_env = "musl", link_name = "_Fork")]
    fn fork() -> i32;
    fn execve(
        path: *const core::ffi::c_char,
        argv: *const *const core::ffi::c_char,
        envp: *const *const core::ffi::c_char,
    ) -> i32;
    fn _exit(code: i32) -> !;
    static mut environ: *const *const core::ffi::c_char;
}

/// Runs `child` in a new process that ends with the code it returns; the parent gets the process id. fork(2).
///
/// Whoever calls this has no other thread, or one that takes no locks: the child must be free to take them.
pub fn spawn(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    // SAFETY: fork has no memory preconditions; no other thread of the caller holds a lock, so none is held by a
    // thread that does not exist in the child.
    match unsafe { fork() } {
        0 => exit(child()),
        id => {
            let id = super::checked(id as core::ffi::c_long)?;
            Pid::from_raw(id as i32).ok_or(Errno::INVAL)
        }
    }
}

/// Closes a descriptor in a child that has no use for it; the process that it is from keeps its own. close(2).
pub fn close_inherited(descriptor: &OwnedFd) {
    // SAFETY: the value that owns the descriptor is in memory that the child shares with nobody, and the child ends
    // without dropping it: it is not closed twice, nor used again.
    unsafe { rustix::io::close(descriptor.as_raw_fd()) }
}

/// Ends this process at once, without running destructors or flushing anything. _exit(2).
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit does not return and touches no memory.
    unsafe { _exit(code) }
}

/// The environment that was left.
static LEFT: AtomicPtr<*const c_char> = AtomicPtr::new(core::ptr::null_mut());

/// Leaves the environment: neither std nor the C library finds anything in it, and a panic prints where it was and
/// nothing more, whatever RUST_BACKTRACE asks for. Call it first of all. environ(7).
///
/// std finds names for a backtrace with far more heap than the cap; when that is refused it wants a backtrace of the
/// refusal, and waits for ever for the lock that the first one holds. Not std::panic::set_hook: std formats the
/// message, on the heap, before it calls the hook. Not unsetenv(3): musl's comes with malloc and free.
///
/// # Safety
/// There must be no other thread.
pub unsafe fn leave_environment() {
    // SAFETY: no other thread reads it, as the caller promises, and an environment that is not there is an empty one to
    // the C library and to std.
    unsafe {
        LEFT.store(environ.cast_mut(), Relaxed);
        environ = core::ptr::null();
    }
}

/// The value of a variable of the environment that was left, where it is UTF-8: the kernel put it on the stack, for
/// good (execve(2)). Nothing before it was left.
pub fn variable(name: &str) -> Option<&'static str> {
    // SAFETY: what the C library took from the kernel, and nobody has written to since.
    unsafe { variable_in(LEFT.load(Relaxed), name) }
}

/// # Safety
/// `next` must be null, or point to strings that end in a NUL, the last of them followed by a null pointer; all of it
/// as long as the process lives.
unsafe fn variable_in(mut next: *const *const c_char, name: &str) -> Option<&'static str> {
    if next.is_null() {
        return None;
    }
    loop {
        // SAFETY: as the caller promises; the null pointer at the end is not gone beyond.
        let text = unsafe {
            let text = *next;
            if text.is_null() {
                return None;
            }
            next = next.add(1);
            CStr::from_ptr(text)
        };
        let value = text.to_bytes().strip_prefix(name.as_bytes());
        if let Some([b'=', value @ ..]) = value {
            return core::str::from_utf8(value).ok();
        }
    }
}

/// Becomes this very program again, started from its copy in the RAMFS, with `argument` as its only argument and no
/// environment. execve(2). Returns only on failure.
///
/// The one place where anything is executed, and only ever this program: `copy` must end in `/takeover`, the name that
/// the copy has in the RAMFS. PID 1 becomes it, which cuts the last tie (the mapped binary) to the old root; before
/// that, a child of stage 1 does, to see that it can be done.
pub fn become_own_copy(copy: &str, argument: &core::ffi::CStr) -> Errno {
    if !copy.ends_with("/takeover") {
        return Errno::INVAL;
    }
    let path = match super::terminated::<256>(copy) {
        Ok(path) => path,
        Err(errno) => return errno,
    };
    let argv = [path.as_ptr().cast(), argument.as_ptr(), core::ptr::null()];
    let environment = [core::ptr::null()];
    // SAFETY: both arrays end in a null pointer and all strings are NUL-terminated and live until the call returns.
    let result = unsafe { execve(path.as_ptr().cast(), argv.as_ptr(), environment.as_ptr()) };
    super::checked(result as core::ffi::c_long).err().unwrap_or(Errno::NOEXEC)
}

/// Sends a signal to every process this one can see, except itself and PID 1. kill(2) with pid −1.
///
/// In a PID namespace that is every process of the namespace and of those below it, and no other.
pub fn signal_everyone(signal: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two integers.
    let result = unsafe { super::syscall(raw::__NR_kill as _, -1isize, signal as isize) };
    super::checked(result).map(drop)
}

/// True when this process sees the machine's own PID 1: its PID namespace is the kernel's first. Where that cannot be
/// told it is better to behave as on the machine itself.
pub fn in_first_pid_namespace() -> bool {
    /// PROC_PID_INIT_INO in include/linux/proc_ns.h.
    const FIRST: u64 = 0xefff_fffc;
    let own = rustix::fs::stat("/proc/self/ns/pid");
    own.map_or(true, |own| own.st_ino == FIRST)
}

/// Blocks every signal that can be blocked, for this process and its children to come. rt_sigprocmask(2).
pub fn block_all_signals() -> Result<(), Errno> {
    set_mask(raw::SIG_SETMASK, u64::MAX)
}

/// Blocks SIGHUP, SIGINT, SIGQUIT, SIGTERM and SIGTSTP, so that they wait until `pending_termination` is asked. Not
/// those that are ignored, as nohup(1) has it: the kernel keeps an ignored signal pending when it is blocked.
pub fn hold_termination() -> Result<(), Errno> {
    let heeded = TERMINATION.iter().copied().filter(|signal| !is_ignored(*signal));
    set_mask(raw::SIG_BLOCK, heeded.fold(bit(SIGTSTP), |set, signal| set | bit(signal)))
}

/// The number of a held signal that should end this process and is waiting. rt_sigpending(2).
pub fn pending_termination() -> Option<u32> {
    let mut set = 0u64;
    // SAFETY: the kernel writes `size_of::<u64>()` bytes, the size of its signal set, to `set`.
    let result =
        unsafe { super::syscall(raw::__NR_rt_sigpending as _, &raw mut set, size_of::<u64>()) };
    // Should the call fail, the set is empty.
    let _ = super::checked(result);
    TERMINATION.iter().copied().find(|signal| set & bit(*signal) != 0)
}

/// SIGHUP, SIGINT, SIGQUIT and SIGTERM.
const TERMINATION: [u32; 4] = [raw::SIGHUP, raw::SIGINT, raw::SIGQUIT, raw::SIGTERM];
/// Stopped in the middle, stage 1 could neither go on nor undo.
const SIGTSTP: u32 = raw::SIGTSTP;

/// A signal in the kernel's set: bit number − 1.
const fn bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// What rt_sigaction(2) has in the place of a handler.
const SIG_DFL: usize = 0;
const SIG_IGN: usize = 1;

/// A write to a closed pipe is an error from now on, and not the end: signal(7).
pub fn ignore_closed_pipes() {
    set_action(raw::SIGPIPE, SIG_IGN);
}

/// Children that end are waited for from now on: who was executed by a process that ignores SIGCHLD would never learn
/// how they ended (wait(2)).
pub fn heed_children() {
    set_action(raw::SIGCHLD, SIG_DFL);
}

fn set_action(signal: u32, handler: usize) {
    // The kernel's struct sigaction: the handler, then flags, restorer and mask, for which zeros are right.
    let action: [usize; 8] = [handler, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: the kernel reads one struct sigaction, at most 32 bytes, from `action`, with a mask of 8 bytes.
    let result = unsafe {
        super::syscall(
            raw::__NR_rt_sigaction as _,
            signal as usize,
            action.as_ptr(),
            core::ptr::null_mut::<usize>(),
            size_of::<u64>(),
        )
    };
    // It cannot fail for these signals.
    let _ = super::checked(result);
}

/// True when a signal is ignored: rt_sigaction(2).
fn is_ignored(signal: u32) -> bool {
    // The kernel's struct sigaction begins with the handler; it has at most 32 bytes, with a mask of 8 bytes.
    let mut action = [0usize; 8];
    // SAFETY: no new action is given, and the kernel writes one struct sigaction to `action`, which is larger.
    let result = unsafe {
        super::syscall(
            raw::__NR_rt_sigaction as _,
            signal as usize,
            core::ptr::null::<usize>(),
            action.as_mut_ptr(),
            size_of::<u64>(),
        )
    };
    super::checked(result).is_ok() && action.first() == Some(&SIG_IGN)
}

fn set_mask(how: u32, set: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads `size_of::<u64>()` bytes from `set`; a null old set is allowed.
    let result = unsafe {
        super::syscall(
            raw::__NR_rt_sigprocmask as _,
            how as usize,
            &raw const set,
            core::ptr::null_mut::<u64>(),
            size_of::<u64>(),
        )
    };
    super::checked(result).map(drop)
}

/// Turns Ctrl-Alt-Del from an immediate restart into a SIGINT that nobody handles: reboot(2), CAD_OFF.
pub fn disable_ctrl_alt_del() -> Result<(), Errno> {
    rustix::system::reboot(rustix::system::RebootCommand::CadOff)
}

/// Closes every descriptor from `first` on: close_range(2), or one by one before Linux 5.9, up to the soft limit.
pub fn close_from(first: RawFd) {
    // SAFETY: the caller owns no descriptor from `first` on; this runs before any is opened.
    let result = unsafe {
        super::syscall(raw::__NR_close_range as _, first as usize, u32::MAX as usize, 0usize)
    };
    if super::checked(result).is_ok() {
        return;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .current
        .map_or(65_536, |limit| limit.min(65_536)) as RawFd;
    for descriptor in first..limit {
        // SAFETY: as above; a number that is not open gives EBADF, which close ignores.
        unsafe { rustix::io::close(descriptor) };
    }
}

/// Makes `descriptor` the process's standard input, output and error. dup2(2).
pub fn become_stdio(descriptor: OwnedFd) -> Result<(), Errno> {
    rustix::stdio::dup2_stdin(&descriptor)?;
    rustix::stdio::dup2_stdout(&descriptor)?;
    rustix::stdio::dup2_stderr(&descriptor)?;
    // One of the three itself, when they arrived closed: it must stay open.
    let number = descriptor.into_raw_fd();
    if number > 2 {
        // SAFETY: just taken out of its owner, and not one of the three.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(())
}

/// Makes `descriptor` stand for the same open file as `other`, whatever it was before. dup3(2).
pub fn replace(descriptor: &OwnedFd, other: &OwnedFd) {
    let (from, to) = (other.as_raw_fd() as usize, descriptor.as_raw_fd() as usize);
    let flags = raw::O_CLOEXEC as usize;
    // SAFETY: both are open; the number goes on being an open file that its owner closes.
    let result = unsafe { super::syscall(raw::__NR_dup3 as _, from, to, flags) };
    // It stays what it was.
    let _ = super::checked(result);
}

/// Takes a swap area out of use: swapoff(2). Its pages are read back into memory first.
pub fn swap_off(path: &str) -> Result<(), Errno> {
    let path = super::terminated::<256>(path)?;
    // SAFETY: a NUL-terminated path.
    let result = unsafe { super::syscall(raw::__NR_swapoff as _, path.as_ptr()) };
    super::checked(result).map(drop)
}

/// Puts a swap area into use: swapon(2), with its `flags` (<linux/swap.h>, SWAP_FLAG_*).
pub fn swap_on(path: &str, flags: u32) -> Result<(), Errno> {
    let path = super::terminated::<256>(path)?;
    // SAFETY: a NUL-terminated path and an integer.
    let result = unsafe { super::syscall(raw::__NR_swapon as _, path.as_ptr(), flags as usize) };
    super::checked(result).map(drop)
}

/// Loads a module of the kernel from a file; with `is_packed` the kernel unpacks it (Linux 5.17). finit_module(2).
pub fn load_module(file: OwnedFd, is_packed: bool) -> Result<(), Errno> {
    /// MODULE_INIT_COMPRESSED_FILE of <linux/module.h>.
    const PACKED: usize = 4;
    let flags = if is_packed { PACKED } else { 0 };
    // SAFETY: an open file, a NUL-terminated string that is read, and an integer.
    let result = unsafe {
        super::syscall(raw::__NR_finit_module as _, file.as_raw_fd() as usize, c"".as_ptr(), flags)
    };
    super::checked(result).map(drop)
}

/// Keeps this process and its children from leaving a core, which would have the keys in it: prctl(2),
/// PR_SET_DUMPABLE, and setrlimit(2), RLIMIT_CORE. The limit alone does not keep a core from a program of
/// core_pattern(5) (core(5)); the attribute alone is given back at execve(2).
pub fn leave_no_core() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit};
    // Neither can fail with these values, and there would be nothing to do about it.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_found_by_its_whole_name() {
        let all = [c"A=1", c"http_proxy=http://h:1/=", c"http_proxy2=x", c"EMPTY=", c"no value"];
        let mut pointers: Vec<_> = all.iter().map(|text| text.as_ptr()).collect();
        pointers.push(core::ptr::null());
        // SAFETY: strings of the program, and a null pointer behind them.
        let of = |name| unsafe { variable_in(pointers.as_ptr(), name) };
        assert_eq!(of("http_proxy"), Some("http://h:1/="));
        assert_eq!((of("A"), of("EMPTY")), (Some("1"), Some("")));
        assert_eq!((of("http"), of("B"), of("no value"), of("")), (None, None, None, None));
        // SAFETY: null is allowed.
        assert_eq!(unsafe { variable_in(core::ptr::null(), "A") }, None);
    }

    #[test]
    fn a_descriptor_that_is_replaced_is_the_other_file_and_keeps_its_number() {
        let (mut reader, other) = std::io::pipe().unwrap();
        let (closed, descriptor) = std::io::pipe().unwrap();
        drop(closed);
        let (descriptor, other) = (OwnedFd::from(descriptor), OwnedFd::from(other));
        let number = descriptor.as_raw_fd();
        replace(&descriptor, &other);
        drop(other);
        rustix::io::write(&descriptor, b"x").unwrap();
        let mut found = [0];
        std::io::Read::read_exact(&mut reader, &mut found).unwrap();
        assert_eq!((found, descriptor.as_raw_fd()), (*b"x", number));
    }

    #[test]
    fn nothing_but_our_own_copy_is_executed() {
        for path in ["/bin/true", "takeover", "/takeover/x", "/takeover\0", ""] {
            assert_eq!(become_own_copy(path, c"x"), Errno::INVAL, "{path}");
        }
        assert_eq!(become_own_copy("/nowhere/takeover", c"x"), Errno::NOENT);
        let long = format!("/{}/takeover", "x".repeat(300));
        assert_eq!(become_own_copy(&long, c"x"), Errno::NAMETOOLONG);
    }
}
