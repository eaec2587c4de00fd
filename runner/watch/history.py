"""What a job did, task by task: the value that is kept beside its record, as one Arrow IPC file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

RUNNING, DONE, FAILED, RETRIED, DUPLICATE, CUT_OFF = range(6)
OUTCOMES = ("running", "done", "failed", "retried", "duplicate", "cut off")
"""Of a task. ``retried``: its worker died, and what it had not finished went to others. ``duplicate``: another worker was first
with the same work. ``cut off``: the job ended before it."""

COLUMNS = (
    "worker", "start_ms", "end_ms", "outcome", "columns", "width", "fragment", "works", "rows", "failed", "resumed",
    "bytes_read", "bytes_written", "calls", "call_us", "memory", "error", "number",
)  # fmt: skip
"""Of the table of tasks, whole numbers all. ``worker``, ``columns`` and ``error`` (its most frequent kind, -1 of none) are
positions in `History.workers`, `columns` and `errors`. Times count from its begin; ``end_ms`` is -1 of a task that has not
ended. ``width`` is how many columns the task fills. ``rows`` are values that the task computed, ``resumed`` values that it
found computed. Bytes read are those of inputs in memory, bytes written those of finished column files. ``call_us`` are
microseconds in ``calls`` of the function; ``number`` is that of log lines. ``memory`` is the most bytes that the worker's
process had had resident by then."""

SERIES = ("rows", "failed", "bytes_read")
"""Of the series over time: sums over each step."""

_KEY = b"infill"


@dataclass(frozen=True)
class Phase:
    """A part of a job, in seconds since its begin; `end` is None while it runs."""

    name: str
    start: float
    end: float | None


@dataclass(frozen=True)
class ErrorKind:
    """Rows that failed with one exception, and what the first of them said."""

    count: int
    message: str = ""
    row_address: int | None = None


@dataclass(frozen=True)
class History:
    """What was recorded of a job up to some moment.

    Attributes:
        began_at: by the wall clock of the driver, ISO 8601; every other time is of a clock that does not jump.
        seconds: from the begin to that moment.
        is_ended: whether the job had ended; otherwise its driver was to go on.
        tasks: a row for each, in the order of their begin; see `COLUMNS`.
        workers: node and process of each, in the order in which they got their first task.
        columns: what tasks fill, ``a, b`` of two at once.
        errors: by the exception's name.
        step: seconds of a step of `series`; see `SERIES`.
    """

    began_at: str
    seconds: float = 0.0
    is_ended: bool = False
    tasks: Mapping[str, Any] = field(default_factory=lambda: {name: np.zeros(0, np.int64) for name in COLUMNS})
    workers: tuple[tuple[str, int], ...] = ()
    columns: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    errors: Mapping[str, ErrorKind] = field(default_factory=dict)
    step: float = 1.0
    series: Mapping[str, list[int]] = field(default_factory=lambda: {name: [] for name in SERIES})

    def to_bytes(self) -> bytes:
        """An Arrow IPC file of the tasks, with all the rest as JSON in its schema's metadata."""
        rest = {name: getattr(self, name) for name in _REST}
        rest["phases"] = [asdict(phase) for phase in self.phases]
        rest["errors"] = {kind: asdict(found) for kind, found in self.errors.items()}
        table = pa.table(dict(self.tasks)).replace_schema_metadata({_KEY: json.dumps(rest)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, data: bytes) -> History:
        """What `to_bytes` made."""
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        rest = json.loads(table.schema.metadata[_KEY])
        rest["phases"] = tuple(Phase(**phase) for phase in rest["phases"])
        rest["errors"] = {kind: ErrorKind(**found) for kind, found in rest["errors"].items()}
        rest["workers"] = tuple((node, process) for node, process in rest["workers"])
        rest["columns"] = tuple(rest["columns"])
        return cls(tasks={name: table.column(name).to_numpy() for name in COLUMNS}, **rest)


_REST = ("began_at", "seconds", "is_ended", "workers", "columns", "step", "series")
