//! Resolves names, for `tests/test_names.py`: `resolve MILLISECONDS NAME...`, by /etc/hosts and /etc/resolv.conf.
//!
//! Answers each with a line: its addresses with blanks between, or `failed WHY`.

use std::time::Duration;
use takeover::address::shown;
use takeover::net::deadline::Deadline;
use takeover::net::names;
use takeover::text::Text;

fn main() {
    let mut words = std::env::args().skip(1);
    let patience = Duration::from_millis(words.next().unwrap().parse().unwrap());
    for name in words {
        match names::resolve(&name, Deadline::after(patience)) {
            Ok(found) => {
                let found: Vec<_> =
                    found.iter().map(|address| shown(*address).to_string()).collect();
                println!("{}", found.join(" "));
            }
            Err(error) => {
                let text: Text<600> = takeover::text!("failed {}", error);
                println!("{}", &*text);
            }
        }
    }
}
