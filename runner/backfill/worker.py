"""What a worker does: read the inputs of its fragments, call the functions, write the column files."""

from __future__ import annotations

import collections
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from runner.backfill.blobs import input_batches
from runner.backfill.checkpoint import StagedColumn, StagedFragment, Staging
from runner.backfill.column_file import OTHER_INPUTS, ROWS_KEY, ColumnWriter, FileKind, RowMap
from runner.backfill.failures import Failure, WorkerDied, WrongOutput
from runner.backfill.flight import Applies, Flight, Results
from runner.backfill.offsets import NONE, Offsets, contains, intersection, minus, union
from runner.backfill.open_pass import OpenPass
from runner.backfill.parts import PartSaver, merged
from runner.backfill.process import peak_memory
from runner.backfill.reader import FragmentRows, read
from runner.backfill.settled import settled_keys, to_bytes
from runner.backfill.work import Failed, FragmentWork, Pass, Progress, SpanDone, TargetColumn, WorkerEvent
from runner.errors import RowError, RunnerError
from runner.store import first_line

TELL_SECONDS = 0.5
MAX_KEPT_ERRORS = 10_000  # for each fragment; more failing rows are counted, and their rows are known from the row map

MAX_TOLD_ERRORS = 20


class Worker:
    """Runs works of one backfill pass after another; keeps the table open and the functions loaded in between.

    Args:
        disposable: this process may be ended where a call hangs in C code; another one goes on with its work then.
    """

    def __init__(self, *, disposable: bool = True) -> None:
        self._disposable = disposable
        self._pass: OpenPass | None = None

    def run(self, settings: Pass, works: Sequence[FragmentWork]) -> Iterator[WorkerEvent]:
        """The works in order, and what is to be told of them."""
        try:
            if self._pass is None or self._pass.settings.job_id != settings.job_id:
                self.close()  # frees the last job's model before the next is constructed
                self._pass = OpenPass(settings, disposable=self._disposable)
            elif self._pass.settings.read_version != settings.read_version:
                self._pass = OpenPass(settings, disposable=self._disposable, before=self._pass)
            for work in works:
                yield from _FragmentRun(self._pass, work).run()
        except _RowFailed as exc:
            yield Failed(str(exc), (exc.error,))
        except (RunnerError, WrongOutput) as exc:
            yield Failed(str(exc) if isinstance(exc, RunnerError) else f"{settings.names}: the function {exc}")
        except OSError as exc:  # of the storage; what the function raises is a failure of its row
            yield Failed(f"{settings.names}: cannot read from or write to {settings.store.uri}: {first_line(exc)}")
        finally:
            if self._pass is not None:
                self._pass.end_isolated()

    def close(self) -> None:
        """Let go of the pass, with the functions' threads and processes."""
        if self._pass is not None:
            self._pass.close()
            self._pass = None


class _RowFailed(Exception):
    def __init__(self, message: str, error: RowError) -> None:
        super().__init__(message)
        self.error = error


class _FragmentRun:
    """One work on one fragment."""

    def __init__(self, opened: OpenPass, work: FragmentWork) -> None:
        self._opened = opened
        self._settings = opened.settings
        self._work = work
        self._columns = [self._settings.column(name) for name in work.columns]
        self._staging = Staging(self._settings.store, work.folder)
        self._rows = FragmentRows(opened.dataset.get_fragment(work.fragment_id))
        self._row_map = work.row_map(self._settings)
        self._errors: list[RowError] = list(work.errors)
        self._newly_failed = self._bytes_read = 0
        self._kinds: collections.Counter[str] = collections.Counter()
        self._errors_told = len(self._errors)
        self._failed: list[Offsets] = []
        self._saver = PartSaver(self._staging, work.columns)

    def run(self) -> Iterator[WorkerEvent]:
        try:
            finished = self._staging.finished(self._settings.policy) if self._work.has_parts and self._work.span is None else None
            if finished is not None:  # by a worker that died before it could tell
                yield finished
                return
            selected = self._work.selected(self._rows, self._settings, self._row_map)
            if self._work.join:
                yield self._join(selected)
                return
            covered = self._staging.covered() if self._work.has_parts else NONE
            span = self._work.span or (0, len(selected))
            todo = minus(selected[span[0] : span[1]], covered)
            taken_over = span[1] - span[0] - len(todo)
            if taken_over:
                yield Progress(resumed=taken_over * len(self._columns))
            if self._work.span is not None or len(covered):
                yield from self._compute(todo, None)
                self._saver.flush()
                yield SpanDone(self._work, tuple(self._errors)) if self._work.span is not None else self._join(selected)
            else:
                writers = self._open_writers(selected)
                yield from self._compute(todo, writers)
                yield self._close(writers, selected, union(*self._failed))
        finally:
            self._saver.close()

    # -- compute

    def _compute(self, todo: Offsets, writers: list[_StagedWriter] | None) -> Iterator[WorkerEvent]:
        if self._work.cause is not None:
            if len(todo):
                self._blame(todo, self._work.cause)
            yield self._progress(0)
            return
        appliers = self._opened.appliers(self._columns, careful=self._work.careful)
        told, computed = time.monotonic(), 0
        with closing(self._read(self._inputs(appliers.values()), todo)) as chunks:
            for offsets, results in Flight(appliers, self._opened.pacer).results(self._counted(chunks)):
                computed += self._put(offsets, results, writers)
                if time.monotonic() - told > TELL_SECONDS:
                    yield self._progress(computed)
                    told, computed = time.monotonic(), 0
        yield self._progress(computed)

    def _inputs(self, appliers: Iterable[Applies]) -> list[str]:
        return list(dict.fromkeys(key for applier in appliers for key in applier.inputs or ()))

    def _read(self, keys: list[str], todo: Offsets) -> Generator[tuple[Offsets, pa.RecordBatch], None, None]:
        return input_batches(self._rows, self._opened.dataset, keys, todo, multiple_of=self._settings.batch_size)

    def _counted(self, chunks: Iterable[tuple[Offsets, pa.RecordBatch]]) -> Iterator[tuple[Offsets, pa.RecordBatch]]:
        for offsets, batch in chunks:
            self._bytes_read += batch.nbytes
            yield offsets, batch

    def _progress(self, computed: int) -> Progress:
        new = tuple(self._errors[self._errors_told :][:MAX_TOLD_ERRORS])
        width = len(self._columns)
        calls, seconds = self._opened.pacer.told()
        made = Progress(
            computed * width, self._newly_failed * width, self._bytes_read, errors=new, kinds=tuple(self._kinds.items()),
            calls=calls, call_seconds=seconds, memory=peak_memory(),
        )  # fmt: skip
        self._newly_failed = self._bytes_read = 0
        self._kinds.clear()
        self._errors_told = len(self._errors)
        return made

    def _put(self, offsets: Offsets, results: Results, writers: list[_StagedWriter] | None) -> int:
        """Keep the results of some rows; returns how many are good in every column."""
        failures = sorted((f for _, found in results.values() for f in found), key=lambda failure: failure.row)
        if failures and self._settings.policy.then == "fail":
            self._keep_before(failures[0], offsets, results)
            raise self._failure(failures[0], offsets)
        arrays = [output_of(results[column.function_key][0], column.spec.output) for column in self._columns]
        if writers:
            for writer, array in zip(writers, arrays, strict=True):
                writer.inner.put(offsets, array)
        if not failures:
            self._saver.add(offsets, arrays)
            return len(offsets)
        bad = np.unique(np.array([failure.row for failure in failures], np.int64))
        self._note(failures, offsets, bad)
        good = np.setdiff1d(np.arange(len(offsets)), bad)
        self._saver.add(offsets[good], [array.take(pa.array(good)) for array in arrays])
        return len(good)

    def _blame(self, offsets: Offsets, cause: str) -> None:
        """The one row of the work is what kills its workers."""
        failures = [Failure(0, WorkerDied.__name__, f"the worker died: {cause}", "")]
        if self._settings.policy.then == "fail":
            raise self._failure(failures[0], offsets)
        self._note(failures, offsets, np.zeros(1, np.int64))

    def _note(self, failures: list[Failure], offsets: Offsets, bad: Any) -> None:
        self._failed.append(offsets[bad])
        self._newly_failed += len(bad)
        self._kinds.update(failure.error for failure in failures)
        room = MAX_KEPT_ERRORS - len(self._errors)
        self._errors.extend(self._row_error(failure, offsets) for failure in failures[:room])

    def _keep_before(self, failure: Failure, offsets: Offsets, results: Results) -> None:
        """Save the rows before the one that ends the job, so that they are not computed again."""
        count = min([failure.row, *(len(array) for array, _ in results.values())])
        arrays = [output_of(results[column.function_key][0], column.spec.output)[:count] for column in self._columns]
        self._saver.add(offsets[:count], arrays)
        self._saver.flush()

    def _row_error(self, failure: Failure, offsets: Offsets) -> RowError:
        address = (self._work.fragment_id << 32) | int(offsets[failure.row])
        return RowError(address, failure.error, failure.message, failure.traceback)

    def _failure(self, failure: Failure, offsets: Offsets) -> _RowFailed:
        error = self._row_error(failure, offsets)
        where = f"row {error.offset} of fragment {error.fragment_id} (_rowaddr = {error.row_address})"
        return _RowFailed(f"{self._settings.names}: {failure.error} at {where}: {failure.message}", error)

    # -- column files

    def _open_writers(self, selected: Offsets) -> list[_StagedWriter]:
        keeps_base = self._work.state.name is not None and len(selected) < self._rows.live
        return [self._open_writer(column, keeps_base) for column in self._columns]

    def _open_writer(self, column: TargetColumn, keeps_base: bool) -> _StagedWriter:
        path = self._staging.new_column_path()
        inner = self._opened.new_file(path, pa.schema([column.field]))
        writer = ColumnWriter(inner, column.field, self._rows.physical, self._base(column) if keeps_base else None)
        return _StagedWriter(column, path, writer)

    def _base(self, column: TargetColumn) -> Iterator[tuple[Offsets, Any]]:
        for offsets, batch in read(self._rows, [column.name], self._rows.offsets()):
            yield offsets, batch.column(0)

    def _close(self, writers: list[_StagedWriter], selected: Offsets, failed: Offsets) -> WorkerEvent:
        self._saver.wait()
        staged = []
        for writer in writers:
            kind, row_map = self._provenance(writer.column, selected, failed)
            size = writer.inner.close({ROWS_KEY: row_map.to_json()} if row_map else {})
            version = writer.column.spec.version
            settled = self._save_settled(writer, minus(selected, failed), failed)
            fits = not self._work.unknown or len(selected) == self._rows.live
            staged.append(StagedColumn(writer.column.name, writer.path, self._rows.physical, size, kind, version, settled, fits))
        made = StagedFragment(self._work.fragment_id, len(selected) - len(failed), tuple(staged), tuple(self._errors))
        self._staging.finish(made)
        return made

    def _save_settled(self, writer: _StagedWriter, made: Offsets, skipped: Offsets) -> str | None:
        """Stage the keys of rows that are done and NULL, for when a compaction has merged this file with others."""
        spec = writer.column.spec
        keys = settled_keys(self._rows, spec.inputs, spec.version, writer.inner.nulls, made, skipped)
        if keys is None:
            return None
        return self._staging.keep(f"{writer.path.removesuffix('.lance')}.settled", to_bytes(keys))

    def _provenance(self, column: TargetColumn, selected: Offsets, failed: Offsets) -> tuple[FileKind, RowMap | None]:
        """What the new file is: of one version throughout, or with a row map."""
        version = column.spec.version
        if len(selected) == self._rows.live and not len(failed):
            return "full", None
        before = self._implied_map(column) if self._row_map is None or self._work.known else self._row_map
        changed = intersection(before.rows(), self._work.changed)
        after = before.record(OTHER_INPUTS, changed, NONE).record(version, minus(selected, failed), failed)
        skipped = after.skipped.get(version, NONE)
        settled = union(after.made.get(version, NONE), skipped)
        if not contains(settled, self._rows.offsets()).all():
            return "map", after
        return ("skip", after) if len(skipped) else ("full", None)

    def _implied_map(self, column: TargetColumn) -> RowMap:
        """The map of a file that has none: all rows of the version in its name, or those with a value of the only version."""
        empty = RowMap(self._rows.physical)
        tag = self._work.state.tag
        known = self._settings.versions_by_digest.get(tag.version) if tag else column.selection.attributed
        if self._work.state.name is None or (known is None and self._work.known is None):
            return empty
        if tag is not None and known is not None:
            return RowMap(self._rows.physical, {known: self._rows.offsets()})
        nulls = self._rows.matching(f"(`{column.name}` IS NULL)")
        values = RowMap(self._rows.physical, {known: minus(self._rows.offsets(), nulls)} if known else {})
        return values.merged(self._work.known) if self._work.known else values

    def _join(self, selected: Offsets) -> WorkerEvent:
        """Put a fragment's parts together in their final form."""
        writers = self._open_writers(selected)
        covered = [NONE]
        for offsets, columns in merged(self._staging):
            covered.append(offsets)
            for writer in writers:
                writer.inner.put(offsets, columns[writer.column.name])
        failed = minus(selected, np.concatenate(covered))
        return self._close(writers, selected, failed)


@dataclass
class _StagedWriter:
    column: TargetColumn
    path: str
    inner: ColumnWriter


def output_of(values: Any, output: str | None) -> Any:
    """The array of one output column, of a struct array where it takes one field of several."""
    if output is None:
        return values
    index = values.type.get_field_index(output)
    return values.flatten()[index]
