from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import BadSpec
from runner.errors import BadInput
from runner.manifests.manifest import DEFAULT_IMAGE, Manifest, ManifestKind, json_schema, load_manifest

TOKEN = "ghp_0123456789abcdefghij0123456789abcdefgh"
CONDA = {"dependencies": ["numpy=2.1", {"pip": ["pillow"]}]}
FULL: dict[str, Any] = {
    "name": "Full_1.x",
    "kind": "pip",
    "version": "2026-01",
    "pip": ["attrs==25.1.0", "own @ https://${env:USER_}:${env:TOKEN}@example.com/own.whl"],
    "index_url": "https://__token__:${env:TOKEN}@example.com/simple",
    "extra_index_urls": ["https://${env:TOKEN}@example.com/simple", "http://localhost:8080/simple"],
    "py_modules": ["lib"],
    "working_dir": False,
    "include": ["*.bin"],
    "exclude": ["data/"],
    "head_image": DEFAULT_IMAGE,
    "worker_image": "registry.example.com:5000/team/worker:1",
    "gpu_worker_image": "gpu@sha256:" + "0" * 64,
    "env_vars": {"A": "b", "API_TOKEN": "${env:TOKEN}"},
    "delete_local_zips": False,
    "local_zip_output_dir": "zips",
}


@pytest.mark.parametrize(
    "data", [FULL, {"name": "a"}, {"name": "a", "kind": "conda", "conda": CONDA}, {"name": "a", "kind": "site"}]
)
def test_what_plain_gives_is_the_same_manifest(data: dict[str, Any]) -> None:
    manifest = Manifest.parse(data)
    assert manifest.plain() == data
    assert Manifest.parse(manifest.plain()) == manifest


def test_kinds() -> None:
    assert Manifest(name="a").kind is ManifestKind.PIP
    assert {Manifest.parse({"name": "a", "kind": kind}).kind.value for kind in ("pip", "uv", "site")} == {"pip", "uv", "site"}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": "poetry"}, "kind: Input should be 'pip', 'uv', 'conda' or 'site', not 'poetry'"),
        ({"kind": "site", "pip": ["attrs"]}, "pip: belongs to another kind, and this manifest is of kind site"),
        ({"kind": "pip", "conda": CONDA}, "conda: belongs to another kind, and this manifest is of kind pip"),
        ({"kind": "conda"}, "conda: a manifest of kind conda needs an environment"),
        ({"kind": "conda", "conda": {"deps": []}}, "conda: an environment has dependencies, a list"),
        ({"kind": "conda", "conda": {"dependencies": [1]}}, "conda: 1 is no dependency; write name=1.2.3"),
        ({"kind": "conda", "conda": {"dependencies": ["nump@2"]}}, "conda: 'nump@2' is no dependency"),
        ({"kind": "conda", "conda": {"dependencies": [{"npm": ["x"]}]}}, "conda: {'npm': ['x']} is no dependency"),
        ({"kind": "conda", "conda": {"dependencies": [{"pip": ["numpy=1"]}]}}, "conda: 'numpy=1' is no requirement"),
        ({"kind": "conda", "conda": {"dependencies": [{"pip": ["rich==14.0.0", "Rich"]}]}}, "conda: Rich is required twice"),
        ({"kind": "conda", "conda": {"dependencies": [{"pip": ["ray==1.0"]}]}}, "conda: ray==1.0 is not the Ray"),
        ({"kind": "conda", "conda": {"dependencies": [{"pip": ["--pre"]}]}}, "conda: pip: '--pre' has no meaning on a worker"),
        ({"pips": []}, "unknown key 'pips'; did you mean 'pip'?"),
        ({"pip": "numpy"}, "pip: Input should be a valid list, not 'numpy'"),
        ({"pip": ["numpy=1"]}, "pip: 'numpy=1' is no requirement"),
        ({"index_url": "pypi.org"}, "index_url: 'pypi.org' is no index; write https://host/simple"),
        ({"env_vars": {"A B": "c"}}, "env_vars"),
        ({"worker_image": "No Image"}, "worker_image: 'No Image' is no image"),
        ({"head_image": "a b"}, "head_image: 'a b' is no image"),
        ({"delete_local_zips": False}, "delete_local_zips: false needs local_zip_output_dir"),
    ],
)
def test_a_wrong_field_is_told_with_its_place(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSpec, match=f"^here: {re.escape(problem)}") as told:
        Manifest.parse({"name": "a", **fields}, "here")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a/b", "a b", "", "..", "-a", "a\n", "x" * 300])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(BadSpec, match=rf"name: {re.escape(repr(name[:120]))} is no name: at most 100 letters") as told:
        Manifest(name=name)
    assert len(str(told.value)) < 300


@pytest.mark.parametrize(
    "fields",
    [
        {"index_url": f"https://me:{TOKEN}@example.com/simple"},
        {"index_url": f"https://${{env:ME}}:{TOKEN}@example.com/simple"},
        {"index_url": f"https://{TOKEN}@example.com/simple"},
        {"extra_index_urls": [f"https://me:a@{TOKEN}@example.com/simple"]},
        {"pip": [f"own @ git+https://{TOKEN}@github.com/me/own"]},
        {"pip": [f"own @ https://me:{TOKEN}@example.com/own.whl"]},
        {"env_vars": {"API_TOKEN": TOKEN}},
        {"env_vars": {"ANY": TOKEN}},
        {"kind": "conda", "conda": {**CONDA, "variables": {"API_TOKEN": TOKEN}}},
        {"kind": "conda", "conda": {**CONDA, "channels": [f"https://me:{TOKEN}@example.com/conda"]}},
    ],
)
def test_a_secret_in_plain_sight_is_refused_and_not_repeated(fields: dict[str, Any]) -> None:
    with pytest.raises(BadSpec, match="in plain sight") as told:
        Manifest.parse({"name": "a", **fields})
    assert TOKEN not in str(told.value)
    assert "${env:" in str(told.value)


def test_a_secret_that_a_variable_holds_is_kept_as_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", TOKEN)
    conda = {**CONDA, "variables": {"API_TOKEN": TOKEN}}
    manifest = Manifest.parse({"name": "a", "kind": "conda", "conda": conda, "env_vars": {"API_TOKEN": TOKEN, "A": "b"}})
    assert manifest.env_vars == {"API_TOKEN": "${env:API_TOKEN}", "A": "b"}
    assert manifest.conda["variables"] == {"API_TOKEN": "${env:API_TOKEN}"}


def test_variables_are_text_however_yaml_reads_them() -> None:
    manifest = Manifest.parse({"name": "a", "env_vars": {"COUNT": 4, "RATIO": 0.5, "ON": True}})
    assert manifest.env_vars == {"COUNT": "4", "RATIO": "0.5", "ON": "true"}


def test_addresses_without_secrets_are_taken() -> None:
    urls = ["own @ git+ssh://git@github.com/me/own@v1", "two @ https://example.com/two@v1.whl", "three @ https://h/?at=a@b"]
    assert Manifest(name="a", pip=urls).pip == urls


def test_warnings() -> None:
    assert Manifest(name="a", pip=["attrs==25.1.0"]).warnings() == []
    (loose,) = Manifest(name="a", pip=["attrs"]).warnings()
    assert loose.startswith("'attrs' has no pinned version")
    conda = Manifest(
        name="a", kind=ManifestKind.CONDA, conda={"dependencies": ["numpy", "conda-forge::rich=14", {"pip": ["attrs"]}]}
    )
    assert [text.partition(" has no pinned")[0] for text in conda.warnings()] == ["'numpy'", "'attrs'"]


RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.parametrize("python", ["3.1", "3.10", "2", "=3.10.4", "3.10.*"])
@pytest.mark.parametrize("form", ["python={}", "conda-forge::python={}"])
def test_another_python_of_conda_is_warned_of(form: str, python: str) -> None:
    manifest = Manifest(name="a", kind=ManifestKind.CONDA, conda={"dependencies": ["pip", {"pip": []}, form.format(python)]})
    (warning,) = manifest.warnings()
    assert re.match(rf"conda: python=[\d.]+, and Ray runs workers with the client's Python \({RUNNING}\) only", warning)


@pytest.mark.parametrize(
    "item", [f"python={RUNNING}", f"python=={RUNNING}.1", "python=3", "python", "python>=3.9", "python-dateutil=2.9"]
)
def test_this_python_of_conda_is_not_warned_of(item: str) -> None:
    assert Manifest(name="a", kind=ManifestKind.CONDA, conda={"dependencies": [item]}).warnings() == []


# -- files that are named


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "r.txt").write_text("--index-url https://one/simple\n--extra-index-url https://two/simple\nattrs==25.1.0\n")
    (tmp_path / "env.yml").write_text("dependencies: [numpy=2.1]")
    (tmp_path / "pylock.toml").write_text('lock-version = "1.0"\npackages = []\n')
    return tmp_path


def test_files_are_read_in(folder: Path) -> None:
    manifest = load_manifest({"name": "a", "requirements_path": "r.txt", "extra_index_urls": ["https://three/simple"]}, folder)
    assert manifest.plain() == {
        "name": "a",
        "pip": ["attrs==25.1.0"],
        "index_url": "https://one/simple",
        "extra_index_urls": ["https://three/simple", "https://two/simple"],
    }
    conda = load_manifest({"name": "a", "conda_environment_path": str(folder / "env.yml")}, Path("/nowhere"))
    assert conda.plain() == {"name": "a", "kind": "conda", "conda": {"dependencies": ["numpy=2.1"]}}
    modules = load_manifest({"name": "a", "py_modules": ["lib", "/opt/x"], "lock_path": None}, folder).py_modules
    assert modules == [str(folder / "lib"), "/opt/x"]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"pip": ["attrs"], "requirements_path": "r.txt"}, "both pip and requirements_path are given; keep one"),
        ({"pip": ["attrs"], "lock_path": "pylock.toml"}, "both pip and lock_path are given"),
        ({"requirements_path": "r.txt", "lock_path": "pylock.toml"}, "both requirements_path and lock_path are given"),
        ({"conda": CONDA, "conda_environment_path": "env.yml"}, "both conda and conda_environment_path are given"),
        ({"kind": "site", "lock_path": "pylock.toml"}, "lock_path: belongs to kind uv, and this manifest has kind: site"),
        ({"index_url": "https://x/simple", "requirements_path": "r.txt"}, "requirements_path: has another index_url"),
        ({"requirements_path": "no.txt"}, ""),
    ],
)
def test_what_contradicts_itself_is_refused(folder: Path, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadInput, match=f"^dev.yaml: {problem}" if problem else r"cannot read the requirements .*/no\.txt"):
        load_manifest({"name": "a", **fields}, folder, "dev.yaml")


@pytest.mark.parametrize(("text", "problem"), [("a: [", "is not YAML"), ("- a", "is no conda environment")])
def test_a_wrong_conda_environment_is_refused(folder: Path, text: str, problem: str) -> None:
    (folder / "env.yml").write_text(text)
    with pytest.raises(BadInput, match=f"{folder}/env.yml {problem}"):
        load_manifest({"name": "a", "conda_environment_path": "env.yml"}, folder)
    with pytest.raises(BadInput, match=f"cannot read the conda environment {folder}/no.yml: No such file"):
        load_manifest({"name": "a", "conda_environment_path": "no.yml"}, folder)


def test_what_the_pip_of_a_conda_environment_includes_is_read_in(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub/env.yml").write_text("dependencies: [numpy=2.1, {pip: [-r ../r.txt, rich==14.0.0]}]")
    read = [
        "--index-url https://one/simple",
        "--extra-index-url https://two/simple",
        "attrs==25.1.0",
        "rich==14.0.0",
    ]
    by_path = load_manifest({"name": "a", "conda_environment_path": "sub/env.yml"}, folder)
    assert by_path.conda == {"dependencies": ["numpy=2.1", {"pip": read}]}
    inline = {"dependencies": ["numpy=2.1", {"pip": ["-r r.txt", "rich==14.0.0"]}]}
    assert load_manifest({"name": "a", "kind": "conda", "conda": inline}, folder).conda == by_path.conda
    (folder / "sub/env.yml").write_text("dependencies: [{pip: [-r no.txt]}]")
    with pytest.raises(BadInput, match=rf"cannot read the requirements {folder}/sub/no\.txt"):
        load_manifest({"name": "a", "conda_environment_path": "sub/env.yml"}, folder)
    with pytest.raises(BadInput, match=r"f\.yaml: conda: '-e': an editable install"):
        load_manifest({"name": "a", "kind": "conda", "conda": {"dependencies": [{"pip": ["-e ."]}]}}, folder, "f.yaml")


def test_the_schema_takes_what_a_file_may_hold_and_no_more() -> None:
    fields = json_schema()["properties"]
    paths = {"requirements_path", "conda_environment_path", "lock_path"}
    assert fields.keys() == Manifest.model_fields.keys() | paths
    assert all(fields[name]["type"] == "string" for name in paths)
    assert all(field.get("description") for field in fields.values())
    assert json_schema()["additionalProperties"] is False


@pytest.mark.parametrize("data", [None, [], "a"])
def test_what_is_no_mapping_is_refused(data: Any) -> None:
    with pytest.raises(BadSpec, match=rf"^f.yaml: a manifest is a mapping with a name, not {type(data).__name__}"):
        load_manifest(data, Path(), "f.yaml")
