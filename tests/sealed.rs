//! Between the first and the last destructive byte nothing is allocated: the real flash, read-back and repair run here
//! over a file while the heap is sealed. An allocation in them aborts this process, and the test fails.
//!
//! One process and no harness, since the seal is for the whole process. It lives under the shipped heap cap too, so
//! everything large is mapped.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use takeover::crc32;
use takeover::disk::device::Number;
use takeover::image::decode::{BUFFER, Decoder};
use takeover::image::map::ChunkMap;
use takeover::image::source::FileSource;
use takeover::image::{CHUNK, format, scan};
use takeover::log::Level;
use takeover::plan::{ImagePlan, OnFailure, Plan, TargetPlan};
use takeover::progress::Shared;
use takeover::stage2::{Buffers, Origin, Target, flash_and_verify};
use takeover::{memory, sys};

const IMAGE: usize = 6 * CHUNK + 1536;
const DISK: usize = 8 * CHUNK;

fn main() {
    // As main does first: a failing test could not say so with a backtrace.
    // SAFETY: no thread has been started.
    unsafe { sys::process::leave_environment() };
    if let Some(kind) = std::env::args().nth(1) {
        panic_as_asked(&kind);
    }
    let directory = std::env::temp_dir().join(format!("takeover-sealed-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    for (name, test) in [
        ("flash_and_read_back_do_not_allocate", flash_and_read_back as fn(&Path)),
        ("a_stale_backup_gpt_is_cleared", stale_backup_gpt),
        ("a_sealed_heap_refuses", sealed_heap_refuses),
        ("the_heap_has_a_cap", heap_has_a_cap),
        ("a_panic_without_heap_ends_the_process", panic_without_heap),
    ] {
        test(&directory);
        println!("test {name} ... ok");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    println!("test result: ok. 5 passed; 0 failed");
}

fn flash_and_read_back(directory: &Path) {
    let image = image();
    let disk = flash(directory, image, |_| {});
    assert!(disk[..IMAGE] == *image, "the disk differs from the image");
    assert!(disk[IMAGE..].iter().all(|byte| *byte == 0xee), "written behind the image");
}

fn stale_backup_gpt(directory: &Path) {
    let end = DISK as u64 - 512;
    let disk = flash(directory, image(), |disk| disk.write_all_at(b"EFI PART", end).unwrap());
    let start = DISK - 34 * 512;
    assert!(disk[start..].iter().all(|byte| *byte == 0), "the backup GPT is still there");
    assert!(disk[start - 1] == 0xee, "more than the backup GPT was cleared");
}

fn sealed_heap_refuses(_: &Path) {
    let before = memory::heap_refused();
    memory::seal();
    let refused = Vec::<u8>::new().try_reserve(1).is_err();
    memory::unseal();
    assert!(refused);
    assert_eq!(memory::heap_refused(), before + 1);
    assert!(Vec::<u8>::new().try_reserve(1).is_ok());
}

fn heap_has_a_cap(_: &Path) {
    assert!(Vec::<u8>::new().try_reserve(memory::HEAP_CAP + 1).is_err());
    assert!(Vec::<u8>::new().try_reserve(memory::HEAP_CAP / 2).is_ok());
    assert!(memory::heap_high_water() < memory::HEAP_CAP);
}

/// A panic for which there is no heap.
fn panic_as_asked(kind: &str) -> ! {
    // A little is left: std begins with its backtrace.
    let mut left = Vec::<u8>::with_capacity(16 * 1024);
    let mut size = memory::HEAP_CAP;
    while kind == "full" && size > 0 {
        let mut taken = Vec::<u8>::new();
        match taken.try_reserve_exact(size) {
            Ok(()) => std::mem::forget(taken),
            Err(_) => size /= 2,
        }
    }
    left.shrink_to(0);
    if kind != "full" {
        memory::seal();
    }
    match kind {
        "formatted" => panic!("with {kind}"),
        _ => panic!("with a fixed message"),
    }
}

fn panic_without_heap(_: &Path) {
    for (kind, said) in [
        ("full", "panicked at tests/sealed.rs:"),
        ("fixed", "panicked at tests/sealed.rs:"),
        ("formatted", "memory allocation of "),
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(kind)
            .env("RUST_BACKTRACE", "1")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let since = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if since.elapsed() > Duration::from_secs(10) {
                child.kill().unwrap();
                child.wait().unwrap();
                // Not a panic: this one would not end either.
                eprintln!("{kind}: the panic does not end");
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut text = String::new();
        child.stderr.unwrap().read_to_string(&mut text).unwrap();
        // By a signal in the program; tests unwind.
        assert!(!status.success(), "{kind}: {text}");
        assert!(text.contains(said), "{kind}: {text}");
    }
}

/// Seven chunks: two of zeros, the last one short and no multiple of 4 KiB.
fn image() -> &'static [u8] {
    let image = sys::map::buffer(IMAGE).unwrap();
    for (position, byte) in image.iter_mut().enumerate() {
        *byte = (position / 7 + position / 4096) as u8;
    }
    image[2 * CHUNK..4 * CHUNK].fill(0);
    image
}

/// A gzip member of stored blocks: no packer is needed, and any inflater reads it.
fn pack(path: &Path, image: &[u8]) {
    let file = File::create(path).unwrap();
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        file.write_all_at(bytes, at).unwrap();
        at += bytes.len() as u64;
    };
    put(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    let blocks = image.chunks(65_535).count();
    for (index, block) in image.chunks(65_535).enumerate() {
        put(&[u8::from(index + 1 == blocks)]);
        put(&(block.len() as u16).to_le_bytes());
        put(&(!(block.len() as u16)).to_le_bytes());
        put(block);
    }
    put(&crc32::crc32(image).to_le_bytes());
    put(&(image.len() as u32).to_le_bytes());
}

/// Flashes the packed image to a file full of 0xee that `prepare` has changed, and gives what is in it then.
fn flash(directory: &Path, image: &[u8], prepare: impl Fn(&File)) -> &'static [u8] {
    let packed = directory.join("image.gz");
    pack(&packed, image);
    let path = directory.join("disk");
    let disk = sys::map::buffer(DISK).unwrap();
    disk.fill(0xee);
    std::fs::write(&path, &*disk).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    prepare(&file);

    let source = FileSource::open(packed.to_str().unwrap()).unwrap();
    let stream = format::detect(&source, "image.gz").unwrap();
    let map = ChunkMap::create().unwrap();
    let buffer = sys::map::buffer(BUFFER).unwrap();
    let found = scan::scan(&mut Decoder::new(&source, stream), buffer, &map).unwrap();
    let plan = plan(stream, &found);
    let shared: &Shared = sys::map::shared().unwrap();
    let target = Target::new(file.into(), DISK as u64, 512);
    let mut buffers = Buffers::map().unwrap();
    let origin = Origin { source: &source, stream, map: &map };
    // As main does before any of this: a refused allocation aborts, and this test with it.
    memory::seal();
    let result = flash_and_verify(&plan, &target, origin, &mut buffers, shared);
    memory::unseal();
    assert!(result.is_ok());
    assert_eq!(memory::heap_refused(), 0, "something was allocated while the heap was sealed");

    let file = File::open(&path).unwrap();
    file.read_exact_at(disk, 0).unwrap();
    disk
}

fn plan(stream: format::Stream, found: &scan::Scan) -> Plan {
    Plan {
        pretend: false,
        on_failure: OnFailure::Halt,
        log_level: Level::Info,
        image: ImagePlan {
            stream,
            length: found.length,
            chunks: found.chunks,
            zero_chunks: found.zero_chunks,
            map_crc: found.map_crc,
            packed_crc: found.packed_crc,
        },
        target: TargetPlan {
            name: heapless::String::new(),
            number: Number { major: 0, minor: 0 },
            size: DISK as u64,
            logical_block: 512,
        },
        boot: None,
        data: None,
        furnishings: heapless::Vec::new(),
        fallback_log: None,
        old_log: None,
        log_device: None,
    }
}
