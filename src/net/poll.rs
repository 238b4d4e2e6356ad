//! Waiting for sockets, until a moment.

use super::deadline::Deadline;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// Waits until one of these has an event; false when the time is over before. A signal that was handled ends nothing:
/// poll(2) never goes on by itself.
pub(super) fn any(sockets: &mut [PollFd<'_>], deadline: Deadline) -> Result<bool, Errno> {
    loop {
        let left = deadline.left();
        let timeout =
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(sockets, Some(&timeout)) {
            Err(Errno::INTR) => {}
            // The machine may have slept, which the kernel's timer does not count.
            Ok(0) if !deadline.is_over() => {}
            result => return result.map(|count| count > 0),
        }
    }
}

/// Waits until this one has an event; ETIMEDOUT when the time is over before.
pub(super) fn one(socket: &OwnedFd, events: PollFlags, deadline: Deadline) -> Result<(), Errno> {
    let is_ready = any(&mut [PollFd::new(socket, events)], deadline)?;
    if is_ready { Ok(()) } else { Err(Errno::TIMEDOUT) }
}
