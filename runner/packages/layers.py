"""A listing in layers, so that one edited file sends little again.

A folder of at most 16 MB and 1,000 files is one layer or part of one. A larger one is split into its children: those that are
large themselves go on alone, the others are kept together, sorted, and cut where the hash of a name is least until each piece is
small enough. Such a cut stays where it is when other names come, go or grow, which cuts by size would not.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runner.packages.format import FILE, layer_id
from runner.packages.scan import Entry
from runner.packages.zips import zip_size

MOST_BYTES = 16 << 20
MOST_FILES = 1000


@dataclass(frozen=True)
class Layer:
    """Part of a package.

    Attributes:
        entries: sorted by path.
        digests: SHA-256 of each file's content, by path.
        bytes: size of the zip file.
    """

    id: str
    entries: tuple[Entry, ...]
    digests: Mapping[str, str]
    bytes: int


def split(entries: Sequence[Entry], digests: Mapping[str, str]) -> tuple[Layer, ...]:
    """The layers of a listing.

    Args:
        digests: SHA-256 of each file's content, by path.
    """
    return tuple(_layer(piece, digests) for piece in _pieces(sorted(entries), 0))


def _layer(entries: Sequence[Entry], digests: Mapping[str, str]) -> Layer:
    made = layer_id((e.path, e.kind, "x" * e.executable, digests[e.path] if e.kind == FILE else e.target) for e in entries)
    return Layer(made, tuple(entries), digests, zip_size(entries))


def _pieces(entries: Sequence[Entry], cut: int) -> Iterator[Sequence[Entry]]:
    """Split a folder's sorted entries, whose paths share the first `cut` characters."""
    if _fits(entries):
        if entries:
            yield entries
        return
    together: list[tuple[str, Sequence[Entry]]] = []
    for name, child in _children(entries, cut):
        if _fits(child):
            together.append((name, child))
        elif len(child) == 1:
            yield child
        else:
            yield from _pieces(child, cut + len(name) + 1)
    yield from _joined(together)


def _children(entries: Sequence[Entry], cut: int) -> list[tuple[str, Sequence[Entry]]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.path[cut:].partition("/")[0], []).append(entry)
    return sorted(found.items())


def _joined(children: list[tuple[str, Sequence[Entry]]]) -> Iterator[Sequence[Entry]]:
    """Siblings in pieces that are small enough, cut where the hash of a name is least."""
    waiting = [children] if children else []
    while waiting:
        some = waiting.pop()
        entries = sorted(entry for _, child in some for entry in child)
        if len(some) == 1 or _fits(entries):
            yield entries
        else:
            at = min(range(1, len(some)), key=lambda number: zlib.crc32(some[number][0].encode()))
            waiting += [some[at:], some[:at]]


def _fits(entries: Sequence[Entry]) -> bool:
    return len(entries) <= MOST_FILES and sum(entry.size for entry in entries) <= MOST_BYTES
