//! Rules of the house that a look at the source can prove: nothing is executed, `unsafe` stays in its room, stage 2
//! neither panics nor allocates nor formats through core::fmt.

use std::path::{Path, PathBuf};

/// Every line of code below `folder`, with comments, strings' neighbours and test modules left out.
fn lines(folder: &str) -> Vec<(PathBuf, usize, String)> {
    let mut found = Vec::new();
    visit(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    assert!(found.len() > 100, "{folder} has moved");
    found
}

/// Every source file below `folder`.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            files_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn visit(folder: &Path, found: &mut Vec<(PathBuf, usize, String)>) {
    let mut files = Vec::new();
    files_below(folder, &mut files);
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = ["mod", "pub(crate) mod", "pub(super) mod", "#[allow(dead_code)]\nmod"]
            .iter()
            .fold(&text[..], |code, start| {
                code.split(&format!("#[cfg(test)]\n{start} tests")).next().unwrap()
            });
        for (number, line) in (1..).zip(code.lines()) {
            let line = line.split("//").next().unwrap();
            found.push((path.clone(), number, line.to_string()));
        }
    }
}

fn is_word_at(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || character == '_')
    })
}

#[test]
fn nothing_in_src_executes_a_program() {
    let forbidden = [
        "Command::new",
        "process::Command",
        "CommandExt",
        "execv",
        "execl",
        "execveat",
        "fexec",
        "__NR_exec",
        "posix_spawn",
        "system(",
        "popen",
    ];
    let allowed = [
        // The one execve: this very program, from its copy in the RAMFS.
        ("src/sys/process.rs", "fn execve("),
        (
            "src/sys/process.rs",
            "let result = unsafe { execve(path.as_ptr().cast(), argv.as_ptr(), environment.as_ptr()) };",
        ),
    ];
    let mut execs = 0;
    for (path, number, line) in lines("src") {
        for word in forbidden.iter().filter(|word| is_word_at(&line, word)) {
            let is_allowed =
                allowed.iter().any(|(file, text)| path.ends_with(file) && line.trim() == *text);
            assert!(is_allowed, "{}:{number}: {word}: {}", path.display(), line.trim());
            execs += 1;
        }
    }
    assert_eq!(execs, 2, "the one execve is gone or doubled");
    // It takes no other path than one that ends in the name of the copy.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sys/process.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let guard = "pub fn become_own_copy(copy: &str, argument: &core::ffi::CStr) -> Errno {\n    \
                 if !copy.ends_with(\"/takeover\") {\n        return Errno::INVAL;\n    }\n";
    assert!(source.contains(guard));
    // And two ask for it: PID 1, with a constant, and the rehearsal of that, with the copy in the RAMFS.
    let callers: Vec<_> = lines("src")
        .into_iter()
        .filter(|(_, _, line)| is_word_at(line, "become_own_copy("))
        .map(|(_, _, line)| line.trim().to_string())
        .collect();
    assert_eq!(callers.len(), 3, "{callers:?}");
    for wanted in [
        "let errno = process::become_own_copy(\"/takeover\", ALONE);",
        "process::become_own_copy(copy, c\"--tool-version\");",
    ] {
        assert!(callers.iter().any(|line| line == wanted), "{callers:?}");
    }
    // PID 1 is made to execute that copy, too, and nothing else.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stage1/prepare/trace.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let begin = source.split_once("pub fn make_execute(").unwrap().1.split_once("{\n").unwrap().1;
    let guard = "if copy.rsplit('/').next() != Some(names::PROGRAM) {\n        return Err(";
    let code = begin.trim_start().split_once('\n').unwrap().1;
    assert!(code.trim_start().starts_with(guard), "{begin}");
    let mut executing: Vec<_> = lines("src")
        .into_iter()
        .filter(|(_, _, line)| is_word_at(line, "executing("))
        .map(|(path, ..)| path.file_name().unwrap().to_owned())
        .collect();
    executing.sort();
    assert_eq!(executing, ["registers.rs", "trace.rs"], "who lays out the call, and who makes it");
}

#[test]
fn unsafe_stays_in_its_room_and_says_why() {
    for (path, number, line) in lines("src") {
        let in_room = path.components().any(|part| part.as_os_str() == "sys");
        let is_attribute = line.trim().starts_with("#!");
        assert!(
            in_room || is_attribute || !is_word_at(&line, "unsafe") || line.contains("unsafe_code"),
            "{}:{number}: unsafe outside src/sys",
            path.display()
        );
    }
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sys")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let all: Vec<_> = text.lines().collect();
        for (index, line) in all.iter().enumerate() {
            if line.contains("unsafe {") || line.contains("unsafe impl") {
                let start = index.saturating_sub(4);
                let explained = all[start..=index].iter().any(|line| line.contains("SAFETY:"));
                assert!(explained, "{}:{}: no SAFETY line", path.display(), index + 1);
            }
        }
    }
}

#[test]
fn stage2_neither_panics_nor_allocates() {
    let forbidden = [
        "unwrap()",
        "expect(",
        "panic!",
        "unreachable!",
        "todo!",
        "assert!",
        "format!",
        "println!",
        "vec!",
        "String::",
        "to_string(",
        "to_owned(",
        "Box::",
        "Vec::with_capacity",
        "Rc::",
        "Arc::",
        "to_vec(",
    ];
    for (path, number, line) in lines("src/stage2") {
        for word in forbidden.iter().filter(|word| is_word_at(&line, word)) {
            let is_bounded = line.contains("heapless::");
            assert!(is_bounded, "{}:{number}: {word}: {}", path.display(), line.trim());
        }
    }
}

/// A 32-bit kernel may have none of the calls that these ask for, and std panics at that: `sys::clock` says why.
#[test]
fn nobody_waits_by_the_calls_with_32_bits() {
    for (path, number, line) in lines("src") {
        for word in ["thread::sleep", "wait_timeout", "park_timeout", "Instant", "SystemTime"] {
            assert!(!is_word_at(&line, word), "{}:{number}: {word}", path.display());
        }
    }
}

/// Everything that follows in PID 1, and every worker, which inherits it, runs with the heap sealed.
#[test]
fn the_heap_is_sealed_before_pid1_supervises() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stage2/pid1.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let body = source.split_once("pub fn alone() -> ! {").unwrap().1.split_once("\n}").unwrap().0;
    assert!(body.ends_with("    memory::seal();\n    supervisor.run()"), "{body}");
    for (path, number, line) in lines("src/stage2") {
        assert!(!is_word_at(&line, "unseal("), "{}:{number}: unseals the heap", path.display());
    }
}

/// Later it would be after the first chance to panic, and std looks for RUST_BACKTRACE only once.
#[test]
fn the_environment_is_left_before_anything_else() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sys/start.rs");
    let source = std::fs::read_to_string(path).unwrap();
    let first = |function: &str| {
        let body = source.split_once(function).map_or("", |(_, body)| body);
        body.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with("//"))
    };
    let leaves = "unsafe { super::process::leave_environment() };";
    assert_eq!(first("pub unsafe fn prepare() {"), Some(leaves));
    let prepares = "unsafe { $crate::sys::start::prepare() };";
    assert_eq!(first(") -> core::ffi::c_int {"), Some(prepares));
}

/// rustfmt wraps code alone.
#[test]
fn a_line_of_a_comment_fits_the_width_of_the_code() {
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut files);
    }
    for path in files {
        for (number, line) in (1..).zip(std::fs::read_to_string(&path).unwrap().lines()) {
            let is_long = line.trim_start().starts_with("//") && line.chars().count() > 120;
            assert!(!is_long, "{}:{number}: a comment of more than 120 columns", path.display());
        }
    }
}

/// The documents that people read, below the folder of the project.
const DOCUMENTS: [&str; 4] =
    ["README.md", "src/doc/details.md", "src/doc/rescue.md", "size-report/README.md"];

#[test]
fn a_line_of_a_document_fits_a_screen() {
    for document in DOCUMENTS {
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            // A line of a table cannot be broken.
            let is_long = !line.starts_with('|') && line.chars().count() > 130;
            assert!(!is_long, "{document}:{number}: more than 130 columns");
        }
    }
}

/// What a heading is called in a link, as GitHub does it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The first link of a document to a file or a heading that is not there.
fn lost_link(folder: &Path, text: &str) -> Option<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let mut inside = links.map(|(link, _)| link).filter(|link| !link.starts_with("http"));
    let is_lost = |link: &&str| {
        let (path, heading) =
            link.split_once('#').map_or((*link, None), |(path, h)| (path, Some(h)));
        let target = folder.join(path);
        if !target.is_file() && !path.is_empty() {
            return true;
        }
        heading.is_some_and(|heading| {
            let read = || std::fs::read_to_string(&target).unwrap();
            let text = if path.is_empty() { text.to_string() } else { read() };
            let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
            !headings.any(|line| anchor(line.trim_start_matches('#').trim()) == heading)
        })
    };
    inside.find(is_lost).map(String::from)
}

#[test]
fn the_links_of_the_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(lost_link(path.parent().unwrap(), &text), None, "{document}");
    }
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let lost = |text: &str| lost_link(top, text);
    assert_eq!(lost("![a](nosuch.svg)").unwrap(), "nosuch.svg");
    assert_eq!(lost("[a](README.md) [b](README.md#nosuch)").unwrap(), "README.md#nosuch");
    assert_eq!(lost("# One\n[a](#two)").unwrap(), "#two");
    assert_eq!(lost("# Memory, or\n[a](#memory-or) [b](https://x/y#z)"), None);
}

/// What the files of a room may not use (shared/spec/architecture.md, "Rooms", says why).
const ROOMS: [(&str, &[&str]); 16] = [
    (
        "src/cli.rs",
        &["crate::{backup,balena,disk,files,image,memory,network,stage1,stage2,sys}", "rustix"],
    ),
    ("src/plan.rs", &["crate::{backup,balena,cli,network,stage1,stage2,sys}"]),
    (
        "src/image/",
        &[
            "crate::disk::{device,loops,mounts,stack,swaps}",
            "crate::{backup,balena,cli,network,plan,stage1,stage2,sys::block}",
        ],
    ),
    ("src/disk/", &["crate::{backup,balena,cli,image,network,plan,stage1,stage2}"]),
    ("src/efi/", &["crate::{backup,balena,cli,disk,image,network,plan,stage1,stage2,sys}"]),
    ("src/net/", &["crate::{backup,balena,cli,disk,image,network,plan,stage1,stage2,sys::block}"]),
    (
        "src/balena/",
        &[
            "crate::{backup,cli,files,image,net,plan,stage1,stage2,sys}",
            "rustix",
            "std::{fs,net,os}",
        ],
    ),
    (
        "src/network/",
        &[
            "crate::{backup,balena,cli,disk,files,image,plan,stage1,stage2,sys}",
            "rustix",
            "std::{fs,net,os}",
        ],
    ),
    // Shared by stage 1 and the rescue system.
    ("src/new_os/", &["crate::{backup,cli,network,rescue,stage1,stage2}"]),
    ("src/rescue/", &["crate::{backup,cli,network,stage1}"]),
    ("src/stage1/", &["crate::{rescue,stage2}"]),
    ("src/stage1/look/", &["crate::stage1::{decide,prepare}"]),
    ("src/stage1/decide/", &["crate::stage1::prepare"]),
    // What is prepared was decided: it is in the plan, in the facts or in the files of the new OS.
    (
        "src/stage1/prepare/",
        &["crate::{balena,cli,network}", "crate::stage1::decide::{checks,compatible,planning}"],
    ),
    ("src/stage2/", &["crate::{backup,balena,cli,network,rescue,stage1}"]),
    (
        "src/sys/",
        &[
            "crate::{backup,balena,cli,disk,files,image,memory,network,plan,stage1,stage2}",
            "crate::{log,error!,warn!,info!,debug!,trace!}",
        ],
    ),
];

/// What a text names below `root`, with the groups in braces written out: `crate::{a, b::{c, d}}` is `crate::a`,
/// `crate::b::c` and `crate::b::d`.
fn names_below(root: &str, text: &str) -> Vec<String> {
    let start = format!("{root}::");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(&start) {
        let before = text[..at].chars().next_back();
        if !before.is_some_and(|character| character.is_alphanumeric() || "_:".contains(character))
        {
            write_out(root, &text[at + start.len()..], &mut found);
        }
    }
    found
}

/// Writes out one path that begins behind `prefix`, and gives what follows it.
fn write_out<'a>(prefix: &str, text: &'a str, found: &mut Vec<String>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(group) = rest.strip_prefix('{') {
        rest = group;
        while !rest.is_empty() && !rest.trim_start().starts_with('}') {
            rest = write_out(prefix, rest, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        return rest.trim_start().strip_prefix('}').unwrap_or_default();
    }
    let is_of_name = |character: char| character.is_alphanumeric() || "_!*".contains(character);
    let (name, rest) = rest.split_at(rest.find(|c| !is_of_name(c)).unwrap_or(rest.len()));
    let path = format!("{prefix}::{name}");
    match rest.strip_prefix("::") {
        Some(rest) => write_out(&path, rest, found),
        // What is no name is skipped, so that every turn takes something.
        None if name.is_empty() => rest.get(1..).unwrap_or_default(),
        None => {
            found.push(path);
            rest.trim_start_matches(|c: char| c != ',' && c != '}')
        }
    }
}

/// The names in `text` that are forbidden, or lie below a name that is.
fn trespasses(text: &str, forbidden: &[&str]) -> Vec<String> {
    let written_out = |all: &str| {
        let root = all.split("::").next().unwrap();
        if root == all { vec![all.to_string()] } else { names_below(root, all) }
    };
    let forbidden: Vec<String> = forbidden.iter().flat_map(|all| written_out(all)).collect();
    let named = ["crate", "rustix", "std"].iter().flat_map(|root| names_below(root, text));
    let is_below = |name: &str, above: &String| {
        name.strip_prefix(above.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    named.filter(|name| forbidden.iter().any(|above| is_below(name, above))).collect()
}

#[test]
fn no_room_uses_what_it_may_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let all = lines("src");
    for (room, forbidden) in ROOMS {
        let mut files: Vec<_> = all.iter().map(|(path, ..)| path).collect();
        files.dedup();
        files.retain(|path| {
            let path = path.strip_prefix(root).unwrap().to_str().unwrap();
            // Only for the unit tests of its room.
            path.starts_with(room) && path != "src/network/fixtures.rs"
        });
        assert!(!files.is_empty(), "{room} has moved");
        for file in files {
            let of_file = all.iter().filter(|(path, ..)| path == file);
            let text: Vec<_> = of_file.map(|(.., line)| line.as_str()).collect();
            let found = trespasses(&text.join("\n"), forbidden);
            assert!(found.is_empty(), "{}: {found:?} does not belong there", file.display());
        }
    }
}

/// The module of a file below src: `stage1::look::facts`, and `stage1` for its `mod.rs`.
fn module_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let mut parts: Vec<_> =
        inside.with_extension("").iter().map(|part| part.to_str().unwrap().to_string()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts.join("::")
}

/// What a file of this module names, each as the module that it lies in; `modules` are all there are.
fn modules_named(module: &str, text: &str, modules: &[String]) -> Vec<String> {
    let of_crate =
        names_below("crate", text).into_iter().map(|name| name["crate::".len()..].to_string());
    let relative = names_below("super", text).into_iter().map(|name| {
        let mut parts: Vec<_> = module.split("::").collect();
        let mut rest = &name[..];
        while let Some(after) = rest.strip_prefix("super::") {
            parts.pop();
            rest = after;
        }
        parts.push(rest);
        parts.join("::")
    });
    let owner = |name: String| {
        let of_it = |known: &&String| {
            name.strip_prefix(known.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        modules.iter().filter(of_it).max_by_key(|known| known.len()).cloned()
    };
    of_crate.chain(relative).filter_map(owner).filter(|other| other != module).collect()
}

/// The first circle that is found: each of these uses the next, and the last the first.
fn circle(uses: &std::collections::BTreeMap<String, Vec<String>>) -> Option<Vec<String>> {
    fn walk(
        from: &str,
        uses: &std::collections::BTreeMap<String, Vec<String>>,
        way: &mut Vec<String>,
        done: &mut Vec<String>,
    ) -> Option<Vec<String>> {
        if let Some(at) = way.iter().position(|module| module == from) {
            return Some(way[at..].to_vec());
        }
        if done.iter().any(|module| module == from) {
            return None;
        }
        way.push(from.to_string());
        for next in uses.get(from).into_iter().flatten() {
            if let Some(found) = walk(next, uses, way, done) {
                return Some(found);
            }
        }
        way.pop();
        done.push(from.to_string());
        None
    }
    let mut done = Vec::new();
    uses.keys().find_map(|module| walk(module, uses, &mut Vec::new(), &mut done))
}

/// Who wants to understand one of two files that use each other must understand both.
#[test]
fn no_file_uses_one_that_uses_it() {
    let all = lines("src");
    let mut texts = std::collections::BTreeMap::<String, String>::new();
    for (path, _, line) in &all {
        if !path.ends_with("tests.rs")
            && !path.ends_with("fixtures.rs")
            && !path.ends_with("main.rs")
        {
            let text = texts.entry(module_of(path)).or_default();
            *text += line;
            *text += "\n";
        }
    }
    let modules: Vec<_> = texts.keys().filter(|module| !module.is_empty()).cloned().collect();
    let uses = texts
        .iter()
        .map(|(module, text)| (module.clone(), modules_named(module, text, &modules)))
        .collect();
    assert_eq!(circle(&uses), None);
}

#[test]
fn a_circle_is_found() {
    let modules = ["a", "a::b", "a::c", "d"].map(String::from).to_vec();
    let named = |module: &str, text: &str| modules_named(module, text, &modules);
    assert_eq!(named("a::b", "use super::c::X; use crate::d::{self, Y};"), ["d", "d", "a::c"]);
    assert_eq!(named("a::b", "use super::super::d; crate::a::b::f(); super::g()"), ["d", "a"]);
    let uses = |all: &[(&str, &[&str])]| {
        let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        all.iter().map(|(from, to)| (from.to_string(), own(to))).collect()
    };
    assert_eq!(circle(&uses(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &[])])), None);
    assert_eq!(circle(&uses(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])])).unwrap(), ["b", "c"]);
}

#[test]
fn a_room_that_uses_what_it_may_not_know_is_found() {
    let forbidden = ["crate::{image,sys::block,info!}", "rustix"];
    let found = |text: &str| trespasses(text, &forbidden);
    assert_eq!(found("use crate::image::reader::ReadAt;"), ["crate::image::reader::ReadAt"]);
    assert_eq!(found("use crate::{\n    disk,\n    image,\n};"), ["crate::image"]);
    assert_eq!(found("use crate::{disk, sys::{map, block}};"), ["crate::sys::block"]);
    assert_eq!(found("fn f() -> u64 { crate::image::CHUNK + 1 }"), ["crate::image::CHUNK"]);
    assert_eq!(found("    crate::info!(\"x\");"), ["crate::info!"]);
    assert_eq!(found("use rustix::fs::OFlags;"), ["rustix::fs::OFlags"]);
    let allowed = "use crate::images; use crate::sys::{self, map}; use super::image; crate::{a, b";
    assert!(found(allowed).is_empty(), "{:?}", found(allowed));
}
