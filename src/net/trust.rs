//! Which certificate authorities are believed. Plain data; whoever verifies reads the files.

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
