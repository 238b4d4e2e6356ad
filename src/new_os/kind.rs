//! Whether an image is one that can be written as it is, and for which device.

use crate::balena::devices;
use crate::balena::layout::Layout;
use crate::error::Error;
use crate::text::Text;

const DOING: &str = "looking at";
const IMAGE: &str = "the image";

/// Refuses an image that writes another one to the disk.
pub fn is_no_flasher(image: &Layout) -> Result<(), Error> {
    if !image.is_flasher {
        return Ok(());
    }
    let why =
        "it is a flasher: it starts from a USB stick to write the image inside it to the disk";
    Err(Error::refused(DOING, IMAGE, why).advice(
        "use the raw image: download it with imageType=raw, or take /opt/*.balenaos-img out of its second partition",
    ))
}

/// What speaks against an image that must be for this device type. One that does not say which it is for passes with a
/// warning.
pub fn mismatch(image: &Layout, wanted: &str, warn: &mut dyn FnMut(&str)) -> Option<Error> {
    if wanted.is_empty() {
        return None;
    }
    if image.device_type.is_empty() {
        warn("the image does not say which device type it is for");
        return None;
    }
    if devices::is_same(&image.device_type, wanted) {
        return None;
    }
    let wanted: Text<80> = crate::text::printable(wanted.as_bytes());
    let why: Text<200> = crate::text!("it is for {}, not for {}", image.device_type, wanted);
    Some(Error::refused(DOING, IMAGE, &why))
}

/// What to do about a [`mismatch`].
pub const ADVICE: &str = "use an image for this device type; --no-dt-check goes on all the same";
