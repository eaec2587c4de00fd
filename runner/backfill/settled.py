"""Rows that are done and NULL: their function returned NULL, or the error policy skipped them.

In a column file that the runner wrote, the file itself tells. A compaction merges such files and an update copies rows, and
only values survive either. So the keys of these rows' inputs (see `input_hash`) are kept with the function's version, in
``_runner/settled/<table>/<column>/``. A NULL in a file of Lance's own counts as done where its inputs' key is there: it stays
done wherever the row goes, and is computed anew once its inputs are others.
"""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from runner.backfill.column_file import RowMap
from runner.backfill.input_hash import KEY_BYTES, keys_of
from runner.backfill.offsets import Offsets, intersection
from runner.backfill.reader import FragmentRows
from runner.store import Store

FOLDER = "settled"
MAX_OBJECTS = 16  # of a column, before they become one

SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("version", pa.string()), ("skipped", pa.bool_())])


def table_of(keys: Sequence[bytes], version: str, skipped: Sequence[bool]) -> pa.Table:
    """What is kept of some rows; equal keys once."""
    found = dict(zip(keys, skipped, strict=True))
    return pa.table([list(found), [version] * len(found), list(found.values())], schema=SCHEMA)


def to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
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
        self._known: dict[bytes, tuple[str, bool]] | None = None

    def row_map(self, rows: FragmentRows) -> RowMap | None:
        """Which NULLs of a fragment's column are done, None where nothing is known of any. Reads their inputs."""
        if not self._keys():
            return None
        nulls = rows.matching(f"(`{self._column}` IS NULL)")
        found = [self._keys().get(key) for key in keys_of(rows, self._inputs, nulls)]
        made: dict[str, list[int]] = {}
        skipped: dict[str, list[int]] = {}
        for offset, of in zip(nulls.tolist(), found, strict=True):
            if of is not None:
                (skipped if of[1] else made).setdefault(of[0], []).append(offset)

        def packed(sets: dict[str, list[int]]) -> dict[str, Offsets]:
            return {version: np.array(offsets, np.uint32) for version, offsets in sets.items()}

        return RowMap(rows.physical, packed(made), packed(skipped)) if made or skipped else None

    def add(self, tables: Iterable[Any]) -> None:
        """Keep more rows. Only the holder of the column's lease adds."""
        whole = pa.concat_tables([SCHEMA.empty_table(), *tables])
        if not len(whole):
            return
        old = [path for path, _ in self._store.objects(self._folder)]
        merged = old if len(old) >= MAX_OBJECTS else []
        whole = pa.concat_tables([*self._load(merged), whole])
        newest = {row["key"]: row for row in whole.to_pylist()} if merged else None
        table = pa.Table.from_pylist(list(newest.values()), SCHEMA) if newest is not None else whole
        order = max((int(path.rsplit("/", 1)[1].split("-")[0]) for path in old), default=0) + 1
        self._store.put(f"{self._folder}/{order:08d}-{uuid.uuid4().hex}.arrow", to_bytes(table))
        self._store.delete(merged)
        self._known = None

    def _keys(self) -> dict[bytes, tuple[str, bool]]:
        if self._known is None:
            paths = sorted(path for path, _ in self._store.objects(self._folder))
            columns = [table.to_pydict() for table in self._load(paths)]
            self._known = {
                key: (version, skipped)
                for rows in columns
                for key, version, skipped in zip(rows["key"], rows["version"], rows["skipped"], strict=True)
            }
        return self._known

    def _load(self, paths: Iterable[str]) -> list[Any]:
        loaded = [self._store.get(path) for path in paths]
        return [from_bytes(data) for data in loaded if data is not None]


def settled_keys(
    rows: FragmentRows, inputs: Sequence[str], version: str, nulls: Offsets, made: Offsets, skipped: Offsets
) -> pa.Table | None:
    """What is to be kept of a fragment's rows that were just computed and are NULL; None where there are none."""
    done = intersection(nulls, np.union1d(made, skipped).astype(np.uint32))
    if not len(done):
        return None
    is_skipped = np.isin(done, skipped)
    return table_of(keys_of(rows, inputs, done), version, is_skipped.tolist())
