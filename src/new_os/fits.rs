//! Whether an image fits on a disk: its bytes, its partitions, and the blocks that its table counts in.

use crate::disk;
use crate::disk::device::Disk;
use crate::disk::table::Table;
use crate::error::Error;
use crate::image::scan::Scan;
use crate::text::{Size, Text};

/// An image whose length is known before it is decoded.
pub fn known_length_fits(length: Option<u64>, target: &Disk) -> Result<(), Error> {
    match length {
        Some(length) if length > target.size => Err(too_large(length, target)),
        _ => Ok(()),
    }
}

fn too_large(needed: u64, target: &Disk) -> Error {
    let why: Text<200> = crate::text!(
        "the image needs {} bytes ({}), the disk has {} ({})",
        needed,
        Size(needed),
        target.size,
        Size(target.size)
    );
    Error::refused("comparing the image with", &target.name, &why)
        .advice("use a larger disk or a smaller image")
}

/// The image and the partitions in it fit on the disk.
pub fn check(scan: &Scan, table: &Table, target: &Disk) -> Result<(), Error> {
    let needed = scan.length.max(table.end());
    if needed > target.size {
        return Err(too_large(needed, target));
    }
    if table.usable_end > target.size {
        let why: Text<200> = crate::text!(
            "the image's GPT was made for a disk of more than {} bytes ({}), and the kernel would not take it on one of \
             {} ({})",
            table.usable_end,
            Size(table.usable_end),
            target.size,
            Size(target.size)
        );
        return Err(Error::refused("comparing the image with", &target.name, &why).advice(
            "use a larger disk, or `sgdisk -e FILE` on the raw image: it makes the table fit the image",
        ));
    }
    if target.logical_block != disk::table::SECTOR as u32 {
        let why: Text<120> = crate::text!(
            "its logical blocks have {} bytes; the partition tables of images count in blocks of 512",
            target.logical_block
        );
        return Err(Error::refused("comparing the image with", &target.name, &why)
            .advice("name another disk, or set this one to blocks of 512 (nvme format, hdparm)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_on_the_disk_is_refused() {
        let mut image = disk::gpt::tests::disk(&[("a", 40, 47)]);
        let mut table = disk::table::read(&mut image, 256 * 512).unwrap();
        let scan = |sectors: u64| Scan {
            length: sectors * 512,
            chunks: 1,
            zero_chunks: 0,
            map_crc: 0,
            staged_length: 0,
            packed_crc: 0,
        };
        let target = |sectors: u64| Disk {
            name: Text::from("sdx"),
            number: disk::device::Number { major: 8, minor: 0 },
            size: sectors * 512,
            logical_block: 512,
            read_only: false,
        };
        let refusal = |scan: &Scan, table: &Table, target: &Disk| {
            let text: Text<600> = crate::text!("{}", check(scan, table, target).unwrap_err());
            text.to_string()
        };
        assert!(check(&scan(256), &table, &target(256)).is_ok());
        assert!(refusal(&scan(256), &table, &target(255)).contains("the image needs"));
        // Trimmed behind its partitions: it is short enough, but its table is not.
        assert!(check(&scan(48), &table, &target(223)).is_ok());
        assert!(refusal(&scan(48), &table, &target(222)).contains("made for a disk of more than"));
        table.usable_end = 0;
        assert!(check(&scan(48), &table, &target(48)).is_ok());
        assert!(refusal(&scan(40), &table, &target(47)).contains("the image needs"));
        let wide = Disk { logical_block: 4096, ..target(256) };
        assert!(refusal(&scan(48), &table, &wide).contains("4096"));
    }
}
