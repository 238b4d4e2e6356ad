//! Which image it is, and from where: the one that was named, or the one that the API offers.
//!
//! A takeover, and `-d`, fetch it into the work directory. A dry run, which writes nothing, `takeover flash`, whose
//! system may have no room, and `takeover scan` read it from its server by ranges.

use super::look::examination::ImageFile;
use super::prepare::image::{ImageSource, is_url};
use crate::cli::Options;
use crate::error::Error;
use core::cell::OnceCell;

#[cfg(feature = "http")]
use {
    super::decide::release,
    super::look::cloud,
    super::prepare::download::Order,
    crate::cli::{Command, Flag},
    crate::net::{client::Client, url::Url},
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
    } else {
        ImageSource::file(image, options)
    };
    open(source?, place).map(Some)
}

/// True when the image is a URL with config.json beside it: what the device is can be checked before it is asked for.
pub fn can_wait(options: &Options) -> bool {
    options.config.is_some() && options.image.as_deref().is_some_and(is_url)
}

fn open(source: ImageSource, place: &Place) -> Result<ImageFile<'_>, Error> {
    let source = place.get_or_init(|| source);
    ImageFile::open(source, source.name())
}

#[cfg(not(feature = "http"))]
fn at_url(_: &str, _: &Options, _: Option<&[u8]>) -> Result<ImageSource, Error> {
    Err(Error::usage("--image", "this build reads no URLs: those with the feature http do"))
}

#[cfg(feature = "http")]
fn at_url(image: &str, options: &Options, config: Option<&[u8]>) -> Result<ImageSource, Error> {
    let url = Url::parse(image)?;
    let name = url.file_name();
    let order = Order { url: &url, bearer: None, name, folder: &options.work_dir };
    fetch(&order, options, config)
}

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
    open(fetch(&order, options, config)?, place)
}

#[cfg(feature = "http")]
#[inline(never)]
fn fetch(
    order: &Order<'_>,
    options: &Options,
    config: Option<&[u8]>,
) -> Result<ImageSource, Error> {
    let client = Client::new(release::settings(options, config)?)?;
    if options.command == Command::Takeover && !options.has(Flag::DryRun) {
        ImageSource::download(client, order, options)
    } else {
        ImageSource::remote(client, order.url, order.bearer, options)
    }
}
