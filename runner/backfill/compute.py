"""A user's function on a worker: constructed once, applied to batch after batch under the error policy."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from runner.backfill.batches import BatchCalls
from runner.backfill.blobs import BlobOpener, input_keys
from runner.backfill.coroutine_rows import CoroutineRows
from runner.backfill.coroutines import DEFAULT_CONCURRENCY, AsyncCall, LoopThread
from runner.backfill.failures import CALL_ERRORS, Failure
from runner.backfill.policy import ErrorPolicy
from runner.backfill.preparing import Preparer
from runner.backfill.rows import Note, RowCalls
from runner.backfill.timeouts import TimeLimit
from runner.errors import RunnerError
from runner.functions import UDF


@dataclass(frozen=True)
class Surroundings:
    """What a function's worker is to it.

    Attributes:
        workers: of the job; they share the function's rate limit.
        kills: the process may end itself where a call does not end in time.
        stack_file: descriptor of the file for the stack of a call that does not end.
        open_blobs: opens blobs for parameters that are files.
        note: told each row that is about to be called.
    """

    workers: int = 1
    kills: bool = False
    stack_file: int = 2
    open_blobs: BlobOpener = field(default_factory=BlobOpener)
    note: Note | None = None


@dataclass(frozen=True)
class Ahead:
    """How much is begun before the oldest batch is finished: so many batches in all, or so many rows behind it."""

    batches: int = 0
    rows: int = 0


class Applier:
    """One function, constructed once, applied to batch after batch.

    `begin` starts what can run ahead, `finish` gives the outcome: ``(values, failures)``, an array of the declared type with a
    NULL for each failure. Under the policy ``fail`` the values end before the first failure. Calling it does both.

    Args:
        udf: the function; its `input_columns` name the batch's columns.
        policy: what happens to rows that raise.
        timeout: seconds for one call, None for no limit.

    Attributes:
        ahead: how much to begin before the first is finished.
        inputs: what it reads of a batch; see `input_keys`.

    Raises:
        RunnerError: constructing it failed, or its ``setup`` did.
    """

    def __init__(self, udf: UDF, policy: ErrorPolicy, timeout: float | None, around: Surroundings | None = None) -> None:
        self.udf = udf
        self.inputs = None if udf.input_columns is None else input_keys(udf.input_columns, udf.annotations)
        self._loop = LoopThread() if udf.is_coroutine else None
        self._preparer: Preparer | None = None
        try:
            self._calls = self._make(policy, timeout, around or Surroundings())
        except BaseException:
            self.close()
            raise

    def _make(self, policy: ErrorPolicy, timeout: float | None, around: Surroundings) -> RowCalls | BatchCalls | CoroutineRows:
        call = self._constructed()
        limit = TimeLimit(timeout, kills=around.kills, stack_file=around.stack_file)
        awaited = self._awaited(call, timeout, limit, around)
        self._preparer = self._made_preparer(call, timeout)
        self.ahead = self._ahead(awaited)
        if self.udf.kind != "scalar":
            return BatchCalls(self.udf, call, policy, limit, self._preparer, awaited)
        if awaited is not None:
            return CoroutineRows(self.udf, awaited, policy, around.open_blobs)
        return RowCalls(self.udf, call, policy, limit, self._preparer, around.open_blobs, around.note)

    def _constructed(self) -> Callable[..., Any]:
        try:
            made = self.udf.instance()
        except CALL_ERRORS as exc:
            raise RunnerError(f"{self.udf.name} could not be constructed: {type(exc).__name__}: {exc}") from exc
        setup = getattr(made, "setup", None) if inspect.isclass(self.udf.func) else None
        if setup is None:
            return made
        try:
            result = setup()
            if inspect.iscoroutine(result):
                self._wait_for(result)
        except CALL_ERRORS as exc:
            raise RunnerError(f"{self.udf.name}.setup failed on a worker: {type(exc).__name__}: {exc}") from exc
        return made

    def _wait_for(self, coroutine: Any) -> None:
        if self._loop is not None:  # the function's own loop, which a session made here belongs to
            self._loop.start(coroutine).result()
        else:
            asyncio.run(coroutine)

    def _awaited(self, call: Callable[..., Any], timeout: float | None, limit: TimeLimit, around: Surroundings) -> AsyncCall | None:
        if self._loop is None:
            return None
        self._loop.start(limit.beat())
        rate = self.udf.rate_limit
        return AsyncCall(
            call,
            self._loop,
            concurrency=self.udf.concurrency or DEFAULT_CONCURRENCY,
            calls_a_second=None if rate is None else rate / around.workers,
            timeout=timeout,
        )

    def _made_preparer(self, call: Any, timeout: float | None) -> Preparer | None:
        return Preparer(call.preprocess, max(int(self.udf.num_cpus), 1), timeout) if self.udf.prepares else None

    def _ahead(self, awaited: AsyncCall | None) -> Ahead:
        if awaited is not None:
            is_rows = self.udf.kind == "scalar"
            return Ahead(rows=2 * awaited.concurrency) if is_rows else Ahead(batches=awaited.concurrency)
        return Ahead(batches=self._preparer.threads + 1) if self._preparer is not None else Ahead()

    @property
    def most_rows(self) -> int | None:
        """Rows of a batch that fit in memory, once one did not."""
        return self._calls.most_rows if isinstance(self._calls, BatchCalls) else None

    def begin(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, Any]:
        """Start on a batch; it is to be finished in the order of beginning."""
        inputs = batch if self.inputs is None else batch.select(self.inputs)
        return inputs, self._calls.begin(inputs)

    def finish(self, begun: tuple[pa.RecordBatch, Any]) -> tuple[Any, list[Failure]]:
        return self._calls.finish(*begun)

    def __call__(self, batch: pa.RecordBatch) -> tuple[Any, list[Failure]]:
        return self.finish(self.begin(batch))

    def close(self) -> None:
        """End its threads; what was begun and not finished is abandoned."""
        if self._loop is not None:
            self._loop.close()
        if self._preparer is not None:
            self._preparer.close()
