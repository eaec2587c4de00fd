from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import BadInput
from runner.manifests.locks import read_lock
from runner.manifests.manifest import load_manifest
from runner.manifests.requirements import check_requirements

PYLOCK = """
lock-version = "1.0"
created-by = "by hand"

[[packages]]
name = "attrs"
version = "25.1.0"
sdist = { name = "attrs-25.1.0.tar.gz", hashes = { sha256 = "bb" } }
wheels = [{ name = "attrs-25.1.0-py3-none-any.whl", hashes = { sha256 = "aa" } }]

[[packages]]
name = "colorama"
version = "0.4.6"
marker = "sys_platform == 'win32'"
wheels = [{ name = "colorama-0.4.6-py2.py3-none-any.whl", hashes = { sha256 = "cc" } }]
"""
PROJECT = '[project]\nname = "mine"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = [{}]\n'


def written(folder: Path, text: str, name: str = "pylock.toml") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def uv(monkeypatch: pytest.MonkeyPatch) -> str:
    """uv, on PATH, without a network."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON", sys.executable)
    found = shutil.which("uv")
    if found is None:
        pytest.skip("uv is neither in the virtual environment nor on PATH")
    return found


def locked(uv: str, folder: Path, dependency: str = "", more: str = "") -> Path:
    """The lock that uv itself makes of a project."""
    written(folder, PROJECT.format(dependency) + more, "pyproject.toml")
    done = subprocess.run([uv, "lock"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "uv.lock"


def test_a_pylock_is_versions_with_hashes_and_markers(tmp_path: Path) -> None:
    path = written(tmp_path, PYLOCK)
    requirements = [
        "attrs==25.1.0 --hash=sha256:aa --hash=sha256:bb",
        'colorama==0.4.6 ; sys_platform == "win32" --hash=sha256:cc',
    ]
    assert read_lock(path) == requirements
    assert check_requirements(requirements) == []
    manifest = load_manifest({"name": "dev", "lock_path": "pylock.toml"}, tmp_path)
    assert (manifest.kind, manifest.pip) == ("uv", requirements)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PYLOCK + '[[packages]]\nname = "mine"\ndirectory = { path = "." }\n', "mine comes from a folder or a repository"),
        (PYLOCK.replace('{ sha256 = "cc" }', "{}"), "colorama has no hashes; lock it again"),
        ("a = ", "is no TOML"),
        ("version = 1", "is neither uv.lock nor pylock.toml"),
    ],
)
def test_what_is_no_lock_of_packages_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(BadInput, match=f"^{re.escape(str(path))}:? {problem}"):
        read_lock(path)


def test_a_missing_lock(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"no lock file at {tmp_path}/uv.lock"):
        read_lock(tmp_path / "uv.lock")


def test_without_uv_a_uv_lock_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"read by uv, which is not on PATH: pip install uv, or .* uv export -o pylock\.toml"):
        read_lock(written(tmp_path, "version = 1", "uv.lock"))


def test_a_lock_that_uv_does_not_read(uv: str, tmp_path: Path) -> None:
    path = written(tmp_path, "version = ]", "uv.lock")
    written(tmp_path, PROJECT.format(""), "pyproject.toml")
    with pytest.raises(BadInput, match=f"uv cannot export {path}: .+"):
        read_lock(path)


def test_the_lock_that_uv_makes_is_versions_with_hashes(uv: str, tmp_path: Path) -> None:
    """Of this repository: its lock is made by uv, and no network is needed."""
    root = Path(__file__).parents[2]
    for name in ("pyproject.toml", "uv.lock"):
        shutil.copy(root / name, tmp_path / name)
    found = read_lock(tmp_path / "uv.lock")
    assert all(re.match(r"[\w.-]+==\S+( ; .+?)? --hash=sha256:[0-9a-f]{64}", line) for line in found)
    names = {line.partition("==")[0] for line in found}
    assert {"ray", "pylance", "numpy"} <= names
    assert names.isdisjoint({"infill", "pytest", "mypy"})
    assert check_requirements(found) == []


def test_a_folder_in_a_uv_lock_is_refused(uv: str, tmp_path: Path) -> None:
    built = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    written(tmp_path / "own", PROJECT.format("").replace("mine", "own") + built, "pyproject.toml")
    for editable in ("true", "false"):
        source = f'[tool.uv.sources]\nown = {{ path = "../own", editable = {editable} }}\n'
        path = locked(uv, tmp_path / editable, '"own"', source)
        with pytest.raises(BadInput, match=rf"{path} has '.*\.\./own', a folder of this machine; give it to py_modules"):
            read_lock(path)
