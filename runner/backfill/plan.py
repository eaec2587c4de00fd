"""What a backfill will do: one read version, the fragments that need work, the rows of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.column_file import path_of
from runner.backfill.offsets import NONE, Offsets, union
from runner.backfill.work import FragmentWork, TargetColumn

FIGURES = ("total_rows", "rows", "resumed_rows", "left_rows", "valid_rows", "stale_rows", "changed_rows", "unknown_rows")
"""Of a `BackfillPlan`: those of several layers add up."""


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
    return [path_of(file) for file in meta.files if ids.intersection(file.fields)]
