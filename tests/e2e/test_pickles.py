"""Functions without an import path travel as pickles, in processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from runner import Connection, udf
from tests.e2e.helpers import files, make_table, run_script, values

ADD = """
import runner

OFFSET = 7

def helper(x: int) -> int:
    return x + OFFSET

@runner.udf
def shifted(x: int) -> int:
    return helper(x)

table = runner.connect("db").open_table("t")
table.add_columns({"shifted": shifted})
if FILL:
    with table.connection.context(cluster="inline"):
        table.backfill("shifted", where="x < 5")
print(shifted.version)
"""

FILL = """
import runner

db = runner.connect("db")
table = db.open_table("t")
with db.context(cluster="inline"):
    result = table.backfill("shifted")
print(result.rows_done, result.rows_valid)
"""


def test_function_of_a_script_serves_another_process(db: Connection, tmp_path: Path) -> None:
    table = make_table(db, 10)
    version = run_script(ADD.replace("FILL", "True"), tmp_path).strip()
    spec = table.computed_columns()["shifted"]
    assert (spec.path, spec.version) == (None, version)
    assert (Path(db.uri) / "_runner" / "functions" / f"{spec.pickle}.pkl").exists()
    assert run_script(FILL, tmp_path) == "5 5\n"
    assert values(table, "shifted") == [i + 7 for i in range(10)]


def test_version_is_the_same_in_another_process(db: Connection, tmp_path: Path) -> None:
    make_table(db, 10)
    make_table(db, 10, name="u")
    make_table(runner.connect(tmp_path / "other" / "db"), 10)
    first = run_script(ADD.replace("FILL", "False"), tmp_path)
    second = run_script(ADD.replace("FILL", "False"), tmp_path / "other", PYTHONHASHSEED="5")
    changed = run_script(ADD.replace("FILL", "False").replace('"t"', '"u"').replace("= 7", "= 8"), tmp_path)
    assert first == second != changed


def test_pickles_refused(db: Connection) -> None:
    offset = 3

    @udf
    def shifted(x: int) -> int:
        return x + offset

    make_table(db, 10).add_columns({"y": shifted})
    careful = runner.connect(db.uri, allow_pickle=False)
    table = careful.open_table("t")
    before = files(table.uri)
    with (
        careful.context(cluster="inline"),
        pytest.raises(Exception, match=r"shifted is stored as a pickle and pickles are refused \(allow_pickle=False\)"),
    ):
        table.backfill("y")
    assert files(table.uri) == before
    assert values(table, "y") == [None] * 10


def test_pickle_that_was_changed_is_not_loaded(inline: Connection, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    table = make_table(inline, 10)
    table.add_columns({"y": udf(closure(1))})
    (stored,) = (Path(inline.uri) / "_runner" / "functions").iterdir()
    stored.write_bytes(f"cos\nsystem\n(S'touch {harm}'\ntR.".encode())
    with pytest.raises(Exception, match="is not what was stored: its hash is not"):
        table.backfill("y")
    assert not harm.exists()
    assert values(table, "y") == [None] * 10


def closure(offset: int) -> object:
    def shifted(x: int) -> int:
        return x + offset

    return shifted


def test_pickle_that_is_gone(inline: Connection) -> None:
    table = make_table(inline, 10)
    function = udf(closure(1))
    table.add_columns({"y": function})
    (stored,) = (Path(inline.uri) / "_runner" / "functions").iterdir()
    stored.unlink()
    with pytest.raises(Exception, match=r"is gone; give the function: backfill\(\.\.\., udf=\.\.\.\)"):
        table.backfill("y")
    assert table.backfill("y", udf=function).rows_done == 10
    assert values(table, "y") == [i + 1 for i in range(10)]


def test_importable_function_stores_no_pickle(db: Connection) -> None:
    table = make_table(db, 10)
    table.add_columns({"y": importable})
    assert table.computed_columns()["y"].path == "tests.e2e.test_pickles:importable"
    assert not (Path(db.uri) / "_runner" / "functions").exists()


def test_importable_function_runs_where_pickles_are_refused(db: Connection) -> None:
    careful = runner.connect(db.uri, allow_pickle=False)
    make_table(db, 10)
    table = careful.open_table("t")
    table.add_columns({"y": importable})
    with careful.context(cluster="inline"):
        table.backfill("y")
    assert values(table, "y") == [-i for i in range(10)]


def importable(x: int) -> int:
    return -x
