"""Arrow values as a function takes them, and what it returns as Arrow values."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from runner.arrow_types import holds_struct, to_plain
from runner.backfill.failures import Failure, WrongOutput

_NOT_OF_TYPE = (pa.ArrowException, TypeError, ValueError, OverflowError)


def null_rows(batch: pa.RecordBatch, optional: Sequence[bool]) -> Any:
    """Rows to leave uncalled, as a mask; None where there is none."""
    null = None
    for array, takes_none in zip(batch.columns, optional, strict=True):
        if array.null_count and not takes_none:
            mask = array.is_null().to_numpy(zero_copy_only=False)
            null = mask if null is None else null | mask
    return null


def python_values(array: Any, annotation: Any) -> Any:
    """Values as the function takes them: numpy arrays for a parameter annotated so, plain Python objects otherwise."""
    if not _is_ndarray(annotation):
        return array.to_pylist()
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)):
        return [None if value is None else np.asarray(value) for value in array.to_pylist()]
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    return [value.values.to_numpy(zero_copy_only=False) if value.is_valid else None for value in array]


def to_array(values: list[Any], data_type: Any, *, stops: bool) -> tuple[Any, list[Failure]]:
    """Returned values as an array, NULL for each that is not of the declared type, and those as failures.

    Args:
        stops: the first failure ends it; the array ends before it.

    Raises:
        WrongOutput: a dict has a name that the declared struct does not have.
    """
    if holds_struct(data_type):
        values = [to_plain(value) for value in values]
        _check_names(values, data_type)
    try:
        return _array(values, data_type), []
    except _NOT_OF_TYPE:
        pass
    failures: list[Failure] = []
    for row, value in enumerate(values):
        try:
            _array([value], data_type)
        except _NOT_OF_TYPE as exc:
            what = f"returned {_short(value)} ({type(value).__name__}), which is not the declared {data_type}: {exc}"
            failures.append(Failure.of(row, WrongOutput(what)))
            if stops:
                return pa.array(values[:row], data_type), failures
            values[row] = None
    return pa.array(values, data_type), failures


def checked_array(result: Any, declared: Any, rows: int) -> Any:
    """What a function returned for a whole batch, as an array of the declared type.

    Raises:
        WrongOutput: another type, or not one value for each row.
    """
    if isinstance(result, pa.ChunkedArray):
        result = result.combine_chunks()
    if isinstance(result, pa.RecordBatch):
        result = result.to_struct_array()
    if not isinstance(result, pa.Array):
        try:
            result = pa.array(result, declared)
        except _NOT_OF_TYPE as exc:
            raise WrongOutput(f"returned {type(result).__name__}, which is not an array of {declared}: {exc}") from exc
    if len(result) != rows:
        raise WrongOutput(f"returned {len(result)} values for a batch of {rows} rows")
    if result.type != declared:
        raise WrongOutput(f"returned an array of {result.type}, declared {declared}; cast it or change data_type")
    return result


def _check_names(values: list[Any], data_type: Any) -> None:
    """Arrow drops what a dict has beyond the struct's fields; a name that is misspelt would be NULL without a word."""
    first = next((value for value in values if isinstance(value, dict)), {})
    unknown = [name for name in first if data_type.get_field_index(name) < 0]
    if unknown:
        raise WrongOutput(f"returned a dict with {unknown[0]!r}, which is no field of the declared {data_type}")


def _array(values: list[Any], data_type: Any) -> Any:
    """``pa.array``, which makes 1 of 1.5 where an integer is declared, without that."""
    if not pa.types.is_integer(data_type):
        return pa.array(values, data_type)
    try:
        found = pa.array(values)
    except (pa.ArrowException, OverflowError):  # values beyond int64
        return pa.array(values, data_type)
    kinds = pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal
    return found.cast(data_type) if any(is_kind(found.type) for is_kind in kinds) else pa.array(values, data_type)


def _is_ndarray(annotation: Any) -> bool:
    """``np.ndarray``, or ``NDArray[...]``, which is an alias of its own type from Python 3.12 on."""
    origin = typing.get_origin(annotation) or annotation
    origin = getattr(origin, "__value__", origin)
    return (typing.get_origin(origin) or origin) is np.ndarray


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
