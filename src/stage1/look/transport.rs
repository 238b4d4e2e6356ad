//! How a disk is reached: by a bus of this machine, or over a network.
//!
//! Reads only: the path of its device in sysfs names what it hangs on.

use crate::{bytes, files};
use core::ops::ControlFlow;

/// How a disk is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// By a bus of this machine.
    Local,
    /// By Fibre Channel through an adapter: its own firmware and the kernel find the disk, no network and no process
    /// of the old OS is needed.
    FibreChannel,
    /// Over a network that is set up by the old OS, by the name of the protocol.
    Network(&'static str),
}

/// How the disk with this name of the kernel's is reached; local as long as nothing says otherwise.
pub fn of(disk: &str) -> Transport {
    of_in("/sys", disk)
}

fn of_in(sys: &str, disk: &str) -> Transport {
    if let Some(transport) = nvme(sys, disk) {
        return transport;
    }
    let mut buffer = [0; 256];
    let link = crate::path!("{}/block/{}", sys, disk)
        .and_then(|path| files::read_link(&path, &mut buffer))
        .unwrap_or_default();
    let transport = by_path(link);
    if transport == Transport::Local && is_srp(sys, link) {
        return Transport::Network("SRP");
    }
    transport
}

/// From the path of a device: the transport classes of SCSI put what they go through into it
/// (scsi_transport_iscsi.c and scsi_transport_fc.c in drivers/scsi). FCoE of the kernel hangs on a network interface
/// (drivers/scsi/fcoe), that of an adapter on the adapter; USB over IP on a controller that is none.
fn by_path(path: &str) -> Transport {
    let has = |part: &str| bytes::has_word(path, part);
    if has("/session") {
        Transport::Network("iSCSI")
    } else if has("/rport-") && (has("/net/") || has("/ctlr_")) {
        Transport::Network("FCoE")
    } else if has("/rport-") {
        Transport::FibreChannel
    } else if has("/vhci_hcd") {
        Transport::Network("USB/IP")
    } else {
        Transport::Local
    }
}

/// SCSI over InfiniBand leaves no trace in the path; its host has the name of the driver.
fn is_srp(sys: &str, path: &str) -> bool {
    let mut buffer = [0; 64];
    let host = path.split('/').find(|part| part.starts_with("host"));
    let name = host
        .and_then(|host| crate::path!("{}/class/scsi_host/{}", sys, host).ok())
        .and_then(|folder| files::text_below(&folder, "proc_name", &mut buffer));
    name == Some("ib_srp")
}

/// What a namespace of NVMe goes through: each of its controllers has a file `transport` (drivers/nvme/host/sysfs.c).
/// Where there may be several ways, the namespace hangs on the subsystem, which has links to the controllers.
fn nvme(sys: &str, disk: &str) -> Option<Transport> {
    if !disk.starts_with("nvme") {
        return None;
    }
    let device = crate::path!("{}/block/{}/device", sys, disk).ok()?;
    let one = |folder: &str| {
        let mut buffer = [0; 32];
        match files::text_below(folder, "transport", &mut buffer)? {
            "tcp" | "rdma" | "loop" => Some(Transport::Network("NVMe over fabrics")),
            "fc" => Some(Transport::FibreChannel),
            _ => Some(Transport::Local),
        }
    };
    let mut found = one(&device);
    // Without controllers it is no disk.
    let _ = files::for_each_entry(&device, &mut |name: &str| {
        if name.starts_with("nvme")
            && let Ok(controller) = files::below(&device, name)
        {
            found = found.or_else(|| one(&controller));
        }
        ControlFlow::Continue(())
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_disk_hangs_on_stands_in_its_path() {
        for (path, transport) in [
            (
                "../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda",
                Transport::Local,
            ),
            (
                "../devices/platform/host2/session1/target2:0:0/2:0:0:1/block/sdb",
                Transport::Network("iSCSI"),
            ),
            (
                "../devices/pci0000:80/0000:80:02.0/0000:81:00.0/host7/rport-7:0-2/target7:0:0/7:0:0:1/block/sdc",
                Transport::FibreChannel,
            ),
            (
                "../devices/pci0000:00/0000:00:03.0/net/eth4/ctlr_0/host9/rport-9:0-0/target9:0:0/9:0:0:0/block/sdd",
                Transport::Network("FCoE"),
            ),
            (
                "../devices/platform/vhci_hcd.0/usb3/3-1/3-1:1.0/host4/target4:0:0/4:0:0:0/block/sde",
                Transport::Network("USB/IP"),
            ),
            ("../devices/pci0000:00/0000:00:05.0/virtio2/block/vda", Transport::Local),
            (
                "../devices/platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0",
                Transport::Local,
            ),
            ("", Transport::Local),
        ] {
            assert_eq!(by_path(path), transport, "{path}");
        }
    }

    #[test]
    fn nvme_is_told_by_its_controllers_and_srp_by_its_driver() {
        let sys = std::env::temp_dir().join(format!("takeover-transport-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = sys.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("block/nvme0n1/device/transport", "pcie\n");
        write("block/nvme1n1/device/transport", "tcp\n");
        write("block/nvme2n1/device/nvme2/transport", "rdma\n");
        write("block/nvme3n1/device/nvme3/transport", "fc\n");
        write("class/scsi_host/host5/proc_name", "ib_srp\n");
        write("class/scsi_host/host6/proc_name", "ahci\n");
        for (disk, host) in [("sda", "host5"), ("sdb", "host6")] {
            let path = format!("../devices/pci0000:00/0000:00:17.0/{host}/target0/block/{disk}");
            symlink(path, sys.join("block").join(disk)).unwrap();
        }
        let of = |disk| of_in(sys.to_str().unwrap(), disk);
        assert_eq!(of("nvme0n1"), Transport::Local);
        assert_eq!(of("nvme1n1"), Transport::Network("NVMe over fabrics"));
        assert_eq!(of("nvme2n1"), Transport::Network("NVMe over fabrics"));
        assert_eq!(of("nvme3n1"), Transport::FibreChannel);
        assert_eq!(of("sda"), Transport::Network("SRP"));
        assert_eq!(of("sdb"), Transport::Local);
        std::fs::remove_dir_all(sys).unwrap();
    }
}
