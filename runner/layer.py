"""The columns of a job that can be filled together: plan, compute, publish, and again where the table changed under it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from runner.backfill.carry import Former, carry
from runner.backfill.checkpoint import StagedFragment, kept, staging_root
from runner.backfill.commit import Publisher, TableMoved
from runner.backfill.driver import Meter
from runner.backfill.plan import BackfillPlan, Part, Upstream, field_ids
from runner.backfill.planner import Planner
from runner.backfill.selection import ColumnState
from runner.backfill.settled import SettledRows, from_bytes
from runner.backfill.work import FragmentWork, Pass, TargetColumn
from runner.errors import CommitConflict, RunnerError
from runner.freshness_marks import mark_fresh, mark_published
from runner.read_tags import ReadTags
from runner.shipping import METADATA_KEY, VERSIONS_KEY
from runner.store import refused
from runner.targets import Request, computed_columns, known_versions, resolve

if TYPE_CHECKING:
    from runner.table import Table

MAX_REPLANS = 5
_ADDRESSES = re.compile(r"\b_row(addr|id)\b", re.IGNORECASE)


@dataclass(frozen=True)
class JobParts:
    """What the layers of a job share.

    Attributes:
        check: raises where the job was cancelled.
        compute: runs the works of a plan, and calls back with each fragment that is finished.
        timed: makes a block count as a phase of the job.
        describe: puts a plan with work on record.
    """

    job_id: str
    table: Table
    request: Request
    meter: Meter
    tags: ReadTags
    check: Callable[[], None]
    compute: Callable[[Pass, BackfillPlan, Callable[[StagedFragment], None]], list[StagedFragment]]
    timed: Callable[[str], AbstractContextManager[None]]
    describe: Callable[[BackfillPlan, Pass], None]


@dataclass
class Outcome:
    """What layers did, one after the other.

    Attributes:
        plans: the first plan of each layer.
        skipped: values left NULL by the error policy.
        replans: why a plan was made anew, each time.
        computed: rows computed by column and fragment, as the fragments were then.
        versions: table versions that were made.
    """

    plans: list[BackfillPlan] = field(default_factory=list)
    published: list[StagedFragment] = field(default_factory=list)
    skipped: int = 0
    resumed: int = 0
    replans: list[str] = field(default_factory=list)
    computed: dict[str, dict[int, Any]] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Values published."""
        return sum(fragment.computed * len(fragment.columns) for fragment in self.published)


class Layer:
    """Fills some columns of one table.

    Args:
        outcome: of the layers before; this one adds to it.
        before: see `Upstream`.
        feeds: columns that later layers take their inputs from.
    """

    def __init__(
        self, job: JobParts, columns: Sequence[str], index: int, outcome: Outcome, before: dict[Any, Any], feeds: frozenset[str]
    ) -> None:
        self._job = job
        self._columns = tuple(columns)
        self._index = index
        self._feeds = feeds
        self._targets: dict[str, TargetColumn] = {}
        self._outcome = outcome
        self._upstream = Upstream(outcome.computed, before)
        self._store = job.table.connection.store
        self._formers: list[Former] = []
        self._folders: set[str] = set()
        self._attempts = 0
        self._first_rows = 0
        self._resumed_before = outcome.resumed

    def run(self, formers: Sequence[Former]) -> None:
        """All of it.

        Args:
            formers: plans of jobs that ended early; what they staged is taken over where it is still valid.

        Raises:
            CommitConflict: the table changed again and again. What is staged is kept.
        """
        self._formers = list(formers)
        while self._columns:
            with self._job.timed("plan"):
                self._plan()
            if self._plan_now.is_empty:
                break
            self._job.tags.hold(self._plan_now.read_version)
            self._job.describe(self._plan_now, self._settings)
            try:
                self._fill()
                break
            except TableMoved as moved:
                self._start_over(moved)
        with self._job.timed("commit" if self._outcome.versions else "plan"):
            self._adopt_function()
            self._clean_up()

    def _plan(self) -> None:
        request, outcome = self._job.request, self._outcome
        self._dataset = self._job.table.to_lance()
        self._settings = self._resolve(self._dataset, self._columns)
        self._targets.update((column.name, column) for column in self._settings.columns)
        done = self._first_rows
        part = Part(request.limit - done if request.limit is not None else None, request.num_fragments)
        planner = Planner(self._dataset, self._job.table.name, self._settings, part, self._upstream)
        self._plan_now = planner.plan(self._carry)
        self._job.meter.expect(self._plan_now, outcome.rows, self._resumed_before)
        if not self._attempts:
            outcome.plans.append(self._plan_now)
        self._attempts += 1
        self._folders |= {work.folder.rsplit("/", 1)[0] for work in self._plan_now.selected}

    def _resolve(self, dataset: Any, columns: Sequence[str]) -> Pass:
        table = self._job.table
        made = resolve(
            self._job.request, dataset, table.name, self._store, self._job.job_id,
            allow_pickle=table.connection.allow_pickle, columns=columns,
        )  # fmt: skip
        return replace(made, job_id=f"{self._job.job_id}/{self._index}")

    def _carry(self, works: Sequence[FragmentWork]) -> None:
        for former in self._formers:
            if works and former.works and former.dataset.version != self._dataset.version:
                carry(former, self._dataset, self._settings, works, self._job.check)

    def _fill(self) -> None:
        """Compute what is planned, and publish it, in parts where that is asked for."""
        inputs = {column.name: column.spec.inputs for column in self._settings.columns}
        publisher = Publisher(self._store, self._dataset, self._job.table.path, inputs)
        waiting: list[StagedFragment] = []
        before = self._outcome.rows

        def finished(fragment: StagedFragment) -> None:
            waiting.append(fragment)
            every = self._job.request.commit_every
            if every is not None and sum(part.computed for part in waiting) >= every:
                with suppress(TableMoved), self._job.timed("commit"):  # it is told of at the end, when workers are done
                    self._publish(publisher, waiting)
                self._job.meter.phase = "compute"

        waiting += self._plan_now.staged
        self._job.compute(self._settings, self._plan_now, finished)
        self._outcome.resumed = self._job.meter.rows_resumed
        with self._job.timed("commit"):
            if len(self._outcome.replans) < MAX_REPLANS:
                publisher.check_rows_stayed({work.fragment_id for work in self._plan_now.selected})
            self._publish(publisher, waiting)
        self._outcome.skipped += max(self._plan_now.rows - (self._outcome.rows - before), 0)

    def _publish(self, publisher: Publisher, waiting: list[StagedFragment]) -> None:
        """Publish what waits, and leave waiting what could not be."""
        message = f"backfill of {self._settings.names} (job {self._job.job_id})"
        try:
            with refused("commit to", self._job.table.uri):
                versions = publisher.publish(waiting, message)
        except TableMoved as moved:
            parts = [_only(fragment, moved.published) for fragment in waiting]
            self._note_published([part for part in parts if part.columns], {})
            raise
        self._keep_settled(waiting)
        self._note_published(waiting, versions)
        waiting.clear()

    def _note_published(self, fragments: Sequence[StagedFragment], versions: dict[str, int]) -> None:
        self._outcome.published += fragments
        self._outcome.versions += versions.values()
        self._first_rows += sum(fragment.computed for fragment in fragments if fragment.columns[0].column == self._columns[0])
        ids = {fragment.fragment_id for fragment in fragments}
        if versions and self._dataset.has_stable_row_ids:
            mark_published(self._store, self._dataset, self._job.table.name, self._plan_now, self._settings, versions, ids)
        fed = [(work, name) for work in self._plan_now.selected for name in work.columns if name in self._feeds]
        works = {(work.fragment_id, name): work for work, name in fed}
        for fragment in fragments:
            for column in fragment.columns:
                if column.column not in self._feeds:
                    continue
                work = works[fragment.fragment_id, column.column]
                self._outcome.computed.setdefault(column.column, {})[fragment.fragment_id] = self._selected(work)

    def _selected(self, work: FragmentWork) -> Any:
        from runner.backfill.reader import FragmentRows

        rows = FragmentRows(self._dataset.get_fragment(work.fragment_id))
        return work.selected(rows, self._settings, work.row_map(self._settings))

    def _keep_settled(self, fragments: Sequence[StagedFragment]) -> None:
        """Remember rows that are done and NULL for when a compaction takes their files away."""
        for column in self._settings.columns:
            names = [c.settled for f in fragments for c in f.columns if c.column == column.name and c.settled]
            if names:
                found = (kept(self._store, name) for name in names)
                keys = (from_bytes(data) for data in found if data is not None)
                SettledRows(self._store, self._job.table.name, column.name, column.spec.inputs).add(keys)

    def _start_over(self, moved: TableMoved) -> None:
        """Make ready for a plan of the table as it is now."""
        request = self._job.request
        kept = f"Nothing of {', '.join(self._columns)} was published since, what is still valid is kept; run the backfill again"
        if request.where is not None and _ADDRESSES.search(request.where):
            raise CommitConflict(f"the table changed while the job ran: {moved}, and where names row addresses. {kept}") from moved
        if len(self._outcome.replans) >= MAX_REPLANS:
            raise CommitConflict(
                f"the table changed {MAX_REPLANS + 1} times while the job ran, at last: {moved}. {kept}"
            ) from moved
        self._outcome.replans.append(str(moved))
        self._formers = [Former(self._dataset, self._settings, self._plan_now.selected)]
        self._columns = tuple(name for name in self._columns if name not in moved.published)

    def _adopt_function(self) -> None:
        """Make the function that ran the column's own, and keep which versions its rows may be of."""
        request, schema = self._job.request, self._dataset.schema
        stored = computed_columns(schema)
        updates: dict[str, dict[str, str]] = {}
        for column in self._targets.values():
            known = known_versions(schema.field(column.name))
            is_whole = request.where is None and request.mode in ("refresh", "force") and not request.is_part
            after = [column.spec.version] if is_whole else sorted({*known, column.spec.version})
            if self._plan_now.is_empty and self._attempts == 1 and not request.has_function:
                continue
            if stored.get(column.name) != column.spec or known != after:
                updates[column.name] = {METADATA_KEY: column.spec.to_json(), VERSIONS_KEY: json.dumps(after)}
        if updates:
            latest = self._job.table.to_lance()
            with refused("commit to", self._job.table.uri):
                latest.update_field_metadata(updates)
            self._outcome.versions.append(int(latest.version))

    def _clean_up(self) -> None:
        for folder in self._folders:
            self._store.delete_folder(folder)
        if self._outcome.versions:
            self._forget_maps()
        if self._outcome.versions and self._dataset.has_stable_row_ids:
            mark_fresh(self._store, self._dataset, self._job.table, self._plan_now)

    def _forget_maps(self) -> None:
        """Of data files that are no more."""
        latest = self._job.table.to_lance()
        for column in self._targets.values():
            ids = field_ids(latest, column.name)
            files = {ColumnState.of(fragment.metadata, ids).name or "" for fragment in latest.get_fragments()}
            SettledRows(self._store, self._job.table.name, column.name, column.spec.inputs).forget(files)


def dead_formers(table: Table, request: Request, layers: Sequence[Sequence[str]], dead: dict[str, int]) -> Iterator[list[Former]]:
    """For each layer, the plans of jobs that ended early, from the versions that they had tagged."""
    store = table.connection.store
    if dead and next(iter(store.objects(staging_root(table.name))), None) is None:
        dead = {}
    for columns in layers:
        formers = []
        for version in dead.values():
            with suppress(RunnerError, OSError, ValueError):  # the column was not there then, or the version is gone
                dataset = table.to_lance(version)
                settings = resolve(
                    request, dataset, table.name, store, "former", allow_pickle=table.connection.allow_pickle, columns=columns
                )
                works = Planner(dataset, table.name, settings).works()
                formers.append(Former(dataset, settings, tuple(works)))
        yield formers


def _only(fragment: StagedFragment, columns: Sequence[str]) -> StagedFragment:
    return replace(fragment, columns=tuple(column for column in fragment.columns if column.column in columns))
