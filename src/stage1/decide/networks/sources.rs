//! Where the old OS keeps its network settings, and what sysfs says about its interfaces. Read only.

use super::choice::Owner;
use super::{MAX_FILE, MAX_FILES};
use crate::error::Error;
use crate::files;
use crate::network::matching::Port;
use crate::network::{Findings, connman, dhcpcd, ifupdown, iwd, names, supplicant};
use crate::text::{PathText, Text};
use core::ops::ControlFlow;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// What is read together with a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// Nothing: each file stands for itself.
    Nothing,
    /// What it includes (ifupdown).
    Included,
    /// All others of the program, wherever they are (systemd-networkd).
    All,
}

/// Reads a file of this name.
pub type Reader = fn(&str, &[u8], &mut Findings);

/// Files of one program in one folder.
pub struct Location {
    /// The folder.
    pub folder: &'static str,
    /// What the names of its entries begin with.
    pub start: &'static str,
    /// What they end with.
    pub end: &'static str,
    /// The file below the entry, when that is a folder.
    pub below: &'static str,
    /// What is read together with it.
    pub together: Together,
    /// Whose they are.
    pub owner: Owner,
    /// What reads them; nothing when they are carried over as they are.
    pub read: Option<Reader>,
}

/// Whose files they are, and what reads them.
type Program = (Owner, Option<Reader>);

const MANAGER: Program = (Owner::Manager, None);
const SUPPLICANT: Program = (Owner::Supplicant, Some(read_supplicant));
const CONNMAN: Program = (Owner::Connman, Some(|_, bytes, found| connman::parse(bytes, found)));
const IWD: Program = (Owner::Iwd, Some(iwd::parse));
const EAD: Program = (Owner::Wired, Some(iwd::parse_cable));
const IFUPDOWN: Program = (Owner::Wired, Some(|_, bytes, found| ifupdown::parse(bytes, found)));
const NETWORKD: Program = (Owner::Wired, None);
const DHCPCD: Program = (Owner::Wired, Some(|_, bytes, found| dhcpcd::parse(bytes, found)));

/// Reads a file of wpa_supplicant.
pub fn read_supplicant(_: &str, bytes: &[u8], found: &mut Findings) {
    supplicant::parse(bytes, found);
}

/// The files of a program in a folder whose names begin and end like this.
const fn files_of(
    (owner, read): Program,
    folder: &'static str,
    start: &'static str,
    end: &'static str,
) -> Location {
    Location { folder, start, end, below: "", together: Together::Nothing, owner, read }
}

/// Where the settings of the old OS are.
pub const LOCATIONS: [Location; 18] = [
    files_of(MANAGER, "/etc/NetworkManager/system-connections", "", ""),
    // Outside of /etc NetworkManager insists on the ending (nm-settings-keyfile(5)). Netplan writes to /run.
    files_of(MANAGER, "/run/NetworkManager/system-connections", "", ".nmconnection"),
    files_of(MANAGER, "/usr/lib/NetworkManager/system-connections", "", ".nmconnection"),
    files_of(SUPPLICANT, "/etc/wpa_supplicant", "wpa_supplicant", ".conf"),
    files_of(SUPPLICANT, "/etc", "wpa_supplicant", ".conf"),
    // What netplan makes for systemd-networkd.
    files_of(SUPPLICANT, "/run/netplan", "wpa-", ".conf"),
    files_of(CONNMAN, "/var/lib/connman", "", ".config"),
    Location { below: "/settings", ..files_of(CONNMAN, "/var/lib/connman", "wifi_", "") },
    Location { below: "/settings", ..files_of(CONNMAN, "/var/lib/connman", "ethernet_", "") },
    Location { below: "/settings", ..files_of(CONNMAN, "/var/lib/connman", "cellular_", "") },
    files_of(IWD, "/var/lib/iwd", "", ".psk"),
    files_of(IWD, "/var/lib/iwd", "", ".open"),
    files_of(IWD, "/var/lib/iwd", "", ".8021x"),
    files_of(IWD, "/var/lib/iwd/hotspot", "", ".conf"),
    files_of(EAD, "/var/lib/ead", "", ".8021x"),
    Location {
        together: Together::Included,
        ..files_of(IFUPDOWN, "/etc/network", "interfaces", "interfaces")
    },
    // Beside its folders below.
    Location { together: Together::All, ..files_of(NETWORKD, "", "", "") },
    files_of(DHCPCD, "/etc", "dhcpcd.conf", "dhcpcd.conf"),
];

/// Where settings are that nobody here reads: a folder, and how names in it begin and end. On the running system what
/// is in force of them is seen (reach.rs).
pub const UNREAD: [(&str, &str, &str); 6] = [
    ("/etc/sysconfig/network-scripts", "ifcfg-", ""),
    ("/etc/sysconfig/network", "ifcfg-", ""),
    ("/etc/netplan", "", ".yaml"),
    ("/etc/netctl", "", ""),
    ("/etc/conf.d", "net", "net"),
    ("/etc/config", "network", "network"),
];

/// The folders of systemd-networkd: a name in one is not looked for in those behind it (systemd.network(5)). The last
/// is the one before it where /lib is a link.
const NETWORKD_FOLDERS: [&str; 5] = [
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
];

/// The same for a balenaOS: the boot partition first, then what was added at run time.
pub const BALENA_LOCATIONS: [Location; 2] = [
    files_of(MANAGER, "/mnt/boot/system-connections", "", ""),
    files_of(MANAGER, "/etc/NetworkManager/system-connections", "", ""),
];

/// True for the samples that a balenaOS brings (README.ignore and others), and for backups.
pub fn is_sample(name: &str) -> bool {
    name.ends_with(".ignore") || name.ends_with('~')
}

/// Reads a file whole; nothing when there is no regular file.
pub fn read<'a>(path: &str, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
    match files::status(path) {
        Ok(status) if is_regular(&status) => {}
        Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(errno) => return Err(unreadable("looking at", path, errno)),
    }
    // One byte more than the largest is enough to see that it is too large.
    let bytes =
        files::read_start(path, buffer).map_err(|errno| unreadable("reading", path, errno))?;
    if bytes.len() > MAX_FILE {
        Err(too_large(path, "it is larger than 64 KiB"))
    } else {
        Ok(Some(bytes))
    }
}

fn is_regular(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode) == FileType::RegularFile
}

#[cold]
fn unreadable(doing: &'static str, path: &str, errno: Errno) -> Error {
    Error::os(doing, path, errno).as_refusal().advice("it must be readable: root reads all (sudo)")
}

fn too_large(path: &str, why: &str) -> Error {
    Error::refused("reading", path, why)
        .advice("no network settings are that large: move the file away")
}

/// Reads a file whole, and behind it, each after a line feed, those that it includes; nothing when there is no regular
/// file. Two files may set the same interface, and then they are one set of settings.
pub fn read_together<'a>(
    root: &str,
    location: &Location,
    path: &str,
    buffer: &'a mut [u8],
) -> Result<Option<&'a [u8]>, Error> {
    let Some(mut length) = read(path, buffer)?.map(<[u8]>::len) else {
        return Ok(None);
    };
    if location.together == Together::Included {
        length = append_included(root, path, buffer, length)?;
        length = append_wpa_files(root, buffer, length)?;
    }
    if length > MAX_FILE {
        Err(too_large(path, "with the files that it includes it is larger than 64 KiB"))
    } else {
        Ok(buffer.get(..length))
    }
}

/// Reads behind the text of this length the files that it includes, and those that they include, each once; gives the
/// length with them.
fn append_included(
    root: &str,
    main: &str,
    buffer: &mut [u8],
    mut length: usize,
) -> Result<usize, Error> {
    for number in 0..MAX_FILES {
        let text = buffer.get(..length).unwrap_or_default();
        let Some(source) = ifupdown::source(text, number) else { break };
        let folder: PathText =
            crate::path!("{}{}{}", root, source.above, source.folder.trim_end_matches('/'))?;
        // The text is written to while the names are gone through.
        let pattern: Option<PathText> = match source.pattern {
            Some(pattern) => Some(crate::path!("{}", pattern)?),
            None => None,
        };
        let source = ifupdown::Source { pattern: pattern.as_deref(), above: "", folder: "" };
        for_each_name(&folder, "", "", &mut |name| {
            let path: PathText = crate::path!("{}/{}", folder.trim_end_matches('/'), name)?;
            let is_new = !ifupdown::has_file(buffer.get(..length).unwrap_or_default(), &path);
            if source.has(name) && is_new && *path != *main && length <= MAX_FILE {
                let label: PathText = crate::path!("\0{}", path)?;
                length = append(&path, &label, buffer, length)?;
            }
            Ok(())
        })?;
    }
    Ok(length)
}

/// The same for the files of wpa_supplicant that the text names. Their labels are without the root.
fn append_wpa_files(root: &str, buffer: &mut [u8], mut length: usize) -> Result<usize, Error> {
    for number in 0..MAX_FILES {
        let text = buffer.get(..length).unwrap_or_default();
        let Some(path) = ifupdown::wpa_file(text, number) else { break };
        if !ifupdown::has_file(text, path) && length <= MAX_FILE {
            let label: PathText = crate::path!("\x01{}", path)?;
            let path: PathText = crate::path!("{}{}", root, path)?;
            length = append(&path, &label, buffer, length)?;
        }
    }
    Ok(length)
}

/// Reads a file to behind the text of this length, a line feed and a line with its label; gives the length with it.
/// Nothing is added for a file that is empty or none.
fn append(path: &str, label: &str, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
    let rest = buffer.get_mut(length..).unwrap_or_default();
    let start = label.len() + 2;
    let Some((before, rest)) = rest.split_at_mut_checked(start) else {
        // Whatever there is, with it all is too large.
        let is_there = read(path, &mut [0])?.is_some_and(|bytes| !bytes.is_empty());
        return Ok(if is_there { buffer.len() } else { length });
    };
    let count = read(path, rest)?.map_or(0, <[u8]>::len);
    if count == 0 {
        return Ok(length);
    }
    for (to, from) in before.iter_mut().zip(b"\n".iter().chain(label.as_bytes()).chain(b"\n")) {
        *to = *from;
    }
    // No file is taken for several.
    for byte in rest.iter_mut().take(count).filter(|byte| **byte < 2) {
        *byte = b' ';
    }
    Ok(length + start + count)
}

/// Calls `visit` with each name in a folder that begins and ends like this, in the order of their bytes: the outcome
/// must not depend on the order in which a file system lists its names. A folder that is not there has none.
pub fn for_each_name(
    folder: &str,
    start: &str,
    end: &str,
    visit: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    for_each_name_in(&[folder], start, end, &mut |_, name| visit(name))
}

/// The same for several folders together: each name once, with the first of the folders that has it.
fn for_each_name_in(
    folders: &[&str],
    start: &str,
    end: &str,
    visit: &mut dyn FnMut(&str, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut last = PathText::new();
    for _ in 0..MAX_FILES {
        let mut next = PathText::new();
        let mut first = "";
        for folder in folders {
            let visited = files::for_each_entry(folder, &mut |name: &str| {
                let is_one = name.starts_with(start) && name.ends_with(end);
                if is_one && name > &*last && (next.is_empty() || name < &*next) {
                    next = Text::from(name);
                    first = folder;
                }
                ControlFlow::Continue(())
            });
            match visited {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(Error::os("listing", folder, errno).as_refusal()),
            }
        }
        if next.is_empty() {
            break;
        }
        visit(first, &next)?;
        last = next;
    }
    Ok(())
}

/// Reads all that systemd-networkd reads, in its order: what makes interfaces, then the settings, each file behind its
/// path and with what is added to it behind it (networkd::parse()).
pub fn read_networkd<'a>(root: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Error> {
    let mut length = 0;
    for end in [".netdev", ".network"] {
        let folders = networkd_folders(root, "")?;
        for_each_name_in(
            &folders.each_ref().map(|folder| &**folder),
            "",
            end,
            &mut |folder, name| {
                let path = crate::path!("{}/{}", folder, name)?;
                let label: PathText = crate::path!("\0{}", path)?;
                let with_file = append(&path, &label, buffer, length)?;
                // An empty file, or a link to /dev/null, stands for none.
                if with_file > length {
                    length = append_added(root, name, buffer, with_file)?;
                }
                Ok(())
            },
        )?;
    }
    if length > MAX_FILE {
        let why = "the files of systemd-networkd together are larger than 64 KiB";
        return Err(too_large("systemd/network", why));
    }
    Ok(buffer.get(..length).unwrap_or_default())
}

/// The folders of systemd-networkd below the root, and something below them.
fn networkd_folders(root: &str, below: &str) -> Result<[PathText; 5], Error> {
    let mut folders = [const { PathText::new() }; 5];
    for (folder, known) in folders.iter_mut().zip(NETWORKD_FOLDERS) {
        *folder = crate::path!("{}{}{}", root, known, below)?;
    }
    Ok(folders)
}

/// Reads what is added to a file of systemd-networkd: `NAME.d/*.conf` of all folders.
fn append_added(
    root: &str,
    name: &str,
    buffer: &mut [u8],
    mut length: usize,
) -> Result<usize, Error> {
    let below: PathText = crate::path!("/{}.d", name)?;
    let folders = networkd_folders(root, &below)?;
    for_each_name_in(
        &folders.each_ref().map(|folder| &**folder),
        "",
        ".conf",
        &mut |folder, name| {
            let path = crate::path!("{}/{}", folder, name)?;
            // No section goes on into another file.
            length = append(&path, "[]", buffer, length)?;
            Ok(())
        },
    )?;
    Ok(length)
}

/// Whether the new OS may have another name for this interface. Even `eth0` and `wlan0` last only where systemd has no
/// names for them: not on PCI, and a Wi-Fi not on USB (systemd.net-naming-scheme(7)). A cable on USB that is `eth0` is
/// the on-board one of a Raspberry Pi before 4, which balenaOS calls the same.
pub fn name_may_change(root: &str, interface: &str) -> bool {
    if names::name_may_change(interface) || is_given_name(root, interface) {
        return true;
    }
    let mut buffer = [0; 256];
    // Where it leads ends in the name of the bus. Without sysfs nothing is known against the name.
    let link = crate::path!("{}/sys/class/net/{}/device/subsystem", root, interface);
    let bus = link.and_then(|link| files::read_link(&link, &mut buffer)).unwrap_or_default();
    bus.ends_with("/bus/pci") || interface == "wlan0" && bus.ends_with("/bus/usb")
}

/// Where an administrator gives interfaces their names: systemd.link(5), and udev(7), whose rules Debian once wrote.
const NAMING: [(&str, &str); 5] = [
    ("/etc/systemd/network", ".link"),
    ("/run/systemd/network", ".link"),
    ("/usr/local/lib/systemd/network", ".link"),
    ("/etc/udev/rules.d", ".rules"),
    ("/run/udev/rules.d", ".rules"),
];

/// Whether a file of the old OS gives an interface this name: the new one has no such file, and may mean another one.
fn is_given_name(root: &str, interface: &str) -> bool {
    let mut is_given = false;
    for (folder, end) in NAMING {
        let Ok(folder) = crate::path!("{}{}", root, folder) else { continue };
        // What cannot be listed gives no name.
        let _ = for_each_name(&folder, "", end, &mut |name| {
            let mut buffer = [0; 4096];
            let path = crate::path!("{}/{}", folder, name)?;
            let bytes = files::read_start(&path, &mut buffer).unwrap_or_default();
            is_given |= names::gives_name(bytes, interface);
            Ok(())
        });
    }
    is_given
}

/// The interfaces with hardware of their own. None are known without sysfs, and of more than 16 the first.
pub fn ports(root: &str) -> heapless::Vec<Port, 16> {
    let mut ports = heapless::Vec::new();
    let Ok(folder) = crate::path!("{}/sys/class/net", root) else { return ports };
    let _ = for_each_name(&folder, "", "", &mut |name| {
        let port = files::below(&folder, name)?;
        if files::is_below(&port, "device") {
            let _ = ports.push(look_at_port(root, name, &port));
        }
        Ok(())
    });
    ports
}

/// What sysfs and udev say of an interface, whose folder in sysfs this is.
fn look_at_port(root: &str, name: &str, folder: &str) -> Port {
    let mut buffer = [0; 4096];
    let mac = Text::from(files::text_below(folder, "address", &mut buffer).unwrap_or_default());
    let mut target = [0; 256];
    let driver = files::below(folder, "device/driver")
        .and_then(|link| files::read_link(&link, &mut target))
        .unwrap_or_default();
    let driver = Text::from(driver.rsplit('/').next().unwrap_or_default());
    // What udev knows goes by the number.
    let number = files::number_below(folder, "ifindex").unwrap_or(0);
    let number = u32::try_from(number).unwrap_or(0);
    let udev = crate::format!("{}/run/udev/data/n{}", root, number);
    let known = files::text_at(udev, &mut buffer).unwrap_or_default();
    let path = known.lines().find_map(|line| line.strip_prefix("E:ID_PATH="));
    let path = Text::from(path.unwrap_or_default());
    let is_wireless = files::is_below(folder, "wireless") || files::is_below(folder, "phy80211");
    Port { name: Text::from(name), mac, driver, path, is_wireless }
}

/// The longest command line of a kernel (COMMAND_LINE_SIZE of most).
pub const COMMAND_LINE: usize = 2048;

/// The name of the machine, its number and the command line of its kernel; what is not known is empty.
pub fn about_machine<'a>(root: &str, buffers: &'a mut [[u8; COMMAND_LINE]; 3]) -> [&'a str; 3] {
    let [name, id, line] = buffers;
    let live = "proc/sys/kernel/hostname";
    let host = if files::is_below(root, live) { live } else { "etc/hostname" };
    let text = |below, buffer| files::text_below(root, below, buffer).unwrap_or_default();
    [text(host, name), text("etc/machine-id", id), text("proc/cmdline", line)]
}

/// The hardware address of an interface, when a maker gave it to this one: it lasts, whatever a system calls the
/// interface.
pub fn lasting_mac(root: &str, interface: &str) -> Option<Text<17>> {
    let folder = crate::path!("{}/sys/class/net", root).ok()?;
    let mac = makers_mac(&folder, interface)?;
    let mut count = 0_u32;
    // The ports of a switch have the address of the interface behind them (eth_hw_addr_inherit of the kernel), and say
    // of it what that one says.
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        count += u32::from(makers_mac(&folder, name).is_some_and(|other| other == mac));
        ControlFlow::Continue(())
    });
    (visited.is_ok() && count == 1).then_some(mac)
}

/// The address of an Ethernet interface that is neither made up nor set by software (`type` 1 is ARPHRD_ETHER,
/// `addr_assign_type` 0 is NET_ADDR_PERM; sysfs-class-net of the kernel's documentation).
fn makers_mac(folder: &str, interface: &str) -> Option<Text<17>> {
    let mut buffer = [0; 32];
    let is = |below, wanted| {
        let path = crate::path!("{}/{}/{}", folder, interface, below).ok()?;
        (files::read_number(&path)? == wanted).then_some(())
    };
    is("type", 1)?;
    is("addr_assign_type", 0)?;
    let path = crate::path!("{}/{}/address", folder, interface).ok()?;
    let mac = files::read_text(&path, &mut buffer).ok()?;
    names::is_makers_mac(mac).then(|| Text::from(mac))
}

/// The interface that has this hardware address; empty when none has, or more than one.
pub fn interface_with(root: &str, mac: &str) -> Text<15> {
    let (mut found, mut count) = (Text::new(), 0_u32);
    let Ok(folder) = crate::path!("{}/sys/class/net", root) else { return found };
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        let mut buffer = [0; 32];
        let path = crate::path!("{}/{}/address", folder, name);
        let address = path.ok().and_then(|path| files::read_text(&path, &mut buffer).ok());
        if address.is_some_and(|address| address.eq_ignore_ascii_case(mac)) {
            found = Text::from(name);
            count += 1;
        }
        ControlFlow::Continue(())
    });
    if visited.is_ok() && count == 1 { found } else { Text::new() }
}

/// The interface that a file of wpa_supplicant is for: what stands in `wpa_supplicant-INTERFACE.conf`,
/// `wpa_supplicant-DRIVER-INTERFACE.conf` (the units of wpa_supplicant) or `wpa-INTERFACE.conf` (netplan), when it is
/// like the name of one: with a digit. Empty for any interface.
pub fn interface_of(file: &str) -> &str {
    let bare = file.strip_suffix(".conf").unwrap_or_default();
    let rest = bare.strip_prefix("wpa_supplicant-").or(bare.strip_prefix("wpa-"));
    let rest = rest.unwrap_or_default();
    let drivers = ["nl80211-", "wext-", "wired-"];
    let interface = drivers.iter().find_map(|driver| rest.strip_prefix(driver)).unwrap_or(rest);
    if interface.bytes().any(|byte| byte.is_ascii_digit()) { interface } else { "" }
}

/// True when the Wi-Fis of an interface are in a file of its own: the units of wpa_supplicant, its hook for dhcpcd and
/// netplan take that one, and not the file for all.
pub fn has_own_wifis(root: &str, interface: &str) -> bool {
    const STARTS: [&str; 4] = [
        "/etc/wpa_supplicant/wpa_supplicant-",
        "/etc/wpa_supplicant/wpa_supplicant-nl80211-",
        "/etc/wpa_supplicant/wpa_supplicant-wext-",
        "/run/netplan/wpa-",
    ];
    STARTS.iter().any(|start| {
        let path: Result<PathText, _> = crate::path!("{}{}{}.conf", root, start, interface);
        path.is_ok_and(|path| files::exists(&path))
    })
}

/// True when a file of hostapd names the interface, which then joins no Wi-Fi but is one (`interface=` of
/// hostapd.conf). Of large files only the start is looked at: they are the example with all its comments. When the name
/// of the interface is not known, and thus empty, any file may name it.
pub fn is_access_point(root: &str, interface: &str, content: &mut [u8]) -> Result<bool, Error> {
    let folder = crate::path!("{}/etc/hostapd", root)?;
    let names_it =
        |line: &[u8]| line.trim_ascii().strip_prefix(b"interface=") == Some(interface.as_bytes());
    let mut is_one = false;
    for_each_name(&folder, "", ".conf", &mut |name| {
        let path = crate::path!("{}/{}", folder, name)?;
        // What cannot be read was no refusal yet, and is none. Opening a FIFO would wait for ever.
        if !is_one && files::status(&path).is_ok_and(|status| is_regular(&status)) {
            is_one = interface.is_empty() || {
                let bytes = files::read_start(&path, content).unwrap_or_default();
                bytes.split(|byte| *byte == b'\n').any(names_it)
            };
        }
        Ok(())
    })?;
    Ok(is_one)
}

/// True when a Wi-Fi interface is up and nothing else has a carrier (sysfs-class-net of the kernel's documentation).
pub fn is_wifi_only(root: &str) -> Result<bool, Error> {
    let folder = crate::path!("{}/sys/class/net", root)?;
    let (mut wifi_is_up, mut other_is_up) = (false, false);
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        let exists = |below| {
            crate::path!("{}/{}/{}", folder, name, below).is_ok_and(|path| files::exists(&path))
        };
        let says = |below, wanted: &[&str]| {
            let mut buffer = [0; 32];
            let path = crate::path!("{}/{}/{}", folder, name, below);
            let text = path.ok().and_then(|path| files::read_text(&path, &mut buffer).ok());
            text.is_some_and(|text| wanted.contains(&text))
        };
        // Bridges, tunnels and the loop have no device. Some drivers of Wi-Fis never say `up`.
        let is_wifi = exists("wireless") || exists("phy80211");
        wifi_is_up |= is_wifi && says("operstate", &["up", "dormant", "unknown"]);
        other_is_up |= !is_wifi && exists("device") && says("carrier", &["1"]);
        ControlFlow::Continue(())
    });
    match visited {
        Ok(()) => Ok(wifi_is_up && !other_is_up),
        // Without sysfs nothing is known, and nothing is to be refused.
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::interface_of;

    #[test]
    fn the_name_of_a_file_says_whose_wifis_are_in_it() {
        for (file, interface) in [
            ("wpa_supplicant.conf", ""),
            ("wpa_supplicant-wlan0.conf", "wlan0"),
            ("wpa_supplicant-nl80211-wlp2s0.conf", "wlp2s0"),
            ("wpa_supplicant-wired-eth0.conf", "eth0"),
            ("wpa_supplicant-home.conf", ""),
            ("wpa_supplicant2.conf", ""),
            ("wpa-wlan0.conf", "wlan0"),
            ("wpa-.conf", ""),
        ] {
            assert_eq!(interface_of(file), interface, "{file}");
        }
    }
}
