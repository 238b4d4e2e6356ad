//! The question before the first change, to whoever sits at the terminal.

use crate::disk::device::Disk;
use crate::error::Error;
use crate::files;
use crate::text::{Size, Text};

/// Asks whether everything on a disk may be lost. The end of input means no.
pub fn ask(target: &Disk) -> Result<(), Error> {
    let question: Text<200> = crate::text!(
        "All data on /dev/{} ({}) will be lost. Type 'yes' to go on: ",
        target.name,
        Size(target.size)
    );
    // A prompt that cannot be written will not be answered either.
    let _ = files::write_all(rustix::stdio::stderr(), question.as_bytes());
    let mut answer = [0; 16];
    let count = rustix::io::read(rustix::stdio::stdin(), &mut answer).unwrap_or(0);
    match answer.get(..count).unwrap_or_default().trim_ascii() {
        b"yes" => Ok(()),
        _ => Err(Error::refused("asking", "for consent", "the answer was not 'yes'")
            .advice("--no-ack asks no question")),
    }
}
