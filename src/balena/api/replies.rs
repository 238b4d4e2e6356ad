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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balena::stream::Reader;
    use crate::balena::version::Wanted;

    /// Reads an answer in pieces of pseudo-random lengths.
    fn read(document: &str, seed: u32, visit: &mut dyn FnMut(&Found<'_>)) {
        let mut random = seed;
        let mut rest = document.as_bytes();
        let mut reader = Reader::new();
        while !rest.is_empty() {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = 1 + (random >> 16) as usize % if seed == 0 { 1 } else { 40 };
            let (piece, after) = rest.split_at(length.min(rest.len()));
            reader.push(piece, visit).unwrap();
            rest = after;
        }
        reader.finish().unwrap();
    }

    #[test]
    fn versions_are_chosen_from_an_answer_with_more_than_was_asked_for() {
        let document = "{\"d\":[{\"raw_version\":\"5.1.20+rev1\",\"id\":1,\"note\":\"raw_version\"},\
            {\"release_tag\":[{\"raw_version\":\"9.0.0\"}],\"raw_version\":\"5.1.21\"},\
            {\"known_issue_list\":null,\"x\":{\"raw_version\":\"9.0.1\"},\"raw_version\":\"5.1.2\\u0032\"},\
            {\"raw_version\":null},{\"raw_version\":{\"a\":1}},{\"raw_version\":\"VERSION\"}],\
            \"raw_version\":\"9.0.2\",\"__metadata\":{\"d\":[{\"raw_version\":\"9.0.3\"}]}}"
            .replace("VERSION", &"9".repeat(500));
        for seed in 0..50 {
            let wanted = Wanted::parse("default").unwrap();
            let mut choice = Choice::new(&wanted);
            let mut lists = 0;
            read(&document, seed, &mut |found| {
                lists += u32::from(is_list(found));
                consider_version(found, &mut choice);
            });
            assert_eq!(&*choice.finish("x").unwrap(), "5.1.22");
            assert_eq!(lists, 1);
        }
    }

    #[test]
    fn numbers() {
        let first = |document: &str, read_number: fn(&Found<'_>) -> Option<u64>| {
            let mut number = None;
            read(document, 1, &mut |found| number = number.or(read_number(found)));
            number
        };
        assert_eq!(first("{\"d\":[{\"id\":24},{\"id\":25}]}", id), Some(24));
        assert_eq!(first("{\"d\":[{\"x\":{\"id\":23},\"id\":24}]}", id), Some(24));
        for other in
            ["{\"d\":[]}", "{\"id\":1}", "{\"d\":[{\"id\":\"24\"}]}", "{\"d\":[{\"id\":-1}]}"]
        {
            assert_eq!(first(other, id), None, "{other}");
        }
        assert_eq!(first("{\"size\":952107008}", size), Some(952_107_008));
        assert_eq!(first("{\"size\":18446744073709551616}", size), None);
        assert_eq!(first("{\"size\":1.5}", size), None);
    }

    #[test]
    fn an_image_for_a_stick_is_told_by_three_signs() {
        let contract = |data: &str| {
            let mut contract = Contract::default();
            let document = format!(
                "{{\"d\":[{{\"contract\":{{\"slug\":\"x\",\"data\":{{\"arch\":\"amd64\",{data}\"led\":false}}}}}}]}}"
            );
            read(&document, 7, &mut |found| contract.take(found));
            assert!(contract.is_known);
            contract.is_flasher()
        };
        let inside = "\"media\":{\"defaultBoot\":\"internal\",\"altBoot\":[\"usb_mass_storage\"]},";
        assert!(contract(inside));
        assert!(contract(&format!("{inside}\"flashProtocol\":null,")));
        assert!(!contract(&format!("{inside}\"flashProtocol\":\"jetsonFlash\",")));
        for other in [
            "",
            "\"media\":{\"defaultBoot\":\"internal\"},",
            "\"media\":{\"defaultBoot\":\"internal\",\"altBoot\":[]},",
            "\"media\":{\"defaultBoot\":\"sdcard\",\"altBoot\":[\"usb\"]},",
            "\"media\":{\"altBoot\":[\"usb\"]},",
        ] {
            assert!(!contract(other), "{other}");
        }
        let mut unknown = Contract::default();
        read("{\"d\":[]}", 3, &mut |found| unknown.take(found));
        assert!(!unknown.is_known);
    }
}
