//! What a wireless interface says of itself by the wireless extensions, which cfg80211 still answers
//! (<linux/wireless.h>).

use rustix::fd::{AsFd, AsRawFd};
use rustix::io::Errno;

/// <linux/wireless.h>: the name of the network that is joined.
const SIOCGIWESSID: usize = 0x8B1B;

/// The longest name, in bytes.
pub const LONGEST: usize = 32;

/// struct iwreq: the interface's name, and of its union the struct iw_point, which is its longest member here.
#[repr(C)]
struct Request {
    name: [u8; 16],
    pointer: *mut u8,
    length: u16,
    flags: u16,
    /// The union has 16 bytes on every target.
    padding: [u8; 4],
}

/// Fills `name` with the name of the network that an interface has joined, and gives its length; 0 when it has joined
/// none. `socket` is any socket.
pub fn joined(
    socket: impl AsFd,
    interface: &str,
    name: &mut [u8; LONGEST],
) -> Result<usize, Errno> {
    let mut request = Request {
        name: super::terminated(interface)?,
        pointer: name.as_mut_ptr(),
        length: LONGEST as u16,
        flags: 0,
        padding: [0; 4],
    };
    // SAFETY: the request is a live struct iwreq, of at least the 32 bytes that the kernel copies, and its pointer
    // leads to as many bytes as its length says; the kernel writes no more (ioctl_standard_iw_point in
    // net/wireless/wext-core.c).
    let result = unsafe {
        super::syscall(
            linux_raw_sys::general::__NR_ioctl as _,
            socket.as_fd().as_raw_fd() as usize,
            SIOCGIWESSID,
            &raw mut request as usize,
        )
    };
    super::checked(result)?;
    Ok(usize::from(request.length).min(LONGEST))
}
