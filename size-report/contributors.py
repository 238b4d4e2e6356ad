"""Says who takes the bytes of a program: by crate, and by room of ours.

    contributors.py UNSTRIPPED-PROGRAM

Counts the symbols of nm, which every linker writes: a function that was inlined counts for the one it was
inlined into. What has no symbol of its own (strings, unwinding tables, padding) is named as such.
"""

import collections
import re
import subprocess
import sys

OURS = "takeover"
FLOORS = ("look", "decide", "prepare")
OUTLINED = "outlined by the compiler"
UNNAMED = "messages, tables"


def symbols(program):
    """(bytes, kind, demangled name) of each symbol that takes room in the file."""
    listing = subprocess.run(["nm", "-t", "d", "-S", "-C", program], capture_output=True, text=True, check=True).stdout
    seen = set()
    for line in listing.splitlines():
        fields = line.split(None, 3)
        if len(fields) < 4 or fields[2] in "bBuU" or not fields[1].isdigit():
            continue
        place = (fields[0], fields[1])
        if place in seen:       # an alias
            continue
        seen.add(place)
        yield int(fields[1]), fields[2], fields[3]


def owner(name):
    """The crate that a symbol belongs to, and its room when it is ours."""
    if name.startswith("OUTLINED_FUNCTION"):
        # Instructions that stood in several functions, of whatever crate.
        return OUTLINED, ""
    if name.startswith("_RN") or name.startswith("_RI"):
        # What nm could not demangle: the crates are in it with their lengths.
        found = re.findall(r"_?\d+([a-z_0-9]+?)(?=\d|N|[A-Z]|$)", name)
        if OURS in found:
            return OURS, "generic"
    found = re.search(r"(?:^|[<&( ])(?:mut |dyn )*([a-z_][a-z_0-9]*)((?:::[a-z_][a-z_0-9]*)*)", name)
    if not found or "::" not in name:
        return "musl (C)", ""
    crate, path = found[1], found[2].strip(":").split("::")
    inside = re.findall(rf"{OURS}::([a-z_0-9]+)(?:::([a-z_0-9]+))?(?:::([a-z_0-9]+))?", name)
    if crate == OURS or (inside and crate in ("core", "alloc")):
        return OURS, room_of([part for part in (inside[0] if inside else path) if part])
    return crate, ""


def room_of(path):
    """A room by the path to it: the stages by their files, stage 1 by those on its floors."""
    if path[:1] == ["stage1"] and path[1:2] and path[1] in FLOORS:
        return "/".join(path[:3])
    return "/".join(path[:2] if path[:1] in (["stage1"], ["stage2"]) else path[:1])


def contributors(program):
    crates, rooms = collections.Counter(), collections.Counter()
    for size, _, name in symbols(program):
        crate, room = owner(name)
        crates[crate] += size
        if crate == OURS:
            rooms[room] += size
    return crates, rooms


def unnamed(program):
    """The bytes of .rodata that no symbol names: texts, and tables that the compiler made."""
    named = sum(size for size, kind, _ in symbols(program) if kind in "rR")
    return sections(program)[".rodata"] - named


def sections(program):
    """The sections that take room in the file, by name."""
    listing = subprocess.run(["readelf", "-SW", program], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\] (\.\S+)\s+(\w+)\s+\w+ \w+ (\w+)", listing)
    return {name: int(size, 16) for name, kind, size in found if kind != "NOBITS"}


if __name__ == "__main__":
    crates, rooms = contributors(sys.argv[1])
    found = sections(sys.argv[1])
    print({name: size for name, size in found.items() if size > 200 and not name.startswith((".sym", ".str", ".shstr"))})
    print("symbols", sum(crates.values()))
    for table in (crates, rooms):
        for name, size in table.most_common(32):
            print(f"{size:8} {name}")
        print()
