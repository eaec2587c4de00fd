from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from runner.backfill.input_hash import KEY_BYTES, find, row_keys

COLUMNS = [
    pa.array([1, 2, None, 1, 0], pa.int64()),
    pa.array([1.5, float("nan"), None, 1.5, 0.0], pa.float32()),
    pa.array([True, False, None, True, False]),
    pa.array(["a", "", None, "a", "b"]),
    pa.array([b"\x00", b"", None, b"\x00", b"\x00\x00"], pa.large_binary()),
    pa.array([[1, 2], [2, 1], None, [1, 2], [0, 0]], pa.list_(pa.int32(), 2)),
    pa.array([[1], [], None, [1], [0]], pa.list_(pa.int8())),
    pa.array([{"a": 1}, {"a": None}, None, {"a": 1}, {"a": 0}]),
    pa.array([dt.date(2026, 1, 1), dt.date(2026, 1, 2), None, dt.date(2026, 1, 1), dt.date(1970, 1, 1)]),
    pa.array(["a", "b", None, "a", "c"]).dictionary_encode(),
    pa.array([{"k": [1]}, {"k": []}, None, {"k": [1]}, {"k": None}]),
]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
def test_rows_have_the_same_key_exactly_where_they_are_the_same(column: Any) -> None:
    keys = row_keys([column]).tolist()
    assert keys[0] == keys[3]
    assert len(set(keys)) == len(set(map(repr, column.to_pylist())))


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: str(column.type))
def test_a_key_depends_on_its_row_alone(column: Any) -> None:
    keys = row_keys([column])
    padded = pa.concat_arrays([column.slice(2), column]).slice(3)
    assert row_keys([padded]).tolist() == keys.tolist()
    assert row_keys([column.take(pa.array([4, 2, 0]))]).tolist() == keys[[4, 2, 0]].tolist()


def test_columns_do_not_run_into_each_other() -> None:
    def key(*texts: str | None) -> bytes:
        return bytes(row_keys([pa.array([text], pa.string()) for text in texts])[0])

    keys = [key("ab", "c"), key("a", "bc"), key("c", "ab"), key("abc", None), key(None, "abc"), key("abc", "")]
    assert len(set(keys)) == len(keys)
    assert max(map(len, keys)) == KEY_BYTES


def test_find() -> None:
    keys = np.sort(row_keys([pa.array(range(1000))]))
    asked = row_keys([pa.array([5, 2000, 999, -1])])
    at = find(keys, asked)
    assert at[[1, 3]].tolist() == [-1, -1]
    assert keys[at[[0, 2]]].tolist() == asked[[0, 2]].tolist()
    assert find(keys[:0], asked).tolist() == [-1] * 4
