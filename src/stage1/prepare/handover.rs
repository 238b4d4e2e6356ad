//! The hand-over: PID 1 is asked to execute itself again, and finds this program where its own file was; or it is made
//! to execute this program.
//!
//! An init that knows such a request is asked first: the new file is bound over the old one, so nothing on the disk
//! changes. One that does not, or does not answer, is made to by ptrace (`trace`); so is a systemd for which /run would
//! have to be made larger.
//!
//! Who asks must see that it happened: the proof is the plan, which PID 1 renames as its first act. When the proof does
//! not come the plan is taken back by a rename too, so exactly one side wins, and all is undone.

use super::ramfs::Ramfs;
use super::trace;
use super::undo::{Change, Undo, interrupted, resize};
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::names;
use crate::stage1::look::facts::{Flavour, Init, OPENRC_PIPE, control_pipe};
use crate::stage1::look::tracing;
use crate::text::{Size, Text};
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, OFlags, StatVfs, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Pid, Signal};

/// systemd re-executes itself only while /run has this much free, and otherwise does nothing
/// (RELOAD_DISK_SPACE_MIN in its src/core/main.c).
const ROOM_IN_RUN: u64 = 16 << 20;

/// Where it writes down what it has to know then.
const RUN: &str = "/run";

/// The most changes that the hand-over makes: the size of /run, and the program over init's file.
pub const MOST_CHANGES: usize = 2;

/// How long PID 1 may take to claim the plan when it is seen to execute this program already.
const LAST_PATIENCE: Duration = Duration::from_secs(20);

/// Hands PID 1 over: asks it, where it knows how, and else makes it execute this program by ptrace. On success stage 2
/// runs, and this process is about to be ended by it.
pub fn hand_over(
    init: &Init,
    ramfs: &Ramfs,
    patience: Duration,
    undo: &mut Undo,
) -> Result<(), Error> {
    let program = ramfs.inside(names::PROGRAM)?;
    check_that_pid1_will_find(ramfs, &program)?;
    // Held until the end: PID 1 claims the plan only while this lock says that somebody waits for it. Without it a
    // stage 1 that was killed here would leave a trap for whatever next makes init execute itself.
    let _lock = lock_plan(ramfs)?;
    let is_traceable = init.obstacle.is_none();
    let asked = init.asked();
    // For a systemd without room in /run that is a way in which nothing has to be changed.
    let force_first = asked.is_none_or(|flavour| is_traceable && !has_room(flavour));
    let mut result = match asked.filter(|_| !force_first) {
        Some(flavour) => request(flavour, init, ramfs, &program, patience, undo),
        None => force(ramfs, &program, patience),
    };
    // Not the other way round: an init that asks the kernel in vain for what failed here has nothing to go on with. And
    // who was stopped makes no second attempt.
    if let Err(Failure::Undone(error)) = &result
        && !force_first
        && is_traceable
        && interrupted().is_ok()
    {
        crate::warn!("{}", *error);
        result = force(ramfs, &program, patience);
    }
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Undone(error) | Failure::Open(error)) => take_plan_back(ramfs, error),
    }
}

/// Why PID 1 does not execute this program, after one of the ways.
enum Failure {
    /// It will not any more.
    Undone(Error),
    /// It may yet.
    Open(Error),
}

/// Asks PID 1 to execute itself again, with this program in the place of its own. When it does not, its own is put
/// back.
fn request(
    flavour: Flavour,
    init: &Init,
    ramfs: &Ramfs,
    program: &str,
    patience: Duration,
    undo: &mut Undo,
) -> Result<(), Failure> {
    if flavour == Flavour::Systemd {
        make_room_in_run(undo).map_err(Failure::Undone)?;
    }
    mounts::bind(program, &init.path)
        .doing("binding this program over", &init.path)
        .map_err(Failure::Undone)?;
    let Err(error) = ask(flavour).and_then(|()| wait(ramfs, patience, &interrupted)) else {
        return Ok(());
    };
    if mounts::unmount(&init.path).is_ok() {
        return Err(Failure::Undone(error));
    }
    // While it is busy PID 1 is executing this program and will claim the plan any moment. A signal may be what brought
    // us here. It stays pending, and must not take this wait's time too: a plan that is taken back from a PID 1 that
    // executes us already makes that restart the machine.
    if wait(ramfs, LAST_PATIENCE, &|| Ok(())).is_ok() {
        return Ok(());
    }
    undo.note(Change::Mounted(init.path.clone())).map_err(Failure::Open)?;
    Err(Failure::Open(error))
}

/// Makes PID 1 execute this program.
fn force(ramfs: &Ramfs, program: &str, patience: Duration) -> Result<(), Failure> {
    // Much may have happened since it was looked at.
    if let Some(obstacle) = tracing::obstacle().map_err(Failure::Undone)? {
        let error = Error::failed("handing over by ptrace", "PID 1", obstacle.why);
        return Err(Failure::Undone(error.advice(obstacle.advice)));
    }
    crate::info!("PID 1 is made to execute this program, by ptrace");
    trace::make_execute(Pid::INIT, program, patience).map_err(Failure::Undone)?;
    // It is this program by now, or will never be: whatever signal comes, that shows.
    wait(ramfs, LAST_PATIENCE, &|| Ok(())).map_err(Failure::Open)
}

/// PID 1 must find the RAMFS by the device that its program lies on; better to learn now that it would not. Told by the
/// number of the mount: a copy of it may be mounted elsewhere, and other things over it.
fn check_that_pid1_will_find(ramfs: &Ramfs, program: &str) -> Result<(), Error> {
    let Some(found) = mounts::ramfs_of(program)? else {
        return Err(Error::failed("looking for", &ramfs.path, "it is not in the mount table"));
    };
    if ramfs.mount_id().is_none_or(|id| found.id == id) {
        return Ok(());
    }
    let why: Text<240> = crate::text!("PID 1 would find {} in its stead", found.point);
    Err(Error::failed("looking for", &ramfs.path, &why).advice("unmount that copy of it"))
}

fn lock_plan(ramfs: &Ramfs) -> Result<OwnedFd, Error> {
    let path = ramfs.inside(names::PLAN)?;
    let plan = files::open(&path, OFlags::RDONLY).doing("opening", &path)?;
    rustix::fs::flock(&plan, FlockOperation::LockExclusive).doing("locking", &path)?;
    Ok(plan)
}

/// Takes the plan back, or finds that PID 1 was faster after all. Only when nobody can start this program in PID 1's
/// place any more.
fn take_plan_back(ramfs: &Ramfs, error: Error) -> Result<(), Error> {
    let plan = ramfs.inside(names::PLAN)?;
    let revoked = ramfs.inside(names::REVOKED)?;
    match files::rename(&plan, &revoked) {
        Ok(()) => Err(error),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::os("taking back", &plan, errno)),
    }
}

fn ask(flavour: Flavour) -> Result<(), Error> {
    match flavour {
        // systemd(1), "Signals"; of Upstart term_handler() in its init/main.c.
        Flavour::Systemd | Flavour::Upstart => {
            rustix::process::kill_process(Pid::INIT, Signal::TERM)
                .doing("asking PID 1 to execute", "itself")
        }
        Flavour::Sysvinit => ask_sysvinit(),
        // src/openrc-init/openrc-init.c of OpenRC.
        Flavour::Openrc => write_to_pipe(OPENRC_PIPE, b"reexec"),
    }
}

/// The request of `telinit u`: 384 bytes, in native order (initreq.h of sysvinit).
fn ask_sysvinit() -> Result<(), Error> {
    const MAGIC: u32 = 0x0309_1969;
    const CHANGE_RUNLEVEL: u32 = 1;
    let mut request = [0; 384];
    let fields = [MAGIC, CHANGE_RUNLEVEL, u32::from(b'U'), 0];
    for (place, value) in request.chunks_exact_mut(4).zip(fields) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    let path = control_pipe()
        .ok_or_else(|| Error::failed("asking init", "/run/initctl", "the pipe is gone"))?;
    write_to_pipe(path, &request)
}

fn write_to_pipe(path: &str, request: &[u8]) -> Result<(), Error> {
    // Non-blocking: without a reader this must fail, not hang.
    let flags = OFlags::WRONLY | OFlags::NONBLOCK;
    let pipe = files::open(path, flags).doing("asking init through", path)?;
    files::write_all(&pipe, request).doing("asking init through", path)
}

/// Waits until PID 1 has claimed the plan; `go_on` fails when that is to end early.
fn wait(
    ramfs: &Ramfs,
    patience: Duration,
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let (plan, claimed) = (ramfs.inside(names::PLAN)?, ramfs.inside(names::CLAIMED)?);
    // PID 1 goes on to make the RAMFS the root directory, of this process too.
    let claimed_below_root = crate::path!("/{}", names::CLAIMED)?;
    let watch = Stopwatch::start();
    while watch.elapsed() < patience.as_millis() as u64 {
        let has_moved = || !files::exists(&plan) && files::exists(&claimed_below_root);
        if files::exists(&claimed) || has_moved() {
            return Ok(());
        }
        go_on()?;
        crate::sys::clock::sleep(Duration::from_millis(20));
    }
    let why: Text<120> =
        crate::text!("it did not execute itself again within {} s", patience.as_secs());
    Err(Error::failed("handing over", "PID 1", &why)
        .advice("its log tells why (journalctl -b _PID=1, or /var/log/daemon.log)"))
}

/// How much room /run lacks for systemd, in bytes.
fn lack_of_room(space: &StatVfs) -> u64 {
    // A tmpfs without a limit tells no sizes at all (shmem_statfs() in mm/shmem.c).
    if space.f_blocks == 0 {
        return 0;
    }
    let wanted = ROOM_IN_RUN + (2 << 20);
    wanted.saturating_sub(space.f_bavail.saturating_mul(space.f_frsize))
}

/// False when /run would have to be made larger for an init to execute itself again.
fn has_room(flavour: Flavour) -> bool {
    flavour != Flavour::Systemd || files::space(RUN).is_ok_and(|space| lack_of_room(&space) == 0)
}

/// Makes /run larger when systemd would silently refuse for lack of room in it.
fn make_room_in_run(undo: &mut Undo) -> Result<(), Error> {
    let space = files::space(RUN).doing("looking at the space in", RUN)?;
    let lack = lack_of_room(&space);
    if lack == 0 {
        return Ok(());
    }
    let size = space.f_blocks.saturating_mul(space.f_frsize);
    let flags = remount_flags(space.f_flag);
    resize(RUN, flags, size + lack).map_err(|error| {
        error.advice("systemd needs 16 MiB free in /run to execute itself again")
    })?;
    undo.note(Change::Resized(crate::path!("{}", RUN)?, flags, size))?;
    crate::info!("/run was made {} larger for systemd", Size(lack));
    Ok(())
}

/// The flags of a mount, for mount(2): a remount drops those that are not repeated.
fn remount_flags(flags: StatVfsMountFlags) -> MountFlags {
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
        (StatVfsMountFlags::SYNCHRONOUS, MountFlags::SYNCHRONOUS),
    ];
    let set = pairs.into_iter().filter(|(shown, _)| flags.contains(*shown));
    set.fold(MountFlags::empty(), |all, (_, flag)| all | flag)
}
