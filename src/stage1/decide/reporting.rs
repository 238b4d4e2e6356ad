//! What stage 2 will tell the API when it has ended, and how it will reach that: nobody resolves names then, and no
//! file of the old OS is left.
//!
//! That a report cannot be made is a warning, never a reason not to take over.

use super::report::Report;
use crate::balena::api::report::{DONE, FAILED, migrated};
use crate::balena::api::requests;
use crate::balena::config;
use crate::cli::{Flag, Options};
use crate::error::{Doing, Error};
use crate::net::url::Url;
use crate::notice::{self, Notice};
use crate::stage1::look::cloud::Cloud;
use crate::stage1::look::way;
use crate::sys::map;
use crate::text::Text;
use core::time::Duration;

/// What there is to tell.
struct Wanted {
    /// By what the API knows the device: for one that it knows, something is not true any more afterwards.
    uuid: Text<64>,
    /// The device type has changed.
    has_new_type: bool,
    /// `--report-hup-progress`.
    progress: bool,
}

impl Wanted {
    /// Nothing where there is nothing to tell: `--pretend` changes nothing.
    fn of(options: &Options, config: Option<&[u8]>) -> Option<Self> {
        let config = config.filter(|_| !options.has(Flag::Pretend))?;
        let new_type = options.device_type.as_deref();
        Some(Self {
            uuid: config::uuid(config)?,
            has_new_type: new_type.is_some_and(|new| *config::device_type(config) != *new),
            progress: options.has(Flag::ReportProgress),
        })
    }
}

/// True when the API is to be told something.
pub fn is_wanted(options: &Options, config: Option<&[u8]>) -> bool {
    Wanted::of(options, config).is_some()
}

/// What stage 2 finds in its RAMFS: see [`Notice`]. Asks the API what has to be known for that, and so finds the way to
/// it.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn prepare(
    options: &Options,
    config: Option<&[u8]>,
    cloud: Option<&mut Cloud>,
    report: &mut Report,
) -> Result<Option<&'static [u8]>, Error> {
    let (Some(wanted), Some(cloud)) = (Wanted::of(options, config), cloud) else {
        if options.has(Flag::ReportProgress) && !options.has(Flag::Pretend) {
            report.warn("--report-hup-progress: config.json has no uuid, and so the API no device that this is about");
        }
        return Ok(None);
    };
    let device_type_id = match options.device_type.as_deref().filter(|_| wanted.has_new_type) {
        Some(device_type) => device_type_id(options, cloud, device_type, report)?,
        None => None,
    };
    // What must be known is known afterwards: addresses, and whose certificates are good.
    if let Err(error) = cloud.ping(Duration::from_secs(options.check_timeout)) {
        warn(report, &crate::text!("{}", error));
        return Ok(None);
    }
    if let Some(interface) = fleeting_interface(cloud) {
        let why = crate::text!("the way to the API is {}, which ends with its program", interface);
        warn(report, &why);
        return Ok(None);
    }
    write(&wanted, device_type_id, cloud).or_else(|error| {
        warn(report, &crate::text!("{}", error));
        Ok(None)
    })
}

fn warn(report: &mut Report, why: &Text<160>) {
    let text: Text<240> = crate::text!("the outcome cannot be reported: {}", why);
    report.warn(&text);
}

/// The number of the new device type: without it the device would stay another one for the API, which is an error.
fn device_type_id(
    options: &Options,
    cloud: &mut Cloud,
    device_type: &str,
    report: &mut Report,
) -> Result<Option<u64>, Error> {
    match cloud.device_type_id(device_type) {
        Ok(id) => Ok(Some(id)),
        Err(error) if options.has(Flag::NoApiCheck) => {
            warn(report, &crate::text!("{}", error));
            Ok(None)
        }
        Err(error) => Err(error.as_refusal()),
    }
}

/// The interface to the API, where that ends before stage 2 does.
fn fleeting_interface(cloud: &Cloud) -> Option<Text<16>> {
    // One without a way there is not the one that answered.
    let interfaces = cloud.reached().addresses.iter().map(|address| way::interface_to(*address));
    let interface = interfaces.into_iter().find(|interface| !interface.is_empty());
    interface.filter(|interface| way::ends_with_a_program(interface))
}

fn write(
    wanted: &Wanted,
    device_type_id: Option<u64>,
    cloud: &Cloud,
) -> Result<Option<&'static [u8]>, Error> {
    let url = requests::device(cloud.endpoint(), &wanted.uuid)?;
    let changed = migrated(device_type_id);
    let mut addresses = heapless::Vec::<u8, 256>::new();
    for address in &cloud.reached().addresses {
        // As many as a name has at most.
        let _ = addresses.extend_from_slice(&notice::bytes_of(*address));
    }
    let place = map::buffer(notice::MAX).doing("reserving memory for", "the report")?;
    let (roots, place) = place.split_at_mut(notice::MAX / 2);
    let roots = used_roots(roots);
    let progress: fn(&'static [u8]) -> &'static [u8] =
        if wanted.progress { |body| body } else { |_| &[] };
    let notice = Notice {
        url: &url,
        bearer: cloud.key(),
        host: &cloud.reached().host,
        addresses: &addresses,
        proxy: cloud.proxy(&Url::parse(&url)?).unwrap_or_default(),
        roots,
        done: [changed.as_bytes(), progress(DONE)],
        failed: progress(FAILED),
    };
    let too_long = || Error::failed("preparing", "the report", "it is longer than 16 KiB");
    let length = notice.write(place).ok_or_else(too_long)?;
    crate::info!("the API will be told how it ends");
    let place: &'static [u8] = place;
    Ok(place.get(..length))
}

#[cfg(feature = "tls")]
fn used_roots(place: &mut [u8]) -> &[u8] {
    let length = crate::net::tls::used_roots(place);
    place.get(..length).unwrap_or_default()
}

#[cfg(not(feature = "tls"))]
fn used_roots(_: &mut [u8]) -> &[u8] {
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_to_tell_depends_on_the_uuid_and_the_options() {
        let wanted = |line: &str, config: &str| {
            let words = line.split_whitespace().map(std::ffi::OsString::from);
            let options = crate::cli::parse(words).unwrap();
            let wanted = Wanted::of(&options, Some(config.as_bytes()))?;
            Some((wanted.has_new_type, wanted.progress))
        };
        let known = "{\"uuid\":\"ab12\",\"deviceType\":\"a\"}";
        for (line, config, expected) in [
            ("-i x", known, Some((false, false))),
            ("-i x --change-dt-to a", known, Some((false, false))),
            ("-i x --change-dt-to b", known, Some((true, false))),
            ("-i x --report-hup-progress", known, Some((false, true))),
            ("-i x --report-hup-progress --pretend", known, None),
            ("-i x --report-hup-progress", "{\"deviceType\":\"a\"}", None),
            ("-i x --report-hup-progress", "{\"uuid\":\"\"}", None),
        ] {
            assert_eq!(wanted(line, config), expected, "{line} {config}");
        }
    }
}
