//! Whose settings are in force on the old OS, as far as its files, its processes and sysfs tell: a program that does
//! not run sets nothing, an interface that is not there has no settings, and a program may have its files elsewhere.
//!
//! Reads only. What is not known counts as in force.

use super::choice::Owner;
use super::sources::{for_each_name, read};
use crate::error::Error;
use crate::files;
use crate::network::beside::{Form, values};
use crate::network::{manager, supplicant};
use crate::text::PathText;
use core::ops::ControlFlow;
use rustix::fs::FileType;

/// Where NetworkManager has its connections as a rule.
const CONNECTIONS: &str = "/etc/NetworkManager/system-connections";
/// Why a connection counts for nothing that NetworkManager does not take.
pub const INSECURE: &str =
    "NetworkManager of the old OS does not take it: its file is not root's alone (chmod 600)";
const UNMANAGED: &str = "NetworkManager of the old OS leaves its interface alone (unmanaged-devices): it is not carried over";
const IDLE_ADDRESSES: &str =
    "its fixed address is not carried over: the program that has it does not run on the old OS";
const NO_ADDRESSES: &str = "iwd of the old OS sets no addresses (EnableNetworkConfiguration): those that it has for it are not carried over";

/// A program that has to run for its settings to be in force.
struct Program {
    /// How the name of its process begins, as the kernel has it: 15 bytes at most.
    process: &'static str,
    /// Its unit of systemd.
    unit: &'static str,
    /// Where its file may be.
    files: &'static [&'static str],
    why: &'static str,
}

const PROGRAMS: [Program; 5] = [
    Program {
        process: "NetworkManager",
        unit: "NetworkManager.service",
        files: &["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"],
        why: "NetworkManager does not run on the old OS: what is set there is not in force, and not carried over",
    },
    Program {
        process: "connmand",
        unit: "connman.service",
        files: &["/usr/sbin/connmand", "/usr/bin/connmand"],
        why: "connman does not run on the old OS: what is set there is not in force, and not carried over",
    },
    Program {
        process: "iwd",
        unit: "iwd.service",
        files: &["/usr/libexec/iwd", "/usr/lib/iwd/iwd"],
        why: "iwd does not run on the old OS: what is set there is not in force, and not carried over",
    },
    Program {
        process: "dhcpcd",
        unit: "dhcpcd.service",
        files: &["/usr/sbin/dhcpcd", "/sbin/dhcpcd", "/usr/bin/dhcpcd"],
        why: "dhcpcd does not run on the old OS: what is set there is not in force, and not carried over",
    },
    Program {
        process: "systemd-network",
        unit: "systemd-networkd.service",
        files: &["/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd"],
        why: "systemd-networkd does not run on the old OS: what is set there is not in force, and not carried over",
    },
];

/// Where a command may start wpa_supplicant: a folder, and how the names of files in it begin and end.
const COMMANDS: [(&str, &str, &str); 14] = [
    ("/etc/systemd/system", "", ".service"),
    ("/run/systemd/system", "", ".service"),
    ("/usr/local/lib/systemd/system", "", ".service"),
    ("/usr/lib/systemd/system", "wpa", ".service"),
    ("/lib/systemd/system", "wpa", ".service"),
    ("/etc/systemd/system/wpa_supplicant.service.d", "", ".conf"),
    ("/etc", "rc.local", "rc.local"),
    ("/etc", "inittab", "inittab"),
    ("/etc/init.d", "", ""),
    ("/etc/local.d", "", ".start"),
    ("/etc/default", "wpa", ""),
    ("/etc/conf.d", "wpa_supplicant", ""),
    ("/etc/network", "interfaces", "interfaces"),
    ("/etc/network/interfaces.d", "", ""),
];

/// Whose settings are in force.
#[derive(Default)]
pub struct InForce {
    /// Which of the programs do not run.
    is_off: [bool; PROGRAMS.len()],
    /// iwd leaves addresses to others.
    iwd_sets_none: bool,
    manager: manager::Config,
    /// Files of wpa_supplicant that the commands name which start it.
    pub wpa_files: heapless::Vec<PathText, 8>,
}

impl InForce {
    /// Those of the OS below `root`, empty for the running one.
    pub fn of(root: &str, content: &mut [u8]) -> Result<Self, Error> {
        let mut found = Self::default();
        for (is_off, program) in found.is_off.iter_mut().zip(PROGRAMS) {
            *is_off =
                if root.is_empty() { !runs(program.process) } else { is_disabled(root, &program)? };
        }
        found.read_manager(root, content)?;
        if let Some(bytes) = content_of(root, "/etc/iwd/main.conf", content)? {
            found.iwd_sets_none = true;
            for key in ["EnableNetworkConfiguration", "enable_network_config"] {
                values(bytes, Form::Entry("General"), key, &mut |value| {
                    found.iwd_sets_none = !crate::network::ini::is_true(value);
                });
            }
        }
        for (folder, start, end) in COMMANDS {
            let folder = crate::path!("{}{}", root, folder)?;
            for_each_name(&folder, start, end, &mut |name| {
                let path = crate::path!("{}/{}", folder, name)?;
                found.add_commands(read(&path, content).ok().flatten().unwrap_or_default());
                Ok(())
            })?;
        }
        if root.is_empty() {
            found.add_processes(content);
        }
        Ok(found)
    }

    /// Reads NetworkManager.conf and what is added to it, in the order that NetworkManager.conf(5) says.
    fn read_manager(&mut self, root: &str, content: &mut [u8]) -> Result<(), Error> {
        for (folder, start) in [
            ("/usr/lib/NetworkManager/conf.d", ""),
            ("/run/NetworkManager/conf.d", ""),
            ("/etc/NetworkManager", "NetworkManager.conf"),
            ("/etc/NetworkManager/conf.d", ""),
        ] {
            let folder = crate::path!("{}{}", root, folder)?;
            for_each_name(&folder, start, ".conf", &mut |name| {
                let path = crate::path!("{}/{}", folder, name)?;
                self.manager.take(read(&path, content)?.unwrap_or_default());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Takes note of the files of wpa_supplicant that the lines of a script or a unit name.
    fn add_commands(&mut self, text: &[u8]) {
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
            if !line.starts_with(b"#") && !line.starts_with(b";") {
                self.add_command(line);
            }
        }
    }

    fn add_command(&mut self, command: &[u8]) {
        supplicant::named_files(command, &mut |path| {
            let path = PathText::from(path);
            if !self.wpa_files.contains(&path) {
                // Nobody starts as many.
                let _ = self.wpa_files.push(path);
            }
        });
    }

    /// Takes note of those of the processes.
    fn add_processes(&mut self, content: &mut [u8]) {
        files::for_each_process(&mut |id: &str| {
            if is_process(id, "wpa_supplicant") {
                let path = crate::path!("/proc/{}/cmdline", id);
                let read = path.ok().and_then(|path| files::read_start(&path, content).ok());
                self.add_command(read.unwrap_or_default());
            }
            ControlFlow::Continue(())
        });
    }

    /// The folder that takes the place of one of the usual ones.
    pub fn folder<'a>(&'a self, usual: &'a str) -> &'a str {
        if usual == CONNECTIONS && self.manager.folder.starts_with('/') {
            &self.manager.folder
        } else {
            usual
        }
    }

    /// Why what a file of this owner says is not in force.
    pub fn why_not(&self, owner: Owner, path: &str) -> Option<&'static str> {
        let program = match owner {
            Owner::Manager => 0,
            Owner::Connman => 1,
            Owner::Iwd => 2,
            Owner::Wired if path.ends_with("/dhcpcd.conf") => 3,
            Owner::Wired if path.contains("/systemd/network") => 4,
            _ => return None,
        };
        let is_off = self.is_off.get(program).copied().unwrap_or_default();
        PROGRAMS.get(program).filter(|_| is_off).map(|program| program.why)
    }

    /// Why the addresses that a program of this owner has for a Wi-Fi are not in force.
    pub fn why_no_addresses(&self, owner: Owner, path: &str) -> Option<&'static str> {
        let why = self.why_not(owner, path).map(|_| IDLE_ADDRESSES);
        why.or((owner == Owner::Iwd && self.iwd_sets_none).then_some(NO_ADDRESSES))
    }

    /// Why a connection of NetworkManager for this interface is not in force.
    pub fn why_left_alone(&self, interface: &str, mac: &str) -> Option<&'static str> {
        self.manager.leaves_alone(interface, mac).then_some(UNMANAGED)
    }

    /// Whether ifupdown's settings of an interface hold before NetworkManager's.
    pub fn is_ifupdowns(&self, path: &str) -> bool {
        self.manager.leaves_ifupdown_alone() && path.ends_with("/etc/network/interfaces")
    }
}

/// The content of a file below a root; nothing when it is not there.
fn content_of<'a>(
    root: &str,
    path: &str,
    content: &'a mut [u8],
) -> Result<Option<&'a [u8]>, Error> {
    read(&crate::path!("{}{}", root, path)?, content)
}

/// Whether a process of such a name runs. Without /proc nobody is seen, and it counts as running.
fn runs(name: &str) -> bool {
    let (mut is_there, mut is_seen) = (false, false);
    files::for_each_process(&mut |id: &str| {
        is_seen = true;
        is_there |= is_process(id, name);
        if is_there { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    is_there || !is_seen
}

/// Whether the name of a process begins like this (proc(5), comm).
fn is_process(id: &str, name: &str) -> bool {
    let mut buffer = [0; 32];
    let comm = files::text_at(crate::format!("/proc/{}/comm", id), &mut buffer);
    comm.is_some_and(|comm| comm.starts_with(name))
}

/// Whether a system that does not run does not start this program: its unit is masked, or there and wanted by nobody,
/// or the program is not there, where others are.
fn is_disabled(root: &str, program: &Program) -> Result<bool, Error> {
    let unit = program.unit;
    const FOLDERS: [&str; 3] =
        ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
    let own = crate::path!("{}/etc/systemd/system/{}", root, unit)?;
    let mut buffer = [0; 256];
    if files::read_link(&own, &mut buffer).is_ok_and(|link| link == "/dev/null") {
        return Ok(true);
    }
    let (mut is_there, mut is_wanted) = (false, false);
    for folder in FOLDERS {
        let folder = crate::path!("{}{}", root, folder)?;
        is_there |= files::is_below(&folder, unit);
        let visited = files::for_each_entry(&folder, &mut |name: &str| {
            // Where such a link leads is not looked at: it may be a whole path.
            let link = crate::path!("{}/{}/{}", folder, name, unit);
            let is_link = |link: &str| files::read_link(link, &mut [0; 256]).is_ok();
            is_wanted |= name.ends_with(".wants")
                && link.is_ok_and(|link| is_link(&link) || files::exists(&link));
            ControlFlow::Continue(())
        });
        // A folder that is not there has none.
        let _ = visited;
    }
    let has = |path: &str| {
        let path: Result<PathText, _> = crate::path!("{}{}", root, path);
        path.is_ok_and(|path| files::exists(&path))
    };
    let has_others = has("/usr/bin/env") || has("/bin/sh");
    let is_missing = has_others && !program.files.iter().any(|file| has(file));
    Ok(is_there && !is_wanted || is_missing)
}

/// Whether NetworkManager does not take a file since it is not root's alone (nms_keyfile_utils_check_file_permissions).
/// Only asked of the running OS: copies of another one have other owners.
pub fn is_insecure(root: &str, path: &str) -> bool {
    root.is_empty()
        && files::status(path).is_ok_and(|status| {
            let is_file = FileType::from_raw_mode(status.st_mode).is_file();
            is_file && (status.st_uid != 0 || status.st_mode & 0o077 != 0)
        })
}

/// Whether a connection that lies elsewhere is hidden: by a link to /dev/null that is called like its UUID
/// (NM_KEYFILE_PATH_SUFFIX_NMMETA of NetworkManager).
pub fn is_hidden(root: &str, path: &str, uuid: &str) -> bool {
    let folders = [CONNECTIONS, "/run/NetworkManager/system-connections"];
    let is_in = |folder: &&str| {
        let file = path.strip_prefix(root).and_then(|path| path.strip_prefix(*folder));
        file.is_some_and(|file| file.starts_with('/'))
    };
    // Each hides what is behind it.
    let before = folders.iter().take_while(|folder| !is_in(folder));
    !uuid.is_empty()
        && before.into_iter().any(|folder| {
            let link = crate::path!("{}{}/{}.nmmeta", root, *folder, uuid);
            let mut buffer = [0; 256];
            link.and_then(|link| files::read_link(&link, &mut buffer).map(|to| to == "/dev/null"))
                .unwrap_or_default()
        })
}

/// Whether there is no interface of this name or, without a name, with this hardware address. Only sysfs tells, and one
/// that knows no hardware at all is no help. An address that an interface was given hides the one that it came with,
/// and may be what is looked for (`addr_assign_type`, sysfs-class-net of the kernel's documentation).
pub fn is_absent(root: &str, interface: &str, mac: &str) -> bool {
    let Ok(folder) = crate::path!("{}/sys/class/net", root) else { return false };
    let (mut knows_hardware, mut is_there, mut may_be_there) = (false, false, false);
    let visited = files::for_each_entry(&folder, &mut |name: &str| {
        let mut buffer = [0; 32];
        let place: Result<PathText, _> = files::below(&folder, name);
        let place = place.unwrap_or_default();
        knows_hardware |= files::is_below(&place, "device");
        let address = files::text_below(&place, "address", &mut buffer).unwrap_or_default();
        is_there |= if interface.is_empty() {
            address.eq_ignore_ascii_case(mac)
        } else {
            name == interface
        };
        may_be_there |= files::number_below(&place, "addr_assign_type") != Some(0) && name != "lo";
        ControlFlow::Continue(())
    });
    let is_named = !interface.is_empty() || !mac.is_empty();
    let is_known = !interface.is_empty() || !may_be_there;
    visited.is_ok() && knows_hardware && is_named && is_known && !is_there
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_by_their_names() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(runs(own.trim()) && !runs("no such process"));
    }

    #[test]
    fn the_running_os_is_looked_at_without_harm() {
        let mut content = vec![0; super::super::SCRATCH];
        InForce::of("", &mut content).unwrap();
        super::super::beside("", &mut content, &mut |_| {}).unwrap();
        super::super::beside::name_servers("", &mut content).unwrap();
        assert!(!is_absent("", "", "") && !is_absent("/nowhere", "eth0", ""));
    }

    #[test]
    fn only_what_is_roots_alone_is_taken_of_the_running_os() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("takeover-insecure-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        let text = path.to_str().unwrap();
        for mode in [0o644, 0o640, 0o604] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(is_insecure("", text) && !is_insecure("/mnt", text), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(is_insecure("", text), !is_root);
        std::fs::remove_file(&path).unwrap();
        assert!(!is_insecure("", text));
    }
}
