//! What is carried over from the old OS to the new one: networks and data, as far as this program was built to.

use super::new_files::NewFiles;
use super::report::Report;
use crate::cli::Options;
use crate::error::Error;
use crate::stage1::look::identity::Identity;

/// The network settings of the old OS, as files for the new one's boot partition. Where there is no old OS (`takeover
/// flash`) only what was given is placed.
#[cfg(feature = "migrate")]
pub fn networks(
    options: &Options,
    identity: Option<&Identity>,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
    report: &mut Report,
) -> Result<(), Error> {
    use super::networks::{self, OldOs, Selection};
    use crate::cli::Flag;
    use crate::log::Level;
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
        no_nwmgr_check: options.has(Flag::NoNetworkCheck),
    };
    let mut store = |to: &str, label: &str, bytes: &[u8]| new_files.add(to, label, bytes);
    let mut note = |note: networks::Note| match note.level {
        Level::Warn => report.warn(&note.text()),
        _ => note.log(),
    };
    networks::gather("", &selection, buffer, &mut store, &mut note)
}

/// Without the reading of network settings only what was given is placed.
#[cfg(not(feature = "migrate"))]
pub fn networks(
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

/// The data that the user wants to keep, as an archive for the new data partition, on which `free` bytes are left.
///
/// The one place where the heap is used after the command line is read: the crates for YAML and regular expressions
/// need it. Nothing was changed yet, so an allocation that cannot be had ends the program and no more.
#[cfg(feature = "backup")]
pub fn backup(
    options: &Options,
    free: u64,
    buffer: &mut [u8],
    new_files: &mut NewFiles,
) -> Result<(), Error> {
    let Some(path) = options.backup.as_deref() else {
        return Ok(());
    };
    crate::memory::unseal();
    let result = write_backup(path, &options.work_dir, free, buffer);
    crate::memory::seal();
    let Some((file, length)) = result? else {
        return Ok(());
    };
    new_files.add_backup(file, length)
}

#[cfg(feature = "backup")]
fn write_backup(
    path: &str,
    work_dir: &str,
    free: u64,
    buffer: &mut [u8],
) -> Result<Option<(rustix::fd::OwnedFd, u64)>, Error> {
    let watch = crate::log::Stopwatch::start();
    let description = crate::backup::check(path, buffer)?;
    if description.volumes.is_empty() {
        return Ok(None);
    }
    let file = crate::backup::temporary(work_dir)?;
    let summary = crate::backup::write(&description, "/", &file, free, &mut |_| Ok(()))?;
    crate::info!(
        "the backup: {} files of {} volumes, {} packed to {} ({} s)",
        summary.files,
        summary.volumes,
        crate::text::Size(summary.content),
        crate::text::Size(summary.bytes),
        watch.shown()
    );
    Ok(Some((file, summary.bytes)))
}

/// Not in this build.
#[cfg(not(feature = "backup"))]
pub fn backup(options: &Options, _: u64, _: &mut [u8], _: &mut NewFiles) -> Result<(), Error> {
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
