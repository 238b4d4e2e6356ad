//! What is asked: the addresses of all requests, percent-encoded, and the bodies of those that change something.

use crate::balena::devices;
use crate::error::Error;
use crate::text::{Text, Writer};
use core::convert::Infallible;
use ufmt::uWrite;

/// The address of a request. The longest one, of versions, has 700 bytes and the address of the API.
pub type Address = Text<1280>;

/// Is the API there? Answered with `OK`.
pub fn ping(endpoint: &str) -> Result<Address, Error> {
    address(endpoint, &["/ping"])
}

/// All versions of balenaOS for a device type: final, not withdrawn, built, and not of the line with extended support,
/// whose applications have another release-policy.
pub fn versions(endpoint: &str, slug: &str) -> Result<Address, Error> {
    check_slug(slug)?;
    address(
        endpoint,
        &[
            "/v7/release?$select=raw_version&$filter=(is_final eq true) and (is_invalidated eq false) and ",
            "(status eq 'success') and (belongs_to__application/any(bta:(bta/is_host eq true) and ",
            "(bta/is_for__device_type/any(dt:dt/slug eq '",
            slug,
            "')) and (not(bta/application_tag/any(at:at/tag_key eq 'release-policy')) or ",
            "(bta/application_tag/any(at:(at/tag_key eq 'release-policy') and (at/value eq 'default'))))))",
        ],
    )
}

/// What a device type is like; aliases are followed.
pub fn contract(endpoint: &str, slug: &str) -> Result<Address, Error> {
    check_slug(slug)?;
    let query = "/v7/device_type?$top=1&$select=contract&$filter=device_type_alias/any(dta:dta/is_referenced_by__alias eq '";
    address(endpoint, &[query, slug, "')"])
}

/// The number of a device type.
pub fn device_type_id(endpoint: &str, slug: &str) -> Result<Address, Error> {
    check_slug(slug)?;
    address(endpoint, &["/v7/device_type?$select=id&$filter=slug eq '", slug, "'"])
}

/// How large an image is when it is unpacked.
pub fn size(endpoint: &str, slug: &str, version: &str) -> Result<Address, Error> {
    check_slug(slug)?;
    address(endpoint, &["/device-types/v1/", slug, "/images/", version, "/download-size"])
}

/// An image, packed with gzip; `is_flasher` asks for the one inside the image of a device type that is flashed from a
/// stick.
pub fn image(
    endpoint: &str,
    slug: &str,
    version: &str,
    is_flasher: bool,
) -> Result<Address, Error> {
    check_slug(slug)?;
    let raw = if is_flasher { "&imageType=raw" } else { "" };
    let query = ["/download?deviceType=", slug, "&version=", version, "&fileType=.gz", raw];
    address(endpoint, &query)
}

/// A device, for PATCH.
pub fn device(endpoint: &str, uuid: &str) -> Result<Address, Error> {
    if uuid.is_empty() || !uuid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Error::refused("asking the API for", "this device", "its uuid is none"));
    }
    address(endpoint, &["/v7/device(uuid='", uuid, "')"])
}

fn check_slug(slug: &str) -> Result<(), Error> {
    if devices::is_slug(slug) {
        return Ok(());
    }
    let shown: Text<80> = crate::text::printable(slug.as_bytes());
    Err(Error::refused("asking the API for", &shown, "it is no device type"))
}

/// The address of what `parts` name at the API, which may lie in a folder of its server.
fn address(endpoint: &str, parts: &[&str]) -> Result<Address, Error> {
    let endpoint = endpoint.trim_end_matches('/');
    let refuse = |why| Error::refused("asking the API at", "apiEndpoint of config.json", why);
    if endpoint.contains(['?', '#']) {
        return Err(refuse("it has a query or a fragment"));
    }
    let (address, is_cut) = Address::build_whole(&mut |writer: &mut Writer<'_>| {
        writer.write_str(endpoint)?;
        parts.iter().try_for_each(|part| write_encoded(writer, part))
    });
    if is_cut { Err(refuse("it is too long")) } else { Ok(address) }
}

/// Writes text with the three characters of ours encoded that may not stand in a query (RFC 3986, section 3.4) or are
/// something else there.
fn write_encoded(writer: &mut Writer<'_>, text: &str) -> Result<(), Infallible> {
    for piece in text.split_inclusive([' ', '\'', '+']) {
        let (rest, code) = match piece.as_bytes().last() {
            Some(b' ') => (1, "%20"),
            Some(b'\'') => (1, "%27"),
            Some(b'+') => (1, "%2B"),
            _ => (0, ""),
        };
        writer.write_str(piece.get(..piece.len() - rest).unwrap_or_default())?;
        writer.write_str(code)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const API: &str = "https://api.example.org";

    fn refusal(result: Result<Address, Error>) -> String {
        let error = result.unwrap_err();
        let text: Text<500> = crate::text!("{}", error);
        text.to_string()
    }

    #[test]
    fn addresses_are_these_to_the_byte() {
        for (address, wanted) in [
            (ping(API), "/ping"),
            (
                versions(API, "raspberrypi4-64"),
                "/v7/release?$select=raw_version&$filter=(is_final%20eq%20true)%20and%20(is_invalidated%20eq%20false)\
                 %20and%20(status%20eq%20%27success%27)%20and%20(belongs_to__application/any(bta:(bta/is_host%20eq\
                 %20true)%20and%20(bta/is_for__device_type/any(dt:dt/slug%20eq%20%27raspberrypi4-64%27))%20and%20(not\
                 (bta/application_tag/any(at:at/tag_key%20eq%20%27release-policy%27))%20or%20(bta/application_tag/any\
                 (at:(at/tag_key%20eq%20%27release-policy%27)%20and%20(at/value%20eq%20%27default%27))))))",
            ),
            (
                contract(API, "intel-nuc"),
                "/v7/device_type?$top=1&$select=contract&$filter=device_type_alias/any(dta:dta/is_referenced_by__alias\
                 %20eq%20%27intel-nuc%27)",
            ),
            (
                device_type_id(API, "generic-amd64"),
                "/v7/device_type?$select=id&$filter=slug%20eq%20%27generic-amd64%27",
            ),
            (
                size(API, "intel-nuc", "5.1.20+rev1"),
                "/device-types/v1/intel-nuc/images/5.1.20%2Brev1/download-size",
            ),
            (
                image(API, "raspberrypi3", "5.1.20+rev1", false),
                "/download?deviceType=raspberrypi3&version=5.1.20%2Brev1&fileType=.gz",
            ),
            (
                image(API, "intel-nuc", "5.1.20", true),
                "/download?deviceType=intel-nuc&version=5.1.20&fileType=.gz&imageType=raw",
            ),
            (device(API, "0123abcd"), "/v7/device(uuid=%270123abcd%27)"),
        ] {
            assert_eq!(&*address.unwrap(), format!("{API}{wanted}"));
        }
    }

    #[test]
    fn the_api_may_end_in_a_slash_and_lie_in_a_folder() {
        for (endpoint, wanted) in [
            ("https://api.example.org/", "https://api.example.org/ping"),
            ("https://api.example.org//", "https://api.example.org/ping"),
            ("http://[::1]:8080/balena", "http://[::1]:8080/balena/ping"),
            ("http://[::1]:8080/balena/", "http://[::1]:8080/balena/ping"),
        ] {
            assert_eq!(&*ping(endpoint).unwrap(), wanted);
        }
        for endpoint in ["https://api.example.org/?a=b", "https://api.example.org#x"] {
            assert!(refusal(ping(endpoint)).contains("it has a query or a fragment"));
        }
        let long = format!("https://{}", "x".repeat(500));
        versions(&long, "x").unwrap();
        assert!(refusal(versions(&long.repeat(3), "x")).contains("it is too long"));
    }

    #[test]
    fn what_is_no_device_type_gets_into_no_request() {
        for bad in ["", "x' or 'a' eq 'a", "Raspberry", "a_b", "../x", "a&b", "a\nb", "-a"] {
            for result in [
                versions(API, bad),
                contract(API, bad),
                device_type_id(API, bad),
                size(API, bad, "1.0.0"),
                image(API, bad, "1.0.0", false),
            ] {
                assert!(refusal(result).contains("it is no device type"), "{bad}");
            }
        }
        assert!(refusal(device(API, "x')/y")).contains("its uuid is none"));
        assert!(device(API, "").is_err());
    }
}
