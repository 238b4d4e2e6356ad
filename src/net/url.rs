//! URLs with http and https (RFC 3986). (To be built.)

use crate::error::Error;
use crate::text::Text;

/// The longest URL that is taken, in bytes: those of signed downloads reach 2,000.
pub const MAX: usize = 4096;

/// A URL with http or https.
#[derive(Clone, PartialEq, Debug)]
pub struct Url {
    text: Text<MAX>,
}

impl Url {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(Self { text: Text::from(text) })
    }

    /// True with https.
    pub fn is_secure(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// The host: a name, or an address (IPv6 without its brackets).
    pub fn host(&self) -> &str {
        ""
    }

    /// The port, that of the scheme where none is given.
    pub fn port(&self) -> u16 {
        0
    }

    /// What is asked for: path and query, at least `/`.
    pub fn target(&self) -> &str {
        ""
    }

    /// The last name of the path, for a file to be called by; empty where there is none.
    pub fn file_name(&self) -> &str {
        ""
    }

    /// For people: scheme, host, port and path, without user, password, query and fragment.
    pub fn shown(&self) -> Text<160> {
        Text::new()
    }
}
