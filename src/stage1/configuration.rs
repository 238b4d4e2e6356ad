//! config.json: read, checked, and made the one that the new OS gets.

use super::origin::BALENA_CONFIG;
use crate::balena::config;
use crate::cli::Options;
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::map;

/// Reads and checks a config.json: the one that was named, or that of a balenaOS.
pub fn read(options: &Options, buffer: &mut [u8]) -> Result<&'static [u8], Error> {
    let path = match options.config.as_deref() {
        Some(path) => path,
        None if files::exists(BALENA_CONFIG) => BALENA_CONFIG,
        None => {
            return Err(Error::usage(
                "reading the command line",
                "",
                "no config.json was given (-c FILE)",
            )
            .advice("download one for this fleet"));
        }
    };
    let bytes = files::read(path, buffer)
        .doing("reading the configuration", path)
        .map_err(Error::as_refusal)?;
    if bytes.len() > config::MAX_LENGTH {
        return Err(Error::refused("reading the configuration", path, "it is larger than 128 KiB"));
    }
    config::check(bytes, path)?;
    let kept = map::buffer(bytes.len()).doing("reserving memory for", path)?;
    kept.copy_from_slice(bytes);
    Ok(kept)
}
