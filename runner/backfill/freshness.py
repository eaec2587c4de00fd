"""Which rows' inputs changed since they were computed.

A column file's name tells from which input files its rows were computed. Lance merges such files in a compaction and copies rows
in an update; of the files that come of it, Lance's version of each row's last update tells, where the table has stable row ids.
Writing a column moves that version for every row of a fragment, so the runner keeps which versions are its own and changed
no inputs: ``_runner/freshness/<table>/<column>/own-<version>``. ``as-of-<version>`` says that nothing older is changed.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from runner.backfill.column_file import OTHER_INPUTS, RowMap
from runner.backfill.offsets import NONE, Offsets, intersection
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState
from runner.store import Store

FOLDER = "freshness"


@dataclass(frozen=True)
class Freshness:
    """What is known of a column as a whole.

    Attributes:
        as_of: table version whose rows were all computed from their inputs; None where that is not known.
        own: later versions that the runner made, and that changed no inputs of the column.
    """

    as_of: int | None = None
    own: frozenset[int] = frozenset()

    def changed(
        self, rows: FragmentRows, state: ColumnState, row_map: RowMap | None, inputs: str, *, has_row_versions: bool
    ) -> Offsets | None:
        """Rows of a fragment that hold values of other inputs than theirs; None where that cannot be told.

        Args:
            row_map: that of the column's file; it has rows that were left as they were when their inputs had changed.
            inputs: digest of the fragment's input files.
            has_row_versions: whether the table has stable row ids, and with them a version of each row's last update.
        """
        if state.name is None:
            return NONE
        if state.tag is not None:
            if state.tag.inputs is None:
                return None
            left = row_map.made.get(OTHER_INPUTS, NONE) if row_map else NONE
            return intersection(rows.offsets(), left) if state.tag.inputs == inputs else rows.offsets()
        if self.as_of is None or not has_row_versions:
            return None
        updated = rows.last_updated()
        return rows.offsets()[(updated > self.as_of) & ~np.isin(updated, list(self.own))]


class FreshnessRecords:
    """The records of one table's columns. Every fact is an object of its own, so that jobs of several columns may add to them."""

    def __init__(self, store: Store, table: str) -> None:
        self._store = store
        self._root = f"{FOLDER}/{urllib.parse.quote(table, safe='')}"

    def read(self, column: str, field_ids: Collection[int], latest: int) -> Freshness:
        """What is known of a column. A version above `latest` is of an earlier table of that name, and then nothing is."""
        facts = self._facts(column, field_ids)
        as_of = max((version for kind, version in facts if kind == "as-of"), default=None)
        if as_of is None or any(version > latest for _, version in facts):
            return Freshness()
        return Freshness(as_of, frozenset(version for kind, version in facts if kind == "own" and version > as_of))

    def add_own(self, column: str, field_ids: Collection[int], version: int) -> None:
        """The runner made a version, and the column's rows in what it wrote are still of their inputs."""
        self._store.put(f"{self._folder(column, field_ids)}/own-{version}", b"")

    def advance(self, column: str, field_ids: Collection[int], as_of: int, latest: int) -> None:
        """Every row of the column at a version is of its inputs; what was known of versions before is dropped."""
        folder = self._folder(column, field_ids)
        self._store.put(f"{folder}/as-of-{as_of}", b"")
        facts = self._facts(column, field_ids)
        old = [fact for fact in facts if fact[1] > latest or fact[1] < as_of or fact == ("own", as_of)]
        self._store.delete(f"{folder}/{kind}-{version}" for kind, version in old)

    def _facts(self, column: str, field_ids: Collection[int]) -> set[tuple[str, int]]:
        folder = self._folder(column, field_ids)
        names = [path.rsplit("/", 1)[1] for path, _ in self._store.objects(folder)]
        return {(name.rpartition("-")[0], int(name.rpartition("-")[2])) for name in names}

    def _folder(self, column: str, field_ids: Collection[int]) -> str:
        """Named by the field's id too: another column may get the name of one that was dropped."""
        return f"{self._root}/{urllib.parse.quote(column, safe='')}-{min(field_ids)}"
