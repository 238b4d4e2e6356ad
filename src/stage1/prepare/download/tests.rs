use super::*;
use crate::image::decode::{BUFFER, Decoder, tests as decoding};
use crate::image::map::ChunkMap;
use crate::image::source::remote_tests::{File, Shelf};
use crate::image::{CHUNK, format, scan};
use crate::net::fixtures::{client, shown};
use std::path::{Path, PathBuf};

/// A work directory of one test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("takeover-download-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn fetch(&self, shelf: &Shelf) -> Result<Download, Error> {
        self.fetch_from(shelf, "/images/a.img.gz?token=secret")
    }

    fn fetch_from(&self, shelf: &Shelf, target: &str) -> Result<Download, Error> {
        let url = shelf.server.url(target);
        let folder = self.0.to_str().unwrap();
        Download::open(client(), &Order { url: &url, bearer: None, name: url.file_name(), folder })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// As stage 1 does it: the format, the scan, and the end.
fn use_up(download: &Download) -> Result<u32, Error> {
    let look = || {
        let stream = format::detect(download, "x")?;
        let map = ChunkMap::create()?;
        let mut decoder = Decoder::new(download, stream);
        let found = scan::scan(&mut decoder, &mut vec![0; BUFFER], &map)?;
        download.finish().map(|()| found.packed_crc)
    };
    look().inspect_err(|error: &Error| {
        if error.kind() == crate::error::Kind::Refused {
            download.reject();
        }
    })
}

fn image() -> Vec<u8> {
    decoding::member(&decoding::sample(2 * CHUNK + 77))
}

fn ranges(shelf: &Shelf) -> Vec<String> {
    let requests = shelf.server.seen();
    let range = |request: &String| {
        let line = request.lines().find_map(|line| line.strip_prefix("Range: bytes="));
        line.unwrap_or_default().to_string()
    };
    requests.iter().map(range).collect()
}

const WHOLE: [&str; 2] = ["a.img.gz", "a.img.gz.state"];
const HALF: [&str; 2] = ["a.img.gz.part", "a.img.gz.state"];

#[test]
fn an_image_is_scanned_while_it_comes_and_then_has_its_name() {
    use std::os::unix::fs::PermissionsExt;
    let (packed, folder) = (image(), Folder::new("whole"));
    let shelf = Shelf::with(File::of(&packed));
    let download = folder.fetch(&shelf).unwrap();
    assert_eq!((download.length(), download.to_come()), (packed.len() as u64, packed.len() as u64));
    assert_eq!(folder.names(), HALF);
    assert_eq!(use_up(&download).unwrap(), crate::crc32::crc32(&packed));
    assert_eq!(download.to_come(), 0);
    assert_eq!(ranges(&shelf), ["0-"], "it is asked for once");
    assert_eq!(folder.names(), WHOLE);
    assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == packed);
    for name in WHOLE {
        let mode = std::fs::metadata(folder.at(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let state = std::fs::read_to_string(folder.at("a.img.gz.state")).unwrap();
    assert!(!state.contains("secret"), "{state}");
    // Read again, as for the staging.
    let mut bytes = vec![0; packed.len() + 5];
    assert_eq!(download.read_at(0, &mut bytes).unwrap(), packed.len());
    assert!(bytes[..packed.len()] == packed);
}

#[test]
fn a_download_that_was_cut_goes_on_where_it_ended() {
    let packed = image();
    let length = packed.len();
    for (number, cut) in [1, 511, 513, 40_000, length / 2, length - 1].into_iter().enumerate() {
        let folder = Folder::new(&format!("cut-{number}"));
        let shelf = Shelf::with(File { cut, answers: 1, ..File::of(&packed) });
        let error = use_up(&folder.fetch(&shelf).unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Failed, "{}", shown(&error));
        assert_eq!(folder.names(), HALF);
        let held = std::fs::metadata(folder.at(HALF[0])).unwrap().len();
        let whole = if held == 0 { "0-".to_string() } else { format!("{held}-") };

        *shelf.file() = File::of(&packed);
        let before = ranges(&shelf).len();
        let download = folder.fetch(&shelf).unwrap();
        assert_eq!(download.to_come(), length as u64 - held);
        assert_eq!(use_up(&download).unwrap(), crate::crc32::crc32(&packed), "cut at {cut}");
        assert_eq!(ranges(&shelf)[before..], [whole], "cut at {cut}");
        assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == packed, "cut at {cut}");
        assert_eq!(folder.names(), WHOLE);
    }
}

#[test]
fn a_file_that_has_changed_is_fetched_from_its_beginning() {
    let packed = image();
    let other = decoding::member(&decoding::sample(CHUNK));
    for (number, change) in ["tag", "modified", "no ranges", "condition ignored"].iter().enumerate()
    {
        let folder = Folder::new(&format!("changed-{number}"));
        let (tag, modified) = match *change {
            "modified" => ("", "Thu, 01 Jan 2026 00:00:00 GMT"),
            _ => ("\"one\"", ""),
        };
        let first = File { tag, modified, cut: 50_000, answers: 1, ..File::of(&packed) };
        let shelf = Shelf::with(first.clone());
        use_up(&folder.fetch(&shelf).unwrap()).unwrap_err();
        let second = File { cut: usize::MAX, answers: usize::MAX, ..first };
        *shelf.file() = match *change {
            "tag" => File { body: other.clone(), tag: "\"two\"", ..second },
            "modified" => {
                File { body: other.clone(), modified: "Fri, 02 Jan 2026 00:00:00 GMT", ..second }
            }
            "no ranges" => File { has_ranges: false, ..second },
            _ => File { body: other.clone(), tag: "\"two\"", ignores_condition: true, ..second },
        };
        let expected = if *change == "no ranges" { &packed } else { &other };
        use_up(&folder.fetch(&shelf).unwrap()).unwrap();
        assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == *expected, "{change}");
    }
}

#[test]
fn a_whole_file_is_not_fetched_again_unless_it_has_changed() {
    let (packed, folder) = (image(), Folder::new("again"));
    let shelf = Shelf::with(File::of(&packed));
    use_up(&folder.fetch(&shelf).unwrap()).unwrap();
    let again = folder.fetch(&shelf).unwrap();
    assert_eq!((again.to_come(), use_up(&again).unwrap()), (0, crate::crc32::crc32(&packed)));
    let last = format!("{}-", packed.len() - 1);
    assert_eq!(ranges(&shelf), ["0-".to_string(), last]);
    drop(again);

    let other = decoding::member(&decoding::sample(CHUNK));
    *shelf.file() = File { tag: "\"two\"", ..File::of(&other) };
    let download = folder.fetch(&shelf).unwrap();
    assert!(folder.at("a.img.gz").exists(), "the old one stays until the new one is whole");
    use_up(&download).unwrap();
    assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == other);
    assert_eq!(folder.names(), WHOLE);
}

#[test]
fn what_the_server_refuses_or_what_is_no_image_leaves_nothing() {
    let page = b"<!DOCTYPE html><html>not found".to_vec();
    let folder = Folder::new("nothing");
    let shelf = Shelf::with(File { status: "404 Not Found", ..File::of(&page) });
    let error = folder.fetch(&shelf).err().unwrap();
    assert!(shown(&error).contains("404"), "{}", shown(&error));
    assert!(folder.names().is_empty());

    *shelf.file() = File::of(&page);
    let error = use_up(&folder.fetch(&shelf).unwrap()).unwrap_err();
    assert!(shown(&error).contains("a web page"), "{}", shown(&error));
    assert!(folder.names().is_empty());

    let mut damaged = image();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    *shelf.file() = File::of(&damaged);
    use_up(&folder.fetch(&shelf).unwrap()).unwrap_err();
    assert!(folder.names().is_empty(), "what is damaged is not gone on with");
}

#[test]
fn a_file_of_unknown_length_is_fetched_first() {
    let (packed, folder) = (image(), Folder::new("chunked"));
    let file = File { has_ranges: false, tells_length: false, ..File::of(&packed) };
    let shelf = Shelf::with(file.clone());
    let download = folder.fetch(&shelf).unwrap();
    assert_eq!((download.length(), download.to_come()), (packed.len() as u64, 0));
    assert_eq!(use_up(&download).unwrap(), crate::crc32::crc32(&packed));
    drop(download);
    std::fs::remove_file(folder.at("a.img.gz")).unwrap();
    *shelf.file() = File { cut: 5000, ..file };
    assert!(folder.fetch(&shelf).is_err(), "it ended in the middle");
    assert!(folder.names().is_empty(), "what cannot be gone on with is not kept");
}

#[test]
fn the_end_of_an_archive_is_read_before_it_is_fetched() {
    let folder = Folder::new("zip");
    // Hardly packed at all: its end is far away.
    let image: Vec<u8> = (0..3 * CHUNK as u32).map(|at| (at.wrapping_mul(at) >> 9) as u8).collect();
    let crc = crate::crc32::crc32(&image);
    let file = crate::image::zip::tests::archive(&image, image.len() as u64, crc, 1, 0, false);
    let shelf = Shelf::with(File::of(&file));
    let download = folder.fetch(&shelf).unwrap();
    format::detect(&download, "x").unwrap();
    assert!(download.to_come() > 2 * CHUNK as u64);
    use_up(&download).unwrap();
    assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == file);

    // A server that cannot give it fetches all of it first.
    let folder = Folder::new("zip-forward");
    let shelf = Shelf::with(File { has_ranges: false, ..File::of(&file) });
    use_up(&folder.fetch(&shelf).unwrap()).unwrap();
    assert!(std::fs::read(folder.at("a.img.gz")).unwrap() == file);
}

#[test]
fn odd_things_in_the_directory_are_refused_and_left_alone() {
    let packed = image();
    let shelf = Shelf::with(File::of(&packed));
    let refused = |prepare: &dyn Fn(&Path), why: &str| {
        let folder = Folder::new("odd");
        let victim = folder.at("victim");
        std::fs::write(&victim, b"precious").unwrap();
        prepare(&folder.0);
        let before = folder.names();
        let error = folder.fetch(&shelf).err().unwrap_or_else(|| panic!("not refused: {why}"));
        assert_eq!(error.kind(), crate::error::Kind::Refused);
        assert!(shown(&error).contains(why), "{}", shown(&error));
        assert_eq!(folder.names(), before);
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    };
    let link = std::os::unix::fs::symlink::<PathBuf, PathBuf>;
    for name in ["a.img.gz", "a.img.gz.part", "a.img.gz.state"] {
        refused(&|folder| link(folder.join("victim"), folder.join(name)).unwrap(), "no plain file");
        refused(
            &|folder| std::fs::hard_link(folder.join("victim"), folder.join(name)).unwrap(),
            "no plain file",
        );
        refused(&|folder| std::fs::create_dir(folder.join(name)).unwrap(), name);
        if name != "a.img.gz.state" {
            let write = |folder: &Path| std::fs::write(folder.join(name), b"mine").unwrap();
            refused(&write, "no takeover has made it");
        }
    }
}

#[test]
fn two_downloads_of_one_file_do_not_meet() {
    let (packed, folder) = (image(), Folder::new("two"));
    let shelf = Shelf::with(File::of(&packed));
    let first = folder.fetch(&shelf).unwrap();
    let error = folder.fetch(&shelf).err().unwrap();
    assert!(shown(&error).contains("another takeover is fetching it"), "{}", shown(&error));
    use_up(&first).unwrap();
}

#[test]
fn a_name_from_another_place_is_not_taken_for_this_one() {
    let (packed, folder) = (image(), Folder::new("place"));
    let shelf = Shelf::with(File::of(&packed));
    use_up(&folder.fetch(&shelf).unwrap()).unwrap();
    let error = folder.fetch_from(&shelf, "/old/a.img.gz").err().unwrap();
    assert!(shown(&error).contains("not fetched from this URL"), "{}", shown(&error));
    assert_eq!(folder.names(), WHOLE);
    // The query may be another one each time it is signed.
    folder.fetch_from(&shelf, "/images/a.img.gz?token=other").unwrap();
}

#[test]
fn a_state_that_makes_no_sense_begins_anew() {
    let packed = image();
    let folder = Folder::new("state");
    let shelf = Shelf::with(File { cut: 50_000, answers: 1, ..File::of(&packed) });
    use_up(&folder.fetch(&shelf).unwrap()).unwrap_err();
    let good = std::fs::read_to_string(folder.at(HALF[1])).unwrap();
    let length = packed.len().to_string();
    let bad = [
        String::new(),
        "x".repeat(5000),
        good.replace("download 1", "download 2"),
        good.replace(&length, "many"),
        good.replace(&length, "0"),
        good.replace(&length, "40"),
        good.replace("\"one\"", ""),
        good.replace("\"one\"", "\"on\re\""),
        good.replace("\"one\"", &"t".repeat(200)),
    ];
    for state in bad {
        assert_ne!(state, good);
        std::fs::write(folder.at(HALF[0]), &packed[..40_000]).unwrap();
        std::fs::write(folder.at(HALF[1]), &state).unwrap();
        *shelf.file() = File { answers: 1, ..File::of(&packed) };
        let download = folder.fetch(&shelf).unwrap();
        assert_eq!(download.to_come(), packed.len() as u64, "{state}");
    }
    // With the good one it is gone on with.
    std::fs::write(folder.at(HALF[0]), &packed[..40_000]).unwrap();
    std::fs::write(folder.at(HALF[1]), &good).unwrap();
    *shelf.file() = File::of(&packed);
    assert_eq!(folder.fetch(&shelf).unwrap().to_come(), packed.len() as u64 - 40_000);
}

#[test]
fn more_than_the_file_system_has_room_for_is_refused_beforehand() {
    let folder = Folder::new("space");
    let place = Place::new(folder.0.to_str().unwrap(), "a").unwrap();
    place.check_space(1).unwrap();
    let error = place.check_space(1 << 60).unwrap_err();
    assert!(shown(&error).contains("are free; make room there"), "{}", shown(&error));
}

#[test]
fn names_are_made_fit_for_files() {
    for (wanted, name) in [
        ("a.img.gz", "a.img.gz"),
        ("raspberrypi3-5.1.20+rev1.img.gz", "raspberrypi3-5.1.20+rev1.img.gz"),
        ("", "image"),
        ("..", "_."),
        (".hidden", "_hidden"),
        ("-rf", "_rf"),
        ("a/b\\c d\n;é", "a_b_c_d____"),
    ] {
        let made = file_name(wanted);
        assert!(*made == *name || wanted.contains('é'), "{wanted:?}: {made:?}");
        assert!(!made.contains('/') && !made.contains('\n'));
    }
    assert_eq!(file_name(&"x".repeat(500)).len(), LONGEST_NAME);
}

#[test]
fn a_state_says_what_it_said() {
    let state = State {
        url: Text::from("https://example.org/a.img.gz"),
        length: u64::MAX,
        validator: Validator { tag: Text::from("\"a b\""), modified: Text::from("Thu, 01 Jan") },
    };
    assert_eq!(State::parse(state.text().trim_ascii()).unwrap(), state);
}
