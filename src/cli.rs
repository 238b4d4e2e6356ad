//! The command line: lexopt to [`Options`], the help text. Touches nothing of the system.

use crate::error::Error;
use crate::log::Level;
use crate::plan::OnFailure;
use crate::text::{Text, Writer, printable};
use core::net::SocketAddr;
use lexopt::prelude::*;
use std::ffi::OsString;

/// The help text, in 80 columns.
pub const HELP: &str = "\
takeover: replaces the OS of this device with a disk image, in place

USAGE
  takeover -c CONFIG [-i IMAGE] [OPTIONS]   take this device over
  takeover flash -i IMAGE -f DEV [OPTIONS]  flash a disk that is not in use
  takeover scan IMAGE                       say what an image is
  takeover networks [--root DIR]            say which networks are carried over
  takeover log DEV                          print what a failure left on a disk
  takeover help                             print this
  takeover version                          say which build this is

Look first, nothing is changed:  takeover -c config.json --dry-run

WHAT AND WHERE
  -i, --image FILE       a file or a URL: raw, gzip or a zip archive with one
                         file; without it a takeover downloads the balenaOS
                         that config.json is for
  -v, --version VER      which one: default, ~x.y, ^x.y.z, or exactly this
      --sha256 HEX       what the image file must be
  -d, --download-only    fetch the image and look at it: no root needed
  -c, --config FILE      config.json for a balenaOS, may be gzip; default: the
                         one in this program, else /mnt/boot/config.json
      --ca-cert FILE     believe these certificate authorities (PEM), too
  -f, --flash-to DEV     the disk to write; default: the disk under /
  -w, --work-dir DIR     where downloads go; default: the current directory
      --stage ram|disk   where the packed image waits, in memory or on disk;
                         default: in memory where there is ample
      --no-efi-setup     leave the boot entries of the firmware as they are
      --no-ack           do not ask before going on
      --dry-run          check everything, print the plan, change nothing
      --pretend          all but the writing, then restart the old OS
      --json             the plan, what scan or networks find, or how flash
                         has ended, as JSON on standard output

WHAT IS CARRIED OVER
      --wifi SSID        only this Wi-Fi; may be given more than once
      --no-wifis         no Wi-Fi
      --nwmgr-cfg FILE   this NetworkManager keyfile, too; likewise
      --root DIR         (networks) of the system that is mounted there
      --output DIR       (networks) write the keyfiles there
      --no-keep-name     not the hostname
      --backup-cfg FILE  what to keep of this device's data, as YAML
      --tar-internal     no effect: the archive is always made here
      --change-dt-to SLUG
                         the device type that the new OS gets

CHECKS TO LEAVE OUT
      --no-api-check     that the API answers
      --no-vpn-check     that the VPN can be reached
      --check-timeout SEC
                         how long each of these two may take; default 10
      --no-os-check      of the operating system
      --no-dt-check      of the device type
      --no-nwmgr-check   that a network is carried over, and none is lost

LOGS AND FAILURES
  -l, --log-to DEV       keep the log of the second half on this vfat, ext3 or
                         ext4 partition of another disk
      --log-udp IP:PORT  send it there, a datagram a line; best effort
      --log-file FILE    the log up to the hand-over, in this file, too
      --fallback-log     keep the whole log on the new data partition
      --fallback-log-filename NAME, --fallback-log-dir DIR
                         there; default fallback.log in fallback_log
      --log-level LEVEL  error, warn, info (default), debug, trace
      --s2-log-level LEVEL
                         the same for the second half
      --no-cleanup       after a failure leave what was mounted, to look at it
      --on-failure WHAT  when flashing has failed for good: retry (default),
                         halt or reboot
      --watchdog SEC     start a watchdog with this time (10 to 3600) if none
                         runs; one that runs is taken over anyway
      --hand-over-timeout SEC
                         how long PID 1 may take to be replaced; default 60
      --report-hup-progress
                         tell the API how it ended
      --in-namespace     take over a container that has an init of its own

  -h, --help             this text
      --tool-version     the version of this program

EXIT CODES
  0  done, or handed over: the rest is on the console
  1  failed; what was changed is undone, or named in the log
  2  wrong usage
  3  refused by a check, as of a disk in use (flash); nothing was changed
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
    /// Say which networks would be carried over.
    Networks,
    /// Print the record of a flash that failed.
    Log,
    /// Print the help text.
    Help,
    /// Print the version.
    Version,
}

/// The commands by their names; without one it is a takeover.
const COMMANDS: [(&str, Command); 6] = [
    ("flash", Command::Flash),
    ("scan", Command::Scan),
    ("networks", Command::Networks),
    ("log", Command::Log),
    ("help", Command::Help),
    ("version", Command::Version),
];

/// What people type to get a command: `takeover` and the name.
fn typed(command: Command) -> (&'static str, &'static str) {
    let named = COMMANDS.iter().find(|(_, known)| *known == command);
    named.map_or(("takeover", ""), |(name, _)| ("takeover ", name))
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

/// Where the packed image waits until it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Staging {
    /// In memory.
    Ram,
    /// On the disk that it is on.
    Disk,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Options {
    /// What is to be done.
    pub command: Command,
    /// One bit for each [`Flag`].
    flags: u32,
    /// One bit for each of [`OPTIONS`] that was given.
    given: u64,
    /// `--config`.
    pub config: Option<String>,
    /// `--image`, or the operand of `scan`.
    pub image: Option<String>,
    /// `--flash-to`, or the operand of `log`.
    pub flash_to: Option<String>,
    /// `--work-dir`.
    pub work_dir: String,
    /// `--log-to`.
    pub log_to: Option<String>,
    /// `--log-udp`.
    pub log_udp: Option<String>,
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
    /// `--root`.
    pub root: Option<String>,
    /// `--output`.
    pub output: Option<String>,
    /// `--backup-cfg`.
    pub backup: Option<String>,
    /// `--change-dt-to`.
    pub device_type: Option<String>,
    /// `--version`.
    pub version: Option<String>,
    /// `--sha256`.
    pub sha256: Option<String>,
    /// `--ca-cert`.
    pub ca_cert: Option<String>,
    /// `--check-timeout`, in seconds.
    pub check_timeout: u64,
    /// `--hand-over-timeout`, in seconds.
    pub hand_over_timeout: u64,
    /// `--watchdog`, in seconds; 0 without it.
    pub watchdog: u32,
    /// `--on-failure`.
    pub on_failure: OnFailure,
    /// `--stage`; chosen by memory without it.
    pub staging: Option<Staging>,
    /// `--log-level`.
    pub log_level: Level,
    /// `--s2-log-level`; that of stage 1 without it.
    pub stage2_log_level: Option<Level>,
}

impl Options {
    fn new() -> Self {
        Self {
            command: Command::Takeover,
            flags: 0,
            given: 0,
            config: None,
            image: None,
            flash_to: None,
            work_dir: String::from("."),
            log_to: None,
            log_udp: None,
            log_file: None,
            fallback_log_dir: String::from("fallback_log"),
            fallback_log_name: String::from("fallback.log"),
            wifis: Vec::new(),
            keyfiles: Vec::new(),
            root: None,
            output: None,
            backup: None,
            device_type: None,
            version: None,
            sha256: None,
            ca_cert: None,
            check_timeout: 10,
            hand_over_timeout: 60,
            watchdog: 0,
            on_failure: OnFailure::Retry,
            staging: None,
            log_level: Level::Info,
            stage2_log_level: None,
        }
    }

    /// True when the flag was given.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags & 1 << flag as u8 != 0
    }

    fn set(&mut self, flag: Flag) {
        self.flags |= 1 << flag as u8;
    }
}

/// What an option does.
enum Effect {
    /// Sets the flag.
    Set(Flag),
    /// Asks for this instead of a takeover.
    Ask(Command),
    /// Keeps its value in this place, as it is.
    Keep(fn(&mut Options) -> &mut String),
    /// Reads its value; where it gives None, the text says why.
    Read(fn(&mut Options, &str) -> Option<()>, &'static str),
}

use Effect::{Ask, Keep, Read, Set};

const LEVELS: &str = "it is none of error, warn, info, debug and trace";
const SECONDS: &str = "it is not a number from 1 to 3600";
const SHA256: &str = "it is not 64 hexadecimal digits";
const RECEIVER: &str = if CAN_DOWNLOAD {
    "it is not an IP address with a port, as 192.0.2.1:514 or [2001:db8::1]:514"
} else {
    "this build has no network: those with the feature http do"
};
const WATCHDOG: &str = "it is not a number from 10 to 3600";
const PLACES: &str = "it is neither ram nor disk";
const WAYS: &str = "it is none of retry, halt and reboot";

/// The commands that an option has an effect on, a bit each.
const T: u8 = 1 << Command::Takeover as u8;
const F: u8 = 1 << Command::Flash as u8;
const S: u8 = 1 << Command::Scan as u8;
const N: u8 = 1 << Command::Networks as u8;
const ALL: u8 = !0;

/// Every option: its name, its letter, what it is for, and what it does. The parser goes by this list alone, and a test
/// holds [`HELP`] and README.md against it.
static OPTIONS: [(&str, Option<char>, u8, Effect); 45] = [
    ("config", Some('c'), T | F | S, Keep(|options| options.config.get_or_insert_default())),
    ("image", Some('i'), T | F | S, Keep(|options| options.image.get_or_insert_default())),
    ("flash-to", Some('f'), T | F, Keep(|options| options.flash_to.get_or_insert_default())),
    ("work-dir", Some('w'), T, Keep(|options| &mut options.work_dir)),
    ("log-to", Some('l'), T, Keep(|options| options.log_to.get_or_insert_default())),
    ("log-udp", None, T, Read(log_udp, RECEIVER)),
    ("log-file", None, ALL, Keep(|options| options.log_file.get_or_insert_default())),
    ("fallback-log", None, T, Set(Flag::FallbackLog)),
    ("fallback-log-dir", None, T, Keep(|options| &mut options.fallback_log_dir)),
    ("fallback-log-filename", None, T, Keep(|options| &mut options.fallback_log_name)),
    ("wifi", None, T | N, Keep(|options| options.wifis.push_mut(String::new()))),
    ("no-wifis", None, T | N, Set(Flag::NoWifis)),
    ("nwmgr-cfg", None, T | F | N, Keep(|options| options.keyfiles.push_mut(String::new()))),
    ("root", None, N, Keep(|options| options.root.get_or_insert_default())),
    ("output", None, N, Keep(|options| options.output.get_or_insert_default())),
    ("no-keep-name", None, T, Set(Flag::NoKeepName)),
    ("backup-cfg", None, T, Keep(|options| options.backup.get_or_insert_default())),
    ("tar-internal", None, T, Set(Flag::TarInternal)),
    ("change-dt-to", None, T | F, Keep(|options| options.device_type.get_or_insert_default())),
    ("no-ack", None, T | F, Set(Flag::NoAck)),
    ("dry-run", None, T | F, Set(Flag::DryRun)),
    ("pretend", None, T | F, Set(Flag::Pretend)),
    ("json", None, T | F | S | N, Set(Flag::Json)),
    ("no-cleanup", None, T, Set(Flag::NoCleanup)),
    ("in-namespace", None, T, Set(Flag::InNamespace)),
    ("no-os-check", None, T, Set(Flag::NoOsCheck)),
    ("no-dt-check", None, T | F, Set(Flag::NoDeviceCheck)),
    ("no-nwmgr-check", None, T | F | N, Set(Flag::NoNetworkCheck)),
    ("no-api-check", None, T, Set(Flag::NoApiCheck)),
    ("no-vpn-check", None, T, Set(Flag::NoVpnCheck)),
    ("no-efi-setup", None, T, Set(Flag::NoEfiSetup)),
    ("report-hup-progress", None, T, Set(Flag::ReportProgress)),
    ("version", Some('v'), T, Keep(|options| options.version.get_or_insert_default())),
    ("download-only", Some('d'), T, Set(Flag::DownloadOnly)),
    ("sha256", None, T | F | S, Read(sha256, SHA256)),
    ("ca-cert", None, T | F | S, Keep(|options| options.ca_cert.get_or_insert_default())),
    ("check-timeout", None, T, Read(check_timeout, SECONDS)),
    ("hand-over-timeout", None, T, Read(hand_over_timeout, SECONDS)),
    ("watchdog", None, T, Read(watchdog, WATCHDOG)),
    ("on-failure", None, T, Read(on_failure, WAYS)),
    ("stage", None, T, Read(staging, PLACES)),
    ("log-level", None, ALL, Read(log_level, LEVELS)),
    ("s2-log-level", None, T | F, Read(stage2_log_level, LEVELS)),
    ("help", Some('h'), ALL, Ask(Command::Help)),
    ("tool-version", None, ALL, Ask(Command::Version)),
];

/// Reads a command line, without the program's name.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Options, Error> {
    let mut options = Options::new();
    let mut first = true;
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next().map_err(|error| explain(&error))? {
        match arg {
            Value(value) => operand(&mut options, value, first)?,
            Short(_) | Long(_) => {
                let is_given = |name: &str, letter| match arg {
                    Long(given) => given == name,
                    Short(given) => Some(given) == letter,
                    Value(_) => false,
                };
                let index = OPTIONS.iter().position(|(name, letter, ..)| is_given(name, *letter));
                let option = index.and_then(|index| OPTIONS.get(index));
                let (name, _, _, effect) = option.ok_or_else(|| explain(&arg.unexpected()))?;
                options.given |= 1 << index.unwrap_or_default();
                apply(&mut options, name, effect, &mut parser)?;
            }
        }
        first = false;
    }
    check(&options)?;
    Ok(options)
}

/// Takes an argument that is no option: the command, the image of `scan`, or the disk of `log`.
fn operand(options: &mut Options, value: OsString, first: bool) -> Result<(), Error> {
    let known = COMMANDS.iter().find(|(name, _)| value == *name);
    let shown: Text<60> = printable(value.to_str().unwrap_or("?").as_bytes());
    let why: Text<240> = match (known, options.command) {
        (Some((_, command)), _) if first => {
            options.command = *command;
            return Ok(());
        }
        // Asked about a command: one text has them all.
        (_, Command::Help | Command::Version) => return Ok(()),
        (_, Command::Scan) if options.image.is_none() => {
            options.image = Some(utf8(value, "the image")?);
            return Ok(());
        }
        (_, Command::Log) if options.flash_to.is_none() => {
            options.flash_to = Some(utf8(value, "the disk")?);
            return Ok(());
        }
        (Some((name, _)), Command::Takeover) => {
            crate::text!("the command comes first, then its options: takeover {} ...", *name)
        }
        (None, Command::Takeover) => crate::text!(
            "there is no command '{}'; type takeover -i IMAGE for an image, -f DEV for a disk",
            shown
        ),
        (_, Command::Flash) => {
            crate::text!("what is '{}'? type takeover flash -i IMAGE -f DEV", shown)
        }
        _ => crate::text!("'{}' is one argument too many", shown),
    };
    Err(wrong(&why))
}

/// Does what an option does; its value, if it takes one, comes next.
fn apply(
    options: &mut Options,
    name: &str,
    effect: &Effect,
    parser: &mut lexopt::Parser,
) -> Result<(), Error> {
    let name: Text<40> = crate::text!("--{}", name);
    let mut value = || utf8(value_of(&name, parser)?, &name);
    match effect {
        Set(flag) => options.set(*flag),
        Ask(command) => options.command = *command,
        Keep(place) => *place(options) = value()?,
        Read(read, why) => {
            read(options, &value()?).ok_or_else(|| Error::usage(&name, why).advice(SEE_HELP))?;
        }
    }
    Ok(())
}

/// The value of an option. What looks like another option is one: `--log-file --dry-run` must be no takeover.
fn value_of(name: &str, parser: &mut lexopt::Parser) -> Result<OsString, Error> {
    if let Some(joined) = parser.optional_value() {
        return Ok(joined);
    }
    let value = parser.value().map_err(|error| explain(&error))?;
    let bytes = value.as_encoded_bytes();
    if bytes.len() > 1 && bytes.starts_with(b"-") {
        let shown: Text<60> = printable(bytes);
        let why: Text<200> =
            crate::text!("the value is missing: {} is an option (else {}={})", shown, name, shown);
        return Err(Error::usage(name, &why).advice(SEE_HELP));
    }
    Ok(value)
}

fn check_timeout(options: &mut Options, value: &str) -> Option<()> {
    options.check_timeout = seconds(value)?;
    Some(())
}

/// Kept in lower case, as digests are printed.
fn sha256(options: &mut Options, value: &str) -> Option<()> {
    let is_digest = value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
    options.sha256 = is_digest.then(|| value.to_ascii_lowercase());
    options.sha256.as_ref().map(drop)
}

fn hand_over_timeout(options: &mut Options, value: &str) -> Option<()> {
    options.hand_over_timeout = seconds(value)?;
    Some(())
}

fn seconds(value: &str) -> Option<u64> {
    crate::text::decimal(value).filter(|seconds| (1..=3600).contains(seconds))
}

/// Fed once a second, a watchdog with less than ten would bite when the machine is busy.
fn watchdog(options: &mut Options, value: &str) -> Option<()> {
    options.watchdog = seconds(value).filter(|seconds| *seconds >= 10)? as u32;
    Some(())
}

fn log_udp(options: &mut Options, value: &str) -> Option<()> {
    let receiver: SocketAddr = if CAN_DOWNLOAD { value.parse().ok()? } else { return None };
    options.log_udp = (receiver.port() != 0).then(|| String::from(value));
    options.log_udp.as_ref().map(drop)
}

fn on_failure(options: &mut Options, value: &str) -> Option<()> {
    options.on_failure = match value {
        "retry" => OnFailure::Retry,
        "halt" => OnFailure::Halt,
        "reboot" => OnFailure::Reboot,
        _ => return None,
    };
    Some(())
}

fn staging(options: &mut Options, value: &str) -> Option<()> {
    options.staging = Some(match value {
        "ram" => Staging::Ram,
        "disk" => Staging::Disk,
        _ => return None,
    });
    Some(())
}

fn log_level(options: &mut Options, value: &str) -> Option<()> {
    options.log_level = Level::from_name(value)?;
    Some(())
}

fn stage2_log_level(options: &mut Options, value: &str) -> Option<()> {
    options.stage2_log_level = Some(Level::from_name(value)?);
    Some(())
}

/// True when this build knows HTTP.
const CAN_DOWNLOAD: bool = cfg!(feature = "http");

/// What belongs together, and what excludes each other.
fn check(options: &Options) -> Result<(), Error> {
    if matches!(options.command, Command::Help | Command::Version) {
        return Ok(());
    }
    check_effects(options)?;
    let image = options.image.as_deref();
    let is_looked_for =
        matches!(options.command, Command::Flash | Command::Scan | Command::Takeover);
    let scheme = image.and_then(|image| image.split_once("://")).map(|(scheme, _)| scheme);
    let why = match options.command {
        Command::Log if options.flash_to.is_none() => "no disk was given: takeover log /dev/sda",
        Command::Scan if image.is_none() => "no image was given: takeover scan FILE, or a URL",
        Command::Flash if image.is_none() => "no image was given: takeover flash -i IMAGE -f DEV",
        Command::Flash if options.flash_to.is_none() => {
            "no disk was given: takeover flash -i IMAGE -f DEV"
        }
        _ if image == Some("-") => {
            "an image cannot come from standard input, as it is read more than once: give a file, or a URL"
        }
        _ if scheme.is_some_and(|scheme| !scheme.to_ascii_lowercase().starts_with("http")) => {
            "of URLs only http:// and https:// are read: give the path of a file"
        }
        _ if image.is_none() && !CAN_DOWNLOAD && is_looked_for => {
            "no image was given (-i FILE): this build downloads nothing, those with the feature http do"
        }
        _ if image.is_some() && options.version.is_some() => {
            "--image and --version exclude each other"
        }
        _ if options.has(Flag::DryRun) && options.has(Flag::Pretend) => {
            "--dry-run and --pretend exclude each other"
        }
        _ if options.has(Flag::DryRun) && options.has(Flag::DownloadOnly) => {
            "--dry-run and --download-only exclude each other: a dry run stores nothing"
        }
        _ if options.has(Flag::NoWifis) && !options.wifis.is_empty() => {
            "--wifi and --no-wifis exclude each other"
        }
        _ if is_odd(&options.fallback_log_dir) || is_odd(&options.fallback_log_name) => {
            "the place of the fallback log is no relative path of 40 bytes at most"
        }
        _ => return Ok(()),
    };
    Err(wrong(why))
}

/// Every option that was given has an effect on the command.
fn check_effects(options: &Options) -> Result<(), Error> {
    let has_none = |commands: u8| commands >> options.command as u8 & 1 == 0;
    let mut all = OPTIONS.iter().enumerate();
    let found = all.find(|(index, option)| options.given >> index & 1 == 1 && has_none(option.2));
    let Some((_, (name, _, commands, _))) = found else {
        return Ok(());
    };
    let why: Text<200> = Text::build(&mut |writer: &mut Writer| {
        let (takeover, command) = typed(options.command);
        ufmt::uwrite!(writer, "{}{} does not take it; its commands: ", takeover, command)?;
        let takers = [Command::Takeover, Command::Flash, Command::Scan, Command::Networks];
        let mut comma = "";
        for taker in takers.into_iter().filter(|taker| commands >> *taker as u8 & 1 == 1) {
            let (takeover, name) = typed(taker);
            ufmt::uwrite!(writer, "{}{}{}", comma, takeover, name)?;
            comma = ", ";
        }
        Ok(())
    });
    let name: Text<40> = crate::text!("--{}", *name);
    Err(Error::usage(&name, &why))
}

/// True for a path that might lead out of the folder it is for, or does not fit into the plan.
fn is_odd(path: &str) -> bool {
    path.len() > 40 || path.split('/').any(|name| name.is_empty() || name == "..")
}

/// A value as text that the kernel takes as a path without a copy on the heap, which is sealed by then.
fn utf8(value: OsString, what: &str) -> Result<String, Error> {
    let text = value
        .into_string()
        .map_err(|_| Error::usage(what, "the value is not UTF-8").advice(SEE_HELP))?;
    match text.len() {
        // Of a variable that a script has not set: `--root ""` would be this system.
        0 => Err(Error::usage(what, "the value is empty").advice(SEE_HELP)),
        // A URL never gets to the kernel; signed ones are long.
        1..4096 if text.starts_with("http") && text.contains("://") => Ok(text),
        1..256 => Ok(text),
        _ => Err(Error::usage(what, "the value is longer than 255 bytes").advice(SEE_HELP)),
    }
}

const SEE_HELP: &str = "see takeover --help";

fn wrong(why: &str) -> Error {
    Error::usage("", why).advice(SEE_HELP)
}

const OWN_VERSION: &str = "for the version of this program type takeover version";

fn explain(error: &lexopt::Error) -> Error {
    use lexopt::Error as Problem;
    let why: Text<200> = match error {
        Problem::MissingValue { option: Some(option) }
            if matches!(option.as_str(), "-v" | "--version") =>
        {
            crate::text!("{} needs a value, which balenaOS; {}", option.as_str(), OWN_VERSION)
        }
        Problem::MissingValue { option: Some(option) } => {
            crate::text!("the option {} needs a value", option.as_str())
        }
        Problem::UnexpectedOption(option) if option == "-V" => {
            crate::text!("there is no option -V; {}", OWN_VERSION)
        }
        Problem::UnexpectedOption(option) => {
            crate::text!("there is no option {}", printable::<60>(option.as_bytes()))
        }
        Problem::UnexpectedValue { option, .. } => {
            crate::text!("the option {} takes no value", option.as_str())
        }
        _ => Text::from("it makes no sense"),
    };
    wrong(&why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn read(line: &str) -> Result<Options, Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn usage(line: &str) -> String {
        let error = read(line).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
        message(&error)
    }

    fn message(error: &Error) -> String {
        let text: Text<500> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn the_log_of_a_failure_is_asked_for_by_its_disk() {
        let options = read("log /dev/sda").unwrap();
        assert!(options.command == Command::Log && options.flash_to.as_deref() == Some("/dev/sda"));
        assert!(usage("log").contains("no disk was given"));
        assert!(usage("log /dev/sda /dev/sdb").contains("one argument too many"));
        assert!(usage("log /dev/sda -i a.img").contains("does not take it"));
        assert!(usage("log /dev/sda --json").contains("does not take it"));
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
        assert_eq!((options.log_level, options.stage2_log_level), (Level::Debug, None));
        assert_eq!((options.config.as_deref(), &*options.work_dir), (Some("c.json"), "/tmp"));
        assert_eq!(read("-i a -l /dev/sdb1").unwrap().log_to.as_deref(), Some("/dev/sdb1"));
        let options = read("--image a --s2-log-level trace").unwrap();
        assert_eq!(
            (options.log_level, options.stage2_log_level),
            (Level::Info, Some(Level::Trace))
        );
    }

    #[test]
    fn every_flag_sets_its_own_bit() {
        let mut seen = 0;
        for (name, _, _, effect) in &OPTIONS {
            let Set(flag) = effect else {
                continue;
            };
            let options = read(&format!("-i a --{name}"));
            assert_eq!(options.unwrap().flags, 1 << *flag as u8, "{name}");
            assert_eq!(seen & 1 << *flag as u8, 0, "{name}: the flag of another option");
            seen |= 1 << *flag as u8;
        }
    }

    #[test]
    fn every_value_is_kept_in_its_own_place() {
        for (name, _, _, effect) in &OPTIONS {
            let value = match (effect, *name) {
                (Set(_) | Ask(_), _) => continue,
                (_, "sha256") => &"7".repeat(64),
                (_, "log-udp") => "77.0.0.1:77",
                (_, "on-failure") => "halt",
                (_, "stage") => "disk",
                (_, "log-level" | "s2-log-level") => "trace",
                _ => "77",
            };
            let line = match *name {
                "image" | "version" => "",
                "root" | "output" => "networks ",
                _ => "-i a ",
            };
            let result = read(&format!("{line}--{name} {value}"));
            if matches!(*name, "version" | "log-udp") && !CAN_DOWNLOAD {
                continue;
            }
            let place = match *name {
                "change-dt-to" => "device_type",
                "nwmgr-cfg" => "keyfiles",
                "backup-cfg" => "backup",
                "stage" => "staging",
                "wifi" => "wifis",
                "s2-log-level" => "stage2_log_level",
                "fallback-log-filename" => "fallback_log_name",
                name => &name.replace('-', "_"),
            };
            let shown = format!("{:?}", result.unwrap()).to_lowercase();
            let (_, kept) = shown.split_once(&format!(" {place}: ")).unwrap();
            let kept = kept.split_once(", ").map_or(kept, |(kept, _)| kept);
            assert!(kept.contains(value), "{name}: {shown}");
        }
        let options = read("-i a --wifi one --wifi=two --nwmgr-cfg x --nwmgr-cfg y").unwrap();
        assert_eq!(options.wifis, ["one", "two"]);
        assert_eq!(options.keyfiles, ["x", "y"]);
        assert_eq!(read("-i a --check-timeout 5").unwrap().check_timeout, 5);
        let digest = "AB".repeat(32);
        let options = read(&format!("-i a --sha256 {digest}")).unwrap();
        assert_eq!(options.sha256, Some("ab".repeat(32)));
    }

    /// Every `--name` in a text.
    fn names(text: &str) -> BTreeSet<&str> {
        let is_of_name = |character: char| character.is_ascii_alphanumeric() || character == '-';
        let words = text.split(|character| !is_of_name(character));
        words.filter_map(|word| word.strip_prefix("--")).filter(|name| name.len() > 1).collect()
    }

    /// What the text of an option's letter and name is: `-c, --config`.
    fn letters(text: &str) -> BTreeSet<&str> {
        let at = text.match_indices(", --");
        at.filter_map(|(at, _)| {
            let start = at.checked_sub(2).filter(|start| text[*start..].starts_with('-'))?;
            let end = text[at + 4..].find([' ', '`', ';', '\n']).unwrap();
            Some(&text[start..at + 4 + end])
        })
        .collect()
    }

    #[test]
    fn the_help_and_the_readme_name_every_option_and_no_other() {
        let known: BTreeSet<&str> = OPTIONS.iter().map(|(name, ..)| *name).collect();
        assert_eq!(known.len(), OPTIONS.len(), "a name occurs twice");
        let with_letter = |(name, letter, ..): &(&str, Option<char>, u8, _)| {
            letter.map(|letter| format!("-{letter}, --{name}"))
        };
        let with_letter: Vec<String> = OPTIONS.iter().filter_map(with_letter).collect();
        let with_letter: BTreeSet<&str> = with_letter.iter().map(String::as_str).collect();
        let readme = include_str!("../README.md");
        let (_, options) = readme.split_once("\n## Options\n").unwrap();
        let (options, _) = options.split_once("\n## ").unwrap();
        // The first column: the second may name other options.
        let table: Vec<&str> = options
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(" |").map(|(first, _)| first))
            .collect();
        for text in [HELP, &table.join("\n")] {
            assert_eq!(names(text), known);
            assert_eq!(letters(text), with_letter);
        }
    }

    #[test]
    fn every_option_of_the_help_is_understood() {
        for name in names(HELP) {
            for line in [format!("--{name}"), format!("--{name} 1")] {
                let why = read(&line).map_or_else(|error| message(&error), |_| String::new());
                assert!(!why.contains("there is no option"), "{why}");
            }
        }
    }

    #[test]
    fn a_letter_stands_for_its_name() {
        let parsed = |option: &str, effect| {
            let value = if matches!(effect, &Keep(_)) { "b" } else { "" };
            match read(&format!("{option} {value}")) {
                Ok(options) => format!("{options:?}"),
                Err(error) => message(&error),
            }
        };
        for (name, letter, _, effect) in &OPTIONS {
            if let Some(letter) = letter {
                let short = parsed(&format!("-{letter}"), effect);
                assert_eq!(short, parsed(&format!("--{name}"), effect));
            }
        }
    }

    #[test]
    fn a_receiver_of_the_log_is_an_address_with_a_port() {
        for (value, is_one) in [
            ("192.0.2.1:514", true),
            ("[2001:db8::1]:514", true),
            ("[fe80::1%2]:514", true),
            ("192.0.2.1", false),
            ("192.0.2.1:0", false),
            ("192.0.2.1:65536", false),
            ("2001:db8::1:514", false),
            ("log.example.com:514", false),
            ("udp://192.0.2.1:514", false),
        ] {
            let line = format!("-i a --log-udp {value}");
            if is_one && CAN_DOWNLOAD {
                assert_eq!(read(&line).unwrap().log_udp.as_deref(), Some(value));
                continue;
            }
            let why = if CAN_DOWNLOAD { "not an IP address with a port" } else { "no network" };
            assert!(usage(&line).contains(why), "{value}");
        }
    }

    #[test]
    fn commands() {
        assert_eq!(read("scan a.img").unwrap().command, Command::Scan);
        assert_eq!(read("flash -i a -f b").unwrap().command, Command::Flash);
        assert_eq!(read("--help").unwrap().command, Command::Help);
        assert_eq!(read("--tool-version").unwrap().command, Command::Version);
    }

    #[test]
    fn the_help_has_80_columns() {
        for line in HELP.lines() {
            assert!(line.len() <= 80, "{line}");
        }
    }

    #[test]
    fn an_option_is_no_value_of_the_one_before() {
        for line in ["-i a --log-file --dry-run", "-i --dry-run", "-c -d", "-i a --wifi --no-ack"] {
            assert!(usage(line).contains("the value is missing"), "{line}");
        }
        assert_eq!(read("-i a --wifi=-x").unwrap().wifis, ["-x"]);
        assert_eq!(read("-i a -c-").unwrap().config.as_deref(), Some("-"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert!(usage("-i a --nonsense").contains("--nonsense"));
        assert!(usage("-i").contains("-i needs a value"));
        assert!(usage("-i a b").contains("'b'"));
        assert_eq!(read("").is_ok(), CAN_DOWNLOAD);
        assert!(usage("flash -f a").contains("no image"));
        assert!(usage("scan").contains("no image"));
        assert!(usage("flash -i a -f b -v 5").contains("does not take it; its commands: takeover"));
        assert!(usage("-i a -v default").contains("exclude"));
        assert!(usage("-i a --sha256 12").contains("64 hexadecimal"));
        assert!(usage("flash -i a").contains("no disk"));
        for option in ["--wifi x", "--backup-cfg x", "--log-to x", "--fallback-log"] {
            let why = usage(&format!("flash -i a -f b {option}"));
            assert!(why.contains("takeover flash does not take it"), "{option}");
        }
        read("flash -i a -f b --nwmgr-cfg x --pretend").unwrap();
        assert!(usage("-i a --log-level loud").contains("--log-level: it is none of error, warn"));
        assert!(usage("-i a --dry-run --pretend").contains("exclude"));
        assert!(usage(&format!("-i {}", "x".repeat(256))).contains("longer than 255"));
        read(&format!("-i https://{}", "x".repeat(2000))).unwrap();
        assert!(usage(&format!("-i https://{}", "x".repeat(4096))).contains("longer than 255"));
        assert!(usage("-i a --hand-over-timeout 0").contains("1 to 3600"));
        assert!(usage("-i a --check-timeout 3601").contains("1 to 3600"));
        assert!(usage("-i a --wifi x --no-wifis").contains("exclude"));
        assert!(usage("-i a --fallback-log-dir ../x").contains("relative path"));
        assert!(usage("-i a -x").contains("-x"));
        assert!(usage("-i a --no-ack=1").contains("takes no value"));
        assert!(usage("-i a --on-failure pray").contains("retry, halt and reboot"));
    }
}
