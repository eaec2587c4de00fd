"""Call a function with whole batches, and find the rows of a batch that raises."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from runner.backfill.coroutines import AsyncCall
from runner.backfill.failures import CALL_ERRORS, Failure, is_out_of_memory
from runner.backfill.policy import ErrorPolicy
from runner.backfill.preparing import Late, Preparer, Raised
from runner.backfill.retries import Retries
from runner.backfill.timeouts import TimeLimit
from runner.backfill.values import checked_array
from runner.functions import UDF

Result = tuple[Any, list[Failure]]


class _TooLarge(Exception):
    """A batch did not fit in memory; a smaller one may."""


class BatchCalls:
    """One call for a batch. A batch that raises is halved: at most 1 + 2 log2(rows) calls for each row that raises.

    Retries are made of the whole batch, and of a row that is left alone, not of what lies between. A batch that runs out of
    memory is cut in halves that are not a failure, and later batches are no larger.

    Attributes:
        most_rows: rows that fit in memory, once a batch did not.
    """

    def __init__(
        self,
        udf: UDF,
        call: Callable[..., Any],
        policy: ErrorPolicy,
        limit: TimeLimit,
        preparer: Preparer | None = None,
        awaited: AsyncCall | None = None,
    ) -> None:
        self._udf = udf
        self._stops = policy.then == "fail"
        self._retries = Retries(policy.retries, udf.retry_on)
        self._limit = limit
        self._preparer = preparer
        self._awaited = awaited
        self._call = awaited.wait_for if awaited else limit.of(preparer.whole(call) if preparer else call)
        self._call_prepared = limit.of(call)
        self.most_rows: int | None = None

    def begin(self, batch: pa.RecordBatch) -> Callable[[], Any] | None:
        """Begin what can run ahead; the first call, or what comes before it."""
        if self._awaited is None and self._preparer is None:
            return None
        args = self._args(batch)
        if self._awaited is not None:
            return self._awaited.start(args).result
        assert self._preparer is not None
        pending = self._preparer.batch(args)

        def first() -> Any:
            prepared = pending.result()
            if not isinstance(prepared, Raised):
                return self._call_prepared(prepared)
            if isinstance(prepared.exc, Late):
                return self._call(*args)
            raise prepared.exc

        return first

    def finish(self, batch: pa.RecordBatch, first: Callable[[], Any] | None) -> Result:
        """``(values, failures)`` of a batch; see `Applier`."""
        if self._awaited is not None or not self._limit.is_set:
            return self._all(batch, first)
        with self._limit.watch():
            return self._all(batch, first)

    def _all(self, batch: pa.RecordBatch, first: Callable[[], Any] | None) -> Result:
        arrays: list[Any] = []
        failures: list[Failure] = []
        start, fitted, was_alone = 0, self.most_rows, False
        while start < batch.num_rows and not (failures and self._stops):
            left = batch.num_rows - start
            rows = left if first else min(self.most_rows or left, left)  # what is begun already is of the whole batch
            outcome = self._if_it_fits(batch.slice(start, rows) if rows < batch.num_rows else batch, first)
            first = None
            if outcome is None:
                self.most_rows = max(min(rows // 2, self.most_rows or rows), 1)
                _free_memory()
                continue
            array, found = outcome
            if rows == 1 and found and self.most_rows != fitted and not was_alone:  # the row is to blame, not its batch
                self.most_rows, was_alone = fitted, True
            arrays.append(array)
            failures += [failure.moved(failure.row + start) for failure in found]
            start += rows
        return pa.concat_arrays(arrays) if len(arrays) > 1 else arrays[0], failures

    def _if_it_fits(self, batch: pa.RecordBatch, first: Callable[[], Any] | None) -> Result | None:
        """None where it ran out of memory; by then nothing holds what the call had in its frames."""
        try:
            return self._whole(batch, first)
        except _TooLarge:
            return None

    def _whole(self, batch: pa.RecordBatch, first: Callable[[], Any] | None) -> Result:
        args = self._args(batch)
        try:
            result = self._tried(args, first or (lambda: self._call(*args)), alone=batch.num_rows == 1)
        except CALL_ERRORS as exc:
            return self._raised(batch, exc)
        return checked_array(result, self._udf.data_type, batch.num_rows), []

    def _tried(self, args: Sequence[Any], first: Callable[[], Any], *, alone: bool) -> Any:
        """A call, and the calls again that the policy allows."""
        try:
            return first()
        except CALL_ERRORS as exc:
            if not alone and is_out_of_memory(exc):
                raise
            return self._retries.again(self._call, args, exc)

    def _raised(self, batch: pa.RecordBatch, exc: BaseException) -> Result:
        if batch.num_rows == 1:
            return pa.nulls(0 if self._stops else 1, self._udf.data_type), [Failure.of(0, exc)]
        if is_out_of_memory(exc):
            raise _TooLarge from None
        return self._halves(batch)

    def _halves(self, batch: pa.RecordBatch) -> Result:
        half = batch.num_rows // 2
        first, first_failures = self._part(batch.slice(0, half))
        if first_failures and self._stops:
            return first, first_failures
        second, second_failures = self._part(batch.slice(half))
        moved = [failure.moved(failure.row + half) for failure in second_failures]
        return pa.concat_arrays([first, second]), first_failures + moved

    def _part(self, batch: pa.RecordBatch) -> Result:
        if batch.num_rows == 1:
            return self._whole(batch, None)
        try:
            result = self._call(*self._args(batch))
        except CALL_ERRORS as exc:
            return self._raised(batch, exc)
        return checked_array(result, self._udf.data_type, batch.num_rows), []

    def _args(self, batch: pa.RecordBatch) -> Sequence[Any]:
        return [batch] if self._udf.kind == "record_batch" else batch.columns


def _free_memory() -> None:
    """Give back what the failed call left: its tensors, and what torch keeps of them."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
