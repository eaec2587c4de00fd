"""From a declared backfill to what a run starts: pure but for uploads, which are left out here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from infra.backfill_body import Driver
from infra.errors import BadSpec
from infra.spec import KubeRayClusterSpec
from runner.declared import prepare
from runner.environments.worker_setup import own_source
from runner.remote import bootstrap
from tests.unit.declared_backfills import backfill, cluster


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "features.py").write_text("def length(word: str) -> int:\n    return len(word)\n")
    monkeypatch.chdir(folder)
    return folder


def prepared(**fields: Any) -> tuple[KubeRayClusterSpec, Driver]:
    return prepare(backfill(**fields), cluster(), Path.cwd(), send=False)


def request(driver: Driver) -> dict[str, Any]:
    return dict(json.loads(driver.runtime_env["env_vars"]["INFILL_BACKFILL"]))


def test_the_request_is_the_declaration() -> None:
    _, driver = prepared(function="features:length", where="day > '7'", schedule="@daily", storage_options={"region": "x"})
    told = request(driver)
    assert told["uploads"]["workspace"][1:] == [[], ["."], "."]
    assert {name: told[name] for name in ("name", "table", "columns", "function", "options", "storage_options", "policy")} == {
        "name": "captions",
        "table": "images",
        "columns": ["caption"],
        "function": "features:length",
        "options": {"where": "day > '7'"},
        "storage_options": {"region": "x"},
        "policy": "Forbid",
    }
    assert request(prepared()[1])["policy"] == "Allow"
    assert prepared() == prepared()


def test_an_image_that_has_the_code_needs_no_upload() -> None:
    _, driver = prepared(code="image", function="features:length")
    assert driver.entrypoint == "python -m runner.remote.declared_driver"
    assert request(driver)["uploads"] == {"references": {}}
    assert "INFILL_SOURCE" not in driver.runtime_env["env_vars"]


def test_what_is_uploaded_is_found_by_its_hash() -> None:
    _, driver = prepared(storage_options={"region": "x", "allow_http": "true", "token": {"secret": "s", "key": "k"}})
    where = json.loads(driver.runtime_env["env_vars"]["INFILL_SOURCE"])
    source = own_source(zipfile.ZIP_STORED)
    assert (where["url"], where["name"]) == ("s3://bucket/db/_runner/sources", f"{sha256(source).hexdigest()}.zip")
    assert (where["config"], where["client_options"]) == ({"region": "x"}, {"allow_http": True})


def test_a_manifest_in_the_file_beside_it_or_in_itself(tmp_path: Path) -> None:
    Path("dev.yaml").write_text("name: dev\npip: [humanize==4.12.0]\nenv_vars: {LEVEL: debug}\n")
    _, driver = prepared(manifest="dev.yaml")
    assert request(driver)["manifest"] == "dev"
    assert "humanize==4.12.0" in driver.runtime_env["pip"]["packages"]  # the driver imports the function's module too
    assert driver.runtime_env["env_vars"]["LEVEL"] == "debug"
    assert driver.environment["pip"] == ["humanize==4.12.0"]
    shape, driver = prepared(manifest={"worker_image": "registry/image:1", "env_vars": {"API_TOKEN": "${env:API_TOKEN}"}})
    assert [group.image for group in shape.worker_groups] == ["registry/image:1"]
    assert shape.head_group.env["API_TOKEN"] == "${env:API_TOKEN}"
    assert request(driver)["uploads"]["references"] == {}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"on_error": "skip:x"}, "on_error='skip:x' is not one of"),
        ({"force": True, "commit_every": 5}, "leave out commit_every"),
        ({"manifest": {"pip": ["a b c"]}}, "pip"),
        ({"manifest": "none.yaml"}, "none.yaml"),
        ({"manifest": {"py_modules": ["missing"]}}, "py_modules: there is no"),
        (
            {"manifest": {"py_modules": ["features.py"]}, "code": "image"},
            "code: image uploads nothing, and the manifest has py_modules",
        ),
    ],
)
def test_what_the_runner_does_not_take_is_refused_before_anything_is_declared(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSpec) as caught:
        prepared(**fields)
    assert said in str(caught.value)
    assert "captions" in str(caught.value) or "none.yaml" in str(caught.value)


def test_the_bootstrap_fetches_the_source_and_becomes_the_driver(tmp_path: Path) -> None:
    """As Ray runs it: a command of the shell, the program in a variable, and nothing of ours on the path."""
    store, temporary = tmp_path / "store", tmp_path / "tmp"
    store.mkdir()
    temporary.mkdir()
    half = tmp_path / "source.zip"
    with zipfile.ZipFile(half, "w") as archive:
        for name, text in (("runner/__init__.py", ""), ("runner/remote/__init__.py", "")):
            archive.writestr(name, text)
        archive.writestr("runner/remote/declared_driver.py", "import os, sys\nprint(__file__)\nsys.exit(3)\n")
    name = f"{sha256(half.read_bytes()).hexdigest()}.zip"
    half.rename(store / name)
    where = {"url": f"file://{store}", "name": name, "config": {}, "client_options": {}, "prefix": "P_", "obstore": "obstore"}
    variables = {
        "INFILL_BOOTSTRAP": Path(bootstrap.__file__).read_text(),
        "INFILL_SOURCE": json.dumps(where),
        "TMPDIR": str(temporary),
    }

    def started() -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**variables, "PATH": path}
        command = 'python -c "$INFILL_BOOTSTRAP"'
        return subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = started()
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.strip() == f"{temporary}/infill-{os.getuid()}/{name}/runner/remote/declared_driver.py"
    (store / name).unlink()
    assert started().returncode == 3  # the node has it
    other = name.replace(name[0], "0" if name[0] != "0" else "1", 1)
    (store / other).write_bytes(b"something else")
    variables["INFILL_SOURCE"] = json.dumps({**where, "name": other})
    assert "is not what was uploaded; declare the backfill again" in started().stderr
