"""Rows that are done and NULL: their function returned NULL, or the error policy skipped them.

In a column file that the runner wrote, the file itself tells. A compaction merges such files and an update copies rows, and
only values survive either. So the keys of these rows' inputs (see `input_hash`) are kept with the function's version, in
``_runner/settled/<table>/<column>/``. A NULL in a file of Lance's own counts as done where its inputs' key is there: it stays
done wherever the row goes, and is computed anew once its inputs are others. What was found of a file is kept below ``maps/``.
"""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.backfill.column_file import RowMap
from runner.backfill.input_hash import KEY_BYTES, KEY_TYPE, Keys, find, keys_of
from runner.backfill.offsets import Offsets, intersection, union
from runner.backfill.reader import FragmentRows
from runner.store import Store

FOLDER = "settled"
MAPS = "maps"
MIN_COMPRESSED = 1 << 14  # bytes
MAX_OBJECTS = 16  # of a column, before they become one

SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("version", pa.string()), ("skipped", pa.bool_())])


def to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    compression = "zstd" if table.nbytes > MIN_COMPRESSED else None
    with pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_bytes(data: bytes) -> pa.Table:
    return pa.ipc.open_file(data).read_all()


class SettledRows:
    """The keys of one column's rows that are done and NULL. Read when first asked for."""

    def __init__(self, store: Store, table: str, column: str, inputs: Sequence[str]) -> None:
        self._store = store
        self._inputs = tuple(inputs)
        self._column = column
        self._folder = f"{FOLDER}/{urllib.parse.quote(table, safe='')}/{urllib.parse.quote(column, safe='')}"
        self._known: _Known | None = None
        self._paths: set[str] | None = None

    def row_map(self, rows: FragmentRows, file: str, inputs: str, *, keep: bool = False) -> RowMap | None:
        """Which NULLs of a fragment's column are done, None where nothing is known of any. Reads their inputs, once.

        Args:
            file: the data file that holds the column; `inputs`: digest of those that hold its inputs.
            keep: keep what is found for the next time, as neither file ever changes.
        """
        path = f"{self._folder}/{MAPS}/{file.removesuffix('.lance')}-{inputs}.json"
        kept = self._store.get(path) if path in self._listed() else None
        if kept is not None:
            return RowMap.from_json(kept.decode())
        if not self._key_paths():
            return None
        found = self._find(rows)
        if found is not None and keep:
            self._store.put(path, found.to_json().encode())
        return found

    def forget(self, files: Collection[str]) -> None:
        """Drop what was kept of data files other than these."""
        stems = {file.removesuffix(".lance") for file in files}
        maps = [path for path in self._listed() if path.endswith(".json")]
        self._store.delete(path for path in maps if path.rsplit("/", 1)[1].rpartition("-")[0] not in stems)
        self._paths = None

    def _find(self, rows: FragmentRows) -> RowMap | None:
        known = self._load_known()
        if not len(known.keys):
            return None
        nulls = rows.matching(f"(`{self._column}` IS NULL)")
        at = find(known.keys, keys_of(rows, self._inputs, nulls))
        nulls, at = nulls[at >= 0], at[at >= 0]

        def of(is_skipped: bool) -> dict[str, Offsets]:
            chosen = known.skipped[at] == is_skipped
            versions = known.versions[at]
            sets = {str(version): nulls[chosen & (versions == version)] for version in np.unique(versions)}
            return {version: offsets for version, offsets in sets.items() if len(offsets)}

        return RowMap(rows.physical, of(False), of(True)) if len(nulls) else None

    def add(self, tables: Iterable[Any]) -> None:
        """Keep more rows. Only the holder of the column's lease adds."""
        whole = pa.concat_tables([SCHEMA.empty_table(), *tables])
        if not len(whole):
            return
        old = self._key_paths()
        merged = old if len(old) >= MAX_OBJECTS else []
        table = _newest(pa.concat_tables([*self._load(merged), whole]))
        order = max((int(path.rsplit("/", 1)[1].split("-")[0]) for path in old), default=0) + 1
        self._store.put(f"{self._folder}/{order:08d}-{uuid.uuid4().hex}.arrow", to_bytes(table))
        self._store.delete(merged)
        self._known = self._paths = None

    def _load_known(self) -> _Known:
        if self._known is None:
            table = _newest(pa.concat_tables([SCHEMA.empty_table(), *self._load(self._key_paths())]))
            versions = table.column("version").to_numpy(zero_copy_only=False).astype(str)
            self._known = _Known(_keys(table), versions, table.column("skipped").to_numpy(zero_copy_only=False).astype(bool))
        return self._known

    def _key_paths(self) -> list[str]:
        """Objects with keys, oldest first."""
        return sorted(path for path in self._listed() if path.endswith(".arrow"))

    def _listed(self) -> set[str]:
        """All objects; listed once, as many fragments are asked for in a row."""
        if self._paths is None:
            self._paths = {path for path, _ in self._store.objects(self._folder)}
        return self._paths

    def _load(self, paths: Iterable[str]) -> list[Any]:
        loaded = [self._store.get(path) for path in paths]
        return [from_bytes(data) for data in loaded if data is not None]


@dataclass(frozen=True)
class _Known:
    """Sorted keys, each once, and of each the function's version and whether the row was skipped."""

    keys: Keys
    versions: npt.NDArray[np.str_]
    skipped: npt.NDArray[np.bool_]


def _keys(table: Any) -> Keys:
    return np.frombuffer(b"".join(table.column("key").to_pylist()), KEY_TYPE)


def _newest(table: Any) -> Any:
    """Sorted by key, the last row of each key only."""
    keys = _keys(table)
    _, first_from_end = np.unique(keys[::-1], return_index=True)
    return table.take(pa.array(len(keys) - 1 - first_from_end))


def settled_keys(
    rows: FragmentRows, inputs: Sequence[str], version: str, nulls: Offsets, made: Offsets, skipped: Offsets
) -> pa.Table | None:
    """What is to be kept of a fragment's rows that were just computed and are NULL; None where there are none."""
    done = intersection(nulls, union(made, skipped))
    if not len(done):
        return None
    keys = [key.ljust(KEY_BYTES, b"\0") for key in keys_of(rows, inputs, done).tolist()]
    return _newest(pa.table([keys, [version] * len(done), np.isin(done, skipped)], schema=SCHEMA))
