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
