//! The fuzzer: feeds one parser, named by the variable PARSER, with what libFuzzer makes up. Run it by tests/fuzz/run.

#![no_main]

mod oracle;
#[path = "../../parsers/mod.rs"]
mod parsers;

use libfuzzer_sys::fuzz_target;
use parsers::{PARSERS, Parser};
use std::sync::OnceLock;

static CHOSEN: OnceLock<(&Parser, oracle::Oracle)> = OnceLock::new();

fn choose() {
    // The program's heap takes little back while it reads its command line (sys/heap.rs): what the checks here ask for
    // and give back a million times would stay, up to the fuzzer's limit of memory. Unsealed, it has an arena.
    takeover::memory::unseal();
    // The hook of std would look for a backtrace, and never come back: that takes more heap than the program's cap.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let name = std::env::var("PARSER").unwrap_or_default();
    let Some(parser) = PARSERS.iter().find(|parser| parser.name == name) else {
        for parser in PARSERS {
            println!("{} {}", parser.name, parser.longest);
        }
        std::process::exit(i32::from(!name.is_empty()));
    };
    let _ = CHOSEN.set((parser, oracle::of(parser.name)));
}

fuzz_target!(init: choose(), |bytes: &[u8]| {
    if let Some((parser, oracle)) = CHOSEN.get() {
        let taken = (parser.check)(bytes);
        oracle(bytes, taken);
    }
});
