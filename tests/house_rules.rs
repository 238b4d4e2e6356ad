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

fn visit(folder: &Path, found: &mut Vec<(PathBuf, usize, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, found);
            continue;
        }
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
