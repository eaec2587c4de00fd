"""Python annotations to Arrow types."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import types
import typing
from typing import Any

import pyarrow as pa

from runner.errors import BadInput

_SCALARS: dict[Any, Any] = {
    str: pa.string(),
    bytes: pa.binary(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    dt.datetime: pa.timestamp("us"),
    dt.date: pa.date32(),
    dt.time: pa.time64("us"),
    dt.timedelta: pa.duration("us"),
}

_UNIONS = (typing.Union, types.UnionType)


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """``Optional[T]`` to ``(T, True)``, any other ``T`` to ``(T, False)``.

    Raises:
        BadInput: the annotation is a union of several types.
    """
    if typing.get_origin(annotation) not in _UNIONS:
        return annotation, False
    inner = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
    if len(inner) != 1:
        raise BadInput(f"annotation {annotation} is a union of several types; a column has one: use X or Optional[X]")
    return inner[0], True


def arrow_type(annotation: Any) -> Any:
    """The Arrow type of a value annotated so.

    str, bytes, bool, int (int64), float (float64), datetime (timestamp[us]), date, time, timedelta, numpy scalar types,
    ``list[T]``, ``Optional[T]``, and dataclasses, NamedTuples or TypedDicts as structs.

    Raises:
        BadInput: no Arrow type follows from the annotation; the message names ``data_type`` as the remedy.
    """
    annotation, _ = split_optional(annotation)
    if isinstance(annotation, pa.DataType):
        return annotation
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if typing.get_origin(annotation) in (list, collections.abc.Sequence) and typing.get_args(annotation):
        return pa.list_(arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type):
        fields = _struct_fields(annotation)
        if fields:
            return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in fields.items()])
        found = _numpy_type(annotation)
        if found is not None:
            return found
    raise BadInput(
        f"no Arrow type follows from the annotation {_name(annotation)!r}; "
        "say it in the decorator, for example @udf(data_type=pa.list_(pa.float32(), 512))"
    )


def to_plain(value: Any) -> Any:
    """A dataclass or NamedTuple instance as a dict, so that Arrow takes it as a struct; anything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: to_plain(item) for name, item in value._asdict().items()}
    if isinstance(value, list):
        return [to_plain(item) for item in value]
    return value


def holds_struct(data_type: Any) -> bool:
    """Whether values of an Arrow type are structs, or lists that hold some."""
    return pa.types.is_struct(data_type) or (
        pa.types.is_nested(data_type) and holds_struct(getattr(data_type, "value_type", pa.null()))
    )


def _struct_fields(annotation: type) -> dict[str, Any]:
    is_named_tuple = issubclass(annotation, tuple) and hasattr(annotation, "_fields")
    if dataclasses.is_dataclass(annotation) or is_named_tuple or typing.is_typeddict(annotation):
        return typing.get_type_hints(annotation)
    return {}


def _numpy_type(annotation: type) -> Any:
    import numpy as np

    if not issubclass(annotation, np.generic):
        return None
    try:
        return pa.from_numpy_dtype(np.dtype(annotation))
    except (pa.ArrowException, TypeError):
        return None


def _name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)
