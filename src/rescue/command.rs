//! The command line of the program in the set `rescue`: `takeover flash` and `takeover scan`.

use super::flash::{self, Found};
use super::wishes::Wishes;
use crate::disk::writable;
use crate::error::{Doing, Error};
use crate::files;
use crate::image::decode::BUFFER;
use crate::progress::Shared;
use crate::sys::start::Arguments;
use crate::sys::{map, process};

const HELP: &str = "\
takeover: writes a disk image to a disk that is not in use (feature set rescue)

  takeover flash -i IMAGE -f DEV [OPTIONS]
  takeover scan IMAGE           say what an image is

  -i, --image FILE      raw, gzip or zip
  -f, --flash-to DEV    the disk
  -c, --config FILE     config.json for a balenaOS
      --sha256 HEX      what the image file must be
      --no-dt-check     though the image is for another device type than config.json
      --no-ack          do not ask
      --dry-run         check everything, change nothing
      --tool-version

As the init of an initramfs it takes takeover.image=, takeover.to= and so on from the kernel's command line.

EXIT CODES
  0 done, 1 failed, 2 wrong usage, 3 refused, nothing was changed, 4 failed while writing: the disk is incomplete
";

/// Does what the command line says, and gives the exit code.
pub fn run(arguments: Arguments) -> i32 {
    obey(arguments).unwrap_or_else(|error| {
        crate::error!("{}", error);
        error.kind().exit_code()
    })
}

fn obey(mut arguments: Arguments) -> Result<i32, Error> {
    let mut wishes = Wishes::new();
    let mut text = move || arguments.next_text().map(|text| text.to_str().unwrap_or_default());
    let command = text().unwrap_or_default();
    while let Some(word) = text() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let is_taken = match (name.strip_prefix("--"), name.as_bytes()) {
            (Some(name), _) => wishes.take(word, name, 0, &mut || value.or_else(&mut text))?,
            (None, [b'-', letter]) => wishes.take(word, "", *letter, &mut || text())?,
            _ if command == "scan" && wishes.image.is_empty() => {
                wishes.image = word;
                true
            }
            _ => false,
        };
        if !is_taken {
            return Err(Error::usage(word, "there is no such option").advice("see --help"));
        }
    }
    match command {
        "flash" => flash(&wishes),
        "scan" => flash::scan(&wishes).map(|()| 0),
        "--tool-version" => print(concat!(
            "takeover ",
            env!("CARGO_PKG_VERSION"),
            " ",
            env!("TAKEOVER_COMMIT"),
            "\n"
        )),
        "--help" | "-h" => print(HELP),
        _ => Err(Error::usage(command, "it is neither flash nor scan").advice("see --help")),
    }
}

fn flash(wishes: &Wishes) -> Result<i32, Error> {
    wishes.check()?;
    if !rustix::process::geteuid().is_root() {
        return Err(Error::refused("starting", "", "only root can do this").advice("use sudo"));
    }
    // Keys are read. Where locking is not allowed they may be swapped out.
    let _ = map::lock_as_used();
    process::hold_termination().doing("holding back", "signals")?;
    let shared: &Shared = map::shared().doing("mapping", "the shared page")?;
    let head = map::buffer(BUFFER).doing("reserving", "the flash buffers")?;
    let target = writable::asked_for(wishes.to)?;
    let found = Found { image: wishes.image, config: wishes.config, target };
    Ok(flash::report(flash::flash(wishes, &found, head, shared)))
}

fn print(text: &str) -> Result<i32, Error> {
    files::write_all(rustix::stdio::stdout(), text.as_bytes())
        .doing("writing to", "standard output")
        .map(|()| 0)
}
