"""Which way does the firmware describe to a device or file, in words?

UEFI 2.10, 10.3. The text is for people and follows the specification's own (10.6) for the nodes that boots
have; others are given as Path(type,subtype,data). A path is a hint: nothing that is measured depends on it.
"""

import struct

from tpm.eventlog.efi.guid import guid_text

_NODE = struct.Struct("<BBH")
_NODES_LIMIT = 64
_SIZE_LIMIT = 8192
_END = 0x7F
_END_ENTIRE = 0xFF

_HARD_DRIVE = struct.Struct("<IQQ16sBB")
_FILE_PATH = (4, 4)


def device_path_text(raw: bytes) -> str | None:
    """The path as text, up to its end node; what follows that is not read. None if it is no path."""
    nodes = _nodes(raw)
    if nodes is None:
        return None
    parts = []
    for kind, subtype, data in nodes:
        if kind == _END:
            parts.append(",")
        else:
            parts.append(_node_text(kind, subtype, data))
    return "/".join(parts).replace("/,/", ",")


def file_of(raw: bytes) -> str | None:
    """The file at the end of the path, as "\\EFI\\BOOT\\BOOTX64.EFI"; None when it names none."""
    files = [_utf16(data) for kind, subtype, data in _nodes(raw) or () if (kind, subtype) == _FILE_PATH]
    return "\\".join(files).replace("\\\\", "\\") or None


def _nodes(raw: bytes) -> list[tuple[int, int, bytes]] | None:
    """Type, subtype and data of each node; None if the lengths do not fit or there are too many."""
    nodes: list[tuple[int, int, bytes]] = []
    offset = 0
    while offset < len(raw):
        if len(nodes) >= _NODES_LIMIT or len(raw) > _SIZE_LIMIT or offset + _NODE.size > len(raw):
            return None
        kind, subtype, size = _NODE.unpack_from(raw, offset)
        if size < _NODE.size or offset + size > len(raw):
            return None
        if kind == _END and subtype == _END_ENTIRE:
            break
        nodes.append((kind, subtype, raw[offset + _NODE.size : offset + size]))
        offset += size
    return nodes


def _node_text(kind: int, subtype: int, data: bytes) -> str:
    match kind, subtype, len(data):
        case 1, 1, 2:
            return f"Pci(0x{data[1]:x},0x{data[0]:x})"
        case 2, 1, 8:
            hid, uid = struct.unpack("<II", data)
            return (
                f"PciRoot(0x{uid:x})" if hid in (0x0A0341D0, 0x0A0841D0) else f"Acpi(0x{hid:08x},0x{uid:x})"
            )
        case 3, 2, 4:
            target, lun = struct.unpack("<HH", data)
            return f"Scsi(0x{target:x},0x{lun:x})"
        case 3, 5, 2:
            return f"USB(0x{data[0]:x},0x{data[1]:x})"
        case 3, 11, size if size >= 33:
            return f"MAC({data[:6].hex()},0x{data[32]:x})"
        case 3, 18, 6:
            return f"Sata(0x{int.from_bytes(data[:2], 'little'):x})"
        case 3, 23, 12:
            return f"NVMe(0x{int.from_bytes(data[:4], 'little'):x},{data[4:].hex('-')})"
        case 4, 1, 38:
            return _hard_drive(data)
        case 4, 4, _:
            return _utf16(data)
        case 4, 8, 20:
            start, end = struct.unpack("<QQ", data[4:])
            return f"Offset(0x{start:x},0x{end:x})"
        case 4, 6, 16:
            return f"FvFile({guid_text(data)})"
        case 4, 7, 16:
            return f"Fv({guid_text(data)})"
        case 1, 4, size if size >= 16:
            return f"VenHw({guid_text(data[:16])})"
        case 4, 3, size if size >= 16:
            return f"VenMedia({guid_text(data[:16])})"
    return f"Path({kind},{subtype},{data[:32].hex()})"


def _hard_drive(data: bytes) -> str:
    number, _, _, signature, _, kind = _HARD_DRIVE.unpack(data)
    if kind == 2:
        return f"HD({number},GPT,{guid_text(signature)})"
    return f"HD({number},MBR,0x{int.from_bytes(signature[:4], 'little'):08x})"


def _utf16(data: bytes) -> str:
    """Text for people: what is not UTF-16 is shown as such, not refused."""
    return data.decode("utf-16-le", "replace").rstrip("\0")
