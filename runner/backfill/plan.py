"""What a backfill will do: one read version, the fragments that need work, the rows of them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from runner.backfill.checkpoint import StagedFragment, Staging, done_path, staging_folder, staging_key
from runner.backfill.column_file import RowMap, inputs_digest
from runner.backfill.freshness import Freshness, FreshnessRecords
from runner.backfill.offsets import NONE, Offsets, intersection, minus, union
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState, is_settled, select, stale_rows, takes_all
from runner.backfill.settled import SettledRows
from runner.backfill.work import FragmentWork, Pass, TargetColumn
from runner.store import Store

MAX_PLANNED_OFFSETS = 4_000_000  # rows sent with the works (4 bytes each); beyond, workers select again
SCAN_THREADS = 8
RECORD_THREADS = 16  # that read small objects, each a round trip where the store is far
CHUNK = 64

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class BackfillPlan:
    """What `Table.backfill` would do now.

    Attributes:
        table, columns: what is filled.
        read_version: table version that inputs are read at.
        total_rows: live rows that match ``where``, over the columns.
        rows: rows to compute, over the columns; `resumed_rows` of them are finished by an earlier run and only to publish.
        left_rows: rows that need work and are left for later, by ``limit`` or ``num_fragments``.
        valid_rows: rows that need nothing.
        stale_rows: rows made by another function version that this plan leaves as they are.
        changed_rows: rows whose inputs changed since they were computed, that this plan leaves as they are.
        unknown_rows: rows of which that cannot be told.
        fragments: fragments with work, of `total_fragments`.
        works: one for each fragment and set of columns.
        staged: fragments that an earlier run finished.
        selected: the works of both.
        outdated: columns with fragments that hold values of changed or unknown inputs even after this plan, and which.
    """

    table: str
    columns: tuple[str, ...]
    versions: tuple[str, ...]
    read_version: int
    total_rows: int
    rows: int
    resumed_rows: int
    left_rows: int
    valid_rows: int
    stale_rows: int
    changed_rows: int
    unknown_rows: int
    fragments: int
    total_fragments: int
    works: tuple[FragmentWork, ...] = field(repr=False)
    staged: tuple[StagedFragment, ...] = field(repr=False)
    selected: tuple[FragmentWork, ...] = field(repr=False)
    outdated: Mapping[str, frozenset[int]] = field(repr=False)

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
        if self.left_rows:
            lines.append(f"  left for later    {self.left_rows:>14,} rows")
        if self.resumed_rows:
            lines.append(f"  taken over        {self.resumed_rows:>14,} rows that an earlier run finished")
        if self.stale_rows:
            lines.append(f"  stale             {self.stale_rows:>14,} rows of an older function version; stale=True computes them")
        if self.changed_rows:
            lines.append(f"  inputs changed    {self.changed_rows:>14,} rows since they were computed; stale=True computes them")
        return "\n".join(lines)


@dataclass(frozen=True)
class Part:
    """Which part of what needs work is taken.

    Attributes:
        rows: of each column, the first so many; None for all.
        fragments: the first so many that need work; None for all.
    """

    rows: int | None = None
    fragments: int | None = None


@dataclass(frozen=True)
class Upstream:
    """What the columns before this one in the same job did.

    Attributes:
        computed: rows of each fragment that were computed, so that the columns fed by them are due.
        before: for each column and file of it, the rows whose inputs had changed before the job; None where that was unknown.
    """

    computed: Mapping[str, Mapping[int, Offsets]] = field(default_factory=dict)
    before: Mapping[tuple[str, int, str], Offsets | None] = field(default_factory=dict)

    def due(self, column: TargetColumn, fragment_id: int) -> Offsets:
        return union(*(self.computed.get(name, {}).get(fragment_id, NONE) for name in column.spec.inputs))


@dataclass
class _Tally:
    """Counts of one column in one fragment."""

    considered: int = 0
    stale: int = 0
    changed: int = 0
    unknown: int = 0
    work: FragmentWork | None = None


class Planner:
    """Plans one pass over an open dataset.

    Args:
        part: what of it is taken. Default: all.
        upstream: what the columns before in the same job did.
    """

    def __init__(
        self, dataset: Any, table: str, settings: Pass, part: Part | None = None, upstream: Upstream | None = None
    ) -> None:
        self._dataset = dataset
        self._table = table
        self._settings = settings
        self._part = part or Part()
        self._upstream = upstream or Upstream()
        self._field_ids = {column.name: field_ids(dataset, column.name) for column in settings.columns}
        self._input_ids = {column.name: input_ids(dataset, column.spec.inputs) for column in settings.columns}
        self._has_row_versions = bool(dataset.has_stable_row_ids)
        records = FreshnessRecords(settings.store, table)
        self._freshness: dict[str, Freshness] = {
            name: records.read(name, ids, dataset.version) for name, ids in self._field_ids.items()
        }
        self._settled = {c.name: SettledRows(settings.store, table, c.name, c.spec.inputs) for c in settings.columns}

    def plan(self, carry: Callable[[Sequence[FragmentWork]], None] | None = None) -> BackfillPlan:
        """The plan as the table and the staged work are.

        Args:
            carry: called with all works before it is looked which of them are staged; may stage values for them.
        """
        fragments = list(self._dataset.get_fragments())
        with ThreadPoolExecutor(SCAN_THREADS, "runner-plan") as threads:
            tallies = _mapped(threads, self._fragment, fragments)
        flat = [tally for per_fragment in tallies for tally in per_fragment]
        wanted = sum(tally.work.rows for tally in flat if tally.work)
        chosen = self._limited([[tally.work for tally in per_fragment if tally.work] for per_fragment in tallies])
        works = _forget_offsets_if_many([work for per_fragment in chosen for work in self._grouped(per_fragment)])
        rows = sum(work.rows * len(work.columns) for work in works)
        if carry is not None:
            carry(works)
        left, staged = self._take_over(works)
        total = sum(tally.considered for tally in flat)
        return BackfillPlan(
            table=self._table,
            columns=tuple(column.name for column in self._settings.columns),
            versions=tuple(column.spec.version for column in self._settings.columns),
            read_version=self._settings.read_version,
            total_rows=total,
            rows=rows,
            resumed_rows=sum(fragment.computed * len(fragment.columns) for fragment in staged),
            left_rows=wanted - rows,
            valid_rows=total - wanted,
            stale_rows=sum(tally.stale for tally in flat),
            changed_rows=sum(tally.changed for tally in flat),
            unknown_rows=sum(tally.unknown for tally in flat),
            fragments=len({work.fragment_id for work in works}),
            total_fragments=len(fragments),
            works=tuple(left),
            staged=tuple(staged),
            selected=tuple(works),
            outdated=self._outdated(fragments, tallies),
        )

    def works(self) -> list[FragmentWork]:
        """All works, whether they are staged or not."""
        return list(self.plan().selected)

    def changed_now(self) -> dict[tuple[str, int, str], Offsets | None]:
        """For each column and file of it the rows whose inputs changed since they were computed."""
        found = {}
        for fragment in self._dataset.get_fragments():
            for column in self._settings.columns:
                state = ColumnState.of(fragment.metadata, self._field_ids[column.name])
                changed = self._changed(FragmentRows(fragment), fragment.metadata, column, state)
                found[column.name, fragment.fragment_id, state.name or ""] = changed
        return found

    def _fragment(self, fragment: Any) -> list[_Tally]:
        meta = fragment.metadata
        return [self._column(fragment, meta, column) for column in self._settings.columns]

    def _column(self, fragment: Any, meta: Any, column: TargetColumn) -> _Tally:
        state = ColumnState.of(meta, self._field_ids[column.name])
        rows = FragmentRows(fragment)
        selection = column.selection
        changed = NONE if takes_all(state, selection) and not selection.where else self._changed(rows, meta, column, state)
        known_changed = NONE if changed is None else changed
        due = self._upstream.due(column, meta.id)
        due = intersection(rows.offsets(), due) if len(due) else due
        due = union(due, known_changed) if selection.mode == "refresh" else due
        tally = _Tally(rows.live, unknown=rows.live if changed is None else 0)
        if selection.where is None and not len(due) and is_settled(state, selection):
            tally.stale = rows.live if state.tag and not state.tag.is_of(selection.version) else 0
            tally.changed = len(known_changed)
            return tally
        if selection.where is None and takes_all(state, selection):
            tally.work = self._work(meta, column, state, rows.live)
            return tally
        known = self._settled[column.name].row_map(rows) if state.name is not None and state.tag is None else None
        row_map = known or state.row_map(self._settings.data_url, self._settings.store.storage_options)
        found = select(rows, column.name, state, selection, row_map, due)
        tally.considered = found.considered
        tally.stale = stale_rows(rows, column.name, state, selection, row_map) if selection.mode == "missing" else 0
        tally.changed = len(minus(known_changed, found.offsets))
        tally.unknown = rows.live - len(found.offsets) if changed is None else 0
        if len(found.offsets):
            tally.work = self._work(
                meta, column, state, len(found.offsets), offsets=found.offsets, known=known, due=due, changed=known_changed
            )
        return tally

    def _changed(self, rows: FragmentRows, meta: Any, column: TargetColumn, state: ColumnState) -> Offsets | None:
        """Rows whose inputs changed since they were computed, None where that cannot be told."""
        key = column.name, meta.id, state.name or ""
        if key in self._upstream.before:
            return self._upstream.before[key]
        digest = inputs_digest(input_files(meta, self._input_ids[column.name]))
        return self._freshness[column.name].changed(rows, state, digest, has_row_versions=self._has_row_versions)

    def _work(
        self,
        meta: Any,
        column: TargetColumn,
        state: ColumnState,
        rows: int,
        *,
        offsets: Offsets | None = None,
        known: RowMap | None = None,
        due: Offsets = NONE,
        changed: Offsets = NONE,
    ) -> FragmentWork:
        work = FragmentWork(meta.id, (column.name,), state, rows, "", offsets, known=known, due=due, changed=changed)
        return dataclasses.replace(work, folder=self._folder(meta, work, (column,), [state.name]))

    def _folder(self, meta: Any, work: FragmentWork, columns: Sequence[TargetColumn], bases: Sequence[str | None]) -> str:
        """Where the work of a fragment is staged: named by all that the values and the choice of rows depend on."""
        needed = set().union(*(self._input_ids[column.name] for column in columns))
        where = columns[0].selection.where
        inputs = [str(file.path) for file in meta.files if where or needed.intersection(file.fields)]
        key = staging_key(
            fragment=meta.id,
            rows=meta.physical_rows,
            inputs=inputs,
            deletions=repr(meta.deletion_file) if where or work.first is not None or any(bases) else "",
            bases=list(bases),
            columns=[[c.name, str(c.field.type), c.spec.version, c.spec.inputs, c.spec.output] for c in columns],
            selection=[where, columns[0].selection.mode, work.first, _digest(work.due), _digest(work.changed)],
        )
        return f"{staging_folder(self._table, [column.name for column in columns])}/{meta.id}-{key}"

    def _limited(self, wanted: list[list[FragmentWork]]) -> list[list[FragmentWork]]:
        """The part of the works that is asked for, by fragment."""
        filled = [works for works in wanted if works][: self._part.fragments]
        if self._part.rows is None:
            return filled
        room = dict.fromkeys(self._field_ids, self._part.rows)
        chosen: list[list[FragmentWork]] = []
        for works in filled:
            chosen.append([self._first(work, room[work.columns[0]]) for work in works if room[work.columns[0]]])
            for work in chosen[-1]:
                room[work.columns[0]] -= work.rows
        return chosen

    def _first(self, work: FragmentWork, most: int) -> FragmentWork:
        if work.rows <= most:
            return work
        column = self._settings.column(work.columns[0])
        cut = dataclasses.replace(work, rows=most, first=most)
        meta = self._dataset.get_fragment(work.fragment_id).metadata
        return dataclasses.replace(cut, folder=self._folder(meta, cut, (column,), [work.state.name]))

    def _grouped(self, works: Iterable[FragmentWork]) -> list[FragmentWork]:
        """Columns of a fragment that need the same rows, all of them or all that match, become one work: inputs are read once.

        Where rows may be skipped only columns of the same function do, as a row fails in each function by itself.
        """
        grouped: dict[str, list[FragmentWork]] = {}
        for work in works:
            column = self._settings.column(work.columns[0])
            takes_all_rows = (work.offsets is None and work.first is None) or work.state.name is None
            shared = column.function_key if self._settings.policy.then == "skip" else ""
            grouped.setdefault(shared if takes_all_rows else f"{column.name} alone", []).append(work)
        return [group[0] if len(group) == 1 else self._together(group) for group in grouped.values()]

    def _together(self, works: Sequence[FragmentWork]) -> FragmentWork:
        columns = [self._settings.column(work.columns[0]) for work in works]
        meta = self._dataset.get_fragment(works[0].fragment_id).metadata
        folder = self._folder(meta, works[0], columns, [work.state.name for work in works])
        return dataclasses.replace(works[0], columns=tuple(column.name for column in columns), folder=folder)

    def _take_over(self, works: list[FragmentWork]) -> tuple[list[FragmentWork], list[StagedFragment]]:
        """Split off what an earlier run finished; mark what it began."""
        store = self._settings.store
        existing = staged_paths(store, works)
        begun = {path.rsplit("/", 1)[0] for path in existing if path.endswith(".part")}
        left: list[FragmentWork] = []
        staged: list[StagedFragment] = []

        def finished(work: FragmentWork) -> StagedFragment | None:
            is_done = done_path(work.folder) in existing
            return Staging(store, work.folder).finished(self._settings.policy) if is_done else None

        with ThreadPoolExecutor(RECORD_THREADS, "runner-plan") as threads:
            records = _mapped(threads, finished, works)
        for work, found in zip(works, records, strict=True):
            if found is not None and all(column.path in existing for column in found.columns):
                staged.append(found)
            else:
                left.append(dataclasses.replace(work, has_parts=work.folder in begun))
        return left, staged

    def _outdated(self, fragments: Sequence[Any], tallies: Sequence[Sequence[_Tally]]) -> dict[str, frozenset[int]]:
        """For each column, the fragments that are not known to hold values of their inputs once the works are done."""
        if self._part != Part():
            return {name: frozenset(fragment.fragment_id for fragment in fragments) for name in self._field_ids}
        return {
            column.name: frozenset(
                fragment.fragment_id
                for fragment, per_fragment in zip(fragments, tallies, strict=True)
                if per_fragment[index].changed or per_fragment[index].unknown
            )
            for index, column in enumerate(self._settings.columns)
        }


def _mapped(threads: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """`function` of each item. A task for each would cost more than it does."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    return [result for results in threads.map(lambda chunk: [function(item) for item in chunk], chunks) for result in results]


def staged_paths(store: Store, works: Iterable[FragmentWork]) -> set[str]:
    """Everything that is staged where works of those columns are."""
    roots = {work.folder.rsplit("/", 1)[0] for work in works}
    return {path for root in roots for path, _ in store.objects(root)}


def _forget_offsets_if_many(works: list[FragmentWork]) -> list[FragmentWork]:
    planned = sum(len(work.offsets) for work in works if work.offsets is not None)
    return [dataclasses.replace(work, offsets=None) for work in works] if planned > MAX_PLANNED_OFFSETS else works


def _digest(rows: Offsets) -> str:
    return hashlib.sha256(rows.tobytes()).hexdigest() if len(rows) else ""


def field_ids(dataset: Any, column: str) -> set[int]:
    """Ids of a column's field and of all fields below it."""
    found: set[int] = set()
    waiting = [field for field in dataset.lance_schema.fields() if field.name() == column]
    while waiting:
        lance_field = waiting.pop()
        found.add(lance_field.id())
        waiting += lance_field.children()
    return found


def input_ids(dataset: Any, names: Iterable[str]) -> set[int]:
    """Ids of all fields of some columns."""
    return set().union(*(field_ids(dataset, name) for name in names))


def input_files(meta: Any, ids: set[int]) -> list[str]:
    """The data files of a fragment that hold some fields."""
    return [str(file.path) for file in meta.files if ids.intersection(file.fields)]
