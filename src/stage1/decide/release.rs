//! Which release of balenaOS, from which cloud, and whether that cloud can be reached.

use super::report::Report;
use crate::balena::config;
use crate::balena::version::Wanted;
use crate::cli::{Flag, Options};
use crate::error::{Doing, Error};
use crate::net::client::Settings;
use crate::net::proxy::Proxies;
#[cfg(feature = "tls")]
use crate::net::trust;
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
    let has_proxy = settings.proxies.https.is_some();
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
    check(api, vpn, options.check_timeout, has_proxy)?;
    Ok(cloud)
}

/// `is_direct`: the VPN is not reached like the API, through a proxy.
fn check(
    api: Option<&mut Cloud>,
    vpn: Option<(&str, u16)>,
    seconds: u64,
    is_direct: bool,
) -> Result<(), Error> {
    let names = [(api.is_some(), "API"), (vpn.is_some(), "VPN")];
    let [of_api, of_vpn] = cloud::check(api, vpn, Duration::from_secs(seconds))?;
    let of_api = of_api.map_err(|error| unreachable(error, "--no-api-check leaves this check out"));
    let of_vpn = of_vpn.map_err(|error| {
        if is_direct {
            crate::info!("the VPN is connected to directly, not through the proxy of https_proxy");
        }
        unreachable(error, "--no-vpn-check leaves this check out")
    });
    if let (Err(_), Err(error)) = (&of_api, &of_vpn) {
        crate::error!("{}", error);
    }
    of_api.and(of_vpn)?;
    for (is_reached, name) in names {
        if is_reached {
            crate::info!("the {} can be reached", name);
        }
    }
    Ok(())
}

/// Where the error does not say what to do, leaving the check out is it; else that is worth a line of its own.
#[cold]
fn unreachable(error: Error, option: &'static str) -> Error {
    let error = error.as_refusal();
    if error.has_advice() {
        crate::info!("{}", option);
        error
    } else {
        error.advice(option)
    }
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
    #[cfg(feature = "tls")]
    trust::check(&trust)?;
    Ok(Settings { proxies: Proxies::of_environment(), trust, ..Settings::default() })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;
    use crate::text::Text;
    use std::net::TcpListener;

    fn options(line: &str) -> Options {
        cli::parse(line.split(' ').map(Into::into))
            .unwrap_or_else(|error| panic!("{}", text(&error)))
    }

    fn text(error: &Error) -> String {
        let text: Text<600> = crate::text!("{}", error);
        assert!(!text.contains("sEcReT"), "{}", text.as_str());
        text.to_string()
    }

    /// A config.json with these values more; nobody listens at its API.
    fn config(more: &str) -> String {
        format!("{{\"apiEndpoint\":\"http://127.0.0.1:1\",\"apiKey\":\"sEcReT\"{more}}}")
    }

    fn refusal(line: &str, config: &str) -> String {
        let result = look(&options(line), Some(config.as_bytes()), false, &mut Report::quiet());
        let error = result.err().expect("it is refused");
        assert_eq!(error.kind().exit_code(), 3);
        text(&error)
    }

    #[test]
    fn nothing_is_sent_where_nothing_has_to_be_known() {
        let mut report = Report::quiet();
        let off = options("-c c -i i --no-api-check --no-vpn-check");
        let config = config(",\"vpnEndpoint\":\"127.0.0.1\",\"vpnPort\":1");
        assert!(look(&off, Some(config.as_bytes()), false, &mut report).unwrap().is_none());
        assert!(look(&options("-i i"), None, false, &mut report).unwrap().is_none(), "no balenaOS");
        // Whoever only downloads needs no VPN, and will see that there is no API.
        let only = options("-c c --download-only");
        assert!(look(&only, Some(config.as_bytes()), false, &mut report).unwrap().is_some());
        assert_eq!(report.warnings().count(), 0);
    }

    #[test]
    fn what_cannot_be_reached_is_named_with_the_option_that_leaves_it_out() {
        let config = config(",\"vpnEndpoint\":\"127.0.0.1\",\"vpnPort\":\"1\"");
        let of_api = refusal("-c c -i i --no-vpn-check --check-timeout 1", &config);
        assert!(of_api.contains("127.0.0.1") && of_api.contains("--no-api-check"), "{of_api}");
        let of_vpn = refusal("-c c -i i --no-api-check --check-timeout 1", &config);
        assert!(of_vpn.contains("refused; --no-vpn-check leaves this check out"), "{of_vpn}");
        assert!(refusal("-c c -i i --check-timeout 1", &config).contains("--no-api-check"));
    }

    #[test]
    fn what_can_be_reached_is_good() {
        let vpn = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = vpn.local_addr().unwrap().port();
        let config = config(&format!(",\"vpnEndpoint\":\"127.0.0.1\",\"vpnPort\":{port}"));
        let options = options("-c c -i i --no-api-check");
        look(&options, Some(config.as_bytes()), false, &mut Report::quiet()).unwrap();
    }

    #[test]
    fn a_configuration_without_a_vpn_is_warned_of() {
        let mut report = Report::quiet();
        let options = options("-c c -i i --no-api-check");
        look(&options, Some(config("").as_bytes()), false, &mut report).unwrap();
        assert!(report.warnings().next().unwrap().contains("names no VPN"));
    }

    #[test]
    fn what_is_wrong_with_config_and_options_is_said_before_anything_is_sent() {
        let off = "-c c -i i --no-api-check --no-vpn-check";
        let roots = config(",\"balenaRootCA\":\"c0VjUmVU\"");
        assert!(refusal(off, &roots).contains("balenaRootCA holds no certificates"));
        assert!(
            refusal(off, &config(",\"vpnEndpoint\":\"v\",\"vpnPort\":\"x\"")).contains("vpnPort")
        );
        assert!(refusal("-c c -i i", "{\"apiKey\":\"k\"}").contains("apiEndpoint"));
        let nonsense = look(&options("-c c -v 5"), None, false, &mut Report::quiet());
        assert_eq!(nonsense.err().unwrap().kind().exit_code(), 2);
    }

    #[test]
    fn certificates_of_config_and_options_are_believed() {
        // A certificate of tests/corpus, in PEM, and that in base64.
        let root = concat!(
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJnakNDQVNpZ0F3SUJBZ0lVRFNyZ01RZGk5am5wdTFoOW1COW",
            "FnZS9VcHRzd0NnWUlLb1pJemowRUF3SXdIekVPTUF3R0ExVUUKQ2d3RlZHVnpkSE14RFRBTEJnTlZCQU1NQkZKdmIz",
            "UXdIaGNOTWpBd01UQXhNREF3TURBd1doY05OREF3TVRBeE1EQXdNREF3V2pBZgpNUTR3REFZRFZRUUtEQVZVWlhOMG",
            "N6RU5NQXNHQTFVRUF3d0VVbTl2ZERCWk1CTUdCeXFHU000OUFnRUdDQ3FHU000OUF3RUhBMElBCkJFNGowdyt1UHJP",
            "WFowNTFkK2NBc3phMUZ0WVBtZFQ5NTQ1dE5OckY1a2ptVytMZkdPQXdmZXRKTCt6NzllaWp1SGUrTFRiSXJWNG8KZn",
            "piemxaTFRwTHlqUWpCQU1BOEdBMVVkRXdFQi93UUZNQU1CQWY4d0RnWURWUjBQQVFIL0JBUURBZ0VHTUIwR0ExVWRE",
            "Z1FXQkJTWgp1dmNzdWxuQzJKV0FOUklhVmxiQ1RUZ2U5ekFLQmdncWhrak9QUVFEQWdOSUFEQkZBaUVBb3NpM05tcm",
            "VJVEpkOW90MmtMSlM5NktPCmxSa1JFSkdRZWYxREtuUHROL3dDSUdoQ1p5VjBxTlR6NnliTHB0RGQ2aG5RbmZJZjRm",
            "c0dMbU1LTVRrNktGbzgKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo=",
        );
        let config = config(&format!(",\"balenaRootCA\":\"{root}\""));
        let file = std::env::temp_dir().join(format!("takeover-ca-{}", std::process::id()));
        let file = file.to_str().unwrap();
        std::fs::write(file, include_bytes!("../../../tests/corpus/pem/two")).unwrap();
        let options = options(&format!("-c c --ca-cert {file}"));
        let trust = settings(&options, Some(config.as_bytes())).unwrap().trust;
        assert!(trust.extra.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
        assert_eq!((trust.file, trust.only_these), (file, false));
        let plain = settings(&options, None).unwrap().trust;
        assert!(plain.extra.is_empty());
        std::fs::remove_file(file).unwrap();
    }
}
