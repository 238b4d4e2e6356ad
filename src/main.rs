//! Which role am I: the command line, or PID 1. (The worker is a child of PID 1, by fork alone.)
//!
//! Decides nothing else.

use rustix::fs::OFlags;
use std::process::ExitCode;
use takeover::cli::{self, Command};
use takeover::error::Error;
use takeover::stage2::pid1::{self, Arrival};
use takeover::{log, memory, stage1, sys};

fn main() -> ExitCode {
    sys::process::without_backtraces();
    if std::process::id() == 1 {
        run_as_pid1();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            takeover::error!("{}", error);
            ExitCode::from(error.kind().exit_code() as u8)
        }
    }
}

/// Returns only when this is an ordinary program that happens to be PID 1 of a container. The machine's own PID 1 must
/// never end: the kernel would panic.
fn run_as_pid1() {
    let mark = std::env::args_os().nth(1);
    if mark.is_some_and(|mark| mark.as_encoded_bytes() == pid1::ALONE.to_bytes()) {
        pid1::alone();
    }
    let error = match pid1::claim() {
        Arrival::NotOurs if !stage1::in_first_pid_namespace() => return,
        Arrival::NotOurs => Error::failed("taking over as", "PID 1", "there is no plan"),
        Arrival::Revoked => {
            Error::failed("taking over as", "PID 1", "stage 1 has gone, or has taken the plan back")
        }
        Arrival::Claimed(ramfs) => pid1::leave_old_root(&ramfs),
    };
    pid1::restart(Some(error), &|| ());
}

fn run() -> Result<(), Error> {
    memory::fail_clearly();
    let options = cli::parse(std::env::args_os().skip(1))?;
    memory::seal();
    log::set_level(options.log_level);
    if let Some(path) = options.log_file.as_deref() {
        log_to_file(path)?;
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
        Command::Flash => stage1::flash(&options),
        Command::Takeover => stage1::take_over(&options),
    }
}

/// Appends the log of this stage to a file, too (`--log-file`), which only root can read.
fn log_to_file(path: &str) -> Result<(), Error> {
    use takeover::error::Doing;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
    let file = takeover::files::open(path, flags).doing("opening the log file", path)?;
    log::to_file(file);
    Ok(())
}

fn print(text: &str) -> Result<(), Error> {
    use takeover::error::Doing;
    takeover::files::write_all(rustix::stdio::stdout(), text.as_bytes())
        .doing("writing to", "standard output")
}
