//! Drivers that the kernel has as modules: whatever lies in /modules of the initramfs, in the order of the names.
//! Nothing resolves what depends on what: the names do.

use crate::error::Error;
use crate::files;
use crate::sys::process;
use crate::text::Text;
use core::ops::ControlFlow;
use rustix::fs::OFlags;
use rustix::io::Errno;

const FOLDER: &str = "/modules";

/// Loads them all. What cannot be loaded is said: the disk may be there all the same.
pub fn load() {
    let mut last: Text<255> = Text::new();
    while let Some(name) = next(&last) {
        match insert(&name) {
            // Built in, or named twice.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => crate::warn!("{}", Error::os("loading the module", &name, errno)),
        }
        last = name;
    }
}

/// The first name behind `last`: in the order of their bytes, without a list of them.
fn next(last: &str) -> Option<Text<255>> {
    let mut found: Option<Text<255>> = None;
    // Without the folder there are none.
    let _ = files::for_each_entry(FOLDER, &mut |name: &str| {
        if name > last && found.as_ref().is_none_or(|found| name < &**found) {
            found = Some(Text::from(name));
        }
        ControlFlow::Continue(())
    });
    found
}

fn insert(name: &str) -> Result<(), Errno> {
    let path = files::below(FOLDER, name).map_err(|_| Errno::NAMETOOLONG)?;
    process::load_module(files::open(&path, OFlags::RDONLY)?, !name.ends_with(".ko"))
}
