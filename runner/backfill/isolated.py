"""A function in a process of its own, so that a row that kills it is found.

The process is asked for one batch after another. When it dies, the batch it was at is asked for again in parts: what it had
noted as the row it was about to call, and what lies before and behind it; without a note, halves. A row is held to kill when
the process died twice with it, the second time with it alone.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from runner import shipping
from runner.backfill.blobs import input_keys
from runner.backfill.compute import Ahead
from runner.backfill.failures import Failure
from runner.backfill.function_process import NO_ROW, FunctionProcess, Result
from runner.backfill.work import Pass, TargetColumn
from runner.errors import RunnerError

MAX_ROWS = 4096  # of a batch: what a death makes to be computed again
MAX_COROUTINES = 64  # as with many calls in flight there is no telling which one it was
MAX_KILLING_ROWS = 20


class Isolated:
    """An `Applier` whose function runs in a process of its own, started anew when it dies.

    Attributes:
        ahead, inputs, most_rows: as an applier has them.
    """

    def __init__(self, settings: Pass, column: TargetColumn) -> None:
        udf = shipping.load(column.spec, settings.store, allow_pickle=settings.allow_pickle)
        self.inputs = None if udf.input_columns is None else input_keys(udf.input_columns, udf.annotations)
        self.ahead = Ahead()
        self.most_rows: int | None = settings.batch_size or (MAX_COROUTINES if udf.is_coroutine else MAX_ROWS)
        self._udf = udf
        self._settings = settings
        self._column = column
        self._child: FunctionProcess | None = None
        self._killing_rows = 0

    def begin(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch if self.inputs is None else batch.select(self.inputs)

    def finish(self, begun: pa.RecordBatch) -> Result:
        return self._ask(begun, deaths=0)

    def close(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None

    def _ask(self, batch: pa.RecordBatch, deaths: int) -> Result:
        """The outcome of a batch, during which the process died so many times before."""
        child = self._running()
        try:
            return child.apply(batch)
        except EOFError:
            self._child = None
            cause, row = child.died(self._settings.timeout)
        if batch.num_rows > 1:
            return self._in_parts(batch, row, deaths + 1)
        return self._killed(cause) if deaths else self._ask(batch, 1)

    def _running(self) -> FunctionProcess:
        if self._child is None:
            self._child = self._started()
        return self._child

    def _started(self) -> FunctionProcess:
        """A new process with the function constructed; tried twice."""
        causes: list[str] = []
        while len(causes) < 2:
            child = FunctionProcess(self._settings, self._column)
            try:
                child.wait_until_ready()
            except EOFError:
                causes.append(child.died(None)[0].message)
            except BaseException:
                child.close()
                raise
            else:
                return child
        raise RunnerError(f"{self._udf.name} cannot be constructed: {causes[-1]} meanwhile")

    def _in_parts(self, batch: pa.RecordBatch, row: int, deaths: int) -> Result:
        half = batch.num_rows // 2
        edges = [0, half] if row == NO_ROW else [0, row, row + 1]
        arrays: list[Any] = []
        failures: list[Failure] = []
        for start, stop in zip(edges, [*edges[1:], batch.num_rows], strict=True):
            if start == stop or (failures and self._settings.policy.then == "fail"):
                continue
            suspect = row in (NO_ROW, start)
            array, found = self._ask(batch.slice(start, stop - start), deaths if suspect else 0)
            arrays.append(array)
            failures += [failure.moved(failure.row + start) for failure in found]
        return pa.concat_arrays(arrays), failures

    def _killed(self, cause: Failure) -> Result:
        self._killing_rows += 1
        if self._killing_rows > MAX_KILLING_ROWS:
            raise RunnerError(
                f"{self._udf.name}: {MAX_KILLING_ROWS} rows killed their worker, so it is not the rows that do; the last time: "
                f"{cause.message}"
            )
        stops = self._settings.policy.then == "fail"
        return pa.nulls(0 if stops else 1, self._udf.data_type), [cause]
