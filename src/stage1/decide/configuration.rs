//! config.json: read, checked, and made the one that the new OS gets.

use super::compatible::Wish;
use super::report::Report;
use crate::balena::config::{self, Wishes};
use crate::cli::{Flag, Options};
use crate::error::{Doing, Error};
use crate::files;
use crate::stage1::look::examination::ImageFile;
use crate::stage1::look::identity::Identity;
use crate::stage1::look::origin::BALENA_CONFIG;
use crate::sys::map;

/// The config.json for an image: the one that was named; for a balenaOS else that of the balenaOS that is replaced. An
/// image that is no balenaOS needs none, and gets no other system's: keys are in it.
pub fn for_image(
    options: &Options,
    file: Option<&ImageFile<'_>>,
    buffer: &mut [u8],
) -> Result<Option<&'static [u8]>, Error> {
    if let Some(path) = options.config.as_deref() {
        return read(path, buffer).map(Some);
    }
    // What the API offers is one.
    if let Some(file) = file
        && !file.peek(buffer)?.is_balena_os()
    {
        return takes_no_files(options).map(|()| None);
    }
    if files::exists(BALENA_CONFIG) {
        return read(BALENA_CONFIG, buffer).map(Some);
    }
    Err(Error::usage("", "no config.json was given (-c FILE)")
        .advice("download one for this fleet"))
}

/// Reads and checks a config.json.
pub fn read(path: &str, buffer: &mut [u8]) -> Result<&'static [u8], Error> {
    let bytes = files::read(path, buffer)
        .doing("reading the configuration", path)
        .map_err(Error::as_refusal)?;
    config::check(bytes, path)?;
    let kept = map::buffer(bytes.len()).doing("reserving memory for", path)?;
    kept.copy_from_slice(bytes);
    Ok(kept)
}

/// An image that is no balenaOS takes no files.
fn takes_no_files(options: &Options) -> Result<(), Error> {
    let given = [
        (!options.keyfiles.is_empty(), "--nwmgr-cfg"),
        (!options.wifis.is_empty(), "--wifi"),
        (options.device_type.is_some(), "--change-dt-to"),
    ];
    match given.into_iter().find(|(is_given, _)| *is_given) {
        None => Ok(()),
        Some((_, option)) => {
            Err(Error::usage(option, "the image is no balenaOS, and is written as it is")
                .advice("leave it out; for a balenaOS give its config.json, too (-c FILE)"))
        }
    }
}

/// The configuration that the new OS gets: with this host name, and with another device type if one is asked for.
/// `buffer` is [`crate::image::decode::BUFFER`] long, more than any configuration that is taken.
pub fn for_new_os<'a>(
    bytes: &[u8],
    hostname: Option<&str>,
    options: &Options,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], Error> {
    let wishes = Wishes { hostname, device_type: options.device_type.as_deref() };
    let length = config::edit(bytes, &wishes, buffer)?;
    Ok(buffer.get(..length).unwrap_or_default())
}

/// What the options and the configuration want the device to be.
pub fn wish<'a>(options: &'a Options, device_type: &'a str) -> Wish<'a> {
    Wish {
        device_type,
        change_to: options.device_type.as_deref(),
        no_os_check: options.has(Flag::NoOsCheck),
        no_dt_check: options.has(Flag::NoDeviceCheck),
    }
}

/// The same without a word about a name that cannot be kept.
pub fn name_to_keep<'a>(options: &Options, identity: &'a Identity) -> Option<&'a str> {
    kept_hostname(options, identity, &mut Report::quiet())
}

/// The name that the new OS keeps. A balenaOS has in its config.json what name it was given, and the one that it goes
/// by otherwise it makes itself.
pub fn kept_hostname<'a>(
    options: &Options,
    identity: &'a Identity,
    report: &mut Report,
) -> Option<&'a str> {
    if options.has(Flag::NoKeepName) || identity.is_balena_os() {
        None
    } else {
        identity.kept_hostname(&mut |text| report.warn(text))
    }
}
