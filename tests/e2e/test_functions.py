"""Kinds of functions and types of values."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from runner import Connection, udf
from tests.e2e.helpers import calls, log_call, make_table, values

EPOCH = dt.datetime(2026, 1, 2, 3, 4, 5, 678901)


@dataclass
class Box:
    width: int
    names: list[str]


class Pair(NamedTuple):
    first: str
    second: float


def to_str(x: int) -> str:
    return f"é{x}"


def to_bytes(x: int) -> bytes:
    return bytes([x, 0, 255])


def to_bool(x: int) -> bool:
    return x > 1


def to_int(x: int) -> int:
    return x << 40


def to_float(x: int) -> float:
    return x / 4


def to_list(x: int) -> list[int]:
    return list(range(x))


def to_nested_list(x: int) -> list[list[str]]:
    return [[str(x)] * x]


def to_datetime(x: int) -> dt.datetime:
    return EPOCH + dt.timedelta(days=x)


def to_date(x: int) -> dt.date:
    return dt.date(2026, 1, 1 + x)


def to_time(x: int) -> dt.time:
    return dt.time(x, 30, 0, 5)


def to_timedelta(x: int) -> dt.timedelta:
    return dt.timedelta(seconds=x, microseconds=7)


def to_optional(x: int) -> Optional[str]:  # noqa: UP045 - the older spelling is taken too
    return None if x == 1 else str(x)


def to_numpy_float(x: int) -> np.float32:
    return np.float32(x) / 2


def to_numpy_int(x: int) -> np.uint8:
    return np.uint8(200 + x)


def to_struct(x: int) -> Box:
    return Box(x, [f"n{x}"])


def to_named_tuple(x: int) -> Pair:
    return Pair(str(x), -x)


@pytest.mark.parametrize(
    ("function", "data_type", "expected"),
    [
        (to_str, pa.string(), ["é0", "é1", "é2"]),
        (to_bytes, pa.binary(), [b"\0\0\xff", b"\1\0\xff", b"\2\0\xff"]),
        (to_bool, pa.bool_(), [False, False, True]),
        (to_int, pa.int64(), [0, 1 << 40, 2 << 40]),
        (to_float, pa.float64(), [0.0, 0.25, 0.5]),
        (to_list, pa.list_(pa.int64()), [[], [0], [0, 1]]),
        (to_nested_list, pa.list_(pa.list_(pa.string())), [[[]], [["1"]], [["2", "2"]]]),
        (to_datetime, pa.timestamp("us"), [EPOCH + dt.timedelta(days=i) for i in range(3)]),
        (to_date, pa.date32(), [dt.date(2026, 1, day) for day in (1, 2, 3)]),
        (to_time, pa.time64("us"), [dt.time(hour, 30, 0, 5) for hour in range(3)]),
        (to_timedelta, pa.duration("us"), [dt.timedelta(seconds=i, microseconds=7) for i in range(3)]),
        (to_optional, pa.string(), ["0", None, "2"]),
        (to_numpy_float, pa.float32(), [0.0, 0.5, 1.0]),
        (to_numpy_int, pa.uint8(), [200, 201, 202]),
        (
            to_struct,
            pa.struct([pa.field("width", pa.int64()), pa.field("names", pa.list_(pa.string()))]),
            [{"width": i, "names": [f"n{i}"]} for i in range(3)],
        ),
        (
            to_named_tuple,
            pa.struct([pa.field("first", pa.string()), pa.field("second", pa.float64())]),
            [{"first": str(i), "second": -float(i)} for i in range(3)],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_output_types_by_annotation(
    inline: Connection, function: Callable[[int], Any], data_type: pa.DataType, expected: list[Any]
) -> None:
    table = make_table(inline, 3)
    table.add_columns({"y": udf(function)})
    assert table.schema.field("y").type == data_type
    assert table.backfill("y").rows_done == 3
    assert values(table, "y") == expected


def name_of(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}:{value}"


def of_str(value: str) -> str:
    return name_of(value)


def of_bytes(value: bytes) -> str:
    return name_of(value)


def of_bool(value: bool) -> str:
    return name_of(value)


def of_float(value: float) -> str:
    return name_of(value)


def of_list(value: list[int]) -> str:
    return name_of(value)


def of_datetime(value: dt.datetime) -> str:
    return name_of(value)


def of_dict(value: dict[str, int]) -> str:
    return name_of(value)


@pytest.mark.parametrize(
    ("function", "array", "expected"),
    [
        (of_str, pa.array(["a"]), "builtins.str:a"),
        (of_str, pa.array(["a"]).dictionary_encode(), "builtins.str:a"),
        (of_str, pa.array(["a"], pa.large_string()), "builtins.str:a"),
        (of_bytes, pa.array([b"a"]), "builtins.bytes:b'a'"),
        (of_bool, pa.array([True]), "builtins.bool:True"),
        (of_float, pa.array([0.5], pa.float32()), "builtins.float:0.5"),
        (of_list, pa.array([[1, 2]]), "builtins.list:[1, 2]"),
        (of_datetime, pa.array([EPOCH], pa.timestamp("us")), f"datetime.datetime:{EPOCH}"),
        (of_dict, pa.array([{"a": 1}]), "builtins.dict:{'a': 1}"),
    ],
)
def test_input_types(inline: Connection, function: Callable[[Any], str], array: pa.Array, expected: str) -> None:
    table = make_table(inline, data=pa.table({"value": array}))
    table.add_columns({"y": udf(function)})
    table.backfill("y")
    assert values(table, "y") == [expected]


def test_fixed_size_vectors(inline: Connection) -> None:
    @udf(data_type=pa.list_(pa.float32(), 3))
    def embed(x: int) -> npt.NDArray[np.float32]:
        return np.full(3, x, np.float32)

    @udf
    def norm(vector: np.ndarray) -> float:
        return float(np.linalg.norm(vector))

    table = make_table(inline, 4)
    table.add_columns({"vector": embed})
    table.backfill("vector")
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    assert values(table, "vector") == [[float(i)] * 3 for i in range(4)]
    table.add_columns({"norm": norm})
    table.backfill("norm")
    assert values(table, "norm") == pytest.approx([i * 3**0.5 for i in range(4)])


def test_fixed_size_vectors_partly_filled(inline: Connection) -> None:
    @udf(data_type=pa.list_(pa.float32(), 2))
    def embed(x: int) -> list[float]:
        return [x, -x]

    table = make_table(inline, 10)
    table.add_columns({"vector": embed})
    table.backfill("vector", where="x % 3 = 0")
    assert values(table, "vector") == [[i, -i] if i % 3 == 0 else None for i in range(10)]
    table.backfill("vector")
    assert values(table, "vector") == [[i, -i] for i in range(10)]


def test_struct_and_list_partly_filled(inline: Connection) -> None:
    table = make_table(inline, 10)
    table.add_columns({"box": udf(to_struct)})
    table.backfill("box", where="x >= 5")
    table.backfill("box", where="x = 2")
    filled = [2, 5, 6, 7, 8, 9]
    assert values(table, "box") == [{"width": i, "names": [f"n{i}"]} if i in filled else None for i in range(10)]


def test_arrow_function(inline: Connection) -> None:
    @udf(data_type=pa.int32())
    def length(s: pa.Array) -> pa.Array:
        return pc.utf8_length(s)

    table = make_table(inline, 1000)
    table.add_columns({"length": length})
    assert table.backfill("length").bytes_read > 0
    assert values(table, "length") == [len(f"row {i}") for i in range(1000)]


def test_arrow_function_of_two_columns(inline: Connection) -> None:
    @udf(data_type=pa.string())
    def joined(s: pa.Array, x: pa.Array) -> pa.Array:
        return pc.binary_join_element_wise(s, x.cast(pa.string()), "/")

    table = make_table(inline, 3)
    table.add_columns({"joined": joined})
    table.backfill("joined")
    assert values(table, "joined") == ["row 0/0", "row 1/1", "row 2/2"]


def test_record_batch_function(inline: Connection) -> None:
    @udf(data_type=pa.string())
    def columns(batch: pa.RecordBatch) -> pa.Array:
        return pa.array([f"{','.join(batch.schema.names)}:{x}" for x in batch.column("x").to_pylist()])

    table = make_table(inline, 3)
    table.add_columns({"all": columns, "some": (columns, ["x"])})
    table.backfill("all")
    table.backfill("some")
    assert values(table, "all") == ["x,s:0", "x,s:1", "x,s:2"]
    assert values(table, "some") == ["x:0", "x:1", "x:2"]


def test_record_batch_of_several_outputs(inline: Connection) -> None:
    @udf(data_type=pa.schema([("twice", pa.int64()), ("shout", pa.string())]))
    def both(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.record_batch(
            {"twice": pc.multiply(batch.column("x"), 2), "shout": pc.utf8_upper(batch.column("s"))},
            schema=pa.schema([("twice", pa.int64()), ("shout", pa.string())]),
        )

    table = make_table(inline, 3)
    table.add_columns(both)
    table.backfill(["twice", "shout"])
    assert values(table, "twice") == [0, 2, 4]
    assert values(table, "shout") == ["ROW 0", "ROW 1", "ROW 2"]


def test_stateful_class_is_constructed_once(inline: Connection, log: Path) -> None:
    @udf
    class Scale:
        def __init__(self, path: str, factor: int) -> None:
            log_call(path, factor)
            self.factor = factor

        def __call__(self, x: int) -> int:
            return self.factor * x

    table = make_table(inline, 100, rows_per_fragment=10)
    table.add_columns({"scaled": Scale(str(log), 5)})
    assert calls(log) == []
    table.backfill("scaled")
    assert calls(log) == [5]
    assert values(table, "scaled") == [5 * i for i in range(100)]
    assert Scale(str(log), 5).version != Scale(str(log), 6).version


def test_several_outputs_call_the_function_once_a_row(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf
    def box(x: int) -> Box:
        log_call(path, x)
        return Box(x, [str(x)])

    table = make_table(inline, 20, rows_per_fragment=7)
    table.add_columns(box)
    table.backfill(["width", "names"])
    assert calls(log) == list(range(20))
    assert values(table, "width") == list(range(20))
    assert values(table, "names") == [[str(i)] for i in range(20)]


def test_several_columns_read_their_inputs_once(inline: Connection) -> None:
    @udf
    def length(s: str) -> int:
        return len(s)

    @udf
    def shout(s: str) -> str:
        return s.upper()

    table = make_table(inline, 1000, rows_per_fragment=300)
    table.add_columns({"length": length, "shout": shout, "other": shout})
    alone = table.backfill("other").bytes_read
    assert alone > 1000 * len("row ")
    before = table.to_lance().version
    both = table.backfill(["length", "shout"])
    assert both.bytes_read == alone
    assert (both.rows_done, both.version_after) == (2000, before + 2)
    assert values(table, "length") == [len(f"row {i}") for i in range(1000)]
    assert values(table, "shout") == [f"ROW {i}" for i in range(1000)]


def test_several_columns_that_need_different_rows(inline: Connection) -> None:
    table = make_table(inline, 30, rows_per_fragment=20)
    table.add_columns({"a": udf(to_str), "b": udf(to_float)})
    table.backfill("a", where="x < 25")
    result = table.backfill(["a", "b"])
    assert (result.rows_done, result.rows_valid) == (35, 25)
    assert values(table, "a") == [f"é{i}" for i in range(30)]
    assert values(table, "b") == [i / 4 for i in range(30)]


def test_a_column_computed_from_a_computed_column(inline: Connection) -> None:
    table = make_table(inline, 5)
    table.add_columns({"quarter": udf(to_float)})
    table.backfill("quarter")

    def eighth(quarter: float) -> float:
        return quarter / 2

    table.add_columns({"eighth": eighth})
    table.backfill("eighth")
    assert values(table, "eighth") == [i / 8 for i in range(5)]
