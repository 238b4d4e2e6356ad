//! http_proxy, https_proxy, all_proxy and no_proxy: which proxy a URL is asked through.
//!
//! Their names are taken in lower case, then in upper case, HTTP_PROXY too: curl leaves that one out since a CGI
//! program gets it from whoever sends a header `Proxy` (CVE-2016-5385), and this is none.

use super::url::{self, Url};
use crate::error::Error;
use crate::sys::process;
use crate::text;
use core::net::IpAddr;

/// The proxies that the environment named when the program was started.
#[derive(Clone, Copy, Default)]
pub struct Proxies {
    /// For http.
    pub http: Option<&'static str>,
    /// For https.
    pub https: Option<&'static str>,
    /// The hosts that are reached without.
    pub none_for: Option<&'static str>,
}

impl Proxies {
    /// Those of the environment that `sys::start` left.
    pub fn of_environment() -> Self {
        Self::of(&process::variable)
    }

    /// An empty value means none, whatever else is set.
    fn of(variable: &dyn Fn(&str) -> Option<&'static str>) -> Self {
        let of = |lower, upper| variable(lower).or_else(|| variable(upper));
        let for_all = of("all_proxy", "ALL_PROXY");
        let named = |value: Option<&'static str>| value.filter(|value| !value.is_empty());
        Self {
            http: named(of("http_proxy", "HTTP_PROXY").or(for_all)),
            https: named(of("https_proxy", "HTTPS_PROXY").or(for_all)),
            none_for: of("no_proxy", "NO_PROXY"),
        }
    }

    /// The proxy for this URL.
    pub fn choose(&self, url: &Url) -> Option<&'static str> {
        let proxy = if url.is_secure() { self.https } else { self.http };
        proxy.filter(|_| !is_listed(self.none_for.unwrap_or_default(), url.host(), url.port()))
    }
}

/// A proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proxy<'a> {
    /// Its name or address.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// `user:password`, percent-encoded; empty without. Goes into no message.
    pub credentials: &'a str,
}

impl<'a> Proxy<'a> {
    /// Reads `[http://][user:password@]host[:port][/]`. Without a port it is 80, that of the scheme.
    pub fn parse(text: &'a str) -> Result<Self, Error> {
        Self::read(text).map_err(|why| {
            Error::refused("reading the proxy", &text::printable::<160>(url::harmless(text)), why)
                .advice("give it as http://HOST:PORT, or unset it")
        })
    }

    fn read(text: &'a str) -> Result<Self, &'static str> {
        let rest = match crate::bytes::split_at_word(text, "://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => {
                return Err("only proxies by http:// are supported, not by https:// or SOCKS");
            }
        };
        // A password may have a slash in it.
        let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (host, port) = url::host_and_port(place.split('/').next().unwrap_or_default())?;
        Ok(Self { host, port: port.unwrap_or(80), credentials })
    }
}

/// True when one of the items of a no_proxy, parted by commas or blanks, is for this host and port.
pub fn is_listed(list: &str, host: &str, port: u16) -> bool {
    let address = host.parse::<IpAddr>().ok();
    list.split([',', ' ', '\t']).any(|item| is_for(item, host, address, port))
}

/// An item is `*`, an address, a network (10.0.0.0/8), or a name, which stands for those below it, too, with or without
/// a dot (or `*.`) before it. Behind a name or an address may be a port.
fn is_for(item: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if let Some((network, length)) = item.split_once('/') {
        let length = text::digits(length);
        return address.zip(length).is_some_and(|(address, length)| {
            network.parse().is_ok_and(|network| is_within(address, network, length))
        });
    }
    if item == "*" {
        return true;
    }
    // An IPv6 address without brackets has colons, but no port.
    let bare = item.parse::<IpAddr>().ok();
    if bare.is_some() {
        return bare == address;
    }
    let item = item.strip_prefix('*').unwrap_or(item);
    let item = item.strip_prefix('.').unwrap_or(item);
    let Ok((name, wanted)) = url::host_and_port(item) else {
        return false;
    };
    let is_name = if address.is_some() {
        name.parse().ok() == address
    } else {
        host.len().checked_sub(name.len()).is_some_and(|start| {
            let end = host.get(start..).unwrap_or_default();
            let before = host.get(..start).unwrap_or("x");
            end.eq_ignore_ascii_case(name) && (before.is_empty() || before.ends_with('.'))
        })
    };
    is_name && wanted.is_none_or(|wanted| wanted == port)
}

/// True when the first `length` bits of both are the same.
fn is_within(address: IpAddr, network: IpAddr, length: u64) -> bool {
    let (address, network, bits) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let differing: u128 = address ^ network;
    length <= bits && differing.checked_shr((bits - length) as u32).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    fn proxy(text: &str) -> (String, u16, String) {
        let proxy = Proxy::parse(text).unwrap_or_else(|_| panic!("{text}"));
        (proxy.host.into(), proxy.port, proxy.credentials.into())
    }

    fn refusal(text: &str) -> String {
        let shown: Text<512> = crate::text!("{}", Proxy::parse(text).err().unwrap());
        shown.to_string()
    }

    #[test]
    fn a_proxy_has_host_port_and_credentials() {
        for (text, host, port, credentials) in [
            ("squid.lan:3128", "squid.lan", 3128, ""),
            ("http://squid.lan", "squid.lan", 80, ""),
            ("HTTP://10.0.0.1:8080/", "10.0.0.1", 8080, ""),
            ("http://me:p@ss:w%40rd@[::1]:3128/x", "::1", 3128, "me:p@ss:w%40rd"),
        ] {
            assert_eq!(proxy(text), (host.into(), port, credentials.into()), "{text}");
        }
    }

    #[test]
    fn other_proxies_are_refused_and_no_password_is_shown() {
        for text in [
            "https://me:secret@h:1",
            "socks5://me:secret@h:1",
            "http://me:secret@",
            "http://me:secret@h:99999",
            "me:secret@h h",
            "http://",
            "",
        ] {
            assert!(!refusal(text).contains("secret"), "{}", refusal(text));
        }
        assert!(refusal("socks5://h:1").contains("SOCKS"));
        assert!(refusal("https://h:1").contains("http://"));
    }

    #[test]
    fn the_environment_names_them_in_lower_case_first() {
        let of = |set: &'static [(&str, &'static str)]| {
            Proxies::of(&|name| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
            })
        };
        let proxies = of(&[
            ("http_proxy", "a"),
            ("HTTP_PROXY", "b"),
            ("HTTPS_PROXY", "c"),
            ("NO_PROXY", "d"),
        ]);
        assert_eq!(
            (proxies.http, proxies.https, proxies.none_for),
            (Some("a"), Some("c"), Some("d"))
        );
        let proxies = of(&[("ALL_PROXY", "a"), ("https_proxy", ""), ("HTTPS_PROXY", "c")]);
        assert_eq!((proxies.http, proxies.https, proxies.none_for), (Some("a"), None, None));
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let proxies = Proxies { http: Some("a:1"), https: Some("b:2"), none_for: Some("x.org") };
        let choose = |text| proxies.choose(&Url::parse(text).unwrap());
        assert_eq!(choose("http://h/"), Some("a:1"));
        assert_eq!(choose("https://h/"), Some("b:2"));
        assert_eq!(choose("https://www.x.org/"), None);
        assert_eq!(Proxies::default().choose(&Url::parse("http://h/").unwrap()), None);
    }

    #[test]
    fn hosts_without_a_proxy() {
        for (list, host, is_listed_there) in [
            ("*", "h", true),
            ("", "h", false),
            ("a, h ,b", "h", true),
            ("a h", "h", true),
            ("example.org", "example.org", true),
            ("Example.ORG", "www.example.org", true),
            (".example.org", "example.org", true),
            (".example.org", "www.example.org", true),
            ("*.example.org", "www.example.org", true),
            ("example.org", "badexample.org", false),
            ("www.example.org", "example.org", false),
            ("example.org:80", "example.org", true),
            ("example.org:81", "example.org", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1:81", "127.0.0.1", false),
            ("0.0.1", "127.0.0.1", false),
            ("127.0.0.0/8", "127.9.9.9", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("0.0.0.0/0", "128.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/33", "10.0.0.1", false),
            ("10.0.0.0/8", "h", false),
            ("::1", "::1", true),
            ("[::1]", "::1", true),
            ("[::1]:80", "::1", true),
            ("[::1]:81", "::1", false),
            ("fe80::/10", "febf::1", true),
            ("fe80::/10", "fec0::1", false),
            ("::/0", "10.0.0.1", false),
            ("::/129", "::1", false),
            ("/8,x/,/", "10.0.0.1", false),
        ] {
            assert_eq!(is_listed(list, host, 80), is_listed_there, "{list} {host}");
        }
    }
}
