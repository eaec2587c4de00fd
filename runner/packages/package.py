"""A package: a folder's listing in layers, known to the byte before anything is written or sent."""

from __future__ import annotations

import heapq
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import BadInput
from runner.packages.format import FILE, LayerRecord, PackageRecord, package_id
from runner.packages.index import Index
from runner.packages.layers import Layer, split
from runner.packages.scan import Entry, Listing, scan

MANY_BYTES = 100 << 20
MOST_BYTES = 5 << 30
_LARGEST = 10


@dataclass(frozen=True)
class Package:
    """What would go to workers. Nothing of it is written yet.

    Attributes:
        id: the same for the same files, whatever machine, time, order or umask.
        warnings: what the caller may not have meant.
    """

    listing: Listing
    layers: tuple[Layer, ...]
    record: PackageRecord
    id: str
    warnings: tuple[str, ...]

    @property
    def root(self) -> Path:
        return self.listing.root


def build(
    root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), *, site: bool = False, limit: int = MOST_BYTES
) -> Package:
    """The package of a folder. Reads what changed since the last time; writes and sends nothing.

    Args:
        include: patterns as of .gitignore, of what goes in spite of every rule.
        exclude: patterns of what stays.
        site: whether it is a site-packages folder.
        limit: most bytes that may go.

    Raises:
        BadInput: too large, or something in it cannot go.
        FileChanging: a file changes all the time.
    """
    index = Index(Path(root).resolve())
    listing = scan(root, include, exclude, site, index)
    check_size(listing, limit)
    package = of_listing(listing, index)
    index.save()
    return package


def of_listing(listing: Listing, index: Index) -> Package:
    """The package of a listing."""
    files = ((e.path, listing.file(e), e.stamp) for e in listing.entries if e.kind == FILE and e.stamp)
    known = index.read_all(files)
    # What was written between listing and reading goes as it was read.
    entries = tuple(e._replace(size=known[e.path].stamp.size) if e.kind == FILE else e for e in listing.entries)
    layers = split(entries, {path: found.digest for path, found in known.items()})
    records = tuple(LayerRecord(layer.id, layer.bytes, len(layer.entries)) for layer in layers)
    kind, python, machine = ("site", this_python(), this_platform()) if listing.site else ("workspace", None, None)
    record = PackageRecord(kind, python, machine, records)
    listing = Listing(listing.root, listing.site, entries, listing.ignored, listing.warnings)
    return Package(listing, layers, record, package_id(record.to_json()), tuple(_warnings(listing)))


def check_size(listing: Listing, limit: int) -> None:
    """Raises BadInput with the largest files where a listing is over a limit."""
    if listing.bytes > limit:
        raise BadInput(
            f"{listing.root}: {size_text(listing.bytes)} would go to workers, and {size_text(limit)} may; leave out what is "
            f"not needed with a line in .runnerignore. The largest:\n{_largest_text(listing)}"
        )


def largest(listing: Listing) -> list[Entry]:
    """The ten largest files, the largest first."""
    return heapq.nsmallest(_LARGEST, (e for e in listing.entries if e.kind == FILE), key=lambda e: (-e.size, e.path))


def describe(listing: Listing, package: Package | None = None, *, every: bool = True) -> str:
    """A listing for people.

    Args:
        package: of the listing, where it was made.
        every: every file that goes, and everything that stays; without it totals and the largest.
    """
    total = f"{listing.root}: {_plural(len(listing.entries), 'file')}, {size_text(listing.bytes)}"
    lines = [f"{total}; {len(listing.ignored):,} left out"]
    if every:
        width = min(max((len(path) for path, _ in listing.ignored), default=0), 60)
        lines += (f"  {size_text(e.size):>9}  {_shown(e)}" for e in listing.entries)
        lines += ["left out:", *(f"  {printable(path):<{width}}  {reason}" for path, reason in listing.ignored)]
    lines += ["the largest:", _largest_text(listing)]
    lines += (f"warning: {text.splitlines()[0].removesuffix(':')}" for text in _warnings(listing))  # the largest are listed
    if package:
        lines.append(f"package {package.id} in {_plural(len(package.layers), 'layer')}")
    return "\n".join(lines)


def to_dict(listing: Listing, package: Package | None = None) -> dict[str, Any]:
    """A listing as data."""
    return {
        "package": package.id if package else None,
        "layers": len(package.layers) if package else None,
        "root": str(listing.root),
        "files": [{"path": e.path, "kind": e.kind, "bytes": e.size} for e in listing.entries],
        "bytes": listing.bytes,
        "largest": [e.path for e in largest(listing)],
        "left_out": [{"path": path, "reason": reason} for path, reason in listing.ignored],
        "warnings": _warnings(listing),
    }


def this_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def this_platform() -> str:
    """Such as ``linux-x86_64`` or ``darwin-arm64``."""
    return f"{sys.platform}-{platform.machine().lower()}"


def size_text(size: int) -> str:
    for unit, factor in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def printable(path: str) -> str:
    """A path in one line."""
    return path if path.isprintable() else repr(path)[1:-1]


def _warnings(listing: Listing) -> list[str]:
    found = list(listing.warnings)
    if listing.bytes > MOST_BYTES:
        found.append(f"{size_text(listing.bytes)} are too much: {size_text(MOST_BYTES)} may go to workers")
    elif listing.bytes > MANY_BYTES:
        found.append(f"{size_text(listing.bytes)} go to workers; the largest:\n{_largest_text(listing)}")
    return found


def _largest_text(listing: Listing) -> str:
    return "\n".join(f"  {size_text(e.size):>9}  {printable(e.path)}" for e in largest(listing))


def _shown(entry: Entry) -> str:
    return printable(entry.path) + {"file": "", "link": f" -> {printable(entry.target)}", "folder": "/"}[entry.kind]


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"
