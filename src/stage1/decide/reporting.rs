//! What stage 2 will tell the API when it has ended, and how it will reach that: nobody resolves names then, and no file
//! of the old OS is left.
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
    /// By what the API knows the device.
    uuid: Text<64>,
    /// It was a balenaOS that is replaced.
    from_balena_os: bool,
    /// The device type has changed to this.
    has_new_type: bool,
    /// `--report-hup-progress`.
    progress: bool,
}

impl Wanted {
    /// Nothing where there is nothing to tell.
    fn of(options: &Options, config: Option<&[u8]>, from_balena_os: bool) -> Option<Self> {
        // That one changes nothing.
        let config = config.filter(|_| !options.has(Flag::Pretend))?;
        let uuid = config::uuid(config)?;
        let new_type = options.device_type.as_deref();
        let has_new_type = new_type.is_some_and(|new| *config::device_type(config) != *new);
        let progress = options.has(Flag::ReportProgress);
        let is_any = progress || has_new_type || from_balena_os;
        is_any.then_some(Self { uuid, from_balena_os, has_new_type, progress })
    }
}

/// True when the API is to be told something.
pub fn is_wanted(options: &Options, config: Option<&[u8]>, from_balena_os: bool) -> bool {
    Wanted::of(options, config, from_balena_os).is_some()
}

/// What stage 2 finds in its RAMFS: see [`Notice`]. Asks the API what has to be known for that, and so finds the way to
/// it.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn prepare(
    options: &Options,
    config: Option<&[u8]>,
    from_balena_os: bool,
    cloud: Option<&mut Cloud>,
    report: &mut Report,
) -> Result<Option<&'static [u8]>, Error> {
    let (Some(wanted), Some(cloud)) = (Wanted::of(options, config, from_balena_os), cloud) else {
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
    write(&wanted, device_type_id, cloud)
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
    let address = cloud.reached().addresses.first()?;
    Some(way::interface_to(*address)).filter(|interface| way::ends_with_a_program(interface))
}

fn write(
    wanted: &Wanted,
    device_type_id: Option<u64>,
    cloud: &Cloud,
) -> Result<Option<&'static [u8]>, Error> {
    let url = requests::device(cloud.endpoint(), &wanted.uuid)?;
    let changed = migrated(wanted.from_balena_os, device_type_id);
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

    fn wanted(line: &str, config: &str, from_balena_os: bool) -> Option<(bool, bool, bool)> {
        let words = line.split_whitespace().map(std::ffi::OsString::from);
        let options = crate::cli::parse(words).unwrap();
        let wanted = Wanted::of(&options, Some(config.as_bytes()), from_balena_os)?;
        Some((wanted.from_balena_os, wanted.has_new_type, wanted.progress))
    }

    #[test]
    fn what_there_is_to_tell_depends_on_the_old_os_its_uuid_and_the_options() {
        let known = "{\"uuid\":\"ab12\",\"deviceType\":\"a\"}";
        for (line, config, from_balena_os, expected) in [
            ("-i x", known, false, None),
            ("-i x", known, true, Some((true, false, false))),
            ("-i x --change-dt-to a", known, false, None),
            ("-i x --change-dt-to b", known, false, Some((false, true, false))),
            ("-i x --report-hup-progress", known, false, Some((false, false, true))),
            ("-i x --report-hup-progress --change-dt-to b", known, true, Some((true, true, true))),
            ("-i x --report-hup-progress --pretend", known, true, None),
            ("-i x --report-hup-progress", "{\"deviceType\":\"a\"}", true, None),
            ("-i x --report-hup-progress", "{\"uuid\":\"\"}", true, None),
        ] {
            assert_eq!(wanted(line, config, from_balena_os), expected, "{line} {config}");
        }
    }
}
