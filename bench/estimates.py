"""`python -m bench.estimates`: what `Table.estimate` says beside what the backfill then takes. Writes bench/ESTIMATES.md.

W1 to W4 and functions that are slow in different ways, without a context (a Ray of the job's own, its start counted) and in one
that has done a job before.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import runner
from bench import tables
from bench.peers.ours_functions import UDFS
from bench.workloads import NUMBER, WORKLOADS
from runner import UDF, udf
from runner.estimating import SampleSize
from runner.functions import as_udf

SLOW_ROWS = 3_000
SAMPLE = SampleSize(seconds=2.0)


@udf
def busy(seq: int) -> int:
    end = time.perf_counter() + 0.005
    while time.perf_counter() < end:
        pass
    return seq


@udf
async def waits(seq: int) -> int:
    await asyncio.sleep(0.05)
    return seq


@udf(data_type=pa.int64())
class Model:
    def setup(self) -> None:
        time.sleep(2.0)

    def __call__(self, seq: pa.Array) -> pa.Array:
        time.sleep(2e-5 * len(seq))
        return seq


@dataclass(frozen=True)
class Case:
    """A function on a table, on so many of its rows."""

    title: str
    table: tables.TableSpec
    function: UDF
    limit: int | None = None


@dataclass(frozen=True)
class Outcome:
    """Seconds, as estimated and as taken."""

    case: Case
    warm: bool
    estimated: float
    took: float
    load: float

    def row(self) -> str:
        where = "warm" if self.warm else "cold"
        ratio = self.estimated / self.took
        return f"| {self.case.title} | {where} | {self.estimated:.2f} | {self.took:.2f} | {ratio:.2f} | {self.load:.1f} |\n"


def cases() -> Iterator[Case]:
    for workload in WORKLOADS[:4]:
        yield Case(f"{workload.key}: {workload.title}", workload.table, as_udf(UDFS[workload.function]))
    yield Case("3,000 rows of 5 ms each", NUMBER, busy, SLOW_ROWS)
    yield Case("3,000 calls of a coroutine that waits 50 ms, 16 at once a worker", NUMBER, waits, SLOW_ROWS)
    yield Case("100,000 rows of 20 µs, by a class whose `setup` takes 2 s", NUMBER, as_udf(Model), 100_000)


def main() -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        for case in cases():
            for warm in (False, True):
                found.append(measured(case, Path(folder), warm=warm))
                print(found[-1].row(), end="", flush=True)
    head = (
        f"# Estimates\n\nSeconds, in one run of `python -m bench.estimates` on {os.cpu_count()} cores; each estimate from a sample "
        f"of {SAMPLE.seconds:g} s. Load: of the machine in the minute before the backfill ended, what others do included.\n\n"
        "| what | context | estimated | took | ratio | load |\n| --- | --- | --- | --- | --- | --- |\n"
    )
    Path(__file__).with_name("ESTIMATES.md").write_text(head + "".join(outcome.row() for outcome in found))


def measured(case: Case, root: Path, *, warm: bool) -> Outcome:
    """One estimate, and the backfill right after it."""
    source, database = tables.generate(case.table, root), root / "run"
    tables.link(source, database)
    db = runner.connect(str(database))
    with db.context(cluster="local") if warm else nullcontext():
        if warm:
            _fill(db.open_table("tiny"), as_udf(UDFS["text_len"]))
        table = db.open_table("t")
        table.add_columns({tables.OUTPUT: case.function})
        estimated = table.estimate(tables.OUTPUT, sample=SAMPLE, limit=case.limit).seconds
        result = table.backfill(tables.OUTPUT, limit=case.limit, progress=False)
    assert estimated is not None
    return Outcome(case, warm, estimated, result.seconds["total"], os.getloadavg()[0])


def _fill(table: runner.Table, function: UDF) -> None:
    table.add_columns({tables.OUTPUT: function})
    table.backfill(tables.OUTPUT, progress=False)


if __name__ == "__main__":
    main()
