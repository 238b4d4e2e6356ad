//! The interface by which an address is reached, and whether that will still be there when every process has ended.

use crate::files;
use crate::network::routes::Way;
use crate::text::Text;
use core::net::IpAddr;

/// The interface that leads to an address; empty where the kernel's tables do not say.
pub fn interface_to(address: IpAddr) -> Text<16> {
    let table = match address {
        IpAddr::V4(_) => "/proc/net/route",
        IpAddr::V6(_) => "/proc/net/ipv6_route",
    };
    let mut way = Way::to(address);
    // A kernel without such a table has no such route.
    let _ = files::for_each_line(table, &mut |line: &[u8]| way.consider(files::as_text(line)));
    Text::from(way.interface())
}

/// True for an interface that a program keeps up, and that ends with it: a wireless one with its supplicant (cfg80211
/// has `phy80211`, its forerunner `wireless`), a tunnel of a VPN (drivers/net/tun.c has `tun_flags`), a connection of
/// pppd.
pub fn ends_with_a_program(interface: &str) -> bool {
    is_kept_by_a_program("/sys/class/net", interface)
}

fn is_kept_by_a_program(class: &str, interface: &str) -> bool {
    let Ok(folder) = files::below(class, interface) else {
        return false;
    };
    let has = |name| files::is_below(&folder, name);
    let is_kept = ["phy80211", "wireless", "tun_flags"].into_iter().any(has);
    !interface.is_empty() && (is_kept || interface.starts_with("ppp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_a_program_is_told_by_sysfs() {
        let root = std::env::temp_dir().join(format!("takeover-way-{}", std::process::id()));
        for path in ["wlan0/phy80211", "wlan1/wireless", "tun0", "eth0/device", "ppp0"] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::fs::write(root.join("tun0/tun_flags"), "0x1002\n").unwrap();
        let ends = |interface| is_kept_by_a_program(root.to_str().unwrap(), interface);
        for interface in ["wlan0", "wlan1", "tun0", "ppp0"] {
            assert!(ends(interface), "{interface}");
        }
        for interface in ["eth0", "lo", ""] {
            assert!(!ends(interface), "{interface}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn this_machine_reaches_itself_by_no_program() {
        for address in ["127.0.0.1", "::1"] {
            assert!(!ends_with_a_program(&interface_to(address.parse().unwrap())));
        }
    }
}
