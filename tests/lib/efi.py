"""The variables of a guest's firmware: made for it, and read from the file that is its flash memory.

OVMF and AAVMF keep them in one format: a firmware volume whose only content is a store of authenticated variables
(MdeModulePkg/Include/Guid/VariableFormat.h in edk2).
"""

import collections
import pathlib
import struct
import uuid

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
# Where a guest has them.
FOLDER = "/sys/firmware/efi/efivars"

_VOLUME = struct.Struct("<16x16sQ4sIHHHBB")
_STORE = struct.Struct("<16sIBBHI")
_AUTHENTICATED = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
_VARIABLE = struct.Struct("<HBBIQ16sIII16s")
# VAR_ADDED, and what is about to be replaced but still counts.
_VALID = (0x3F, 0x3E)

Option = collections.namedtuple("Option", "name partition bytes")


def variables(path):
    """Every variable of the vendor that the specification has, by its name."""
    data = pathlib.Path(path).read_bytes()
    header = _VOLUME.unpack_from(data)
    assert header[2] == b"_FVH", "no firmware volume"
    start = header[4]
    kind, size, *_ = _STORE.unpack_from(data, start)
    assert kind == _AUTHENTICATED, "no store of authenticated variables"
    position, end, found = start + _STORE.size, start + size, {}
    while position + _VARIABLE.size <= end:
        mark, state, _, _, _, _, _, name_size, data_size, vendor = _VARIABLE.unpack_from(data, position)
        if mark != 0x55AA:
            break
        at = position + _VARIABLE.size
        name = data[at:at + name_size].decode("utf-16-le").rstrip("\0")
        if state in _VALID and uuid.UUID(bytes_le=vendor) == uuid.UUID(GLOBAL):
            found[name] = data[at + name_size:at + name_size + data_size]
        position = (at + name_size + data_size + 3) & ~3
    return found


def fill(path, count):
    """Adds so many variables of 8000 bytes, as long as a firmware has them, to a store that is empty."""
    data = bytearray(pathlib.Path(path).read_bytes())
    start = _VOLUME.unpack_from(data)[4]
    position = start + _STORE.size
    assert data[position:position + 2] == b"\xff\xff", "the store is not empty"
    for number in range(count):
        name, value = _utf16(f"Filler{number:02}"), bytes(8000)
        vendor = uuid.UUID("0d150002-93ca-11d2-aa0d-00e098032b8c").bytes_le
        variable = _VARIABLE.pack(0x55AA, 0x3F, 0, 7, 0, bytes(16), 0, len(name), len(value), vendor) + name + value
        data[position:position + len(variable)] = variable
        position = (position + len(variable) + 3) & ~3
    pathlib.Path(path).write_bytes(data)


def entries(found):
    """Those of them that are boot entries: number -> Option, whose partition is its GUID or the signature of its disk."""
    digits = set("0123456789ABCDEF")
    return {int(name[4:], 16): read_option(value) for name, value in found.items()
            if len(name) == 8 and name.startswith("Boot") and set(name[4:]) <= digits}


def order(found):
    """The numbers in BootOrder."""
    value = found.get("BootOrder", b"")
    return list(struct.unpack(f"<{len(value) // 2}H", value))


def _utf16(text):
    return text.encode("utf-16-le") + b"\0\0"


def option(name, guid, file, start=2048, sectors=131072, data=b""):
    """A load option for a file on the partition of a GPT."""
    path = struct.pack("<BBHIQQ16sBB", 4, 1, 42, 1, start, sectors, uuid.UUID(guid).bytes_le, 2, 2)
    path += struct.pack("<BBH", 4, 4, 4 + len(_utf16(file))) + _utf16(file) + b"\x7f\xff\x04\x00"
    return struct.pack("<IH", 1, len(path)) + _utf16(name) + path + data


def read_option(value):
    """What a load option says."""
    length = struct.unpack_from("<H", value, 4)[0]
    end = next(at for at in range(6, len(value), 2) if value[at:at + 2] == b"\0\0")
    path, partition = value[end + 2:end + 2 + length], None
    while path and path[0] != 0x7F:
        size = struct.unpack_from("<H", path, 2)[0]
        if path[:2] == b"\4\1":
            signature = path[24:40]
            partition = str(uuid.UUID(bytes_le=signature)) if path[41] == 2 else signature[:4].hex()
        path = path[size:]
    return Option(value[6:end].decode("utf-16-le"), partition, value)


def as_file(value):
    """A variable as a file of efivarfs holds it."""
    return struct.pack("<I", 7) + value
