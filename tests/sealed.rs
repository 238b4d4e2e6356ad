//! Between the first and the last destructive byte nothing is allocated: the real flash, read-back and repair run here
//! over a file while the heap is sealed. An allocation in them aborts this process, and the test fails.
//!
//! One process and no harness, since the seal is for the whole process. It lives under the shipped heap cap too, so
//! everything large is mapped.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use takeover::crc32;
use takeover::disk::device::Number;
use takeover::error::Error;
use takeover::image::decode::{BUFFER, Decoder};
use takeover::image::map::ChunkMap;
use takeover::image::source::FileSource;
use takeover::image::{CHUNK, format, scan};
use takeover::log::Level;
use takeover::plan::{ImagePlan, OnFailure, Plan, TargetPlan};
use takeover::progress::Shared;
use takeover::stage2::{Buffers, Origin, Target, flash_and_verify};
use takeover::text::Text;
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
        ("the_end_of_a_large_image_is_kept", large_image_and_stale_backup_gpt),
        ("a_medium_that_does_not_keep_what_is_written_is_an_error", forgetful_medium),
        ("a_medium_that_cannot_be_read_is_an_error", unreadable_medium),
        ("a_sealed_heap_refuses", sealed_heap_refuses),
        ("the_heap_has_a_cap", heap_has_a_cap),
        ("a_panic_without_heap_ends_the_process", panic_without_heap),
    ] {
        test(&directory);
        println!("test {name} ... ok");
    }
    std::fs::remove_dir_all(&directory).unwrap();
    println!("test result: ok. 8 passed; 0 failed");
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

/// The image ends where the last sectors of a backup GPT begin: those are cleared, and nothing of the image.
fn large_image_and_stale_backup_gpt(directory: &Path) {
    let length = DISK - 4 * 512;
    let image = sys::map::buffer(length).unwrap();
    image[..IMAGE].copy_from_slice(self::image());
    image[IMAGE..].fill(0x77);
    let end = DISK as u64 - 512;
    let run = run(
        directory,
        image,
        &|disk| disk.write_all_at(b"EFI PART", end).unwrap(),
        File::options().read(true),
    );
    assert!(run.result.is_ok());
    assert!(run.disk[..length] == *image, "the disk differs from the image");
    assert!(run.disk[length..].iter().all(|byte| *byte == 0), "the backup GPT is still there");
    assert_eq!(
        run.shared.repaired.load(SeqCst),
        0,
        "the end of the image was overwritten and repaired"
    );
}

/// What is written to a file that is open for appending lands behind its end, whatever place was asked for (BUGS of
/// pwrite(2)): the image never arrives.
fn forgetful_medium(directory: &Path) {
    let run = run(directory, image(), &|_| {}, File::options().read(true).append(true));
    let Err(error) = run.result else {
        panic!("success was reported, and nothing of the image is there");
    };
    let text: Text<400> = takeover::text!("{}", error);
    assert!(text.contains("still wrong after three repairs"), "{}", &*text);
    assert!(text.contains("6 chunk(s), the first is 1"), "{}", &*text);
    assert!(run.disk.iter().all(|byte| *byte == 0xee), "not what was meant to be tested");
}

fn unreadable_medium(directory: &Path) {
    let run = run(directory, image(), &|_| {}, &mut File::options());
    assert!(run.result.is_err(), "success was reported, and nothing could be read back");
    assert!(run.disk[..CHUNK].iter().all(|byte| *byte == 0), "it boots, and was not verified");
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
    let run = run(directory, image, &prepare, File::options().read(true));
    assert!(run.result.is_ok());
    run.disk
}

/// How a flash ended, and what is on the disk then.
struct Run {
    result: Result<(), Error>,
    disk: &'static [u8],
    shared: &'static Shared,
}

/// The same with a disk that is opened in this way, and for writing.
fn run(directory: &Path, image: &[u8], prepare: &dyn Fn(&File), way: &mut OpenOptions) -> Run {
    let packed = directory.join("image.gz");
    pack(&packed, image);
    let path = directory.join("disk");
    let disk = sys::map::buffer(DISK).unwrap();
    disk.fill(0xee);
    std::fs::write(&path, &*disk).unwrap();
    prepare(&File::options().write(true).open(&path).unwrap());

    let source = FileSource::open(packed.to_str().unwrap()).unwrap();
    let stream = format::detect(&source, "image.gz").unwrap();
    let map = ChunkMap::create().unwrap();
    let buffer = sys::map::buffer(BUFFER).unwrap();
    let found = scan::scan(&mut Decoder::new(&source, stream), buffer, &map).unwrap();
    let plan = plan(stream, &found);
    let shared: &Shared = sys::map::shared().unwrap();
    let target = Target::new(way.write(true).open(&path).unwrap().into(), DISK as u64, 512);
    let mut buffers = Buffers::map().unwrap();
    let origin = Origin { source: &source, stream, map: &map };
    // As main does before any of this: a refused allocation aborts, and this test with it.
    memory::seal();
    let result = flash_and_verify(&plan, &target, origin, &mut buffers, shared);
    memory::unseal();
    assert_eq!(memory::heap_refused(), 0, "something was allocated while the heap was sealed");

    let file = File::open(&path).unwrap();
    file.read_exact_at(disk, 0).unwrap();
    Run { result, disk, shared }
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
