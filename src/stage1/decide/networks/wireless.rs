//! Settings of wireless interfaces that stand apart from the Wi-Fis, kept from the choosing to the writing.
//!
//! On the old OS such an address holds for every Wi-Fi that the interface joins; NetworkManager has it in the keyfile
//! of each. Decides who gets what; opens no file and writes none.

use crate::network::{Ssid, Wifi, Wireless};
use crate::text::Text;

/// The most Wi-Fis that have settings apart by their own names.
const MAX_NAMED: usize = 3;
/// The most Wi-Fis that are known to get nothing.
const MAX_BARE: usize = 32;

const BY_INTERFACE: &str =
    "it is given the address settings of the interface that joins it, as on the old OS";
const BY_NAME: &str = "it is given the address settings that go by its name";
const SEVERAL: &str = "more than one wireless interface has address settings: they are not carried over to the Wi-Fis, which will use DHCP";
const CONFLICT: &str = "it has different address settings in more than one place: they are not carried over to the Wi-Fis, which will use DHCP";
const ACCESS_POINT: &str =
    "hostapd makes it an access point of this device: its address settings are not carried over";
const MAYBE_ACCESS_POINT: &str = "it is not there, and hostapd may make it an access point of this device: its address settings are not carried over";
const UNUSED: &str = "its address settings are not carried over: no Wi-Fi that is carried over gets its addresses in this way";
const MANY: &str = "more than 3 Wi-Fis have address settings by their own names: those of this one are not carried over; it will use DHCP";
const TOO_MANY: &str = "more than 32 Wi-Fis have address settings by their own names: those of the interface are not carried over to any; they will use DHCP";

/// Settings of one interface, or for one Wi-Fi.
struct Apart {
    found: Wireless,
    /// The interface's lasting address, or else its name.
    port: Text<17>,
    /// The interface has a file of wpa_supplicant's own, in place of the one for all.
    has_own_file: bool,
    /// Why they are given to nobody.
    why: Option<&'static str>,
    is_used: bool,
}

/// A Wi-Fi that is given nothing.
struct Bare {
    ssid: Ssid,
    /// The only interface for which that holds; empty for any.
    interface: Text<15>,
    /// Why; empty when nothing is what its own settings say.
    why: &'static str,
}

/// All of them.
#[derive(Default)]
pub struct SettingsApart {
    interface: Option<Apart>,
    has_several: bool,
    has_too_many: bool,
    named: heapless::Vec<Apart, MAX_NAMED>,
    /// The Wi-Fis whose own settings say nothing, or have no place above: those of the interface are not theirs.
    bare: heapless::Vec<Bare, MAX_BARE>,
}

impl SettingsApart {
    /// Takes note of settings. `port`: the lasting hardware address of their interface, or else its name.
    pub fn add(&mut self, port: &str, found: Wireless) {
        let is_named = !found.ssid.is_empty();
        let same = if is_named {
            self.named.iter_mut().find(|known| known.found.ssid == found.ssid)
        } else {
            self.interface.as_mut()
        };
        if let Some(known) = same {
            if !is_named && *known.port != *port {
                self.has_several = true;
            } else if known.found.settings.addresses != found.settings.addresses {
                known.why = Some(CONFLICT);
            } else if found.wpa_file.is_empty() {
                known.found.wpa_file = found.wpa_file;
            }
            return;
        }
        let is_plain = found.settings.addresses.is_plain();
        if let Some(bare) = self.bare.iter_mut().find(|bare| bare.ssid == found.ssid) {
            if !is_plain && bare.why.is_empty() {
                bare.why = CONFLICT;
            }
            if bare.interface != found.settings.interface {
                bare.interface = Text::new();
            }
            return;
        }
        let port = Text::from(port);
        let apart = Apart { found, port, has_own_file: false, why: None, is_used: false };
        match is_named {
            true if is_plain => self.add_bare(&apart.found, ""),
            // What does not fit is told of when it is met again.
            true => {
                if let Err(apart) = self.named.push(apart) {
                    self.add_bare(&apart.found, MANY);
                }
            }
            false => self.interface = Some(apart),
        }
    }

    /// Takes note of a Wi-Fi that gets nothing. When there are too many, no Wi-Fi gets the interface's.
    fn add_bare(&mut self, found: &Wireless, why: &'static str) {
        let interface = found.settings.interface.clone();
        let bare = Bare { ssid: found.ssid.clone(), interface, why };
        self.has_too_many |= self.bare.push(bare).is_err();
    }

    /// The interface whose settings are given to every Wi-Fi that it joins; empty when its name is unknown.
    pub fn interface(&self) -> Option<&str> {
        self.interface.as_ref().map(|apart| &*apart.found.settings.interface)
    }

    /// That interface is an access point, or may be one when its name is unknown.
    pub fn set_access_point(&mut self) {
        if let Some(apart) = &mut self.interface {
            let is_known = !apart.found.settings.interface.is_empty();
            apart.why = Some(if is_known { ACCESS_POINT } else { MAYBE_ACCESS_POINT });
        }
    }

    /// That interface has a file of wpa_supplicant's own.
    pub fn set_own_file(&mut self) {
        if let Some(apart) = &mut self.interface {
            apart.has_own_file = true;
        }
    }

    /// Gives a Wi-Fi what is there for it, and says what that is. `path`: the file of wpa_supplicant that it is in;
    /// empty for none. `interface`: the only one whose Wi-Fi it is; empty for any.
    pub fn give(&mut self, path: &str, interface: &str, wifi: &mut Wifi) -> Option<&'static str> {
        let mut given = None;
        let gives_to_all = !self.has_several && !self.has_too_many;
        let one = self.interface.iter_mut().filter(|_| gives_to_all).map(|one| (one, BY_INTERFACE));
        let own = self.named.iter_mut().find(|named| named.found.ssid == wifi.ssid);
        // Without its own settings, those of the interface would be others than on the old OS.
        let is_bare = |bare: &Bare| {
            let is_joined = bare.interface.is_empty() || *bare.interface == *interface;
            bare.ssid == wifi.ssid && (is_joined || interface.is_empty())
        };
        if self.bare.iter().any(is_bare) || own.as_ref().is_some_and(|own| own.why.is_some()) {
            return None;
        }
        for (apart, what) in own.map(|own| (own, BY_NAME)).into_iter().chain(one) {
            if apart.why.is_none() && apart.joins(path, interface) && !wifi.addresses.is_fixed() {
                wifi.addresses.inherit(&apart.found.settings.addresses);
                apart.is_used = true;
                given = given.or(Some(what));
                if apart.found.is_whole {
                    break;
                }
            }
        }
        given
    }

    /// Why settings were not given to a Wi-Fi; nothing when they were. To be asked when all Wi-Fis are written.
    pub fn verdict(&self, found: &Wireless) -> Option<&'static str> {
        let mut named = self.named.iter();
        let known = match found.ssid.is_empty() {
            true if self.has_several => return Some(SEVERAL),
            true if self.has_too_many => return Some(TOO_MANY),
            true => self.interface.as_ref(),
            false => named.find(|known| known.found.ssid == found.ssid),
        };
        match known {
            Some(known) if known.is_used => None,
            Some(known) => known.why.or(Some(UNUSED)),
            None => {
                let bare = self.bare.iter().find(|bare| bare.ssid == found.ssid);
                let why = bare
                    .map_or(if found.settings.addresses.is_plain() { "" } else { MANY }, |bare| {
                        bare.why
                    });
                Some(why).filter(|why| !why.is_empty())
            }
        }
    }
}

impl Apart {
    /// True when its interface may join a Wi-Fi of this file, empty for none of wpa_supplicant, that is only this
    /// interface's, empty for any.
    fn joins(&self, path: &str, interface: &str) -> bool {
        let Wireless { ssid, settings, wpa_file, .. } = &self.found;
        if !wpa_file.is_empty() {
            return **wpa_file == *path;
        }
        if interface.is_empty() {
            return path.is_empty() || !self.has_own_file;
        }
        let is_any = !ssid.is_empty() && settings.interface.is_empty() && settings.mac.is_empty();
        is_any || *settings.interface == *interface
    }
}
