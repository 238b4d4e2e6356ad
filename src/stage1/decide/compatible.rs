//! Whether the new OS is made for this device: device type, CPU, firmware, and the image's own word.
//!
//! Reads nothing: it compares what was found.

use crate::balena::devices::{self, Architecture, Loaders, Processor};
use crate::balena::layout::{LOADERS, Layout};
use crate::error::Error;
use crate::new_os::kind;
use crate::stage1::look::identity::{Identity, SecureBoot, shown};
use crate::text::{Text, Writer};
use ufmt::uWrite;

/// What the user wants, as far as the device has a say in it.
#[derive(Clone, Copy, Default)]
pub struct Wish<'a> {
    /// The device type in config.json.
    pub device_type: &'a str,
    /// `--change-dt-to`.
    pub change_to: Option<&'a str>,
    /// `--no-os-check`.
    pub no_os_check: bool,
    /// `--no-dt-check`.
    pub no_dt_check: bool,
}

impl Wish<'_> {
    /// The device type that counts.
    pub fn effective(&self) -> &str {
        self.change_to.unwrap_or(self.device_type)
    }
}

/// Checks that this device can be taken over and run an OS of the wanted device type: before anything slow. What is
/// only doubtful goes to `warn`.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn check(identity: &Identity, wish: &Wish, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let secure_boot = check_secure_boot(identity, warn);
    // An image that is no balenaOS may be signed.
    secure_boot.or_else(|error| refuse_unless(wish.effective().is_empty(), error, warn))?;
    check_system(identity, wish, warn)?;
    if wish.effective().is_empty() {
        // No config.json: the image is no balenaOS, and its own affair.
        warn(
            "the image is no balenaOS: nothing is placed on it, and it must bring its own network settings",
        );
        return Ok(());
    }
    check_change(wish)?;
    check_processor(
        identity,
        wish.effective(),
        "looking at the device type",
        "use a fleet, and a config.json, of a device type for this device",
    )?;
    check_board(identity, wish, warn)
}

/// A refusal, or with the option that turns the check off, a warning.
pub fn refuse_unless(off: bool, error: Error, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if !off {
        return Err(error);
    }
    let text: Text<500> = crate::text!("{}", error);
    warn(&text);
    Ok(())
}

fn check_secure_boot(identity: &Identity, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    match identity.secure_boot {
        SecureBoot::Off => Ok(()),
        SecureBoot::On => Err(Error::refused("looking at", "the firmware", "secure boot is on")
            .advice("the new OS would not start: turn it off in the setup of the firmware")),
        SecureBoot::Unknown => {
            warn("it cannot be told whether secure boot is on: efivarfs cannot be mounted");
            Ok(())
        }
    }
}

fn check_system(identity: &Identity, wish: &Wish, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if identity.system.is_known() {
        return Ok(());
    }
    let name = shown(&identity.system.name);
    let error = Error::refused("looking at the running system,", name, "it is not known to work");
    if wish.no_os_check {
        refuse_unless(true, error, warn)
    } else {
        Err(error.advice("--no-os-check goes on all the same"))
    }
}

fn check_change(wish: &Wish) -> Result<(), Error> {
    const DOING: &str = "reading the option --change-dt-to";
    let Some(slug) = wish.change_to else {
        return Ok(());
    };
    let slug: Text<80> = crate::text::printable(slug.as_bytes());
    if !devices::is_slug(&slug) {
        return Err(Error::usage("--change-dt-to", "device types are made of a-z, 0-9 and -"));
    }
    if devices::is_known(&slug) || wish.no_dt_check {
        Ok(())
    } else {
        Err(Error::refused(DOING, &slug, "no such device type is known")
            .advice("--no-dt-check takes it as it is"))
    }
}

/// What cannot run is refused whatever the options say.
fn check_processor(
    identity: &Identity,
    slug: &str,
    doing: &'static str,
    advice: &'static str,
) -> Result<(), Error> {
    let Some(architecture) = devices::architecture(slug) else {
        return Ok(());
    };
    let wanted = match architecture {
        Architecture::Amd64 => Processor::X86,
        _ => Processor::Arm,
    };
    let why = match wanted == identity.processor {
        false => "it is made for another kind of CPU",
        true if architecture.is_64_bit() && !identity.runs_64_bit => {
            "it needs a CPU that runs 64-bit code"
        }
        true => return Ok(()),
    };
    let board = identity.board.map_or("not in the table", |board| board.name);
    let why: Text<240> = crate::text!(
        "{}, and this device is {} ({}, {})",
        why,
        shown(&identity.model),
        board,
        identity.machine
    );
    Err(Error::refused(doing, slug, &why).advice(advice))
}

fn check_board(identity: &Identity, wish: &Wish, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let slug: Text<80> = crate::text::printable(wish.effective().as_bytes());
    let by_whom = |board: &devices::Board| match board.loaders {
        Loaders::Included => None,
        Loaders::Blob(_) if !cfg!(target_arch = "arm") => None,
        Loaders::Blob(_) => Some("the program for 32-bit ARM"),
        Loaders::Elsewhere => Some("this version"),
    };
    if let Some((board, by_whom)) = identity.board.and_then(|board| Some((board, by_whom(board)?)))
    {
        let why: Text<240> = crate::text!(
            "this is {}, and its boot blobs are not written by {}: it would not start",
            board.name,
            by_whom
        );
        let error = Error::refused("looking at the device type", &slug, &why);
        return refuse_unless(wish.no_dt_check, error, warn);
    }
    let why: Text<240> = match identity.board {
        Some(board) if board.accepts(wish.effective()) => return Ok(()),
        Some(board) => {
            crate::text!("this is {}, which runs {}", board.name, listed(board.slugs))
        }
        None => crate::text!("the model of this device is not known: {}", shown(&identity.model)),
    };
    let error = Error::refused("looking at the device type", &slug, &why);
    if wish.no_dt_check {
        refuse_unless(true, error, warn)
    } else {
        Err(error.advice(
            "use a config.json for this device, or --change-dt-to; --no-dt-check goes on all the same",
        ))
    }
}

/// Names with commas between them.
fn listed(names: &[&str]) -> Text<120> {
    Text::build(&mut |writer: &mut Writer| {
        names.iter().enumerate().try_for_each(|(place, name)| {
            writer.write_str(if place == 0 { "" } else { ", " })?;
            writer.write_str(name)
        })
    })
}

/// Checks that the image is one that can be written as it is, and that it is for the wanted device type. With
/// `identity`, it must run on that device whatever the options say; the disk may be another device's.
pub fn check_image(
    image: &Layout,
    identity: Option<&Identity>,
    wish: &Wish,
    warn: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    check_kind_of_image(image, identity, wish, warn)?;
    let Some(identity) = identity else {
        if image.device_type.starts_with("jetson-") && !cfg!(target_arch = "arm") {
            warn(
                "the image is for a Jetson, whose loaders only a takeover of that writes: without them it may not start",
            );
        }
        return Ok(());
    };
    check_start(image, identity, wish, warn)
}

const DOING: &str = "looking at";
const IMAGE: &str = "the image";

fn check_kind_of_image(
    image: &Layout,
    identity: Option<&Identity>,
    wish: &Wish,
    warn: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    kind::is_no_flasher(image)?;
    let Some(error) = kind::mismatch(image, wish.effective(), warn) else {
        return Ok(());
    };
    if wish.no_dt_check {
        if let Some(identity) = identity {
            let doing = "looking at the device type of the image,";
            let advice = "use an image for this device";
            check_processor(identity, &image.device_type, doing, advice)?;
        }
        refuse_unless(true, error, warn)
    } else {
        Err(error.advice(kind::ADVICE))
    }
}

/// Whether the firmware finds something to start on the disk that the image becomes: the image itself says it. Boards
/// whose own loaders are part of their images, as those of a Raspberry Pi, start without either.
fn check_start(
    image: &Layout,
    identity: &Identity,
    wish: &Wish,
    warn: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    let is_pc = identity.processor == Processor::X86;
    let starts_by_efi = |board: &devices::Board| board.accepts("generic-aarch64");
    if !(is_pc || identity.efi && identity.board.is_some_and(starts_by_efi)) {
        return Ok(());
    }
    let why: Text<160> = if identity.efi {
        let Some(name) = missing_loader(image, identity, warn) else {
            return Ok(());
        };
        crate::text!(
            "it has no EFI/BOOT/{}, and this device was started by UEFI of that kind",
            name
        )
    } else if image.has_boot_code {
        return Ok(());
    } else {
        Text::from("it has no boot code, and this PC was started by a BIOS, not by UEFI")
    };
    let error = Error::refused(DOING, IMAGE, &why);
    if wish.no_dt_check {
        return refuse_unless(true, error, warn);
    }
    Err(error.advice(
        "it would not start: use an image for this firmware, or set the firmware to what the image needs; \
         --no-dt-check goes on all the same",
    ))
}

/// The loader that this UEFI looks for in vain; nothing when it is there or nobody can tell.
fn missing_loader(
    image: &Layout,
    identity: &Identity,
    warn: &mut dyn FnMut(&str),
) -> Option<&'static str> {
    let Some([x64, ia32, aa64]) = image.loaders else {
        warn("it cannot be told whether UEFI starts the image: its boot partition is not FAT");
        return None;
    };
    let [name_x64, name_ia32, name_aa64] = LOADERS;
    let (name, is_there) = match (identity.processor, identity.efi_bits) {
        (Processor::X86, Some(32)) => (name_ia32, ia32),
        (Processor::X86, None) if x64 != ia32 => {
            warn(
                "it cannot be told whether UEFI starts the image: this kernel does not say whether it is of 32 or 64 bits",
            );
            return None;
        }
        (Processor::X86, _) => (name_x64, x64),
        _ => (name_aa64, aa64),
    };
    (!is_there).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mounts::FileSystem;
    use crate::stage1::look::identity::tests::device;

    /// What a check says, and the warnings, each behind "warning: ".
    fn said(result: Result<(), Error>, warnings: &str) -> String {
        match result {
            Ok(()) => warnings.to_string(),
            Err(error) => {
                let text: Text<600> = crate::text!("{}", error);
                format!("{warnings}{} ({})", text.as_str(), error.kind().exit_code())
            }
        }
    }

    fn checked(identity: &Identity, wish: &Wish) -> String {
        let mut warnings = String::new();
        let result = check(identity, wish, &mut |text| warnings += &format!("warning: {text}\n"));
        said(result, &warnings)
    }

    fn wish(device_type: &str) -> Wish<'_> {
        Wish { device_type, ..Wish::default() }
    }

    #[test]
    fn each_device_runs_its_own_device_type() {
        for (name, machine, slug) in [
            ("pi-zero-w", "armv6l", "raspberry-pi"),
            ("pi-2", "armv7l", "raspberry-pi2"),
            ("pi-2-rev-1.2", "armv7l", "raspberry-pi2"),
            ("pi-3-32-bit", "armv7l", "raspberrypi3"),
            ("pi-4", "aarch64", "raspberrypi4-64"),
            ("pi-4", "armv8l", "raspberrypi4-64"),
            ("pi-4-uefi-acpi", "aarch64", "raspberrypi4-64"),
            ("cm4-carrier", "aarch64", "raspberrypicm4-ioboard"),
            ("beaglebone-green-wireless", "armv7l", "beaglebone-green"),
            ("jetson-xavier-nx", "aarch64", "jetson-xavier-nx-devkit"),
            ("jetson-xavier-nx", "aarch64", "jetson-xavier-nx-devkit-emmc"),
            ("virt-arm64-uefi", "aarch64", "generic-aarch64"),
            ("arm-server", "aarch64", "generic-aarch64"),
            ("pc-uefi", "x86_64", "intel-nuc"),
            ("pc-32-bit-kernel", "i686", "intel-nuc"),
        ] {
            assert_eq!(checked(&device(name, machine), &wish(slug)), "", "{name}");
        }
    }

    #[test]
    fn a_jetson_whose_boot_blobs_nobody_writes_is_refused_by_name() {
        let jetson = device("jetson-orin-uefi", "aarch64");
        let text = checked(&jetson, &wish("generic-aarch64"));
        assert!(text.contains("this is an NVIDIA Jetson, "), "{text}");
        assert!(text.contains("its boot blobs are not written by this version"), "{text}");
        assert!(text.ends_with("(3)"), "{text}");
        let skip = Wish { no_dt_check: true, ..wish("generic-aarch64") };
        assert!(checked(&jetson, &skip).starts_with("warning: "));
        let text = checked(&device("jetson-xavier-nx", "aarch64"), &wish("jetson-xavier"));
        assert!(text.contains("this is Jetson Xavier NX, which runs jetson-xavier-nx-devkit"));
    }

    #[test]
    fn secure_boot_is_refused_and_what_is_not_known_of_it_is_told() {
        let unknown = device("pc-without-efivarfs", "x86_64");
        assert!(checked(&unknown, &wish("intel-nuc")).starts_with("warning: it cannot be told"));
        let on = device("pc-secure-boot", "x86_64");
        let force = Wish { no_dt_check: true, no_os_check: true, ..wish("intel-nuc") };
        let text = checked(&on, &force);
        assert!(
            text.contains("the firmware: secure boot is on") && text.ends_with("(3)"),
            "{text}"
        );
    }

    #[test]
    fn a_64_bit_device_type_needs_the_cpu_and_not_the_kernel() {
        let three = device("pi-3-32-bit", "armv7l");
        assert_eq!(checked(&three, &wish("raspberrypi3-64")), "");
        let two = device("pi-2", "armv7l");
        for no_dt_check in [false, true] {
            let wish = Wish { no_dt_check, ..wish("raspberrypi3-64") };
            let text = checked(&two, &wish);
            assert!(
                text.contains("raspberrypi3-64: it needs a CPU that runs 64-bit code"),
                "{text}"
            );
            assert!(text.ends_with("(3)"));
        }
        let text = checked(&two, &wish("raspberrypi3-64"));
        assert!(text.contains("and this device is Raspberry Pi 2 Model B"), "{text}");
        assert!(text.contains("(Raspberry Pi 2, armv7l); "), "{text}");
        let old = device("pc-32-bit-cpu", "i686");
        let force = Wish { no_dt_check: true, no_os_check: true, ..wish("genericx86-64-ext") };
        assert!(checked(&old, &force).contains("64-bit code"));
        let pc = device("pc-uefi", "x86_64");
        let force = Wish { no_dt_check: true, ..wish("raspberrypi4-64") };
        let text = checked(&pc, &force);
        assert!(
            text.contains(
                "raspberrypi4-64: it is made for another kind of CPU, and this device is \
                 Intel(R) Client Systems NUC8i3BEH (a 64-bit PC, x86_64); "
            ),
            "{text}"
        );
    }

    #[test]
    fn another_boards_device_type_is_refused_or_warned_of() {
        let four = device("pi-4", "aarch64");
        let text = checked(&four, &wish("raspberrypi3"));
        assert!(
            text.contains("raspberrypi3: this is Raspberry Pi 4, which runs raspberrypi4-64; "),
            "{text}"
        );
        let skip = Wish { no_dt_check: true, ..wish("raspberrypi3") };
        let text = checked(&four, &skip);
        assert!(text.starts_with("warning: ") && !text.contains("(3)"), "{text}");
        let unknown = device("unknown-board", "aarch64");
        let text = checked(&unknown, &wish("iot-gate-imx8"));
        assert!(text.contains("not known: Example i.MX8 Gateway"), "{text}");
        let skip = Wish { no_dt_check: true, ..wish("iot-gate-imx8") };
        assert!(checked(&unknown, &skip).starts_with("warning: "));
    }

    #[test]
    fn a_changed_device_type_is_the_one_that_counts() {
        let four = device("pi-4", "aarch64");
        let change = |from, to| Wish { device_type: from, change_to: Some(to), ..Wish::default() };
        assert_eq!(checked(&four, &change("raspberrypi3", "raspberrypi4-64")), "");
        assert!(checked(&four, &change("raspberrypi4-64", "raspberrypi3")).contains("(3)"));
        assert!(checked(&four, &change("x", "raspberypi4-64")).contains("no such device type"));
        let skip = Wish { no_dt_check: true, ..change("x", "some-new-board") };
        assert!(checked(&four, &skip).starts_with("warning: "));
        let skip = Wish { no_dt_check: true, ..change("x", "a\"b") };
        assert!(checked(&four, &skip).ends_with("(2)"));
    }

    #[test]
    fn an_unknown_system_is_refused_or_warned_of() {
        let other = device("pc-bios", "x86_64");
        let text = checked(&other, &wish("intel-nuc"));
        assert!(
            text.contains("Alpine Linux v3.20: it is not known to work; --no-os-check"),
            "{text}"
        );
        let skip = Wish { no_os_check: true, ..wish("intel-nuc") };
        let text = checked(&other, &skip);
        assert!(text.starts_with("warning: ") && !text.contains("--no-os-check"), "{text}");
    }

    fn image(device_type: &str, is_flasher: bool) -> Layout {
        Layout {
            boot_start: 0,
            boot_length: 0,
            boot_number: 1,
            file_system: Some(FileSystem::Vfat),
            boot_free: None,
            boot_features: Default::default(),
            device_type: Text::from(device_type),
            version: Text::new(),
            is_named: false,
            is_flasher,
            has_boot_code: true,
            loaders: Some([true; LOADERS.len()]),
            loader_partitions: [1; LOADERS.len()],
        }
    }

    #[test]
    fn a_firmware_must_find_what_it_starts() {
        let start = |name, machine, slug, code, loaders: Option<[bool; 3]>| {
            let identity = device(name, machine);
            let image = Layout { has_boot_code: code, loaders, ..image(slug, false) };
            let mut warnings = String::new();
            let warn = &mut |text: &str| warnings += &format!("warning: {text}\n");
            let result = check_image(&image, Some(&identity), &wish(slug), warn);
            said(result, &warnings)
        };
        let none = Some([false; 3]);
        let only = |which| Some(core::array::from_fn(|index| index == which));
        let pc = |name, code, loaders| start(name, "x86_64", "intel-nuc", code, loaders);
        // By a BIOS: the code of the first sector is all that counts.
        assert_eq!(pc("pc-bios", true, none), "");
        let text = pc("pc-bios", false, only(0));
        assert!(text.contains("it has no boot code, and this PC was started by a BIOS"), "{text}");
        assert!(text.ends_with("(3)") && text.contains("--no-dt-check"), "{text}");
        // By UEFI: the file of its width is.
        assert_eq!(pc("pc-uefi", false, only(0)), "");
        let text = pc("pc-uefi", true, only(1));
        assert!(text.contains("it has no EFI/BOOT/BOOTX64.EFI") && text.ends_with("(3)"), "{text}");
        assert_eq!(pc("pc-32-bit-uefi", false, only(1)), "");
        let text = pc("pc-32-bit-uefi", true, only(0));
        assert!(
            text.contains("it has no EFI/BOOT/BOOTIA32.EFI") && text.ends_with("(3)"),
            "{text}"
        );
        // Nobody can tell.
        assert!(pc("pc-uefi", true, None).starts_with("warning: it cannot be told whether UEFI"));
        assert!(pc("pc-old-kernel-uefi", true, only(0)).starts_with("warning: it cannot be told"));
        assert_eq!(pc("pc-old-kernel-uefi", false, Some([true; 3])), "");
        assert!(pc("pc-old-kernel-uefi", true, none).ends_with("(3)"));
        // ARM machines with UEFI, and boards that need none, though they were started by one.
        let arm = |name, slug, loaders| start(name, "aarch64", slug, false, loaders);
        assert_eq!(arm("virt-arm64-uefi", "generic-aarch64", only(2)), "");
        let text = arm("arm-server", "generic-aarch64", only(0));
        assert!(text.contains("BOOTAA64.EFI"), "{text}");
        assert_eq!(arm("pi-4", "raspberrypi4-64", none), "");
        assert_eq!(arm("pi-4-uefi-acpi", "raspberrypi4-64", none), "");
    }

    #[test]
    fn an_image_that_does_not_start_here_is_let_pass_with_a_warning() {
        let pc = device("pc-bios", "x86_64");
        let image = Layout { has_boot_code: false, ..image("intel-nuc", false) };
        let skip = Wish { no_dt_check: true, ..wish("intel-nuc") };
        let mut warnings = String::new();
        check_image(&image, Some(&pc), &skip, &mut |text| warnings += text).unwrap();
        assert!(warnings.contains("no boot code"), "{warnings}");
        // Of another device's disk nothing is known.
        check_image(&image, None, &wish("intel-nuc"), &mut |_| panic!()).unwrap();
    }

    #[test]
    fn the_image_must_be_for_the_device_and_no_flasher() {
        let checked = |image: &Layout, wish: &Wish| {
            let mut warnings = String::new();
            let warn = &mut |text: &str| warnings += &format!("warning: {text}\n");
            let result = check_image(image, None, wish, warn);
            said(result, &warnings)
        };
        assert_eq!(checked(&image("raspberrypi3", false), &wish("raspberrypi3")), "");
        assert_eq!(checked(&image("intel-nuc", false), &wish("nuc")), "");
        let changed = Wish { change_to: Some("raspberrypi3"), ..wish("raspberrypi4-64") };
        assert_eq!(checked(&image("raspberrypi3", false), &changed), "");
        let text = checked(&image("raspberrypi3", false), &wish("raspberrypi4-64"));
        assert!(text.contains("it is for raspberrypi3, not for raspberrypi4-64"), "{text}");
        assert!(text.ends_with("(3)"));
        let skip = Wish { no_dt_check: true, ..wish("raspberrypi4-64") };
        let text = checked(&image("raspberrypi3", false), &skip);
        assert!(text.starts_with("warning: ") && !text.contains("(3)"), "{text}");
        assert!(checked(&image("", false), &wish("nuc")).starts_with("warning: "));
        // Its disk may be another device's: it is said, and no more.
        let text = checked(&image("jetson-xavier", false), &wish("jetson-xavier"));
        assert!(text.starts_with("warning: the image is for a Jetson"), "{text}");
        let text = checked(&image("raspberrypi4-64", true), &skip);
        assert!(text.contains("a flasher") && text.contains("imageType=raw"), "{text}");
    }

    #[test]
    fn an_image_for_another_cpu_is_refused_whatever_the_options() {
        let pc = device("pc-uefi", "x86_64");
        let force = Wish { no_dt_check: true, ..wish("genericx86-64-ext") };
        let result = check_image(&image("raspberrypi3", false), Some(&pc), &force, &mut |_| ());
        let text = said(result, "");
        assert!(text.contains("of the image, raspberrypi3: it is made for another kind"), "{text}");
        let result = check_image(&image("intel-nuc", false), Some(&pc), &force, &mut |_| ());
        assert_eq!(said(result, ""), "");
    }
}
