"""`manifests check` on this machine, and `manifests diff`, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from runner import Connection
from runner.cli import app

FUNCTIONS = """
import os
import own_helper

def fits(x: int) -> int:
    return own_helper.add(x)

def lacks(x: int) -> int:
    import no_such_module
    try:
        import no_such_either
    except ImportError:
        pass
    return x
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with functions, which is the working directory."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'p'\n")
    (tmp_path / "own_functions.py").write_text(FUNCTIONS)
    (tmp_path / "own_helper.py").write_text("import yaml\ndef add(x):\n    return x + 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    return tmp_path


def manifests(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["manifests", *map(str, words)])


def defined(db: Connection, folder: Path, **fields: object) -> Path:
    file = folder / "dev.yaml"
    file.write_text(yaml.safe_dump({"name": "dev", **fields}))
    assert manifests("define", db.uri, file).exit_code == 0
    return file


def test_this_machine_has_what_a_function_needs_or_not(db: Connection, project: Path) -> None:
    defined(db, project, working_dir=True)
    done = manifests("check", db.uri, "dev", "--udf", "own_functions:fits")
    assert (done.exit_code, done.stdout) == (0, "nothing is missing or apart on this machine\n")

    done = manifests("check", db.uri, "dev", "--udf", "own_functions:fits", "--udf", "own_functions:lacks", "--json")
    assert done.exit_code == 1
    found = [(problem["severity"], problem["subject"]) for problem in json.loads(done.stdout)]
    assert found == [("error", "no_such_module"), ("warning", "no_such_either")]

    defined(db, project, pip=["no-such-module==1.0"], env_vars={"WORD": "${env:NO_SUCH_VARIABLE}"})
    done = manifests("check", db.uri, "dev", "--udf", "own_functions:lacks")
    assert done.exit_code == 1
    first, second = done.stdout.splitlines()
    assert first.startswith("error: the manifest refers to ${env:NO_SUCH_VARIABLE}, and NO_SUCH_VARIABLE is not set here")
    assert second.startswith("warning: the function imports no_such_either, which workers lack")


def test_what_cannot_be_checked_is_refused(db: Connection, project: Path) -> None:
    defined(db, project)
    for words, said in (
        (("nope",), "no manifest 'nope' in "),
        (("dev", "--udf", "own_functions"), "'own_functions' is not of the form module:function"),
        (("dev", "--cluster", "nope"), "no cluster 'nope' in "),
        (("dev", "--cluster", "ray://host:10001"), "is Ray Client's address"),
    ):
        done = manifests("check", db.uri, *words)
        assert done.exit_code == 2
        assert said in done.stderr
        assert done.stdout == ""


def test_a_definition_differs_from_a_file_field_by_field(db: Connection, project: Path) -> None:
    library = project / "library"
    library.mkdir()
    (library / "__init__.py").write_text("WORD = 1\n")
    file = defined(db, project, pip=["attrs==25.1.0", "rich==14.0.0"], py_modules=["library"], env_vars={"A": "1"})
    done = manifests("diff", db.uri, "dev", file)
    assert (done.exit_code, done.stdout) == (0, "no differences\n")

    (library / "__init__.py").write_text("WORD = 2\n")
    plain = {"name": "dev", "kind": "pip", "pip": ["rich==14.0.0", "attrs==25.3.0", "pyyaml==6.0.2"], "env_vars": {"B": "2"}}
    file.write_text(yaml.safe_dump({**plain, "py_modules": ["library"]}))
    done = manifests("diff", db.uri, "dev", file)
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith("py_modules")] == [
        "pip[attrs]: attrs==25.1.0 -> attrs==25.3.0",
        "pip[pyyaml]: nothing -> pyyaml==6.0.2",
        "env_vars[A]: 1 -> nothing",
        "env_vars[B]: nothing -> 2",
    ]
    assert sum(line.startswith("py_modules[library]: library@") for line in lines) == 1
    as_data = json.loads(manifests("diff", db.uri, "dev", file, "--json").stdout)
    assert {"path": "env_vars[B]", "before": None, "after": "2"} in as_data

    file.write_text("name: [dev]\n")
    assert manifests("diff", db.uri, "dev", file).exit_code == 2
    assert manifests("diff", db.uri, "nope", file).exit_code == 2
