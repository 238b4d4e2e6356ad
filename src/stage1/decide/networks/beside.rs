//! What the old OS has beside its networks: name servers, the country whose rules for Wi-Fi hold, time servers, a
//! proxy. Knows in which files; reads only.

use super::sources::{for_each_name, read};
use super::{Note, Report, SCRATCH};
use crate::error::Error;
use crate::files;
use crate::log::Level;
use crate::network::Addresses;
use crate::network::beside::{self, Form};
use crate::stage1::decide::configuration::Beside;
use crate::text::{PathText, Text};

/// What a file may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Country,
    TimeServers,
    /// Time servers that are asked where there are no others.
    LastTimeServers,
    /// It is told of, as it is not carried over.
    Told(&'static str),
    /// The same where it is `false`.
    ToldOff(&'static str),
}

/// Files, and what of them is looked for.
struct Source {
    what: What,
    /// With `~` in front it is below each of [`SYSTEMD`].
    folder: &'static str,
    /// What the names of its entries begin with, and what they end with. Both the same for one file.
    name: (&'static str, &'static str),
    /// The file below the entry, when that is a folder; [`EACH`] for those of its files that end with `.conf`.
    below: &'static str,
    form: Form,
    key: &'static str,
}

const fn of(
    what: What,
    folder: &'static str,
    name: (&'static str, &'static str),
    form: Form,
    key: &'static str,
) -> Source {
    Source { what, folder, name, below: "", form, key }
}

const fn one(name: &'static str) -> (&'static str, &'static str) {
    (name, name)
}

const CONF: (&str, &str) = ("", ".conf");
const ANY: Form = Form::Entry("");
const COUNTRY: What = What::Country;
const TIME: What = What::TimeServers;
const LAST_TIME: What = What::LastTimeServers;
/// Where systemd looks for its files. Which of them hide others is not asked: a server too many does no harm.
const SYSTEMD: [&str; 4] =
    ["/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
/// The files that are added to one of systemd's.
const EACH: &str = "/*.conf";
const UNITS: Form = Form::Entry("Service");
const REGDOM: (&str, &str) = one("netplan-regdom.service");
const MAIN: (&str, &str) = one("timesyncd.conf");
const NETWORK: (&str, &str) = ("", ".network");
const ADDED: (&str, &str) = ("", ".network.d");
const PROXY: What = What::Told(HAS_PROXY);
const DNS: What = What::Told(HAS_DNS);
const GLOBAL_DNS: Form = Form::Entry("global-dns-domain-*");
const DHCLIENT: What = What::Told(HAS_DHCLIENT);
const TIMESYNCD: Form = Form::Entry("Time");
const NETWORKD: Form = Form::Entry("Network");

/// Where it may be said. Of several countries the first one is taken.
static SOURCES: [Source; 54] = [
    of(COUNTRY, "/etc/wpa_supplicant", ("wpa_supplicant", ".conf"), ANY, "country"),
    of(COUNTRY, "/etc", ("wpa_supplicant", ".conf"), ANY, "country"),
    of(COUNTRY, "/run/netplan", ("wpa-", ".conf"), ANY, "country"),
    of(COUNTRY, "/run/systemd/system", REGDOM, UNITS, "ExecStart"),
    of(COUNTRY, "/run/systemd/generator.late", REGDOM, UNITS, "ExecStart"),
    of(COUNTRY, "/etc/netplan", ("", ".yaml"), Form::Yaml, "regulatory-domain"),
    of(COUNTRY, "/etc/iwd", one("main.conf"), Form::Entry("General"), "Country"),
    of(COUNTRY, "/var/lib/connman", one("settings"), ANY, "Country"),
    of(COUNTRY, "/proc", one("cmdline"), Form::Word, "cfg80211.ieee80211_regdom"),
    of(COUNTRY, "/boot/firmware", one("cmdline.txt"), Form::Word, "cfg80211.ieee80211_regdom"),
    of(COUNTRY, "/boot", one("cmdline.txt"), Form::Word, "cfg80211.ieee80211_regdom"),
    of(COUNTRY, "/etc/modprobe.d", CONF, Form::Word, "ieee80211_regdom"),
    of(COUNTRY, "/etc/default", one("crda"), ANY, "REGDOMAIN"),
    of(COUNTRY, "/etc/conf.d", one("wireless-regdom"), ANY, "WIRELESS_REGDOM"),
    of(COUNTRY, "/etc/hostapd", CONF, ANY, "country_code"),
    of(TIME, "~", MAIN, TIMESYNCD, "NTP"),
    of(TIME, "~/timesyncd.conf.d", CONF, TIMESYNCD, "NTP"),
    of(TIME, "~/network", NETWORK, NETWORKD, "NTP"),
    Source { below: EACH, ..of(TIME, "~/network", ADDED, NETWORKD, "NTP") },
    of(TIME, "/etc", one("chrony.conf"), Form::Directive, "server"),
    of(TIME, "/etc", one("chrony.conf"), Form::Directive, "pool"),
    of(TIME, "/etc/chrony", one("chrony.conf"), Form::Directive, "server"),
    of(TIME, "/etc/chrony", one("chrony.conf"), Form::Directive, "pool"),
    of(TIME, "/etc/chrony/conf.d", CONF, Form::Directive, "server"),
    of(TIME, "/etc/chrony/conf.d", CONF, Form::Directive, "pool"),
    of(TIME, "/etc/chrony/sources.d", ("", ".sources"), Form::Directive, "server"),
    of(TIME, "/etc/chrony/sources.d", ("", ".sources"), Form::Directive, "pool"),
    of(TIME, "/etc", one("ntp.conf"), Form::Directive, "server"),
    of(TIME, "/etc", one("ntp.conf"), Form::Directive, "pool"),
    of(TIME, "/etc/ntpsec", one("ntp.conf"), Form::Directive, "server"),
    of(TIME, "/etc/ntpsec", one("ntp.conf"), Form::Directive, "pool"),
    of(TIME, "/etc/openntpd", one("ntpd.conf"), Form::Directive, "server"),
    of(TIME, "/etc/openntpd", one("ntpd.conf"), Form::Directive, "servers"),
    of(TIME, "/etc/default", one("ntpdate"), ANY, "NTPSERVERS"),
    of(TIME, "/var/lib/connman", ("", ".config"), ANY, "Timeservers"),
    Source { below: "/settings", ..of(TIME, "/var/lib/connman", ("", ""), ANY, "Timeservers") },
    of(LAST_TIME, "~", MAIN, TIMESYNCD, "FallbackNTP"),
    of(LAST_TIME, "~/timesyncd.conf.d", CONF, TIMESYNCD, "FallbackNTP"),
    Source { below: "/settings", ..of(PROXY, "/var/lib/connman", ("", ""), ANY, "Proxy.Method") },
    of(PROXY, "/etc", one("environment"), Form::Word, "http_proxy"),
    of(PROXY, "/etc", one("environment"), Form::Word, "https_proxy"),
    of(PROXY, "/etc", one("environment"), Form::Word, "HTTP_PROXY"),
    of(PROXY, "/etc", one("environment"), Form::Word, "HTTPS_PROXY"),
    of(PROXY, "/etc/profile.d", ("", ".sh"), Form::Word, "http_proxy"),
    of(PROXY, "/etc/profile.d", ("", ".sh"), Form::Word, "https_proxy"),
    of(PROXY, "/etc/systemd/system/docker.service.d", CONF, Form::Word, "HTTP_PROXY"),
    of(PROXY, "/etc/systemd/system/docker.service.d", CONF, Form::Word, "HTTPS_PROXY"),
    of(What::ToldOff(NO_WIFI), "/var/lib/connman", one("settings"), Form::Entry("WiFi"), "Enable"),
    of(
        What::ToldOff(NO_CABLE),
        "/var/lib/connman",
        one("settings"),
        Form::Entry("Wired"),
        "Enable",
    ),
    of(DNS, "/etc/NetworkManager", one("NetworkManager.conf"), GLOBAL_DNS, "servers"),
    of(DNS, "/etc/NetworkManager/conf.d", CONF, GLOBAL_DNS, "servers"),
    of(DHCLIENT, "/etc/dhcp", ("dhclient", ".conf"), Form::Directive, "supersede"),
    of(DHCLIENT, "/etc/dhcp", ("dhclient", ".conf"), Form::Directive, "prepend"),
    of(DHCLIENT, "/etc/dhcp", ("dhclient", ".conf"), Form::Directive, "append"),
];

/// Not what it is: it may have a password in it.
const HAS_PROXY: &str = "this device reaches others by a proxy; for the new OS it has to be in system-proxy/redsocks.conf on its boot partition";
const HAS_DNS: &str = "the name servers that NetworkManager has for all networks are not carried over: they have to be in config.json (dnsServers)";
const NO_WIFI: &str =
    "connman has Wi-Fi switched off; the new OS joins those that are carried over";
const NO_CABLE: &str = "connman has cables switched off; the new OS uses them";
const HAS_DHCLIENT: &str =
    "what dhclient was to take instead of what DHCP says, or beside that, is not carried over";
const MANY_SERVERS: &str = "not all of its time servers are carried over: they are too many";

/// What is there of the OS below `root` (empty for the running one) that a config.json can say; a proxy is told of.
/// `scratch`: at least [`SCRATCH`] bytes.
pub fn beside(root: &str, scratch: &mut [u8], report: &mut Report) -> Result<Beside, Error> {
    let mut found = Beside::default();
    // Files are up to this long.
    const { assert!(SCRATCH > super::MAX_FILE) };
    let (content, _) = scratch.split_at_mut(scratch.len().min(super::MAX_FILE + 1));
    let mut last_told = PathText::new();
    let mut has_servers = false;
    for source in &SOURCES {
        if source.what == What::LastTimeServers && has_servers {
            continue;
        }
        for_each_file(root, source, &mut |path| {
            // What cannot be read is no reason to refuse here: it is one where the networks are read.
            let bytes = read(path, content).ok().flatten().unwrap_or_default();
            let mut note = |why| {
                report(Note { level: Level::Warn, file: Text::from(path), name: Text::new(), why });
            };
            beside::values(bytes, source.form, source.key, &mut |value| match source.what {
                What::Country if found.country.is_empty() => {
                    let country = beside::country(value).unwrap_or_default();
                    found.country = Text::from(files::as_text(&country).trim_end_matches('\0'));
                }
                What::TimeServers | What::LastTimeServers
                    if !add_time_servers(&mut found.ntp_servers, value) =>
                {
                    note(MANY_SERVERS);
                }
                // connman's word for no proxy.
                What::Told(why) if !matches!(value, "" | "direct") && *last_told != *path => {
                    last_told = Text::from(path);
                    note(why);
                }
                What::ToldOff(why) if value == "false" => note(why),
                _ => {}
            });
            Ok(())
        })?;
        has_servers |= source.what == What::TimeServers && !found.ntp_servers.is_empty();
    }
    Ok(found)
}

/// Adds those that are not there yet; false when one does not fit.
fn add_time_servers(servers: &mut Text<200>, list: &str) -> bool {
    let parts = list.split([',', ';', ' ', '\t']);
    let mut fits = true;
    for server in parts.filter(|server| beside::is_own_time_server(server)) {
        if servers.split(' ').any(|known| known == server) {
            continue;
        }
        let blank = if servers.is_empty() { "" } else { " " };
        if servers.len() + blank.len() + server.len() > 200 {
            fits = false;
            continue;
        }
        *servers = crate::text!("{}{}{}", *servers, blank, server);
    }
    fits
}

/// Calls `visit` with the path of each file of a source.
fn for_each_file(
    root: &str,
    source: &Source,
    visit: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let Some(below) = source.folder.strip_prefix('~') else {
        return for_each_in(&crate::path!("{}{}", root, source.folder)?, source, visit);
    };
    for folder in SYSTEMD {
        for_each_in(&crate::path!("{}{}{}", root, folder, below)?, source, visit)?;
    }
    Ok(())
}

/// The same in one folder.
fn for_each_in(
    folder: &str,
    source: &Source,
    visit: &mut dyn FnMut(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let Source { name: (start, end), below, .. } = source;
    if start == end && !start.is_empty() {
        return visit(&crate::path!("{}/{}", folder, *start)?);
    }
    for_each_name(folder, start, end, &mut |name| {
        if *below != EACH {
            return visit(&crate::path!("{}/{}{}", folder, name, *below)?);
        }
        let folder = crate::path!("{}/{}", folder, name)?;
        for_each_name(&folder, "", ".conf", &mut |name| {
            visit(&crate::path!("{}/{}", folder, name)?)
        })
    })
}

/// Where the name servers of a device are that are not its own, in this order: whoever has one in /etc/resolv.conf does
/// not hide others behind it.
const RESOLVERS: [&str; 8] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/NetworkManager/resolv.conf",
    "/run/resolvconf/resolv.conf",
    "/run/dnsmasq/resolv.conf",
    "/etc/resolv.dnsmasq",
    "/etc/resolvconf/resolv.conf.d/base",
];
/// Where resolvconf keeps what it was told for each interface.
const RESOLVCONF: &str = "/run/resolvconf/interface";
/// Where resolved.conf and what is added to it are: folders, and how the names of files begin.
const RESOLVED: [(&str, &str); 4] = [
    ("/etc/systemd", "resolved.conf"),
    ("/usr/lib/systemd/resolved.conf.d", ""),
    ("/run/systemd/resolved.conf.d", ""),
    ("/etc/systemd/resolved.conf.d", ""),
];
/// The same of dnsmasq.
const DNSMASQ: [(&str, &str); 2] = [("/etc", "dnsmasq.conf"), ("/etc/dnsmasq.d", "")];

/// Adds what a file says.
type Take = fn(&[u8], &mut Addresses);

/// The name servers and search domains of the OS below `root`.
pub fn name_servers(root: &str, content: &mut [u8]) -> Result<Addresses, Error> {
    let mut found = Addresses::default();
    let has_none = |found: &Addresses| found.ipv4.dns.is_empty() && found.ipv6.dns.is_empty();
    for path in RESOLVERS {
        if has_none(&found) {
            let path = below(root, path)?;
            let bytes = read(&path, content).ok().flatten().unwrap_or_default();
            beside::resolv_conf(bytes, &mut found);
        }
    }
    if has_none(&found) {
        let folder = crate::path!("{}{}", root, RESOLVCONF)?;
        for_each_name(&folder, "", "", &mut |name| {
            let path = crate::path!("{}/{}", folder, name)?;
            beside::resolv_conf(
                read(&path, content).ok().flatten().unwrap_or_default(),
                &mut found,
            );
            Ok(())
        })?;
    }
    for (folders, take) in
        [(&RESOLVED[..], beside::resolved_conf as Take), (&DNSMASQ, beside::dnsmasq_conf)]
    {
        if has_none(&found) {
            for (folder, start) in folders {
                let folder = crate::path!("{}{}", root, *folder)?;
                for_each_name(&folder, start, ".conf", &mut |name| {
                    let path = crate::path!("{}/{}", folder, name)?;
                    take(read(&path, content).ok().flatten().unwrap_or_default(), &mut found);
                    Ok(())
                })?;
            }
        }
    }
    Ok(found)
}

/// A path below a root. Where it is a link with a whole path, that is below the root, too.
fn below(root: &str, path: &str) -> Result<PathText, Error> {
    let whole = crate::path!("{}{}", root, path)?;
    let mut buffer = [0; 256];
    match files::read_link(&whole, &mut buffer) {
        Ok(link) if link.starts_with('/') => crate::path!("{}{}", root, link),
        _ => Ok(whole),
    }
}
