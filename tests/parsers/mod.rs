//! Every parser of bytes from outside, as a function that feeds it and checks what it promises.
//!
//! Shared by the corpus test (`tests/corpus.rs`, fast, part of `cargo test`) and the fuzzer (`tests/fuzz/`), so that
//! whatever the fuzzer finds is a file in `tests/corpus/PARSER/` ever after.
//!
//! To add a parser: one line in [`PARSERS`], a function here that panics when a promise is broken, and a folder of that
//! name in `tests/corpus/` with an input that is taken and one that is refused. The program's heap cap (256 KiB)
//! holds here too.

#[cfg(feature = "backup")]
mod backup;
mod balena;
#[cfg(feature = "http")]
mod cloud;
mod disk;
mod efi;
mod elf;
mod image;
mod live;
#[cfg(feature = "http")]
mod names;
#[cfg(feature = "http")]
mod net;
mod network;
#[cfg(feature = "tls")]
mod tls;

/// One parser under test.
pub struct Parser {
    /// Its name, and that of its corpus folder.
    pub name: &'static str,
    /// The longest input that the fuzzer makes, in bytes: a longer one would show nothing new.
    pub longest: usize,
    /// Feeds the parser and checks what it gives; true when it took the input, false when it refused it.
    pub check: fn(&[u8]) -> bool,
}

/// All of them.
pub const PARSERS: &[Parser] = &[
    Parser { name: "json", longest: 4096, check: balena::json },
    Parser { name: "config", longest: 4096, check: balena::config },
    #[cfg(feature = "http")]
    Parser { name: "json-stream", longest: 512, check: cloud::json_stream },
    #[cfg(feature = "http")]
    Parser { name: "version", longest: 1024, check: cloud::version },
    #[cfg(feature = "http")]
    Parser { name: "root-certificates", longest: 4096, check: cloud::root_certificates },
    #[cfg(feature = "tls")]
    Parser { name: "pem", longest: 4096, check: tls::pem },
    #[cfg(feature = "tls")]
    Parser { name: "certificate", longest: 2048, check: tls::certificate },
    Parser { name: "elf", longest: 4096, check: elf::section },
    Parser { name: "mbr", longest: 8192, check: disk::mbr },
    Parser { name: "gpt", longest: 4096, check: disk::gpt },
    Parser { name: "fat", longest: 8192, check: disk::fat },
    Parser { name: "fat-patch", longest: 12 * 1024, check: disk::fat_patch },
    Parser { name: "ext4", longest: 2048, check: disk::ext4 },
    Parser { name: "boot-blob", longest: 4200, check: disk::boot_blob },
    Parser { name: "layout", longest: 12 * 1024, check: disk::layout },
    Parser { name: "load-option", longest: 1024, check: efi::load_option },
    Parser { name: "boot-entries", longest: 2048, check: efi::boot_entries },
    Parser { name: "format", longest: 1024, check: image::format },
    Parser { name: "gzip-header", longest: 1024, check: image::gzip_header },
    Parser { name: "gzip", longest: 4096, check: image::gzip },
    Parser { name: "zip", longest: 4096, check: image::zip },
    Parser { name: "mountinfo", longest: 4096, check: live::mountinfo },
    Parser { name: "swaps", longest: 2048, check: live::swaps },
    Parser { name: "os-release", longest: 2048, check: live::os_release },
    Parser { name: "device-tree", longest: 1024, check: live::device_tree },
    Parser { name: "keyfile", longest: 4096, check: network::keyfile },
    Parser { name: "wpa-supplicant", longest: 4096, check: network::supplicant },
    Parser { name: "beside", longest: 4096, check: network::beside },
    Parser { name: "manager-config", longest: 2048, check: network::manager_config },
    Parser { name: "name-servers", longest: 2048, check: network::name_servers },
    Parser { name: "leases", longest: 1024, check: network::leases },
    Parser { name: "ini", longest: 1024, check: network::ini },
    Parser { name: "netlink", longest: 4096, check: network::netlink },
    Parser { name: "connman", longest: 4096, check: network::connman },
    Parser { name: "iwd", longest: 4096, check: network::iwd },
    Parser { name: "ifupdown", longest: 4096, check: network::ifupdown },
    Parser { name: "networkd", longest: 4096, check: network::networkd },
    Parser { name: "dhcpcd", longest: 4096, check: network::dhcpcd },
    #[cfg(feature = "http")]
    Parser { name: "dns", longest: 4096, check: names::dns },
    #[cfg(feature = "http")]
    Parser { name: "resolv-conf", longest: 2048, check: names::resolv_conf },
    #[cfg(feature = "http")]
    Parser { name: "hosts", longest: 2048, check: names::hosts },
    #[cfg(feature = "http")]
    Parser { name: "http-head", longest: 40 * 1024, check: net::head },
    #[cfg(feature = "http")]
    Parser { name: "chunks", longest: 8192, check: net::chunks },
    #[cfg(feature = "http")]
    Parser { name: "url", longest: 5000, check: net::url },
    #[cfg(feature = "http")]
    Parser { name: "proxy", longest: 1024, check: net::proxy },
    #[cfg(feature = "backup")]
    Parser { name: "yaml", longest: 4096, check: backup::description },
    #[cfg(feature = "backup")]
    Parser { name: "filter", longest: 1024, check: backup::filter },
];

/// A text that goes to a log or a screen.
fn assert_printable(text: &str) {
    assert!(!text.chars().any(char::is_control), "a control character in {text:?}");
}

/// A sequence of pseudo-random numbers that depends on nothing but the input (FNV-1a).
fn hash(bytes: &[u8]) -> usize {
    bytes.iter().fold(0x811c_9dc5_usize, |sum, byte| {
        (sum ^ usize::from(*byte)).wrapping_mul(0x0100_0193) & 0xffff_ffff
    })
}
