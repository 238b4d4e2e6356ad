//! What is carried over from the old OS to the new one: networks and data, as far as this program was built to.

use super::configuration::{self, Beside};
use super::report::Report;
use crate::cli::Options;
use crate::error::Error;
use crate::network::Addresses;
use crate::new_os::new_files::NewFiles;
use crate::stage1::look::identity::Identity;

/// The files that the new OS gets on its boot partition: config.json, with the name that is kept, and its networks. An
/// image that is no balenaOS gets none. Where there is no old OS (`takeover flash`) there is no identity.
pub fn files(
    options: &Options,
    config: Option<&[u8]>,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    report: &mut Report,
) -> Result<NewFiles, Error> {
    let mut new_files = NewFiles::new();
    if let Some(config) = config {
        let hostname = identity.and_then(|it| configuration::kept_hostname(options, it, report));
        let beside = beside("", identity, buffer, report)?;
        let new_config = configuration::for_new_os(config, hostname, &beside, options, buffer)?;
        new_files.add("config.json", "", new_config)?;
    }
    if config.is_some() || identity.is_none() {
        networks(options, identity, buffer, &mut new_files, report)?;
    }
    Ok(new_files)
}

/// What the OS below `root`, empty for the running one, has beside its networks. A balenaOS has that in its own
/// configuration.
#[cfg(feature = "migrate")]
pub fn beside(
    root: &str,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    report: &mut Report,
) -> Result<Beside, Error> {
    match identity {
        Some(identity) if !identity.is_balena_os() => {
            super::networks::beside(root, buffer, &mut |note| tell(&note, report))
        }
        _ => Ok(Beside::default()),
    }
}

/// Without the reading of network settings nothing is known of it.
#[cfg(not(feature = "migrate"))]
fn beside(_: &str, _: Option<&Identity>, _: &mut [u8], _: &mut Report) -> Result<Beside, Error> {
    Ok(Beside::default())
}

/// Passes a note on.
#[cfg(feature = "migrate")]
fn tell(note: &super::networks::Note, report: &mut Report) {
    match note.level {
        crate::log::Level::Warn => report.warn(&note.text()),
        _ => note.log(),
    }
}

/// The network settings of the old OS, as files for the new one's boot partition. Where there is no old OS (`takeover
/// flash`) only what was given is placed.
#[cfg(feature = "migrate")]
fn networks(
    options: &Options,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
    report: &mut Report,
) -> Result<(), Error> {
    let is_strict = !options.has(crate::cli::Flag::NoNetworkCheck);
    networks_of(options, "", is_strict, identity, buffer, new_files, report)
}

/// The same of the system below `root`, empty for the running one. What cannot be carried over is refused when
/// `is_strict`, and else warned of.
#[cfg(feature = "migrate")]
pub fn networks_of(
    options: &Options,
    root: &str,
    is_strict: bool,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
    report: &mut Report,
) -> Result<(), Error> {
    use super::networks::{self, OldOs, Selection};
    use crate::cli::Flag;
    const { assert!(crate::image::decode::BUFFER >= networks::SCRATCH) };
    let selection = Selection {
        only: &options.wifis,
        no_wifis: options.has(Flag::NoWifis),
        inject: &options.keyfiles,
        old: match identity {
            Some(identity) if identity.is_balena_os() => OldOs::Balena,
            Some(_) => OldOs::Any,
            None => OldOs::None,
        },
        no_nwmgr_check: !is_strict,
    };
    let mut store = |to: &str, label: &str, bytes: &[u8]| new_files.add(to, label, bytes);
    let mut note = |note: networks::Note| tell(&note, report);
    networks::gather(root, &selection, buffer, &mut store, &mut note)
}

/// The name servers of this device, for an address that has none.
#[cfg(feature = "migrate")]
pub fn name_servers(buffer: &mut [u8]) -> Result<Addresses, Error> {
    super::networks::name_servers("", buffer)
}

/// Not known in this build.
#[cfg(not(feature = "migrate"))]
pub fn name_servers(_: &mut [u8]) -> Result<Addresses, Error> {
    Ok(Addresses::default())
}

/// Without the reading of network settings only what was given is placed.
#[cfg(not(feature = "migrate"))]
fn networks(
    options: &Options,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
    report: &mut Report,
) -> Result<(), Error> {
    use crate::error::Doing;
    use crate::files;
    use crate::text::Text;
    if !options.wifis.is_empty() {
        return Err(missing("--wifi"));
    }
    for (index, path) in options.keyfiles.iter().enumerate() {
        let bytes = files::read(path, buffer).doing("reading the keyfile", path)?;
        let zero = if index < 9 { "0" } else { "" };
        let to: Text<40> = crate::text!("system-connections/balena-{}{}", zero, index + 1);
        new_files.add(&to, path, bytes)?;
    }
    if identity.is_some() {
        report.warn("this program was built without the reading of network settings: a cable with DHCP, config.json and --nwmgr-cfg are all that the new OS has");
    }
    Ok(())
}

/// What the data that the user wants to keep takes as an archive: it is packed, and thrown away. The archive itself is
/// made after the question, by `prepare::backup`. One of more than `limit` bytes is refused.
///
/// This is where the heap is used after the command line is read: the crates for YAML and regular expressions need it.
/// Nothing was changed yet, so an allocation that cannot be had ends the program and no more.
#[cfg(feature = "backup")]
pub fn count_backup(
    options: &Options,
    limit: u64,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
) -> Result<(), Error> {
    use crate::error::Doing;
    let Some(path) = options.backup.as_deref() else {
        return Ok(());
    };
    let nowhere = crate::files::open("/dev/null", rustix::fs::OFlags::WRONLY)
        .doing("opening", "/dev/null")?;
    crate::memory::unseal();
    let length = crate::backup::make(path, &nowhere, limit, buffer);
    crate::memory::seal();
    match length? {
        Some(length) => new_files.add_backup(length),
        None => Ok(()),
    }
}

/// Not in this build.
#[cfg(not(feature = "backup"))]
pub fn count_backup(
    options: &Options,
    _: u64,
    _: &mut [u8],
    _: &mut NewFiles,
) -> Result<(), Error> {
    match options.backup {
        None => Ok(()),
        Some(_) => Err(missing("--backup-cfg")),
    }
}

#[cfg(not(all(feature = "migrate", feature = "backup")))]
fn missing(option: &'static str) -> Error {
    Error::usage(option, "this program was built without it")
        .advice("use one of the feature set that has it: see the README")
}
