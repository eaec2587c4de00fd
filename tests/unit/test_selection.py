from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest

from runner.backfill.column_file import FileKind, FileTag, RowMap, file_name, version_digest
from runner.backfill.plan import field_ids
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState, Mode, Selection, is_settled, select, stale_rows, takes_all

LIVE = [0, 1, 3, 4, 5, 6, 7]
ABSENT = ColumnState(None, None)
FOREIGN = ColumnState("somebody.lance", None)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> FragmentRows:
    """Eight rows, number 2 deleted, numbers 3 and 4 NULL in the column."""
    table = pa.table({"n": range(8), "label": [0, 1, 2, None, None, 5, 6, 7]})
    dataset = lance.write_dataset(table, tmp_path_factory.mktemp("selection") / "t.lance")
    dataset.delete("n = 2")
    return FragmentRows(dataset.get_fragment(0))


def ours(kind: FileKind, version: str) -> ColumnState:
    return ColumnState(file_name(kind, version), FileTag(kind, version_digest(version)))


def row_map(made: dict[str, list[int]], skipped: dict[str, list[int]] | None = None) -> RowMap:
    def offsets(sets: dict[str, list[int]]) -> dict[str, Any]:
        return {version: np.array(found, np.uint32) for version, found in sets.items()}

    return RowMap(8, offsets(made), offsets(skipped or {}))


def selection(mode: Mode, where: str | None = None, attributed: str | None = None) -> Selection:
    return Selection(where, mode, "v2", attributed)


MIXED = row_map({"v2": [0, 1], "v1": [5]}, {"v2": [3]})


@pytest.mark.parametrize(
    ("state", "asked", "known", "expected"),
    [
        (ABSENT, selection("missing"), None, LIVE),
        (ABSENT, selection("refresh"), None, LIVE),
        (ABSENT, selection("refresh", "n > 4"), None, [5, 6, 7]),
        (FOREIGN, selection("missing"), None, [3, 4]),
        (ours("full", "v1"), selection("missing"), None, []),
        (ours("skip", "v1"), selection("missing"), row_map({"v1": [0, 1]}, {"v1": [3]}), []),
        (ours("map", "v1"), selection("missing"), row_map({"v1": [0, 1]}, {"v1": [3]}), [4]),
        (ours("map", "v1"), selection("missing"), row_map({"v1": [0, 1, 3]}), [4]),
        (ours("full", "v2"), selection("refresh"), None, []),
        (ours("full", "v2"), selection("refresh", "n > 4"), None, []),
        (ours("full", "v1"), selection("refresh"), None, LIVE),
        (ours("full", "v1"), selection("refresh", "n > 4 and n < 7"), None, [5, 6]),
        (ours("skip", "v1"), selection("refresh"), row_map({"v1": [0, 1]}, {"v1": [3]}), LIVE),
        (ours("skip", "v2"), selection("refresh"), row_map({"v2": [0, 1, 5, 6, 7]}, {"v2": [3, 4]}), []),
        (ours("skip", "v2"), selection("refresh", "n >= 4"), row_map({"v2": [0, 1, 5, 6, 7]}, {"v2": [3, 4]}), [4]),
        (ours("map", "v2"), selection("refresh"), MIXED, [4, 5, 6, 7]),
        (ours("map", "v2"), selection("refresh", "n <= 4"), MIXED, [3, 4]),
        (ours("map", "v2"), selection("refresh", attributed="v2"), MIXED, [4, 5]),
        (FOREIGN, selection("refresh"), None, LIVE),
        (FOREIGN, selection("refresh", attributed="v1"), None, LIVE),
        (FOREIGN, selection("refresh", attributed="v2"), None, [3, 4]),
        (ours("full", "v2"), selection("force"), None, LIVE),
        (ours("full", "v2"), selection("force", "n > 5"), None, [6, 7]),
        (ours("map", "v2"), selection("force", "label IS NULL"), MIXED, [3, 4]),
    ],
)
def test_the_rows_that_need_work_are_selected(
    rows: FragmentRows, state: ColumnState, asked: Selection, known: RowMap | None, expected: list[int]
) -> None:
    found = select(rows, "label", state, asked, known)
    assert found.offsets.tolist() == expected
    assert found.offsets.dtype == np.uint32
    assert found.considered == (len(LIVE) if asked.where is None else len(rows.matching(asked.where)))


@pytest.mark.parametrize("mode", ["missing", "refresh", "force"])
@pytest.mark.parametrize("where", [None, "n > 4"])
@pytest.mark.parametrize("state", [ABSENT, FOREIGN, *(ours(kind, v) for kind in ("full", "skip", "map") for v in ("v1", "v2"))])  # type: ignore[arg-type]
def test_what_is_known_without_reading_is_what_reading_finds(
    rows: FragmentRows, state: ColumnState, mode: Mode, where: str | None
) -> None:
    asked = selection(mode, where)
    found = select(rows, "label", state, asked, row_map({}))
    assert not (is_settled(state, asked) and takes_all(state, asked))
    if takes_all(state, asked):
        assert found.offsets.tolist() == [n for n in LIVE if where is None or n > 4]
    if is_settled(state, asked):
        assert found.offsets.tolist() == []


@pytest.mark.parametrize(
    ("state", "known", "attributed", "expected"),
    [
        (ours("full", "v1"), None, None, 7),
        (ours("skip", "v1"), None, None, 7),
        (ours("full", "v2"), None, "v1", 0),
        (ours("map", "v2"), row_map({"v1": [2, 5], "v2": [0]}, {"v1": [3], "v2": [4]}), None, 2),
        (FOREIGN, None, "v1", 5),
        (FOREIGN, None, "v2", 0),
        (FOREIGN, None, None, 0),
        (ABSENT, None, "v1", 0),
    ],
)
def test_rows_of_other_versions_are_counted_as_far_as_known(
    rows: FragmentRows, state: ColumnState, known: RowMap | None, attributed: str | None, expected: int
) -> None:
    assert stale_rows(rows, "label", state, selection("missing", attributed=attributed), known) == expected


def test_the_file_of_a_column_is_found_among_a_fragments_files(tmp_path: Path) -> None:
    nested = pa.array([{"a": 1, "b": ["x"]}])
    dataset = lance.write_dataset(pa.table({"n": [1], "s": nested}), tmp_path / "t.lance")
    dataset.add_columns({"m": "n + 1"})
    dataset.add_columns(pa.schema([pa.field("empty", pa.int8())]))
    meta = dataset.get_fragment(0).metadata
    states = {name: ColumnState.of(meta, field_ids(dataset, name)) for name in dataset.schema.names}
    assert states["n"] == states["s"] == ColumnState(meta.files[0].path, None)
    assert states["m"] == ColumnState(meta.files[1].path, None)
    assert states["empty"] == ABSENT
    assert len(field_ids(dataset, "s")) == 4
    assert field_ids(dataset, "no") == set()
    assert not field_ids(dataset, "s") & field_ids(dataset, "n")
