//! The backup lives under the shipped heap cap, and what it needs does not grow with what it packs.
//!
//! One process and no harness: the figures are those of the whole process. An allocation over the cap aborts it, and
//! the test fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;
use takeover::{backup, files, memory};

fn main() {
    // As the program does: under the cap a panic with a backtrace does not end.
    // SAFETY: no thread has been started.
    unsafe { takeover::sys::process::leave_environment() };
    memory::unseal();
    let directory = std::env::temp_dir().join(format!("takeover-heap-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    for (name, test) in [
        ("memory_does_not_grow_with_the_tree", tree as fn(&Path)),
        ("a_hundred_thousand_files", scale),
        ("no_description_breaks_the_cap", descriptions),
        ("the_largest_description_can_be_packed", largest),
    ] {
        test(&directory);
        println!("test {name} ... ok ({} bytes of heap at most so far)", memory::heap_high_water());
    }
    std::fs::remove_dir_all(&directory).unwrap();
    println!("test result: ok. 4 passed; 0 failed");
}

/// Packs what a description asks for, and gives the number of files.
fn pack(description: &str) -> u64 {
    pack_to(&temporary(), description)
}

fn temporary() -> OwnedFd {
    files::unnamed(std::env::temp_dir().to_str().unwrap()).unwrap()
}

fn pack_to(output: &OwnedFd, description: &str) -> u64 {
    let description = backup::parse(description.as_bytes()).ok().unwrap();
    backup::write(&description, "/", output, u64::MAX, &mut |_| Ok(())).ok().unwrap().files
}

fn all(path: &Path) -> String {
    format!("- {{volume: v, items: [{{source: {}}}]}}", path.display())
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
    assert_eq!(pack(&all(&small)), 3);
    let before = memory::heap_high_water();
    assert_eq!(pack(&all(&large)), 5000);
    assert_eq!(memory::heap_high_water(), before, "it grows with the directory");
}

/// How many files lie in one directory, and how many directories deep that one is.
const TOGETHER: [(u32, u32); 3] = [(1000, 0), (10_000, 0), (10_000, 30)];
/// Directories, directories in each, files in each of those: 100,000.
const NESTED: [u32; 3] = [20, 50, 100];

fn scale(_: &Path) {
    // In memory, where there is such a place.
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() { shared.into() } else { std::env::temp_dir() };
    let base = base.join(format!("takeover-scale-{}", std::process::id()));
    let (heap, resident) = (memory::heap_high_water(), memory::resident().peak);
    for (count, depth) in TOGETHER {
        together(&base.join("one"), count, depth);
    }
    nested(&base.join("nested"));
    std::fs::remove_dir_all(&base).unwrap();
    let more = memory::resident().peak - resident;
    println!("{} bytes of heap at most, {more} KiB more resident", memory::heap_high_water());
    assert!(memory::heap_high_water() < heap + 16 * 1024, "it grows with the number of files");
    assert!(more < 4096, "{more} KiB more are resident");
}

/// The name of file `index`: in the order of the numbers, and made in another.
fn name(index: u32) -> String {
    format!("record-{index:06}.dat")
}

fn fill(directory: &Path, count: u32) {
    std::fs::create_dir_all(directory).unwrap();
    for index in 0..count {
        // 7919 is a prime that divides no count.
        let index = (u64::from(index) * 7919 % u64::from(count)) as u32;
        std::fs::write(directory.join(name(index)), b"a small file").unwrap();
    }
}

/// Many files in one directory, which is read once for each lot of names that fits into memory.
fn together(top: &Path, count: u32, depth: u32) {
    fill(&top.join("d/".repeat(depth as usize)), count);
    let output = temporary();
    let since = Instant::now();
    assert_eq!(pack_to(&output, &all(top)), u64::from(count));
    println!("{count} files in one directory, {depth} deep: {:?}", since.elapsed());
    let mut listed = Listed::of(output);
    for depth in 0..=depth {
        listed.expect(&format!("v/{}", "d/".repeat(depth as usize)));
    }
    for index in 0..count {
        listed.expect(&format!("v/{}{}", "d/".repeat(depth as usize), name(index)));
    }
    listed.end();
    std::fs::remove_dir_all(top).unwrap();
}

fn nested(top: &Path) {
    let [outer, inner, files] = NESTED;
    for (a, b) in (0..outer).flat_map(|a| (0..inner).map(move |b| (a, b))) {
        fill(&top.join(format!("{a:02}/{b:02}")), files);
    }
    let output = temporary();
    let since = Instant::now();
    assert_eq!(pack_to(&output, &all(top)), u64::from(outer * inner * files));
    println!("{} files in nested directories: {:?}", outer * inner * files, since.elapsed());
    let mut listed = Listed::of(output);
    listed.expect("v/");
    for a in 0..outer {
        listed.expect(&format!("v/{a:02}/"));
        for b in 0..inner {
            listed.expect(&format!("v/{a:02}/{b:02}/"));
            for index in 0..files {
                listed.expect(&format!("v/{a:02}/{b:02}/{}", name(index)));
            }
        }
    }
    listed.end();
}

/// What GNU tar finds in an archive, entry by entry: all at once would be more than the cap.
struct Listed {
    tar: Child,
    lines: BufReader<ChildStdout>,
    line: String,
}

impl Listed {
    fn of(archive: OwnedFd) -> Self {
        let mut archive = File::from(archive);
        archive.rewind().unwrap();
        let mut tar = Command::new("tar")
            .arg("-tz")
            .stdin(Stdio::from(archive))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(tar.stdout.take().unwrap());
        Self { tar, lines, line: String::new() }
    }

    fn next(&mut self) -> &str {
        self.line.clear();
        self.lines.read_line(&mut self.line).unwrap();
        self.line.trim_end_matches('\n')
    }

    fn expect(&mut self, name: &str) {
        assert_eq!(self.next(), name);
    }

    fn end(mut self) {
        assert_eq!(self.next(), "", "there is more in the archive");
        assert!(self.tar.wait().unwrap().success());
    }
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
