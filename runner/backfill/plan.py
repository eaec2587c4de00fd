"""What a backfill will do: one read version, the fragments that need work, tasks sized to keep every worker busy."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from runner.backfill.checkpoint import StagedFragment, Staging, done_path, staging_folder, staging_key
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState, Selected, is_settled, select, stale_rows, takes_all
from runner.backfill.work import FragmentWork, Pass, TargetColumn

TASKS_PER_WORKER = 8  # enough of them that the last ones to finish do so together
IMBALANCE = 1.15  # a schedule of whole fragments this much longer than the ideal is worth splitting fragments for
MAX_PLANNED_OFFSETS = 4_000_000  # rows sent with the works (4 bytes each); beyond, workers select again
SCAN_THREADS = 8


@dataclass(frozen=True)
class BackfillPlan:
    """What `Table.backfill` would do now.

    Attributes:
        table, columns: what is filled.
        read_version: table version that inputs are read at.
        total_rows: live rows that match ``where``, over the columns.
        rows: rows to compute, over the columns; `resumed_rows` of them are finished by an earlier run and only to publish.
        valid_rows: rows that need nothing.
        stale_rows: rows made by another function version that this plan leaves as they are.
        fragments: fragments with work, of `total_fragments`.
        works: one for each fragment and set of columns.
        staged: fragments that an earlier run finished.
    """

    table: str
    columns: tuple[str, ...]
    versions: tuple[str, ...]
    read_version: int
    total_rows: int
    rows: int
    resumed_rows: int
    valid_rows: int
    stale_rows: int
    fragments: int
    total_fragments: int
    works: tuple[FragmentWork, ...] = field(repr=False)
    staged: tuple[StagedFragment, ...] = field(repr=False)

    @property
    def is_empty(self) -> bool:
        return not self.works and not self.staged

    def describe(self) -> str:
        """The plan in a few lines of plain text."""
        lines = [
            f"backfill of {', '.join(self.columns)} in {self.table} at version {self.read_version}",
            f"  rows to compute   {self.rows:>14,} of {self.total_rows:,}",
            f"  rows already done {self.valid_rows:>14,}",
            f"  fragments         {self.fragments:>14,} of {self.total_fragments:,}",
        ]
        if self.resumed_rows:
            lines.append(f"  taken over        {self.resumed_rows:>14,} rows that an earlier run finished")
        if self.stale_rows:
            lines.append(f"  stale             {self.stale_rows:>14,} rows of an older function version; stale=True computes them")
        return "\n".join(lines)


@dataclass
class _Tally:
    """Counts of one column in one fragment."""

    considered: int = 0
    stale: int = 0
    work: FragmentWork | None = None


class Planner:
    """Plans one pass over an open dataset."""

    def __init__(self, dataset: Any, table: str, settings: Pass) -> None:
        self._dataset = dataset
        self._table = table
        self._settings = settings
        self._field_ids = {column.name: field_ids(dataset, column.name) for column in settings.columns}
        self._input_ids = {
            column.name: set().union(*(field_ids(dataset, name) for name in column.spec.inputs)) for column in settings.columns
        }

    def plan(self) -> BackfillPlan:
        fragments = list(self._dataset.get_fragments())
        with ThreadPoolExecutor(SCAN_THREADS, "runner-plan") as threads:
            tallies = list(threads.map(self._fragment, fragments))
        works = [work for per_fragment in tallies for work in self._grouped(tally.work for tally in per_fragment if tally.work)]
        rows = sum(work.rows * len(work.columns) for work in works)
        works, staged = self._take_over(_forget_offsets_if_many(works))
        flat = [tally for per_fragment in tallies for tally in per_fragment]
        total = sum(tally.considered for tally in flat)
        return BackfillPlan(
            table=self._table,
            columns=tuple(column.name for column in self._settings.columns),
            versions=tuple(column.spec.version for column in self._settings.columns),
            read_version=self._settings.read_version,
            total_rows=total,
            rows=rows,
            resumed_rows=sum(fragment.computed * len(fragment.columns) for fragment in staged),
            valid_rows=total - rows,
            stale_rows=sum(tally.stale for tally in flat),
            fragments=len({work.fragment_id for work in works} | {fragment.fragment_id for fragment in staged}),
            total_fragments=len(fragments),
            works=tuple(works),
            staged=tuple(staged),
        )

    def _fragment(self, fragment: Any) -> list[_Tally]:
        meta = fragment.metadata
        return [self._column(fragment, meta, column) for column in self._settings.columns]

    def _column(self, fragment: Any, meta: Any, column: TargetColumn) -> _Tally:
        state = ColumnState.of(meta, self._field_ids[column.name])
        rows = FragmentRows(fragment)
        selection = column.selection
        if selection.where is None and is_settled(state, selection):
            return _Tally(rows.live, rows.live if state.tag and not state.tag.is_of(selection.version) else 0)
        if selection.where is None and takes_all(state, selection):
            return _Tally(rows.live, 0, self._work(meta, column, state, rows.live, None))
        row_map = state.row_map(self._settings.data_url, self._settings.store.storage_options)
        found: Selected = select(rows, column.name, state, selection, row_map)
        stale = stale_rows(rows, column.name, state, selection, row_map) if selection.mode == "missing" else 0
        if not len(found.offsets):
            return _Tally(found.considered, stale)
        work = self._work(meta, column, state, len(found.offsets), found.offsets)
        return _Tally(found.considered, stale, work)

    def _work(self, meta: Any, column: TargetColumn, state: ColumnState, rows: int, offsets: Any) -> FragmentWork:
        return FragmentWork(meta.id, (column.name,), state, rows, self._folder(meta, (column,), [state.name]), offsets=offsets)

    def _folder(self, meta: Any, columns: Sequence[TargetColumn], bases: Sequence[str | None]) -> str:
        """Where the work of a fragment is staged: named by all that the values and the choice of rows depend on."""
        needed = set().union(*(self._input_ids[column.name] for column in columns))
        where = columns[0].selection.where
        inputs = [str(file.path) for file in meta.files if where or needed.intersection(file.fields)]
        key = staging_key(
            fragment=meta.id,
            rows=meta.physical_rows,
            inputs=inputs,
            deletions=repr(meta.deletion_file) if where or any(bases) else "",
            bases=list(bases),
            columns=[[c.name, str(c.field.type), c.spec.version, c.spec.inputs, c.spec.output] for c in columns],
            selection=[where, columns[0].selection.mode],
        )
        return f"{staging_folder(self._table, [column.name for column in columns])}/{meta.id}-{key}"

    def _grouped(self, works: Iterable[FragmentWork]) -> list[FragmentWork]:
        """Columns of a fragment that need the same rows, all of them or all that match, become one work: inputs are read once.

        Where rows may be skipped only columns of the same function do, as a row fails in each function by itself.
        """
        grouped: dict[str, list[FragmentWork]] = {}
        for work in works:
            column = self._settings.column(work.columns[0])
            takes_all_rows = work.offsets is None or work.state.name is None
            shared = column.function_key if self._settings.policy.then == "skip" else ""
            grouped.setdefault(shared if takes_all_rows else f"{column.name} alone", []).append(work)
        return [group[0] if len(group) == 1 else self._together(group) for group in grouped.values()]

    def _together(self, works: Sequence[FragmentWork]) -> FragmentWork:
        columns = [self._settings.column(work.columns[0]) for work in works]
        meta = self._dataset.get_fragment(works[0].fragment_id).metadata
        folder = self._folder(meta, columns, [work.state.name for work in works])
        return dataclasses.replace(works[0], columns=tuple(column.name for column in columns), folder=folder)

    def _take_over(self, works: list[FragmentWork]) -> tuple[list[FragmentWork], list[StagedFragment]]:
        """Split off what an earlier run finished; mark what it began."""
        store = self._settings.store
        roots = {work.folder.rsplit("/", 1)[0] for work in works}
        existing = {path for root in roots for path, _ in store.objects(root)}
        begun = {path.rsplit("/", 1)[0] for path in existing if path.endswith(".part")}
        left: list[FragmentWork] = []
        staged: list[StagedFragment] = []
        for work in works:
            is_done = done_path(work.folder) in existing
            found = Staging(store, work.folder).finished(self._settings.policy) if is_done else None
            if found is not None and all(column.path in existing for column in found.columns):
                staged.append(found)
            else:
                left.append(dataclasses.replace(work, has_parts=work.folder in begun))
        return left, staged


def tasks(works: Sequence[FragmentWork], workers: int) -> list[tuple[FragmentWork, ...]]:
    """Bundle small works and split large ones, largest task first.

    A split work comes back as several with a `span` each; its parts are joined when all of them are done.
    """
    total = sum(work.rows for work in works)
    ideal = max(total / max(workers, 1), 1)
    target = max(ideal / TASKS_PER_WORKER, 1)
    pieces = _split(works, workers, ideal) if _makespan([work.rows for work in works], workers) > IMBALANCE * ideal else list(works)
    bundles: list[tuple[FragmentWork, ...]] = []
    bundle: list[FragmentWork] = []
    rows = 0
    for work in sorted(pieces, key=lambda work: -work.rows):
        bundle.append(work)
        rows += work.rows
        if rows >= target:
            bundles.append(tuple(bundle))
            bundle, rows = [], 0
    return [*bundles, tuple(bundle)] if bundle else bundles


def _split(works: Sequence[FragmentWork], workers: int, ideal: float) -> list[FragmentWork]:
    size = max(int(ideal / 4), 1)
    pieces: list[FragmentWork] = []
    for work in works:
        count = min(work.rows, -(-work.rows // size)) if work.rows > ideal / 2 else 1
        if count < 2 or workers < 2:
            pieces.append(work)
            continue
        edges = [work.rows * i // count for i in range(count + 1)]
        pieces += [dataclasses.replace(work, span=(start, stop), rows=stop - start) for start, stop in itertools.pairwise(edges)]
    return pieces


def _makespan(sizes: Sequence[int], workers: int) -> int:
    """Rows on the busiest worker when the largest fragments go first to whoever is free."""
    loads = [0] * max(workers, 1)
    for size in sorted(sizes, reverse=True):
        heapq.heappushpop(loads, loads[0] + size)
    return max(loads)


def _forget_offsets_if_many(works: list[FragmentWork]) -> list[FragmentWork]:
    planned = sum(len(work.offsets) for work in works if work.offsets is not None)
    return [dataclasses.replace(work, offsets=None) for work in works] if planned > MAX_PLANNED_OFFSETS else works


def field_ids(dataset: Any, column: str) -> set[int]:
    """Ids of a column's field and of all fields below it."""
    found: set[int] = set()
    waiting = [field for field in dataset.lance_schema.fields() if field.name() == column]
    while waiting:
        lance_field = waiting.pop()
        found.add(lance_field.id())
        waiting += lance_field.children()
    return found
