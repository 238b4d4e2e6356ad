//! The command line: lexopt to [`Options`], the help text. Touches nothing of the system.

use crate::error::Error;
use crate::log::Level;
use crate::plan::OnFailure;
use crate::text::Text;
use lexopt::prelude::*;
use std::ffi::OsString;

/// The help text.
pub const HELP: &str = "\
takeover: replaces the operating system of this device with a disk image, in place

USAGE
  takeover -i IMAGE -c CONFIG [OPTIONS]    take this device over
  takeover flash -i IMAGE -f DEV [OPTIONS] flash a disk that is not in use, from a system that runs from RAM
  takeover scan IMAGE                      say what an image is

OPTIONS
  -i, --image FILE       the image: raw, gzip (any number of members) or zip with one deflated entry
  -c, --config FILE      config.json for the new OS; default /mnt/boot/config.json where there is one
  -f, --flash-to DEV     the disk to write; default: the disk under /
  -w, --work-dir DIR     for generated files; default: the current directory
  -l, --log-to DEV       keep stage 2's log on this vfat, ext3 or ext4 partition of another disk
      --no-ack           do not ask before going on
      --dry-run          check everything, print the plan, change nothing
      --pretend          do everything up to the proof that the disk is free, then restart the old OS
      --no-cleanup       after a failure leave mounts and files as they are, to look at them
      --on-failure WHAT  when flashing has failed for good: retry (default), halt or reboot
      --in-namespace     take over the PID namespace this runs in: a container with an init of its own
      --log-level LEVEL  error, warn, info (default), debug, trace
      --s2-log-level LEVEL  the same for stage 2; default: as --log-level
      --help             this text
      --tool-version     the version of this program

EXIT CODES
  0  done, or handed over: the rest is on the console
  1  failed, and everything is undone
  2  wrong usage
  3  refused by a check; nothing was changed
  4  takeover flash: failed while writing; the disk is incomplete
";

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Take this device over.
    Takeover,
    /// Flash a free disk.
    Flash,
    /// Look at an image.
    Scan,
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Options {
    /// What is to be done.
    pub command: Command,
    /// `--config`.
    pub config: Option<String>,
    /// `--image`, or the operand of `scan`.
    pub image: Option<String>,
    /// `--flash-to`.
    pub flash_to: Option<String>,
    /// `--work-dir`.
    pub work_dir: String,
    /// `--log-to`.
    pub log_to: Option<String>,
    /// `--no-ack`.
    pub no_ack: bool,
    /// `--dry-run`.
    pub dry_run: bool,
    /// `--pretend`.
    pub pretend: bool,
    /// `--no-cleanup`.
    pub no_cleanup: bool,
    /// `--in-namespace`.
    pub in_namespace: bool,
    /// `--hand-over-timeout`, in seconds.
    pub hand_over_timeout: u64,
    /// `--on-failure`.
    pub on_failure: OnFailure,
    /// `--log-level`.
    pub log_level: Level,
    /// `--s2-log-level`.
    pub stage2_log_level: Level,
}

/// Reads a command line, without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, Error> {
    let mut options = Options {
        command: Command::Takeover,
        config: None,
        image: None,
        flash_to: None,
        work_dir: String::from("."),
        log_to: None,
        no_ack: false,
        dry_run: false,
        pretend: false,
        no_cleanup: false,
        in_namespace: false,
        hand_over_timeout: 60,
        on_failure: OnFailure::Retry,
        log_level: Level::Info,
        stage2_log_level: Level::Info,
    };
    let mut stage2_level = None;
    let mut first = true;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|error| wrong(&error))? {
        match arg {
            Short('c') | Long("config") => options.config = Some(text(&mut parser, "--config")?),
            Short('i') | Long("image") => options.image = Some(text(&mut parser, "--image")?),
            Short('f') | Long("flash-to") => {
                options.flash_to = Some(text(&mut parser, "--flash-to")?);
            }
            Short('w') | Long("work-dir") => options.work_dir = text(&mut parser, "--work-dir")?,
            Short('l') | Long("log-to") => options.log_to = Some(text(&mut parser, "--log-to")?),
            Long("no-ack") => options.no_ack = true,
            Long("dry-run") => options.dry_run = true,
            Long("pretend") => options.pretend = true,
            Long("no-cleanup") => options.no_cleanup = true,
            Long("in-namespace") => options.in_namespace = true,
            Long("hand-over-timeout") => options.hand_over_timeout = seconds(&mut parser)?,
            Long("on-failure") => options.on_failure = on_failure(&mut parser)?,
            Long("log-level") => options.log_level = level(&mut parser, "--log-level")?,
            Long("s2-log-level") => {
                stage2_level = Some(level(&mut parser, "--s2-log-level")?);
            }
            Long("help") | Short('h') => options.command = Command::Help,
            Long("tool-version") => options.command = Command::Version,
            Value(value) if first && value == "scan" => options.command = Command::Scan,
            Value(value) if first && value == "flash" => options.command = Command::Flash,
            Value(value) if options.command == Command::Scan && options.image.is_none() => {
                options.image = Some(utf8(value, "the image")?);
            }
            other => return Err(wrong(&other.unexpected())),
        }
        first = false;
    }
    options.stage2_log_level = stage2_level.unwrap_or(options.log_level);
    check(&options)?;
    Ok(options)
}

/// What belongs together, and what excludes each other.
fn check(options: &Options) -> Result<(), Error> {
    let missing =
        |what| Error::usage("reading the command line", "", what).advice("see takeover --help");
    match options.command {
        Command::Help | Command::Version => return Ok(()),
        _ if options.image.is_none() => return Err(missing("no image was given (-i FILE)")),
        Command::Flash if options.flash_to.is_none() => {
            return Err(missing("no disk was given (-f DEV)"));
        }
        _ => {}
    }
    if options.dry_run && options.pretend {
        return Err(missing("--dry-run and --pretend exclude each other"));
    }
    Ok(())
}

fn text(parser: &mut lexopt::Parser, option: &'static str) -> Result<String, Error> {
    let value = parser.value().map_err(|error| wrong(&error))?;
    utf8(value, option)
}

/// A value as text that the kernel takes as a path without a copy on the heap, which is sealed by then.
fn utf8(value: OsString, what: &str) -> Result<String, Error> {
    let wrong = |why| Error::usage("reading the command line", what, why);
    let text = value.into_string().map_err(|_| wrong("the value is not UTF-8"))?;
    match text.len() {
        0..256 => Ok(text),
        _ => Err(wrong("the value is longer than 255 bytes")),
    }
}

fn level(parser: &mut lexopt::Parser, option: &'static str) -> Result<Level, Error> {
    let name = text(parser, option)?;
    Level::from_name(&name).ok_or_else(|| {
        Error::usage("reading the command line", option, "there is no such level")
            .advice("the levels are error, warn, info, debug and trace")
    })
}

fn seconds(parser: &mut lexopt::Parser) -> Result<u64, Error> {
    let option = "--hand-over-timeout";
    let value = crate::text::decimal(&text(parser, option)?);
    value.filter(|seconds| (1..=3600).contains(seconds)).ok_or_else(|| {
        Error::usage("reading the command line", option, "it is not a number from 1 to 3600")
    })
}

fn on_failure(parser: &mut lexopt::Parser) -> Result<OnFailure, Error> {
    match text(parser, "--on-failure")?.as_str() {
        "retry" => Ok(OnFailure::Retry),
        "halt" => Ok(OnFailure::Halt),
        "reboot" => Ok(OnFailure::Reboot),
        _ => Err(Error::usage("reading the command line", "--on-failure", "there is no such way")
            .advice("the ways are retry, halt and reboot")),
    }
}

fn wrong(error: &lexopt::Error) -> Error {
    use lexopt::Error as Problem;
    let why: Text<200> = match error {
        Problem::MissingValue { option: Some(option) } => {
            crate::text!("the option {} needs a value", option.as_str())
        }
        Problem::UnexpectedOption(option) => {
            crate::text!("there is no option {}", option.as_str())
        }
        Problem::UnexpectedArgument(value) => {
            crate::text!("'{}' is one argument too many", value.to_str().unwrap_or("?"))
        }
        Problem::UnexpectedValue { option, .. } => {
            crate::text!("the option {} takes no value", option.as_str())
        }
        _ => Text::from("it makes no sense"),
    };
    Error::usage("reading the command line", "", &why).advice("see takeover --help")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn usage(line: &str) -> String {
        let error = read(line).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        let text: Text<500> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn the_names_of_the_original_work() {
        let options = read(
            "-i a.img -c c.json -f /dev/sda -w /tmp --no-ack --pretend --no-cleanup --log-level=debug",
        )
        .unwrap();
        assert_eq!(options.image.as_deref(), Some("a.img"));
        assert_eq!(options.flash_to.as_deref(), Some("/dev/sda"));
        assert!(options.no_ack && options.pretend && options.no_cleanup);
        assert_eq!(options.stage2_log_level, Level::Debug);
        let options = read("--image a --s2-log-level trace").unwrap();
        assert_eq!((options.log_level, options.stage2_log_level), (Level::Info, Level::Trace));
    }

    #[test]
    fn commands() {
        assert_eq!(read("scan a.img").unwrap().command, Command::Scan);
        assert_eq!(read("flash -i a -f b").unwrap().command, Command::Flash);
        assert_eq!(read("--help").unwrap().command, Command::Help);
        assert_eq!(read("--tool-version").unwrap().command, Command::Version);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(usage("-i a --nonsense").contains("--nonsense"));
        assert!(usage("-i").contains("-i needs a value"));
        assert!(usage("-i a b").contains("'b'"));
        assert!(usage("").contains("no image"));
        assert!(usage("flash -i a").contains("no disk"));
        assert!(usage("-i a --log-level loud").contains("no such level"));
        assert!(usage("-i a --dry-run --pretend").contains("exclude"));
        assert!(usage(&format!("-i {}", "x".repeat(256))).contains("longer than 255"));
        assert!(usage("-i a --hand-over-timeout 0").contains("1 to 3600"));
        assert!(usage("-i a --on-failure pray").contains("retry, halt and reboot"));
    }
}
