"""Run a pass's functions on some rows here, as a worker would, to see what a row takes. Nothing of it is kept."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from lance.file import LanceFileWriter

from runner.backfill.blobs import input_batches
from runner.backfill.compute import Ahead
from runner.backfill.failures import Failure, WrongOutput
from runner.backfill.flight import Flight, Results
from runner.backfill.offsets import Offsets
from runner.backfill.open_pass import OpenPass
from runner.backfill.reader import FragmentRows, keep_freed_memory
from runner.backfill.work import FragmentWork, Pass
from runner.backfill.worker import output_of
from runner.errors import RunnerError, StorageError
from runner.store import first_line

MOST_WORKS = 4
MAX_KEPT_FAILURES = 5


@dataclass(frozen=True)
class Sample:
    """What some rows took in one worker, by itself on this machine.

    Attributes:
        rows, failed: rows that were computed, and those of them that the function failed on.
        setup_seconds: opening the table, constructing the functions, with their ``setup``, and the first call, which may load more.
        row_seconds: of one row once batches have their size: reading, calling, encoding; by the clock.
        row_cpu_seconds: the same in CPU time of all threads.
        work_seconds: of one fragment beyond its rows: opening it, the first read, small first batches, closing its file.
        row_bytes: of the inputs of one row in memory.
        seconds: all that the sample took.
        failures: the first of those that failed.
    """

    rows: int
    failed: int
    setup_seconds: float
    row_seconds: float
    row_cpu_seconds: float
    work_seconds: float
    row_bytes: float
    seconds: float
    failures: tuple[Failure, ...] = ()


def sample(settings: Pass, works: Sequence[FragmentWork], rows: int | None, seconds: float) -> Sample:
    """Compute the first rows of a few of the works, spread over all of them.

    Column files go to a temporary folder of this machine and are removed, so encoding is in the figures and the writes of a store
    that is far are not. Rows that fail do not end it, whatever the policy.

    Args:
        rows: so many at most; None for as many as there is time for.
        seconds: for all but the setup; a call that takes longer is waited for.

    Raises:
        RunnerError: a function cannot be constructed, returns what it did not declare, or the storage fails.
    """
    try:
        return _sample(settings, works, rows, seconds)
    except WrongOutput as exc:
        raise RunnerError(f"{settings.names}: the function {exc}") from exc
    except OSError as exc:
        raise StorageError(f"{settings.names}: cannot read from {settings.store.uri}: {first_line(exc)}") from exc


def _sample(settings: Pass, works: Sequence[FragmentWork], rows: int | None, seconds: float) -> Sample:
    began = time.perf_counter()
    keep_freed_memory()  # as workers do
    policy = dataclasses.replace(settings.policy, then="skip", most=None)
    opened = OpenPass(dataclasses.replace(settings, policy=policy), disposable=False)
    with ExitStack() as stack:
        stack.callback(opened.close)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="infill-sample-"))
        sampler = _Sampler(opened, folder)
        chosen = _spread(works)
        sampler.warm_up(chosen[0])
        setup = time.perf_counter() - began
        until = time.perf_counter() + seconds
        for number, work in enumerate(chosen):
            left, now = len(chosen) - number, time.perf_counter()
            share = None if rows is None else -(-(rows - sampler.rows) // left)
            if share != 0 and (now < until or not sampler.rows):
                sampler.run(work, share, now + (until - now) / left)
        return sampler.summed(setup, time.perf_counter() - began)


def _spread(works: Sequence[FragmentWork]) -> list[FragmentWork]:
    count = min(len(works), MOST_WORKS)
    return [works[number * len(works) // count] for number in range(count)]


@dataclass(frozen=True)
class _Step:
    """Rows that came out together, and the time since the ones before, or since the work began."""

    rows: int
    wall: float
    cpu: float
    is_first: bool


@dataclass
class _Sampler:
    """Runs works in part and notes what they took."""

    opened: OpenPass
    folder: str
    steps: list[_Step] = field(default_factory=list)
    works: list[tuple[int, float]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    bytes_read: int = 0
    rows_read: int = 0
    overlaps: bool = False

    @property
    def rows(self) -> int:
        """Computed so far."""
        return sum(step.rows for step in self.steps)

    def warm_up(self, work: FragmentWork) -> None:
        """Construct the functions, and call them with one row."""
        for _ in self._results(work, 1):
            pass

    def run(self, work: FragmentWork, most_rows: int | None, until: float) -> None:
        """The first rows of a work, until that moment."""
        began = at = time.perf_counter()
        cpu, rows = time.process_time(), 0
        columns = [self.opened.settings.column(name) for name in work.columns]
        with ExitStack() as stack:
            results = stack.enter_context(closing(self._results(work, most_rows)))
            paths = [f"{self.folder}/{len(self.works)}-{number}.lance" for number in range(len(columns))]
            version = self.opened.dataset.data_storage_version
            schemas = [pa.schema([column.field]) for column in columns]
            writers = [
                stack.enter_context(LanceFileWriter(path, schema, version=version))
                for path, schema in zip(paths, schemas, strict=True)
            ]
            for offsets, found in results:
                self._note(offsets, found)
                for column, writer, schema in zip(columns, writers, schemas, strict=True):
                    values = output_of(found[column.function_key][0], column.spec.output)
                    writer.write_batch(pa.record_batch([values], schema=schema))
                now, now_cpu = time.perf_counter(), time.process_time()
                self.steps.append(_Step(len(offsets), now - at, now_cpu - cpu, not rows))
                rows, at, cpu = rows + len(offsets), now, now_cpu
                if now > until:
                    break
        self.works.append((rows, time.perf_counter() - began))

    def _results(self, work: FragmentWork, most_rows: int | None) -> Generator[tuple[Offsets, Results], None, None]:
        settings, dataset = self.opened.settings, self.opened.dataset
        rows = FragmentRows(dataset.get_fragment(work.fragment_id))
        todo = work.selected(rows, settings, work.row_map(settings))[:most_rows]
        appliers = self.opened.appliers([settings.column(name) for name in work.columns], careful=False)
        keys = list(dict.fromkeys(key for applier in appliers.values() for key in applier.inputs or ()))
        with closing(input_batches(rows, dataset, keys, todo, multiple_of=settings.batch_size)) as chunks:
            self.overlaps = any(applier.ahead != Ahead() for applier in appliers.values())
            yield from Flight(appliers, self.opened.pacer).results(self._counted(chunks))

    def _counted(self, chunks: Iterable[tuple[Offsets, Any]]) -> Iterator[tuple[Offsets, Any]]:
        for offsets, batch in chunks:
            self.bytes_read += batch.nbytes
            self.rows_read += len(offsets)
            yield offsets, batch

    def _note(self, offsets: Offsets, found: Mapping[str, tuple[Any, list[Failure]]]) -> None:
        failures = [failure for _, some in found.values() for failure in some]
        self.failed += len({int(offsets[failure.row]) for failure in failures})
        self.failures += failures[: MAX_KEPT_FAILURES - len(self.failures)]

    def summed(self, setup: float, seconds: float) -> Sample:
        steady = self._steady()
        rows = sum(step.rows for step in steady)
        row_seconds = sum(step.wall for step in steady) / rows
        return Sample(
            rows=self.rows,
            failed=self.failed,
            setup_seconds=setup,
            row_seconds=row_seconds,
            row_cpu_seconds=sum(step.cpu for step in steady) / rows,
            work_seconds=max(statistics.median(wall - count * row_seconds for count, wall in self.works), 0.0),
            row_bytes=self.bytes_read / self.rows_read,
            seconds=seconds,
            failures=tuple(self.failures),
        )

    def _steady(self) -> list[_Step]:
        """The later half of the rows; the first step of a work waits for its first read. All of them where calls overlap: what one
        waits for, those behind it have waited for too.
        """
        if self.overlaps:
            return self.steps
        steps = [step for step in self.steps if not step.is_first] or self.steps
        half, behind = sum(step.rows for step in steps) / 2, 0
        for index in range(len(steps) - 1, -1, -1):
            behind += steps[index].rows
            if behind >= half:
                return steps[index:]
        return steps
