//! Writing to what may not be ready: a console that was stopped with Ctrl-S, a serial line that is slow or dead, must
//! not stop a flash.
//!
//! Knows nothing of what is written.

use crate::sys::clock;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use rustix::fd::AsFd;
use rustix::io::Errno;

/// How often a sink that is not ready is asked again, every 10 ms.
const PATIENCE: u32 = 20;

/// Which sinks did not take what they were last given, a bit each: they are not waited for before they do again.
static STALLED: AtomicU32 = AtomicU32::new(0);

/// Writes all bytes, waiting at most 0.2 s for a sink that is not ready, and that once, until it takes something whole
/// again. `number` tells the sinks of a process apart, those below 32. What is not taken is lost; an error is one of
/// the sink itself.
pub fn write(number: usize, sink: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    let bit = 1 << (number % 32);
    let mut patience = if STALLED.load(Relaxed) & bit == 0 { PATIENCE } else { 0 };
    while !bytes.is_empty() {
        match rustix::io::write(&sink, bytes) {
            Ok(0) => break,
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if patience == 0 => {
                STALLED.fetch_or(bit, Relaxed);
                return Ok(());
            }
            Err(Errno::AGAIN) => {
                patience -= 1;
                clock::sleep(Duration::from_millis(10));
            }
            Err(errno) => return Err(errno),
        }
    }
    STALLED.fetch_and(!bit, Relaxed);
    Ok(())
}

/// What comes now is worth the waiting, for every sink.
pub fn be_patient() {
    STALLED.store(0, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::OFlags;
    use std::io::Read;

    #[test]
    fn a_sink_that_takes_nothing_is_waited_for_once() {
        let number = 31;
        let (mut reader, sink) = std::io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&sink, OFlags::NONBLOCK).unwrap();
        let stalled = || STALLED.load(Relaxed) >> number == 1;
        write(number, &sink, b"line\n").unwrap();
        assert!(!stalled());
        write(number, &sink, &[0; 1 << 20]).unwrap();
        assert!(stalled(), "a pipe takes 64 KiB");
        // It takes something again.
        let mut buffer = vec![0; 1 << 20];
        assert!(reader.read(&mut buffer).unwrap() > 0);
        write(number, &sink, b"line\n").unwrap();
        assert!(!stalled());
        write(number, &sink, &[0; 1 << 20]).unwrap();
        be_patient();
        assert!(!stalled());
        drop(reader);
        let closed = rustix::fs::open("/dev/null", OFlags::RDONLY, rustix::fs::Mode::empty());
        assert_eq!(write(number, closed.unwrap(), b"x"), Err(Errno::BADF));
    }
}
