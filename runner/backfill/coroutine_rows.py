"""Call a coroutine function with the rows of a batch, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from runner.backfill.blobs import BlobOpener
from runner.backfill.coroutines import AsyncCall, Future
from runner.backfill.failures import CALL_ERRORS, Failure
from runner.backfill.policy import ErrorPolicy
from runner.backfill.retries import Retries
from runner.backfill.rows import RowInputs, settle
from runner.functions import UDF


@dataclass(frozen=True)
class _Begun:
    inputs: RowInputs
    answers: Future


class CoroutineRows:
    """Calls of a batch's rows, begun together with those of the batches after it."""

    def __init__(self, udf: UDF, call: AsyncCall, policy: ErrorPolicy, open_blobs: BlobOpener | None = None) -> None:
        self._udf = udf
        self._call = call
        self._stops = policy.then == "fail"
        self._retries = Retries(policy.retries, udf.retry_on)
        self._open_blobs = open_blobs

    def begin(self, batch: pa.RecordBatch) -> _Begun:
        inputs = RowInputs.of(batch, self._udf, self._open_blobs)
        return _Begun(inputs, self._call.start_all(self._answers(inputs)))

    def finish(self, batch: pa.RecordBatch, begun: _Begun) -> tuple[Any, list[Failure]]:
        """``(values, failures)`` of a batch; see `Applier`."""
        answers = begun.answers.result()
        failures = [answer for answer in answers if isinstance(answer, Failure)]
        values = [None if isinstance(answer, Failure) else answer for answer in answers]
        if failures and self._stops:
            values, failures = values[: failures[0].row], failures[:1]
        array, failures = settle(values, failures, self._udf.data_type, stops=self._stops)
        return begun.inputs.spread(array, failures, stops=self._stops)

    async def _answers(self, inputs: RowInputs) -> list[Any]:
        """What each row's call returned, or its failure. Where one ends the job, rows after it are not called any more."""
        first_failure = inputs.count

        async def answer(row: int, args: Sequence[Any]) -> Any:
            nonlocal first_failure
            try:
                return await self._row(args, lambda: row < first_failure)
            except CALL_ERRORS as exc:
                if self._stops:
                    first_failure = min(first_failure, row)
                return Failure.of(row, exc)

        rows = enumerate(zip(*inputs.columns, strict=True))
        return await asyncio.gather(*(answer(row, args) for row, args in rows))

    async def _row(self, args: Sequence[Any], is_wanted: Callable[[], bool]) -> Any:
        try:
            return await self._call.once(args, is_wanted)
        except CALL_ERRORS as exc:
            return await self._call.again(args, self._retries, exc)
