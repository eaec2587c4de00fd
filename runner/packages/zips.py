"""A layer as a zip file: the same bytes from the same content, on every machine and with every Python.

Nothing is compressed: the output of zlib depends on its version, and a size that is known before anything is read tells an
upload that was cut.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from runner.packages.errors import FileChanging
from runner.packages.format import EMPTY, FILE, LINK
from runner.packages.index import CHUNK, Known, read_file
from runner.packages.scan import Entry

if TYPE_CHECKING:
    from runner.packages.layers import Layer

# The format as far as it is needed: names in UTF-8, 1980-01-01, made by Unix.
_UTF8, _STORED, _DATE, _UNIX = 0x800, 0, (1 << 5) | 1, 3
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_BIG_END = struct.Struct("<4sQ2H2L4Q")
_BIG_PLACE = struct.Struct("<4sLQL")
_MOST, _MOST_COUNT = 0xFFFFFFFF, 0xFFFF
_MODES = {FILE: stat.S_IFREG | 0o644, LINK: stat.S_IFLNK | 0o777, EMPTY: stat.S_IFDIR | 0o755}


def zip_size(entries: Sequence[Entry]) -> int:
    """The size of the zip file of entries, to the byte."""
    place = 0
    central = 0
    for entry in entries:
        name, size = len(_name(entry)), _size(entry)
        central += _CENTRAL.size + name + len(_big(place if place >= _MOST else None, size))
        place += _LOCAL.size + name + len(_big(None, size)) + size
    return place + central + len(_end(len(entries), place, central))


def write_zip(layer: Layer, root: Path, file: IO[bytes]) -> None:
    """Write a layer's zip file: the same bytes from the same content.

    Args:
        file: at its beginning, open for writing.

    Raises:
        FileChanging: a file is not what it was when the layer was made.
    """
    headers = []
    place = 0
    for entry in layer.entries:
        crc = _write_entry(entry, root, layer.digests.get(entry.path), file)
        headers.append(_central(entry, crc, place))
        place += _LOCAL.size + len(_name(entry)) + len(_big(None, _size(entry))) + _size(entry)
    central = b"".join(headers)
    file.write(central)
    file.write(_end(len(headers), place, len(central)))


def _write_entry(entry: Entry, root: Path, digest: str | None, file: IO[bytes]) -> int:
    if entry.kind != FILE:
        data = entry.target.encode()
        file.write(_local(entry, zlib.crc32(data)) + data)
        return zlib.crc32(data)
    if entry.size <= CHUNK:
        chunks: list[bytes] = []
        _check(entry, digest, read_file(f"{root}/{entry.path}", chunks.append))
        crc = zlib.crc32(b"".join(chunks))
        file.write(_local(entry, crc))
        file.writelines(chunks)
        return crc
    return _write_large(entry, root, digest, file)


def _write_large(entry: Entry, root: Path, digest: str | None, file: IO[bytes]) -> int:
    """The checksum comes before the content and is known after it."""
    start = file.tell()
    file.write(_local(entry, 0))
    sums = [0]

    def consume(chunk: bytes) -> None:
        sums[0] = zlib.crc32(chunk, sums[0])
        file.write(chunk)

    _check(entry, digest, read_file(f"{root}/{entry.path}", consume))
    end = file.tell()
    file.seek(start)
    file.write(_local(entry, sums[0]))
    file.seek(end)
    return sums[0]


def _check(entry: Entry, digest: str | None, found: Known) -> None:
    if (found.digest, found.stamp.size) != (digest, entry.size):
        raise FileChanging(f"{entry.path} changed while the package was made; run again")


def _name(entry: Entry) -> bytes:
    return entry.path.encode() + b"/" * (entry.kind == EMPTY)


def _size(entry: Entry) -> int:
    return entry.size if entry.kind == FILE else len(entry.target.encode())


def _big(place: int | None, size: int) -> bytes:
    """The extra field for what takes more than 32 bits."""
    if place is None and size < _MOST:
        return b""
    values = ([size, size] if size >= _MOST else []) + ([] if place is None else [place])
    return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values)


def _local(entry: Entry, crc: int) -> bytes:
    name, size = _name(entry), _size(entry)
    extra = _big(None, size)
    short = min(size, _MOST)
    needs = 45 if extra else 20
    return _LOCAL.pack(b"PK\3\4", needs, _UTF8, _STORED, 0, _DATE, crc, short, short, len(name), len(extra)) + name + extra


def _central(entry: Entry, crc: int, place: int) -> bytes:
    name, size = _name(entry), _size(entry)
    extra = _big(place if place >= _MOST else None, size)
    short = min(size, _MOST)
    needs = 45 if extra else 20
    mode = _MODES[entry.kind] | (0o111 if entry.executable else 0)
    attributes = mode << 16 | (0x10 if entry.kind == EMPTY else 0)
    head = (b"PK\1\2", _UNIX << 8 | needs, needs, _UTF8, _STORED, 0, _DATE, crc, short, short)
    return _CENTRAL.pack(*head, len(name), len(extra), 0, 0, 0, attributes, min(place, _MOST)) + name + extra


def _end(count: int, place: int, central: int) -> bytes:
    short = min(count, _MOST_COUNT), min(central, _MOST), min(place, _MOST)
    end = _END.pack(b"PK\5\6", 0, 0, short[0], short[0], short[1], short[2], 0)
    if count < _MOST_COUNT and central < _MOST and place < _MOST:
        return end
    big = _BIG_END.pack(b"PK\6\6", _BIG_END.size - 12, _UNIX << 8 | 45, 45, 0, 0, count, count, central, place)
    return big + _BIG_PLACE.pack(b"PK\6\7", 0, place + central, 1) + end
