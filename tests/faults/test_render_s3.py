"""``backfill --render`` with a database on a real S3 server: what it prints, and what it uploads for the runs to come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from hashlib import sha256
from pathlib import Path

import pytest
import yaml

import runner
from infra import parse_spec
from runner.connection import Connection
from runner.packages.format import package_path
from runner.packages.unpack import ensure

ROOT = str(Path(__file__).parents[2])


@pytest.fixture
def database(s3: dict[str, str]) -> Connection:
    made = runner.connect(f"s3://faults/{uuid.uuid4().hex}", storage_options=s3)
    made.define_cluster("dev", parse_spec({"name": "dev", "namespace": "ray", "ray_version": "2.60.0", "python_version": "3.11"}))
    return made


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    (folder / "features.py").write_text("def length(word: str) -> int:\n    return len(word)\n")
    return folder


def rendered(database: Connection, workspace: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The secret options are known from the variables that hold them."""
    options = database.store.storage_options
    names = ("aws_access_key_id", "aws_secret_access_key")
    env = {**os.environ, "PYTHONPATH": ROOT, **{name.upper(): options[name] for name in names}}
    given = [f"--storage-option={key}={value}" for key, value in options.items()]
    command = [sys.executable, "-m", "runner", "backfill", database.uri, "words", "len", "--cluster", "dev", *words, *given]
    return subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True, check=False)


def test_what_is_printed_finds_what_was_uploaded(database: Connection, workspace: Path, tmp_path: Path) -> None:
    words = ("--udf", "features:length", "--where", "day > '$7`'", "--render", "rayjob")
    done = rendered(database, workspace, *words)
    assert done.returncode == 0, done.stderr
    (body,) = yaml.safe_load_all(done.stdout)
    assert (body["kind"], body["metadata"]["namespace"]) == ("RayJob", "ray")
    assert body["metadata"]["name"].startswith("words-len-")
    assert database.store.storage_options["aws_secret_access_key"] not in done.stdout
    assert "not printed: the Secret words-len-run-env of namespace ray" in done.stderr

    variables = yaml.safe_load(body["spec"]["runtimeEnvYAML"])["env_vars"]
    request = json.loads(variables["INFILL_BACKFILL"])
    assert (request["table"], request["columns"], request["options"]) == ("words", ["len"], {"where": "day > '$7`'"})
    where = json.loads(variables["INFILL_SOURCE"])
    source = database.store.get(f"sources/{where['name']}")
    assert source is not None
    assert f"{sha256(source).hexdigest()}.zip" == where["name"]
    package = request["uploads"]["workspace"][0]
    assert database.store.get(package_path(package)) is not None
    assert (ensure(database.store, package, base=tmp_path / "node") / "features.py").read_text().startswith("def length")

    assert (
        rendered(database, workspace, "--udf", "features:length", "--where", "day > '$7`'", "--render", "rayjob").stdout
        == done.stdout
    )


def test_a_schedule(database: Connection, workspace: Path) -> None:
    cron = ("--render", "cronjob", "--schedule", "0 3 * * *", "--name", "nightly")
    kinds = [body["kind"] for body in yaml.safe_load_all(rendered(database, workspace, *cron).stdout)]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "CronJob"]
    (body,) = yaml.safe_load_all(rendered(database, workspace, "--render", "raycronjob", "--schedule", "@daily").stdout)
    assert (body["kind"], body["spec"]["schedule"]) == ("RayCronJob", "@daily")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--render", "job"], "--render 'job' is none of rayjob, raycronjob, cronjob"),
        (["--render", "rayjob", "--schedule", "@daily"], "a rayjob runs once"),
        (["--render", "rayjob", "--limit", "5"], "--limit is for a backfill that a client runs"),
        (["--render", "rayjob", "--cluster", "large"], "nobody declares 'large'; declared are dev"),
    ],
)
def test_what_is_refused(database: Connection, workspace: Path, words: list[str], said: str) -> None:
    done = rendered(database, workspace, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
