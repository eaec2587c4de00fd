"""What all drivers share: one measured job, described by a JSON argument, told by one JSON line."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import lance
import pyarrow as pa

from bench import tables
from bench.functions import FUNCTIONS, Function

RESULT = "RESULT "


@dataclass(frozen=True)
class Job:
    """What a driver is asked to do.

    `kind`: `new` fills a new column, `append` and `scatter` fill 10k missing rows of a filled one, `small` fills a
    new column of the tiny table, `resume` fills a new column or goes on with it. `warm` runs a tiny job before.
    """

    db: str
    kind: str
    function: str
    expected: str
    missing: int
    mode: str
    warm: bool

    def uri(self, table: str) -> str:
        return f"{self.db}/{table}.lance"


class Tool(Protocol):
    """One tool, as its driver presents it."""

    def session(self, job: Job) -> AbstractContextManager[None]:
        """Everything that is up before a job and may serve several."""

    def declare(self, table: str, column: str, function: Function) -> None:
        """Declare the computed column, where the tool does that apart from filling it."""

    def fill(self, table: str, column: str, function: Function) -> dict[str, Any]:
        """Fill the new column."""

    def fill_missing(self, table: str, column: str, function: Function) -> dict[str, Any]:
        """Fill the rows of the column that are NULL."""


def main(tool: Tool) -> None:
    """Do the job of the command line and print what was measured."""
    job = Job(**json.loads(sys.argv[1]))
    with tool.session(job):
        report = _measure(tool, job)
    print(RESULT + json.dumps(report), flush=True)


def _measure(tool: Tool, job: Job) -> dict[str, Any]:
    if job.warm:
        warm = FUNCTIONS["text_len_arrow"]
        tool.declare("tiny", "warm", warm)
        tool.fill("tiny", "warm", warm)
    function = FUNCTIONS[job.function]
    table = "tiny" if job.kind == "small" else "t"
    uri = job.uri(table)
    if tables.OUTPUT not in lance.dataset(uri).schema.names:
        tool.declare(table, tables.OUTPUT, function)
    if job.kind in ("append", "scatter"):
        _fill_most(uri, job, function)
    before = _state(uri)
    fill = tool.fill_missing if job.kind in ("append", "scatter") else tool.fill
    started, clock = time.time(), time.perf_counter()
    extra = fill(table, tables.OUTPUT, function)
    seconds = time.perf_counter() - clock
    after = _state(uri)
    return {
        "job_s": seconds,
        "started": started,
        "data_bytes": after[0] - before[0],
        "all_bytes": after[1] - before[1],
        "versions": after[2] - before[2],
        **extra,
    }


def _fill_most(uri: str, job: Job, function: Function) -> None:
    """Fill the column but for the missing rows, with plain Lance, whatever tool declared it."""
    dataset = lance.dataset(uri)
    if tables.OUTPUT not in dataset.schema.names:
        dataset.add_columns(pa.field(tables.OUTPUT, function.dtype))
    values = tables.expected_values(Path(job.expected))
    if job.kind == "scatter":
        values = tables.with_holes(values, job.missing)
    tables.prefill(uri, values)
    if job.kind == "append":
        tables.append(uri, job.missing)


def _state(uri: str) -> tuple[int, int, int]:
    """Bytes of the data files, bytes of the whole database, version of the table."""
    return _bytes(f"{uri}/data"), _bytes(os.path.dirname(uri)), int(lance.dataset(uri).version)


def _bytes(folder: str) -> int:
    return sum(os.path.getsize(os.path.join(parent, name)) for parent, _, names in os.walk(folder) for name in names)
