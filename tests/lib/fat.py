"""What placing files on a FAT file system may change, to the sector: a reader of our own, for the comparisons.

mtools and fsck.fat say whether the file system is sound; only a look at the clusters says that nothing else was touched.
Layout: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.
"""

import pathlib
import struct
import tempfile

import rootfs
from rootfs import SECTOR

_DIRECTORY, _LONG_NAME = 0x10, 0x0f


class Fat:
    """The FAT12, FAT16 or FAT32 file system at start (bytes) of a disk image."""

    def __init__(self, disk, start):
        with open(disk, "rb") as file:
            file.seek(start)
            boot = file.read(SECTOR)
            unit, self.per_cluster, self.reserved, tables = struct.unpack_from("<HBHB", boot, 11)
            if unit != SECTOR or boot[510:] != b"\x55\xaa":
                raise ValueError(f"there is no FAT with sectors of {SECTOR} bytes at {start} of {disk}")
            entries, small, per_table = struct.unpack_from("<HHxH", boot, 17)
            large, = struct.unpack_from("<I", boot, 32)
            large_table, self.root, self.info = struct.unpack_from("<I4xIH", boot, 36)
            self.is_32 = per_table == 0
            per_table = per_table or large_table
            self.tables = range(self.reserved, self.reserved + tables * per_table)
            self.data = self.tables.stop + -(-entries * 32 // SECTOR)
            self.total = small or large
            clusters = (self.total - self.data) // self.per_cluster
            file.seek(start)
            self.content = file.read(self.total * SECTOR)
        self.bits = 32 if self.is_32 else 16 if clusters >= 4085 else 12

    def _next(self, cluster):
        """The entry of a cluster in the first table; None at the end of a chain."""
        place = self.reserved * SECTOR + cluster * self.bits // 8
        value, = struct.unpack_from("<I" if self.is_32 else "<H", self.content, place)
        if self.bits == 12:
            value = value >> 4 if cluster % 2 else value & 0xfff
        value &= (1 << min(self.bits, 28)) - 1
        if value < 2 or value == (1 << min(self.bits, 28)) - 9:
            raise ValueError(f"a chain leads from cluster {cluster} to {value:#x}")
        return value if value < (1 << min(self.bits, 28)) - 8 else None

    def sectors(self, first):
        """The sectors of the chain that begins at this cluster; 0 is the root directory."""
        if first == 0 and not self.is_32:
            return list(range(self.tables.stop, self.data))
        found, cluster = [], first or self.root
        while cluster:
            begin = self.data + (cluster - 2) * self.per_cluster
            found += range(begin, begin + self.per_cluster)
            if len(found) > self.total:
                raise ValueError(f"the chain from cluster {first} has no end")
            cluster = self._next(cluster)
        return found

    def entries(self, first):
        """What is in a directory: its name in lower case -> its first cluster, and whether it is a directory."""
        data = b"".join(self.content[sector * SECTOR:][:SECTOR] for sector in self.sectors(first))
        found, long = {}, b""
        for place in range(0, len(data), 32):
            entry = data[place:place + 32]
            if entry[0] == 0:
                break
            if entry[0] == 0xe5:
                long = b""
            elif entry[11] == _LONG_NAME:
                long = entry[1:11] + entry[14:26] + entry[28:32] + long
            else:
                stem, extension = entry[:8].decode("cp437").rstrip(), entry[8:11].decode("cp437").rstrip()
                name = f"{stem}.{extension}" if extension else stem
                if long:
                    name = long.decode("utf-16-le").split("\0")[0]
                high, low = struct.unpack_from("<H4xH", entry, 20)
                cluster = low | (high << 16 if self.is_32 else 0)
                found[name.lower()] = (cluster, bool(entry[11] & _DIRECTORY))
                long = b""
        return found

    def place_of(self, path):
        """The sectors of a file ('folder/name'), and those of the directories that lead to it, the root's too."""
        folder, directories = 0, set(self.sectors(0))
        *parents, name = path.lower().split("/")
        for parent in parents:
            folder, is_directory = self.entries(folder)[parent]
            if not is_directory:
                raise ValueError(f"{parent} of {path} is no directory")
            directories.update(self.sectors(folder))
        first, _ = self.entries(folder)[name]
        return set(self.sectors(first) if first else ()), directories

    def patched(self, paths):
        """The sectors that placing these files may have changed: theirs, their directories', the tables, FSInfo."""
        allowed = set(self.tables)
        if self.is_32:
            allowed.add(self.info)
        for path in paths:
            file, directories = self.place_of(path)
            allowed |= file | directories
        return allowed


def strangers(disk, start, different, paths):
    """Of the differences between a disk and its image, (start, length) in bytes, the sectors that no file of paths, put
    on the FAT file system at start of the disk, accounts for. Relative to the file system."""
    allowed = Fat(disk, start).patched(paths)
    sectors = {(place + offset - start) // SECTOR for place, length in different for offset in range(0, length, SECTOR)}
    return sorted(sectors - allowed)


def check(disk, start):
    """fsck.fat finds nothing at all to say against the file system at start of a disk."""
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "boot"
        copy.write_bytes(Fat(disk, start).content)
        rootfs.run("fsck.fat", "-n", copy)
