//! takeover replaces the operating system of a running device with a disk image, in place.
//!
//! Principles:
//! - Every check comes before the first destructive byte; nothing is called success that was not read back.
//! - Simple and clear ways over fast and clever ones, but for the inflate-and-write loop.
//! - Memory is fixed. Stage 2 executes nothing, loads nothing and allocates nothing.
//! - Pure functions over slices inside a thin shell of system calls: nearly everything is tested without root.
//!
//! The way of a device, from left to right:
//!
//! ```text
//! options ─▶ looked at ─▶ decided ─▶ prepared ─▶ handed over ─▶ alone ─▶ flashed ─▶ verified ─▶ data ─▶ head ─▶
//! boot entry ─▶ restart
//!            read only    plan and   RAMFS, image, PID 1 is     old root  all but    read back   ext4    first MiB
//!                         patches    backup        this program gone      the head               only    last of all
//!            └────── any failure: undone, the old OS goes on ─────────┘   └─ from here: retry and repair ─┘
//! ```
//!
//! What is flashed is the image with the files of the new OS in it already: the `image` room lays patches over what it
//! inflates, and everything after that knows one image.
//!
//! Read `main.rs` for who is who, then `stage1` and `stage2::sequence`, each a page of steps. A rescue system, where
//! nothing is taken over, comes in at `rescue::flash`, with the same image and the same stage 2:
//!
//! ```text
//! kernel's command line ─▶ rescue::init ─▶ disks, image ─▶ rescue::flash ─▶ stage2: flashed, verified, head ─▶ restart
//!                                              looked at and checked: new_os, disk
//! ```
//!
//! # One takeover
//!
//! ```text
//!  the live system                      │  alone, in memory
//!                                       │
//!  options ─▶ facts ─▶ scan ─▶ plan     │   PID 1 ── starts and supervises ──▶ worker
//!             new files ─▶ patches      │     │                                  │ end every process
//!                               │       │     │ feeds the watchdog               │ unmount the old root
//!                    RAMFS      ▼       │     │ reaps                            │ claim the disk: the proof
//!                    rehearsal          │     │ runs a dead worker again         │ ── first destructive byte ──
//!                    swap off           │     ▼                                  │ inflate, patch ═▶ write (2 threads)
//!                    image ─▶ memory    │   pivot_root                           │ read back, repair
//!                    backup             │     ▲                                  │ backup, log (ext4)
//!                    hand-over ─────────┼─────┘                                  │ first MiB, read back
//!                               │       │                                        │
//!     any failure: undone, ◀────┘       │   restart ◀────────────────────────────┘
//!     the old OS goes on                │
//! ```
//!
//! - **The scan** decodes the image once from end to end before anything is changed: every gzip member, CRC and
//!   length, the partition table, the boot partition. It leaves a CRC-32 of each MiB, against which everything is
//!   proven later.
//! - **One image**: which sectors of its FAT boot partition `config.json` and the networks change is worked out
//!   before. They are laid over what is inflated, and so written and read back like all else; nothing is mounted for
//!   them.
//! - **The hand-over**: this program is bound over init's own file, and init is asked to execute itself again; or init
//!   is seized by ptrace, and its next system call becomes the execution of this program. The new PID 1 claims the
//!   plan by renaming it; stage 1 takes it back by renaming it. One side wins.
//! - **A disk is free** when the kernel grants an exclusive claim (`O_EXCL`), not when the mount table is empty.
//! - **Memory is fixed**: a small heap for the command line, sealed once that is read, and unsealed again, up to 1
//!   MiB, only while a backup is counted, before the question, and in the child process that makes it, before the
//!   hand-over; three buffers of 1 MiB, mapped and locked before the first write.
//!
//! # The last line
//!
//! The last line of stage 2 is JSON, on one line, for programs:
//!
//! ```text
//! {"outcome":"done","bytes":947912704,"chunks":904,"zero_chunks":452,"repaired_chunks":0,"backup":"placed",
//!  "log":"none","report":"sent","efi":"none","attempts":1,
//!  "seconds":{"kill":0.1,"unmount":0.1,"flash":20.1,"verify":4.2,"data":0.1,"head":0.1,"efi":0.0},
//!  "peak_kib":{"total":…,"pid1":…,"worker":…,"ramfs":…},"heap_bytes":…,"heap_sealed":true}
//! ```
//!
//! `outcome` is `done`, `pretended`, `untouched` (given up before the first write) or `failed`. `bytes`, `chunks` and
//! `zero_chunks` are those of the image, and 0 when nothing was written (`pretended`, `untouched`). `backup`, and
//! `log` on the new data partition, are `none` (not asked for, or not come to), `placed` or `failed`; `report` is that
//! to the API, `none`, `sent` or `failed`; `efi` is the boot entry, `none`, `set` or `failed`. A log that is kept on a
//! disk (`--log-to`, the old OS's `/var/log/takeover.log`) ends in the same line. `heap_sealed`: no allocation was
//! possible in stage 2. Of `peak_kib` no page is in two figures: what PID 1 and the worker share is half in each, and
//! what is mapped of the program is not in `ramfs` (from Linux 5.4 on; before 4.14 each counts all that it has).
//!
//! # Rooms
//!
//! Each file begins with what it is for and what it may not do. Arrows go down: `stage1` and `stage2` share `plan`,
//! `image`, `disk` and what lies below these, neither imports the other, and no two files import each other.
//!
//! | room | holds |
//! |---|---|
//! | `main.rs`, `cli` | who am I: command line, PID 1, worker; options and the help text |
//! | `stage1` | `look` (facts), `decide` (checks, budget, the page), `prepare` (RAMFS, staging, hand-over, undoing) |
//! | `stage2` | PID 1 and the worker: end, unmount, claim, flash, verify, data, boot entry, restart |
//! | `plan` | what stage 1 has decided, as stage 2 reads it |
//! | `image`, `disk` | where an image's bytes come from and what they are; block devices, tables, mounts, FAT, ext4 |
//! | `balena`, `new_os` | what the new OS expects, and is given |
//! | `network`, `net`, `backup` | the old OS's network settings; sockets, HTTP, TLS; from a description to a tar.gz |
//! | `rescue` | the init of an initramfs that flashes |
//! | `sys` | system calls that rustix has not: the only room with `unsafe` |
//! | all others | one concern each: errors, log, progress, texts, numbers, CRC |
//!
//! # Sets
//!
//! The features of a program: `full`, the default, is everything; `no-tls` is without https and `--backup-cfg`; `core`
//! without the network, too; `rescue` is no takeover, but `takeover flash`, `takeover scan` and the init of an
//! initramfs, and takes `http` or `tls`. `builtin-roots` puts Mozilla's certificate authorities into the program.
//! Their sizes, and how they are made so small: `size-report/README.md`.

#![forbid(unsafe_op_in_unsafe_fn)]
#![deny(unsafe_code)]
#![warn(missing_docs)]

#[cfg(doc)]
#[doc = include_str!("doc/details.md")]
pub mod details {}
#[cfg(doc)]
#[doc = include_str!("doc/rescue.md")]
pub mod rescue_systems {}

#[cfg(not(any(feature = "core", feature = "rescue")))]
compile_error!("a program needs one of the features core and rescue: see Cargo.toml");

pub mod address;
#[cfg(feature = "backup")]
pub mod backup;
pub mod balena;
pub mod banner;
#[cfg(feature = "http")]
pub mod base64;
pub mod boot_blob;
pub mod bytes;
#[cfg(feature = "core")]
pub mod cli;
pub mod crc32;
pub mod disk;
pub mod efi;
pub mod elf;
pub mod ends;
pub mod error;
pub mod files;
pub mod image;
pub mod log;
pub mod memory;
#[cfg(feature = "http")]
pub mod net;
#[cfg(feature = "core")]
pub mod network;
pub mod new_os;
#[cfg(feature = "http")]
pub mod notice;
pub mod packed;
pub mod path;
pub mod plan;
pub mod progress;
#[cfg(feature = "rescue")]
pub mod rescue;
pub mod screen;
pub mod sink;
#[cfg(feature = "core")]
pub mod stage1;
pub mod stage2;
#[allow(unsafe_code)]
pub mod sys;
pub mod text;

/// False in the set `rescue`, which does without what only a takeover needs: what a firmware would start, files on
/// ext4, names of those that use a disk, disks that come back under another name. What asks for this is left out of the
/// program, with all that nothing else uses. Unit tests are of the whole in every set.
pub(crate) const IS_WHOLE: bool = cfg!(any(test, feature = "core"));

/// False where no image can be on a server, likewise.
pub(crate) const CAN_BE_REMOTE: bool = cfg!(any(test, feature = "http"));
