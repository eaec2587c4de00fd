"""`python -m bench.estimates`: what `Table.estimate` says beside what the backfill then takes. Writes bench/ESTIMATES.md.

W1 to W4, and functions that are slow in different ways, in this process and on a Ray that is up.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
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
    """A function on a table, on so many of its rows, in so many rounds."""

    title: str
    table: tables.TableSpec
    function: UDF
    limit: int | None = None
    rounds: int = 2


def cases() -> Iterator[Case]:
    for workload in WORKLOADS[:4]:
        yield Case(f"{workload.key}: {workload.title}", workload.table, as_udf(UDFS[workload.function]), rounds=5)
    yield Case("1,000 rows of 5 ms each", NUMBER, busy, 1_000)
    yield Case("1,000 calls of a coroutine that waits 50 ms, 16 at once a worker", NUMBER, waits, 1_000)
    yield Case("50,000 rows of 20 µs, by a class whose `setup` takes 2 s", NUMBER, as_udf(Model), 50_000)


def main() -> None:
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    lines = []
    work = Path(__file__).with_name(".work")
    work.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for cluster in ("inline", "local"):
            for case in cases():
                lines.append(_measured(case, Path(folder), cluster))
                print(lines[-1], end="", flush=True)
    head = (
        f"# Estimates\n\nSeconds, in one run of `python -m bench.estimates` on {os.cpu_count()} cores. An estimate from a sample "
        f"of {SAMPLE.seconds:g} s, and the backfill right after it, in a context that has done a job before; medians of 5 rounds "
        "of W1 to W4 and of 2 of the others, and between which ratios they lie. Load: of the machine in the last minute, others' "
        "included.\n\n| what | context | estimated | took | ratio | lowest | highest | load |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    Path(__file__).with_name("ESTIMATES.md").write_text(head + "".join(lines))


def _measured(case: Case, root: Path, cluster: str) -> str:
    """The rounds of a case, as a line of the table."""
    source, database = tables.generate(case.table, root), root / "run"
    estimated, took = [], []
    tables.link(source, database)
    with runner.connect(str(database)).context(cluster=cluster):
        for number in range(case.rounds + 1):  # the first is not counted
            tables.link(source, database)
            table = runner.connect(str(database)).open_table("t")
            table.add_columns({tables.OUTPUT: case.function})
            seconds = table.estimate(tables.OUTPUT, sample=SAMPLE, limit=case.limit).seconds
            assert seconds is not None
            result = table.backfill(tables.OUTPUT, limit=case.limit, progress=False)
            if number:
                estimated.append(seconds)
                took.append(result.seconds["total"])
    ratios = [one / other for one, other in zip(estimated, took, strict=True)]
    figures = [statistics.median(values) for values in (estimated, took, ratios)]
    cells = [*(f"{figure:.2f}" for figure in (*figures, min(ratios), max(ratios))), f"{os.getloadavg()[0]:.1f}"]
    return f"| {case.title} | {cluster} | {' | '.join(cells)} |\n"


if __name__ == "__main__":
    main()
