"""Blob columns, of which a scan gives positions and sizes only: as bytes, or as files that read what is asked of them."""

from __future__ import annotations

import inspect
import io
import typing
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa

from runner.backfill.offsets import Offsets
from runner.backfill.reader import CHUNK_BYTES, FIRST_CHUNK_ROWS, FragmentRows, ahead, read
from runner.backfill.values import python_values

_AS_FILE = "\0file"  # behind a column's name: row addresses, to open files of


def is_blob(field: Any) -> bool:
    """Whether a column is stored as blobs, in either of Lance's two ways."""
    is_legacy = (field.metadata or {}).get(b"lance-encoding:blob") == b"true"
    return is_legacy or getattr(field.type, "extension_name", None) == "lance.blob.v2"


def has_blobs(schema: Any, keys: Sequence[str]) -> bool:
    """Whether one of some inputs is a blob column."""
    return any(is_blob(schema.field(key.removesuffix(_AS_FILE))) for key in keys)


def takes_file(annotation: Any) -> bool:
    """Whether a parameter is a file (``lance.BlobFile``, ``io.IOBase``, ``typing.BinaryIO``)."""
    if annotation in (typing.BinaryIO, typing.IO[bytes]):
        return True
    return inspect.isclass(annotation) and issubclass(annotation, io.IOBase)


def takes_blob(annotation: Any, field: Any) -> bool | None:
    """Whether a parameter can be fed from a column, where one of them is of blobs; None where neither is."""
    if is_blob(field):
        return takes_file(annotation) or annotation in (bytes, Any)
    return False if takes_file(annotation) else None


def input_keys(columns: Sequence[str], annotations: Sequence[Any]) -> list[str]:
    """What a function reads of its input columns: their values, or where a parameter is a file, the addresses of the rows."""
    if len(columns) != len(annotations):  # a record batch
        return list(columns)
    return [f"{name}{_AS_FILE}" if takes_file(kind) else name for name, kind in zip(columns, annotations, strict=True)]


def row_values(batch: pa.RecordBatch, annotations: Sequence[Any], open_blobs: BlobOpener | None) -> list[Any]:
    """One sequence of values for each parameter, files opened."""
    made = []
    for name, array, annotation in zip(batch.schema.names, batch.columns, annotations, strict=True):
        if name.endswith(_AS_FILE):
            assert open_blobs is not None
            made.append(open_blobs(name.removesuffix(_AS_FILE), array))
        else:
            made.append(python_values(array, annotation))
    return made


class BlobOpener:
    """Opens the blobs of a column at row addresses.

    Attributes:
        dataset: the table, at the version that the addresses are of.
    """

    def __init__(self, dataset: Any = None) -> None:
        self.dataset = dataset

    def __call__(self, name: str, addresses: Any) -> list[Any]:
        """One file for each address, None for a NULL."""
        found = iter(self.dataset.take_blobs(name, addresses=addresses.drop_null().to_pylist()) if len(addresses) else ())
        return [next(found) if address.is_valid else None for address in addresses]


def input_batches(
    rows: FragmentRows, dataset: Any, keys: Sequence[str], offsets: Offsets, *, multiple_of: int | None = None
) -> Generator[tuple[Offsets, pa.RecordBatch], None, None]:
    """Input batches of chosen rows, read ahead in a thread; a fragment that is one batch anyway is not worth the thread."""
    if has_blobs(dataset.schema, keys):
        return ahead(read_with_blobs(rows, dataset, keys, offsets, multiple_of=multiple_of))
    batches = read(rows, keys, offsets, multiple_of=multiple_of)
    return ahead(batches) if len(offsets) > FIRST_CHUNK_ROWS else batches


def read_with_blobs(
    rows: FragmentRows, dataset: Any, keys: Sequence[str], offsets: Offsets, *, multiple_of: int | None = None
) -> Generator[tuple[Offsets, pa.RecordBatch], None, None]:
    """`reader.read` for inputs of which some are blobs: batches of about `CHUNK_BYTES` of blobs, of one row at least."""
    source = _Source(rows, dataset, keys)
    step = multiple_of or 1
    window = max(FIRST_CHUNK_ROWS // step, 1) * step
    for start in range(0, len(offsets), window):
        yield from source.window(offsets[start : start + window], step)


class _Source:
    """The inputs of one fragment, some of them blobs."""

    def __init__(self, rows: FragmentRows, dataset: Any, keys: Sequence[str]) -> None:
        self._rows = rows
        self._dataset = dataset
        self._keys = keys
        names = list(dict.fromkeys(key.removesuffix(_AS_FILE) for key in keys))
        self._blobs = [name for name in names if is_blob(dataset.schema.field(name))]
        self._plain = [name for name in names if name not in self._blobs]
        self._base = rows.fragment.fragment_id << 32

    def window(self, offsets: Offsets, step: int) -> Iterator[tuple[Offsets, pa.RecordBatch]]:
        addresses = [self._base + int(offset) for offset in offsets]
        sizes = {name: self._sizes(name, addresses) for name in self._blobs}
        plain = self._read_plain(offsets)
        read_whole = [name for name in self._blobs if name in self._keys]
        weights = [sum(sizes[name][row] or 0 for name in read_whole) for row in range(len(offsets))]
        for start, stop in _cuts(weights, step):
            columns = {name: plain[name][start:stop] for name in self._plain}
            for name in self._blobs:
                chosen = [address if sizes[name][row] is not None else None for row, address in enumerate(addresses)][start:stop]
                columns[f"{name}{_AS_FILE}"] = pa.array(chosen, pa.uint64())
                if name in read_whole:
                    columns[name] = self._bytes(name, addresses[start:stop])
            yield offsets[start:stop], pa.record_batch([columns[key] for key in self._keys], names=list(self._keys))

    def _sizes(self, name: str, addresses: list[int]) -> list[int | None]:
        return [None if file is None else file.size() for file in self._dataset.take_blobs(name, addresses=addresses)]

    def _bytes(self, name: str, addresses: list[int]) -> Any:
        found = dict(self._dataset.read_blobs(name, addresses=addresses))
        return pa.array([found[address] for address in addresses], pa.large_binary())

    def _read_plain(self, offsets: Offsets) -> dict[str, Any]:
        if not self._plain:
            return {}
        batches = [batch for _, batch in read(self._rows, self._plain, offsets)]
        table = pa.Table.from_batches(batches).combine_chunks()
        return {name: table.column(name).chunk(0) for name in self._plain}


def _cuts(weights: Sequence[int], step: int) -> Iterator[tuple[int, int]]:
    """Spans of a multiple of `step` rows and about `CHUNK_BYTES`."""
    start = weight = 0
    for row, size in enumerate(weights):
        if weight and weight + size > CHUNK_BYTES and (row - start) % step == 0:
            yield start, row
            start, weight = row, 0
        weight += size
    yield start, len(weights)
