//! Checks that need nothing but a look at the running system. Each refuses with a message of its own.

use super::report::Report;
use crate::cli::{Flag, Options};
use crate::disk::mounts::{self, Found};
use crate::disk::stack;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::FilePlan;
use crate::stage1::look::facts::Init;
use crate::stage1::look::modules;
use crate::stage1::look::watchdogs::Watchdog;
use crate::sys::clock;
use crate::sys::process::in_first_pid_namespace;
use crate::text::Text;
use core::time::Duration;
use rustix::fs::Stat;
use rustix::io::Errno;

/// In the namespaces and under the root directory of PID 1, which may do what stage 2 does.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn privileges(in_namespace: bool) -> Result<(), Error> {
    for (ours, first) in &[
        ("/proc/self/ns/pid", "/proc/1/ns/pid"),
        ("/proc/self/ns/mnt", "/proc/1/ns/mnt"),
        ("/proc/self/root", "/proc/1/root"),
    ] {
        if identity(&look(ours)?) != identity(&look(first)?) {
            return Err(elsewhere(ours));
        }
    }
    // A chroot into a bind mount of the root has the same root directory, through another mount.
    let own_root = root_mount("/proc/self/mountinfo")?;
    if own_root.is_none() || own_root != root_mount("/proc/1/mountinfo")? {
        return Err(elsewhere("/proc/self/mountinfo"));
    }
    if !in_first_pid_namespace() && !in_namespace {
        return Err(Error::refused(
            "looking at",
            "/proc/self/ns/pid",
            "this is a container: its PID 1 is not the PID 1 of the machine",
        )
        .advice("run it on the host itself; --in-namespace takes over the container alone"));
    }
    // What root executes gets its bounding set (capabilities(7)), and PID 1 will execute us.
    capabilities("/proc/1/status", "CapBnd:", &[KILL, ADMIN, BOOT, NODES])
}

fn elsewhere(object: &str) -> Error {
    let why = "this runs in another namespace or root directory than PID 1";
    Error::refused("comparing with PID 1", object, why)
        .advice("run it on the host itself, not in a container, chroot or private service")
}

/// The number of the mount that a process sees as `/`.
fn root_mount(table: &str) -> Result<Option<u32>, Error> {
    Ok(mounts::find(table, &mut |mount| mount.is_at("/"))?.map(|mount| mount.id))
}

/// A root that can be left, and an init that can be replaced.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn init_and_root(init: &Init, root: &Found) -> Result<(), Error> {
    if &*root.file_system == "rootfs" {
        let why = "it is the kernel's initramfs, which cannot be left";
        return Err(Error::refused("looking at", "/", why)
            .advice("this system runs from memory already: use takeover flash"));
    }
    let Some(obstacle) = init.obstacle else {
        return Ok(());
    };
    let refuse = |why| Error::refused("looking at PID 1", &init.path, why);
    match init.flavour {
        None => {
            let why: Text<200> = crate::text!(
                "this init executes nothing when asked, and cannot be made to by ptrace: {}",
                obstacle.why
            );
            Err(refuse(&why).advice(obstacle.advice))
        }
        Some(_) if init.is_covered => Err(refuse("something is mounted over it already")
            .advice("another takeover may be running; restart the device if not")),
        Some(_) => Ok(()),
    }
}

/// Root, with what root can do as a rule, on a kernel that is new enough.
pub fn root() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::refused("starting", "", "only root can do this").advice("use sudo"));
    }
    let uname = rustix::system::uname();
    kernel(uname.release().to_str().unwrap_or_default())?;
    clock(&mut clock::since_boot)?;
    capabilities("/proc/self/status", "CapEff:", &[ADMIN, NODES])
}

/// The oldest kernel with all that is used and cannot be done without: 3.8 has /proc/PID/ns/pid and mnt
/// (namespaces(7)), and 3.7 BLKZEROOUT; whatever is newer (memfd_create, close_range, MemAvailable) has something in
/// its place.
const OLDEST_KERNEL: (u32, u32) = (3, 8);

/// A kernel of which we know that it is too old. What does not begin with a version is taken for new.
fn kernel(release: &str) -> Result<(), Error> {
    let number = |text: &str| {
        let end = text.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end)?.parse::<u32>().ok()
    };
    let version = release
        .split_once('.')
        .and_then(|(major, rest)| Some((major.parse::<u32>().ok()?, number(rest)?)));
    match version {
        Some(version) if version < OLDEST_KERNEL => {
            Err(Error::refused("looking at", "the kernel", "it is older than Linux 3.8")
                .advice("flash the disk from a newer rescue system: takeover flash"))
        }
        _ => Ok(()),
    }
}

/// A clock that can be read and goes on: each time-out of both stages is measured by it.
fn clock(read: &mut dyn FnMut() -> Result<u64, Errno>) -> Result<(), Error> {
    /// Longer than the ticks of any kernel that counts time in ticks.
    const WAIT: Duration = Duration::from_millis(11);
    let refuse = |error: Error| {
        error.as_refusal().advice("no time-out would ever end: use a kernel whose clock runs")
    };
    let object = "the clock since the start of the machine";
    let before = read().doing("reading", object).map_err(refuse)?;
    clock::sleep(WAIT);
    match read().doing("reading", object).map_err(refuse)? {
        after if after > before => Ok(()),
        _ => Err(refuse(Error::failed("reading", object, "it stands still"))),
    }
}

/// There is a watchdog to start, when that is asked for.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn watchdog(options: &Options, all: &[Watchdog]) -> Result<(), Error> {
    if options.watchdog == 0 || !all.is_empty() {
        return Ok(());
    }
    Err(Error::refused("starting", "a watchdog (--watchdog)", "there is no /dev/watchdog")
        .advice("load its driver, or softdog (modprobe softdog); or leave the option out"))
}

/// A capability: its number in include/uapi/linux/capability.h, and what is said when it is missing.
type Capability = (u32, &'static str);

const KILL: Capability = (5, "CAP_KILL is missing: no process of others can be ended");
const ADMIN: Capability = (21, "CAP_SYS_ADMIN is missing: nothing can be mounted");
const BOOT: Capability = (22, "CAP_SYS_BOOT is missing: the machine cannot be restarted");
const NODES: Capability = (27, "CAP_MKNOD is missing: no device node can be made");

fn capabilities(path: &str, field: &str, wanted: &[Capability]) -> Result<(), Error> {
    let mut buffer = [0; 8192];
    let status = files::read_text(path, &mut buffer).doing("reading", path)?;
    match missing_capability(status, field, wanted) {
        None => Ok(()),
        Some(why) => Err(Error::refused("looking at", path, why).advice(
            "run it as root of the machine, not in a service or container that confines it",
        )),
    }
}

/// The first of `wanted` that a set of /proc/PID/status lacks (proc(5): 64 bits in hexadecimal).
fn missing_capability(status: &str, field: &str, wanted: &[Capability]) -> Option<&'static str> {
    let set = status.lines().find_map(|line| line.strip_prefix(field))?;
    let set = u64::from_str_radix(set.trim_ascii(), 16).ok()?;
    wanted.iter().find(|(number, _)| set >> number & 1 == 0).map(|(_, why)| *why)
}

fn look(path: &str) -> Result<Stat, Error> {
    files::status(path).doing("looking at", path)
}

fn identity(status: &Stat) -> (u64, u64) {
    (status.st_dev, status.st_ino)
}

/// A program with a dynamic linker would lose its libraries with the old root.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn static_program() -> Result<(), Error> {
    let path = "/proc/self/exe";
    let mut start = [0; 4096];
    // The program headers stand right behind the first header.
    let start = files::read_start(path, &mut start).doing("reading", path)?;
    if has_interpreter(start) {
        Err(Error::refused("looking at", path, "this program needs shared libraries")
            .advice("build it static: see README.md"))
    } else {
        Ok(())
    }
}

/// True when an ELF file's program headers name a dynamic linker: PT_INTERP, elf(5).
fn has_interpreter(elf: &[u8]) -> bool {
    use crate::bytes::little_endian as field;
    const INTERPRETER: u64 = 3;
    let wide = elf.get(4) == Some(&2);
    let (offset, size, count) = if wide {
        (field::<8>(elf, 32), field::<2>(elf, 54), field::<2>(elf, 56))
    } else {
        (field::<4>(elf, 28), field::<2>(elf, 42), field::<2>(elf, 44))
    };
    (0..count).any(|index| field::<4>(elf, (offset + index * size) as usize) == INTERPRETER)
}

/// A question that nobody can answer is refused before the image is read, not after it.
pub fn can_be_answered(options: &Options) -> Result<(), Error> {
    /// /dev/null: mem 3 (Documentation/admin-guide/devices.txt).
    const NULL: (u32, u32) = (1, 3);
    if options.has(Flag::NoAck) || options.has(Flag::DryRun) {
        return Ok(());
    }
    let numbers = |device| (rustix::fs::major(device), rustix::fs::minor(device));
    match rustix::fs::fstat(rustix::stdio::stdin()) {
        Ok(input) if numbers(input.st_rdev) != NULL => Ok(()),
        _ => Err(Error::refused("asking", "for consent", "there is no input to answer on")
            .advice("--no-ack asks no question")),
    }
}

/// Says which options have no effect in this build.
pub fn without_effect(options: &Options, report: &mut Report) {
    if options.has(Flag::ReportProgress) && !cfg!(feature = "http") {
        report.warn("--report-hup-progress has no effect: this build does no such thing");
    }
}

/// What waits for a device that is suspended cannot be ended, and what it has open keeps the disk busy.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn nothing_suspended() -> Result<(), Error> {
    let Some(name) = stack::suspended() else {
        return Ok(());
    };
    let why = "it is suspended: what is written to it waits, and cannot be ended";
    Err(Error::refused("looking at the device-mapper's", &name, why)
        .advice("let it go on (dmsetup resume), or remove it"))
}

/// An init that SELinux confines may not execute a file in a memory file system: it would give up its place and have
/// nothing to put there.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn no_selinux() -> Result<(), Error> {
    let path = "/sys/fs/selinux/enforce";
    match files::read_number(path) {
        Some(1) => Err(Error::refused("looking at", path, "SELinux is enforcing its policy")
            .advice("turn that off until the restart: setenforce 0")),
        _ => Ok(()),
    }
}

/// What stage 2 will mount: the new boot partition and data partition where those are ext4, through a loop device, and
/// the log device.
pub fn mountable(boot: bool, data: bool, log_device: Option<&FilePlan>) -> Result<(), Error> {
    let cannot = |what: &str, advice| {
        Error::refused("looking for the module of the kernel for", what, "there is none")
            .advice(advice)
    };
    let advice = if boot {
        "config.json is placed on the new boot partition, which is ext4: install the kernel's modules, or use an image \
         whose boot partition is a FAT"
    } else {
        "files are placed on the new data partition, which is ext4: install the kernel's modules, or leave out \
         --backup-cfg and --fallback-log"
    };
    if (boot || data) && !modules::can_mount("ext4")? {
        return Err(cannot("ext4", advice));
    }
    if (boot || data) && !modules::can_loop()? {
        return Err(cannot("loop devices", advice));
    }
    match log_device {
        Some(log) if !modules::can_mount(&log.file_system)? => Err(cannot(
            &log.file_system,
            "the kernel must be able to mount the log device: is the module there? --log-to needs it",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_before_3_8_are_refused() {
        for release in ["2.6.32-754.el6", "3.7.10", "3.2.0-4-amd64", "0.99", "3.0"] {
            assert!(kernel(release).is_err(), "{release}");
        }
        for release in
            ["3.8.0", "3.10.108-rt", "4.1", "5.10.0-28-amd64", "6.18.44-fc", "10.0", "", "x.y", "6"]
        {
            assert!(kernel(release).is_ok(), "{release}");
        }
    }

    #[test]
    fn a_clock_that_fails_or_stands_still_is_refused() {
        clock(&mut clock::since_boot).unwrap();
        let refusal = |read: &mut dyn FnMut() -> Result<u64, Errno>| {
            let error = clock(read).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Refused);
            let text: Text<300> = crate::text!("{}", error);
            text.to_string()
        };
        assert!(refusal(&mut || Err(Errno::NOSYS)).contains("system call not in this kernel"));
        assert!(refusal(&mut || Ok(7)).contains("it stands still"));
    }

    #[test]
    fn a_missing_capability_is_named() {
        let status =
            |set: u64| format!("Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{set:016x}\n");
        let all = (1 << 41) - 1;
        let missing =
            |set, wanted: &[Capability]| missing_capability(&status(set), "CapEff:", wanted);
        assert_eq!(missing(all, &[KILL, ADMIN, BOOT, NODES]), None);
        for wanted in [KILL, ADMIN, BOOT, NODES] {
            let told = missing(all & !(1 << wanted.0), &[KILL, ADMIN, BOOT, NODES]);
            assert_eq!(told, Some(wanted.1));
        }
        // A default container of Docker.
        assert_eq!(missing(0xa80425fb, &[ADMIN, NODES]), Some(ADMIN.1));
        assert_eq!(missing_capability("", "CapEff:", &[ADMIN]), None);
    }

    #[test]
    fn a_dynamic_program_is_told_from_a_static_one() {
        let mut elf = vec![0u8; 256];
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 2;
        elf[64] = 1;
        assert!(!has_interpreter(&elf));
        elf[64 + 56] = 3;
        assert!(has_interpreter(&elf));
        elf.fill(0);
        elf[4] = 1;
        elf[28] = 52;
        elf[42] = 32;
        elf[44] = 1;
        assert!(!has_interpreter(&elf));
        elf[52] = 3;
        assert!(has_interpreter(&elf));
    }
}
