//! What the running device is: board, operating system, CPU, firmware, name.
//!
//! Reads only. What the names mean is in `balena::devices` and `balena::systems`.

use crate::balena::devices::{self, Board, Processor};
use crate::balena::{config, systems};
use crate::disk::detached;
use crate::efi::variables::{self, GLOBAL};
use crate::error::Error;
use crate::files;
use crate::text::Text;

/// What `/proc/cpuinfo` says of the first CPU fits into this, in bytes.
const CPUINFO_LENGTH: usize = 8 * 1024;

/// Whether the firmware starts only what is signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecureBoot {
    /// It starts anything; also where there is no EFI.
    Off,
    /// It starts only what is signed with a key of its own.
    On,
    /// The variables cannot be read.
    Unknown,
}

/// What the running device is.
pub struct Identity {
    /// What the device calls itself; empty when it does not.
    pub model: Text<128>,
    /// The board in balena's table.
    pub board: Option<&'static Board>,
    /// The operating system.
    pub system: systems::System,
    /// The kind of processor.
    pub processor: Processor,
    /// What the kernel is made for, as uname(2) has it: `x86_64`, `aarch64`, `armv7l`.
    pub machine: Text<16>,
    /// True when the CPU runs 64-bit code, whatever the kernel does.
    pub runs_64_bit: bool,
    /// True when the device was started through EFI.
    pub efi: bool,
    /// How wide the code of the EFI firmware is, in bits: 64 or 32; nothing before Linux 4.0, which does not say
    /// (Documentation/ABI/testing/sysfs-firmware-efi).
    pub efi_bits: Option<u64>,
    /// Whether the firmware starts only what is signed.
    pub secure_boot: SecureBoot,
    /// The device's name; empty when it has none of its own.
    pub hostname: Text<64>,
}

/// Looks at the device. `root` is empty, but for tests: there it is the folder that has the `proc`, `sys` and `etc` of
/// a device. What is not there is left empty; only a `root` that is too long for a path is an error.
pub fn gather(root: &str) -> Result<Identity, Error> {
    let names = rustix::system::uname();
    let text = |name: &core::ffi::CStr| crate::text::printable::<64>(name.to_bytes());
    gather_on(root, &text(names.machine()), &text(names.nodename()))
}

fn gather_on(root: &str, machine: &str, node_name: &str) -> Result<Identity, Error> {
    let at = |path: &str| files::below(root, path);
    let processor = processor(machine);
    let runs_64_bit = cpu_runs_64_bit(processor, machine, &at("proc/cpuinfo")?);
    let efi = files::is_below(root, "sys/firmware/efi");
    let mut compatible = [0; 512];
    let compatible =
        files::read_start(&at("proc/device-tree/compatible")?, &mut compatible).unwrap_or_default();
    let mut model = first_string(root, "proc/device-tree/model");
    let has_tree = !model.is_empty();
    if !has_tree {
        model = first_string(root, "sys/class/dmi/id/product_name");
    }
    let board = devices::board(&model, compatible, processor, runs_64_bit, efi);
    if !has_tree {
        model = with_vendor(&first_string(root, "sys/class/dmi/id/sys_vendor"), &model);
    }
    let mut secure_boot =
        if efi { secure_boot_in(&at(variables::FOLDER)?)? } else { SecureBoot::Off };
    // Not mounted. (Of a device in a test nothing can be.)
    if secure_boot == SecureBoot::Unknown
        && root.is_empty()
        && let Ok(variables) = detached::mount("efivarfs")
    {
        secure_boot = secure_boot_in(&variables.path)?;
    }
    Ok(Identity {
        model,
        board,
        system: operating_system(root),
        processor,
        machine: Text::from(machine),
        runs_64_bit,
        efi,
        efi_bits: files::number_below(root, "sys/firmware/efi/fw_platform_size"),
        secure_boot,
        hostname: hostname(root, node_name),
    })
}

/// The first string of a file: up to a NUL (device tree) or the end of a line; empty when there is none.
fn first_string(root: &str, path: &str) -> Text<128> {
    let mut buffer = [0; 256];
    let path = files::below(root, path).ok();
    let bytes = path.and_then(|path| files::read_start(&path, &mut buffer).ok());
    let bytes = bytes.unwrap_or_default();
    let mut strings = bytes.split(|byte| matches!(byte, 0 | b'\n'));
    crate::text::printable(strings.next().unwrap_or_default().trim_ascii())
}

/// A product with its vendor's name, for those that do not begin with it.
fn with_vendor(vendor: &str, product: &str) -> Text<128> {
    if vendor.split(' ').next().is_none_or(|word| product.starts_with(word)) {
        Text::from(product)
    } else {
        crate::text!("{} {}", vendor, product)
    }
}

fn processor(machine: &str) -> Processor {
    match machine {
        "x86_64" | "i386" | "i486" | "i586" | "i686" => Processor::X86,
        _ if machine.starts_with("arm") || machine.starts_with("aarch64") => Processor::Arm,
        _ => Processor::Other,
    }
}

/// The same as below, by the beginning of `/proc/cpuinfo`: of the first CPU only, there may be hundreds.
#[inline(never)]
fn cpu_runs_64_bit(processor: Processor, machine: &str, path: &str) -> bool {
    let mut buffer = [0; CPUINFO_LENGTH];
    let cpuinfo = files::read_start(path, &mut buffer).unwrap_or_default();
    runs_64_bit(processor, machine, files::as_text(cpuinfo))
}

/// Whether the CPU runs 64-bit code. A 64-bit kernel says so itself (`armv8l` is what a 32-bit program is told by one).
/// Else an x86 CPU has the flag `lm`. A 32-bit ARM kernel calls every CPU from ARMv7 on "CPU architecture: 7"
/// (`c_show` in arch/arm/kernel/setup.c), so only the part number tells.
fn runs_64_bit(processor: Processor, machine: &str, cpuinfo: &str) -> bool {
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim_ascii() == name).then(|| value.trim_ascii())
        })
    };
    let number = |name: &str| {
        let digits = field(name)?.strip_prefix("0x")?;
        u32::from_str_radix(digits, 16).ok()
    };
    match processor {
        Processor::X86 => {
            machine == "x86_64"
                || field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "lm"))
        }
        Processor::Arm => {
            machine.starts_with("aarch64")
                || machine.starts_with("armv8")
                || is_64_bit_part(number("CPU implementer"), number("CPU part"))
        }
        Processor::Other => false,
    }
}

/// ARM's own cores from ARMv8-A on are 0xd02 and up, but for the Cortex-A32 (0xd01), the Cortex-R52 (0xd13, 0xd16) and
/// those without a memory management unit, which run no Linux (lscpu-arm.c in util-linux, cputype.h in arch/arm64).
/// Cavium, Fujitsu, HiSilicon, APM and Ampere make 64-bit cores only, and so does NVIDIA.
fn is_64_bit_part(implementer: Option<u32>, part: Option<u32>) -> bool {
    match (implementer, part) {
        (Some(0x41), Some(0xd13 | 0xd16)) => false,
        (Some(0x41), Some(part)) => (0xd02..0x1000).contains(&part),
        (Some(0x43 | 0x46 | 0x48 | 0x4e | 0x50 | 0xc0), _) => true,
        _ => false,
    }
}

/// The operating system, from the first of two places that has a file.
#[inline(never)]
fn operating_system(root: &str) -> systems::System {
    let mut buffer = [0; systems::MAX_LENGTH];
    let place = if files::is_below(root, "etc/os-release") {
        "etc/os-release"
    } else {
        "usr/lib/os-release"
    };
    let path = files::below(root, place).ok();
    // One of more than 8 KiB is none of a system that is known.
    let bytes = path.and_then(|path| files::read_start(&path, &mut buffer).ok());
    systems::System::parse(bytes.unwrap_or_default())
}

/// Secure boot is on when SecureBoot is 1 and the firmware is not in setup mode, in which it checks nothing (UEFI
/// specification, section 3.3). A file of efivarfs has four bytes of attributes, then the value.
fn secure_boot_in(folder: &str) -> Result<SecureBoot, Error> {
    let value = |name: &str| -> Result<Option<u8>, Error> {
        let mut buffer = [0; 8];
        let path = crate::path!("{}/{}-{}", folder, name, GLOBAL)?;
        Ok(files::read(&path, &mut buffer).ok().and_then(|bytes| bytes.get(4).copied()))
    };
    match (value("SecureBoot")?, value("SetupMode")?) {
        (Some(1), Some(1)) => Ok(SecureBoot::Off),
        (Some(1), _) => Ok(SecureBoot::On),
        (Some(_), _) => Ok(SecureBoot::Off),
        // Firmware that has variables, but not this one, does not know secure boot.
        (None, _) => {
            // A folder that is not there has none.
            let has_variables = files::has_entry(folder);
            Ok(if has_variables { SecureBoot::Off } else { SecureBoot::Unknown })
        }
    }
}

/// The name that was given to the device: hostname(5), else what the kernel has; not the one that every device has.
fn hostname(root: &str, node_name: &str) -> Text<64> {
    let mut buffer = [0; 512];
    let text = files::text_below(root, "etc/hostname", &mut buffer).unwrap_or_default();
    let given =
        text.lines().map(str::trim_ascii).find(|line| !line.is_empty() && !line.starts_with('#'));
    let name = given.unwrap_or(node_name);
    match name {
        "(none)" => Text::new(),
        _ if name.split('.').next() == Some("localhost") => Text::new(),
        _ => crate::text::printable(name.as_bytes()),
    }
}

impl Identity {
    /// True for balenaOS.
    pub fn is_balena_os(&self) -> bool {
        self.system.is_balena_os()
    }

    /// The name that the new OS can keep. One that is no host name for others is left out, with a warning.
    pub fn kept_hostname(&self, warn: &mut dyn FnMut(&str)) -> Option<&str> {
        let name = self.hostname.as_str();
        match config::is_hostname(name) {
            true => Some(name),
            false if name.is_empty() => None,
            false => {
                let text: Text<200> =
                    crate::text!("the name '{}' is no host name and is not kept", name);
                warn(&text);
                None
            }
        }
    }

    /// Logs what was found.
    pub fn log(&self) {
        crate::info!(
            "this device: {} ({}), {} on {}, {}, {}",
            shown(&self.model),
            self.board.map_or("not in the table", |board| board.name),
            shown(&self.system.name),
            self.machine,
            if self.runs_64_bit { "a 64-bit CPU" } else { "a 32-bit CPU" },
            if self.efi { "EFI" } else { "no EFI" }
        );
    }
}

/// A name, or the word for none.
pub fn shown(name: &str) -> &str {
    if name.is_empty() { "unknown" } else { name }
}

#[cfg(test)]
pub(in crate::stage1) mod tests {
    use super::*;

    /// A folder with what the device of a fixture has in `/proc`, `/sys` and `/etc`, removed when done.
    struct Tree(std::path::PathBuf);

    impl Tree {
        /// A fixture is a text: `== PATH` begins a file, `\\0` and `\\xNN` in its lines are bytes, and a `\\` at the
        /// end of a line means that the line does not end there.
        fn unpack(text: &str) -> Self {
            static NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            let name = format!("takeover-identity-{}-{number}", std::process::id());
            let tree = Tree(std::env::temp_dir().join(name));
            std::fs::create_dir_all(&tree.0).unwrap();
            for file in text.split("== ").skip(1) {
                let (path, content) = file.split_once('\n').unwrap();
                let path = tree.0.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes_of(content)).unwrap();
            }
            tree
        }

        fn identity(&self, machine: &str) -> Identity {
            let root = self.0.to_str().unwrap();
            gather_on(root, machine, "node-name").unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn bytes_of(content: &str) -> Vec<u8> {
        let content = content.replace("\\\n", "").replace("\\0", "\\x00");
        let mut parts = content.split("\\x");
        let mut bytes: Vec<u8> = parts.next().unwrap().into();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend(part[2..].bytes());
        }
        bytes
    }

    fn fixture(name: &str) -> String {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/devices/");
        std::fs::read_to_string(format!("{folder}{name}.tree")).unwrap()
    }

    /// The device of a fixture.
    pub fn device(name: &str, machine: &str) -> Identity {
        Tree::unpack(&fixture(name)).identity(machine)
    }

    #[test]
    fn each_device_is_known_with_its_cpu_and_system() {
        for (name, machine, model, slug, wide) in [
            ("pi-zero-w", "armv6l", "Raspberry Pi Zero W Rev 1.1", "raspberry-pi", false),
            ("pi-2", "armv7l", "Raspberry Pi 2 Model B Rev 1.1", "raspberry-pi2", false),
            ("pi-2-rev-1.2", "armv7l", "Raspberry Pi 2 Model B Rev 1.2", "raspberry-pi2", true),
            ("pi-3-32-bit", "armv7l", "Raspberry Pi 3 Model B Plus Rev 1.3", "raspberrypi3", true),
            ("pi-4", "aarch64", "Raspberry Pi 4 Model B Rev 1.4", "raspberrypi4-64", true),
            ("pi-4", "armv8l", "Raspberry Pi 4 Model B Rev 1.4", "raspberrypi4-64", true),
            ("pi-4-uefi-acpi", "aarch64", "Raspberry Pi 4 Model B", "raspberrypi4-64", true),
            (
                "cm4-carrier",
                "aarch64",
                "Example Industrial Gateway",
                "raspberrypicm4-ioboard",
                true,
            ),
            (
                "beaglebone-green-wireless",
                "armv7l",
                "TI AM335x BeagleBone Green Wireless",
                "beaglebone-green",
                false,
            ),
            (
                "jetson-xavier-nx",
                "aarch64",
                "NVIDIA Jetson Xavier NX Developer Kit",
                "jetson-xavier-nx-devkit",
                true,
            ),
            ("virt-arm64-uefi", "aarch64", "linux,dummy-virt", "generic-aarch64", true),
            ("arm-server", "aarch64", "Ampere Example Server", "generic-aarch64", true),
            ("pc-uefi", "x86_64", "Intel(R) Client Systems NUC8i3BEH", "intel-nuc", true),
            ("pc-32-bit-kernel", "i686", "ACME Netbook 2", "intel-nuc", true),
        ] {
            let identity = device(name, machine);
            assert_eq!(identity.model.as_str(), model, "{name}");
            assert_eq!(identity.board.map_or("", |board| board.slugs[0]), slug, "{name}");
            assert_eq!(identity.runs_64_bit, wide, "{name}");
            assert_eq!(identity.machine.as_str(), machine);
        }
    }

    #[test]
    fn parts_of_arm_and_others() {
        let arm = |part| is_64_bit_part(Some(0x41), Some(part));
        // Cortex-A53, A35, A57, A72, A76, Neoverse N1, A510.
        assert!([0xd03, 0xd04, 0xd07, 0xd08, 0xd0b, 0xd0c, 0xd46].into_iter().all(arm));
        // ARM1176, Cortex-A7, A8, A15, A32, R52.
        assert!(![0xb76, 0xc07, 0xc08, 0xc0f, 0xd01, 0xd13].into_iter().any(arm));
        assert!(is_64_bit_part(Some(0x4e), Some(4)) && !is_64_bit_part(Some(0x51), Some(0x6f)));
        assert!(!is_64_bit_part(None, Some(0xd03)) && !is_64_bit_part(Some(0x41), None));
    }

    #[test]
    fn secure_boot_is_read_from_the_variables() {
        let with = |name| device(name, "x86_64");
        assert_eq!(with("pc-uefi").secure_boot, SecureBoot::Off);
        assert_eq!(with("pc-bios").secure_boot, SecureBoot::Off);
        assert_eq!(with("pc-setup-mode").secure_boot, SecureBoot::Off);
        assert_eq!(with("pc-without-secure-boot").secure_boot, SecureBoot::Off);
        let unknown = with("pc-without-efivarfs");
        assert!(unknown.efi && unknown.secure_boot == SecureBoot::Unknown);
        assert_eq!(with("pc-secure-boot").secure_boot, SecureBoot::On);
    }

    #[test]
    fn nothing_to_read_is_no_error_and_too_long_a_root_is() {
        let empty = Tree::unpack("").identity("riscv64");
        assert!(empty.board.is_none() && empty.model.is_empty() && !empty.efi);
        assert_eq!(empty.hostname.as_str(), "node-name");
        assert!(gather(&"x".repeat(300)).is_err());
        let here = gather("").unwrap();
        assert!(!here.machine.is_empty());
    }

    #[test]
    fn the_name_is_kept_when_it_is_one() {
        let name = |content: &str, node_name: &str| {
            let tree = Tree::unpack(&format!("== etc/hostname\n{content}"));
            let root = tree.0.to_str().unwrap().to_string();
            let identity = gather_on(&root, "x86_64", node_name).unwrap();
            let mut warnings = String::new();
            let kept = identity.kept_hostname(&mut |text| warnings += text).map(str::to_string);
            (kept.unwrap_or_default(), warnings)
        };
        for (content, node_name, kept) in [
            ("gateway-17\n", "other", "gateway-17"),
            ("# a comment\n\n  pi.example.org  \n", "x", "pi.example.org"),
            ("", "from-the-kernel", "from-the-kernel"),
            ("localhost\n", "x", ""),
            ("localhost.localdomain\n", "x", ""),
            ("", "(none)", ""),
        ] {
            assert_eq!(name(content, node_name), (kept.to_string(), String::new()), "{content}");
        }
        let (kept, warning) = name("my_pi\n", "x");
        assert_eq!(kept, "");
        assert!(warning.contains("'my_pi' is no host name"));
    }
}
