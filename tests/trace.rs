//! Makes a process execute what it cannot, as often as asked: for `tests/test_init_guests.py`.
//!
//! Arguments: the number of the process, a path that ends in `/takeover`, how often. Says how often it failed, and with
//! what at last; a success would be the end of the process.

use core::time::Duration;
use rustix::process::Pid;
use takeover::stage1::trace;
use takeover::text::Text;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("three arguments");
    let id = next().parse().ok().and_then(Pid::from_raw).expect("the number of a process");
    let (path, times) = (next(), next().parse::<u32>().expect("how often"));
    for count in 1..=times {
        match trace::make_execute(id, &path, Duration::from_secs(10)) {
            Ok(()) => panic!("it was executed"),
            Err(error) => {
                let text: Text<512> = takeover::text!("{} failed: {}", count, error);
                if count == times || !text.contains("executing, in its place,") {
                    println!("{}", text.as_str());
                }
            }
        }
    }
}
