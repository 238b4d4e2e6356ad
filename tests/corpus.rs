//! Every input in `tests/corpus/PARSER/` still does what it did: examples that were written, and whatever the fuzzer
//! found (`tests/fuzz/run`).

mod parsers;

use parsers::{PARSERS, Parser};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Names the input when the parser panics.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was {}", self.0.display());
        }
    }
}

/// The hook of std would look for a backtrace, and never come back: that takes more heap than the program's cap.
fn panic_without_backtrace() {
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
}

fn run(parser: &Parser) -> (usize, usize) {
    let folder = folder().join(parser.name);
    let entries = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("no corpus for {}: {error}", parser.name));
    let (mut taken, mut refused) = (0, 0);
    for entry in entries {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let _running = Running(&path);
        match (parser.check)(&bytes) {
            true => taken += 1,
            false => refused += 1,
        }
    }
    (taken, refused)
}

#[test]
fn every_parser_keeps_its_promises_for_its_corpus() {
    panic_without_backtrace();
    for parser in PARSERS {
        let (taken, refused) = run(parser);
        // Else the corpus has gone stale: it would reach nothing behind the first check, or nothing of what refuses.
        assert!(taken > 0, "{}: no input is taken", parser.name);
        assert!(refused > 0, "{}: no input is refused", parser.name);
    }
}

#[test]
fn every_corpus_has_a_parser_and_is_small() {
    panic_without_backtrace();
    let mut total = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let parser = PARSERS.iter().find(|parser| parser.name == name);
        // A smaller set of features has fewer.
        if parser.is_none() && !cfg!(feature = "full") {
            continue;
        }
        let parser = parser.unwrap_or_else(|| panic!("{name} is no parser"));
        for entry in std::fs::read_dir(&path).unwrap() {
            let length = entry.unwrap().metadata().unwrap().len();
            assert!(length <= parser.longest as u64, "an input for {name} is too long");
            total += length;
        }
    }
    assert!(total < 500 * 1024, "the corpus takes {total} bytes");
}
