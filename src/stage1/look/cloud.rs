//! The cloud that the new OS belongs to, as config.json names it: asked what it has, and whether it can be reached.
//!
//! Asks, and changes nothing there.

use crate::balena::api::replies::{self, Contract};
use crate::balena::api::requests::{self, Address};
use crate::balena::devices;
use crate::balena::stream::{Found, Reader};
use crate::balena::version::{Choice, Name, Wanted};
use crate::error::{Doing, Error};
use crate::net::client::{Client, Known, Method, Patience, Request, Settings};
use crate::net::deadline::Deadline;
use crate::net::names;
use crate::net::socket::Socket;
use crate::net::url::Url;
use crate::sys::{map, thread};
use crate::text::Text;
use core::net::SocketAddr;
use core::time::Duration;
use std::sync::{Mutex, PoisonError};

/// What to do where the API offers no images: that of openBalena is such a one.
pub const NO_IMAGES: &str = "this API offers no images of balenaOS: give one with -i FILE or URL";

/// The longest answer that is read, in bytes: that with all versions has 40 for each.
const LONGEST: u64 = 16 << 20;

/// The API, and a connection to it.
pub struct Cloud {
    client: Client,
    endpoint: &'static str,
    key: &'static str,
}

/// An image that the API offers.
pub struct Download {
    /// Where.
    pub url: Url,
    /// The token that it is asked for with.
    pub bearer: &'static str,
    /// Its length when it is unpacked, where the API knows it.
    pub size: Option<u64>,
    /// Its version.
    pub version: Name,
    /// What a file with it is called: `SLUG-VERSION.img.gz`.
    pub file_name: Text<128>,
}

impl Cloud {
    /// The API at this address, asked with this key. Nothing is sent yet.
    pub fn new(
        settings: Settings,
        endpoint: &'static str,
        key: &'static str,
    ) -> Result<Self, Error> {
        Ok(Self { client: Client::new(settings)?, endpoint, key })
    }

    /// The address of the API, as config.json has it.
    pub fn endpoint(&self) -> &'static str {
        self.endpoint
    }

    /// The key that it is asked with.
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The proxy that a URL is asked through.
    pub fn proxy(&self, url: &Url) -> Option<&'static str> {
        self.client.settings().proxies.choose(url)
    }

    /// The host that was connected to last, the API or its proxy, and its addresses.
    pub fn reached(&self) -> &Known {
        self.client.reached()
    }

    /// The image of the wanted version for a device type, raw where the one that is offered is for a stick.
    pub fn find_image(&mut self, wanted: &Wanted, device_type: &str) -> Result<Download, Error> {
        let slug = devices::canonical(device_type);
        let is_flasher = self.has_flasher(slug)?;
        let version = self.version(wanted, slug)?;
        let size = self.size(slug, &version);
        let address = requests::image(self.endpoint, slug, &version, is_flasher)?;
        let file_name = crate::text!("{}-{}.img.gz", slug, version);
        Ok(Download { url: Url::parse(&address)?, bearer: self.key, size, version, file_name })
    }

    /// The number that the API has for a device type.
    pub fn device_type_id(&mut self, device_type: &str) -> Result<u64, Error> {
        const DOING: &str = "asking for the number of the device type at";
        let slug = devices::canonical(device_type);
        let address = requests::device_type_id(self.endpoint, slug)?;
        let mut id = None;
        self.ask_for_list(DOING, &address, &mut |found| id = id.or(replies::id(found)))?;
        id.ok_or_else(|| unknown(slug))
    }

    fn has_flasher(&mut self, slug: &str) -> Result<bool, Error> {
        const DOING: &str = "asking what device type it is at";
        let address = requests::contract(self.endpoint, slug)?;
        let mut contract = Contract::default();
        self.ask_for_list(DOING, &address, &mut |found| contract.take(found))?;
        if contract.is_known { Ok(contract.is_flasher()) } else { Err(unknown(slug)) }
    }

    fn version(&mut self, wanted: &Wanted, slug: &str) -> Result<Name, Error> {
        const DOING: &str = "asking for the versions of balenaOS at";
        let address = requests::versions(self.endpoint, slug)?;
        let mut choice = Choice::new(wanted);
        self.ask_for_list(DOING, &address, &mut |found| {
            replies::consider_version(found, &mut choice)
        })?;
        choice.finish(slug)
    }

    /// Nothing where the API does not say it: it is only good to know.
    fn size(&mut self, slug: &str, version: &str) -> Option<u64> {
        const DOING: &str = "asking for the size of the image at";
        let address = requests::size(self.endpoint, slug, version);
        let mut size = None;
        let usual = self.client.settings().patience;
        let end = Some(Deadline::after(Duration::from_secs(10)));
        self.client.set_patience(Patience { attempts: 1, end, ..usual });
        let result = address.and_then(|address| {
            self.ask(DOING, &address, &mut |found| size = size.or(replies::size(found)))
        });
        self.client.set_patience(usual);
        if let Err(error) = result {
            crate::debug!("{}", error);
            return None;
        }
        size
    }

    /// The API answers at all; it may take so long.
    pub fn ping(&mut self, patience: Duration) -> Result<(), Error> {
        const DOING: &str = "asking whether the API is there at";
        let usual = self.client.settings().patience;
        self.client.set_patience(Patience {
            connect: patience,
            first_byte: patience,
            stall: patience,
            end: Some(Deadline::after(patience)),
            ..usual
        });
        let result = self.send(DOING, &requests::ping(self.endpoint)?, None).and_then(|url| {
            let mut answer = [0; 64];
            let mut length = 0;
            while let free = answer.get_mut(length..).unwrap_or_default()
                && !free.is_empty()
            {
                match self.client.read(free)? {
                    0 => break,
                    count => length += count,
                }
            }
            match answer.get(..length).unwrap_or_default().trim_ascii() {
                b"OK" => Ok(()),
                _ => Err(Error::failed(DOING, &url.shown(), "the answer is not OK")),
            }
        });
        self.client.set_patience(usual);
        result
    }

    /// Asks for something that is answered with a list.
    fn ask_for_list(
        &mut self,
        doing: &'static str,
        address: &Address,
        visit: &mut dyn FnMut(&Found<'_>),
    ) -> Result<(), Error> {
        let mut has_list = false;
        let url = self.ask(doing, address, &mut |found| {
            has_list |= replies::is_list(found);
            visit(found);
        })?;
        if has_list {
            return Ok(());
        }
        Err(Error::failed(doing, &url.shown(), "the answer has no list 'd'").advice(NO_IMAGES))
    }

    /// Asks, and shows each value of the answer to `visit` as it comes in: in three minutes at most.
    fn ask(
        &mut self,
        doing: &'static str,
        address: &Address,
        visit: &mut dyn FnMut(&Found<'_>),
    ) -> Result<Url, Error> {
        let usual = self.client.settings().patience;
        let end = usual.end.or(Some(Deadline::after(Duration::from_secs(180))));
        self.client.set_patience(Patience { end, ..usual });
        let result = self.ask_until(doing, address, visit);
        self.client.set_patience(usual);
        result
    }

    fn ask_until(
        &mut self,
        doing: &'static str,
        address: &Address,
        visit: &mut dyn FnMut(&Found<'_>),
    ) -> Result<Url, Error> {
        let url = self.send(doing, address, Some(self.key))?;
        let fail = |why: &str| {
            let why: Text<160> = crate::text!("the answer cannot be read: {}", why);
            Err(Error::failed(doing, &url.shown(), &why))
        };
        let mut reader = Reader::new();
        let mut buffer = [0; 2048];
        let mut total = 0;
        loop {
            let count = self.client.read(&mut buffer)?;
            total += count as u64;
            if total > LONGEST {
                return fail("it is longer than 16 MiB");
            }
            let piece = buffer.get(..count).unwrap_or_default();
            let result = if count > 0 { reader.push(piece, visit) } else { reader.finish() };
            match result {
                Err(why) => return fail(why),
                Ok(()) if count == 0 => return Ok(url),
                Ok(()) => {}
            }
        }
    }

    /// Sends a GET, and takes no other answer than a good one.
    fn send(
        &mut self,
        doing: &'static str,
        address: &Address,
        bearer: Option<&str>,
    ) -> Result<Url, Error> {
        let url = Url::parse(address)?;
        let response = self.client.send(&Request {
            method: Method::Get,
            url: &url,
            bearer,
            from: None,
            unless_changed: None,
            body: None,
        })?;
        let result = response.expect_success(doing, &url);
        result.map(|()| url).map_err(|error| match response.status {
            401 | 403 => error.advice(
                "the API does not take the key of config.json: download it again for this fleet",
            ),
            // Only what answers the first question can offer anything.
            404 if bearer.is_some() => error.advice(NO_IMAGES),
            _ => error,
        })
    }
}

#[cold]
fn unknown(slug: &str) -> Error {
    Error::refused("asking the API for the device type", slug, "it knows none of that name")
        .advice("check deviceType of config.json, or --change-dt-to")
}

/// Connects to a VPN, to the first of its addresses that answers, and leaves it again.
fn reach(host: &str, port: u16, patience: Duration) -> Result<(), Error> {
    let deadline = Deadline::after(patience);
    let mut addresses = heapless::Vec::<SocketAddr, 16>::new();
    for address in names::resolve(host, deadline)? {
        // As many as a name has at most.
        let _ = addresses.push(SocketAddr::new(address, port));
    }
    Socket::connect(host, &addresses, deadline).map(drop)
}

/// Checks both at the same time: the API, and the VPN with its port, of which each may take so long.
///
/// The VPN goes into a thread of its own: whatever does TLS must stay in this one, which has the memory for it.
pub fn check(
    api: Option<&mut Cloud>,
    vpn: Option<(&str, u16)>,
    patience: Duration,
) -> Result<[Result<(), Error>; 2], Error> {
    let ping = || api.map_or(Ok(()), |api| api.ping(patience));
    let Some((host, port)) = vpn else {
        return Ok([ping(), Ok(())]);
    };
    const OBJECT: &str = "the check of the VPN";
    let stack = map::stack(STACK).doing("reserving memory for", OBJECT)?;
    let of_vpn = Mutex::new(Ok(()));
    let helper =
        || *of_vpn.lock().unwrap_or_else(PoisonError::into_inner) = reach(host, port, patience);
    let of_api = thread::alongside(stack, &helper, ping).doing("starting", OBJECT)?;
    Ok([of_api, of_vpn.into_inner().unwrap_or_else(PoisonError::into_inner)])
}

/// The stack of that thread: a question to a name server and its answer lie there.
const STACK: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{self, Level};
    use crate::net::proxy::Proxies;
    use std::io::{Read, Seek, Write};
    use std::net::TcpListener;
    use std::sync::Arc;

    /// A stand-in of the API: answers by the start of what is asked for, and notes it all.
    struct Api {
        endpoint: &'static str,
        seen: Arc<Mutex<Vec<String>>>,
    }

    type Answer = (&'static str, &'static str, String);

    /// An answer to what begins like this.
    fn answer(path: &'static str, status: &'static str, body: &str) -> Answer {
        (path, status, body.to_string())
    }

    impl Api {
        fn start(answers: Vec<Answer>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}/folder/", listener.local_addr().unwrap());
            let seen = Arc::new(Mutex::new(Vec::new()));
            let noted = Arc::clone(&seen);
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    let mut connection = connection.unwrap();
                    let mut request = Vec::new();
                    let mut byte = [0];
                    while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).unwrap() > 0
                    {
                        request.push(byte[0]);
                    }
                    let request = String::from_utf8(request).unwrap();
                    let path = request.strip_prefix("GET /folder").unwrap_or_default();
                    let found = answers.iter().find(|(start, ..)| path.starts_with(start));
                    let (status, body) =
                        found.map_or(("404 Not Found", ""), |(_, status, body)| (*status, &**body));
                    noted.lock().unwrap().push(request.clone());
                    let length = body.len();
                    let head = format!(
                        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                    );
                    // The client may have gone.
                    let _ = connection.write_all((head + body).as_bytes());
                }
            });
            Self { endpoint: endpoint.leak(), seen }
        }

        fn cloud(&self) -> Cloud {
            cloud_at(self.endpoint)
        }

        /// What was asked for, in order.
        fn asked(&self) -> Vec<String> {
            let seen = self.seen.lock().unwrap();
            seen.iter().map(|request| request.split(' ').nth(1).unwrap().to_string()).collect()
        }
    }

    fn cloud_at(endpoint: &'static str) -> Cloud {
        let patience = Patience { attempts: 1, ..Patience::default() };
        Cloud::new(Settings { patience, ..Settings::default() }, endpoint, "kEyInNoLoG").unwrap()
    }

    fn message(error: &Error) -> String {
        let text: Text<600> = crate::text!("{}", error);
        assert!(!text.contains("kEyInNoLoG"), "{}", text.as_str());
        text.to_string()
    }

    fn refusal(api: &Api, wanted: &str) -> String {
        let wanted = Wanted::parse(wanted).unwrap();
        message(&api.cloud().find_image(&wanted, "intel-nuc").err().expect("it is refused"))
    }

    const FLASHER: &str = "{\"d\":[{\"contract\":{\"data\":{\"media\":{\"defaultBoot\":\"internal\",\"altBoot\":[\"usb\"]}}}}]}";
    const VERSIONS: &str = "{\"d\":[{\"raw_version\":\"5.1.20\"},{\"raw_version\":\"5.1.20+rev1\"},{\"raw_version\":\"6.0.0-rc1\"}]}";

    fn good(contract: &str) -> Vec<Answer> {
        vec![
            answer("/v7/device_type?$top=1&$select=contract", "200 OK", contract),
            answer("/v7/release?", "200 OK", VERSIONS),
            answer(
                "/device-types/v1/intel-nuc/images/5.1.20%2Brev1/download-size",
                "200 OK",
                "{\"size\":123}",
            ),
            answer(
                "/v7/device_type?$select=id&$filter=slug%20eq%20%27intel-nuc%27",
                "200 OK",
                "{\"d\":[{\"id\":24}]}",
            ),
            answer("/ping", "200 OK", "OK\n"),
        ]
    }

    #[test]
    fn an_image_is_found() {
        let api = Api::start(good(FLASHER));
        let wanted = Wanted::parse("default").unwrap();
        let found = api.cloud().find_image(&wanted, "nuc").unwrap();
        assert_eq!((&*found.version, found.size), ("5.1.20+rev1", Some(123)));
        assert_eq!(&*found.file_name, "intel-nuc-5.1.20+rev1.img.gz");
        assert_eq!(found.bearer, "kEyInNoLoG");
        let target = "/folder/download?deviceType=intel-nuc&version=5.1.20%2Brev1&fileType=.gz&imageType=raw";
        assert_eq!(found.url.target(), target);
        assert_eq!(api.asked().len(), 3, "{:?}", api.asked());
        let seen = api.seen.lock().unwrap().join("\n").to_ascii_lowercase();
        assert_eq!(seen.matches("authorization: bearer keyinnolog\r\n").count(), 3);
    }

    #[test]
    fn an_image_that_is_raw_already_is_not_asked_for_as_raw() {
        let mut answers =
            good("{\"d\":[{\"contract\":{\"data\":{\"media\":{\"defaultBoot\":\"sdcard\"}}}}]}");
        // Nor need the size be known.
        answers.remove(2);
        let api = Api::start(answers);
        let found = api.cloud().find_image(&Wanted::parse("5.1.20").unwrap(), "intel-nuc").unwrap();
        let target = "/folder/download?deviceType=intel-nuc&version=5.1.20&fileType=.gz";
        assert_eq!((found.url.target(), found.size), (target, None));
    }

    #[test]
    fn an_answer_of_megabytes_is_read() {
        let mut answers = good(FLASHER);
        let entry = |number: u32| {
            format!(
                "{{\"raw_version\":\"5.{}.{}\",\"x\":[{{\"y\":\"é\"}}]}}",
                number / 100,
                number % 100
            )
        };
        let all: Vec<_> = (0..40_000).map(entry).collect();
        answers[1].2 = format!("{{\"d\":[{}]}}", all.join(","));
        let api = Api::start(answers);
        let found =
            api.cloud().find_image(&Wanted::parse("default").unwrap(), "intel-nuc").unwrap();
        assert_eq!(&*found.version, "5.399.99");
    }

    #[test]
    fn numbers_of_device_types() {
        let api = Api::start(good(FLASHER));
        assert_eq!(api.cloud().device_type_id("nuc").unwrap(), 24);
        let api = Api::start(vec![answer("/v7/device_type?", "200 OK", "{\"d\":[]}")]);
        let text = message(&api.cloud().device_type_id("nuc").unwrap_err());
        assert!(text.contains("intel-nuc: it knows none of that name; check deviceType"), "{text}");
    }

    #[test]
    fn what_an_api_does_not_have_is_said_with_what_to_do() {
        let with = |at: usize, status, body: &str| {
            let mut answers = good(FLASHER);
            (answers[at].1, answers[at].2) = (status, body.to_string());
            Api::start(answers)
        };
        for (api, wanted, words) in [
            (Api::start(vec![]), "default", ["HTTP 404", "give one with -i FILE or URL"]),
            (
                with(0, "200 OK", "{\"d\":[]}"),
                "default",
                ["device type intel-nuc: it knows none", "--change-dt-to"],
            ),
            (
                with(0, "401 Unauthorized", "Unauthorized"),
                "default",
                ["HTTP 401", "does not take the key"],
            ),
            (
                with(0, "200 OK", "<html>"),
                "default",
                [
                    "asking what device type it is at http://127.0.0.1",
                    "the answer cannot be read: it is no JSON",
                ],
            ),
            (
                with(1, "404 Not Found", "<html>"),
                "default",
                ["/folder/v7/release: HTTP 404", "give one with -i FILE or URL"],
            ),
            (with(1, "200 OK", "{\"d\":[]}"), "default", ["the API has none", "with -i"]),
            (
                with(1, "200 OK", "{\"error\":\"kEyInNoLoG\"}"),
                "default",
                ["no list 'd'", "-i FILE or URL"],
            ),
            (
                with(1, "200 OK", "{\"d\":[{\"raw_version\":\"5.1"),
                "default",
                ["asking for the versions of balenaOS at http", "it ends too early"],
            ),
            (
                with(1, "200 OK", VERSIONS),
                "5.1.21",
                ["the API has no 5.1.21; it has 5.1.20+rev1, 6.0.0-rc1;", "-v"],
            ),
        ] {
            let text = refusal(&api, wanted);
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_given_up() {
        let mut answers = good(FLASHER);
        answers[1].2 = format!("{{\"d\":[\"{}\"]}}", "x".repeat(LONGEST as usize));
        let text = refusal(&Api::start(answers), "default");
        assert!(text.contains("it is longer than 16 MiB"), "{text}");
    }

    const SECONDS: Duration = Duration::from_secs(20);

    #[test]
    fn both_are_checked_and_each_says_what_is_wrong() {
        let api = Api::start(good(FLASHER));
        let vpn = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = vpn.local_addr().unwrap().port();
        let results = check(Some(&mut api.cloud()), Some(("127.0.0.1", port)), SECONDS).unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert_eq!(api.asked(), ["/folder/ping"]);
        assert!(!api.seen.lock().unwrap()[0].contains("kEyInNoLoG"), "a ping needs no key");

        // Where nobody listens.
        let vpn = Some(("127.0.0.1", 1));
        let other = Api::start(vec![answer("/ping", "200 OK", "<html>welcome</html>")]);
        let [of_api, of_vpn] = check(Some(&mut other.cloud()), vpn, SECONDS).unwrap();
        let (of_api, of_vpn) = (message(&of_api.unwrap_err()), message(&of_vpn.unwrap_err()));
        assert!(of_api.contains("/folder/ping: the answer is not OK"), "{of_api}");
        assert!(of_vpn.contains("127.0.0.1") && of_vpn.contains("refused"), "{of_vpn}");
        let none = Api::start(vec![]);
        let text = message(&none.cloud().ping(SECONDS).unwrap_err());
        assert!(text.contains("/folder/ping: HTTP 404") && !text.contains("-i FILE"), "{text}");

        // Only one, and none.
        let [of_api, of_vpn] = check(None, vpn, SECONDS).unwrap();
        assert!(of_api.is_ok() && of_vpn.is_err());
        let [of_api, of_vpn] = check(Some(&mut other.cloud()), None, SECONDS).unwrap();
        assert!(of_api.is_err() && of_vpn.is_ok());
        assert!(check(None, None, SECONDS).unwrap().iter().all(Result::is_ok));
    }

    #[test]
    fn an_api_that_says_nothing_is_waited_for_as_long_as_was_said() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap()).leak();
        let text = message(&cloud_at(endpoint).ping(Duration::from_millis(100)).unwrap_err());
        assert!(text.contains("timed out") || text.contains("no answer"), "{text}");
    }

    #[test]
    fn a_proxy_that_does_not_answer_is_named_without_its_password() {
        let proxies =
            Proxies { http: Some("http://me:kEyInNoLoG@127.0.0.1:1"), ..Proxies::default() };
        let settings = Settings { proxies, ..Settings::default() };
        let mut cloud = Cloud::new(settings, "http://api.example.org", "key").unwrap();
        let text = message(&cloud.ping(Duration::from_millis(500)).unwrap_err());
        assert!(text.contains("proxy") && text.contains("127.0.0.1"), "{text}");
    }

    #[test]
    fn an_api_address_that_is_none_is_refused() {
        for endpoint in ["ftp://x", "x y", "", "https://"] {
            let text = message(&cloud_at(endpoint).ping(SECONDS).unwrap_err());
            assert!(!text.is_empty());
        }
    }

    #[test]
    fn the_key_is_in_no_log() {
        let path = std::env::temp_dir().join(format!("takeover-cloud-log-{}", std::process::id()));
        let file =
            std::fs::File::options().create_new(true).read(true).append(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut reader = file.try_clone().unwrap();
        log::to_file(file.into());
        log::set_level(Level::Trace);
        crate::debug!("the log is kept");
        let wanted = Wanted::parse("default").unwrap();
        let mut answers = good(FLASHER);
        let api = Api::start(answers.clone());
        api.cloud().find_image(&wanted, "nuc").unwrap();
        api.cloud().ping(SECONDS).unwrap();
        answers[1].1 = "401 kEyInNoLoG";
        let refused = Api::start(answers);
        message(&refused.cloud().find_image(&wanted, "nuc").err().expect("it is refused"));
        message(&cloud_at("http://127.0.0.1:1/").device_type_id("nuc").unwrap_err());
        log::set_level(Level::Info);
        let mut text = String::new();
        reader.rewind().unwrap();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.contains("the log is kept"));
        assert!(!text.contains("kEyInNoLoG"), "{text}");
    }
}
