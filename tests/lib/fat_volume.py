"""Reads a FAT volume and asserts that it is sound: independent of the program, from the specification alone.

Stricter than fsck.fat: it looks at long names, `.` and `..`, the second table, unique names and lost clusters, too.
"""

import dataclasses
import string
import struct

_PART, _LABEL, _DIRECTORY = 0x0F, 0x08, 0x10


@dataclasses.dataclass
class File:
    """A file or a directory: its entry of 32 bytes, its short name, its chain of clusters and its bytes."""

    is_directory: bool
    entry: bytes
    short: str
    chain: list
    content: bytes = b""


_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lower(name):
    """The case of ASCII letters alone does not matter to the program."""
    return name.translate(_LOWER)


class Volume:
    """What a volume holds now; what is written to it later is not seen."""

    def __init__(self, path):
        self.file = open(path, "rb", buffering=0)
        boot = self.read(0, 512)
        word = lambda at: struct.unpack_from("<H", boot, at)[0]
        long = lambda at: struct.unpack_from("<I", boot, at)[0]
        self.sector_size, self.reserved = word(11), word(14)
        self.tables, self.root_entries = boot[16], word(17)
        self.table_sectors = word(22) or long(36)
        self.cluster = boot[13] * self.sector_size
        self.table = self.reserved * self.sector_size
        self.table_length = self.table_sectors * self.sector_size
        self.root = self.table + self.tables * self.table_length
        root_sectors = -(-self.root_entries * 32 // self.sector_size)
        self.data = self.root + root_sectors * self.sector_size
        self.length = (word(19) or long(32)) * self.sector_size
        count = (self.length - self.data) // self.cluster
        self.width = 32 if word(22) == 0 else 12 if count < 4085 else 16
        self.root_cluster = long(44) if self.width == 32 else 0
        self.information = word(48) * self.sector_size if self.width == 32 else 0
        self.fats = [self.read(self.table + index * self.table_length, self.table_length)
                     for index in range(self.tables)]
        self.raw = entries(self.fats[0], self.width)
        self.count = min(count, len(self.raw) - 2)
        mask = (1 << min(self.width, 28)) - 1
        self.next = [value & mask for value in self.raw[:self.count + 2]]
        self.bad = mask - 8
        self.fsinfo = self.read(self.information, 512) if self.information else b""

    def close(self):
        self.file.close()

    def read(self, at, length):
        self.file.seek(at)
        content = self.file.read(length)
        assert len(content) == length, f"the volume ends before {at + length}"
        return content

    def free(self):
        """The clusters that are free."""
        return self.next[2:].count(0)

    def chain(self, first):
        found, seen = [], set()
        cluster = first
        while 2 <= cluster < self.count + 2:
            assert cluster not in seen, f"the chain of {first} loops"
            seen.add(cluster)
            found.append(cluster)
            cluster = self.next[cluster]
        assert not found or cluster > self.bad, f"the chain of {first} is broken"
        return found

    def place(self, cluster):
        """Where a cluster begins, in bytes."""
        return self.data + (cluster - 2) * self.cluster

    def content(self, chain):
        return b"".join(self.read(self.place(cluster), self.cluster) for cluster in chain)

    def entries_of(self, chain):
        """The entries of a directory; of the fixed root directory for no chain."""
        if not chain and self.width != 32:
            content = self.read(self.root, self.root_entries * 32)
        else:
            content = self.content(chain)
        return [content[at:at + 32] for at in range(0, len(content), 32)]

    def first(self, entry):
        upper = struct.unpack_from("<H", entry, 20)[0] if self.width == 32 else 0
        return upper << 16 | struct.unpack_from("<H", entry, 26)[0]

    def walk(self):
        """All files and directories by their paths, and whose each used cluster is. Asserts that all is sound."""
        files, owners = {}, {}
        self._walk(self.root_cluster, "", 0, files, owners)
        used = {cluster for cluster in range(2, self.count + 2)
                if self.next[cluster] not in (0, self.bad)}
        assert used == set(owners), f"{len(used ^ set(owners))} clusters are lost or shared"
        return files, owners

    def _own(self, chain, path, owners):
        for cluster in chain:
            assert cluster not in owners, f"{path} and {owners[cluster]} share cluster {cluster}"
            owners[cluster] = path

    def _walk(self, first, prefix, parent, files, owners):
        chain = self.chain(first) if first else []
        self._own(chain, prefix, owners)
        taken = set()
        for parts, entry in self._named(self.entries_of(chain), prefix):
            if entry[:1] == b".":
                wanted = first if entry[:11].strip() == b"." else parent
                assert self.first(entry) == wanted, f"{entry[:2]} of {prefix}"
                continue
            short = short_name(entry)
            name = long_name(parts, entry) if parts else short
            # A long name and its own short one may be equal.
            for one in {lower(name), lower(short)}:
                assert one not in taken, f"{prefix}{one} is there twice"
                taken.add(one)
            self._add(prefix, name, short, entry, first, files, owners)

    def _named(self, entries, prefix):
        """The entries that have names, with the parts of their long ones."""
        parts, ended = [], False
        for entry in entries:
            if entry[0] in (0, 0xE5):
                ended |= entry[0] == 0
                assert not parts, f"parts of a name without a file in {prefix}"
                continue
            assert not ended, f"something behind the end mark of {prefix}"
            if entry[11] == _PART:
                parts.append(entry)
            elif entry[11] & _LABEL:
                assert not parts, "a label with a long name"
            else:
                yield parts, entry
                parts = []
        assert not parts, f"parts of a name at the end of {prefix}"

    def _add(self, prefix, name, short, entry, parent, files, owners):
        path = prefix + name
        first, length = self.first(entry), struct.unpack_from("<I", entry, 28)[0]
        assert first == 0 or 2 <= first < self.count + 2, f"first cluster of {path}"
        chain = self.chain(first) if first else []
        if entry[11] & _DIRECTORY:
            files[path] = File(True, entry, short, chain)
            above = 0 if parent == self.root_cluster else parent
            self._walk(first, path + "/", above, files, owners)
            return
        assert len(chain) == -(-length // self.cluster), f"{path}: {len(chain)} clusters, {length} bytes"
        self._own(chain, path, owners)
        files[path] = File(False, entry, short, chain, self.content(chain)[:length])


def entries(table, width):
    """The entries of a table; those of FAT32 with their upper four bits."""
    if width == 32:
        return list(struct.unpack(f"<{len(table) // 4}I", table))
    if width == 16:
        return list(struct.unpack(f"<{len(table) // 2}H", table))
    found = []
    for index in range(len(table) * 8 // 12):
        at = index * 3 // 2
        pair = table[at] | table[at + 1] << 8
        found.append(pair >> 4 if index & 1 else pair & 0xFFF)
    return found


def short_name(entry):
    base, extension = entry[:8].decode("latin1").rstrip(), entry[8:11].decode("latin1").rstrip()
    return base + ("." + extension if extension else "")


def long_name(parts, entry):
    """Puts a long name together, and asserts that it is one."""
    checksum = 0
    for byte in entry[:11]:
        checksum = ((checksum >> 1 | (checksum & 1) << 7) + byte) & 0xFF
    units = b""
    for ordinal, part in zip(range(len(parts), 0, -1), parts):
        last = 0x40 if ordinal == len(parts) else 0
        assert part[0] == ordinal | last, f"ordinal of {short_name(entry)}"
        assert part[13] == checksum, f"checksum of {short_name(entry)}"
        assert part[12] == 0 and part[26:28] == b"\0\0", f"a part of {short_name(entry)}"
        units = part[1:11] + part[14:26] + part[28:32] + units
    name = units.decode("utf-16le")
    if "\0" in name:
        name, rest = name.split("\0", 1)
        assert set(rest) <= {"\uffff"} and len(rest) < 12, f"the end of {name}"
    return name
