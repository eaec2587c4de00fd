from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from lance.file import LanceFileReader, LanceFileWriter
from lance.fragment import DataFile

from runner.backfill import column_file
from runner.backfill.column_file import ROWS_KEY, ColumnWriter, FileTag, RowMap, file_name, parse_name, read_row_map, version_digest
from runner.backfill.offsets import NONE, Offsets

FIELD = pa.field("label", pa.int64())
Chunks = list[tuple[list[int], list[int | None]]]


def rows(*offsets: int) -> Offsets:
    return np.array(offsets, np.uint32)


def chunks(given: Chunks) -> Iterator[tuple[Offsets, pa.Array]]:
    for offsets, values in given:
        yield rows(*offsets), pa.array(values, pa.int64())


def open_writer(path: Path, field: pa.Field, physical: int, base: Iterator[tuple[Offsets, pa.Array]] | None = None) -> ColumnWriter:
    inner = LanceFileWriter(str(path), pa.schema([field]), version="2.2")
    return ColumnWriter(inner, field, physical, base)


def written(path: Path, physical: int, puts: Chunks, base: Chunks | None = None, field: pa.Field = FIELD) -> list[Any]:
    writer = open_writer(path, field, physical, None if base is None else chunks(base))
    for offsets, values in chunks(puts):
        writer.put(offsets, values)
    size = writer.close({})
    assert size == path.stat().st_size
    found = LanceFileReader(str(path)).read_all().to_table()
    assert found.schema.names == [field.name]
    return list(found[field.name].to_pylist())


@pytest.mark.parametrize(
    ("puts", "base", "expected"),
    [
        ([([0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15])], None, [10, 11, 12, 13, 14, 15]),
        ([([0, 1], [10, 11]), ([2, 3, 4, 5], [12, 13, 14, 15])], None, [10, 11, 12, 13, 14, 15]),
        ([([1, 3], [11, 13])], None, [None, 11, None, 13, None, None]),
        ([], None, [None] * 6),
        ([([], []), ([5], [15])], None, [None, None, None, None, None, 15]),
        ([([0], [None])], None, [None] * 6),
        ([([1, 3], [11, 13])], [([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])], [0, 11, 2, 13, 4, 5]),
        ([([3], [13])], [([0, 1], [0, 1]), ([2], [2]), ([], []), ([4, 5], [4, 5])], [0, 1, 2, 13, 4, 5]),
        ([([1], [None])], [([0, 1, 2], [0, 1, 2])], [0, None, 2, None, None, None]),
        ([([2, 3], [12, 13])], [([1], [1]), ([4], [None])], [None, 1, 12, 13, None, None]),
        ([], [([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])], [0, 1, 2, 3, 4, 5]),
        ([([0, 1, 2, 3, 4, 5], [9] * 6)], [([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])], [9] * 6),
        ([([5], [15])], [], [None, None, None, None, None, 15]),
    ],
)
def test_gaps_are_filled_from_the_base_and_with_null(
    tmp_path: Path, puts: Chunks, base: Chunks | None, expected: list[int | None]
) -> None:
    assert written(tmp_path / "a.lance", 6, puts, base) == expected


@pytest.mark.parametrize("seed", range(25))
def test_random_puts_over_a_random_base_agree_with_a_dict(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_file, "WINDOW_ROWS", 64)
    generator = random.Random(seed)
    physical = generator.choice([1, 63, 64, 65, 1000, 5000])
    expected: dict[int, int | None] = {}

    def random_chunks(sign: int) -> Chunks:
        share = generator.choice([0.01, 0.5, 0.95, 1.0])
        offsets = [n for n in range(physical) if generator.random() < share]
        made: Chunks = []
        while offsets:
            count = generator.choice([1, 7, 64, 300])
            values = [sign * n if generator.random() < 0.9 else None for n in offsets[:count]]
            made.append((offsets[:count], values))
            expected.update(zip(offsets[:count], values, strict=True))
            offsets = offsets[count:]
        return made

    base = random_chunks(-1) if generator.random() < 0.7 else None
    puts = random_chunks(1)
    assert written(tmp_path / "a.lance", physical, puts, base) == [expected.get(n) for n in range(physical)]


def test_a_base_longer_than_a_window_is_streamed_through(tmp_path: Path) -> None:
    physical = 3 * column_file.WINDOW_ROWS + 17
    base: Chunks = [(list(range(start, min(start + 20_000, physical))), []) for start in range(0, physical, 20_000)]
    base = [(offsets, list(offsets)) for offsets, _ in base]
    found = written(tmp_path / "a.lance", physical, [([physical - 1], [-1])], base)
    assert found == [*range(physical - 1), -1]


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        (pa.string(), "größe"),
        (pa.binary(), b"\0\1"),
        (pa.list_(pa.float32(), 2), [1.0, 2.0]),
        (pa.list_(pa.string()), ["a", None]),
        (pa.struct([("a", pa.int8()), ("b", pa.string())]), {"a": 1, "b": None}),
        (pa.timestamp("us"), None),
        (pa.bool_(), True),
    ],
)
def test_columns_of_every_type_have_their_gaps(tmp_path: Path, data_type: pa.DataType, value: Any) -> None:
    path = tmp_path / "a.lance"
    writer = open_writer(path, pa.field("v", data_type), 4)
    writer.put(rows(0, 2), pa.array([value, None], data_type))
    writer.close({})
    assert LanceFileReader(str(path)).read_all().to_table()["v"].to_pylist() == [value, None, None, None]


def test_a_file_that_is_too_long_is_never_finished_quietly(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "a.lance", FIELD, 2)
    writer.put(rows(0, 1, 2), pa.array([1, 2, 3]))
    with pytest.raises(RuntimeError, match="has 3 rows, its fragment 2"):
        writer.close({})


def test_a_column_of_a_fragment_with_deleted_rows_is_readable_once_replaced(tmp_path: Path) -> None:
    dataset = lance.write_dataset(pa.table({"n": range(10)}), tmp_path / "t.lance")
    dataset.add_columns(pa.schema([FIELD]))
    dataset.delete("n in (0, 4, 9)")
    fragment = dataset.get_fragment(0)
    name = file_name("full", "v1")
    live = fragment.scanner(columns=[], with_row_address=True).to_table()["_rowaddr"].to_numpy().astype(np.uint32)
    writer = open_writer(tmp_path / "t.lance/data" / name, FIELD, fragment.metadata.physical_rows)
    writer.put(live, pa.array(live.astype(np.int64) * 10))
    writer.close({})
    group = lance.LanceOperation.DataReplacementGroup(0, DataFile.create(dataset, name))
    done = lance.LanceDataset.commit(dataset, lance.LanceOperation.DataReplacement([group]), read_version=dataset.version)
    assert done.to_table().to_pydict() == {"n": [1, 2, 3, 5, 6, 7, 8], "label": [10, 20, 30, 50, 60, 70, 80]}
    assert done.count_rows("label = 60") == 1


def test_a_row_map_travels_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.lance"
    row_map = RowMap(20, {"v1": rows(0, 3, 19)}, {"v1": rows(1), "v2": rows(4, 5)})
    writer = open_writer(path, FIELD, 20)
    writer.close({ROWS_KEY: row_map.to_json()})
    found = read_row_map(str(path), {})
    assert found is not None
    assert as_lists(found) == (20, {"v1": [0, 3, 19]}, {"v1": [1], "v2": [4, 5]})
    assert found.made["v1"].dtype == np.uint32


def test_a_file_without_a_row_map_has_none(tmp_path: Path) -> None:
    written(tmp_path / "a.lance", 3, [])
    assert read_row_map(str(tmp_path / "a.lance"), {}) is None


def as_lists(row_map: RowMap) -> tuple[int, dict[str, list[int]], dict[str, list[int]]]:
    made = {version: offsets.tolist() for version, offsets in row_map.made.items()}
    return row_map.physical_rows, made, {version: offsets.tolist() for version, offsets in row_map.skipped.items()}


def test_recording_moves_rows_from_older_versions() -> None:
    before = RowMap(10, {"v1": rows(0, 1, 2, 3)}, {"v1": rows(4, 5)})
    after = before.record("v2", rows(1, 4, 7), rows(2))
    assert as_lists(after) == (10, {"v1": [0, 3], "v2": [1, 4, 7]}, {"v1": [5], "v2": [2]})
    assert as_lists(before) == (10, {"v1": [0, 1, 2, 3]}, {"v1": [4, 5]})


def test_recording_of_the_same_version_adds_and_a_row_made_is_skipped_no_more() -> None:
    after = RowMap(10, {"v1": rows(0)}, {"v1": rows(1, 2)}).record("v1", rows(1, 5), NONE)
    assert as_lists(after) == (10, {"v1": [0, 1, 5]}, {"v1": [2]})
    assert as_lists(after.record("v1", rows(2), NONE)) == (10, {"v1": [0, 1, 2, 5]}, {})


def test_rows_of_a_map_are_those_of_all_versions_or_of_all_but_one() -> None:
    row_map = RowMap(10, {"v1": rows(0, 1), "v2": rows(5)}, {"v1": rows(2), "v3": rows(9)})
    assert row_map.rows().tolist() == [0, 1, 2, 5, 9]
    assert row_map.rows(without="v1").tolist() == [5, 9]
    assert RowMap(10).rows().tolist() == []


@pytest.mark.parametrize("physical", [1, 7, 8, 9, 1000, 100_003])
def test_a_row_map_survives_json_whatever_its_size(physical: int) -> None:
    generator = random.Random(physical)
    offsets = np.array(sorted(generator.sample(range(physical), physical // 2 + 1)), np.uint32)
    row_map = RowMap(physical, {"a label, any": offsets, "empty": NONE}, {"v2": rows(physical - 1)})
    assert as_lists(RowMap.from_json(row_map.to_json())) == as_lists(row_map)


@pytest.mark.parametrize("kind", ["full", "skip", "map"])
def test_a_file_name_tells_kind_and_version_and_is_new_each_time(kind: Any) -> None:
    first, second = file_name(kind, "v1/ü"), file_name(kind, "v1/ü")
    assert first != second
    tag = parse_name(first)
    assert tag == FileTag(kind, version_digest("v1/ü"))
    assert tag.is_of("v1/ü")
    assert not tag.is_of("v2")


@pytest.mark.parametrize(
    "name",
    [
        "01101011101111100111011028fb4348788449496575ce5fd2.lance",
        file_name("full", "v") + ".bak",
        "x" + file_name("full", "v"),
        file_name("full", "v").replace("full", "half"),
        "data/" + file_name("full", "v"),
    ],
)
def test_a_name_of_somebody_elses_file_tells_nothing(name: str) -> None:
    assert parse_name(name) is None
