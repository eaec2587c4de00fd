"""Columns that take their inputs from computed columns, filled in one job."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import UDF, Connection, Table, udf
from runner.errors import BadInput
from tests.e2e.helpers import append, by_x, calls, log_call, make_table, numbers, values


def embedding(log: Path, version: str = "1") -> UDF:
    path, factor = str(log), 10 if version == "1" else 100

    @udf(version=version)
    def embed(x: int) -> int:
        log_call(path, x)
        return factor * x

    return embed


def labels(log: Path) -> UDF:
    path = str(log)

    @udf
    def label(embedding: int | None) -> str:
        log_call(path, -1 if embedding is None else embedding)
        return f"<{embedding}>"

    return label


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The log of the label's calls."""
    return tmp_path / "labels.log"


def new_table(db: Connection, log: Path, second: Path, stable: bool = False) -> Table:
    table = make_table(db, 50, rows_per_fragment=20, enable_stable_row_ids=stable)
    table.add_columns({"label": labels(second), "embedding": embedding(log)})
    return table


def test_in_one_job_whatever_order_they_are_named_in(inline: Connection, log: Path, second: Path) -> None:
    table = new_table(inline, log, second)
    assert table.schema.names == ["x", "s", "label", "embedding"]
    assert table.plan(["label", "embedding"]).rows == 100
    result = table.backfill(["label", "embedding"])
    assert (result.rows_done, result.columns) == (100, ("label", "embedding"))
    assert values(table, "label") == [f"<{10 * x}>" for x in range(50)]
    assert calls(second) == [10 * x for x in range(50)]
    (record,) = inline.jobs()
    assert (record.columns, record.rows_done, record.rows_total) == (["label", "embedding"], 100, 100)
    assert len(record.versions) == 2
    assert table.backfill(["embedding", "label"]).rows_done == 0


def test_a_row_whose_feeding_column_is_computed_is_computed_too(inline: Connection, log: Path, second: Path) -> None:
    """Labels that were made of NULL embeddings are not what is meant once the embeddings are there."""
    table = new_table(inline, log, second)
    table.backfill("label")
    assert values(table, "label") == ["<None>"] * 50
    table.backfill("embedding", where="x < 25")
    second.unlink()
    assert table.backfill(["embedding", "label"]).rows_done == 50
    assert calls(second) == [10 * x for x in range(25, 50)]
    assert by_x(table, "label") == {x: "<None>" if x < 25 else f"<{10 * x}>" for x in range(50)}


@pytest.mark.parametrize("stable", [False, True])
def test_appended_rows_of_both(inline: Connection, log: Path, second: Path, stable: bool) -> None:
    table = new_table(inline, log, second, stable)
    table.backfill(["embedding", "label"])
    append(table, numbers(50, 55))
    assert table.backfill(["embedding", "label"]).rows_done == 10
    assert calls(log) == list(range(55))
    assert calls(second) == [10 * x for x in range(55)]


def test_stale_finds_what_an_input_computed_anew_was_fed_to(inline: Connection, log: Path, second: Path) -> None:
    table = new_table(inline, log, second)
    table.backfill(["embedding", "label"])
    table.backfill("embedding", udf=embedding(log, "2"), where="x < 3")
    second.unlink()
    told = table.backfill("label")
    assert (told.rows_done, told.rows_changed) == (0, 20)
    assert "inputs changed" in str(told)
    assert table.backfill("label", stale=True).rows_done == 20  # the fragment's: its file of embeddings is another
    assert by_x(table, "label") == {x: f"<{100 * x}>" if x < 3 else f"<{10 * x}>" for x in range(50)}
    assert table.backfill("label", stale=True).rows_done == 0


def test_three_layers_with_a_policy_each(inline: Connection, log: Path) -> None:
    path = str(log)

    @udf(on_error="skip")
    def first(x: int) -> int:
        if x == 4:
            raise ValueError("four")
        return x + 1

    @udf
    def then(a: int) -> int:
        return 2 * a

    @udf(batch_size=7)
    def last(a: int | None, b: int | None) -> str:
        log_call(path, -1 if a is None else a)
        return f"{a},{b}"

    table = make_table(inline, 10)
    table.add_columns({"c": last, "b": then, "a": first})
    result = table.backfill(["a", "b", "c"])
    assert (result.rows_done, result.rows_skipped) == (29, 1)
    assert values(table, "c") == ["None,None" if x == 4 else f"{x + 1},{2 * x + 2}" for x in range(10)]
    assert [error.offset for error in table.errors("a")] == [4]


def test_circles_are_refused(inline: Connection) -> None:
    @udf
    def a(b: int) -> int:
        return b

    @udf
    def b(a: int) -> int:
        return a

    @udf
    def of_x(x: int) -> int:
        return x

    table = make_table(inline, 5)
    with pytest.raises(BadInput, match=r"the columns a <- b <- a feed each other in a circle"):
        table.add_columns({"a": a, "b": b})
    table.add_columns({"a": of_x, "b": b})
    with pytest.raises(BadInput, match=r"the columns a <- b <- a would feed each other in a circle; give 'a' other inputs"):
        table.backfill("a", udf=a)
    assert table.schema.names == ["x", "s", "a", "b"]
    assert table.backfill(["b", "a"]).rows_done == 10
