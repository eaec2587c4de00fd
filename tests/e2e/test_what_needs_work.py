"""Done and NULL is not the same as not done, and rows whose inputs changed are stale: through compactions and updates."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from runner import UDF, Connection, Table, connect, udf
from runner.backfill.input_hash import keys_of
from tests.e2e.helpers import append, by_x, calls, failing_while, files, log_call, make_table, numbers


def odd_only(log: Path) -> UDF:
    path = str(log)

    @udf
    def odd(x: int) -> int | None:
        log_call(path, x)
        return x if x % 2 else None

    return odd


def compact(table: Table) -> None:
    table.to_lance().optimize.compact_files()


def clean_up(table: Table) -> None:
    table.to_lance().cleanup_old_versions(dt.timedelta(0), delete_unverified=True)


@pytest.fixture(params=[False, True], ids=["addresses", "stable ids"])
def stable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- done and NULL


def test_null_results_survive_a_compaction_and_a_clean_up(inline: Connection, log: Path, stable: bool) -> None:
    table = make_table(inline, 40, rows_per_fragment=15, enable_stable_row_ids=stable)
    table.add_columns({"odd": odd_only(log)})
    table.backfill("odd", where="x < 38")
    table.to_lance().delete("x % 10 = 4")
    append(table, numbers(40, 43))
    compact(table)
    clean_up(table)
    log.unlink()
    result = table.backfill("odd")
    assert (result.rows_done, calls(log)) == (5, [38, 39, 40, 41, 42])
    compact(table)
    clean_up(table)
    assert table.backfill("odd").rows_done == 0
    assert table.plan("odd").is_empty
    assert by_x(table, "odd") == {x: x if x % 2 else None for x in range(43) if x % 10 != 4}


def test_null_results_of_changed_inputs_are_computed_anew(inline: Connection, log: Path, stable: bool) -> None:
    table = make_table(inline, 20, enable_stable_row_ids=stable)
    table.add_columns({"odd": odd_only(log)})
    table.backfill("odd")
    table.to_lance().update({"x": "x + 101"}, where="x = 4 or x = 6")
    table.to_lance().update({"s": "'another'"}, where="x = 8")
    log.unlink()
    assert table.backfill("odd").rows_done == 2
    assert calls(log) == [105, 107]
    assert by_x(table, "odd") == {x: x if x % 2 else None for x in {*range(20), 105, 107} - {4, 6}}


def test_the_inputs_of_nulls_are_read_once_after_a_compaction(
    inline: Connection, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counting(rows: Any, inputs: Any, offsets: Any, **options: Any) -> Any:
        hashed.append(len(offsets))
        return keys_of(rows, inputs, offsets, **options)

    table = make_table(inline, 40, rows_per_fragment=15)
    table.add_columns({"odd": odd_only(log)})
    table.backfill("odd")
    compact(table)
    monkeypatch.setattr("runner.backfill.settled.keys_of", counting)
    for _ in range(3):
        append(table, numbers(41, 42))
        assert table.backfill("odd").rows_done == 1
    assert hashed == [20]
    compact(table)
    assert table.backfill("odd").rows_done == 0
    assert hashed == [20, 20]
    append(table, numbers(43, 44))
    table.backfill("odd")
    assert len(files(f"{inline.uri}/_runner/settled/t/odd/maps")) == 1


def test_skipped_rows_survive_a_compaction(inline: Connection, log: Path, tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    flag.touch()
    table = make_table(inline, 30, rows_per_fragment=10)
    table.add_columns({"y": failing_while(flag, [3, 21], log, on_error="skip")})
    table.backfill("y")
    compact(table)
    flag.unlink()
    log.unlink()
    assert table.backfill("y").rows_done == 0
    assert table.backfill("y", stale=True).rows_done == 0
    assert calls(log) == []


def test_null_results_of_an_older_version_are_stale(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf(version="2")
    def double(x: int) -> int:
        log_call(path, x)
        return 2 * x

    table = make_table(inline, 20, rows_per_fragment=10)
    table.add_columns({"odd": odd_only(log)})
    table.backfill("odd")
    compact(table)
    log.unlink()
    assert table.backfill("odd", udf=double).rows_done == 0
    assert table.backfill("odd", udf=double, stale=True).rows_done == 20
    assert calls(log) == list(range(20))


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"\x00" * n for n in range(12)]),
        pa.array([[float(n), float("nan"), -0.0] for n in range(12)], pa.list_(pa.float32(), 3)),
        pa.array([{"a": n, "b": ["x"] * n} for n in range(12)]),
        pa.array([n % 2 == 0 for n in range(12)]),
        pa.array([dt.datetime(2026, 1, n + 1, tzinfo=dt.UTC) for n in range(12)]),
        pa.array([None if n % 3 else "x" * n for n in range(12)]),
    ],
    ids=str,
)
def test_inputs_of_every_type(inline: Connection, log: Path, column: pa.Array) -> None:
    path = str(log)

    @udf(data_type=pa.int64(), input_columns=["v", "x"])
    def nothing(v: pa.Array, x: pa.Array) -> pa.Array:
        for value in x.to_pylist():
            log_call(path, value)
        return pa.nulls(len(x), pa.int64())

    data = pa.table({"x": pa.array(range(12), pa.int64()), "v": column})
    table = make_table(inline, data=data, rows_per_fragment=5)
    table.add_columns({"none": nothing})
    table.backfill("none")
    compact(table)
    assert table.backfill("none").rows_done == 0
    table.to_lance().update({"x": "x + 100"}, where="x = 7")
    table.backfill("none")
    assert calls(log) == [*range(12), 107]


# -- changed inputs


def doubled(log: Path) -> UDF:
    path = str(log)

    @udf
    def double(x: int) -> int:
        log_call(path, x)
        return 2 * x

    return double


def with_double(db: Connection, log: Path, *, stable: bool) -> Table:
    table = make_table(db, 60, rows_per_fragment=20, enable_stable_row_ids=stable)
    table.add_columns({"double": doubled(log)})
    table.backfill("double")
    log.unlink()
    return table


def test_stale_takes_updated_rows(inline: Connection, log: Path) -> None:
    table = with_double(inline, log, stable=True)
    table.to_lance().update({"x": "x + 1000"}, where="x % 20 = 3")
    told = table.backfill("double")
    assert (told.rows_done, told.rows_changed, told.rows_unknown) == (0, 3, 0)
    result = table.backfill("double", stale=True)
    assert (result.rows_done, calls(log)) == (3, [1003, 1023, 1043])
    assert by_x(table, "double") == {x: 2 * x for x in {*range(60), 1003, 1023, 1043} - {3, 23, 43}}
    again = table.backfill("double", stale=True)
    assert (again.rows_done, again.rows_changed, again.rows_unknown) == (0, 0, 0)


def test_stale_takes_merged_rows_after_a_compaction(inline: Connection, log: Path) -> None:
    table = with_double(inline, log, stable=True)
    data = pa.table({"x": pa.array([5, 25, 1000], pa.int64()), "s": ["a", "b", "c"]})
    table.to_lance().merge_insert("x").when_matched_update_all().when_not_matched_insert_all().execute(data)
    compact(table)
    assert table.backfill("double").rows_done == 1
    log.unlink()
    assert table.backfill("double", stale=True).rows_done == 2
    assert calls(log) == [5, 25]
    compact(table)
    assert table.backfill("double", stale=True).rows_done == 0


def test_rows_that_changed_stay_stale_while_others_are_computed(inline: Connection, log: Path) -> None:
    """A job that fills new rows of a fragment leaves its changed rows as they are, and does not make them look fresh."""
    table = with_double(inline, log, stable=True)
    table.to_lance().update({"x": "x + 1000"}, where="x = 7")
    append(table, numbers(60, 63))
    compact(table)
    assert table.backfill("double").rows_changed == 1
    compact(table)
    log.unlink()
    table.backfill("double", stale=True)
    assert 1007 in calls(log)
    assert by_x(table, "double") == {x: 2 * x for x in {*range(63), 1007} - {7}}


def test_another_columns_backfill_makes_nothing_stale(inline: Connection, log: Path) -> None:
    @udf
    def negative(x: int) -> int:
        return -x

    table = with_double(inline, log, stable=True)
    compact(table)
    table.add_columns({"negative": negative})
    table.backfill("negative")
    compact(table)
    result = table.backfill("double", stale=True)
    assert (result.rows_done, result.rows_unknown, calls(log)) == (0, 0, [])


def test_without_row_versions_it_is_said_to_be_unknown(inline: Connection, log: Path) -> None:
    table = with_double(inline, log, stable=False)
    assert table.backfill("double", stale=True).rows_unknown == 0
    table.to_lance().update({"x": "x + 1000"}, where="x = 7")
    result = table.backfill("double", stale=True)
    assert (result.rows_done, result.rows_unknown) == (0, 1)
    assert "1 rows may have changed since computed, it cannot be told" in str(result)


def test_create_table_offers_stable_row_ids(tmp_path: Path) -> None:
    db = connect(tmp_path / "db")
    assert not db.create_table("plain", numbers(0, 3)).to_lance().has_stable_row_ids
    assert db.create_table("stable", numbers(0, 3), stable_row_ids=True).to_lance().has_stable_row_ids


# -- seven nights


def test_seven_nights(inline: Connection, log: Path, tmp_path: Path) -> None:
    """Ingest, update some, delete some, compact, backfill two dependent columns. Each night only what is needed is computed."""
    path, second = str(log), str(tmp_path / "labels.log")

    @udf
    def embed(x: int) -> int | None:
        log_call(path, x)
        return None if x % 9 == 0 else 3 * x

    @udf
    def label(embedding: int | None) -> str | None:
        log_call(second, -1 if embedding is None else embedding)
        return None if embedding is None else f"<{embedding}>"

    chance = random.Random(7)
    table = make_table(inline, 100, rows_per_fragment=40, enable_stable_row_ids=True)
    table.add_columns({"embedding": embed, "label": label})
    rows, newest = set(range(100)), 100
    table.backfill(["embedding", "label"])
    for night in range(7):
        log.unlink(missing_ok=True)
        Path(second).unlink(missing_ok=True)
        fresh = set(range(newest, newest + 30))
        append(table, numbers(newest, newest + 30))
        newest += 30
        changed = set(chance.sample(sorted(rows), 8))
        listed = ", ".join(map(str, sorted(changed)))
        table.to_lance().update({"x": f"x + {100_000 * (night + 1)}"}, where=f"x IN ({listed})")
        rows = (rows - changed) | {x + 100_000 * (night + 1) for x in changed}
        fresh |= {x + 100_000 * (night + 1) for x in changed}
        gone = set(chance.sample(sorted(rows), 5))
        table.to_lance().delete(f"x IN ({', '.join(map(str, sorted(gone)))})")
        rows, fresh = (rows | fresh) - gone, fresh - gone
        if night % 3 != 2:
            compact(table)
        result = table.backfill(["embedding", "label"], stale=True)
        assert calls(log) == sorted(fresh), night
        assert calls(Path(second)) == sorted(-1 if x % 9 == 0 else 3 * x for x in fresh), night
        assert (result.rows_done, result.rows_unknown) == (2 * len(fresh), 0)
        assert by_x(table, "embedding") == {x: None if x % 9 == 0 else 3 * x for x in rows}
        assert by_x(table, "label") == {x: None if x % 9 == 0 else f"<{3 * x}>" for x in rows}
        assert table.backfill(["embedding", "label"], stale=True).rows_done == 0
    table.to_lance().validate()
