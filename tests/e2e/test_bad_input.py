"""Bad input gets one clear message and changes nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import runner
from runner import Connection, Table, udf
from runner.errors import BackfillFailed, BadInput, ColumnNotFound, FunctionNotLoadable, NotComputed, RunnerError, TableNotFound
from tests.e2e.helpers import files, make_table, values, version


@udf
def double(x: int) -> int:
    return 2 * x


@udf(batch_size=7)
def triple(x: int) -> int:
    return 3 * x


@pytest.fixture
def table(inline: Connection) -> Table:
    """With the computed columns ``double``, filled, and ``empty``."""
    made = make_table(inline, 30, rows_per_fragment=20)
    made.add_columns({"double": double, "empty": double})
    made.backfill("double")
    return made


@contextmanager
def refused(table: Table, error: type[Exception], message: str, *, recorded: bool = False) -> Iterator[None]:
    """An error of one line; the database as it was, but for the record of a job that began."""
    before = files(table.connection.uri, without_records=recorded), version(table)
    with pytest.raises(error, match=message) as caught:
        yield
    assert isinstance(caught.value, (RunnerError, TypeError))
    assert len(str(caught.value).splitlines()) == 1
    assert (files(table.connection.uri, without_records=recorded), version(table)) == before


def test_unknown_table(table: Table) -> None:
    make_table(table.connection, 1, name="images")
    with refused(table, TableNotFound, r"no table 'image' in .*/db; it has images"):
        table.connection.open_table("image")


def test_no_table_at_all(tmp_path: Path) -> None:
    with pytest.raises(TableNotFound, match="it has no tables"):
        runner.connect(tmp_path / "nowhere").open_table("t")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("call", [Table.backfill, Table.plan, Table.backfill_async, Table.errors])
def test_unknown_column(table: Table, call: Callable[..., Any]) -> None:
    with refused(table, ColumnNotFound, "table 't' has no column 'duoble'; it has x, s, double, empty"):
        made = call(table, "duoble")
        made.result(60)


@pytest.mark.parametrize("call", [Table.backfill, Table.plan, Table.errors])
def test_column_that_is_not_computed(table: Table, call: Callable[..., Any]) -> None:
    with refused(table, NotComputed, "column 's' of 't' is not computed"):
        call(table, "s")


def test_one_unknown_column_of_several(table: Table) -> None:
    with refused(table, ColumnNotFound, "no column 'nothing'"):
        table.backfill(["empty", "nothing"])
    assert values(table, "empty") == [None] * 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "x >"}, "where='x >' is not a predicate over this table: "),
        ({"where": "nothing = 1"}, "where='nothing = 1' is not a predicate over this table: .*nothing"),
        ({"where": "x + 1"}, "where='x \\+ 1' is not a predicate over this table: "),
        ({"where": " "}, "where is empty; give a SQL predicate"),
        ({"on_error": "ignore"}, "on_error='ignore' is not one of 'fail', 'skip', 'skip:100', 'skip:1%', 'retry:N'"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number above 0"),
        ({"concurrency": 1.5}, "concurrency=1.5 must be a whole number above 0"),
        ({"timeout": 0}, "timeout=0 must be seconds, above 0"),
        ({"timeout": "3"}, "timeout='3' must be seconds, above 0"),
    ],
)
def test_wrong_option(table: Table, options: dict[str, Any], message: str) -> None:
    with refused(table, BadInput, message):
        table.backfill("empty", **options)


@pytest.mark.parametrize("columns", [[], ["empty", "empty"]])
def test_columns_named_wrongly(table: Table, columns: list[str]) -> None:
    with refused(table, BadInput, "name at least one column, each once"):
        table.backfill(columns)


def test_option_that_does_not_exist(table: Table) -> None:
    with refused(table, TypeError, "batchsize"):
        udf(batchsize=3)  # type: ignore[call-overload]
    with refused(table, TypeError, "wehre"):
        table.backfill("empty", wehre="x > 1")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cpus": 0}, "num_cpus=0 must be a number above 0"),
        ({"num_gpus": -1}, "num_gpus=-1 must be a number of at least 0"),
        ({"memory": "1 GB"}, "memory='1 GB' must be a whole number above 0"),
        ({"batch_size": True}, "batch_size=True must be a whole number above 0"),
        ({"on_error": "retry"}, "on_error='retry' is not one of"),
        ({"input_columns": ["a", "b"]}, "takes 1 inputs, 2 columns were given"),
        ({"data_type": "int"}, "no Arrow type follows from the annotation 'int'"),
    ],
)
def test_wrong_option_at_decoration(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        udf(**options)(double.func)


def test_wrong_signatures() -> None:
    def no_type(x: int):  # type: ignore[no-untyped-def]
        return x

    def union(x: int) -> int | str:
        return x

    def strange(x: int) -> Path:
        return Path()

    def variadic(*x: int) -> int:
        return 0

    def mixed(x: pa.Array, y: int) -> int:
        return 0

    for function, message in [
        (no_type, "say the type of its output"),
        (union, "is a union of several types"),
        (strange, "no Arrow type follows from the annotation 'Path'"),
        (variadic, "every input is one .*parameter"),
        (mixed, "annotate every parameter pa.Array, or none"),
    ]:
        with pytest.raises(BadInput, match=message):
            udf(function)
    with pytest.raises(BadInput, match="decorated with @udf twice"):
        udf(double)


def test_input_column_missing(table: Table) -> None:
    def length(filename: str) -> int:
        return len(filename)

    with refused(table, ColumnNotFound, r"length for column 'n' takes its input from 'filename', which .*name the inputs"):
        table.add_columns({"good": double, "n": length})
    with refused(table, ColumnNotFound, "takes its input from 'nope'"):
        table.add_columns({"n": (length, ["nope"])})


def test_input_column_dropped_later(table: Table) -> None:
    table.to_lance().drop_columns(["x"])
    with refused(table, ColumnNotFound, "double for column 'empty' needs x, which the table does not have any more"):
        table.backfill("empty")


def test_input_of_another_type(table: Table) -> None:
    def length(x: str) -> int:
        return len(x)

    with refused(table, BadInput, "length takes str from 'x', which is int64"):
        table.add_columns({"n": length})


def test_column_exists_already(table: Table) -> None:
    with refused(table, BadInput, "table 't' has double already"):
        table.add_columns({"new": double, "double": double})


def test_wrong_sql(table: Table) -> None:
    with refused(table, BadInput, "the SQL expression 'x [+] nothing' of column 'n' cannot be computed"):
        table.add_columns({"good": double, "n": "x + nothing"})


def test_function_of_another_type_for_a_column(table: Table) -> None:
    def text(x: int) -> str:
        return str(x)

    with refused(table, BadInput, "text returns string, column 'empty' is int64"):
        table.backfill("empty", udf=text)


def test_columns_whose_functions_disagree(table: Table) -> None:
    table.add_columns({"triple": triple})
    with refused(table, BadInput, "the functions of empty, triple differ in batch_size; say it in the call: batch_size="):
        table.backfill(["empty", "triple"])
    table.backfill(["empty", "triple"], batch_size=4)
    assert values(table, "triple") == [3 * i for i in range(30)]


def test_struct_that_does_not_spread(table: Table) -> None:
    with refused(table, BadInput, "double returns int64; only a struct spreads over several columns"):
        table.add_columns(double)


def test_output_that_is_not_the_declared_type(table: Table) -> None:
    @udf
    def lies(x: int) -> int:
        return x if x < 25 else "many"  # type: ignore[return-value]

    table.add_columns({"y": lies})
    message = r"y: WrongOutput at row 5 of fragment 1 .*: returned 'many' \(str\), which is not the declared int64"
    before = files(table.uri)
    with pytest.raises(BackfillFailed, match=message):
        table.backfill("y")
    assert files(table.uri) == before
    assert values(table, "y") == [None] * 30


def test_array_of_another_type(table: Table) -> None:
    @udf(data_type=pa.int32())
    def wide(x: pa.Array) -> pa.Array:
        return x

    table.add_columns({"y": wide})
    before = files(table.uri)
    with pytest.raises(BackfillFailed, match="y: the function returned an array of int64, declared int32; cast it"):
        table.backfill("y", on_error="skip")
    assert files(table.uri) == before


def test_wrong_length_of_a_batch(table: Table) -> None:
    @udf(data_type=pa.int64(), batch_size=20)
    def short(x: pa.Array) -> pa.Array:
        return x[1:]

    table.add_columns({"y": short})
    before = files(table.uri)
    with pytest.raises(BackfillFailed, match="y: the function returned 19 values for a batch of 20 rows"):
        table.backfill("y")
    assert files(table.uri) == before


def test_function_that_cannot_be_imported_any_more(inline: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vanishing.py").write_text("def f(x: int) -> int:\n    return 5 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    table = make_table(inline, 5)
    table.add_columns({"y": importlib.import_module("vanishing").f})
    (tmp_path / "vanishing.py").unlink()
    monkeypatch.delitem(sys.modules, "vanishing")
    with refused(table, FunctionNotLoadable, "function vanishing:f cannot be imported here: .*Run where the module is"):
        table.backfill("y")


def test_class_that_cannot_be_constructed(table: Table) -> None:
    @udf
    class Broken:
        def __init__(self) -> None:
            raise OSError("no model file")

        def __call__(self, x: int) -> int:
            return x

    table.add_columns({"y": Broken})
    with pytest.raises(BackfillFailed, match="Broken could not be constructed: OSError: no model file"):
        table.backfill("y")


@pytest.mark.parametrize(
    ("address", "message"),
    [("db://mine", "LanceDB Cloud or Enterprise address"), ("", "the database's address is empty")],
)
def test_wrong_address(address: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        runner.connect(address)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_wrong_table_name(db: Connection, name: str) -> None:
    with pytest.raises(BadInput, match="is not a table's name"):
        db.create_table(name, pa.table({"x": [1]}))


def test_table_exists_already(table: Table) -> None:
    with refused(table, BadInput, "table 't' exists in .*mode='overwrite' replaces it"):
        table.connection.create_table("t", pa.table({"x": [1]}))


def test_unknown_cluster(db: Connection) -> None:
    with pytest.raises(BadInput, match=r"no cluster 'kubernetes' in .*; it has no clusters; 'inline' .this process. and 'local'"):
        db.context(cluster="kubernetes")


def test_unknown_job(table: Table) -> None:
    with pytest.raises(BadInput, match=r"no job 'nope' in .*jobs list"):
        table.connection.job("nope")
