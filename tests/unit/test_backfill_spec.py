"""A backfill's file: what it may say, what it is refused for, and its JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from infra.backfill_files import cluster_of, json_schema, read_backfill, read_backfills
from infra.errors import BadSpec
from infra.spec import parse_spec
from runner.cli.main import app
from tests.unit.declared_backfills import PLAIN, backfill, cluster

SECRET = {"secret": "s3", "key": "key"}


def test_defaults() -> None:
    spec = backfill(schedule="0 3 * * *")
    assert (spec.columns, spec.on_exit, spec.time_zone, spec.concurrency_policy) == (["caption"], "DELETE", "Etc/UTC", "Forbid")
    assert (spec.history_seconds, spec.code, spec.standing, spec.options) == (86400, "upload", False, {})
    assert backfill(on_exit="retain_on_failure").on_exit == "RETAIN_ON_FAILURE"
    assert backfill(database="s3://bucket/db/").database == "s3://bucket/db"
    assert backfill(where="day > 7", on_error="skip").options == {"where": "day > 7", "on_error": "skip"}


def test_references_are_told_from_what_may_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "v3ry-s3cr3t-value")
    spec = backfill(storage_options={"region": "x", "token": SECRET, "aws_secret_access_key": "v3ry-s3cr3t-value"})
    assert spec.shown_options == {"region": "x"}
    assert list(spec.secret_options) == ["token", "aws_secret_access_key"]
    assert spec.plain()["storage_options"]["aws_secret_access_key"] == "${env:MY_KEY}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"databse": "x"}, "unknown key 'databse'; did you mean 'database'?"),
        ({"name": "Captions"}, "name: 'Captions' is not lowercase letters, digits and '-'"),
        ({"name": "c" * 37}, "has 37 characters, at most 36 fit"),
        ({"database": "data/db"}, "database: 'data/db' is no address that pods reach; write s3://bucket/db"),
        ({"database": "db://cloud"}, "database: 'db://cloud' is no address that pods reach"),
        ({"columns": []}, "columns: Value should have at least 1 item"),
        ({"columns": ["a", "a"]}, "columns: 'a' is empty or given twice"),
        ({"function": "features.embed"}, "function: 'features.embed' is not of the form module:function"),
        ({"inputs": ["a"]}, "inputs: belong to a function, and none is given"),
        ({"where": " "}, "where: it is empty"),
        ({"manifest": ""}, "manifest: it is empty"),
        ({"only_failed": True, "stale": True}, "only_failed: takes the rows that failed and no others"),
        ({"schedule": "0 0 31 2 *"}, "schedule: '0 0 31 2 *' never fires"),
        ({"schedule": "@daily", "time_zone": "Mars/Olympus"}, "time_zone: 'Mars/Olympus' is no time zone"),
        ({"schedule": "@daily", "time_zone": "../etc/passwd"}, "time_zone: '../etc/passwd' is no time zone"),
        ({"time_zone": "Etc/UTC"}, "time_zone: belongs to a schedule, and there is none"),
        ({"history_seconds": 60}, "history_seconds: belongs to a schedule"),
        ({"concurrency_policy": "Allow"}, "concurrency_policy: belongs to a schedule"),
        ({"schedule": "@daily", "concurrency_policy": "Queue"}, "concurrency_policy: Input should be 'Forbid', 'Replace' or"),
        ({"on_exit": "keep"}, "on_exit: Input should be 'DELETE', 'RETAIN_ON_FAILURE' or 'RETAIN'"),
        ({"active_deadline_seconds": 0}, "active_deadline_seconds: Input should be greater than 0"),
        ({"backoff_limit": -1}, "backoff_limit: Input should be greater than or equal to 0"),
        ({"standing": True, "backoff_limit": 1}, "backoff_limit: KubeRay tries again on new clusters only"),
        ({"standing": True, "on_exit": "DELETE"}, "on_exit: DELETE is for a cluster of the run's own"),
        ({"standing": True, "storage_options": {"token": SECRET}}, "storage_options.token: a run cannot give secrets"),
        ({"standing": True, "suspend": True}, "suspend: KubeRay suspends only runs with a cluster of their own"),
        ({"on_exit": "RETAIN", "suspend": True}, "of their own and on_exit DELETE; give those, or remove the file"),
        ({"storage_options": {"aws_secret_access_key": "abcdefgh"}}, "looks like a secret in plain sight (8 characters)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_field_value_and_remedy(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSpec) as caught:
        backfill(**fields)
    assert str(caught.value).startswith("captions.yaml: ")
    assert said in str(caught.value)


def test_files_of_a_folder(tmp_path: Path) -> None:
    for name, text in (("a", {**PLAIN, "name": "a"}), ("b", {**PLAIN, "name": "b"})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(text))
    assert {name: file.name for name, (_, file) in read_backfills(tmp_path).items()} == {"a": "a.yaml", "b": "b.yaml"}
    (tmp_path / "c.yml").write_text(yaml.safe_dump({**PLAIN, "name": "a"}))
    (tmp_path / "d.yaml").write_text("- a\n")
    with pytest.raises(BadSpec) as caught:
        read_backfills(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/c.yml: name: 'a' is that of {tmp_path}/a.yaml too; a backfill is known by its name",
        f"{tmp_path}/d.yaml: a backfill is a mapping with a name, not list",
    ]
    with pytest.raises(BadSpec, match="is no folder; it is where the backfills' YAML files belong"):
        read_backfills(tmp_path / "none")


def test_the_cluster_that_a_backfill_names() -> None:
    known = {"small": cluster(), "laptop": parse_spec({"kind": "local", "name": "laptop"})}
    assert cluster_of(backfill(), known) is known["small"]
    assert cluster_of(backfill(standing=True), known, ["small"]) is known["small"]
    for fields, said in (
        ({"cluster": "large"}, "cluster: nobody declares 'large'; declared are laptop, small"),
        ({"cluster": "laptop"}, "cluster: 'laptop' is of kind local; a declared backfill runs on one of kind kuberay"),
        ({"standing": True}, "cluster: 'small' is declared, and this stack does not make it; name it in infill:clusters"),
    ):
        with pytest.raises(BadSpec, match="backfill 'captions': ") as caught:
            cluster_of(backfill(**fields), known, [])
        assert said in str(caught.value)


def test_the_schema_takes_what_is_taken_and_knows_every_field(tmp_path: Path) -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    full = {
        **PLAIN, "columns": ["a", "b"], "schedule": "@daily", "storage_options": {"region": "x", "token": SECRET},
        "manifest": {"pip": ["a==1"]}, "revision": "2", "timeout": 1.5,
    }  # fmt: skip
    for plain in (PLAIN, full):
        assert list(validator.iter_errors(plain)) == []
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(plain))
        assert read_backfill(tmp_path / "a.yaml").name == "captions"
    assert [error.message for error in validator.iter_errors({**PLAIN, "on_exit": "keep"})] != []
    assert all("description" in field for name, field in schema["properties"].items() if name != "table")


def test_the_schema_is_printed() -> None:
    printed = CliRunner().invoke(app, ["clusters", "schema", "backfill"]).stdout
    assert json.loads(printed) == json_schema()
