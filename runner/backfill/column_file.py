"""The Lance file that holds a computed column of one fragment, and what it says of its rows.

Which function version made a row travels with the data: the name of a file tells where one version made all of them, a
row map in the file's schema metadata tells otherwise. Both are published by the commit that publishes the values, so they
are never apart, and planning over finished fragments reads nothing but the table's manifest.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from runner.backfill.offsets import NONE, Offsets, minus, union

ROWS_KEY = "infill:rows"
OTHER_INPUTS = ""  # stands for a version in a row map: the row was made from inputs that it does not have any more
WINDOW_ROWS = 1 << 14

FileKind = Literal["full", "skip", "map"]

_NAME = re.compile(r"^[0-9a-f]{32}-(full|skip|map)-([0-9a-f]{12})(?:-([0-9a-f]{12}))?\.lance$")


@dataclass(frozen=True)
class FileTag:
    """What the name of a column file says.

    Attributes:
        kind: ``full``: one version made every row; ``skip``: every row but those it skipped; ``map``: see the row map.
        version: digest of the version.
        inputs: digest of the input files that the rows were computed from, or were known to fit; None in older names.
    """

    kind: FileKind
    version: str
    inputs: str | None = None

    def is_of(self, version: str) -> bool:
        return self.version == version_digest(version)


def version_digest(version: str) -> str:
    """12 hexadecimal digits for a version, which may be any label of the caller's."""
    return hashlib.sha256(version.encode()).hexdigest()[:12]


def inputs_digest(paths: Iterable[str]) -> str:
    """12 hexadecimal digits for the files that hold the inputs of a fragment."""
    return hashlib.sha256("\n".join(sorted(paths)).encode()).hexdigest()[:12]


def file_name(kind: FileKind, version: str, inputs: str | None = None) -> str:
    """A new unique name for a column file. Starts with random digits, as object stores spread load by prefix."""
    parts = (uuid.uuid4().hex, kind, version_digest(version), inputs)
    return f"{'-'.join(part for part in parts if part)}.lance"


def parse_name(path: str) -> FileTag | None:
    """What a data file's name says; None for a file that this package did not write."""
    found = _NAME.match(path)
    return FileTag(found[1], found[2], found[3]) if found else None  # type: ignore[arg-type]


@dataclass
class RowMap:
    """Which rows of a fragment each version made, and which it skipped, as physical offsets.

    A row in neither was never computed by us; whether it holds a value only the column itself tells.
    """

    physical_rows: int
    made: dict[str, Offsets] = field(default_factory=dict)
    skipped: dict[str, Offsets] = field(default_factory=dict)

    def rows(self, *, without: str | None = None) -> Offsets:
        """All rows accounted for; `without` leaves out those that one version made or skipped."""
        return union(*(rows for part in (self.made, self.skipped) for version, rows in part.items() if version != without))

    def record(self, version: str, made: Offsets, skipped: Offsets) -> RowMap:
        """The map after `version` made and skipped those rows."""
        touched = union(made, skipped)

        def updated(old: Mapping[str, Offsets], new: Offsets) -> dict[str, Offsets]:
            kept = {name: minus(rows, touched) for name, rows in old.items()}
            kept[version] = union(kept.get(version, NONE), new)
            return {name: rows for name, rows in kept.items() if len(rows)}

        return RowMap(self.physical_rows, updated(self.made, made), updated(self.skipped, skipped))

    def without(self, rows: Offsets) -> RowMap:
        """The map that knows nothing of some rows."""

        def kept(sets: Mapping[str, Offsets]) -> dict[str, Offsets]:
            left = {version: minus(known, rows) for version, known in sets.items()}
            return {version: known for version, known in left.items() if len(known)}

        return RowMap(self.physical_rows, kept(self.made), kept(self.skipped)) if len(rows) else self

    def merged(self, other: RowMap) -> RowMap:
        """What either map knows; of a row that both know, what the other does."""
        made, skipped = self.without(other.rows()).made, self.without(other.rows()).skipped
        for mine, theirs in ((made, other.made), (skipped, other.skipped)):
            for version, rows in theirs.items():
                mine[version] = union(mine.get(version, NONE), rows)
        return RowMap(self.physical_rows, made, skipped)

    def to_json(self) -> str:
        def packed(sets: Mapping[str, Offsets]) -> dict[str, str]:
            return {version: _pack(rows, self.physical_rows) for version, rows in sets.items()}

        return json.dumps({"rows": self.physical_rows, "made": packed(self.made), "skipped": packed(self.skipped)})

    @classmethod
    def from_json(cls, text: str) -> RowMap:
        raw = json.loads(text)
        count = raw["rows"]
        made = {version: _unpack(rows, count) for version, rows in raw["made"].items()}
        return cls(count, made, {version: _unpack(rows, count) for version, rows in raw["skipped"].items()})


def path_of(data_file: Any) -> str:
    """Path of a ``lance.fragment.DataFile`` below ``data/``.

    Its own property makes a class each time it is read, which were half the time of planning a million fragments.
    """
    return str(getattr(data_file, "_path", None) or data_file.path)


def read_row_map(url: str, storage_options: Mapping[str, str]) -> RowMap | None:
    """The row map of a column file, None where it has none."""
    from lance.file import LanceFileReader

    metadata = LanceFileReader(url, storage_options=dict(storage_options)).metadata().schema.metadata or {}
    text = metadata.get(ROWS_KEY.encode())
    return RowMap.from_json(text.decode()) if text else None


class ColumnWriter:
    """Writes one value for every physical row of a fragment, from values that come in ascending order of offset.

    Args:
        inner: an open ``LanceFileWriter`` of a schema with just the column; its file appears whole, when closed, or not at all.
        field: the column.
        physical_rows: rows of the fragment, deleted ones included.
        base: ``(offsets, values)`` of the column as it is, ascending; they fill the rows that nothing is put for. Default: NULL.
    """

    def __init__(self, inner: Any, field: pa.Field, physical_rows: int, base: Iterator[tuple[Offsets, Any]] | None = None) -> None:
        self._schema = pa.schema([field])
        self._inner = inner
        self._physical_rows = physical_rows
        self._base = _Base(base, field.type)
        self._next = 0
        self._nulls: list[Offsets] = []

    @property
    def nulls(self) -> Offsets:
        """Rows that were written as NULL, ascending."""
        return np.concatenate(self._nulls) if self._nulls else NONE

    def put(self, offsets: Offsets, values: Any) -> None:
        """Values for those rows; offsets ascend, within a call and from call to call."""
        while len(offsets):
            last = int(offsets[-1]) + 1
            if len(offsets) == last - self._next:
                self._write(values)
                return
            end = min(last, self._next + WINDOW_ROWS, self._base.end(self._next))
            count = int(np.searchsorted(offsets, end))
            self._fill(end, offsets[:count], values[:count])
            offsets, values = offsets[count:], values[count:]

    def close(self, metadata: Mapping[str, str]) -> int:
        """Finish the file; returns its size in bytes.

        Raises:
            RuntimeError: not exactly one value for each physical row went in. Such a file would make the column unreadable.
        """
        nothing = NONE, pa.nulls(0, self._schema.field(0).type)
        while self._next < self._physical_rows:
            self._fill(min(self._physical_rows, self._next + WINDOW_ROWS, self._base.end(self._next)), *nothing)
        for key, value in metadata.items():
            self._inner.add_schema_metadata(key, value)
        written = self._inner.close()
        if written != self._physical_rows:
            raise RuntimeError(f"a column file has {written} rows, its fragment {self._physical_rows}")
        assert self._inner.size_bytes is not None
        return int(self._inner.size_bytes)

    def _fill(self, end: int, offsets: Offsets, values: Any) -> None:
        old_offsets, old_values = self._base.take_until(end)
        index = np.full(end - self._next, -1, np.int64)
        index[old_offsets.astype(np.int64) - self._next] = np.arange(len(old_offsets))
        index[offsets.astype(np.int64) - self._next] = np.arange(len(offsets)) + len(old_offsets)
        pool = pa.concat_arrays([old_values, values])
        self._write(pool.take(pa.array(index, mask=index < 0)))

    def _write(self, values: Any) -> None:
        self._base.skip_until(self._next + len(values))
        self._inner.write_batch(pa.record_batch([values], schema=self._schema))
        if values.null_count:
            self._nulls.append((np.flatnonzero(values.is_null()) + self._next).astype(np.uint32))
        self._next += len(values)


class _Base:
    """Old values of a column, consumed in ascending order of offset."""

    def __init__(self, source: Iterator[tuple[Offsets, Any]] | None, data_type: Any) -> None:
        self._source = source if source is not None else iter(())
        self._offsets: Offsets = NONE
        self._values: Any = pa.nulls(0, data_type)
        self._exhausted = source is None

    def end(self, start: int) -> int:
        """Offset up to which rows from `start` on can be taken without reading more than one chunk."""
        while not self._exhausted and (not len(self._offsets) or int(self._offsets[-1]) < start):
            self._load()
        return 1 << 32 if self._exhausted and not len(self._offsets) else max(int(self._offsets[-1]) + 1, start + 1)

    def take_until(self, end: int) -> tuple[Offsets, Any]:
        count = int(np.searchsorted(self._offsets, end))
        taken = self._offsets[:count], self._values[:count]
        self._offsets, self._values = self._offsets[count:], self._values[count:]
        return taken

    def skip_until(self, end: int) -> None:
        while True:
            self.take_until(end)
            if len(self._offsets) or self._exhausted:
                return
            self._load()

    def _load(self) -> None:
        try:
            self._offsets, self._values = next(self._source)
        except StopIteration:
            self._exhausted = True


def _pack(rows: Offsets, count: int) -> str:
    bits = np.zeros(count, np.bool_)
    bits[rows] = True
    return base64.b85encode(zlib.compress(np.packbits(bits).tobytes(), 9)).decode()


def _unpack(text: str, count: int) -> Offsets:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8), count=count)
    return np.flatnonzero(bits).astype(np.uint32)
