"""Finds out what a backfill has to do: which rows of which fragments, and what of it is done already."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from runner.backfill.checkpoint import StagedFragment, Staging, done_path, staging_folder, staging_key
from runner.backfill.column_file import RowMap, inputs_digest, path_of
from runner.backfill.freshness import Freshness, FreshnessRecords
from runner.backfill.offsets import NONE, Offsets, intersection, minus, union
from runner.backfill.plan import BackfillPlan, Part, Upstream, field_ids, input_files, input_ids
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


@dataclass(slots=True)
class _Tally:
    """Counts of one column in one fragment."""

    considered: int = 0
    stale: int = 0
    changed: int = 0
    unknown: int = 0
    was_fresh: bool = True
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
        self._keeps = False
        self._settled = {c.name: SettledRows(settings.store, table, c.name, c.spec.inputs) for c in settings.columns}

    def plan(self, carry: Callable[[Sequence[FragmentWork]], None] | None = None) -> BackfillPlan:
        """The plan as the table and the staged work are.

        Args:
            carry: called with all works before it is looked which of them are staged; may stage values for them.
        """
        self._keeps = carry is not None
        with ThreadPoolExecutor(SCAN_THREADS, "runner-plan") as threads:
            tallies = dict(_mapped(threads, self._fragment, self._dataset.get_fragments()))
        flat = [tally for per_fragment in tallies.values() for tally in per_fragment]
        wanted = sum(tally.work.rows for tally in flat if tally.work)
        chosen = self._limited([[tally.work for tally in per_fragment if tally.work] for per_fragment in tallies.values()])
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
            total_fragments=len(tallies),
            works=tuple(left),
            staged=tuple(staged),
            selected=tuple(works),
            outdated=self._outdated(tallies),
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
                changed = self._changed(FragmentRows(fragment), fragment.metadata, column, state, self._map_of(state))
                found[column.name, fragment.fragment_id, state.name or ""] = changed
        return found

    def _fragment(self, fragment: Any) -> tuple[int, list[_Tally]]:
        meta = fragment.metadata
        return meta.id, [self._column(fragment, meta, column) for column in self._settings.columns]

    def _column(self, fragment: Any, meta: Any, column: TargetColumn) -> _Tally:
        state = ColumnState.of(meta, self._field_ids[column.name])
        rows = FragmentRows(fragment)
        selection = column.selection
        takes_every_row = selection.where is None and takes_all(state, selection)
        row_map = None if takes_every_row else self._map_of(state)
        changed = NONE if takes_every_row else self._changed(rows, meta, column, state, row_map)
        known = None if takes_every_row else self._known(rows, meta, column, state)
        if changed is None and not self._holds_any(rows, column, state, known):
            changed = NONE
        known_changed = NONE if changed is None else changed
        due = self._upstream.due(column, meta.id)
        due = intersection(rows.offsets(), due) if len(due) else due
        due = union(due, known_changed) if selection.mode == "refresh" else due
        tally = _Tally(rows.live, was_fresh=changed is not None and not len(changed), unknown=rows.live if changed is None else 0)
        if selection.where is None and not len(due) and is_settled(state, selection):
            tally.stale = rows.live if state.tag and not state.tag.is_of(selection.version) else 0
            tally.changed = len(known_changed)
            return tally
        if takes_every_row:
            tally.work = self._work(meta, column, state, rows.live)
            return tally
        row_map = known or row_map or state.row_map(self._settings.data_url, self._settings.store.storage_options)
        found = select(rows, column.name, state, selection, row_map, due)
        tally.considered = found.considered
        tally.stale = stale_rows(rows, column.name, state, selection, row_map) if selection.mode == "missing" else 0
        tally.changed = len(minus(known_changed, found.offsets))
        tally.unknown = rows.live - len(found.offsets) if changed is None else 0
        if len(found.offsets):
            tally.work = self._work(
                meta,
                column,
                state,
                len(found.offsets),
                offsets=found.offsets,
                known=known,
                due=due,
                changed=known_changed,
                unknown=changed is None,
            )
        return tally

    def _known(self, rows: FragmentRows, meta: Any, column: TargetColumn, state: ColumnState) -> RowMap | None:
        """What is known of rows in a file of Lance's own."""
        if state.name is None or state.tag is not None:
            return None
        digest = inputs_digest(input_files(meta, self._input_ids[column.name]))
        return self._settled[column.name].row_map(rows, state.name, digest, keep=self._keeps)

    def _map_of(self, state: ColumnState) -> RowMap | None:
        """The row map of a file that says that it may have rows of other inputs."""
        is_mixed = state.tag is not None and state.tag.kind == "map"
        return state.row_map(self._settings.data_url, self._settings.store.storage_options) if is_mixed else None

    def _holds_any(self, rows: FragmentRows, column: TargetColumn, state: ColumnState, known: RowMap | None) -> bool:
        """Whether any row of a fragment was computed, so that its inputs may have changed since."""
        if state.tag is not None or known is not None:
            return True
        return len(rows.matching(f"(`{column.name}` IS NULL)")) < rows.live

    def _changed(
        self, rows: FragmentRows, meta: Any, column: TargetColumn, state: ColumnState, row_map: RowMap | None
    ) -> Offsets | None:
        """Rows whose inputs changed since they were computed, None where that cannot be told."""
        key = column.name, meta.id, state.name or ""
        if key in self._upstream.before:
            return self._upstream.before[key]
        digest = inputs_digest(input_files(meta, self._input_ids[column.name]))
        return self._freshness[column.name].changed(rows, state, row_map, digest, has_row_versions=self._has_row_versions)

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
        unknown: bool = False,
    ) -> FragmentWork:
        folder = self._folder(meta, (column,), [state.name], due=due, changed=changed)
        return FragmentWork(
            meta.id, (column.name,), state, rows, folder, offsets, known=known, due=due, changed=changed, unknown=unknown
        )

    def _folder(
        self,
        meta: Any,
        columns: Sequence[TargetColumn],
        bases: Sequence[str | None],
        *,
        first: int | None = None,
        due: Offsets = NONE,
        changed: Offsets = NONE,
    ) -> str:
        """Where the work of a fragment is staged: named by all that the values and the choice of rows depend on."""
        needed = set().union(*(self._input_ids[column.name] for column in columns))
        where = columns[0].selection.where
        inputs = [path_of(file) for file in meta.files if where or needed.intersection(file.fields)]
        key = staging_key(
            fragment=meta.id,
            rows=meta.physical_rows,
            inputs=inputs,
            deletions=repr(meta.deletion_file) if where or first is not None or any(bases) else "",
            bases=list(bases),
            columns=[[c.name, str(c.field.type), c.spec.version, c.spec.inputs, c.spec.output] for c in columns],
            selection=[where, columns[0].selection.mode, first, _digest(due), _digest(changed)],
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
        meta = self._dataset.get_fragment(work.fragment_id).metadata
        folder = self._folder(meta, (column,), [work.state.name], first=most, due=work.due, changed=work.changed)
        return dataclasses.replace(work, rows=most, first=most, folder=folder)

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
        first, bases = works[0], [work.state.name for work in works]
        folder = self._folder(meta, columns, bases, first=first.first, due=first.due, changed=first.changed)
        return dataclasses.replace(first, columns=tuple(column.name for column in columns), folder=folder)

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
                left.append(dataclasses.replace(work, has_parts=True) if work.folder in begun else work)
        return left, staged

    def _outdated(self, tallies: Mapping[int, Sequence[_Tally]]) -> dict[str, frozenset[int]]:
        """For each column, the fragments that are not known to hold values of their inputs once the works are done."""
        may_be_cut = self._part != Part()
        return {
            column.name: frozenset(
                fragment_id
                for fragment_id, per_fragment in tallies.items()
                if per_fragment[index].changed or per_fragment[index].unknown or (may_be_cut and not per_fragment[index].was_fresh)
            )
            for index, column in enumerate(self._settings.columns)
        }


def _mapped(threads: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """`function` of each item. A task for each would cost more than it does. Items are let go of as they are done."""
    waiting = iter(items)
    del items
    chunks = iter(lambda: list(itertools.islice(waiting, CHUNK)), [])
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
