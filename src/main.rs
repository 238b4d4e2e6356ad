//! Which role am I: the command line, or PID 1. (The worker is a child of PID 1, by fork alone.)
//!
//! Decides nothing else.

#![no_main]

use rustix::process::Pid;
use takeover::sys::process;
use takeover::sys::start::Arguments;
#[cfg(feature = "core")]
use {
    rustix::fs::{FileType, OFlags},
    takeover::cli::{self, Command, Options},
    takeover::error::Error,
    takeover::stage2::pid1::{self, Arrival},
    takeover::{log, memory, stage1, stage2},
};

takeover::entry!(start);

/// Gives the exit code.
fn start(mut arguments: Arguments) -> i32 {
    // Whichever role it is: keys of networks pass through all of them.
    process::leave_no_core();
    // The program's name.
    arguments.next_text();
    if rustix::process::getpid() == Pid::INIT {
        run_as_pid1(arguments);
    }
    run_command(arguments)
}

#[cfg(feature = "core")]
fn run_command(arguments: Arguments) -> i32 {
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            takeover::error!("{}", error);
            error.kind().exit_code()
        }
    }
}

/// The set `rescue`: the init of an initramfs, or a command line.
#[cfg(not(feature = "core"))]
fn run_as_pid1(_: Arguments) {
    takeover::rescue::init::live(true);
}

#[cfg(not(feature = "core"))]
fn run_command(arguments: Arguments) -> i32 {
    takeover::rescue::command::run(arguments)
}

/// Returns only when this is an ordinary program that happens to be PID 1 of a container. The machine's own PID 1 must
/// never end: the kernel would panic.
#[cfg(feature = "core")]
fn run_as_pid1(mut arguments: Arguments) {
    if arguments.next_text() == Some(pid1::ALONE) {
        pid1::alone();
    }
    let arrival = pid1::claim();
    #[cfg(feature = "rescue")]
    if let Arrival::NotOurs = arrival {
        takeover::rescue::init::live(false);
    }
    let error = match arrival {
        Arrival::NotOurs if !process::in_first_pid_namespace() => return,
        Arrival::NotOurs => Error::failed("taking over as", "PID 1", "there is no plan"),
        Arrival::Revoked => {
            Error::failed("taking over as", "PID 1", "stage 1 has gone, or has taken the plan back")
        }
        Arrival::Claimed(ramfs) => pid1::leave_old_root(&ramfs),
    };
    pid1::restart(Some(error), None);
}

/// Gives the exit code; that of an error is in it.
#[cfg(feature = "core")]
fn run(arguments: Arguments) -> Result<i32, Error> {
    memory::fail_clearly();
    log::look_at_terminal();
    let options = cli::parse(arguments)?;
    memory::seal();
    log::set_level(options.log_level);
    if let Some(path) = options.log_file.as_deref() {
        log_to_file(path, &options)?;
    }
    match options.command {
        Command::Help => print(cli::HELP),
        Command::Version => print(concat!(
            "takeover ",
            env!("CARGO_PKG_VERSION"),
            " ",
            env!("TAKEOVER_COMMIT"),
            "\n"
        )),
        Command::Scan => stage1::describe(&options),
        Command::Log => stage1::print_record(&options),
        #[cfg(feature = "migrate")]
        Command::Networks => stage1::print_networks(&options),
        #[cfg(not(feature = "migrate"))]
        Command::Networks => Err(Error::usage(
            "networks",
            "this program was built without the reading of network settings",
        )
        .advice("use one of the feature set that has it: see the README")),
        Command::Flash => return stage1::flash(&options, stage2::flash_here),
        Command::Takeover => stage1::take_over(&options),
    }?;
    Ok(0)
}

/// Appends the log of this stage to a file, too (`--log-file`). A new one is for root alone; one that is there keeps
/// its mode. Not through a symbolic link: in a directory for all, anybody could point it at any file of the system. Not
/// onto a disk, whose first sectors the log would be (`--log-to` is for partitions), and not into what is read. Whoever
/// opens a pipe that nobody reads stands still.
#[cfg(feature = "core")]
fn log_to_file(path: &str, options: &Options) -> Result<(), Error> {
    use takeover::error::Doing;
    const REMEDY: &str = "name a file, not a symbolic link, in a folder that is there";
    let named = |input: &Option<String>| identity(input.as_deref()?);
    let found = identity(path);
    let is_odd = |(_, _, mode)| {
        let kind = FileType::from_raw_mode(mode);
        kind.is_block_device() || kind.is_fifo()
    };
    let Options { image, config, flash_to, backup, ca_cert, .. } = options;
    let is_input = || {
        [image, config, flash_to, backup, ca_cert].iter().any(|input| found == named(input))
            || options.keyfiles.iter().any(|keyfile| found == identity(keyfile))
    };
    if found.is_some_and(is_odd) || found.is_some() && is_input() {
        let why = "it is a disk or a pipe, or an input of this command, and would be damaged";
        return Err(Error::refused("opening the log file", path, why).advice(REMEDY));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::NOFOLLOW;
    let file = takeover::files::open(path, flags)
        .doing("opening the log file", path)
        .map_err(|error| error.as_refusal().advice(REMEDY))?;
    log::to_file(file);
    Ok(())
}

/// Which file it is, and of which kind; nothing where there is none.
#[cfg(feature = "core")]
#[inline(never)]
fn identity(path: &str) -> Option<(u64, u64, u32)> {
    let status = takeover::files::status(path).ok()?;
    Some((status.st_dev, status.st_ino, status.st_mode))
}

#[cfg(feature = "core")]
fn print(text: &str) -> Result<(), Error> {
    use takeover::error::Doing;
    takeover::files::write_all(rustix::stdio::stdout(), text.as_bytes())
        .doing("writing to", "standard output")
}
