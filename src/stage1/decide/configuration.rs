//! config.json: read, checked, and made the one that the new OS gets.

use super::compatible::Wish;
use super::report::Report;
use crate::balena::config::{self, Wishes};
use crate::cli::{Flag, Options};
use crate::elf;
use crate::error::Error;
use crate::files;
use crate::image::source::{FileSource, Source};
use crate::new_os::configuration::{GZIP, checked, read, unpacked};
use crate::new_os::examination::ImageFile;
use crate::stage1::look::identity::Identity;
use crate::stage1::look::origin::BALENA_CONFIG;
use crate::text::Text;

/// The section of this program that may hold a config.json: objcopy puts it there. As the original takeover has it.
const SECTION: &str = ".config_json_section";

/// The config.json for an image: the one that was named; for a balenaOS else the one in this program, or that of the
/// balenaOS that is replaced. An image that is no balenaOS needs none, and gets no other system's: keys are in it.
pub fn for_image(
    options: &Options,
    file: Option<&ImageFile<'_>>,
    buffer: &mut [u8],
) -> Result<Option<&'static [u8]>, Error> {
    if let Some(path) = options.config.as_deref() {
        return named(path, buffer).map(Some);
    }
    // What the API offers is one.
    if let Some(file) = file
        && !file.peek(buffer)?.is_balena_os()
    {
        return takes_no_files(options).map(|()| None);
    }
    if let Some(config) = own(buffer)? {
        log_own();
        return Ok(Some(config));
    }
    if files::exists(BALENA_CONFIG) {
        return read(BALENA_CONFIG, buffer).map(Some);
    }
    Err(Error::usage("", "no config.json was given (-c FILE)")
        .advice("download one for this fleet"))
}

/// The config.json that was named, else the one in this program.
pub fn given(options: &Options, buffer: &mut [u8]) -> Result<Option<&'static [u8]>, Error> {
    match options.config.as_deref() {
        Some(path) => named(path, buffer).map(Some),
        None => own(buffer),
    }
}

/// The same, else that of the balenaOS that is replaced: whose certificates are believed before it is known what the
/// image is.
pub fn trusted(options: &Options, buffer: &mut [u8]) -> Result<Option<&'static [u8]>, Error> {
    match given(options, buffer)? {
        None if files::exists(BALENA_CONFIG) => read(BALENA_CONFIG, buffer).map(Some),
        given => Ok(given),
    }
}

/// The config.json for an image that is written to a disk that is not in use, out of the one that is [`given`]: there
/// is no old OS to take one from, and it may go without.
pub fn for_flash(
    options: &Options,
    given: Option<&'static [u8]>,
    file: &ImageFile<'_>,
    buffer: &mut [u8],
) -> Result<Option<&'static [u8]>, Error> {
    if options.config.is_some() || given.is_none() {
        return Ok(given);
    }
    if !file.peek(buffer)?.is_balena_os() {
        return Ok(None);
    }
    log_own();
    Ok(given)
}

fn log_own() {
    crate::info!("config.json is the one in this program ({})", SECTION);
}

/// The config.json in this program, if there is one.
pub fn own(buffer: &mut [u8]) -> Result<Option<&'static [u8]>, Error> {
    in_program("/proc/self/exe", buffer)
}

fn in_program(program: &str, buffer: &mut [u8]) -> Result<Option<&'static [u8]>, Error> {
    let file = FileSource::open(program)?;
    let Some(section) = elf::find_section(&file, SECTION)? else {
        return Ok(None);
    };
    let length = section.end - section.start;
    let mut start = [0; config::SECTION_START];
    let count = file.read_at(section.start, &mut start)?.min(length as usize);
    let start = start.get(..count).unwrap_or_default();
    let Some(inside) = config::in_section(start, length) else {
        return Ok(None);
    };
    let place = section.start + inside.start..section.start + inside.end;
    if start.get(inside.start as usize..).is_some_and(|start| start.starts_with(&GZIP)) {
        return unpacked(&file, place, SECTION, buffer).map(Some);
    }
    // The buffer is longer than any that is taken.
    let wanted = (place.end - place.start).min(buffer.len() as u64);
    let bytes = buffer.get_mut(..wanted as usize).unwrap_or_default();
    let count = file.read_at(place.start, bytes)?;
    checked(bytes.get(..count).unwrap_or_default(), SECTION).map(Some)
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

/// What the old OS has beside its networks that a configuration can say; each may be empty.
#[derive(Default)]
pub struct Beside {
    /// The country whose rules for Wi-Fi hold, two letters.
    pub country: Text<2>,
    /// The time servers, with blanks between.
    pub ntp_servers: Text<200>,
}

impl Beside {
    fn country(&self) -> Option<&str> {
        Some(&*self.country).filter(|country| !country.is_empty())
    }

    fn ntp_servers(&self) -> Option<&str> {
        Some(&*self.ntp_servers).filter(|servers| !servers.is_empty())
    }

    /// The keys of a configuration and their values.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        [("country", self.country()), ("ntpServers", self.ntp_servers())].into_iter()
    }

    /// Says what of it goes into this configuration.
    fn log(&self, config: &[u8]) {
        for (key, value) in self.values() {
            if let Some(value) = value.filter(|_| config::lacks(config, key)) {
                crate::info!("config.json is given {}, as the old OS has it: {}", key, value);
            }
        }
    }
}

/// The configuration that the new OS gets: with this host name, with another device type if one is asked for, and with
/// what stands beside the networks of the old OS where it says nothing of that. `buffer` is
/// [`crate::image::decode::BUFFER`] long, more than any configuration that is taken.
pub fn for_new_os<'a>(
    bytes: &[u8],
    hostname: Option<&str>,
    beside: &Beside,
    options: &Options,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], Error> {
    let wishes = Wishes {
        hostname,
        device_type: options.device_type.as_deref(),
        country: beside.country(),
        ntp_servers: beside.ntp_servers(),
    };
    beside.log(bytes);
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

/// The configuration that was named.
fn named(path: &str, buffer: &mut [u8]) -> Result<&'static [u8], Error> {
    read(path, buffer).map_err(|error| error.or_advice("check the path that --config names"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode::BUFFER;

    #[test]
    fn without_a_section_there_is_none_in_the_program() {
        assert!(own(&mut vec![0; BUFFER]).unwrap().is_none());
    }
}
