from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from runner.cli import app
from runner.packages.package import build
from runner.packages.upload import upload
from runner.store import Store
from tests.unit.package_trees import plain, write
from tests.unit.test_imports import HEAVY, imported


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, with the working directory inside of it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = write(tmp_path / "project", {"pyproject.toml": "", "src/a.py": "x" * 3000, ".env": "", "data/rows.csv": "1"})
    monkeypatch.chdir(root / "src")
    return root


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])


def test_package_list_shows_what_goes_and_why_the_rest_stays(project: Path) -> None:
    done = run("package", "--list")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0] == f"{project}: 3 files, 2.9 kB; 1 left out"
    assert lines[1:4] == ["        1 B  data/rows.csv", "        0 B  pyproject.toml", "     2.9 kB  src/a.py"]
    assert lines[4:6] == ["left out:", "  .env  secret: environment file"]
    assert lines[-1] == f"package {build(project).id} in 1 layer"


def test_without_list_there_are_totals_and_the_largest(project: Path) -> None:
    done = run("package")
    assert done.stdout.splitlines()[:3] == [f"{project}: 3 files, 2.9 kB; 1 left out", "the largest:", "     2.9 kB  src/a.py"]
    assert ".env" not in done.stdout


def test_a_root_and_patterns_as_json(project: Path) -> None:
    done = run("package", "--list", "--root", project / "data", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["root"], [file["path"] for file in found["files"]]) == (f"{project}/data", ["rows.csv"])
    done = run("package", "--list", "--json", "--include", ".env", "--exclude", "*.csv", "--exclude", "*.toml")
    (found,) = json.loads(done.stdout)
    assert [file["path"] for file in found["files"]] == [".env", "src/a.py"]
    assert found["left_out"][0] == {"path": "data/rows.csv", "reason": "exclude '*.csv'"}
    assert found["warnings"] == [".env goes although it looks like a secret: environment file; include '.env' brings it back"]
    assert found["package"] == build(project, [".env"], ["*.csv", "*.toml"]).id


def test_site_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [str(plain(tmp_path / name, "some/__init__.py")) for name in ("one", "two")]
    monkeypatch.setattr("site.getsitepackages", lambda: [*places, str(tmp_path / "none"), places[0]])
    found = json.loads(run("package", "--site", "--json").stdout)
    assert [each["root"] for each in found] == places
    assert found[0]["package"] == build(tmp_path / "one", site=True).id
    monkeypatch.setattr("site.getsitepackages", list)
    done = run("package", "--site")
    assert (done.exit_code, "no site-packages folder" in done.stderr) == (2, True)


def test_too_much_is_listed_and_not_read(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (project / "huge.bin").open("wb") as file:
        file.truncate(6 << 30)
    monkeypatch.setattr("runner.packages.index.read_file", None)
    done = run("package", "--list")
    assert done.exit_code == 0
    assert "     6.0 GB  huge.bin" in done.stdout
    assert done.stdout.splitlines()[-1] == "warning: 6.0 GB are too much: 5.0 GB may go to workers"


def test_what_is_wrong_ends_with_2(tmp_path: Path) -> None:
    done = run("package", "--root", tmp_path / "none")
    assert (done.exit_code, done.stderr) == (2, f"runner: {tmp_path}/none is no folder\n")
    done = run("packages", "gc", tmp_path / "db", "--older-than", "soon")
    assert (done.exit_code, done.stderr) == (2, "runner: --older-than 'soon' is no age; write 30d, 12h or 45m\n")


def test_gc_removes_what_is_older(tmp_path: Path, project: Path) -> None:
    store = Store(str(tmp_path / "db"))
    package = upload(build(project), store)
    for path, _ in store.objects("packages"):
        then = dt.datetime.now().timestamp() - 13 * 3600
        os.utime(tmp_path / "db/_runner" / path, (then, then))
    assert json.loads(run("packages", "gc", tmp_path / "db", "--older-than", "1d", "--json").stdout) == []
    done = run("packages", "gc", tmp_path / "db", "--older-than", "12h", "--dry-run")
    assert done.stdout.splitlines()[0].startswith(f"would remove packages/{package}.json: not used since ")
    assert done.stderr.startswith("would remove 2 objects, 3.")
    assert len(list(store.objects("packages"))) == 2
    removed = json.loads(run("packages", "gc", tmp_path / "db", "--older-than", "700m", "--json").stdout)
    assert next(one["path"] for one in removed) == f"packages/{package}.json"
    assert list(store.objects("packages")) == []
    assert "nothing to remove" in run("packages", "gc", tmp_path / "db", "--older-than", "0d").stderr


@pytest.mark.parametrize("command", [["package"], ["packages"], ["packages", "gc"]])
def test_help_answers_without_importing_anything_heavy(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    names, text = imported("-m", "runner", *command, "--help")
    assert "Usage:" in text
    assert names.isdisjoint(HEAVY | {"pathspec"})
