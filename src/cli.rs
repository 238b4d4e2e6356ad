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

WHAT AND WHERE
  -i, --image FILE       the image: raw, gzip (any number of members) or zip with one deflated entry
  -c, --config FILE      config.json for the new OS; default /mnt/boot/config.json where there is one
  -f, --flash-to DEV     the disk to write; default: the disk under /
  -w, --work-dir DIR     for generated files; default: the current directory
      --no-ack           do not ask before going on
      --dry-run          check everything, print the plan, change nothing
      --pretend          do everything up to the proof that the disk is free, then restart the old OS
      --json             print what will happen as JSON, for programs

WHAT IS CARRIED OVER
      --wifi SSID        only this Wi-Fi; may be given more than once
      --no-wifis         no Wi-Fi
      --nwmgr-cfg FILE   this NetworkManager keyfile, too; may be given more than once
      --no-keep-name     not the hostname
      --backup-cfg FILE  what to keep of this device's data, as YAML
      --tar-internal     no effect: the archive is always made by this program
      --change-dt-to SLUG  the device type that the new OS gets

CHECKS TO LEAVE OUT
      --no-os-check      of the operating system
      --no-dt-check      of the device type
      --no-nwmgr-check   that a network is carried over, and none is lost

LOGS AND FAILURES
  -l, --log-to DEV       keep stage 2's log on this vfat, ext3 or ext4 partition of another disk
      --log-file FILE    stage 1's log, in this file, too
      --fallback-log     keep stage 2's log on the new data partition
      --fallback-log-filename NAME, --fallback-log-dir DIR
                         there; default fallback.log in fallback_log
      --log-level LEVEL  error, warn, info (default), debug, trace
      --s2-log-level LEVEL  the same for stage 2; default: as --log-level
      --no-cleanup       after a failure leave mounts and files as they are, to look at them
      --on-failure WHAT  when flashing has failed for good: retry (default), halt or reboot
      --hand-over-timeout SEC  how long PID 1 may take to be replaced; default 60
      --in-namespace     take over the PID namespace this runs in: a container with an init of its own

ACCEPTED, WITHOUT EFFECT YET
  -v, --version; -d, --download-only; --check-timeout; --no-api-check; --no-vpn-check; --no-efi-setup;
  --report-hup-progress

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

/// An option that is there or is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Flag {
    /// `--no-ack`.
    NoAck,
    /// `--dry-run`.
    DryRun,
    /// `--pretend`.
    Pretend,
    /// `--json`.
    Json,
    /// `--no-cleanup`.
    NoCleanup,
    /// `--in-namespace`.
    InNamespace,
    /// `--no-os-check`.
    NoOsCheck,
    /// `--no-dt-check`.
    NoDeviceCheck,
    /// `--no-nwmgr-check`.
    NoNetworkCheck,
    /// `--no-wifis`.
    NoWifis,
    /// `--no-keep-name`.
    NoKeepName,
    /// `--fallback-log`.
    FallbackLog,
    /// `--tar-internal`.
    TarInternal,
    /// `--no-api-check`.
    NoApiCheck,
    /// `--no-vpn-check`.
    NoVpnCheck,
    /// `--no-efi-setup`.
    NoEfiSetup,
    /// `--report-hup-progress`.
    ReportProgress,
    /// `--download-only`.
    DownloadOnly,
}

const FLAGS: [(&str, Flag); 18] = [
    ("no-ack", Flag::NoAck),
    ("dry-run", Flag::DryRun),
    ("pretend", Flag::Pretend),
    ("json", Flag::Json),
    ("no-cleanup", Flag::NoCleanup),
    ("in-namespace", Flag::InNamespace),
    ("no-os-check", Flag::NoOsCheck),
    ("no-dt-check", Flag::NoDeviceCheck),
    ("no-nwmgr-check", Flag::NoNetworkCheck),
    ("no-wifis", Flag::NoWifis),
    ("no-keep-name", Flag::NoKeepName),
    ("fallback-log", Flag::FallbackLog),
    ("tar-internal", Flag::TarInternal),
    ("no-api-check", Flag::NoApiCheck),
    ("no-vpn-check", Flag::NoVpnCheck),
    ("no-efi-setup", Flag::NoEfiSetup),
    ("report-hup-progress", Flag::ReportProgress),
    ("download-only", Flag::DownloadOnly),
];

/// A parsed command line.
#[derive(Debug)]
pub struct Options {
    /// What is to be done.
    pub command: Command,
    /// One bit for each [`Flag`].
    flags: u32,
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
    /// `--log-file`.
    pub log_file: Option<String>,
    /// `--fallback-log-dir`.
    pub fallback_log_dir: String,
    /// `--fallback-log-filename`.
    pub fallback_log_name: String,
    /// `--wifi`, each time it was given.
    pub wifis: Vec<String>,
    /// `--nwmgr-cfg`, each time it was given.
    pub keyfiles: Vec<String>,
    /// `--backup-cfg`.
    pub backup: Option<String>,
    /// `--change-dt-to`.
    pub device_type: Option<String>,
    /// `--version`.
    pub version: Option<String>,
    /// `--check-timeout` was given.
    pub check_timeout: Option<u64>,
    /// `--hand-over-timeout`, in seconds.
    pub hand_over_timeout: u64,
    /// `--on-failure`.
    pub on_failure: OnFailure,
    /// `--log-level`.
    pub log_level: Level,
    /// `--s2-log-level`.
    pub stage2_log_level: Level,
}

impl Options {
    /// True when the flag was given.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u8 != 0
    }

    fn set(&mut self, flag: Flag) {
        self.flags |= 1 << flag as u8;
    }
}

/// Reads a command line, without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, Error> {
    let mut options = Options {
        command: Command::Takeover,
        flags: 0,
        config: None,
        image: None,
        flash_to: None,
        work_dir: String::from("."),
        log_to: None,
        log_file: None,
        fallback_log_dir: String::from("fallback_log"),
        fallback_log_name: String::from("fallback.log"),
        wifis: Vec::new(),
        keyfiles: Vec::new(),
        backup: None,
        device_type: None,
        version: None,
        check_timeout: None,
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
            Long(name) if let Some(flag) = flag_named(name) => options.set(flag),
            Short('d') => options.set(Flag::DownloadOnly),
            Long("help") | Short('h') => options.command = Command::Help,
            Long("tool-version") => options.command = Command::Version,
            Long("s2-log-level") => stage2_level = Some(level(&mut parser, "s2-log-level")?),
            Value(value) if first && value == "scan" => options.command = Command::Scan,
            Value(value) if first && value == "flash" => options.command = Command::Flash,
            Value(value) if options.command == Command::Scan && options.image.is_none() => {
                options.image = Some(utf8(value, "the image")?);
            }
            Value(_) => return Err(wrong(&arg.unexpected())),
            Short(letter) => {
                let name = long_name(letter).ok_or_else(|| wrong(&Short(letter).unexpected()))?;
                with_value(&mut options, name, &mut parser)?;
            }
            Long(name) => {
                let name = VALUED.into_iter().find(|valued| *valued == name);
                let name = name.ok_or_else(|| wrong(&arg.unexpected()))?;
                with_value(&mut options, name, &mut parser)?;
            }
        }
        first = false;
    }
    options.stage2_log_level = stage2_level.unwrap_or(options.log_level);
    check(&options)?;
    Ok(options)
}

fn flag_named(name: &str) -> Option<Flag> {
    FLAGS.iter().find(|(known, _)| *known == name).map(|(_, flag)| *flag)
}

fn long_name(letter: char) -> Option<&'static str> {
    Some(match letter {
        'c' => "config",
        'i' => "image",
        'f' => "flash-to",
        'w' => "work-dir",
        'l' => "log-to",
        'v' => "version",
        _ => return None,
    })
}

/// The options that take a value.
const VALUED: [&str; 17] = [
    "config",
    "image",
    "flash-to",
    "work-dir",
    "log-to",
    "log-file",
    "fallback-log-dir",
    "fallback-log-filename",
    "wifi",
    "nwmgr-cfg",
    "backup-cfg",
    "change-dt-to",
    "version",
    "check-timeout",
    "hand-over-timeout",
    "on-failure",
    "log-level",
];

/// Reads the value of an option and keeps it.
fn with_value(
    options: &mut Options,
    name: &'static str,
    parser: &mut lexopt::Parser,
) -> Result<(), Error> {
    let place = match name {
        "check-timeout" => {
            options.check_timeout = Some(seconds(parser, name)?);
            return Ok(());
        }
        "hand-over-timeout" => {
            options.hand_over_timeout = seconds(parser, name)?;
            return Ok(());
        }
        "on-failure" => {
            options.on_failure = on_failure(parser)?;
            return Ok(());
        }
        "log-level" => {
            options.log_level = level(parser, name)?;
            return Ok(());
        }
        "wifi" => {
            options.wifis.push(text(parser, name)?);
            return Ok(());
        }
        "nwmgr-cfg" => {
            options.keyfiles.push(text(parser, name)?);
            return Ok(());
        }
        "work-dir" => &mut options.work_dir,
        "fallback-log-dir" => &mut options.fallback_log_dir,
        "fallback-log-filename" => &mut options.fallback_log_name,
        "config" => options.config.get_or_insert_default(),
        "image" => options.image.get_or_insert_default(),
        "flash-to" => options.flash_to.get_or_insert_default(),
        "log-to" => options.log_to.get_or_insert_default(),
        "log-file" => options.log_file.get_or_insert_default(),
        "backup-cfg" => options.backup.get_or_insert_default(),
        "change-dt-to" => options.device_type.get_or_insert_default(),
        _ => options.version.get_or_insert_default(),
    };
    *place = text(parser, name)?;
    Ok(())
}

/// What belongs together, and what excludes each other.
fn check(options: &Options) -> Result<(), Error> {
    let missing =
        |what| Error::usage("reading the command line", "", what).advice("see takeover --help");
    match options.command {
        Command::Help | Command::Version => return Ok(()),
        _ if options.version.is_some() || options.has(Flag::DownloadOnly) => {
            return Err(missing(
                "this version does not download images yet: give one with -i FILE",
            ));
        }
        _ if options.image.is_none() => return Err(missing("no image was given (-i FILE)")),
        Command::Flash if options.flash_to.is_none() => {
            return Err(missing("no disk was given (-f DEV)"));
        }
        _ => {}
    }
    if options.has(Flag::DryRun) && options.has(Flag::Pretend) {
        return Err(missing("--dry-run and --pretend exclude each other"));
    }
    if options.has(Flag::NoWifis) && !options.wifis.is_empty() {
        return Err(missing("--wifi and --no-wifis exclude each other"));
    }
    for part in [&options.fallback_log_dir, &options.fallback_log_name] {
        let is_odd =
            part.starts_with('/') || part.split('/').any(|name| name.is_empty() || name == "..");
        if is_odd || part.len() > 40 {
            return Err(missing(
                "the place of the fallback log is no relative path of 40 bytes at most",
            ));
        }
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

fn seconds(parser: &mut lexopt::Parser, option: &'static str) -> Result<u64, Error> {
    let value = crate::text::decimal(&text(parser, option)?);
    value.filter(|seconds| (1..=3600).contains(seconds)).ok_or_else(|| {
        Error::usage("reading the command line", option, "it is not a number from 1 to 3600")
    })
}

fn on_failure(parser: &mut lexopt::Parser) -> Result<OnFailure, Error> {
    match text(parser, "on-failure")?.as_str() {
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
        for flag in [Flag::NoAck, Flag::Pretend, Flag::NoCleanup] {
            assert!(options.has(flag));
        }
        assert!(!options.has(Flag::DryRun));
        assert_eq!((options.config.as_deref(), &*options.work_dir), (Some("c.json"), "/tmp"));
        assert_eq!(read("-i a -l /dev/sdb1").unwrap().log_to.as_deref(), Some("/dev/sdb1"));
        assert_eq!(options.stage2_log_level, Level::Debug);
        let options = read("--image a --s2-log-level trace").unwrap();
        assert_eq!((options.log_level, options.stage2_log_level), (Level::Info, Level::Trace));
    }

    #[test]
    fn every_flag_sets_its_own_bit_and_stands_in_the_help() {
        for (name, flag) in FLAGS {
            let options = read(&format!("-i a --{name}"));
            // Alone in needing what this version cannot do.
            if flag != Flag::DownloadOnly {
                assert_eq!(options.unwrap().flags, 1 << flag as u8, "{name}");
            }
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
    }

    #[test]
    fn every_value_is_kept_in_its_own_place() {
        for name in VALUED {
            let value = match name {
                "check-timeout" | "hand-over-timeout" => "77",
                "on-failure" => "halt",
                "log-level" => "trace",
                _ => "77",
            };
            let line = if name == "image" { String::new() } else { String::from("-i a ") };
            let result = read(&format!("{line}--{name} {value}"));
            if name == "version" {
                assert!(result.is_err(), "images are not downloaded yet");
                continue;
            }
            let shown = format!("{:?}", result.unwrap()).to_lowercase();
            assert!(shown.contains(value), "{name}: {shown}");
            assert!(HELP.contains(&format!("--{name}")), "{name}");
        }
        let options = read("-i a --wifi one --wifi=two --nwmgr-cfg x --nwmgr-cfg y").unwrap();
        assert_eq!((options.wifis.len(), options.keyfiles.len()), (2, 2));
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
        assert!(usage("-i a --wifi x --no-wifis").contains("exclude"));
        assert!(usage("-v default").contains("does not download"));
        assert!(usage("-d").contains("does not download"));
        assert!(usage("-i a --fallback-log-dir ../x").contains("relative path"));
        assert!(usage("-i a -x").contains("-x"));
        assert!(usage("-i a --no-ack=1").contains("takes no value"));
        assert!(usage("-i a --on-failure pray").contains("retry, halt and reboot"));
    }
}
