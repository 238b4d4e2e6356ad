//! Which image it is, and from where: the one that was named, or the one that the API offers.
//!
//! A takeover, and `-d`, fetch it into the work directory. A dry run, which writes nothing, `takeover flash`, whose
//! system may have no room, and `takeover scan` read it from its server by ranges.

use super::prepare::image::{ImageSource, Sum, is_url};
use crate::cli::{Flag, Options};
use crate::error::Error;
use crate::new_os::examination::ImageFile;
use core::cell::OnceCell;

#[cfg(feature = "http")]
use {
    super::decide::release,
    super::look::cloud,
    super::prepare::download::{Download, Order},
    crate::cli::Command,
    crate::image::source::RemoteSource,
    crate::net::{client::Client, remote::Remote, url::Url},
};

/// Where the image's bytes are kept while they are used.
pub type Place = OnceCell<ImageSource>;

/// The image that was named, opened, and its format told; nothing where none was.
pub fn named<'a>(
    options: &Options,
    config: Option<&[u8]>,
    place: &'a Place,
) -> Result<Option<ImageFile<'a>>, Error> {
    let Some(image) = options.image.as_deref() else {
        return Ok(None);
    };
    let source = if is_url(image) {
        at_url(image, options, config)
            .map_err(|error| error.or_advice("check the URL, and the way to its server"))
    } else {
        ImageSource::file(image, sum(options))
    };
    open(source?, place).map(Some)
}

/// True when the image is a URL with config.json beside it: what the device is can be checked before it is asked for.
pub fn can_wait(options: &Options) -> bool {
    options.config.is_some() && options.image.as_deref().is_some_and(is_url)
}

/// What was asked about the digest of the file; that of a file that stays is told.
fn sum(options: &Options) -> Sum<'_> {
    Sum { wanted: options.sha256.as_deref(), is_told: options.has(Flag::DownloadOnly) }
}

fn open(source: ImageSource, place: &Place) -> Result<ImageFile<'_>, Error> {
    let source = place.get_or_init(|| source);
    ImageFile::open(source, source.name())
}

#[cfg(not(feature = "http"))]
fn at_url(_: &str, _: &Options, _: Option<&[u8]>) -> Result<ImageSource, Error> {
    Err(Error::usage("--image", "this build reads no URLs")
        .advice("use one of the set no-tls or full"))
}

#[cfg(feature = "http")]
fn at_url(image: &str, options: &Options, config: Option<&[u8]>) -> Result<ImageSource, Error> {
    let url = Url::parse(image)?;
    let name = url.file_name();
    let order = Order { url: &url, bearer: None, name, folder: &options.work_dir };
    fetch(&order, options, config)
}

/// openBalena may have versions, and no images of them.
#[cfg(feature = "http")]
const GIVE_IT: &str = "where the API has no image, give it with -i FILE or URL";

/// The image that the API offers, asked for, and its format told.
#[cfg(feature = "http")]
pub fn offered<'a>(
    found: &cloud::Download,
    options: &Options,
    config: Option<&[u8]>,
    place: &'a Place,
) -> Result<ImageFile<'a>, Error> {
    let (name, folder) = (&*found.file_name, &*options.work_dir);
    let order = Order { url: &found.url, bearer: Some(found.bearer), name, folder };
    let source = fetch(&order, options, config).map_err(|error| error.or_advice(GIVE_IT))?;
    open(source, place)
}

/// How often an exchange is tried while a disk is being flashed from the network: what is begun is worth waiting for,
/// and the disk is incomplete until then. With the pauses between them a quarter of an hour, and the time of each
/// attempt.
#[cfg(feature = "http")]
const WHILE_FLASHING: u32 = 36;

#[cfg(feature = "http")]
#[inline(never)]
fn fetch(
    order: &Order<'_>,
    options: &Options,
    config: Option<&[u8]>,
) -> Result<ImageSource, Error> {
    let client = Client::new(release::settings(options, config)?)?;
    let (name, sum) = (order.url.shown(), sum(options));
    let is_takeover = options.command == Command::Takeover;
    if is_takeover && !options.has(Flag::DryRun) {
        return Ok(ImageSource::download(Download::open(client, order)?, name, sum));
    }
    let mut remote = Remote::open(client, order.url, order.bearer, 0, None)?;
    if is_takeover {
        // Content with what a takeover is content with, which stores the file: any server will do.
        let (length, to_come) = Download::check(order, &mut remote)?;
        let source = RemoteSource::for_a_look(remote, length)?;
        return Ok(ImageSource::remote(source, name, sum).storing(to_come));
    }
    if options.command == Command::Flash {
        remote.set_attempts(WHILE_FLASHING);
    }
    Ok(ImageSource::remote(RemoteSource::new(remote)?, name, sum))
}
