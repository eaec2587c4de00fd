"""A hash of the inputs of each row: tells that two rows feed a function the same values, wherever the rows lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from runner.backfill.blobs import has_blobs, read_with_blobs
from runner.backfill.offsets import Offsets
from runner.backfill.reader import FragmentRows, read

KEY_BYTES = 16
KEY_TYPE = np.dtype(f"S{KEY_BYTES}")  # numpy drops zeros at the end; keys are all of one length, so none become equal by it

Keys = npt.NDArray[np.bytes_]

_NULL, _VALUE = b"\x00", b"\x01"


def row_keys(arrays: Sequence[Any]) -> Keys:
    """A key of 16 bytes for each row of some arrays of the same length. Equal rows have equal keys, whatever lies around them."""
    cells = [_cells(array) for array in arrays]
    rows = zip(*cells, strict=True)
    return np.array([hashlib.blake2b(b"".join(row), digest_size=KEY_BYTES).digest() for row in rows], KEY_TYPE)


def keys_of(rows: FragmentRows, inputs: Sequence[str], offsets: Offsets, *, row_ids: bool = False) -> Keys:
    """The keys of chosen rows of a fragment.

    Args:
        row_ids: whether a row's stable id is part of its key, so that it is found again only as itself.
    """
    found = [np.empty(0, KEY_TYPE)]
    for at, batch in _read(rows, list(dict.fromkeys(inputs)), offsets):
        ids = [rows.row_ids()[rows.positions(at)]] if row_ids else []
        found.append(row_keys([*(batch.column(name) for name in inputs), *map(pa.array, ids)]))
    return np.concatenate(found)


def _read(rows: FragmentRows, names: list[str], offsets: Offsets) -> Iterator[tuple[Offsets, Any]]:
    """The inputs, blobs by their content: a plain read gives the places where they lie, which say nothing of it."""
    dataset = rows.fragment._ds
    return read_with_blobs(rows, dataset, names, offsets) if has_blobs(dataset.schema, names) else read(rows, names, offsets)


def find(keys: Keys, asked: Keys) -> npt.NDArray[np.int64]:
    """Positions of keys among sorted `keys`, -1 for one that is not there."""
    if not len(keys):
        return np.full(len(asked), -1)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[at] == asked, at, -1)


def _cells(array: Any) -> list[bytes]:
    """Each value of an array as bytes that say where they end."""
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    matrix = _matrix(array)
    if matrix is not None:
        width = matrix.shape[1]
        head = np.frombuffer(_VALUE + width.to_bytes(8, "little"), np.uint8)
        blob = np.hstack([np.broadcast_to(head, (len(matrix), len(head))), matrix]).tobytes()
        step = width + len(head)
        found = [blob[start : start + step] for start in range(0, len(blob), step)]
        for row in np.flatnonzero(array.is_null()) if array.null_count else ():
            found[row] = _NULL
        return found
    is_binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    values = array.to_pylist()
    encoded = values if is_binary else [None if value is None else repr(value).encode() for value in values]
    return [_NULL if value is None else _VALUE + len(value).to_bytes(8, "little") + value for value in encoded]


def _matrix(array: Any) -> Any:
    """The values as rows of bytes, where every value has as many; None for other types."""
    if pa.types.is_fixed_size_list(array.type):
        inner = array.values.slice(array.offset * array.type.list_size, len(array) * array.type.list_size)
        if inner.null_count or not len(array):
            return None
        flat = _matrix(inner)
        return None if flat is None else flat.reshape(len(array), -1)
    try:
        width, rest = divmod(array.type.bit_width, 8)
    except ValueError:
        return None
    if rest or pa.types.is_nested(array.type) or pa.types.is_dictionary(array.type) or array.buffers()[1] is None:
        return None
    data = np.frombuffer(array.buffers()[1], np.uint8)
    return data[array.offset * width : (array.offset + len(array)) * width].reshape(len(array), width)
