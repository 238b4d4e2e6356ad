//! The swap areas in use: /proc/swaps (proc(5)), and how /etc/fstab wants them (fstab(5)).

/// One swap area.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Swap<'a> {
    /// The file or device, as the kernel shows it (escaped like a mount point; names with blanks are rare).
    pub path: &'a str,
    /// How much of it is in use, in KiB.
    pub used: u64,
    /// Its priority; negative when the kernel chose it.
    pub priority: i32,
}

/// The swap area of a line of /proc/swaps; none for the heading, and for what makes no sense.
pub fn parse(line: &str) -> Option<Swap<'_>> {
    let mut fields = line.split_ascii_whitespace();
    Some(Swap {
        path: fields.next()?,
        used: fields.nth(2)?.parse().ok()?,
        priority: fields.next()?.parse().ok()?,
    })
}

/// The flags of swapon(2) that put a swap area into use again: its priority, unless the kernel chooses it, and what it
/// discards, as [`discard`] has it (<linux/swap.h>).
pub fn flags(priority: i32, discard: Option<u32>) -> u32 {
    const PREFER: u32 = 0x8000;
    const PRIORITIES: u32 = 0x7fff;
    let preferred = u32::try_from(priority).map_or(0, |number| PREFER | number & PRIORITIES);
    preferred | discard.unwrap_or(0)
}

/// What a swap area is to discard, as flags of swapon(2); none when the table does not have the area. The kernel does
/// not tell what is in force, so this table is all that can be known. `is_area` says whether a source is the area.
pub fn discard(fstab: &str, is_area: &dyn Fn(&str) -> bool) -> Option<u32> {
    fstab.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_it = fields.next().is_some_and(is_area) && fields.nth(1) == Some("swap");
        let options = fields.next().unwrap_or_default().split(',');
        // SWAP_FLAG_DISCARD alone is both: freed pages, and all of it once at the start.
        let flags = options.fold(0, |flags, option| match option {
            "discard" => flags | 0x1_0000,
            "discard=once" => flags | 0x3_0000,
            "discard=pages" => flags | 0x5_0000,
            _ => flags,
        });
        is_it.then_some(flags)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_and_discard_come_back() {
        assert_eq!(flags(-2, None), 0);
        assert_eq!(flags(7, Some(0x1_0000)), 0x1_8007);
        assert_eq!(flags(0, Some(0)), 0x8000);
    }

    #[test]
    fn what_a_swap_area_discards_is_what_fstab_says() {
        let fstab = "\
# /dev/sda1 none swap discard 0 0
UUID=1 / ext4 discard 0 1
/dev/sda2\tnone\tswap\tsw,discard=once,pri=3\t0 0
/dev/sda3 none swap sw
/swapfile swap swap defaults,discard
/swap2 none swap nofail,discard=pages 0 0
/swap3 none swap
";
        let of = |area: &str| discard(fstab, &|source| source == area);
        assert_eq!(of("/dev/sda1"), None);
        assert_eq!(of("UUID=1"), None);
        assert_eq!(of("/dev/sda2"), Some(0x3_0000));
        assert_eq!(of("/dev/sda3"), Some(0));
        assert_eq!(of("/swapfile"), Some(0x1_0000));
        assert_eq!(of("/swap2"), Some(0x5_0000));
        assert_eq!(of("/swap3"), Some(0));
    }

    #[test]
    fn a_file_and_a_partition() {
        let text = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/swapfile                               file\t\t65532\t\t12\t\t-2
/dev/zram0                              partition\t131068\t0\t100
";
        let swaps: Vec<_> = text.lines().filter_map(parse).collect();
        assert_eq!(
            swaps,
            [
                Swap { path: "/swapfile", used: 12, priority: -2 },
                Swap { path: "/dev/zram0", used: 0, priority: 100 },
            ]
        );
    }
}
