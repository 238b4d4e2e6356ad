//! http_proxy, https_proxy and no_proxy. (To be built.)

use super::url::Url;

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
    /// Those of the environment, kept by `sys::start` before the environment is left.
    pub fn of_environment() -> Self {
        Self::default()
    }

    /// The proxy for this URL.
    pub fn choose(&self, _url: &Url) -> Option<&'static str> {
        None
    }
}
