#!/usr/bin/env python3
"""Files onto FAT volumes without a mount: random volumes by mkfs.fat and mtools, patched as the program plans it, then
looked at by fsck.fat, by mtools, and by a reader of our own that asserts more (tests/lib/fat_volume.py).

FAT_VOLUMES is how many volumes are patched (1000: 90 seconds of one core), FAT_SEED where the random numbers begin (1): a
volume that fails is named by its seed, and FAT_VOLUMES=1 FAT_SEED=that makes it again.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "lib"))
import runner
from fat_volume import Volume, lower

VOLUMES = int(os.environ.get("FAT_VOLUMES", "1000"))
SEED = int(os.environ.get("FAT_SEED", "1"))
# 26 November 2026, 12:00.
STAMP = (46 << 9 | 11 << 5 | 26) << 16 | 12 << 11
ENVIRONMENT = dict(os.environ, LC_ALL="C.UTF-8", MTOOLS_SKIP_CHECK="1", MTOOLS_NO_VFAT="0", RUST_BACKTRACE="0")
# mtools sees no files on a FAT32 of fewer clusters.
MTOOLS_LEAST = 65525


def run(*arguments, check=True):
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=ENVIRONMENT, timeout=60)
    if check and done.returncode:
        raise RuntimeError(f"{arguments}: {done.returncode}: {done.stdout[-600:]}")
    return done


class Planner:
    """The program that plans: one process for all volumes."""

    def __init__(self):
        root = pathlib.Path(__file__).resolve().parent.parent
        done = subprocess.run(["cargo", "build", "--quiet", "--locked", "--example", "fat_patches",
                               "--message-format=json"], cwd=root, check=True, capture_output=True, text=True)
        built = map(json.loads, done.stdout.splitlines())
        program = next(one["executable"] for one in built if one.get("target", {}).get("name") == "fat_patches")
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env=ENVIRONMENT)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        assert self.process.wait(timeout=10) == 0, "the program that plans died"

    def plan(self, image, start, wanted, folder):
        """How often it was read backward, and the patches by sector; or the words of a refusal."""
        out = folder / "plan"
        fields = [str(image), str(start), str(out), str(STAMP)]
        for path, content in wanted.items():
            fields += [path, str(len(content))]
        self.process.stdin.write("\t".join(fields) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split(maxsplit=1)
        assert answer, f"the program that plans died: {self.process.wait(timeout=10)}"
        if answer[0] == "refused":
            return None, answer[1].strip()
        return int(answer[1]), patches(out.read_bytes(), list(wanted.values()))


def patches(plan, contents):
    found, at = {}, 0
    while at < len(plan):
        number, kind = struct.unpack_from("<IB", plan, at)
        at += 5
        if kind == 0:
            sector, at = plan[at:at + 512], at + 512
        elif kind == 1:
            sector = bytes(512)
        else:
            index, offset = struct.unpack_from("<BI", plan, at)
            sector, at = contents[index][offset:offset + 512].ljust(512, b"\0"), at + 5
            assert offset < len(contents[index]), "a sector behind the end of a file"
        found[number] = sector
    return found


# What volumes are made of.

def random_name(r, length):
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ .()+,;=[]"
    if r.random() < 0.15:
        letters += "äöüéñßλж接続" * 2
    while True:
        name = "".join(r.choice(letters) for _ in range(length)).strip(" .")
        if name and name.upper().split(".")[0] not in ("CON", "PRN", "AUX", "NUL"):
            return name


def geometry(r, width):
    """Sector size, sectors per cluster, clusters."""
    sector = r.choice([512] * 7 + [1024, 2048, 4096])
    if width == 12:
        count = r.choice([r.randint(60, 400), r.randint(400, 4080)])
        per_cluster = r.choice([1, 2, 4, 8, 16, 64])
    elif width == 16:
        count, per_cluster = r.randint(4090, r.choice([9000, 20000])), r.choice([1, 1, 2, 2, 4, 8])
    elif r.random() < 0.4:
        count, per_cluster = r.randint(65530, 90000), r.choice([1, 1, 1, 2])
        sector = 512 if per_cluster == 2 or r.random() < 0.8 else 1024
    else:
        count, per_cluster = r.randint(100, 9000), r.choice([1, 1, 2, 4, 8, 32])
    per_cluster = min(per_cluster, 65536 // sector)
    while count * per_cluster * sector > 100 << 20:
        sector, per_cluster = max(512, sector // 2), max(1, per_cluster // 2)
    return sector, per_cluster, count


def make(r, width, path):
    sector, per_cluster, count = geometry(r, width)
    tables = r.choice([1, 2, 2, 2])
    arguments = ["-F", width, "-s", per_cluster, "-S", sector, "-f", tables]
    if r.random() < 0.3:
        arguments += ["-R", r.choice([8, 9, 32, 33, 64] if width == 32 else [1, 2, 3, 4, 8, 32, 64])]
    if r.random() < 0.3:
        arguments += ["-a"]
    if width != 32 and r.random() < 0.5:
        per_sector = sector // 32
        arguments += ["-r", -(-r.choice([16, 32, 64, 112, 224, 512, 1024]) // per_sector) * per_sector]
    if r.random() < 0.7:
        arguments += ["-n", "RESIN-BOOT"]
    around = 64 + 1024 * 32 // sector + tables * (count * width // 8 // sector + 2) + (64 if width == 32 else 0)
    path.unlink(missing_ok=True)
    with open(path, "wb") as file:
        file.truncate((around + count * per_cluster) * sector)
    return run("mkfs.fat", *map(str, arguments), path, check=False).returncode == 0


def wanted_files(r):
    """Paths and contents: names of up to 240 characters, one directory or two, and files that are empty."""
    wanted = {"config.json": r.randbytes(r.choice([0, 1, 512, 5000, r.randint(1, 65536), 65536]))}
    has_long_names = r.random() < 0.3
    for index in range(r.choice([0, 1, 2, 3, 8, 20, 56])):
        name = f"balena-{index + 1:02}"
        if has_long_names:
            name = random_name(r, r.randint(1, r.choice([30, 30, 120, 240])))
        elif r.random() < 0.1:
            name = r.choice(["grüße", "接続", "📡-router", "BALENA~1", ".hidden", "a.b.c", "UPPER.NM"]) + str(index)
        if lower(name) not in {lower(path.split("/")[-1]) for path in wanted}:
            wanted["system-connections/" + name] = r.randbytes(r.choice([0, 100, 400, r.randint(0, 3000), 3000]))
    if r.random() < 0.5:
        wanted["system-proxy/redsocks.conf"] = r.randbytes(r.randint(0, 2000))
    return wanted


class Filler:
    """Fills a volume with mtools, a few calls for many files."""

    def __init__(self, r, path, folder, cluster):
        self.r, self.path, self.cluster = r, path, cluster
        self.tree = folder / "tree"
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir()

    def copy(self, *names, to="::/"):
        if names:
            run("mcopy", "-s", "-o", "-Q", "-i", self.path, *[self.tree / name for name in names], to, check=False)

    def delete(self, *paths):
        plain = ["::/" + path for path in paths if not set(path) & set("[]*?\\")]
        if plain:
            run("mdel", "-i", self.path, *plain, check=False)

    def make(self, name, length=None):
        """A file of the host; nothing for a name that its file system does not take."""
        lengths = [0, 1, 100, self.cluster, self.cluster + 1, self.r.randint(0, min(5 * self.cluster, 100000))]
        content = self.r.randbytes(self.r.choice(lengths) if length is None else length)
        try:
            (self.tree / name).write_bytes(content)
        except OSError:
            return None
        return name

    def root_files(self):
        r, names = self.r, {}
        for index in range(r.randint(0, 25)):
            name = r.choice([
                f"config{index}.json", f"system-connections{index}", f"CONFIG~{index % 4 + 1}.JSO",
                f"system-proxy{index}", random_name(r, r.randint(1, 60)), f"überlänge-{index}.txt",
                f"BALENA~{index % 9 + 1}", f"UPPER{index}.TXT", f"low{index}.txt", f"Mixed{index}.bin"])
            if lower(name) not in names and lower(name) != "config.json" and self.make(name):
                names[lower(name)] = name
        return list(names.values())

    def directories(self, wanted):
        r, made = self.r, []
        for name, chance in [(r.choice(["system-connections", "System-Connections", "SYSTEM-CONNECTIONS"]), 0.5),
                             ("system-proxy", 0.4), ("overlays", 0.4)]:
            if r.random() >= chance:
                continue
            (self.tree / name).mkdir()
            made.append(name)
            same = [path.split("/")[1] for path in wanted if lower(path).startswith(lower(name) + "/")]
            names = {}
            for index in range(r.choice([0, 1, 2, 5, 20])):
                file = r.choice([random_name(r, r.randint(1, 40)), "resin-sample.ignore", f"s{index}"])
                if r.random() < 0.3 and same:
                    file = r.choice(same)
                    file = r.choice([file, file.upper() if file.isascii() else file, lower(file)])
                if lower(file) not in names and self.make(f"{name}/{file}"):
                    names[lower(file)] = f"{name}/{file}"
        return made

    def fill(self, wanted):
        r = self.r
        names = self.root_files()
        directories = self.directories(wanted)
        half = len(names) // 2
        self.copy(*names[:half], *directories)
        self.delete(*[name for name in names[:half] if r.random() < 0.4])
        self.delete(*[str(file.relative_to(self.tree)) for name in directories
                      for file in sorted((self.tree / name).iterdir()) if r.random() < 0.2])
        if r.random() < 0.5:
            lengths = [0, 1, 511, 512, 513, self.cluster - 1, self.cluster, r.randint(0, 70000), 150000]
            self.make("config.json", r.choice(lengths))
            self.copy("config.json", to=r.choice(["::/config.json", "::/CONFIG.JSON", "::/Config.json"]))
        self.copy(*names[half:])
        if r.random() < 0.25:
            self.crowd()

    def crowd(self):
        """Many entries in the root directory, and some gaps."""
        r = self.r
        names = [self.make(f"zz{index}-" + "q" * r.choice([0, 0, 4, 30]), 0)
                 for index in range(r.choice([14, 100, 240, 500]))]
        self.copy(*names)
        if r.random() < 0.5:
            self.delete(*r.sample(names, 4))


def take_clusters(r, volume, path):
    """Makes a volume nearly full, or what is free on it scattered: clusters that are marked as bad are not free."""
    free = [cluster for cluster in range(2, volume.count + 2) if volume.next[cluster] == 0]
    kind = r.random()
    if kind < 0.25:
        left = min(len(free), r.choice([0, 1, 2, 3, 10, 40, 150, 300]))
        kept = set(r.sample(free, left)) if r.random() < 0.3 else set(free[-left:] if left else [])
    elif kind < 0.5:
        share = r.choice([0.1, 0.5, 0.9])
        region = set(free[:r.choice([30, 200, 1000])])
        kept = {cluster for cluster in free if cluster not in region or r.random() < share}
    else:
        return
    tables = [bytearray(table) for table in volume.fats]
    for cluster in free:
        if cluster not in kept:
            for table in tables:
                set_entry(table, volume.width, cluster, volume.bad)
    with open(path, "r+b") as file:
        for index, table in enumerate(tables):
            file.seek(volume.table + index * volume.table_length)
            file.write(table)


def set_entry(table, width, cluster, value):
    if width == 32:
        struct.pack_into("<I", table, cluster * 4, value)
    elif width == 16:
        struct.pack_into("<H", table, cluster * 2, value)
    else:
        at = cluster * 3 // 2
        pair = table[at] | table[at + 1] << 8
        pair = pair & 0xF | value << 4 if cluster & 1 else pair & 0xF000 | value
        struct.pack_into("<H", table, at, pair)


def mend_information(r, path):
    """The count of FSInfo, which marks of bad clusters made wrong: right, or left wrong, or unknown."""
    volume = Volume(path)
    if volume.information and r.random() < 0.8:
        with open(path, "r+b") as file:
            file.seek(volume.information + 488)
            file.write(struct.pack("<I", volume.free()))
            if r.random() < 0.2:
                file.seek(volume.information + r.choice([488, 492]))
                file.write(b"\xff" * 4)
    volume.close()


def at_an_offset(r, path, folder):
    """The volume as a partition of an image, or the volume alone, and where it begins."""
    start = r.choice([0, 0, 0, 512 * 63, 1 << 20, (4 << 20) + 512])
    if start == 0:
        return path, 0
    image = folder / "image"
    image.unlink(missing_ok=True)
    with open(path, "rb") as source, open(image, "wb") as target:
        end = os.fstat(source.fileno()).st_size
        at = 0
        while at < end:
            try:
                at = os.lseek(source.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            hole = os.lseek(source.fileno(), at, os.SEEK_HOLE)
            source.seek(at)
            target.seek(start + at)
            target.write(source.read(hole - at))
            at = hole
        target.truncate(start + end)
    return image, start


# What must hold.

class Names:
    """Which file of a volume a wanted path is, by long names and short ones."""

    def __init__(self, files):
        self.files, self.paths = files, {}
        for path, file in files.items():
            folder, _, name = path.rpartition("/")
            for above in {folder, folder and files[folder].short}:
                for one in (name, file.short):
                    self.paths[lower(f"{above}/{one}".lstrip("/"))] = path

    def has(self, path):
        return lower(path) in self.paths

    def of(self, path):
        """The path as it is on the volume, or will be."""
        if self.has(path):
            return self.paths[lower(path)]
        folder, _, name = path.rpartition("/")
        return f"{self.paths.get(lower(folder), folder)}/{name}" if folder else name


def needed(volume, names, wanted):
    """The clusters that are wanted beyond those that are there."""
    count = sum(not names.has(folder) for folder in {path.split("/")[0] for path in wanted if "/" in path})
    for path, content in wanted.items():
        there = len(names.files[names.of(path)].chain) if names.has(path) else 0
        count += max(0, -(-len(content) // volume.cluster) - there)
    return count


def size(value):
    """As the program shows sizes."""
    if value < 1 << 20:
        return f"{-(-value // 1024)} KiB"
    tenths = value * 10 >> 20
    return f"{tenths // 10}.{tenths % 10} MiB"


def check_refusal(why, volume, names, wanted):
    """A refusal is right, and so are its figures. Gives its kind."""
    need, free = needed(volume, names, wanted), volume.free()
    if " are free; " in why:
        said = (f"{next(iter(wanted))} and {len(wanted) - 1} more need {size(need * volume.cluster)} in clusters, "
                f"{size(free * volume.cluster)} are free;")
        assert need > free and said in why, (why, said)
        return "full"
    assert need <= free, why
    names_length = sum(len(path) for path in wanted)
    if "since a directory grows" in why:
        entries = 2 * len(wanted) + names_length // 13 + 8
        assert free - need <= 2 + 2 * entries * 32 // volume.cluster, (why, free, need)
        return "grows"
    if "its root directory has room for" in why:
        check_full_root(why, volume, names, wanted)
        return "root"
    if "would change in over 128 sectors" in why:
        scattered = {cluster * volume.width // 4096 for cluster, next in enumerate(volume.next) if next == 0}
        assert names_length > 1000 or len(scattered) > 60, why
        return "sectors"
    if "pieces" in why:
        assert sum(-(-len(content) // volume.cluster) for content in wanted.values()) > 256, why
        return "pieces"
    assert "the same to FAT" in why and any("~" in path for path in wanted), why
    return "twice"


def check_full_root(why, volume, names, wanted):
    """No gap of the fixed root directory takes all new entries."""
    assert volume.width != 32 and f"room for {volume.root_entries} entries" in why, why
    new = {name for name in (path.split("/")[0] for path in wanted) if not names.has(name)}
    count = sum(1 + -(-len(name) // 13) for name in new)
    marks = "".join(" " if entry[0] in (0, 0xE5) else "x" for entry in volume.entries_of([]))
    longest = max(len(gap) for gap in marks.split("x"))
    assert longest < count, f"{why}: {longest} entries are free in a row"


def check_files(names, after, wanted):
    """All that is wanted is there, and everything else is what and where it was."""
    before = names.files
    expected = {names.of(path): content for path, content in wanted.items()}
    folders = {path.split("/")[0] for path in expected if "/" in path}
    assert set(after) == set(before) | set(expected) | folders, set(after) ^ set(before) ^ set(expected)
    for path, content in expected.items():
        assert after[path].content == content, path
        check_entry(after[path].entry, before.get(path))
    for path, file in before.items():
        now = after[path]
        if file.is_directory:
            assert now.entry == file.entry and now.chain[:len(file.chain)] == file.chain, path
        elif path not in expected:
            assert (now.entry, now.chain, now.content) == (file.entry, file.chain, file.content), path


def check_entry(entry, before):
    """Times, attributes and short name of a file that was placed."""
    written, = struct.unpack_from("<I", entry, 22)
    created, = struct.unpack_from("<I", entry, 14)
    read, = struct.unpack_from("<H", entry, 18)
    assert written == STAMP and read == STAMP >> 16 and entry[11] & 0x21 == 0x20, entry
    if before is None:
        assert created == STAMP and entry[11] == 0x20 and entry[12:14] == b"\0\0", entry
    else:
        assert entry[:11] == before.entry[:11] and entry[12:18] == before.entry[12:18], entry


def check_tables(before, after):
    """Tables are equal, reserved entries and bits are as they were, FSInfo is right."""
    assert all(table == after.fats[0] for table in after.fats), "the tables differ"
    assert after.raw[:2] == before.raw[:2], "entries 0 and 1"
    if after.width == 32:
        assert all(a >> 28 == b >> 28 for a, b in zip(before.raw, after.raw)), "the upper four bits"
    if after.information:
        free, = struct.unpack_from("<I", after.fsinfo, 488)
        assert free == after.free(), f"FSInfo says {free}, {after.free()} are free"
        for part in (slice(488), slice(496, 512)):
            assert after.fsinfo[part] == before.fsinfo[part], "the rest of FSInfo"


def check_sectors(patch, before, owners, mine):
    """Nothing is patched but tables, FSInfo, directories with wanted files, and wanted files."""
    directories = {path.rpartition("/")[0] + "/" for path in mine if "/" in path} | {""}
    for number in patch:
        at = number * 512
        if before.table <= at < before.data or before.information and at == before.information:
            continue
        assert at >= before.data, f"sector {number}"
        owner = owners.get((at - before.data) // before.cluster + 2)
        assert owner in mine or owner in directories, f"sector {number} of {owner}"


def check_order(back, before, files):
    """Nothing but tables is read at a place before the last one, unless a directory itself goes back."""
    read = before.chain(before.root_cluster) if before.root_cluster else []
    below = [file.chain for path, file in files.items() if file.is_directory and "/" not in path]
    read = [*read, *(cluster for chain in sorted(below) for cluster in chain)]
    if read == sorted(read):
        assert back == 0, f"{back} steps back"


def check_with_mtools(path, files, names, wanted, folder):
    """mtools reads what was placed, and lists it. It is asked by short names, else it would take brackets for a
    pattern; those of other writers may be in a code page."""
    below = collections.defaultdict(dict)
    for wanted_path, content in wanted.items():
        known = names.of(wanted_path)
        if files[known].short.isascii():
            below[known.rpartition("/")[0]][files[known].short] = content
    copies = folder / "copies"
    for above, known in below.items():
        copies.mkdir()
        source = "::/" + (files[above].short + "/" if above else "")
        run("mcopy", "-n", "-Q", "-i", path, *[source + short for short in known], copies)
        for short, content in known.items():
            assert (copies / short).read_bytes() == content, f"{above}/{short}"
        shutil.rmtree(copies)
    listing = lower(run("mdir", "-b", "-/", "-i", path).stdout.decode()).splitlines()
    for known in (names.of(one) for one in wanted if one.isascii()):
        assert "::/" + lower(known) in listing, f"mtools does not list {known}"


def apply(path, patch):
    with open(path, "r+b") as file:
        for number, content in patch.items():
            os.pwrite(file.fileno(), content, number * 512)


def place(r, planner, path, wanted, folder, with_mtools, counts):
    """Plans, patches and looks. True when it was planned."""
    before = Volume(path)
    names = Names(before.walk()[0])
    image, start = at_an_offset(r, path, folder)
    back, plan = planner.plan(image, start, wanted, folder)
    if back is None:
        counts["refused: " + check_refusal(plan, before, names, wanted)] += 1
        before.close()
        return False
    patch = {number - start // 512: content for number, content in plan.items()}
    apply(path, patch)
    found = run("fsck.fat", "-n", path, check=False)
    assert found.returncode == 0, found.stdout.decode()
    after = Volume(path)
    files, owners = after.walk()
    check_files(names, files, wanted)
    check_tables(before, after)
    check_sectors(patch, before, owners, {names.of(path) for path in wanted})
    check_order(back, before, names.files)
    if with_mtools and (before.width != 32 or before.count >= MTOOLS_LEAST):
        check_with_mtools(path, files, names, wanted, folder)
        counts["read by mtools"] += 1
    counts["files replaced"] += sum(names.has(path) for path in wanted)
    counts["planned"] += 1
    before.close()
    after.close()
    return True


def filled(seed, width, folder, counts):
    """A volume of this seed with files, the files that are wanted on it, and the random numbers that go on."""
    r = random.Random(seed * 100 + width)
    path = folder / "volume"
    while not make(r, width, path):
        counts["mkfs.fat refused"] += 1
    wanted = wanted_files(r)
    volume = Volume(path)
    Filler(r, path, folder, volume.cluster).fill(wanted)
    volume.close()
    volume = Volume(path)
    take_clusters(r, volume, path)
    volume.close()
    mend_information(r, path)
    return r, path, wanted


def one_volume(seed, width, planner, folder, counts):
    """True when files were placed on the volume of this seed."""
    r, path, wanted = filled(seed, width, folder, counts)
    done = place(r, planner, path, wanted, folder, seed % 3 == 0, counts)
    if done and r.random() < 0.3:
        # Again, with other contents: longer, shorter, none.
        again = {name: r.randbytes(r.choice([0, len(content), r.randint(0, 9000)]))
                 for name, content in wanted.items() if r.random() < 0.7}
        place(r, planner, path, again or wanted, folder, False, counts)
    return done


def random_volumes(width, share, folder):
    counts, seed, done = collections.Counter(), SEED, 0
    wanted = max(1, int(VOLUMES * share))
    with Planner() as planner:
        while done < wanted:
            try:
                done += one_volume(seed, width, planner, folder, counts)
            except Exception as error:
                raise AssertionError(f"FAT_SEED={seed}, FAT{width}") from error
            seed += 1
            assert seed - SEED < 3 * wanted + 10, f"most are refused: {counts}"
    print(f"FAT{width}: {seed - SEED} volumes,", ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


def test_random_volumes_of_fat12(folder):
    random_volumes(12, 0.3, folder)


def test_random_volumes_of_fat16(folder):
    random_volumes(16, 0.3, folder)


def test_random_volumes_of_fat32(folder):
    random_volumes(32, 0.4, folder)


def damage(r, path, places):
    """Overwrites 1 to 6 bytes of a volume, most of them where they mean something. Gives what was there."""
    old = []
    with open(path, "r+b") as file:
        for _ in range(r.randint(1, 6)):
            start, length = r.choice(places)
            at = start + r.randrange(length)
            file.seek(at)
            old.append((at, file.read(1)))
            file.seek(at)
            file.write(bytes([r.choice([0, 1, 2, 0xE5, 0xFF, r.randrange(256)])]))
    return reversed(old)


def test_damaged_volumes(folder):
    """Whatever is planned or refused for them: the program neither panics nor hangs, and stays in the volume."""
    counts = collections.Counter()
    with Planner() as planner:
        for seed in range(SEED, SEED + max(4, VOLUMES // 15)):
            r, path, wanted = filled(seed, (12, 16, 32)[seed % 3], folder, counts)
            volume = Volume(path)
            places = [(11, 80), (volume.table, 64), (volume.table, 600), (volume.root, 64 * 32)]
            places += [(volume.place(file.chain[0]), volume.cluster)
                       for file in volume.walk()[0].values() if file.is_directory][:3]
            volume.close()
            for _ in range(15):
                old = damage(r, path, places)
                began = time.monotonic()
                back, _ = planner.plan(path, 0, wanted, folder)
                assert time.monotonic() - began < 5, f"FAT_SEED={seed}: it takes long"
                counts["refused" if back is None else "planned"] += 1
                with open(path, "r+b") as file:
                    for at, byte in old:
                        file.seek(at)
                        file.write(byte)
    print("damaged:", dict(counts))
    assert counts["refused"] and counts["planned"], counts


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
