//! Which of several settings of one network is taken.

use super::MAX_NAME;
use crate::network::Ssid;
use crate::text::Text;

/// Whose settings a file is; of two that know the same Wi-Fi, the earlier one is believed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The user, by `--nwmgr-cfg`.
    User,
    /// NetworkManager.
    Manager,
    /// wpa_supplicant.
    Supplicant,
    /// connman.
    Connman,
    /// iwd.
    Iwd,
    /// ifupdown, systemd-networkd, dhcpcd.
    Wired,
}

/// What is stored for a candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// A Wi-Fi that is a way online.
    Wifi,
    /// An interface with a cable, translated.
    Wired,
    /// A modem.
    Modem,
    /// Something else.
    Other,
}

/// A network that was chosen.
pub struct Candidate {
    /// Which of all findings it is.
    pub ordinal: u32,
    /// Whose settings it is in.
    pub owner: Owner,
    /// What it is.
    pub sort: Sort,
    /// For Wi-Fis.
    pub ssid: Ssid,
    /// For interfaces: the lasting hardware address, or else the name.
    pub port: Text<17>,
    /// For connections of NetworkManager.
    pub uuid: Text<36>,
    /// The name that its file keeps, if it does.
    pub file_name: Text<MAX_NAME>,
    /// It comes up by itself.
    pub autoconnect: bool,
    /// Higher is tried first.
    pub priority: i32,
    /// The priority that the settings of one interface need, to be taken rather than this one.
    pub priority_before: i32,
    /// It has fixed addresses, as far as its file was read.
    pub is_fixed: bool,
}

impl Candidate {
    /// A candidate of which nothing else is known.
    pub fn new(owner: Owner, sort: Sort) -> Self {
        Self {
            ordinal: 0,
            owner,
            sort,
            ssid: Ssid::new(),
            port: Text::new(),
            uuid: Text::new(),
            file_name: Text::new(),
            autoconnect: true,
            priority: 0,
            priority_before: 0,
            is_fixed: false,
        }
    }

    /// True when both are settings of the same network. What the user gives is never compared with what the user
    /// gives.
    pub fn is_same(&self, other: &Self) -> bool {
        let both = |owner| self.owner == owner && other.owner == owner;
        let same_wifi =
            self.sort == Sort::Wifi && other.sort == Sort::Wifi && self.ssid == other.ssid;
        // NetworkManager may have several profiles for one port.
        let same_interface = self.sort != Sort::Wifi
            && !both(Owner::Manager)
            && !self.port.is_empty()
            && self.port.eq_ignore_ascii_case(&other.port);
        self.is_copy(other) || !both(Owner::User) && (same_wifi || same_interface)
    }

    /// True when fixed addresses are given up with `other`, and the user has not said what to take instead.
    pub fn drops_addresses_of(&self, other: &Self) -> bool {
        other.is_fixed && !self.is_fixed && self.owner != Owner::User
    }

    /// True when one file takes the place of the other: the first one found does, as in NetworkManager.
    fn is_copy(&self, other: &Self) -> bool {
        is_set(&self.uuid, &other.uuid) || is_set(&self.file_name, &other.file_name)
    }

    /// True when this one is to be taken rather than the other, of two settings of the same network.
    pub fn is_better(&self, other: &Self) -> bool {
        let rank = |candidate: &Self| (candidate.autoconnect, candidate.priority);
        let is_preferred = !self.is_copy(other) && rank(self) > rank(other);
        self.owner < other.owner || self.owner == other.owner && is_preferred
    }
}

/// True when both are the same, and not nothing.
fn is_set(one: &str, other: &str) -> bool {
    !one.is_empty() && one == other
}
