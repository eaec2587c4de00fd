"""Manifests that a database keeps under a name, in a script and on the command line."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import runner
from infra import BadSpec
from runner import Connection, Manifest, ManifestFactory
from runner.cli import app
from runner.errors import BadInput
from runner.packages.gc import collect
from runner.packages.unpack import ensure
from tests.e2e.helpers import cli, cli_json, files
from tests.unit.test_imports import HEAVY, imported

TOKEN = "ghp_0123456789abcdefghij0123456789abcdefgh"


def pinned(*requirements: str, name: str = "dev") -> Manifest:
    return ManifestFactory.create_pip(name).pip(requirements).build()


def test_definitions_change_and_go_and_their_history_stays(db: Connection) -> None:
    assert db.list_manifests() == []
    first, second = pinned("attrs==25.1.0"), pinned("attrs==25.3.0")
    site = ManifestFactory.create_site("a-site").build()
    for manifest in (first, site):
        assert db.define_manifest(manifest.name, manifest).is_new
    assert db.list_manifests() == [site, first]
    assert (Path(db.uri) / "_runner/manifests/dev/000001.json").is_file()
    assert not db.define_manifest("dev", Manifest(name="dev", pip=["attrs==25.1.0"])).is_new
    assert db.define_manifest("dev", second).revision == 2
    assert runner.connect(db.uri).get_manifest("dev") == second

    db.delete_manifest("dev")
    assert db.list_manifests() == [site]
    with pytest.raises(BadInput, match=r"manifest 'dev' of .* was deleted"):
        db.get_manifest("dev")
    history = db.manifest_history("dev")
    assert [each.spec and Manifest.parse(each.spec) for each in history] == [None, second, first]
    for call in (db.get_manifest, db.manifest_history, db.delete_manifest):
        with pytest.raises(BadInput, match=r"no manifest 'a-sit' in .*; it has a-site$"):
            call("a-sit")
    assert db.list_clusters() == []


def test_only_a_manifest_of_that_name_is_taken(db: Connection) -> None:
    builder = ManifestFactory.create_pip("dev")
    with pytest.raises(BadInput, match=r"takes the manifest that \.build\(\) returns, and this is a PipManifestBuilder; add"):
        db.define_manifest("dev", builder)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"define_manifest takes a Manifest, not a dict; the builders of runner\.ManifestFactory"):
        db.define_manifest("dev", {"name": "dev"})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="the manifest is to be known as 'prod' and it says itself 'dev'"):
        db.define_manifest("prod", builder.build())
    changed = builder.build().model_copy(update={"env_vars": {"ANY": TOKEN}})
    with pytest.raises(BadSpec, match="manifest 'dev': env_vars: ANY looks like a secret in plain sight"):
        db.define_manifest("dev", Manifest.model_construct(**{**changed.__dict__, "name": "dev"}))
    assert files(db.uri) == {}


def test_a_module_that_is_not_here_is_refused_with_its_path(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    builder = ManifestFactory.create_site("dev").py_modules([str(tmp_path / "text"), str(tmp_path / "lib")])
    with pytest.raises(BadInput, match=rf"manifest 'dev': py_modules: there is no {tmp_path}/lib on this machine$"):
        db.define_manifest("dev", builder.build())
    assert files(db.uri) == {}
    (tmp_path / "lib").write_text("")
    with pytest.raises(BadInput, match=rf"{tmp_path}/lib is neither a folder nor a \.py file nor a wheel"):
        db.define_manifest("dev", builder.build())


def test_modules_are_uploaded_as_they_are_when_the_manifest_is_defined(db: Connection, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/one.py").write_text("ONE = 1\n")
    manifest = ManifestFactory.create_site("dev").py_modules([str(tmp_path / "lib")]).build()
    db.define_manifest("dev", manifest)
    (stored,) = db.get_manifest("dev").py_modules
    name, package = stored.split("@")
    assert name == "lib"
    assert (ensure(db.store, package, tmp_path / "node") / "one.py").read_text() == "ONE = 1\n"
    assert not db.define_manifest("dev", manifest).is_new
    assert not db.define_manifest("dev", db.get_manifest("dev")).is_new
    assert collect(db.store, dt.timedelta(0)) == []
    (tmp_path / "lib/one.py").write_text("ONE = 2\n")
    assert db.define_manifest("dev", manifest).revision == 2
    assert {Path(found.path).stem for found in collect(db.store, dt.timedelta(0))} >= {package}


def test_a_secret_is_stored_as_a_reference(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", TOKEN)
    db.define_manifest("dev", ManifestFactory.create_pip("dev").env_vars({"API_TOKEN": TOKEN}).build())
    content = (Path(db.uri) / "_runner/manifests/dev/000001.json").read_text()
    assert '"API_TOKEN": "${env:API_TOKEN}"' in content
    assert TOKEN not in content


def test_what_this_version_does_not_take_is_told_with_its_place(db: Connection) -> None:
    db.define_manifest("dev", pinned())
    path = Path(db.uri) / "_runner/manifests/dev/000001.json"
    path.write_text(path.read_text().replace('"kind"', '"colour": "blue", "kind"'))
    for call in (lambda: db.get_manifest("dev"), db.list_manifests):
        with pytest.raises(BadSpec, match=rf"manifest 'dev' of {db.uri}, revision 1: unknown key 'colour'"):
            call()
    db.delete_manifest("dev")


def test_importing_the_runner_imports_no_manifests() -> None:
    names, _ = imported("-c", "import runner; runner.connect('db')")
    assert names.isdisjoint({"infra", "pydantic", "yaml", "packaging"})


# -- on the command line


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m/lib").mkdir(parents=True)
    (tmp_path / "m/r.txt").write_text("attrs==25.1.0\nclick\n")
    (tmp_path / "m/dev.yaml").write_text("{name: dev, requirements_path: r.txt, py_modules: [lib]}")
    (tmp_path / "site.yaml").write_text("{name: here, kind: site}")
    return tmp_path


def manifests(*args: str) -> Result:
    """A command in this process."""
    return CliRunner().invoke(app, ["manifests", *args])


def test_define_list_show_history_and_delete(project: Path) -> None:
    defined = cli(project, "manifests", "define", "db", "m/dev.yaml", "site.yaml")
    assert (defined.returncode, defined.stdout) == (0, "defined dev (revision 1)\ndefined here (revision 1)\n")
    assert defined.stderr.startswith("warning: manifest 'dev': 'click' has no pinned version")
    assert len(defined.stderr.splitlines()) == 1
    assert runner.connect("db").get_manifest("dev").pip == ["attrs==25.1.0", "click"]
    (project / "m/r.txt").write_text("attrs==25.3.0\n")
    again = manifests("define", "db", "m/dev.yaml", "site.yaml")
    assert again.stdout == "defined dev (revision 2)\nhere is unchanged (revision 1)\n"

    first, second = manifests("list", "db").stdout.splitlines()
    assert re.fullmatch(r"dev   pip       revision 2  20\S+  \S+ on \S+", first)
    assert re.fullmatch(r"here  site      revision 1  20\S+  \S+ on \S+", second)
    listed = cli_json(project, "manifests", "list", "db")
    assert [each["name"] for each in listed] == ["dev", "here"]
    shown = manifests("show", "db", "dev")
    assert yaml.safe_load(shown.stdout) == listed[0]["spec"]
    assert listed[0]["spec"]["pip"] == ["attrs==25.3.0"]
    assert re.fullmatch("lib@[0-9a-f]{64}", listed[0]["spec"]["py_modules"][0])
    assert yaml.safe_load(manifests("show", "db", "dev", "--revision", "1").stdout)["pip"] == ["attrs==25.1.0", "click"]
    (project / "copy.yaml").write_text(shown.stdout)
    assert manifests("define", "db", "copy.yaml").stdout == "dev is unchanged (revision 2)\n"

    assert manifests("delete", "db", "dev").stdout == "deleted dev (revision 3)\n"
    history = manifests("show", "db", "dev", "--history").stdout.splitlines()
    assert [line.split()[1] for line in history] == ["3", "2", "1"]
    assert [line.endswith("  deleted") for line in history] == [True, False, False]


def test_one_wrong_file_and_nothing_is_defined(project: Path) -> None:
    wrong = {
        "unknown.yaml": "{name: a, pips: []}",
        "both.yaml": "{name: b, pip: [attrs], requirements_path: m/r.txt}",
        "list.yaml": "[a]",
        "broken.yaml": "{",
        "module.yaml": "{name: c, py_modules: [nowhere]}",
        "twice.yaml": "{name: dev}",
    }
    for name, text in wrong.items():
        (project / name).write_text(text)
    done = cli(project, "manifests", "define", "db", "m/dev.yaml", *wrong, "missing.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    told = done.stderr.splitlines()
    expected = [
        "error: unknown.yaml: unknown key 'pips'; did you mean 'pip'?",
        "both.yaml: both pip and requirements_path are given; keep one",
        "list.yaml: a manifest is a mapping with a name, not list",
        "broken.yaml is not YAML: ",
        f"module.yaml: py_modules: there is no {project}/nowhere on this machine",
        "twice.yaml: name: 'dev' is that of an earlier file; a manifest is known by its name",
        "cannot read missing.yaml: No such file",
    ]
    assert len(told) == len(expected)
    for line, start in zip(told, expected, strict=True):
        assert line.startswith(start)
    assert not (project / "db").exists()


def test_the_schema_is_printed() -> None:
    assert json.loads(manifests("schema").stdout)["required"] == ["name"]


@pytest.mark.parametrize("args", [("show", "db", "devv"), ("delete", "db", "devv"), ("show", "db", "dev", "--revision", "9")])
def test_exit_code_2_changes_nothing(project: Path, args: tuple[str, ...]) -> None:
    manifests("define", "db", "m/dev.yaml")
    before = files(project / "db")
    done = manifests(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.search(r"no manifest 'devv' in .*; it has dev|has no revision 9", done.stderr)
    assert files(project / "db") == before


@pytest.mark.parametrize("command", [[], ["list"], ["define"]])
def test_help_answers_without_importing_anything_heavy(command: list[str]) -> None:
    names, text = imported("-m", "runner", "manifests", *command, "--help")
    assert "Usage:" in text
    assert names.isdisjoint(HEAVY | {"infra", "yaml", "packaging"})
