//! The roots that are trusted, from where they lie: streamed, so that any number of them costs no memory.

use super::der;
use super::pem::Reader;
use crate::error::{Doing, Error};
use crate::files;
use core::cell::Cell;
use core::ops::ControlFlow;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// Where distributions keep all roots in one file. The first that holds one is read.
const BUNDLES: [&str; 8] = [
    // Debian, Ubuntu, Raspberry Pi OS, Arch, Gentoo, Alpine, Yocto, Buildroot, OpenWrt, balenaOS.
    "/etc/ssl/certs/ca-certificates.crt",
    // Fedora, RHEL and its like.
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    // openSUSE.
    "/etc/ssl/ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    // Alpine, Void; LibreSSL.
    "/etc/ssl/cert.pem",
    // NixOS.
    "/etc/ssl/certs/ca-bundle.crt",
    // OpenELEC, LibreELEC.
    "/etc/pki/tls/cacert.pem",
];

/// Where they lie one by one: OpenSSL's directory, by hash or by name.
const FOLDER: &str = "/etc/ssl/certs";

/// Calls `found` with each root that is trusted, as DER: those in `extra`, in a file of the user's, and the system's.
/// Gives how many there are.
pub fn for_each(
    extra: &[u8],
    file: &str,
    system: bool,
    found: &mut dyn FnMut(&[u8]),
) -> Result<u32, Error> {
    let mut roots = Roots { reader: Reader::new(), found, count: 0 };
    roots.push(extra);
    roots.end();
    if !file.is_empty() {
        roots.read(file).doing(READING, file)?;
    }
    if system {
        roots.read_system();
        #[cfg(feature = "builtin-roots")]
        roots.add_built_in();
    }
    Ok(roots.count)
}

const READING: &str = "reading the file of --ca-cert";

/// Refuses a file, or what config.json has, in which something is no certificate.
pub fn check(extra: &[u8], path: &str) -> Result<(), Error> {
    let wrong = Cell::new(0);
    let mut look = |root: &[u8]| wrong.set(wrong.get() + u32::from(der::parts(root).is_none()));
    let mut roots = Roots { reader: Reader::new(), found: &mut look, count: 0 };
    roots.push(extra);
    roots.end();
    let is_none = roots.count == 0 && !extra.is_empty();
    let is_broken = is_none || roots.reader.broken > 0 || wrong.get() > 0;
    if !path.is_empty() {
        (roots.count, roots.reader.broken) = (0, 0);
        let read = roots.read(path).doing(READING, path);
        read.map_err(|error| error.as_refusal().advice("check the path that --ca-cert names"))?;
    }
    let (count, broken) = (roots.count, roots.reader.broken);
    let refused = |doing, object, why| {
        Err(Error::refused(doing, object, why)
            .advice("certificates begin with -----BEGIN CERTIFICATE-----"))
    };
    if is_broken {
        return refused(
            "reading balenaRootCA of",
            "config.json",
            "it holds no whole certificate in PEM",
        );
    }
    if !path.is_empty() && count + broken == 0 {
        return refused(READING, path, "it holds no certificate in PEM");
    }
    if broken + wrong.get() > 0 {
        return refused(READING, path, "one of its certificates is broken, or has more than 6 KiB");
    }
    Ok(())
}

/// What reads them one file after the other.
struct Roots<'a> {
    reader: Reader,
    found: &'a mut dyn FnMut(&[u8]),
    count: u32,
}

impl Roots<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let Self { reader, found, count } = self;
        reader.push(bytes, &mut |certificate| {
            *count += 1;
            found(certificate);
        });
    }

    /// A file, or what takes the place of one, has ended.
    fn end(&mut self) {
        self.push(b"\n");
        self.reader.end();
    }

    fn read(&mut self, path: &str) -> Result<(), Errno> {
        let file = files::open(path, OFlags::RDONLY)?;
        let mut buffer = [0; 2048];
        loop {
            let count = files::read_to_end(&file, &mut buffer)?;
            self.push(buffer.get(..count).unwrap_or_default());
            if count < buffer.len() {
                break;
            }
        }
        self.end();
        Ok(())
    }

    #[cfg(feature = "builtin-roots")]
    fn add_built_in(&mut self) {
        for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
            self.count += 1;
            (self.found)(root);
        }
    }

    /// The first bundle of the system that has any, else its folder.
    fn read_system(&mut self) {
        let before = self.count;
        for path in BUNDLES {
            // What cannot be read is as good as missing: there is another one, or it is said that there is none.
            let _ = self.read(path);
            if self.count > before {
                return;
            }
        }
        let _ = files::for_each_entry(FOLDER, &mut |name: &str| {
            if let Ok(path) = files::below(FOLDER, name) {
                let _ = self.read(&path);
            }
            ControlFlow::<()>::Continue(())
        });
    }
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "builtin-roots")]
    #[test]
    fn built_in_roots_are_trusted_beside_those_of_the_system_and_not_without() {
        use super::{der, for_each};
        let mut broken = 0;
        let mut look = |root: &[u8]| broken += u32::from(der::parts(root).is_none());
        let with_system = for_each(&[], "", true, &mut look).unwrap();
        assert!(with_system > 100, "{with_system}");
        assert_eq!(for_each(&[], "", false, &mut look).unwrap(), 0);
        assert_eq!(broken, 0);
    }
}
