"""Which rows of a fragment need work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from runner.backfill.column_file import FileTag, RowMap, parse_name, path_of, read_row_map
from runner.backfill.offsets import NONE, Offsets, contains, intersection, minus, union
from runner.backfill.reader import FragmentRows

Mode = Literal["missing", "refresh", "force", "failed"]


@dataclass(frozen=True)
class Selection:
    """What a backfill was asked to compute.

    Attributes:
        where: SQL predicate, or None for all rows.
        mode: ``missing``: rows never computed; ``refresh``: rows that `version` did not make from the inputs as they are;
            ``force``: all that match; ``failed``: rows that were skipped.
        version: the function version that will run.
        attributed: version that made the rows of files without a tag (a compaction merged them), where one made all; else None.
    """

    where: str | None
    mode: Mode
    version: str
    attributed: str | None


@dataclass(frozen=True, slots=True)
class ColumnState:
    """The file that holds a column in a fragment.

    Attributes:
        name: its path below ``data/``; None where the fragment has no values of the column at all.
        tag: what its name says; None for a file of somebody else's.
    """

    name: str | None
    tag: FileTag | None

    @classmethod
    def of(cls, fragment_meta: Any, field_ids: set[int]) -> ColumnState:
        for file in fragment_meta.files:
            if field_ids.intersection(file.fields):
                path = path_of(file)
                return cls(path, parse_name(path))
        return cls(None, None)

    def row_map(self, data_url: str, storage_options: Mapping[str, str]) -> RowMap | None:
        if self.tag is None or self.tag.kind == "full":
            return None
        return read_row_map(f"{data_url}/{self.name}", storage_options)


def is_settled(state: ColumnState, selection: Selection) -> bool:
    """Whether the file's name alone tells that nothing is to be done."""
    if selection.mode == "failed":
        return state.name is None or (state.tag is not None and state.tag.kind == "full")
    if state.tag is None or selection.mode == "force" or state.tag.kind == "map":
        return False
    if selection.mode == "missing":
        return True
    return state.tag.is_of(selection.version) and (state.tag.kind == "full" or selection.where is None)


def takes_all(state: ColumnState, selection: Selection) -> bool:
    """Whether every live row that matches `where` needs work, known without reading anything."""
    if selection.mode == "failed":
        return False
    if state.name is None or selection.mode == "force":
        return True
    known_other = state.tag is not None and state.tag.kind != "map" and not state.tag.is_of(selection.version)
    return selection.mode == "refresh" and known_other


@dataclass(frozen=True)
class Selected:
    """Rows to compute, as ascending physical offsets, out of `considered` live rows that match ``where``."""

    offsets: Offsets
    considered: int


def select(
    rows: FragmentRows, column: str, state: ColumnState, selection: Selection, row_map: RowMap | None, due: Offsets = NONE
) -> Selected:
    """The rows of a fragment that need work.

    Args:
        due: rows to compute whatever made them, as their inputs are not what they were.
    """
    matching = rows.matching(selection.where) if selection.where else rows.offsets()
    if is_settled(state, selection):
        return Selected(intersection(matching, due), len(matching))
    if takes_all(state, selection):
        return Selected(matching, len(matching))
    known = row_map or RowMap(rows.physical)
    if selection.mode == "failed":
        return Selected(intersection(matching, union(*known.skipped.values())), len(matching))
    nulls = rows.matching(f"(`{column}` IS NULL)")
    if selection.mode == "missing":
        missing = minus(intersection(matching, nulls), known.rows())
        return Selected(union(missing, intersection(matching, due)), len(matching))
    done = known.made.get(selection.version, NONE)
    if selection.where is None:
        done = union(done, known.skipped.get(selection.version, NONE))
    wanted = minus(matching, done)
    if selection.attributed == selection.version:  # values of unknown origin can only be this version's
        wanted = minus(wanted, minus(minus(rows.offsets(), nulls), known.rows()))
    return Selected(union(wanted, intersection(matching, due)), len(matching))


def stale_rows(rows: FragmentRows, column: str, state: ColumnState, selection: Selection, row_map: RowMap | None) -> int:
    """How many live rows another version made, as far as it is known."""
    if state.tag is not None and state.tag.kind != "map":
        return 0 if state.tag.is_of(selection.version) else rows.live
    if row_map is not None:
        other = row_map.rows(without=selection.version)
        return int(contains(rows.offsets(), other).sum())
    if state.name is not None and selection.attributed not in (None, selection.version):
        return rows.live - len(rows.matching(f"(`{column}` IS NULL)"))
    return 0
