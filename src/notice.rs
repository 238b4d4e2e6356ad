//! What is told to a server when a takeover has ended: stage 1 makes it, stage 2 sends it, and knows nothing of what it
//! says. A file in the RAMFS.
//!
//! Keys are in it: neither it nor a part of it goes into a log.
//!
//! The file is a list of fields, each with its length as a little-endian number of 32 bits before it.

use core::net::{IpAddr, Ipv6Addr};

/// The longest file, in bytes. The roots take most of it: 2 KiB each.
pub const MAX: usize = 32 * 1024;

/// The bytes of an address: IPv4 as IPv6 has it (RFC 4291, 2.5.5.2).
const ADDRESS: usize = 16;

/// What is sent to whom, and how it is reached when nobody resolves names any more.
#[derive(Clone, Copy, Default)]
#[cfg_attr(test, derive(PartialEq, Debug))]
pub struct Notice<'a> {
    /// Where every request goes: a PATCH.
    pub url: &'a str,
    /// The token that it goes with.
    pub bearer: &'a str,
    /// The host that is connected to: the server, or the proxy.
    pub host: &'a str,
    /// The addresses of that: see [`Notice::addresses`].
    pub addresses: &'a [u8],
    /// The proxy as the environment had it; empty without.
    pub proxy: &'a str,
    /// The certificate authorities that are believed, as PEM.
    pub roots: &'a [u8],
    /// The bodies when the new OS is on the disk; an empty one is not sent.
    pub done: [&'a [u8]; 2],
    /// The body when it is not.
    pub failed: &'a [u8],
}

impl<'a> Notice<'a> {
    /// Writes it to `output`, and gives how long it is; nothing when it does not fit.
    pub fn write(&self, output: &mut [u8]) -> Option<usize> {
        let [first, second] = self.done;
        let fields = [
            self.url.as_bytes(),
            self.bearer.as_bytes(),
            self.host.as_bytes(),
            self.addresses,
            self.proxy.as_bytes(),
            self.roots,
            first,
            second,
            self.failed,
        ];
        let mut length = 0;
        for field in fields {
            for piece in [&u32::try_from(field.len()).ok()?.to_le_bytes()[..], field] {
                let end = length + piece.len();
                output.get_mut(length..end)?.copy_from_slice(piece);
                length = end;
            }
        }
        Some(length)
    }

    /// Reads it; nothing when it is none.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut field = || {
            let (length, behind) = rest.split_first_chunk()?;
            let (field, behind) = behind.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = behind;
            Some(field)
        };
        let [url, bearer, host] = [field()?, field()?, field()?];
        let [addresses, proxy, roots] = [field()?, field()?, field()?];
        let [first, second, failed] = [field()?, field()?, field()?];
        let text = |bytes| core::str::from_utf8(bytes).ok();
        let notice = Self {
            url: text(url)?,
            bearer: text(bearer)?,
            host: text(host)?,
            addresses,
            proxy: text(proxy)?,
            roots,
            done: [first, second],
            failed,
        };
        (rest.is_empty() && addresses.len() % ADDRESS == 0).then_some(notice)
    }

    /// The addresses of the host.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<'a> {
        let (all, _) = self.addresses.as_chunks::<ADDRESS>();
        all.iter().map(|bytes| Ipv6Addr::from(*bytes).to_canonical())
    }
}

/// An address as [`Notice::addresses`] has it.
pub fn bytes_of(address: IpAddr) -> [u8; ADDRESS] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let addresses: [IpAddr; 3] =
            ["192.0.2.1", "2001:db8::1", "::1"].map(|text| text.parse().unwrap());
        let bytes = addresses.map(bytes_of).concat();
        let notice = Notice {
            url: "https://api.example.com/v7/device(uuid='1')",
            bearer: "sEcReT",
            host: "api.example.com",
            addresses: &bytes,
            proxy: "",
            roots: &[b'r'; 5000],
            done: [b"", b"{}"],
            failed: b"{1}",
        };
        let mut file = vec![0; MAX];
        let length = notice.write(&mut file).unwrap();
        let file = &file[..length];
        assert_eq!(Notice::read(file), Some(notice));
        assert!(Notice::read(file).unwrap().addresses().eq(addresses));
        for cut in 0..length {
            assert_eq!(Notice::read(&file[..cut]), None, "{cut}");
        }
        assert_eq!(Notice::read(&[file, b"x"].concat()), None);
        assert_eq!(notice.write(&mut vec![0; length]), Some(length));
        assert_eq!(notice.write(&mut vec![0; length - 1]), None);
        let odd = Notice { addresses: &[1; 17], ..notice };
        let mut file = vec![0; MAX];
        let length = odd.write(&mut file).unwrap();
        assert_eq!(Notice::read(&file[..length]), None);
    }
}
