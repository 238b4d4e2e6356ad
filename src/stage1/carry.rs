//! What is carried over from the old OS to the new one: networks and data, as far as this program was built to.

use super::furnishings::Furnishings;
use super::identity::Identity;
use super::report::Report;
use crate::cli::Options;
use crate::error::Error;

/// The network settings of the old OS, as files for the new one's boot partition.
#[cfg(feature = "migrate")]
pub fn networks(
    options: &Options,
    identity: &Identity,
    buffer: &mut [u8],
    furnishings: &mut Furnishings,
    report: &mut Report,
) -> Result<(), Error> {
    use super::networks::{self, Wishes};
    use crate::cli::Flag;
    use crate::log::Level;
    let wishes = Wishes {
        only: &options.wifis,
        no_wifis: options.has(Flag::NoWifis),
        inject: &options.keyfiles,
        source_is_balena: identity.is_balena_os(),
        no_nwmgr_check: options.has(Flag::NoNetworkCheck),
    };
    let mut store = |to: &str, label: &str, bytes: &[u8]| furnishings.add(to, label, bytes);
    let mut note = |note: networks::Note| match note.level {
        Level::Warn => report.warn(&note.text()),
        _ => note.log(),
    };
    networks::gather("", &wishes, buffer, &mut store, &mut note).map(drop)
}

/// Without the reading of network settings only what was given is placed.
#[cfg(not(feature = "migrate"))]
pub fn networks(
    options: &Options,
    _: &Identity,
    buffer: &mut [u8],
    furnishings: &mut Furnishings,
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
        furnishings.add(&to, path, bytes)?;
    }
    report.warn("this program was built without the reading of network settings: a cable with DHCP, config.json and --nwmgr-cfg are all that the new OS has");
    Ok(())
}

/// The data that the user wants to keep, as an archive for the new data partition.
#[cfg(feature = "backup")]
pub fn backup(
    options: &Options,
    buffer: &mut [u8],
    furnishings: &mut Furnishings,
) -> Result<(), Error> {
    let Some(path) = options.backup.as_deref() else {
        return Ok(());
    };
    todo(path, buffer, furnishings)
}

/// Not in this build.
#[cfg(not(feature = "backup"))]
pub fn backup(options: &Options, _: &mut [u8], _: &mut Furnishings) -> Result<(), Error> {
    match options.backup {
        None => Ok(()),
        Some(_) => Err(missing("--backup-cfg")),
    }
}

#[cfg(not(all(feature = "migrate", feature = "backup")))]
fn missing(option: &'static str) -> Error {
    Error::usage("reading the command line", option, "this program was built without it")
        .advice("use one of the feature set that has it: see the README")
}
