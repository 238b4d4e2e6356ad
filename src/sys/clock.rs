//! The clock that runs while the machine sleeps, and waiting.
//!
//! As system calls with 64 bits for the seconds: a 32-bit kernel without CONFIG_COMPAT_32BIT_TIME has no other. The C
//! library's nanosleep asks such a kernel for what it does not have, and std::thread::sleep panics at the answer; and
//! finding the kernel's shared page for the clock takes more code than all of our logging.

use core::time::Duration;
use linux_raw_sys::general as raw;
use rustix::io::Errno;

/// struct __kernel_timespec: seconds and nanoseconds.
type Time = [i64; 2];

#[cfg(target_pointer_width = "64")]
const GET_TIME: u32 = raw::__NR_clock_gettime;
#[cfg(target_pointer_width = "64")]
const SLEEP: u32 = raw::__NR_clock_nanosleep;
#[cfg(target_pointer_width = "32")]
const GET_TIME: u32 = raw::__NR_clock_gettime64;
#[cfg(target_pointer_width = "32")]
const SLEEP: u32 = raw::__NR_clock_nanosleep_time64;

/// Milliseconds since the machine was started, time asleep included: clock_gettime(2), CLOCK_BOOTTIME.
pub fn since_boot() -> Result<u64, Errno> {
    let [seconds, nanoseconds] = now(raw::CLOCK_BOOTTIME)?;
    Ok(seconds.max(0) as u64 * 1000 + nanoseconds.max(0) as u64 / 1_000_000)
}

/// Seconds since 1 January 1970, as the machine believes: clock_gettime(2), CLOCK_REALTIME.
pub fn since_1970() -> Result<u64, Errno> {
    let [seconds, _] = now(raw::CLOCK_REALTIME)?;
    Ok(seconds.max(0) as u64)
}

fn now(clock: u32) -> Result<Time, Errno> {
    let mut time: Time = [0; 2];
    let result = get_time(clock, &mut time);
    // Linux before 5.1 has only the calls with 32 bits for the seconds: enough for any uptime, and until 2038.
    #[cfg(target_pointer_width = "32")]
    let result =
        if result == Err(Errno::NOSYS) { older::get_time(clock, &mut time) } else { result };
    result.map(|()| time)
}

/// Waits as long as asked, whatever signals come: clock_nanosleep(2), CLOCK_MONOTONIC. Returns at once where the kernel
/// cannot wait at all.
pub fn sleep(duration: Duration) {
    let mut rest: Time = [duration.as_secs() as i64, duration.subsec_nanos().into()];
    // A signal leaves in `rest` what was not waited.
    while nap(&mut rest) == Err(Errno::INTR) {}
}

fn nap(rest: &mut Time) -> Result<(), Errno> {
    let result = wait(rest);
    #[cfg(target_pointer_width = "32")]
    let result = if result == Err(Errno::NOSYS) { older::wait(rest) } else { result };
    result
}

fn get_time(clock: u32, time: &mut Time) -> Result<(), Errno> {
    let clock = clock as usize;
    // SAFETY: the kernel writes a struct __kernel_timespec, two 64-bit numbers, to `time`.
    let result = unsafe { super::syscall(GET_TIME as _, clock, time.as_mut_ptr()) };
    super::checked(result).map(drop)
}

fn wait(rest: &mut Time) -> Result<(), Errno> {
    let (clock, time) = (raw::CLOCK_MONOTONIC as usize, rest.as_mut_ptr());
    // SAFETY: the kernel reads a struct __kernel_timespec from `rest`, and may write one there.
    let result = unsafe { super::syscall(SLEEP as _, clock, 0usize, time, time) };
    super::checked(result).map(drop)
}

/// The calls with 32 bits, for kernels that have no others.
#[cfg(target_pointer_width = "32")]
mod older {
    use super::*;

    pub fn get_time(clock: u32, time: &mut Time) -> Result<(), Errno> {
        let clock = clock as usize;
        let mut short = [0i32; 2];
        // SAFETY: the kernel writes a struct timespec, two 32-bit numbers, to `short`.
        let result =
            unsafe { crate::sys::syscall(raw::__NR_clock_gettime as _, clock, short.as_mut_ptr()) };
        *time = short.map(i64::from);
        crate::sys::checked(result).map(drop)
    }

    pub fn wait(rest: &mut Time) -> Result<(), Errno> {
        let clock = raw::CLOCK_MONOTONIC as usize;
        let mut short = rest.map(|number| number as i32);
        let place = short.as_mut_ptr();
        // SAFETY: the kernel reads a struct timespec, two 32-bit numbers, from `short`, and may write one there.
        let result = unsafe {
            crate::sys::syscall(raw::__NR_clock_nanosleep as _, clock, 0usize, place, place)
        };
        *rest = short.map(i64::from);
        crate::sys::checked(result).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_on_by_what_was_slept() {
        let before = since_boot().unwrap();
        sleep(Duration::from_millis(30));
        let slept = since_boot().unwrap() - before;
        assert!((29..1000).contains(&slept), "{slept} ms");
    }
}
