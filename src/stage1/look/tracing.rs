//! Whether PID 1 can be made to execute a program by ptrace(2), and if not, why.
//!
//! Changes nothing: PID 1 is seized for a moment, if nothing else speaks against it, which it does not notice.

use crate::bytes::little_endian;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::{process, ptrace};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// Why it cannot be, and what to do about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Obstacle {
    /// Why.
    pub why: &'static str,
    /// What to do about it.
    pub advice: &'static str,
}

const TRACED: Obstacle = Obstacle {
    why: "PID 1 is traced already",
    advice: "end what traces it: a debugger, strace (TracerPid in /proc/1/status)",
};
const FILTERED: Obstacle = Obstacle {
    why: "PID 1 has a seccomp filter",
    advice: "start it without: docker's --security-opt seccomp=unconfined, or systemd without SystemCallArchitectures= \
             in system.conf",
};
const NOT_ROOT: Obstacle =
    Obstacle { why: "PID 1 does not run as root", advice: "start the container as root" };
const WIDE: Obstacle = Obstacle {
    why: "PID 1 is a 64-bit program, whose registers this 32-bit one does not see",
    advice: "use the aarch64 build of this program",
};
const FOREIGN: Obstacle = Obstacle {
    why: "PID 1 is a program for another kind of CPU than this one",
    advice: "use the build of this program for that kind",
};
const NO_RIGHT: Obstacle = Obstacle {
    why: "CAP_SYS_PTRACE is missing",
    advice: "run it as root of the machine, not in a service or container that confines it",
};
const YAMA: Obstacle = Obstacle {
    why: "Yama forbids ptrace until the restart (kernel.yama.ptrace_scope is 3)",
    advice: "restart without that setting (/etc/sysctl.d)",
};
const MODULE: Obstacle = Obstacle {
    why: "a security module forbids ptrace, or a debugger outside of this container is at it",
    advice: "the kernel's log tells more: dmesg",
};

/// What speaks against it, if anything does.
pub fn obstacle() -> Result<Option<Obstacle>, Error> {
    let mut buffer = [0; 8192];
    let path = "/proc/1/status";
    let status = files::read_text(path, &mut buffer).doing("reading", path)?;
    if let Some(known) = known_from(status) {
        return Ok(Some(known));
    }
    let path = "/proc/1/exe";
    let mut start = [0; 20];
    let start = files::read_start(path, &mut start).doing("reading", path)?;
    Ok(match unlike(start, size_of::<usize>(), OWN) {
        None => probe()?,
        unlike => unlike,
    })
}

/// From /proc/1/status (proc(5)): who traces it, whether it has a filter, its effective user.
fn known_from(status: &str) -> Option<Obstacle> {
    let field = |name: &str, index: usize| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(index)
    };
    // What a kernel does not tell, it does not have.
    let is_zero = |name, index| field(name, index).is_none_or(|value| value == "0");
    [("TracerPid:", 0, TRACED), ("Seccomp:", 0, FILTERED), ("Uid:", 1, NOT_ROOT)]
        .into_iter()
        .find(|(name, index, _)| !is_zero(name, *index))
        .map(|(.., obstacle)| obstacle)
}

// <linux/elf-em.h>.
const EM_ARM: u64 = 40;
const EM_X86_64: u64 = 62;
const EM_AARCH64: u64 = 183;

/// What this program is for.
const OWN: u64 = if cfg!(target_arch = "x86_64") {
    EM_X86_64
} else if cfg!(target_arch = "aarch64") {
    EM_AARCH64
} else {
    EM_ARM
};

/// From the start of PID 1's file (elf(5)): a program with 64 bits that is traced by one with 32 has registers that are
/// not shown, and loses them when they are set. The other way round arm64 knows what to do. A process of i386 makes its
/// calls in another way than one of x86_64.
fn unlike(start: &[u8], word: usize, own: u64) -> Option<Obstacle> {
    let is_wide = start.get(4) == Some(&2);
    let machine = little_endian::<2>(start, 18);
    if is_wide && word == 4 {
        return Some(WIDE);
    }
    let is_like = machine == own || (own == EM_AARCH64 && machine == EM_ARM);
    (!is_like).then_some(FOREIGN)
}

/// A child seizes PID 1 and ends, which leaves it.
fn probe() -> Result<Option<Obstacle>, Error> {
    let child = process::spawn(|| match ptrace::seize(Pid::INIT) {
        Ok(()) => 0,
        Err(errno) => errno.raw_os_error(),
    });
    let child = child.doing("starting", "a process")?;
    let ended = rustix::process::waitpid(Some(child), WaitOptions::empty());
    let status =
        ended.doing("waiting for", "a process")?.and_then(|(_, status)| status.exit_status());
    match status {
        Some(0) => Ok(None),
        Some(code) if code == Errno::PERM.raw_os_error() => Ok(Some(why_not())),
        // A sandbox: ENOSYS, EACCES, a signal. An init that is asked needs none of this.
        Some(_) | None => Ok(Some(MODULE)),
    }
}

/// What is behind an EPERM.
fn why_not() -> Obstacle {
    /// <linux/capability.h>.
    const CAP_SYS_PTRACE: u32 = 19;
    let mut buffer = [0; 8192];
    let status = files::text_below("/proc/self", "status", &mut buffer).unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set =
        set.and_then(|set| u64::from_str_radix(set.trim_ascii(), 16).ok()).unwrap_or(u64::MAX);
    if files::read_number("/proc/sys/kernel/yama/ptrace_scope") == Some(3) {
        YAMA
    } else if set >> CAP_SYS_PTRACE & 1 == 0 {
        NO_RIGHT
    } else {
        MODULE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_against_it_stands_in_the_status() {
        let status = |tracer, seccomp, user| {
            format!(
                "Name:\tinit\nTracerPid:\t{tracer}\nUid:\t0\t{user}\t0\t0\nSeccomp:\t{seccomp}\n"
            )
        };
        assert_eq!(known_from(&status(0, 0, 0)), None);
        assert_eq!(known_from(&status(7, 0, 0)), Some(TRACED));
        assert_eq!(known_from(&status(0, 2, 0)), Some(FILTERED));
        assert_eq!(known_from(&status(0, 0, 1000)), Some(NOT_ROOT));
        assert_eq!(known_from("Name:\tinit\n"), None, "a kernel that has none of this");
    }

    #[test]
    fn what_program_can_be_traced_by_which() {
        let elf = |class, machine: u64| {
            let mut start = [0; 20];
            (start[4], start[18]) = (class, machine as u8);
            start
        };
        let (x86_64, i386) = (elf(2, EM_X86_64), elf(1, 3));
        let (aarch64, arm) = (elf(2, EM_AARCH64), elf(1, EM_ARM));
        for (program, word, own, wanted) in [
            (x86_64, 8, EM_X86_64, None),
            (i386, 8, EM_X86_64, Some(FOREIGN)),
            // The x32 ABI.
            (elf(1, EM_X86_64), 8, EM_X86_64, None),
            (aarch64, 8, EM_AARCH64, None),
            (arm, 8, EM_AARCH64, None),
            (arm, 4, EM_ARM, None),
            (aarch64, 4, EM_ARM, Some(WIDE)),
            (arm, 8, EM_X86_64, Some(FOREIGN)),
        ] {
            assert_eq!(unlike(&program, word, own), wanted, "{program:?} {own}");
        }
        let mut own = [0; 20];
        let own = files::read_start("/proc/self/exe", &mut own).unwrap();
        assert_eq!(unlike(own, size_of::<usize>(), OWN), None);
    }
}
