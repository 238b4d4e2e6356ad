//! Paths of a fixed length: refused when they do not fit, never cut.

use crate::error::Error;
use crate::text::{Format, PathText};

/// A path from a text with places and its values, or an error when it does not fit into a
/// [`PathText`](crate::text::PathText).
#[macro_export]
macro_rules! path {
    ($($arg:tt)*) => {
        $crate::path::build($crate::format!($($arg)*))
    };
}

/// The path that `format` writes. Use [`path!`](crate::path!).
#[inline(never)]
pub fn build(format: &mut dyn Format) -> Result<PathText, Error> {
    let (path, cut) = PathText::build_whole(format);
    if cut { Err(too_long(&path)) } else { Ok(path) }
}

/// What [`path!`](crate::path!) fails with.
pub fn too_long(start: &str) -> Error {
    Error::failed("using the path", start, "it is longer than 255 bytes")
        .advice("use shorter directory names")
}

#[cfg(test)]
mod tests {

    #[test]
    fn a_full_path_is_an_error() {
        let long = "x".repeat(300);
        assert!(path!("/{}", long.as_str()).is_err());
        assert_eq!(&*path!("/{}", "a").unwrap(), "/a");
    }
}
