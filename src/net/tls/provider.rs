//! The cryptography that rustls uses: ring's, and of it what servers of today need.
//!
//! The one file that names ring: another library goes in here.

use rustls::crypto::CryptoProvider;

/// The suites, groups and signatures.
pub fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}
