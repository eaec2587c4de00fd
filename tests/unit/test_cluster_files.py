from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from infra.errors import BadSpec
from infra.files import json_schema, read_folder, read_spec, to_yaml
from infra.spec import KubeRayClusterSpec, LocalClusterSpec
from tests.unit.cluster_specs import collected, plain_specs

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(json_schema())
    return Draft202012Validator(json_schema())


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


def test_a_file_holds_numbers_where_quantities_go(tmp_path: Path) -> None:
    text = """
        name: a
        head_group: {cpus: 2, memory: 8589934592, env: {A: 1, B: true, C: 1.5}}
        worker_groups: [{cpus: 0.5, memory: 8Gi}]
    """
    spec = read_spec(write(tmp_path, "a.yaml", text))
    assert spec == KubeRayClusterSpec(
        name="a",
        head_group={"cpus": "2", "memory": "8589934592", "env": {"A": "1", "B": "true", "C": "1.5"}},
        worker_groups=[{"cpus": "0.5", "memory": "8Gi"}],
    )


def test_json_is_yaml(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", json.dumps({"kind": "local", "name": "a"}))
    assert read_spec(str(file)) == LocalClusterSpec(name="a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [a", "{file} is not YAML: while parsing a flow sequence"),
        ("name: a\n\tb: c", "{file} is not YAML: while scanning"),
        ("name: a\n---\nname: b", "{file} is not YAML: expected a single document"),
        ("!!python/object:os.system {}", "{file} is not YAML: could not determine a constructor"),
        ("", "{file}: a cluster is a mapping with a name, not NoneType"),
        ("- name: a", "{file}: a cluster is a mapping with a name, not list"),
        ("name: a\nkind: ray", "{file}: kind: 'ray' is none of kuberay, local, external"),
        ("name: no", "{file}: name: Input should be a valid string, not False"),
        ("name: a\nnamespase: b", "{file}: unknown key 'namespase'; did you mean 'namespace'?"),
        ("name: a\nhead_group: {cpus: }", "{file}: head_group.cpus: Input should be a valid string, not None"),
        (
            "name: a\noverrides: {metadata: {annotations: {since: 2026-01-01}}}",
            "{file}: overrides: Object of type date is not JSON",
        ),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, "a.yaml", text)
    with pytest.raises(BadSpec) as caught:
        read_spec(file)
    assert str(caught.value).startswith(said.replace("{file}", str(file)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSpec, match=r"cannot read .*missing\.yaml: No such file"):
        read_spec(tmp_path / "missing.yaml")
    with pytest.raises(BadSpec, match=r"cannot read .*: Is a directory"):
        read_spec(tmp_path)
    latin = tmp_path / "a.yaml"
    latin.write_bytes(b"name: \xe9")
    with pytest.raises(BadSpec, match=r"a\.yaml is not YAML: 'utf-8' codec"):
        read_spec(latin)


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    write(tmp_path, "2.yaml", "name: a")
    write(tmp_path, "1.yml", "{name: b, kind: local}")
    write(tmp_path, "README.md", "not: a cluster")
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", "c.yaml", "name: c")
    assert read_folder(tmp_path) == {"a": KubeRayClusterSpec(name="a"), "b": LocalClusterSpec(name="b")}
    assert read_folder(tmp_path / "below").keys() == {"c"}


def test_every_problem_of_a_folder_is_told(tmp_path: Path) -> None:
    first, second = write(tmp_path, "1.yaml", "name: a"), write(tmp_path, "2.yaml", "{name: a, kind: local}")
    third = write(tmp_path, "3.yaml", "name: B")
    with pytest.raises(BadSpec) as caught:
        read_folder(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{second}: name: 'a' is that of {first} too; a cluster is known by its name",
        f"{third}: name: 'B' is not lowercase letters, digits and '-', starting with a letter and not ending with '-'",
    ]
    with pytest.raises(BadSpec, match=r"1\.yaml is no folder"):
        read_folder(first)
    with pytest.raises(BadSpec, match="nowhere is no folder"):
        read_folder(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "y",
        "N",
        "yes",
        "off",
        "null",
        "~",
        "1",
        "08",
        "1e3",
        "1e+3",
        "+.5",
        "1_000",
        "0o17",
        "0x1f",
        "2026-01-01",
        ".inf",
        "12:30",
        "=",
        "true",
        "",
    ],
)
def test_text_that_some_parser_takes_for_something_else_is_quoted(text: str) -> None:
    """YAML 1.1's readers and Go's: kubectl takes 08 for the number 8."""
    written = to_yaml({"v": text})
    assert written in (f'v: "{text}"\n', f"v: '{text}'\n")
    assert yaml.safe_load(written) == {"v": text}


@pytest.mark.parametrize("text", ["8Gi", "500m", "2.60.0", "a-b", "10.0.0.0/8", "nvidia.com/gpu", "e1", "é"])
def test_other_text_is_written_plain(text: str) -> None:
    assert to_yaml({"v": text}) == f"v: {text}\n"


def test_yaml_has_no_anchors_and_keeps_the_order() -> None:
    shared = {"b": 1, "a": [1, 2]}
    assert to_yaml({"y1": shared, "x": [shared]}) == "y1:\n  b: 1\n  a:\n  - 1\n  - 2\nx:\n- b: 1\n  a:\n  - 1\n  - 2\n"


@pytest.mark.parametrize("text", ["a\nb", "a\n", "a \nb", "\ta\n\n", "\n", " a\nb: c\n# d\n"])
def test_lines_of_text_are_lines_of_yaml(text: str) -> None:
    assert yaml.safe_load(to_yaml({"a": {"b": text}})) == {"a": {"b": text}}
    assert to_yaml({"a": "b: c\nd\n"}) == "a: |\n  b: c\n  d\n"


def test_the_schema_takes_what_is_taken(schema: Draft202012Validator) -> None:
    """As it is given, numbers for quantities and all, and as it is stored."""
    specs = collected(plain_specs(), 60)
    for plain in specs:
        assert list(schema.iter_errors(plain)) == []
        assert list(schema.iter_errors(KubeRayClusterSpec.parse(plain).plain())) == []
    for file in [*ROOT.glob("stacks/clusters/*.yaml")]:
        assert list(schema.iter_errors(yaml.safe_load(file.read_text()))) == []
    assert schema.is_valid({"name": "a", "kind": "local"})
    assert schema.is_valid({"name": "a", "kind": "external", "address": "ray://h:1"})


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"name": 5},
        {"name": "a", "head_grp": {}},
        {"name": "a", "head_group": {"cpu": 1}},
        {"name": "a", "head_group": {"cpus": True}},
        {"name": "a", "worker_groups": [{"gpus": -1}]},
        {"name": "a", "worker_groups": [{"kind": "tpu"}]},
        {"name": "a", "head_group": {"env": {"A": {"secret": "s"}}}},
        {"name": "a", "head_group": {"env": {"A": [1]}}},
        {"name": "a", "kind": "external"},
        {"name": "a", "kind": "local", "namespace": "b"},
    ],
)
def test_the_schema_refuses(schema: Draft202012Validator, plain: dict[str, Any]) -> None:
    assert not schema.is_valid(plain)


def test_the_schema_describes_each_field() -> None:
    described = json_schema()["$defs"]["WorkerGroup"]["properties"]
    assert described["min_replicas"]["minimum"] == 0
    assert described["gpus"]["description"] == "Accelerators of a pod."
