//! What the answers say, value by value as they come in.

use crate::balena::stream::{Found, Kind};
use crate::balena::version::{Choice, Name};

/// Every list of the API is called `d`: true for that.
pub fn is_list(found: &Found<'_>) -> bool {
    found.kind == Kind::Container && found.is("d")
}

/// The versions of balenaOS.
pub fn consider_version(found: &Found<'_>, choice: &mut Choice<'_>) {
    if found.is("d//raw_version") {
        // What is too long for a version is none.
        choice.consider(&found.text().unwrap_or_else(|| Name::from("?")));
    }
}

/// The number of a device type.
pub fn id(found: &Found<'_>) -> Option<u64> {
    if found.is("d//id") { found.number() } else { None }
}

/// The size of an image in bytes.
pub fn size(found: &Found<'_>) -> Option<u64> {
    if found.is("size") { found.number() } else { None }
}

/// What the contract of a device type says.
#[derive(Default)]
pub struct Contract {
    /// There is such a device type.
    pub is_known: bool,
    boots_from_inside: bool,
    boots_from_elsewhere: bool,
    has_protocol: bool,
}

impl Contract {
    /// The next value.
    pub fn take(&mut self, found: &Found<'_>) {
        self.is_known |= found.is("d/");
        if found.is("d//contract/data/media/defaultBoot") {
            self.boots_from_inside = found.text::<16>().is_some_and(|text| &*text == "internal");
        }
        self.boots_from_elsewhere |= found.is("d//contract/data/media/altBoot/");
        self.has_protocol |= found.is("d//contract/data/flashProtocol") && !found.is_null();
    }

    /// True when the image of this device type is one for a stick that flashes another disk (balena contracts): what
    /// that writes is asked for instead.
    pub fn is_flasher(&self) -> bool {
        self.boots_from_inside && self.boots_from_elsewhere && !self.has_protocol
    }
}
