//! Which certificate authorities are believed. Plain data; whoever verifies reads the files.

#[cfg(feature = "tls")]
use super::tls::roots;
#[cfg(feature = "tls")]
use crate::error::Error;

/// The sources of trusted roots: all of them together.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trust {
    /// PEM, any number of certificates: `balenaRootCA` of config.json, decoded from base64.
    pub extra: &'static [u8],
    /// A PEM file of the user's (`--ca-cert`); empty without.
    pub file: &'static str,
    /// True: only `extra` and `file`, not the bundles of the system. Stage 2 has no others.
    pub only_these: bool,
}

/// Refuses what the user gave and is no certificate, before anything depends on it: `--ca-cert`, and `balenaRootCA`.
#[cfg(feature = "tls")]
pub fn check(trust: &Trust) -> Result<(), Error> {
    let mut result = Ok(());
    crate::memory::in_arena(&mut || result = roots::check(trust.extra, trust.file));
    result
}

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    const BROKEN: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
    const NO_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn refused(trust: &Trust) -> String {
        let error = check(trust).unwrap_err();
        (crate::text!("{}", error) as crate::text::Text<400>).to_string()
    }

    #[test]
    fn what_the_user_gave_is_refused_when_it_is_no_certificate() {
        assert!(check(&Trust::default()).is_ok());
        for extra in [b"something".as_slice(), BROKEN] {
            let said = refused(&Trust { extra, ..Trust::default() });
            assert!(said.contains("balenaRootCA of config.json: it holds no whole"), "{said}");
        }
        let path = std::env::temp_dir().join(format!("takeover-trust-{}", std::process::id()));
        let file: &'static str = path.to_str().unwrap().to_string().leak();
        let trust = Trust { file, ..Trust::default() };
        assert!(refused(&trust).contains("--ca-cert"));
        for (content, why) in [
            (b"".as_slice(), "no certificate in PEM"),
            (b"\x30\x82", "no certificate in PEM"),
            (BROKEN, "is broken"),
            (NO_CERTIFICATE, "is broken"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert!(refused(&trust).contains(why), "{}", refused(&trust));
        }
        std::fs::remove_file(&path).unwrap();
    }
}
