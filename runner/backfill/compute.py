"""Call the user's function on a batch, row by row or whole, under the error policy."""

from __future__ import annotations

import signal
import threading
import time
import traceback
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import numpy as np
import pyarrow as pa

from runner.arrow_types import holds_struct, to_plain
from runner.backfill.policy import ErrorPolicy
from runner.errors import BadInput
from runner.functions import UDF

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.1, 5.0
MAX_TRACEBACK_CHARS = 4000


class CallTimeout(Exception):
    """One call of the function took longer than its ``timeout``."""


class WrongOutput(Exception):
    """What the function returned is not what it declared. For a whole batch no policy forgives this."""


@dataclass(frozen=True)
class Failure:
    """A row of a batch whose call failed: its index in the batch, and the exception in words."""

    row: int
    error: str
    message: str
    traceback: str

    @classmethod
    def of(cls, row: int, exc: BaseException) -> Failure:
        return cls(row, type(exc).__name__, str(exc), _formatted(exc))


class Applier:
    """One function, constructed once, applied to batch after batch.

    Args:
        udf: the function; its `input_columns` name the batch's columns.
        policy: what happens to rows that raise.
        timeout: seconds for one call, None for no limit.
    """

    def __init__(self, udf: UDF, policy: ErrorPolicy, timeout: float | None) -> None:
        self.udf = udf
        self._policy = policy
        self._timeout = timeout
        call = udf.instance()
        self._call = _limited(call, timeout) if timeout else call

    def __call__(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        """``(values, failures)``: an array of the declared type with a NULL for each failure.

        Under the policy ``fail`` the values end before the first failure.
        """
        inputs = batch.select(list(self.udf.input_columns or batch.schema.names))
        with _alarm_handler(self._timeout):
            return self._scalar(inputs) if self.udf.kind == "scalar" else self._whole(inputs)

    # -- one call for each row

    def _scalar(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        null = _null_rows(batch, self.udf.optional)
        if null is None:
            return self._rows(batch)
        called = np.flatnonzero(~null)
        values, failures = self._rows(batch.take(pa.array(called)))
        index = np.full(batch.num_rows, -1, np.int64)
        index[called[: len(values)]] = np.arange(len(values))
        if failures and self._policy.then == "fail":
            index = index[: called[failures[-1].row]]
        failures = [Failure(int(called[f.row]), f.error, f.message, f.traceback) for f in failures]
        return values.take(pa.array(index, mask=index < 0)), failures

    def _rows(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        columns = [_python_values(array, kind) for array, kind in zip(batch.columns, self.udf.annotations, strict=True)]
        values: list[Any] = []
        failures: list[Failure] = []
        calls = map(self._call, *columns)
        while len(values) < batch.num_rows:
            try:
                values.extend(calls)  # keeps what came before an exception, so the next row follows on
                if len(values) < batch.num_rows:
                    raise StopIteration("the function let a StopIteration out")  # which extend takes for the end
            except (Exception, SystemExit) as exc:
                row = len(values)
                try:
                    values.append(self._again([column[row] for column in columns], exc))
                except (Exception, SystemExit) as last:
                    failures.append(Failure.of(row, last))
                    if self._policy.then == "fail":
                        break
                    values.append(None)
        return self._converted(values, failures)

    def _again(self, args: Sequence[Any], exc: BaseException) -> Any:
        """Call again as often as the policy says, later and later; raises what the last call raised."""
        wait = FIRST_BACKOFF_S
        for _ in range(self._policy.retries):
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_BACKOFF_S)
            try:
                return self._call(*args)
            except (Exception, SystemExit) as again:
                exc = again
        raise exc

    def _converted(self, values: list[Any], failures: list[Failure]) -> tuple[Any, list[Failure]]:
        if holds_struct(self.udf.data_type):
            values = [to_plain(value) for value in values]
            self._check_names(values)
        try:
            return _array(values, self.udf.data_type), failures
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            pass
        for row, value in enumerate(values):
            try:
                _array([value], self.udf.data_type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
                wrong = WrongOutput(
                    f"returned {_short(value)} ({type(value).__name__}), which is not the declared {self.udf.data_type}: {exc}"
                )
                values[row] = None
                failures.append(Failure.of(row, wrong))
                if self._policy.then == "fail":
                    first = min(failures, key=lambda failure: failure.row)
                    return pa.array(values[: first.row], self.udf.data_type), [first]
        return pa.array(values, self.udf.data_type), sorted(failures, key=lambda failure: failure.row)

    def _check_names(self, values: list[Any]) -> None:
        """Arrow drops what a dict has beyond the struct's fields; a name that is misspelt would be NULL without a word."""
        first = next((value for value in values if isinstance(value, dict)), {})
        unknown = [name for name in first if self.udf.data_type.get_field_index(name) < 0]
        if unknown:
            raise WrongOutput(f"returned a dict with {unknown[0]!r}, which is no field of the declared {self.udf.data_type}")

    # -- one call for the whole batch

    def _whole(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        args = [batch] if self.udf.kind == "record_batch" else batch.columns
        try:
            try:
                result = self._call(*args)
            except (Exception, SystemExit) as exc:
                result = self._again(args, exc)
        except (Exception, SystemExit) as exc:
            if self._policy.then == "fail" or batch.num_rows == 1:
                return pa.nulls(0 if self._policy.then == "fail" else 1, self.udf.data_type), [Failure.of(0, exc)]
            return self._halves(batch)
        return self._checked(result, batch.num_rows), []

    def _halves(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        half = batch.num_rows // 2
        first, first_failures = self._whole(batch.slice(0, half))
        second, second_failures = self._whole(batch.slice(half))
        moved = [Failure(f.row + half, f.error, f.message, f.traceback) for f in second_failures]
        return pa.concat_arrays([first, second]), first_failures + moved

    def _checked(self, result: Any, rows: int) -> Any:
        declared = self.udf.data_type
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        if isinstance(result, pa.RecordBatch):
            result = result.to_struct_array()
        if not isinstance(result, pa.Array):
            try:
                result = pa.array(result, declared)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
                raise WrongOutput(f"returned {type(result).__name__}, which is not an array of {declared}: {exc}") from exc
        if len(result) != rows:
            raise WrongOutput(f"returned {len(result)} values for a batch of {rows} rows")
        if result.type != declared:
            raise WrongOutput(f"returned an array of {result.type}, declared {declared}; cast it or change data_type")
        return result


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


def _null_rows(batch: pa.RecordBatch, optional: Sequence[bool]) -> Any:
    """Rows to leave uncalled, as a mask; None where there is none."""
    null = None
    for array, takes_none in zip(batch.columns, optional, strict=True):
        if array.null_count and not takes_none:
            mask = array.is_null().to_numpy(zero_copy_only=False)
            null = mask if null is None else null | mask
    return null


def _is_ndarray(annotation: Any) -> bool:
    """``np.ndarray``, or ``NDArray[...]``, which is an alias of its own type from Python 3.12 on."""
    origin = typing.get_origin(annotation) or annotation
    origin = getattr(origin, "__value__", origin)
    return (typing.get_origin(origin) or origin) is np.ndarray


def _python_values(array: Any, annotation: Any) -> Any:
    """Values as the function takes them: numpy arrays for a parameter annotated so, plain Python objects otherwise."""
    if not _is_ndarray(annotation):
        return array.to_pylist()
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type)):
        return [None if value is None else np.asarray(value) for value in array.to_pylist()]
    if pa.types.is_fixed_size_list(array.type) and not array.null_count:
        return array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), array.type.list_size)
    return [value.values.to_numpy(zero_copy_only=False) if value.is_valid else None for value in array]


def _limited(call: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    def limited(*args: Any) -> Any:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return call(*args)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    return limited


@contextmanager
def _alarm_handler(seconds: float | None) -> Iterator[None]:
    if not seconds:
        yield
        return
    if threading.current_thread() is not threading.main_thread():
        raise BadInput("timeout needs the main thread; use backfill() instead of backfill_async(), or cluster='local'")

    def ring(signum: int, frame: FrameType | None) -> None:
        raise CallTimeout(f"the call took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)


def _formatted(exc: BaseException) -> str:
    """The traceback from the user's function on: our own frames say nothing to its author."""
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None and frame.tb_frame.f_code.co_filename == __file__:
        frame = frame.tb_next
    return "".join(traceback.format_exception(type(exc), exc, frame))[-MAX_TRACEBACK_CHARS:]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
