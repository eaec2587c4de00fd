"""The tables of the benchmark: generated once, linked for every run, checked after it.

Also imported by the drivers (in the peers' environments), so it needs only numpy, pyarrow and Lance.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather

from bench.functions import DIMENSION

BATCH = 1_000
BLOB_BYTES = 10_240
TINY_ROWS = 1_000
OUTPUT = "out"


@dataclass(frozen=True)
class TableSpec:
    """A generated table: what its rows hold, how many there are, in how many fragments."""

    name: str
    rows: int
    fragments: int

    def scaled(self, divisor: int) -> TableSpec:
        """The same table with fewer rows."""
        return TableSpec(self.name, self.rows // divisor, self.fragments)

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.rows}-{self.fragments}"


def texts(start: int, rows: int, null_share: float) -> pa.Array:
    """Strings of 30 to 50 characters, some of them not ASCII."""
    rng = np.random.default_rng([1, start])
    lengths = rng.integers(30, 51, rows)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    letters = rng.integers(97, 123, int(offsets[-1]), dtype=np.uint8)
    plain = pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
    accented = pc.if_else(pa.array(rng.random(rows) < 0.05), pc.utf8_replace_slice(plain, 0, 1, "é"), plain)
    return pc.if_else(pa.array(rng.random(rows) < null_share), pa.scalar(None, pa.string()), accented)


def vectors(start: int, rows: int) -> pa.Array:
    values = np.random.default_rng([2, start]).standard_normal(rows * DIMENSION, dtype=np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), DIMENSION)


def blobs(start: int, rows: int) -> pa.Array:
    data = np.random.default_rng([3, start]).bytes(rows * BLOB_BYTES)
    offsets = np.arange(rows + 1, dtype=np.int32) * BLOB_BYTES
    return pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(data)])


def encoded(start: int, rows: int) -> pa.RecordBatch:
    """The same values in a column that Lance keeps as blobs, each apart."""
    batch = _numbered(start, blob=blobs(start, rows).cast(pa.large_binary()))
    kept = batch.schema.field("blob").with_metadata({"lance-encoding:blob": "true"})
    return batch.cast(batch.schema.set(1, kept))


def _numbered(start: int, **columns: pa.Array) -> pa.RecordBatch:
    rows = len(next(iter(columns.values())))
    return pa.record_batch({"seq": pa.array(np.arange(start, start + rows)), **columns})


MAKERS: dict[str, Callable[[int, int], pa.RecordBatch]] = {
    "text": lambda start, rows: _numbered(start, text=texts(start, rows, 0.001)),
    "full": lambda start, rows: _numbered(start, text=texts(start, rows, 0.0)),
    "vector": lambda start, rows: _numbered(start, vector=vectors(start, rows)),
    "blob": lambda start, rows: _numbered(start, blob=blobs(start, rows)),
    "encoded": encoded,
    "number": lambda start, rows: _numbered(start, text=texts(start, rows, 0.0)),
}


def _expect(batch: pa.RecordBatch, name: str) -> pa.Array:
    """The right output, made apart from the functions under test."""
    if name == "vector":
        values = np.asarray(batch.column("vector").flatten()).reshape(-1, DIMENSION)
        return pa.array(np.linalg.norm(values.astype(np.float64), axis=1).astype(np.float32))
    if name in ("blob", "encoded"):
        return pa.array([hashlib.sha256(blob.as_buffer()).digest() for blob in batch.column("blob")], pa.binary())
    if name == "number":
        return pc.add(pc.multiply(batch.column("seq"), 3), 1)
    lengths = [None if text is None else len(text) for text in batch.column("text").to_pylist()]
    return pa.array(lengths, pa.int32())


def _batches(spec: TableSpec, expected: list[pa.Array]) -> Iterator[pa.RecordBatch]:
    for start in range(0, spec.rows, BATCH):
        batch = MAKERS[spec.name](start, min(BATCH, spec.rows - start))
        expected.append(_expect(batch, spec.name))
        yield batch


def generate(spec: TableSpec, root: Path) -> Path:
    """Make the table, a tiny one for warming up and the right output; reuse them where they exist."""
    folder = root / spec.folder
    if (folder / "expected.feather").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "db").mkdir(parents=True)
    expected: list[pa.Array] = []
    schema = MAKERS[spec.name](0, 1).schema
    lance.write_dataset(
        pa.RecordBatchReader.from_batches(schema, _batches(spec, expected)),
        folder / "db" / "t.lance",
        max_rows_per_file=spec.rows // spec.fragments,
        data_storage_version="2.1" if spec.name == "encoded" else None,  # the last one with blobs of this encoding
    )
    lance.write_dataset(pa.Table.from_batches([MAKERS["text"](0, TINY_ROWS)]), folder / "db" / "tiny.lance")
    feather.write_feather(pa.table({OUTPUT: pa.chunked_array(expected)}), folder / "expected.feather")
    return folder


def link(folder: Path, target: Path) -> None:
    """A copy of the database whose (immutable) data files are hard links: same page cache, no writing."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder / "db", target, copy_function=os.link)


def expected_values(path: Path) -> pa.Array:
    return feather.read_table(path, memory_map=False).column(OUTPUT).combine_chunks()


def prefill(uri: str, values: pa.Array) -> None:
    """Put `values` in the (all NULL) column `out` with plain Lance, one file a fragment."""
    dataset = lance.dataset(uri)
    schema = pa.schema([dataset.schema.field(OUTPUT).remove_metadata()])
    groups, start = [], 0
    for fragment in dataset.get_fragments():
        name = f"prefill-{fragment.fragment_id}.lance"
        part = values.slice(start, fragment.physical_rows).cast(schema.field(0).type)
        with lance.file.LanceFileWriter(f"{uri}/data/{name}", schema, version=dataset.data_storage_version) as writer:
            writer.write_batch(pa.record_batch([part], schema=schema))
        data_file = lance.fragment.DataFile.create(dataset, name)
        groups.append(lance.LanceOperation.DataReplacementGroup(fragment.fragment_id, data_file))
        start += fragment.physical_rows
    operation = lance.LanceOperation.DataReplacement(groups)
    lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)


def with_holes(values: pa.Array, count: int) -> pa.Array:
    """`values` with `count` of them NULL, scattered evenly at random."""
    holes = np.zeros(len(values), bool)
    holes[np.random.default_rng(4).choice(len(values), count, replace=False)] = True
    return pc.if_else(pa.array(holes), pa.scalar(None, values.type), values)


def append(uri: str, rows: int) -> None:
    """Append one fragment of new rows, their output column missing."""
    dataset = lance.dataset(uri)
    lance.write_dataset(pa.Table.from_batches([MAKERS["full"](dataset.count_rows(), rows)]), uri, mode="append")


def check(uri: Path, expected: pa.Array, appended: int = 0) -> str | None:
    """Compare order and every value with what is right; what is wrong, in words, or None."""
    dataset = lance.dataset(str(uri))
    if OUTPUT not in dataset.schema.names:
        return "the column is missing"
    table = dataset.to_table(columns=["seq", OUTPUT])
    if appended:
        more = _expect(MAKERS["full"](len(expected), appended), "full")
        expected = pa.concat_arrays([expected, more.cast(expected.type)])
    if not np.array_equal(table.column("seq").to_numpy(), np.arange(len(expected))):
        return "rows are lost, doubled or in another order"
    wrong = _differences(table.column(OUTPUT).combine_chunks(), expected)
    return f"{wrong} wrong values" if wrong else None


def _differences(found: Any, expected: pa.Array) -> int:
    found = found.cast(expected.type)
    if pa.types.is_floating(expected.type):
        return int((~np.isclose(found.to_numpy(zero_copy_only=False), expected.to_numpy(), rtol=1e-5)).sum())
    if found.equals(expected):
        return 0
    same = pc.fill_null(pc.equal(found, expected), pc.and_(found.is_null(), expected.is_null()))
    return int(pc.sum(pc.invert(same)).as_py())
