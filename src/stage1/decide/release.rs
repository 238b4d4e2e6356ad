//! Which release of balenaOS, from which cloud, and whether that cloud can be reached.

use super::report::Report;
use crate::balena::config;
use crate::balena::version::Wanted;
use crate::cli::{Flag, Options};
use crate::error::{Doing, Error};
use crate::net::client::{Patience, Settings};
use crate::net::proxy::Proxies;
use crate::net::trust::Trust;
use crate::stage1::look::cloud::{self, Cloud, Download};
use crate::sys::map;
use core::time::Duration;

/// Checks what of config.json and of the options is about the cloud, and that API and VPN can be reached, where that
/// is asked for: before anything slow. Gives the API where an image is to come from there, or an answer, or where it
/// `is_told` how it ends.
///
/// Nothing is sent where nothing has to be known.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn look(
    options: &Options,
    config: Option<&[u8]>,
    is_told: bool,
    report: &mut Report,
) -> Result<Option<Cloud>, Error> {
    wanted(options)?;
    let Some(config) = config else {
        return Ok(None);
    };
    let settings = settings(options, Some(config))?;
    let vpn = config::vpn(config)?;
    let checks = !options.has(Flag::DownloadOnly);
    let asks_api = checks && !options.has(Flag::NoApiCheck);
    let asks_vpn = checks && !options.has(Flag::NoVpnCheck);
    let mut cloud = if asks_api || options.image.is_none() || is_told {
        let endpoint = kept(&config::api_endpoint(config)?)?;
        Some(Cloud::new(settings, endpoint, kept(&config::api_key(config)?)?)?)
    } else {
        None
    };
    if asks_vpn && vpn.is_none() {
        report.warn(
            "config.json names no VPN (vpnEndpoint): whether it can be reached is not checked",
        );
    }
    let api = if asks_api { cloud.as_mut() } else { None };
    let vpn = vpn.as_ref().filter(|_| asks_vpn).map(|(host, port)| (&**host, *port));
    check(api, vpn, options.check_timeout)?;
    Ok(cloud)
}

fn check(api: Option<&mut Cloud>, vpn: Option<(&str, u16)>, seconds: u64) -> Result<(), Error> {
    let asked = (api.is_some(), vpn.is_some());
    let [of_api, of_vpn] = cloud::check(api, vpn, Duration::from_secs(seconds))?;
    let of_api =
        of_api.map_err(|error| error.as_refusal().advice("--no-api-check leaves this check out"));
    let of_vpn =
        of_vpn.map_err(|error| error.as_refusal().advice("--no-vpn-check leaves this check out"));
    if let (Err(_), Err(error)) = (&of_api, &of_vpn) {
        crate::error!("{}", error);
    }
    of_api.and(of_vpn)?;
    match asked {
        (true, true) => crate::info!("API and VPN can be reached"),
        (true, false) => crate::info!("the API can be reached"),
        (false, true) => crate::info!("the VPN can be reached"),
        (false, false) => {}
    }
    Ok(())
}

/// The image that is to be downloaded, for the device type that the new OS will have.
pub fn find(options: &Options, cloud: &mut Cloud, device_type: &str) -> Result<Download, Error> {
    let found = cloud.find_image(&wanted(options)?, device_type)?;
    crate::info!("balenaOS {} for {} is to be downloaded", found.version, device_type);
    Ok(found)
}

fn wanted(options: &Options) -> Result<Wanted, Error> {
    Wanted::parse(options.version.as_deref().unwrap_or("default"))
}

/// How servers are asked: by the proxies of the environment, and believing the certificates that config.json and
/// `--ca-cert` add.
pub fn settings(options: &Options, config: Option<&[u8]>) -> Result<Settings, Error> {
    let config = config.unwrap_or_default();
    let place = map::buffer(config.len().max(1)).doing("reserving", "memory")?;
    let extra = config::root_certificates(config, place)?;
    let file = kept(options.ca_cert.as_deref().unwrap_or_default())?;
    let trust = Trust { extra, file, only_these: false };
    Ok(Settings {
        proxies: Proxies::of_environment(),
        trust,
        patience: Patience::default(),
        known: Default::default(),
    })
}

/// A copy that lives as long as the process.
fn kept(text: &str) -> Result<&'static str, Error> {
    if text.is_empty() {
        return Ok("");
    }
    let place = map::buffer(text.len()).doing("reserving", "memory")?;
    place.copy_from_slice(text.as_bytes());
    Ok(core::str::from_utf8(place).unwrap_or_default())
}
