//! Ending everything that runs: asked first, then made to, then named.
//!
//! kill(2) with pid −1 reaches every process at once, those in namespaces and containers below this one included;
//! kernel threads do not listen. Nothing to kill is not an error. What the freezer of the first version of cgroups
//! holds (a paused container) does not even listen to SIGKILL, so it is thawed before.

use super::stuck;
use crate::disk::mounts::{self, Mount};
use crate::error::Error;
use crate::files;
use crate::log::Stopwatch;
use crate::progress::Shared;
use crate::sys::process;
use crate::text::{PathText, Text, printable};
use core::ops::ControlFlow;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};

const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGCONT: i32 = 18;

/// How long a process may take to end when asked, in milliseconds.
const PATIENCE_ASKED: u64 = 10_000;
/// How long the kernel may take to end it.
const PATIENCE_KILLED: u64 = 5000;
/// How many of those that do not end are named: a line takes 5 ms on a serial console.
const NAMED: u32 = 16;
/// Between two looks at who is left, in milliseconds: short ones at first, long ones when it takes its time. They are
/// children of PID 1, so nobody tells this process of their end.
const PAUSES: core::ops::Range<u64> = 5..50;

/// Programs that keep the addresses of an interface, and take them away when they are asked to end: by the names that
/// the kernel has for them, of 15 bytes at most.
///
/// systemd-networkd gives its lease back unless KeepConfiguration= says otherwise (systemd.network(5)); dhcpcd likewise
/// without `persistent` (dhcpcd.conf(5)); connmand turns its services off. NetworkManager leaves what it has set up,
/// but ends its own dhclient; dhclient and udhcpc may run scripts.
#[cfg(feature = "http")]
const KEEPERS: [&str; 6] =
    ["systemd-network", "dhcpcd", "connmand", "NetworkManager", "dhclient", "udhcpc"];

/// Ends those without asking: what the kernel has of the network stays, for as long as the lease is good. For a report
/// that is made over it, and for the log.
#[cfg(feature = "http")]
pub fn keepers_of_addresses() {
    for_each_process(&mut |process| {
        if KEEPERS.contains(&&*process.name) {
            crate::debug!("{} is ended unasked: it would take the addresses with it", process.name);
            // One that does not end is asked with the others.
            process.signal(Signal::KILL);
        }
        ControlFlow::Continue(())
    });
}

/// Ends every process but this one and PID 1. What does not end is named in the log: it is the proof that the disk
/// is free that decides, not this. False when some are left.
pub fn everyone(shared: &Shared) -> bool {
    stuck::thaw(shared);
    signal(SIGTERM);
    // A stopped process gets the signal when it goes on.
    signal(SIGCONT);
    hang_up();
    thaw_everyone();
    if wait(PATIENCE_ASKED, shared) {
        return true;
    }
    name_each(&|Process { id, name, .. }| {
        crate::info!("{} ({}) did not end when asked, and is killed", name, *id)
    });
    stuck::release(shared);
    for _ in 0..3 {
        // Again, for what was started in the meantime.
        signal(SIGKILL);
        if wait(PATIENCE_KILLED, shared) {
            return true;
        }
    }
    name_each(&|Process { id, name, .. }| {
        crate::warn!("{} ({}) cannot be killed: it waits for the kernel", name, *id)
    });
    false
}

/// Logs some of those that are left. To count thousands would take longer than to end them.
fn name_each(log: &dyn Fn(&Process)) {
    let mut count = 0;
    for_each_process(&mut |process| {
        count += 1;
        if count > NAMED {
            crate::info!("and others");
            return ControlFlow::Break(());
        }
        log(process);
        ControlFlow::Continue(())
    });
}

/// Tells whoever has a terminal that it is gone: a shell that somebody sits at, perhaps the one that this program was
/// started from, takes no SIGTERM. Not the others, which may read their settings again.
fn hang_up() {
    for_each_process(&mut |process| {
        if process.has_terminal {
            process.signal(Signal::HUP);
        }
        ControlFlow::Continue(())
    });
}

/// Thaws every group of processes that the freezer holds. Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst.
fn thaw_everyone() {
    // Without such a hierarchy nobody is in it.
    let Ok(Some(freezer)) = mounts::find(mounts::OWN, &mut |mount| is_freezer(mount)) else {
        return;
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let root = match files::opened(&freezer.point, flags) {
        Ok(root) => root,
        Err(error) => return crate::warn!("{}", error),
    };
    for_each_process(&mut |Process { id, name, .. }| {
        if let Err(error) = thaw(*id, &root) {
            crate::warn!("{} ({}) may be frozen: {}", name, *id, error);
        }
        ControlFlow::Continue(())
    });
}

fn is_freezer(mount: &Mount) -> bool {
    mount.file_system == "cgroup" && has_word(mount.file_system_options, "freezer")
}

fn has_word(list: &str, word: &str) -> bool {
    list.split(',').any(|found| found == word)
}

/// Thaws the group of a process, and each above it: one that is frozen keeps frozen what is below.
fn thaw(id: u32, root: &OwnedFd) -> Result<(), Error> {
    let list = crate::path!("/proc/{}/cgroup", id)?;
    let mut found = Ok(PathText::new());
    // A process that is gone by now is in no group.
    let _ = files::for_each_line(&list, &mut |line: &[u8]| {
        if let Some(group) = freezer_group(files::as_text(line)) {
            found = crate::path!("{}", group);
        }
    });
    let found = found?;
    let mut group: &str = &found;
    while !group.is_empty() {
        let path = crate::path!("{}/freezer.state", group)?;
        let file =
            rustix::fs::openat(root, &*path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let written = file.and_then(|file| files::write_all(&file, b"THAWED"));
        match written {
            // Removed with its last process.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(errno) => return Err(Error::os("thawing", &path, errno)),
        }
        group = group.rsplit_once('/').map_or("", |(above, _)| above);
    }
    Ok(())
}

/// The group in the freezer's hierarchy, without the slash it begins with, from /proc/PID/cgroup: lines of a number,
/// the controllers and the path, with colons between (cgroups(7)). The root group, which cannot be frozen, is empty.
fn freezer_group(list: &str) -> Option<&str> {
    list.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let controllers = fields.nth(1)?;
        let path = fields.next()?;
        has_word(controllers, "freezer").then(|| path.strip_prefix('/').unwrap_or(path))
    })
}

fn signal(number: i32) {
    match process::signal_everyone(number) {
        // Nobody is left.
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => {
            let error = Error::os("sending a signal to", "every process", errno);
            crate::warn!("{}", error);
        }
    }
}

/// True as soon as nobody is left.
fn wait(patience: u64, shared: &Shared) -> bool {
    let (watch, mut pause) = (Stopwatch::start(), PAUSES.start);
    loop {
        shared.beat();
        let mut anyone = false;
        for_each_process(&mut |_| {
            anyone = true;
            // There may be thousands more.
            ControlFlow::Break(())
        });
        if !anyone || watch.elapsed() > patience {
            return !anyone;
        }
        crate::sys::clock::sleep(Duration::from_millis(pause));
        pause = (pause * 2).min(PAUSES.end);
    }
}

/// A living process.
#[derive(PartialEq, Debug)]
struct Process {
    id: u32,
    name: Text<16>,
    has_terminal: bool,
}

impl Process {
    fn signal(&self, signal: Signal) {
        if let Some(id) = Pid::from_raw(self.id as i32) {
            // It is gone already.
            let _ = rustix::process::kill_process(id, signal);
        }
    }
}

/// Calls `visit` with each living process that is not ours and not a kernel thread, until it breaks.
fn for_each_process(visit: &mut dyn FnMut(&Process) -> ControlFlow<()>) {
    let own = rustix::process::getpid().as_raw_nonzero().get() as u32;
    let result = files::for_each_entry("/proc", &mut |name: &str| {
        let id = name.parse().unwrap_or(0);
        if id > 1 && id != own {
            // A process that is gone by now has no file.
            if let Some(process) = living_process(id) {
                return visit(&process);
            }
        }
        ControlFlow::Continue(())
    });
    if let Err(errno) = result {
        let error = Error::os("listing", "/proc", errno);
        crate::warn!("{}", error);
    }
}

/// Nothing when it has ended or is a kernel thread.
fn living_process(id: u32) -> Option<Process> {
    let path = crate::path!("/proc/{}/stat", id).ok()?;
    let mut buffer = [0; 512];
    // The nine fields that count stand in front.
    parse_stat(id, files::read_start(&path, &mut buffer).ok()?)
}

/// From /proc/PID/stat: the name in parentheses, the state, the terminal as seventh field and the flags as ninth
/// (proc(5)).
fn parse_stat(id: u32, stat: &[u8]) -> Option<Process> {
    /// PF_KTHREAD in include/linux/sched.h.
    const KERNEL_THREAD: u64 = 0x0020_0000;
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?;
    let rest = core::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let has_terminal = fields.nth(3)? != "0";
    let flags = crate::text::decimal(fields.nth(1)?)?;
    let lives = !matches!(state, "Z" | "X" | "x") && flags & KERNEL_THREAD == 0;
    lives.then(|| Process { id, name: printable(name), has_terminal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_in_the_freezer_is_found() {
        let list = "12:cpu,cpuacct:/\n7:freezer:/docker/a:b\n0::/init.scope\n";
        assert_eq!(freezer_group(list), Some("docker/a:b"));
        assert_eq!(freezer_group("3:pids,freezer:/\n"), Some(""));
        assert_eq!(freezer_group("0::/init.scope\n1:name=freezer-not:/x\nfreezer\n"), None);
    }

    #[test]
    fn kernel_threads_and_zombies_do_not_count() {
        let process = |stat: &str| parse_stat(7, stat.as_bytes());
        let name = |stat: &str| process(stat).map(|process| process.name.to_string());
        assert_eq!(name("7 (a) b) S 1 7 7 0 -1 4194560 1"), Some("a) b".into()));
        let has_terminal = |stat: &str| process(stat).unwrap().has_terminal;
        assert!(!has_terminal("7 (sshd) S 1 7 7 0 -1 4194560 1"));
        assert!(has_terminal("7 (bash) S 1 7 7 1088 7 4194560 1"));
        assert_eq!(name("7 (kworker/0:1) I 2 0 0 0 -1 69238880 0"), None);
        assert_eq!(name("7 (sh) Z 1 7 7 0 -1 4194560 1"), None);
        assert_eq!(name("7 (cut"), None);
    }
}
