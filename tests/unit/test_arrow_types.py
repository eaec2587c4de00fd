from __future__ import annotations

import collections.abc
import datetime as dt
import typing
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional, TypedDict, Union

import numpy as np
import pyarrow as pa
import pytest

from runner.arrow_types import arrow_type, holds_struct, split_optional, to_plain
from runner.errors import BadInput


@dataclass
class Point:
    x: float
    label: str | None


@dataclass
class Line:
    ends: list[Point]
    width: np.float32


class Pair(NamedTuple):
    left: int
    right: Point


class Entry(TypedDict):
    name: str
    size: int


POINT = pa.struct([("x", pa.float64()), ("label", pa.string())])


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (str, pa.string()),
        (bytes, pa.binary()),
        (bool, pa.bool_()),
        (int, pa.int64()),
        (float, pa.float64()),
        (dt.datetime, pa.timestamp("us")),
        (dt.date, pa.date32()),
        (dt.time, pa.time64("us")),
        (dt.timedelta, pa.duration("us")),
        (np.int8, pa.int8()),
        (np.uint32, pa.uint32()),
        (np.float16, pa.float16()),
        (np.float32, pa.float32()),
        (np.bool_, pa.bool_()),
        (list[int], pa.list_(pa.int64())),
        (list[list[str]], pa.list_(pa.list_(pa.string()))),
        (typing.List[float], pa.list_(pa.float64())),  # noqa: UP006
        (typing.Sequence[int], pa.list_(pa.int64())),
        (collections.abc.Sequence[bytes], pa.list_(pa.binary())),
        (int | None, pa.int64()),
        (Optional[str], pa.string()),  # noqa: UP045
        (list[int | None], pa.list_(pa.int64())),
        (pa.list_(pa.float32(), 8), pa.list_(pa.float32(), 8)),
        (Point, POINT),
        (Line, pa.struct([("ends", pa.list_(POINT)), ("width", pa.float32())])),
        (Pair, pa.struct([("left", pa.int64()), ("right", POINT)])),
        (Entry, pa.struct([("name", pa.string()), ("size", pa.int64())])),
    ],
)
def test_an_annotation_is_an_arrow_type(annotation: Any, expected: pa.DataType) -> None:
    assert arrow_type(annotation) == expected


@pytest.mark.parametrize(
    "annotation", [list, dict, dict[str, int], tuple, object, set[int], np.ndarray, complex, "string", typing.Any]
)
def test_an_annotation_without_an_arrow_type_names_the_remedy(annotation: Any) -> None:
    with pytest.raises(BadInput, match=r"no Arrow type follows from the annotation .*@udf\(data_type="):
        arrow_type(annotation)


@pytest.mark.parametrize("annotation", [int | str, Union[int, str, None], list[int | str]])  # noqa: UP007
def test_a_union_of_several_types_is_refused(annotation: Any) -> None:
    with pytest.raises(BadInput, match="union of several types"):
        arrow_type(annotation)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(int, (int, False)), (int | None, (int, True)), (Optional[str], (str, True)), (list[int], (list[int], False))],  # noqa: UP045
)
def test_optional_is_split_off(annotation: Any, expected: tuple[Any, bool]) -> None:
    assert split_optional(annotation) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Point(1.0, None), {"x": 1.0, "label": None}),
        (Line([Point(1.0, "a")], np.float32(2)), {"ends": [{"x": 1.0, "label": "a"}], "width": np.float32(2)}),
        (Pair(1, Point(2.0, "b")), {"left": 1, "right": {"x": 2.0, "label": "b"}}),
        ([Point(1.0, "a")], [{"x": 1.0, "label": "a"}]),
        ((1, 2), (1, 2)),
        ({"name": "a"}, {"name": "a"}),
        (None, None),
    ],
)
def test_structured_values_become_plain(value: Any, expected: Any) -> None:
    assert to_plain(value) == expected


def test_a_dataclass_itself_is_not_taken_for_an_instance() -> None:
    assert to_plain(Point) is Point


@pytest.mark.parametrize(
    ("data_type", "expected"),
    [
        (POINT, True),
        (pa.list_(POINT), True),
        (pa.list_(pa.list_(POINT, 2)), True),
        (pa.list_(pa.int8()), False),
        (pa.string(), False),
        (pa.map_(pa.string(), pa.int8()), False),
    ],
)
def test_types_that_hold_structs_are_told(data_type: pa.DataType, expected: bool) -> None:
    assert holds_struct(data_type) is expected
