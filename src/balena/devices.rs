//! Which device types a board runs: balena's table as data, and the names by which boards are known.
//!
//! Works on strings it is given; how they are read is the business of stage 1.

use crate::boot_blob::Device;
use crate::bytes;

/// What balena calls an architecture: the programs that a device type's OS is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Architecture {
    /// ARMv6 with hardware floating point.
    Rpi,
    /// ARMv7 with hardware floating point.
    Armv7hf,
    /// 64-bit ARM.
    Aarch64,
    /// 64-bit x86.
    Amd64,
}

impl Architecture {
    /// True when the CPU must be able to run 64-bit code.
    pub const fn is_64_bit(self) -> bool {
        matches!(self, Architecture::Aarch64 | Architecture::Amd64)
    }
}

/// What kind of processor there is, whatever the kernel's word size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Processor {
    /// 32-bit or 64-bit x86.
    X86,
    /// 32-bit or 64-bit ARM.
    Arm,
    /// Another: nothing is made for it.
    Other,
}

/// A board, or a family that one image fits.
#[derive(Debug)]
pub struct Board {
    /// Its name in messages.
    pub name: &'static str,
    /// What `/proc/device-tree/model` or DMI call it, revisions left out. See [`is_model`].
    models: &'static [&'static str],
    /// What the device tree's compatible list calls it (Documentation/devicetree/bindings/arm in Linux).
    compatible: &'static [&'static str],
    /// The device types that it runs.
    pub slugs: &'static [&'static str],
    /// Where its loaders lie.
    pub loaders: Loaders,
}

/// Where the loaders of a board lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loaders {
    /// In the image, or in a firmware that starts any.
    Included,
    /// In a device of their own, which gets those that the image has for it.
    Blob(Device),
    /// Elsewhere (QSPI flash, partitions that the boot ROM looks for), and they must be those that the image is for:
    /// nobody here writes them.
    Elsewhere,
}

/// Every device type in the table, and its architecture
/// (contracts/hw.device-type/*/contract.json in balena-io/contracts).
static DEVICE_TYPES: [(&str, Architecture); 22] = [
    ("raspberry-pi", Architecture::Rpi),
    ("raspberry-pi2", Architecture::Armv7hf),
    ("raspberrypi3", Architecture::Armv7hf),
    ("raspberrypi3-64", Architecture::Aarch64),
    ("fincm3", Architecture::Armv7hf),
    ("raspberrypi0-2w-64", Architecture::Aarch64),
    ("raspberrypi4-64", Architecture::Aarch64),
    ("raspberrypi400-64", Architecture::Aarch64),
    ("raspberrypicm4-ioboard", Architecture::Aarch64),
    ("raspberrypi5", Architecture::Aarch64),
    ("beaglebone-black", Architecture::Armv7hf),
    ("beaglebone-green", Architecture::Armv7hf),
    ("beaglebone-green-wifi", Architecture::Armv7hf),
    ("beaglebone-green-gateway", Architecture::Armv7hf),
    ("beagleboard-xm", Architecture::Armv7hf),
    ("intel-nuc", Architecture::Amd64),
    ("genericx86-64-ext", Architecture::Amd64),
    ("generic-amd64", Architecture::Amd64),
    ("generic-aarch64", Architecture::Aarch64),
    ("jetson-xavier", Architecture::Aarch64),
    ("jetson-xavier-nx-devkit", Architecture::Aarch64),
    ("jetson-xavier-nx-devkit-emmc", Architecture::Aarch64),
];

/// Other names of device types, as the contracts have them.
static ALIASES: [(&str, &str); 4] = [
    ("raspberrypi", "raspberry-pi"),
    ("raspberrypi2", "raspberry-pi2"),
    ("beaglebone", "beaglebone-black"),
    ("nuc", "intel-nuc"),
];

/// Any PC.
static PC: Board = Board {
    name: "a 64-bit PC",
    models: &[],
    compatible: &[],
    slugs: &["intel-nuc", "genericx86-64-ext", "generic-amd64"],
    loaders: Loaders::Included,
};

/// Any 64-bit ARM machine that starts through UEFI.
static ARM_WITH_UEFI: Board = Board {
    name: "a 64-bit ARM machine with UEFI",
    models: &[],
    compatible: &[],
    slugs: &["generic-aarch64"],
    loaders: Loaders::Included,
};

/// Any NVIDIA Jetson. Not [`ARM_WITH_UEFI`], though its newer loaders are one: parts of them lie on its disk.
static JETSON: Board = Board {
    name: "an NVIDIA Jetson",
    models: &[],
    compatible: &[],
    slugs: &[],
    loaders: Loaders::Elsewhere,
};

/// The boards that are told by name.
static BOARDS: [Board; 14] = [
    Board {
        name: "Raspberry Pi 1 or Zero",
        models: &["Raspberry Pi Model", "Raspberry Pi Zero", "Raspberry Pi Compute Module"],
        compatible: &[
            "raspberrypi,model-a",
            "raspberrypi,model-a-plus",
            "raspberrypi,model-b",
            "raspberrypi,model-b-i2c0",
            "raspberrypi,model-b-rev2",
            "raspberrypi,model-b-plus",
            "raspberrypi,compute-module",
            "raspberrypi,model-zero",
            "raspberrypi,model-zero-w",
        ],
        slugs: &["raspberry-pi"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi 2",
        models: &["Raspberry Pi 2"],
        // From revision 1.2 on it has the 64-bit BCM2837, and is a Raspberry Pi 2 all the same.
        compatible: &["raspberrypi,2-model-b", "raspberrypi,2-model-b-rev2"],
        slugs: &["raspberry-pi2"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi 3",
        models: &["Raspberry Pi 3"],
        compatible: &[
            "raspberrypi,3-model-b",
            "raspberrypi,3-model-b-plus",
            "raspberrypi,3-model-a-plus",
        ],
        slugs: &["raspberrypi3", "raspberrypi3-64"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi Compute Module 3",
        models: &["Raspberry Pi Compute Module 3"],
        compatible: &["raspberrypi,3-compute-module", "raspberrypi,3-compute-module-lite"],
        slugs: &["raspberrypi3", "raspberrypi3-64", "fincm3"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi Zero 2 W",
        models: &["Raspberry Pi Zero 2"],
        compatible: &["raspberrypi,model-zero-2-w", "raspberrypi,model-zero-2"],
        slugs: &["raspberrypi0-2w-64"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi 4",
        models: &["Raspberry Pi 4"],
        compatible: &["raspberrypi,4-model-b"],
        slugs: &["raspberrypi4-64"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi 400",
        models: &["Raspberry Pi 400"],
        compatible: &["raspberrypi,400"],
        slugs: &["raspberrypi400-64", "raspberrypi4-64"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi Compute Module 4",
        models: &["Raspberry Pi Compute Module 4"],
        compatible: &["raspberrypi,4-compute-module"],
        slugs: &["raspberrypicm4-ioboard", "raspberrypi4-64"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Raspberry Pi 5",
        models: &["Raspberry Pi 5", "Raspberry Pi 500", "Raspberry Pi Compute Module 5"],
        compatible: &[
            "raspberrypi,5-model-b",
            "raspberrypi,500",
            "raspberrypi,5-compute-module",
            "raspberrypi,5-compute-module-lite",
        ],
        slugs: &["raspberrypi5"],
        loaders: Loaders::Included,
    },
    Board {
        name: "BeagleBone Black",
        models: &["TI AM335x BeagleBone Black$", "TI AM335x BeagleBone Black Wireless$"],
        compatible: &["ti,am335x-bone-black", "ti,am335x-bone-black-wireless"],
        slugs: &["beaglebone-black"],
        loaders: Loaders::Included,
    },
    Board {
        name: "BeagleBone or BeagleBone Green",
        models: &[
            "TI AM335x BeagleBone$",
            "TI AM335x BeagleBone Green$",
            "TI AM335x BeagleBone Green Wireless$",
            "TI AM335x BeagleBone Green Gateway$",
            "Seeed AM335x BeagleBone Green Wireless$",
        ],
        compatible: &[
            "ti,am335x-bone",
            "ti,am335x-bone-green",
            "ti,am335x-bone-green-wireless",
            "ti,am335x-bone-green-gateway",
            "seeed,am335x-bone-green-wireless",
        ],
        slugs: &["beaglebone-green", "beaglebone-green-wifi", "beaglebone-green-gateway"],
        loaders: Loaders::Included,
    },
    Board {
        name: "BeagleBoard-xM",
        models: &["TI OMAP3 BeagleBoard xM"],
        compatible: &["ti,omap3-beagle-xm"],
        slugs: &["beagleboard-xm"],
        loaders: Loaders::Included,
    },
    Board {
        name: "Jetson AGX Xavier",
        // NVIDIA's kernel, then that of kernel.org.
        models: &["Jetson-AGX", "NVIDIA Jetson AGX Xavier Developer Kit"],
        compatible: &["nvidia,p2972-0000"],
        slugs: &["jetson-xavier"],
        loaders: Loaders::Blob(Device::Emmc),
    },
    Board {
        name: "Jetson Xavier NX",
        models: &["NVIDIA Jetson Xavier NX Developer Kit"],
        compatible: &["nvidia,p3509-0000+p3668-0000", "nvidia,p3509-0000+p3668-0001"],
        slugs: &["jetson-xavier-nx-devkit", "jetson-xavier-nx-devkit-emmc"],
        loaders: Loaders::Blob(Device::Nor),
    },
];

impl Board {
    /// True when an OS of this device type runs on the board; aliases are followed.
    pub fn accepts(&self, slug: &str) -> bool {
        self.slugs.contains(&canonical(slug))
    }
}

/// The board: by `model`, else by `compatible`, the NUL-separated list of the device tree, else by what any PC and any
/// 64-bit ARM machine with UEFI have in common.
pub fn board(
    model: &str,
    compatible: &[u8],
    processor: Processor,
    runs_64_bit: bool,
    efi: bool,
) -> Option<&'static Board> {
    match processor {
        Processor::X86 => runs_64_bit.then_some(&PC),
        Processor::Arm => by_model(model)
            .or_else(|| by_compatible(compatible))
            .or_else(|| is_jetson(model, compatible).then_some(&JETSON))
            .or_else(|| (runs_64_bit && efi).then_some(&ARM_WITH_UEFI)),
        Processor::Other => None,
    }
}

/// By the system on a chip, whatever it is mounted on; by the name where ACPI has taken the place of the device tree.
fn is_jetson(model: &str, compatible: &[u8]) -> bool {
    let mut entries = compatible.split(|byte| *byte == 0);
    entries.any(|entry| entry.starts_with(b"nvidia,tegra")) || bytes::has_word(model, "Jetson")
}

fn by_model(model: &str) -> Option<&'static Board> {
    let model =
        model.trim_matches(|character: char| character == '\0' || character.is_ascii_whitespace());
    BOARDS.iter().find(|board| board.models.iter().any(|pattern| is_model(model, pattern)))
}

/// True when a model is the one of the pattern, with whatever revision behind it. A pattern that ends in `$` is the
/// whole model: the BeagleBones have relatives with other parts and longer names (Blue, Green Eco).
fn is_model(model: &str, pattern: &str) -> bool {
    if let Some(whole) = pattern.strip_suffix('$') {
        return model == whole;
    }
    let Some(rest) = model.strip_prefix(pattern) else {
        return false;
    };
    match rest.strip_prefix(' ') {
        // A number right behind the name is another generation: "Zero 2 W", "Compute Module 4S".
        Some(next) => !next.starts_with(|character: char| character.is_ascii_digit()),
        // "Raspberry Pi 400" is no Raspberry Pi 4.
        None => rest.is_empty(),
    }
}

/// By the compatible list, which begins with the board itself and goes on with what resembles it. A Raspberry Pi counts
/// anywhere: a carrier's list names the module behind itself. The others count in the first place only: BeagleBones
/// with other parts name the Black behind themselves.
fn by_compatible(compatible: &[u8]) -> Option<&'static Board> {
    let entries = compatible.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
    entries.enumerate().find_map(|(place, entry)| {
        let counts = place == 0 || entry.starts_with(b"raspberrypi,");
        BOARDS
            .iter()
            .find(|board| counts && board.compatible.iter().any(|known| known.as_bytes() == entry))
    })
}

/// The device type's own name: that of an alias, else the same.
pub fn canonical(slug: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == slug).map_or(slug, |(_, name)| name)
}

/// True when two names are those of one device type.
pub fn is_same(slug: &str, other: &str) -> bool {
    canonical(slug) == canonical(other)
}

/// The architecture of a device type; nothing when it is not in the table.
pub fn architecture(slug: &str) -> Option<Architecture> {
    let name = canonical(slug);
    DEVICE_TYPES.iter().find(|(known, _)| *known == name).map(|(_, architecture)| *architecture)
}

/// True when the device type, or its alias, is in the table.
pub fn is_known(slug: &str) -> bool {
    architecture(slug).is_some()
}

/// True when the device type is known to need a CPU that runs 64-bit code.
pub fn is_64_bit(slug: &str) -> bool {
    architecture(slug).is_some_and(Architecture::is_64_bit)
}

/// True when a text has the form of a device type: lower-case letters, digits and single hyphens between them, at most
/// 63 bytes. It gets into config.json and into requests.
pub fn is_slug(text: &str) -> bool {
    let is_word = |word: &str| {
        let mut characters = word.chars();
        !word.is_empty() && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    text.len() <= 63 && text.split('-').all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line a board: model, a bar, the compatible list, a bar, the first slug of the board or nothing.
    const FIXTURES: &str = include_str!("../../tests/fixtures/devices/boards.txt");

    fn fixtures() -> impl Iterator<Item = (&'static str, Vec<u8>, &'static str)> {
        FIXTURES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(|line| {
            let parts: Vec<_> = line.split('|').map(str::trim).collect();
            let mut list: Vec<u8> = parts[1].split(' ').collect::<Vec<_>>().join("\0").into();
            list.push(0);
            (parts[0], list, parts[2])
        })
    }

    fn first(board: Option<&'static Board>) -> &'static str {
        board.and_then(|board| board.slugs.first()).unwrap_or(&"")
    }

    #[test]
    fn every_jetson_has_its_loaders_elsewhere_and_none_passes_for_any_arm_machine() {
        let (emmc, nor) = (Loaders::Blob(Device::Emmc), Loaders::Blob(Device::Nor));
        let orin = "nvidia,p3737-0000\0nvidia,tegra234\0";
        let carrier = "somebody,carrier\0nvidia,p3668-0001\0nvidia,tegra194\0";
        for (model, compatible, loaders) in [
            ("Jetson-AGX", "nvidia,p2972-0000\0nvidia,tegra194\0", emmc),
            ("NVIDIA Jetson Xavier NX Developer Kit", "", nor),
            ("NVIDIA Jetson AGX Orin Developer Kit", orin, Loaders::Elsewhere),
            ("NVIDIA Jetson Orin Nano Developer Kit", "", Loaders::Elsewhere),
            ("quill", "nvidia,quill\0nvidia,tegra186\0", Loaders::Elsewhere),
            ("Somebody's carrier", carrier, Loaders::Elsewhere),
        ] {
            for efi in [true, false] {
                let board = board(model, compatible.as_bytes(), Processor::Arm, true, efi).unwrap();
                assert_eq!(board.loaders, loaders, "{model}");
                assert!(!board.accepts("generic-aarch64"), "{model}");
            }
        }
        let mut others = BOARDS.iter().filter(|board| !board.name.starts_with("Jetson"));
        assert!(others.all(|board| board.loaders == Loaders::Included));
    }

    #[test]
    fn each_board_is_known_by_its_model() {
        assert!(fixtures().count() > 60);
        for (model, _, slug) in fixtures() {
            // As the device tree ends its strings.
            for model in [model.to_string(), format!("{model}\0")] {
                let found = board(&model, b"", Processor::Arm, true, false);
                assert_eq!(first(found), slug, "{model}");
            }
        }
    }

    #[test]
    fn each_board_is_known_by_its_compatible_list() {
        for (model, list, slug) in fixtures() {
            let found = board("Somebody's carrier", &list, Processor::Arm, true, false);
            assert_eq!(first(found), slug, "{model}");
        }
    }

    #[test]
    fn every_device_type_of_every_board_is_in_the_table_and_tested() {
        let all = BOARDS.iter().chain([&PC, &ARM_WITH_UEFI]);
        for slug in all.flat_map(|board| board.slugs) {
            assert!(is_known(slug), "{slug}");
        }
        for board in &BOARDS {
            assert!(fixtures().any(|(_, _, slug)| slug == board.slugs[0]), "{}", board.name);
            for model in board.models {
                let model = model.trim_end_matches('$');
                assert!(fixtures().any(|(name, _, _)| name.starts_with(model)), "{model}");
            }
        }
    }

    #[test]
    fn a_module_on_a_carrier_is_known_and_a_relative_of_the_black_is_not() {
        let find = |list: &[u8]| first(board("", list, Processor::Arm, false, false));
        let carrier = b"kunbus,revpi-connect4\0raspberrypi,4-compute-module\0brcm,bcm2711\0";
        assert_eq!(find(carrier), "raspberrypicm4-ioboard");
        let relative = b"sancloud,am335x-boneenhanced\0ti,am335x-bone-black\0ti,am33xx\0";
        assert_eq!(find(relative), "");
        assert_eq!(find(b"\0\0\0"), "");
        assert_eq!(find(b""), "");
        // A system on a chip is no board.
        assert_eq!(find(b"brcm,bcm2837\0"), "");
    }

    #[test]
    fn any_pc_and_any_64_bit_arm_with_uefi() {
        let pc = board("NUC7i5BNH", b"", Processor::X86, true, false).unwrap();
        for slug in ["intel-nuc", "nuc", "genericx86-64-ext", "generic-amd64"] {
            assert!(pc.accepts(slug), "{slug}");
        }
        assert!(!pc.accepts("generic-aarch64") && !pc.accepts("genericx86-64"));
        assert!(board("Eee PC", b"", Processor::X86, false, false).is_none());
        let virt =
            |wide, efi| board("linux,dummy-virt", b"linux,dummy-virt\0", Processor::Arm, wide, efi);
        assert!(virt(true, true).unwrap().accepts("generic-aarch64"));
        assert!(virt(true, false).is_none() && virt(false, true).is_none());
        // Its own images come first, even behind UEFI.
        let four = board("Raspberry Pi 4 Model B Rev 1.4", b"", Processor::Arm, true, true);
        assert_eq!(first(four), "raspberrypi4-64");
        assert!(board("SiFive", b"", Processor::Other, true, true).is_none());
    }

    #[test]
    fn what_each_board_accepts_is_what_balena_documents() {
        let find = |model| board(model, b"", Processor::Arm, true, false).unwrap();
        for (model, yes, no) in [
            ("Raspberry Pi Model B Rev 2", "raspberrypi", "raspberry-pi2"),
            ("Raspberry Pi 2 Model B Rev 1.2", "raspberry-pi2", "raspberrypi3-64"),
            ("Raspberry Pi 3 Model B Rev 1.2", "raspberrypi3-64", "fincm3"),
            ("Raspberry Pi Compute Module 3 Rev 1.0", "fincm3", "raspberrypi4-64"),
            ("Raspberry Pi Zero 2 W Rev 1.0", "raspberrypi0-2w-64", "raspberry-pi"),
            ("Raspberry Pi 4 Model B Rev 1.4", "raspberrypi4-64", "raspberrypi400-64"),
            ("Raspberry Pi 400 Rev 1.0", "raspberrypi4-64", "raspberrypi3-64"),
            ("Raspberry Pi Compute Module 4 Rev 1.0", "raspberrypi4-64", "raspberrypi400-64"),
            ("Raspberry Pi 500 Rev 1.0", "raspberrypi5", "raspberrypi4-64"),
            ("TI AM335x BeagleBone Black", "beaglebone", "beaglebone-green"),
            ("TI AM335x BeagleBone", "beaglebone-green-gateway", "beaglebone"),
            ("Jetson-AGX", "jetson-xavier", "generic-aarch64"),
        ] {
            assert!(find(model).accepts(yes), "{model} {yes}");
            assert!(!find(model).accepts(no), "{model} {no}");
        }
    }

    #[test]
    fn words_about_device_types() {
        assert!(is_64_bit("raspberrypi0-2w-64") && is_64_bit("nuc"));
        assert!(!is_64_bit("raspberrypi3") && !is_64_bit("fincm3") && !is_64_bit("unheard-of"));
        assert!(is_known("beaglebone") && !is_known("") && !is_known("raspberrypi"[1..].as_ref()));
        assert!(is_same("nuc", "intel-nuc") && is_same("x", "x") && !is_same("nuc", "beaglebone"));
        assert_eq!(architecture("raspberrypi"), Some(Architecture::Rpi));
        for good in ["raspberrypi4-64", "iot-gate-imx8", "nuc"] {
            assert!(is_slug(good), "{good}");
        }
        for bad in
            ["", "-", "a--b", "a-", "RaspberryPi", "a b", "a\"b", "a_b", "é", &"a".repeat(64)]
        {
            assert!(!is_slug(bad), "{bad}");
        }
    }
}
