//! Whether the kernel has a driver, or can load one: what is built in or loaded, else what is in its folder of modules,
//! unless it was told to load none any more.
//!
//! Reads only: what loads a module is to use it, and that is the rehearsal's business.

use crate::error::Error;
use crate::files;
use crate::text::Text;

/// True when the kernel can mount this type: it is registered, or there is a module of its name.
pub fn can_mount(file_system: &str) -> Result<bool, Error> {
    Ok(has_line("/proc/filesystems", &mut |line| is_last_word(line, file_system))?
        || has_module(file_system)?)
}

/// True when the kernel has loop devices: registered (block 7), or there is the module.
pub fn can_loop() -> Result<bool, Error> {
    Ok(files::exists("/sys/module/loop")
        || has_line("/proc/devices", &mut |line| line.trim_ascii() == b"7 loop")?
        || has_module("loop")?)
}

fn has_module(name: &str) -> Result<bool, Error> {
    let uname = rustix::system::uname();
    has_module_in("", uname.release().to_str().unwrap_or_default(), name)
}

/// True when a module of this name is built into the kernel of this release, or lies in its folder and can be loaded:
/// `modules.builtin` and `modules.dep` have one a line, by its path (modules.dep(5)). Below the folder `root`.
fn has_module_in(root: &str, release: &str, name: &str) -> Result<bool, Error> {
    let file: Text<40> = crate::text!("/{}.ko", name);
    let folder = crate::path!("{}/lib/modules/{}", root, release)?;
    let builtin = files::below(&folder, "modules.builtin")?;
    if has_line(&builtin, &mut |line| line.ends_with(file.as_bytes()))? {
        return Ok(true);
    }
    // Once that is 1 it stays so until the restart (Documentation/admin-guide/sysctl/kernel.rst, modules_disabled).
    let switch = files::below(root, "proc/sys/kernel/modules_disabled")?;
    if files::read_number(&switch) == Some(1) {
        return Ok(false);
    }
    let list = files::below(&folder, "modules.dep")?;
    has_line(&list, &mut |line| {
        let path = line.split(|byte| *byte == b':').next().unwrap_or_default();
        is_called(path, &file) && lies_in(&folder, path)
    })
}

/// A module's path ends in its name, and in `.xz`, `.gz` or `.zst` when it is packed.
fn is_called(path: &[u8], file: &str) -> bool {
    [".xz", ".gz", ".zst", ""].iter().any(|packed| {
        path.strip_suffix(packed.as_bytes()).is_some_and(|path| path.ends_with(file.as_bytes()))
    })
}

/// What is listed can have been removed: by an upgrade of the kernel's package, say.
fn lies_in(folder: &str, path: &[u8]) -> bool {
    let Ok(path) = core::str::from_utf8(path) else {
        return false;
    };
    if path.starts_with('/') { files::exists(path) } else { files::is_below(folder, path) }
}

fn is_last_word(line: &[u8], word: &str) -> bool {
    line.rsplit(|byte| byte.is_ascii_whitespace()).next() == Some(word.as_bytes())
}

/// True when `wanted` says so of a line of a file. A file that is not there has no lines.
fn has_line(path: &str, wanted: &mut dyn FnMut(&[u8]) -> bool) -> Result<bool, Error> {
    let mut found = false;
    match files::for_each_line(path, &mut |line: &[u8]| found = found || wanted(line)) {
        Err(errno) if files::exists(path) => Err(Error::os("reading", path, errno)),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_has_is_found_and_nothing_else() {
        assert!(can_mount("proc").unwrap() && can_mount("tmpfs").unwrap());
        assert!(!can_mount("pro").unwrap() && !can_mount("no-such-thing").unwrap());
    }

    #[test]
    fn modules_are_known_by_their_names_however_packed() {
        for path in
            ["kernel/fs/ext4/ext4.ko", "kernel/fs/ext4/ext4.ko.xz", "x/ext4.ko.zst", "/ext4.ko.gz"]
        {
            assert!(is_called(path.as_bytes(), "/ext4.ko"), "{path}");
        }
        for path in ["kernel/fs/ext4/next4.ko", "kernel/fs/ext4.ko/x.ko", "ext4.ko", "x/ext4.ko.lz"]
        {
            assert!(!is_called(path.as_bytes(), "/ext4.ko"), "{path}");
        }
        assert!(lies_in("/proc", b"self/status") && lies_in("/x", b"/proc/version"));
        assert!(!lies_in("/proc", b"no/such") && !lies_in("/proc", b"\xff"));
    }

    #[test]
    fn what_lies_in_the_folder_counts_until_no_module_is_loaded_any_more() {
        let root = std::env::temp_dir().join(format!("takeover-modules-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("lib/modules/6.1/modules.builtin", "kernel/drivers/block/loop.ko\n");
        write("lib/modules/6.1/modules.dep", "kernel/ext4.ko: kernel/jbd2.ko\nkernel/xfs.ko:\n");
        write("lib/modules/6.1/kernel/ext4.ko", "");
        let has = |name: &str| has_module_in(root.to_str().unwrap(), "6.1", name).unwrap();
        // A kernel that loads no modules at all has no such switch, and no list either.
        assert!(has("loop") && has("ext4") && !has("xfs"));
        write("proc/sys/kernel/modules_disabled", "0\n");
        assert!(has("loop") && has("ext4"));
        write("proc/sys/kernel/modules_disabled", "1\n");
        assert!(has("loop") && !has("ext4"));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn lines_are_found_in_a_file_of_any_length() {
        let path = std::env::temp_dir().join(format!("takeover-lines-{}", std::process::id()));
        let mut text = String::new();
        for number in 0..2000 {
            text += &format!("line {number}\n");
        }
        text += &"long ".repeat(3000);
        text += "\nthe last one";
        std::fs::write(&path, text).unwrap();
        let has = |wanted: &str| {
            has_line(path.to_str().unwrap(), &mut |line| line == wanted.as_bytes()).unwrap()
        };
        assert!(has("line 0") && has("line 1999") && has("the last one"));
        assert!(!has("line 2000") && !has("line"));
        std::fs::remove_file(&path).unwrap();
        assert!(!has_line("/nowhere", &mut |_| true).unwrap());
    }
}
