"""Call a function with one row after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from runner.backfill.blobs import BlobOpener, row_values
from runner.backfill.failures import CALL_ERRORS, Failure
from runner.backfill.policy import ErrorPolicy
from runner.backfill.preparing import Pending, Preparer, Raised
from runner.backfill.retries import Retries
from runner.backfill.timeouts import TimeLimit
from runner.backfill.values import null_rows, to_array
from runner.functions import UDF

Note = Callable[[int], None]


@dataclass
class RowInputs:
    """The rows of a batch that are called, as Python values.

    Attributes:
        called: their rows in the batch; None for all of them.
        columns: one sequence of values for each parameter.
        prepared: what ``preprocess`` makes of them, meanwhile, where there is one.
    """

    rows: int
    called: Any
    columns: list[Any]
    prepared: Pending | None = None

    @property
    def count(self) -> int:
        return self.rows if self.called is None else len(self.called)

    @classmethod
    def of(cls, batch: pa.RecordBatch, udf: UDF, open_blobs: BlobOpener | None) -> RowInputs:
        null = null_rows(batch, udf.optional)
        called = None if null is None else np.flatnonzero(~null)
        chosen = batch if called is None else batch.take(pa.array(called))
        return cls(batch.num_rows, called, row_values(chosen, udf.annotations, open_blobs))

    def spread(self, values: Any, failures: list[Failure], *, stops: bool) -> tuple[Any, list[Failure]]:
        """Values and failures of the called rows as those of the whole batch, NULL elsewhere."""
        if self.called is None:
            return values, failures
        index = np.full(self.rows, -1, np.int64)
        index[self.called[: len(values)]] = np.arange(len(values))
        if failures and stops:
            index = index[: self.called[failures[-1].row]]
        moved = [failure.moved(int(self.called[failure.row])) for failure in failures]
        return values.take(pa.array(index, mask=index < 0)), moved


def settle(values: list[Any], failures: list[Failure], data_type: Any, *, stops: bool) -> tuple[Any, list[Failure]]:
    """Returned values as an array, and the failures in order; where the first one stops, only that."""
    array, wrong = to_array(values, data_type, stops=stops)
    if stops and wrong:
        return array, wrong
    return array, sorted([*failures, *wrong], key=lambda failure: failure.row)


class RowCalls:
    """Calls row by row, nothing of our own in between.

    Args:
        note: told the row that is about to be called; None in a worker, where that would cost more than many a call.
    """

    def __init__(
        self,
        udf: UDF,
        call: Callable[..., Any],
        policy: ErrorPolicy,
        limit: TimeLimit,
        preparer: Preparer | None = None,
        open_blobs: BlobOpener | None = None,
        note: Note | None = None,
    ) -> None:
        self._udf = udf
        self._stops = policy.then == "fail"
        self._retries = Retries(policy.retries, udf.retry_on)
        self._limit = limit
        self._preparer = preparer
        self._open_blobs = open_blobs
        self._note = note
        self._call = limit.of(preparer.whole(call) if preparer else call)
        self._call_prepared = limit.of(lambda value: call(_raised_or(value)))

    def begin(self, batch: pa.RecordBatch) -> RowInputs:
        inputs = RowInputs.of(batch, self._udf, self._open_blobs)
        if self._preparer is not None:
            inputs.prepared = self._preparer.rows(inputs.columns)
        return inputs

    def finish(self, batch: pa.RecordBatch, inputs: RowInputs) -> tuple[Any, list[Failure]]:
        """``(values, failures)`` of a batch; see `Applier`."""
        with self._limit.watch():
            values, failures = self._rows(inputs)
        array, failures = settle(values, failures, self._udf.data_type, stops=self._stops)
        return inputs.spread(array, failures, stops=self._stops)

    def _rows(self, inputs: RowInputs) -> tuple[list[Any], list[Failure]]:
        values: list[Any] = []
        failures: list[Failure] = []
        calls = self._calls(inputs)
        while len(values) < inputs.count:
            try:
                values.extend(calls)  # keeps what came before an exception, so the next row follows on
                if len(values) < inputs.count:
                    raise StopIteration("the function let a StopIteration out")  # which extend takes for the end
            except CALL_ERRORS as exc:
                row = len(values)
                try:
                    values.append(self._retries.again(self._call, [column[row] for column in inputs.columns], exc))
                except CALL_ERRORS as last:
                    failures.append(Failure.of(row, last))
                    if self._stops:
                        break
                    values.append(None)
        return values, failures

    def _calls(self, inputs: RowInputs) -> Iterator[Any]:
        prepared = inputs.prepared.result() if inputs.prepared is not None else None
        if isinstance(prepared, list):
            return map(self._call_prepared, prepared)
        if self._note is None:
            return map(self._call, *inputs.columns)
        first, *others = inputs.columns
        return map(self._call, _noted(first, self._note, inputs.called), *others)


def _noted(values: Sequence[Any], note: Note, called: Any) -> Iterator[Any]:
    for index, value in enumerate(values):
        note(index if called is None else int(called[index]))
        yield value


def _raised_or(value: Any) -> Any:
    """A prepared value; raises what was raised in its place."""
    if isinstance(value, Raised):
        raise value.exc
    return value
