//! Tells the program which commit it is built from, and when that was made; nothing else.

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = std::env::var("TAKEOVER_COMMIT")
        .ok()
        .or_else(|| git(&["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=TAKEOVER_COMMIT={commit}");
    println!("cargo:rerun-if-env-changed=TAKEOVER_COMMIT");
    // In seconds since 1970 (reproducible-builds.org, SOURCE_DATE_EPOCH); 0 where nobody knows.
    let date = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .or_else(|| git(&["log", "-1", "--format=%ct"]))
        .filter(|date| date.parse::<u64>().is_ok())
        .unwrap_or_else(|| "0".into());
    println!("cargo:rustc-env=TAKEOVER_DATE={date}");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    // An audited build is linked by it, and cargo does not know.
    println!("cargo:rerun-if-changed=size-report/program.ld");
    // Git knows where they are in a worktree; every commit adds to the second. Of a file that is not there cargo thinks
    // that it has always just changed.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", name])
            && Path::new(&path).exists()
        {
            println!("cargo:rerun-if-changed={path}");
        }
    }
}
