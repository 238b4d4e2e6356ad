//! ptrace(2) of a process that goes on with its life: the requests that a hand-over of PID 1 takes.
//!
//! Always PTRACE_SEIZE, never PTRACE_ATTACH, which sends a signal. And never PTRACE_O_EXITKILL: whoever traces PID 1
//! may be killed, and PID 1 then goes on as if nothing had been.

use linux_raw_sys::general as raw;
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

// <linux/ptrace.h>, the same on every CPU.
const CONT: usize = 7;
const DETACH: usize = 17;
const SYSCALL: usize = 24;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;
const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
/// PTRACE_O_TRACESYSGOOD and PTRACE_O_TRACEEXEC.
const OPTIONS: usize = 1 | 0x10;
/// PTRACE_EVENT_EXEC.
const EVENT_EXEC: i32 = 4;
/// The general registers, <linux/elf.h>.
const NT_PRSTATUS: usize = 1;
/// Waits for every kind of child, <linux/wait.h>: before Linux 4.7 one that is traced is not always of the usual kind.
const WALL: u32 = 0x4000_0000;

/// The size of the largest set of registers, that of aarch64, in bytes.
pub const MOST_REGISTERS: usize = 34 * 8;

fn request(request: usize, process: Pid, address: usize, data: usize) -> Result<(), Errno> {
    let process = process.as_raw_nonzero().get() as usize;
    // SAFETY: every caller in this file passes integers, or the address of a live value of the type and size that the
    // request reads or writes. The memory of the other process is not ours.
    let result = unsafe { super::syscall(raw::__NR_ptrace as _, request, process, address, data) };
    super::checked(result).map(drop)
}

/// Begins to trace a process, which does not notice. The end of this process ends it.
pub fn seize(process: Pid) -> Result<(), Errno> {
    request(SEIZE, process, 0, OPTIONS)
}

/// Asks a process that was seized to stop at its next way out of the kernel.
pub fn interrupt(process: Pid) -> Result<(), Errno> {
    request(INTERRUPT, process, 0, 0)
}

/// Lets a process that stands go on, with a signal or none (0).
pub fn go_on(process: Pid, signal: i32) -> Result<(), Errno> {
    request(CONT, process, 0, signal as usize)
}

/// The same, to the beginning or the end of a system call.
pub fn go_on_to_call(process: Pid, signal: i32) -> Result<(), Errno> {
    request(SYSCALL, process, 0, signal as usize)
}

/// Leaves a process that stands.
pub fn detach(process: Pid) -> Result<(), Errno> {
    request(DETACH, process, 0, 0)
}

/// Reads the general registers of a process that stands; gives how many bytes there are, which tells their layout.
pub fn registers(process: Pid, bytes: &mut [u8; MOST_REGISTERS]) -> Result<usize, Errno> {
    // struct iovec, in which the kernel leaves the length.
    let mut part = [bytes.as_mut_ptr() as usize, bytes.len()];
    request(GETREGSET, process, NT_PRSTATUS, part.as_mut_ptr() as usize)?;
    Ok(part[1])
}

/// Sets the general registers of a process that stands, in the layout in which they were read.
pub fn set_registers(process: Pid, bytes: &[u8]) -> Result<(), Errno> {
    let part = [bytes.as_ptr() as usize, bytes.len()];
    request(SETREGSET, process, NT_PRSTATUS, part.as_ptr() as usize)
}

/// Sets the number of the system call at whose beginning a process stands; −1 at its end: none is made again. On x86_64
/// it is one of the registers.
#[cfg(target_arch = "aarch64")]
pub fn set_call(process: Pid, number: i32) -> Result<(), Errno> {
    /// <linux/elf.h>: an int.
    const NT_ARM_SYSTEM_CALL: usize = 0x404;
    let part = [&raw const number as usize, size_of::<i32>()];
    request(SETREGSET, process, NT_ARM_SYSTEM_CALL, part.as_ptr() as usize)
}

/// The same, as 32-bit ARM has it: PTRACE_SET_SYSCALL in arch/arm/include/uapi/asm/ptrace.h, and of a 64-bit kernel,
/// too (arch/arm64/kernel/ptrace.c).
#[cfg(target_arch = "arm")]
pub fn set_call(process: Pid, number: i32) -> Result<(), Errno> {
    const SET_SYSCALL: usize = 23;
    request(SET_SYSCALL, process, 0, number as usize)
}

/// Not asked for: the number is one of the registers.
#[cfg(target_arch = "x86_64")]
pub fn set_call(_: Pid, _: i32) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// Where a traced process stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// At the beginning or the end of a system call.
    Call,
    /// It has executed a program, of which no instruction has run.
    Executed,
    /// On its way out of the kernel: what was asked for, or the stop of a whole group of processes.
    Interrupted,
    /// A signal is about to reach it.
    Signal(i32),
    /// Nowhere: it has ended.
    Ended,
}

impl Stop {
    /// From what wait4(2) gives, as ptrace(2) has it.
    fn of(status: i32) -> Self {
        /// SIGTRAP, with the bit that PTRACE_O_TRACESYSGOOD sets.
        const CALL: i32 = 5 | 0x80;
        let (signal, event) = (status >> 8 & 0xff, status >> 16);
        match event {
            _ if status & 0xff != 0x7f => Stop::Ended,
            0 if signal == CALL => Stop::Call,
            0 => Stop::Signal(signal),
            EVENT_EXEC => Stop::Executed,
            _ => Stop::Interrupted,
        }
    }
}

/// Where a traced process stands by now; nothing while it runs. wait4(2).
pub fn stop(process: Pid) -> Result<Option<Stop>, Errno> {
    let options = WaitOptions::NOHANG | WaitOptions::from_bits_retain(WALL);
    let found = rustix::process::waitpid(Some(process), options)?;
    Ok(found.map(|(_, status)| Stop::of(status.as_raw())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_stands_is_told_by_the_status() {
        for (status, wanted) in [
            (0x857f, Stop::Call),
            (0x0004_057f, Stop::Executed),
            (0x0080_057f, Stop::Interrupted),
            (0x0080_137f, Stop::Interrupted),
            (0x0f7f, Stop::Signal(15)),
            (0x057f, Stop::Signal(5)),
            (0x0100, Stop::Ended),
            (0x000b, Stop::Ended),
            (0x008b, Stop::Ended),
        ] {
            assert_eq!(Stop::of(status), wanted, "{status:#x}");
        }
    }
}
