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
        let result = address.and_then(|address| {
            self.ask(DOING, &address, &mut |found| size = size.or(replies::size(found)))
        });
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

    /// Asks, and shows each value of the answer to `visit` as it comes in.
    fn ask(
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
            404 => error.advice(NO_IMAGES),
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
