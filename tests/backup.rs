//! The backup lives under the shipped heap cap, and what it needs does not grow with what it packs.
//!
//! One process and no harness: the figures are those of the whole process. An allocation over the cap aborts it, and the
//! test fails.

use std::path::{Path, PathBuf};
use takeover::{backup, memory};

fn main() {
    // As the program does: under the cap a panic with a backtrace does not end.
    takeover::sys::process::without_backtraces();
    let directory = std::env::temp_dir().join(format!("takeover-heap-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    for (name, test) in [
        ("memory_does_not_grow_with_the_tree", tree as fn(&Path)),
        ("no_description_breaks_the_cap", descriptions),
        ("the_largest_description_can_be_packed", largest),
    ] {
        test(&directory);
        println!("test {name} ... ok ({} bytes of heap at most so far)", memory::heap_high_water());
    }
    std::fs::remove_dir_all(&directory).unwrap();
    println!("test result: ok. 3 passed; 0 failed");
}

/// Packs what a description asks for, and gives the number of files.
fn pack(description: &str) -> u64 {
    let description = backup::parse(description.as_bytes()).ok().unwrap();
    let output = backup::temporary(std::env::temp_dir().to_str().unwrap()).ok().unwrap();
    backup::write(&description, "/", &output, u64::MAX, &mut |_| Ok(())).ok().unwrap().files
}

/// The same names in a listing as short as it gets, ten directories deep.
fn make_tree(directory: &Path, name: &str, files: u32) -> PathBuf {
    let top = directory.join(name);
    let inner = top.join("0/1/2/3/4/5/6/7/8/9");
    std::fs::create_dir_all(&inner).unwrap();
    for index in 0..files {
        std::fs::write(inner.join(format!("{:08x}", index.wrapping_mul(2_654_435_761))), b"x")
            .unwrap();
    }
    top
}

fn tree(directory: &Path) {
    let small = make_tree(directory, "a", 3);
    let large = make_tree(directory, "b", 5000);
    let all = |path: &Path| format!("- {{volume: v, items: [{{source: {}}}]}}", path.display());
    assert_eq!(pack(&all(&small)), 3);
    let before = memory::heap_high_water();
    assert_eq!(pack(&all(&large)), 5000);
    assert_eq!(memory::heap_high_water(), before, "it grows with the directory");
}

fn descriptions(_: &Path) {
    let all = 64 * 1024;
    let starts = ["", "- ", "- volume: a\n  items: ", "- volume: a\n  items:\n  - source: "];
    let evils = [
        "[",
        "{",
        "[{",
        "- ",
        "- - ",
        "? ",
        "?\n",
        "&a ",
        "*a ",
        "!a ",
        "!!a ",
        "%TAG ! a\n",
        "%a\n",
        "'",
        "\"\\",
        "|\n ",
        ">\n ",
        "a: ",
        "a:\n ",
        "{a: ",
        "[a, ",
        "#",
        "\t",
        "\r",
        "---\n",
        "...\n",
        "\u{85}",
        "\u{2028}",
        "é",
        "- a\n",
        "  a: b\n",
        "- {volume: a, items: []}\n",
        "\0",
        "<<: ",
        "\"\\x",
        "-\n",
    ];
    for start in starts {
        for evil in evils {
            let count = (all - start.len()) / evil.len();
            let text = [start, &evil.repeat(count)].concat();
            assert!(backup::parse(text.as_bytes()).is_err(), "{start:?} {evil:?}");
        }
    }
}

/// As many items, volumes and filters as there can be, with the longest texts, all used.
fn largest(directory: &Path) {
    let source = make_tree(directory, "c", 3);
    let mut text = String::from("- volume: many\n  items:\n");
    // The costliest filters that are let in, and one more that is not.
    let filter = "(?:[a-cx-z]{7}(a)?(b)?(c)?(d)?(e)?(f)?(g)?(h)?){2}|.*";
    let mut filters = 0;
    for index in 0..256 {
        let mut item = format!("  - source: {}\n    target: t{index}\n", source.display());
        item.push_str(&format!("    filter: '(?:{filter}){{1,2}}'\n"));
        let longer = [text.as_str(), item.as_str()].concat();
        if backup::parse(longer.as_bytes()).is_err() {
            break;
        }
        text = longer;
        filters += 1;
    }
    assert!(filters >= 1);
    assert_eq!(pack(&text), filters * 3);
    let volumes: String =
        (0..2300).map(|index| format!("- {{volume: {index:x}, items: []}}\n")).collect();
    assert_eq!(pack(&volumes.replace(": ", ": v").replace(": v[]", ": []")), 0);
    println!("{filters} filters of the costliest kind");
}
