"""Blob columns as inputs: whole, or as files that read what is asked of them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import lance
import pyarrow as pa
import pytest

from runner import Connection, Context, Table, udf
from runner.backfill import blobs
from runner.errors import BackfillFailed, BadInput
from tests.e2e.helpers import by_x, calls, log_call

ROWS = 60
LEGACY = {"lance-encoding:blob": "true"}


def content(x: int) -> bytes | None:
    """NULL, empty, and other sizes up to 3 KiB."""
    if x % 10 == 3:
        return None
    return b"" if x % 10 == 4 else bytes([x]) * (50 * x + 1)


def legacy_array(values: list[bytes | None]) -> tuple[pa.Field, Any]:
    return pa.field("data", pa.large_binary(), metadata=LEGACY), pa.array(values, pa.large_binary())


def v2_array(values: list[bytes | None]) -> tuple[pa.Field, Any]:
    return lance.blob_field("data"), lance.blob_array(values)


STORED = pytest.mark.parametrize(
    ("stored", "version"), [(legacy_array, "2.0"), (legacy_array, "2.1"), (v2_array, "2.2")], ids=["2.0", "2.1", "2.2"]
)


def make(db: Connection, stored: Callable[[list[bytes | None]], tuple[pa.Field, Any]], version: str) -> Table:
    """Rows of ``x`` and ``data`` in two fragments, of which every seventh is deleted."""
    field, array = stored([content(x) for x in range(ROWS)])
    schema = pa.schema([pa.field("x", pa.int64()), field])
    data = pa.table([pa.array(range(ROWS), pa.int64()), array], schema=schema)
    made = lance.write_dataset(data, f"{db.uri}/t.lance", max_rows_per_file=ROWS // 2, data_storage_version=version)
    made.delete("x % 7 = 0")
    return db.open_table("t")


LIVE = [x for x in range(ROWS) if x % 7]


@udf
def size(data: bytes) -> int:
    return len(data) * 1000 + sum(data[:3])


@udf
def last(x: int, data: lance.BlobFile) -> int:
    data.seek(max(data.size() - 2, 0))
    return 1000 * x + sum(data.read())


@udf
def either(data: io.IOBase | None) -> int:
    return -1 if data is None else len(data.read())


@udf
def head(data: BinaryIO) -> bytes:
    return data.read(2)


@udf(data_type=pa.int64())
def sizes(data: pa.Array) -> pa.Array:
    assert data.type == pa.large_binary()
    return pa.array([None if value is None else len(value) for value in data.to_pylist()], pa.int64())


@STORED
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (size, lambda x, data: None if data is None else len(data) * 1000 + sum(data[:3])),
        (last, lambda x, data: None if data is None else 1000 * x + sum(data[-2:])),
        (either, lambda x, data: -1 if data is None else len(data)),
        (head, lambda x, data: None if data is None else data[:2]),
        (sizes, lambda x, data: None if data is None else len(data)),
    ],
    ids=["bytes", "BlobFile", "optional IOBase", "BinaryIO", "array"],
)
def test_a_blob_comes_as_it_is_annotated(inline: Connection, function: Any, expected: Any, stored: Any, version: str) -> None:
    table = make(inline, stored, version)
    table.add_columns({"y": function})
    assert table.backfill("y", progress=False).rows_done == len(LIVE)
    assert by_x(table, "y") == {x: expected(x, content(x)) for x in LIVE}


def test_one_blob_column_as_bytes_and_as_a_file_at_once(inline: Connection) -> None:
    table = make(inline, legacy_array, "2.1")

    @udf(input_columns=["data", "data"])
    def both(whole: bytes, file: BinaryIO) -> bool:
        return file.read() == whole

    table.add_columns({"y": both})
    table.backfill("y", progress=False)
    assert by_x(table, "y") == {x: None if content(x) is None else True for x in LIVE}


def test_a_batch_of_all_columns_holds_the_bytes(inline: Connection) -> None:
    table = make(inline, legacy_array, "2.1")

    @udf(data_type=pa.int64(), batch_size=7)
    def total(rows: pa.RecordBatch) -> pa.Array:
        assert rows.schema.names == ["x", "data"]
        assert rows.num_rows <= 7
        return pa.array([len(data or b"") + x for x, data in zip(rows["x"].to_pylist(), rows["data"].to_pylist(), strict=True)])

    table.add_columns({"y": total})
    table.backfill("y", progress=False)
    assert by_x(table, "y") == {x: len(content(x) or b"") + x for x in LIVE}


def test_only_what_is_chosen_is_read_a_few_megabytes_at_a_time(inline: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "CHUNK_BYTES", 5000)
    read: list[list[int]] = []
    original = lance.LanceDataset.read_blobs

    def read_blobs(self: Any, name: str, **options: Any) -> Any:
        read.append(options["addresses"])
        return original(self, name, **options)

    monkeypatch.setattr(lance.LanceDataset, "read_blobs", read_blobs)
    table = make(inline, legacy_array, "2.1")
    table.add_columns({"y": size})
    assert table.backfill("y", where="x >= 20 AND x < 40", progress=False).rows_done == 17
    chosen = [x for x in LIVE if 20 <= x < 40]
    seen = [(address >> 32) * 30 + (address & 0xFFFFFFFF) for chunk in read for address in chunk]
    assert sorted(set(seen)) == chosen
    assert len(seen) < 1.5 * len(chosen)  # those that gave NULL are read once more, for the hash of their inputs
    for chunk in read:
        total = sum(len(content((address >> 32) * 30 + (address & 0xFFFFFFFF)) or b"") for address in chunk)
        assert total <= 5000
    assert len(read) >= 4


def test_a_file_in_a_coroutine_and_in_a_process_of_its_own(db: Connection, ray_session: Context, log: Path) -> None:
    table = make(db, legacy_array, "2.1")
    path = str(log)

    @udf
    async def awaited(data: BinaryIO) -> int:
        return len(data.read())

    @udf(on_error="skip")
    def deadly(x: int, data: BinaryIO) -> int:
        import os

        log_call(path, x)
        if x == 12:
            os._exit(4)
        return x + len(data.read())

    table.add_columns({"y": awaited, "z": deadly})
    table.backfill("y", progress=False)
    assert by_x(table, "y") == {x: None if content(x) is None else len(content(x) or b"") for x in LIVE}
    table.backfill("z", progress=False)
    assert by_x(table, "z") == {x: None if x == 12 or content(x) is None else x + len(content(x) or b"") for x in LIVE}
    assert [(error.row_address, error.message) for error in table.errors("z")] == [(12, "the worker died: exit code 4")]
    assert Counter(calls(log))[12] == 4


def test_a_parameter_that_cannot_take_the_column_is_refused(inline: Connection) -> None:
    table = make(inline, legacy_array, "2.1")

    @udf
    def text(data: str) -> int:
        return len(data)

    @udf(input_columns=["x"])
    def file_of_a_number(x: lance.BlobFile) -> int:
        return 0

    with pytest.raises(BadInput, match="text takes str from 'data', which is large_binary"):
        table.add_columns({"y": text})
    with pytest.raises(BadInput, match="file_of_a_number takes BlobFile from 'x', which is int64"):
        table.add_columns({"y": file_of_a_number})
    assert table.schema.names == ["x", "data"]


def test_a_function_that_raises_on_a_blob_names_its_row(inline: Connection) -> None:
    table = make(inline, legacy_array, "2.1")

    @udf
    def fragile(data: BinaryIO) -> int:
        if data.read(1) == bytes([41]):
            raise ValueError("bad image")
        return 1

    table.add_columns({"y": fragile})
    with pytest.raises(BackfillFailed, match=r"ValueError at row 11 of fragment 1 .*: bad image"):
        table.backfill("y", progress=False)
