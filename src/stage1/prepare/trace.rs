//! Makes another process execute our copy, by ptrace(2): for a PID 1 that executes nothing when asked.
//!
//! It is seized, and let run into its next system call; that call is turned into the execution of the copy. Then the
//! kernel says that the program was executed (PTRACE_EVENT_EXEC), before an instruction of it has run; or the call has
//! failed, and the process gets its registers and its stack back and makes the call that it wanted to make.
//!
//! At the beginning of a system call nothing of an interrupted one is pending, no handler of a signal can come between,
//! and to make the call again is an exact way back. A child does all this: should it be killed, the kernel lets the
//! process go on.

use super::registers::{LENT, Registers, start_of_area};
use super::undo::interrupted;
use crate::error::{Doing, Error};
use crate::files;
use crate::log::Stopwatch;
use crate::plan::names;
use crate::sys::ptrace::{self, MOST_REGISTERS, Stop};
use crate::sys::{clock, map, process};
use crate::text::Text;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

/// What is said to be done when something fails.
const TRACING: &str = "tracing";

/// Makes `id` execute the copy of this program at this path, which it must see as we do, with no argument and no
/// environment. `patience` is how long it may take until it makes a system call; it runs on meanwhile. An error says
/// that it goes on as if nothing had been, or has ended. No error: it has, or may have, when the child that did it was
/// killed.
pub fn make_execute(id: Pid, copy: &str, patience: Duration) -> Result<(), Error> {
    // As in `process::become_own_copy`: nothing but this program is ever executed.
    if copy.rsplit('/').next() != Some(names::PROGRAM) {
        return Err(Error::os("executing", copy, Errno::INVAL));
    }
    // Where the child leaves its error.
    let said = map::shared_buffer(512).doing("mapping", "a page")?;
    let parent = rustix::process::getpid();
    let child = process::spawn(|| match alone(id, copy, parent, patience) {
        Ok(()) => 0,
        Err(error) => {
            let text: Text<400> = crate::text!("{}", error);
            for (to, from) in said.iter_mut().zip(text.bytes()) {
                *to = from;
            }
            1
        }
    });
    if wait_for_child(child.doing("starting", "a process")?)? {
        return Ok(());
    }
    // A SIGSTOP that came meanwhile is ignored by an init that nobody traces, and not by one that was traced when it
    // came.
    let _ = rustix::process::kill_process(id, Signal::CONT);
    interrupted()?;
    let end = said.iter().position(|byte| *byte == 0).unwrap_or(0);
    let why = match said.get(..end).map(files::as_text).unwrap_or_default() {
        "" => "the process that did it has ended",
        text => text,
    };
    Err(Error::failed("handing over by ptrace", "", why))
}

/// True when the child has done it, or may have. It is not killed, since that could come at the wrong moment: it is
/// asked to end, when this process was, and does as long as it may.
fn wait_for_child(child: Pid) -> Result<bool, Error> {
    let mut is_asked = false;
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::NOHANG) {
            Ok(None) | Err(Errno::INTR) => {}
            // Killed, perhaps when it was done: whoever waits for the plan to be claimed will see.
            Ok(Some((_, status))) => return Ok(matches!(status.exit_status(), Some(0) | None)),
            Err(errno) => return Err(Error::os("waiting for", "a process", errno)),
        }
        if !is_asked && interrupted().is_err() {
            is_asked = true;
            // It may have ended just now.
            let _ = rustix::process::kill_process(child, Signal::TERM);
        }
        clock::sleep(Duration::from_millis(2));
    }
}

/// What the child does.
fn alone(id: Pid, copy: &str, parent: Pid, patience: Duration) -> Result<(), Error> {
    process::block_all_signals().doing("blocking", "signals")?;
    // When the parent is killed, nobody waits for a takeover any more: as if it had asked this process to end.
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    asked.doing("asking for", "a signal when stage 1 ends")?;
    if rustix::process::getppid() != Some(parent) {
        return Err(Error::failed("handing over", "", "stage 1 has gone"));
    }
    // The kernel looks for memory elsewhere, should it lack some now.
    if let Ok(file) = files::open("/proc/self/oom_score_adj", OFlags::WRONLY) {
        let _ = files::write_all(&file, b"-1000");
    }
    let paths = Paths::of(id)?;
    ptrace::seize(id).doing("seizing", &paths.name)?;
    ptrace::interrupt(id).doing("interrupting", &paths.name)?;
    to_a_call(id, &paths, patience)?;
    execute(id, copy, &paths)
}

/// The files of a process.
struct Paths {
    name: Text<24>,
    memory: Text<24>,
    areas: Text<24>,
    call: Text<24>,
}

impl Paths {
    fn of(id: Pid) -> Result<Self, Error> {
        let id = id.as_raw_nonzero().get();
        Ok(Self {
            name: crate::text!("process {}", id),
            memory: crate::text!("/proc/{}/mem", id),
            areas: crate::text!("/proc/{}/maps", id),
            call: crate::text!("/proc/{}/syscall", id),
        })
    }
}

/// Waits until the process stands at the beginning of a system call.
///
/// The first stop at a call that comes after the one that was asked for is always at its beginning: ptrace(2).
fn to_a_call(id: Pid, paths: &Paths, patience: Duration) -> Result<(), Error> {
    let watch = Stopwatch::start();
    let go_on = &mut || {
        interrupted()?;
        if watch.elapsed() < patience.as_millis() as u64 {
            return Ok(());
        }
        let why: Text<80> = crate::text!("it made no system call within {} s", patience.as_secs());
        Err(Error::failed(TRACING, &paths.name, &why))
    };
    let mut was_interrupted = false;
    loop {
        let signal = match next_stop(id, paths, go_on)? {
            Stop::Call => return Ok(()),
            Stop::Interrupted => {
                was_interrupted = true;
                0
            }
            // Without a tracer PID 1 is not shown what it has no handler for. This one would stop it.
            Stop::Signal(signal) if signal == Signal::STOP.as_raw() => 0,
            Stop::Signal(signal) => signal,
            // By itself, just now.
            Stop::Executed => 0,
            Stop::Ended => return Err(ended(paths)),
        };
        let resumed = if was_interrupted {
            ptrace::go_on_to_call(id, signal)
        } else {
            ptrace::go_on(id, signal)
        };
        resumed.doing("resuming", &paths.name)?;
    }
}

fn ended(paths: &Paths) -> Error {
    Error::failed(TRACING, &paths.name, "it has ended")
}

/// Waits for the next stop; `go_on` fails when that is to end early.
fn next_stop(
    id: Pid,
    paths: &Paths,
    go_on: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Stop, Error> {
    loop {
        match ptrace::stop(id) {
            Ok(Some(stop)) => return Ok(stop),
            Ok(None) | Err(Errno::INTR) => go_on()?,
            Err(errno) => return Err(Error::os("waiting for", &paths.name, errno)),
        }
        clock::sleep(Duration::from_micros(100));
    }
}

/// Turns the call that the process is about to make into the execution of the copy.
fn execute(id: Pid, copy: &str, paths: &Paths) -> Result<(), Error> {
    let before = registers(id, paths)?;
    let resumes = before.tells_resumption() && resumes(paths);
    let stack = Stack::lend(&before, paths, copy)?;
    let executing = before.executing(stack.place);
    let set = ptrace::set_registers(id, executing.bytes())
        .and_then(|()| executing.call().map_or(Ok(()), |call| ptrace::set_call(id, call)));
    if let Err(errno) = set {
        // It still stands at the beginning of its own call, whose number only a set that worked has changed.
        let restored = ptrace::set_registers(id, before.bytes());
        stack.give_back()?;
        restored.doing("restoring the registers of", &paths.name)?;
        return Err(Error::os("setting the registers of", &paths.name, errno));
    }
    ptrace::go_on_to_call(id, 0).doing("resuming", &paths.name)?;
    loop {
        // No end of patience: the kernel is at it, and there is nothing to be had by leaving now.
        match next_stop(id, paths, &mut || Ok(()))? {
            Stop::Executed => return ptrace::detach(id).doing("leaving", &paths.name),
            Stop::Call => break,
            Stop::Ended => return Err(ended(paths)),
            Stop::Interrupted | Stop::Signal(_) => {
                ptrace::go_on_to_call(id, 0).doing("resuming", &paths.name)?;
            }
        }
    }
    let errno = registers(id, paths)?.errno();
    put_back(id, &before.again(resumes), &stack, paths)?;
    Err(Error::os("executing, in its place,", copy, Errno::from_raw_os_error(errno)))
}

/// Gives a process, which stands at the end of the call that failed, what it had, to make its own call now.
fn put_back(id: Pid, again: &Registers, stack: &Stack, paths: &Paths) -> Result<(), Error> {
    // All of it is tried, whatever fails.
    let given = stack.give_back();
    ptrace::set_registers(id, again.bytes()).doing("restoring the registers of", &paths.name)?;
    if again.call().is_some() {
        ptrace::set_call(id, -1).doing("restoring the registers of", &paths.name)?;
    }
    ptrace::detach(id).doing("leaving", &paths.name)?;
    given
}

fn registers(id: Pid, paths: &Paths) -> Result<Registers, Error> {
    let mut bytes = [0; MOST_REGISTERS];
    let length =
        ptrace::registers(id, &mut bytes).doing("reading the registers of", &paths.name)?;
    let odd = || Error::failed(TRACING, &paths.name, "its registers are those of another CPU");
    Registers::of(bytes, length).ok_or_else(odd)
}

/// True when the call that the process makes is one that goes on after an interruption: its number is 0, as
/// /proc/PID/syscall shows it, where there is such a file.
fn resumes(paths: &Paths) -> bool {
    let mut start = [0; 2];
    files::read_start(&paths.call, &mut start).is_ok_and(|start| start == b"0 ")
}

/// A part of the stack of a process, with what was in it.
struct Stack {
    memory: OwnedFd,
    place: u64,
    kept: [u8; LENT],
}

impl Stack {
    /// Puts onto the stack what the call points to.
    fn lend(registers: &Registers, paths: &Paths, copy: &str) -> Result<Self, Error> {
        let place = registers.lent_at(start_of_stack(registers.stack(), paths)?);
        // The memory of the program that it executes now: opened no sooner.
        let memory = files::open(&paths.memory, OFlags::RDWR).doing("opening", &paths.memory)?;
        let mut kept = [0; LENT];
        let count = rustix::io::pread(&memory, &mut kept, place).doing("reading", &paths.memory)?;
        if count != LENT {
            return Err(Error::failed("reading", &paths.memory, "its stack is too short"));
        }
        let stack = Self { memory, place, kept };
        if let Err(error) = stack.write(&registers.lent(place, copy)) {
            stack.give_back()?;
            return Err(error);
        }
        Ok(stack)
    }

    fn give_back(&self) -> Result<(), Error> {
        self.write(&self.kept)
    }

    fn write(&self, bytes: &[u8; LENT]) -> Result<(), Error> {
        match rustix::io::pwrite(&self.memory, bytes, self.place) {
            Ok(LENT) => Ok(()),
            Ok(_) => Err(Error::failed(TRACING, "its stack", "it was written in part")),
            Err(errno) => Err(Error::os("writing to", "its stack", errno)),
        }
    }
}

/// Where the area of memory begins that the stack is in.
fn start_of_stack(pointer: u64, paths: &Paths) -> Result<u64, Error> {
    let mut start = None;
    files::for_each_line(&paths.areas, &mut |line: &[u8]| {
        start = start.or_else(|| start_of_area(files::as_text(line), pointer));
    })
    .doing("reading", &paths.areas)?;
    start.ok_or_else(|| Error::failed(TRACING, &paths.name, "its stack is nowhere"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, Command, Stdio};

    /// A shell that says how often it was asked, and works on between.
    const SHELL: &str = "n=0; while read -r line; do n=$((n + 1)); echo \"$line $n\"; done";

    struct Shell {
        child: Child,
        id: Pid,
    }

    impl Shell {
        /// As PID 1 of a namespace of its own.
        fn as_init() -> Self {
            let child = Command::new("unshare")
                .args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SHELL])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let list = format!("/proc/{0}/task/{0}/children", child.id());
            let first = || std::fs::read_to_string(&list).ok()?.split(' ').next()?.parse().ok();
            let mut id = first();
            while id.is_none() {
                clock::sleep(Duration::from_millis(5));
                id = first();
            }
            let mut shell = Self { child, id: Pid::from_raw(id.unwrap()).unwrap() };
            // It runs, and is not unshare any more.
            assert_eq!(shell.ask("up"), "up 1");
            shell
        }

        fn ask(&mut self, word: &str) -> String {
            let input = self.child.stdin.as_mut().unwrap();
            input.write_all(format!("{word}\n").as_bytes()).unwrap();
            let mut answer = String::new();
            // Byte by byte: nothing is read ahead and lost.
            let mut output = BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap());
            output.read_line(&mut answer).unwrap();
            answer.trim_end().to_string()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // Ours, and the namespace goes with it.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn said(result: Result<(), Error>) -> String {
        let error = result.unwrap_err();
        let text: Text<512> = crate::text!("{}", error);
        text.to_string()
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn nothing_but_our_own_copy_is_executed() {
        for path in ["/bin/true", "/takeover/x", ""] {
            let said = said(make_execute(rustix::process::getpid(), path, PATIENCE));
            assert!(said.contains("invalid argument"), "{said}");
        }
    }

    #[test]
    fn an_init_goes_on_after_a_hundred_executions_that_fail() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root has namespaces");
            return;
        }
        let folder = std::env::temp_dir().join(format!("takeover-trace-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("takeover");
        std::fs::write(&file, "no program").unwrap();
        let mut shell = Shell::as_init();
        for count in 2..102 {
            let (path, why) = match count % 2 {
                0 => ("/nowhere/takeover", "no such file or directory"),
                _ => (file.to_str().unwrap(), "permission denied"),
            };
            let said = said(make_execute(shell.id, path, PATIENCE));
            assert!(said.contains(why) && said.contains("executing, in its place,"), "{said}");
            assert_eq!(shell.ask("again"), format!("again {count}"));
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn who_makes_no_system_call_is_left_and_runs_on() {
        let (mut busy, id) = busy();
        let said = said(make_execute(id, "/nowhere/takeover", Duration::from_secs(1)));
        let state = std::fs::read_to_string(format!("/proc/{}/status", busy.id())).unwrap();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(said.contains("it made no system call within 1 s"), "{said}");
        assert!(state.contains("State:\tR") && state.contains("TracerPid:\t0"), "{state}");
    }

    /// A process that makes no system call, and ends by itself should a test fail: a panic ends this one at once.
    fn busy() -> (Child, Pid) {
        let script = "n=0; while [ $n -lt 20000000 ]; do n=$((n + 1)); done";
        let mut busy = Command::new("sh");
        let busy = busy.args(["-c", script]).stdout(Stdio::null()).stderr(Stdio::null());
        let busy = busy.spawn().unwrap();
        let id = Pid::from_raw(busy.id() as i32).unwrap();
        // Once it runs, and its last call was a while ago.
        clock::sleep(Duration::from_millis(100));
        (busy, id)
    }

    /// Waits until a process has a tracer, or has none, and gives it.
    fn tracer_of(id: Pid, is_there: bool) -> Option<Pid> {
        for _ in 0..1000 {
            let path = format!("/proc/{}/status", id.as_raw_nonzero());
            let status = std::fs::read_to_string(path).unwrap();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:\t")).unwrap();
            let tracer = Pid::from_raw(tracer.parse().unwrap());
            if tracer.is_some() == is_there {
                return tracer;
            }
            clock::sleep(Duration::from_millis(5));
        }
        panic!("it {} a tracer", if is_there { "never gets" } else { "keeps" });
    }

    #[test]
    fn who_is_killed_takes_the_child_that_traces_along() {
        let (mut busy, id) = busy();
        let parent = process::spawn(|| {
            let _ = make_execute(id, "/nowhere/takeover", 2 * PATIENCE);
            0
        });
        let parent = parent.unwrap();
        tracer_of(id, true);
        rustix::process::kill_process(parent, Signal::KILL).unwrap();
        rustix::process::waitpid(Some(parent), WaitOptions::empty()).unwrap();
        tracer_of(id, false);
        busy.kill().unwrap();
        busy.wait().unwrap();
    }

    #[test]
    fn what_a_killed_child_did_is_for_others_to_see() {
        let (mut busy, id) = busy();
        let killer = std::thread::spawn(move || {
            let tracer = tracer_of(id, true).unwrap();
            rustix::process::kill_process(tracer, Signal::KILL).unwrap();
        });
        let result = make_execute(id, "/nowhere/takeover", 2 * PATIENCE);
        killer.join().unwrap();
        busy.kill().unwrap();
        busy.wait().unwrap();
        assert!(result.is_ok(), "it may have been executed, and is said not to be");
    }

    #[test]
    fn who_is_gone_cannot_be_traced() {
        let mut child = Command::new("true").spawn().unwrap();
        let id = Pid::from_raw(child.id() as i32).unwrap();
        child.wait().unwrap();
        let said = said(make_execute(id, "/nowhere/takeover", PATIENCE));
        assert!(said.contains("seizing process"), "{said}");
    }
}
