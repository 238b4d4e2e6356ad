//! The swap areas in use: /proc/swaps (proc(5)).

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

#[cfg(test)]
mod tests {
    use super::*;

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
