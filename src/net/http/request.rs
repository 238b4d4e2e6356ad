//! What goes out: request lines and header fields.

use super::base64;
use super::head::Validator;
use crate::net::url::Url;
use crate::text::Text;

/// What is asked of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PATCH.
    Patch,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Patch => "PATCH",
        }
    }

    /// True when it changes nothing.
    pub fn only_reads(self) -> bool {
        matches!(self, Method::Get | Method::Head)
    }

    /// True when doing it twice changes no more than doing it once.
    ///
    /// Of a PATCH HTTP does not promise that, and leaves it to what is in it (RFC 5789, 2). What this program sends
    /// names fields and what each of them is from then on (a device type, a progress, a state, nothing), whatever it
    /// was before, and adds to none: the device is the same after the second one. So one whose answer is lost is sent
    /// again. A POST makes something new each time.
    pub fn can_be_repeated(self) -> bool {
        self != Method::Post
    }
}

/// A request.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What is to be done.
    pub method: Method,
    /// With what.
    pub url: &'a Url,
    /// The token of `Authorization: Bearer`; goes to no other host than that of the URL, whatever redirects say.
    pub bearer: Option<&'a str>,
    /// From which byte on; 0 asks for ranges, too (`bytes=0-`). None: the header is left out.
    pub from: Option<u64>,
    /// If-Range.
    pub unless_changed: Option<&'a Validator>,
    /// JSON, for POST and PATCH.
    pub body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// A GET of all of it.
    pub fn get(url: &'a Url) -> Self {
        Self {
            method: Method::Get,
            url,
            bearer: None,
            from: None,
            unless_changed: None,
            body: None,
        }
    }
}

/// Bytes that are put into a buffer one after the other.
struct Output<'a> {
    buffer: &'a mut [u8],
    length: usize,
    is_forged: bool,
}

impl Output<'_> {
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.buffer.get_mut(self.length) {
            *place = byte;
        }
        self.length += 1;
    }

    fn text(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
    }

    /// A header field. A value with the end of a line in it would be a field of its own (CWE-113).
    fn field(&mut self, name: &str, value: &str) {
        self.is_forged |= !value.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        self.text(name);
        self.text(value);
        self.text("\r\n");
    }

    fn number(&mut self, name: &str, value: u64, end: &str) {
        let value: Text<48> = crate::text!("{}{}", value, end);
        self.field(name, &value);
    }

    /// What every request has, those of a proxy's credentials (`user:password`, percent-encoded) where there are any.
    fn common(&mut self, authority: &str, credentials: &str) {
        self.field("Host: ", authority);
        self.field("User-Agent: takeover/", env!("CARGO_PKG_VERSION"));
        if !credentials.is_empty() {
            self.text("Proxy-Authorization: Basic ");
            base64::encode(credentials, &mut |byte| self.byte(byte));
            self.text("\r\n");
        }
    }

    /// How many bytes it is.
    fn finish(self) -> Result<usize, &'static str> {
        if self.is_forged {
            return Err("a value for a header field has characters that none may have");
        }
        if self.length <= self.buffer.len() {
            Ok(self.length)
        } else {
            Err("the request is too long")
        }
    }
}

fn output(buffer: &mut [u8]) -> Output<'_> {
    Output { buffer, length: 0, is_forged: false }
}

/// Puts a request into `buffer`; gives its length. It goes to `url`, where redirects led. Credentials (even none) mean
/// that it goes through a proxy, which wants the whole URL (RFC 9112, 3.2.2).
pub fn put(
    request: &Request<'_>,
    url: &Url,
    credentials: Option<&str>,
    buffer: &mut [u8],
) -> Result<usize, &'static str> {
    let mut output = output(buffer);
    output.text(request.method.name());
    output.text(" ");
    output.text(if credentials.is_some() { url.whole() } else { url.target() });
    output.text(" HTTP/1.1\r\n");
    output.common(url.authority(), credentials.unwrap_or_default());
    output.text("Accept: */*\r\nAccept-Encoding: identity\r\n");
    if let Some(token) = request.bearer {
        output.field("Authorization: Bearer ", token);
    }
    if let Some(from) = request.from {
        output.number("Range: bytes=", from, "-");
    }
    if let Some(validator) = request.unless_changed.filter(|validator| !validator.is_empty()) {
        output.field("If-Range: ", validator.strongest());
    }
    if let Some(body) = request.body {
        output.number("Content-Length: ", body.len() as u64, "");
        output.text("Content-Type: application/json\r\n");
    }
    output.text("\r\n");
    request.body.unwrap_or_default().iter().for_each(|byte| output.byte(*byte));
    output.finish()
}

/// Puts the request for a way through a proxy into `buffer`; gives its length (RFC 9110, 9.3.6).
pub fn put_connect(url: &Url, credentials: &str, buffer: &mut [u8]) -> Result<usize, &'static str> {
    let is_v6 = url.host().contains(':');
    let (open, close) = if is_v6 { ("[", "]") } else { ("", "") };
    // Here the port is never left out.
    let authority: Text<270> = crate::text!("{}{}{}:{}", open, url.host(), close, url.port());
    let mut output = output(buffer);
    output.text("CONNECT ");
    output.text(&authority);
    output.text(" HTTP/1.1\r\n");
    output.common(&authority, credentials);
    output.text("\r\n");
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: &str = concat!("User-Agent: takeover/", env!("CARGO_PKG_VERSION"), "\r\n");

    fn sent(request: &Request, credentials: Option<&str>) -> String {
        let mut buffer = [0; 1000];
        let length = put(request, request.url, credentials, &mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_plain_request() {
        let url = Url::parse("http://h:81/a?b").unwrap();
        let wanted = format!(
            "GET /a?b HTTP/1.1\r\nHost: h:81\r\n{AGENT}Accept: */*\r\nAccept-Encoding: identity\r\n\r\n"
        );
        assert_eq!(sent(&Request::get(&url), None), wanted);
    }

    #[test]
    fn ranges_validators_and_tokens() {
        let url = Url::parse("https://h/").unwrap();
        let validator = Validator { tag: Text::from("\"x\""), modified: Text::from("then") };
        let dated = Validator { tag: Text::new(), ..validator.clone() };
        let request = Request {
            bearer: Some("key"),
            from: Some(0),
            unless_changed: Some(&validator),
            ..Request::get(&url)
        };
        let text = sent(&request, None);
        assert!(
            text.ends_with(
                "Authorization: Bearer key\r\nRange: bytes=0-\r\nIf-Range: \"x\"\r\n\r\n"
            )
        );
        let text = sent(&Request { unless_changed: Some(&dated), ..request }, None);
        assert!(text.ends_with("\r\nIf-Range: then\r\n\r\n"));
    }

    #[test]
    fn a_body_has_its_length_before_it() {
        let url = Url::parse("http://h/").unwrap();
        let request =
            Request { method: Method::Patch, body: Some(b"{\"a\":1}"), ..Request::get(&url) };
        let text = sent(&request, None);
        assert!(text.starts_with("PATCH / HTTP/1.1\r\n"));
        let end = "Content-Length: 7\r\nContent-Type: application/json\r\n\r\n{\"a\":1}";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn a_proxy_gets_the_whole_url_and_its_own_credentials() {
        let url = Url::parse("http://h/a").unwrap();
        let text = sent(&Request::get(&url), Some("me:p%40ss"));
        assert!(text.starts_with("GET http://h/a HTTP/1.1\r\nHost: h\r\n"));
        assert!(text.contains("\r\nProxy-Authorization: Basic bWU6cEBzcw==\r\n"));
        assert!(!sent(&Request::get(&url), Some("")).contains("Proxy-"));
    }

    #[test]
    fn the_way_through_a_proxy_names_host_and_port() {
        for (url, authority) in [("https://h/secret", "h:443"), ("https://[::1]:8/x", "[::1]:8")] {
            let mut buffer = [0; 1000];
            let length = put_connect(&Url::parse(url).unwrap(), "", &mut buffer).unwrap();
            let wanted =
                format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{AGENT}\r\n");
            assert_eq!(std::str::from_utf8(&buffer[..length]).unwrap(), wanted);
        }
    }

    #[test]
    fn no_value_becomes_a_field_of_its_own() {
        let url = Url::parse("http://h/").unwrap();
        for token in ["a\r\nX: y", "a\n", "a\0", "ä"] {
            let request = Request { bearer: Some(token), ..Request::get(&url) };
            assert!(put(&request, &url, None, &mut [0; 1000]).unwrap_err().contains("characters"));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let url = Url::parse("http://h/").unwrap();
        let length = sent(&Request::get(&url), None).len();
        assert_eq!(put(&Request::get(&url), &url, None, &mut vec![0; length]), Ok(length));
        assert!(put(&Request::get(&url), &url, None, &mut vec![0; length - 1]).is_err());
    }
}
