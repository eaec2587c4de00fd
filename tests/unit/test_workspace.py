"""The workspace, and names in it that would hide Infill's own packages on a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.environments.workspace import OURS_IN, workspace
from runner.errors import BadInput


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace, which is the working directory; modules are looked for in it and in ``src``."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "src").mkdir()
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path / "jobs")
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    return tmp_path


def test_modules_are_looked_for_where_this_process_does(folder: Path) -> None:
    found = workspace()
    assert (found.root, found.first, found.cwd) == (folder, ("src",), "jobs")
    assert found.paths[-1] == "."


@pytest.mark.parametrize("name", ["runner", "infra"])
@pytest.mark.parametrize("place", [".", "src"])
def test_a_package_of_our_name_is_refused(folder: Path, name: str, place: str) -> None:
    own = folder / place / name
    own.mkdir()
    (own / "main.tf").touch()
    assert workspace().root == folder  # a folder that is no package hides nothing
    (own / "__init__.py").touch()
    with pytest.raises(BadInput, match=rf"{own} has the name of Infill's own package '{name}'.*: working_dir\(False\)"):
        workspace()


def test_a_module_of_our_name_is_refused_and_elsewhere_it_hides_nothing(folder: Path) -> None:
    (folder / "jobs/runner.py").touch()
    assert workspace().root == folder  # jobs is on nobody's path
    (folder / "src/runner.py").touch()
    with pytest.raises(BadInput, match=rf"{folder}/src/runner\.py has the name"):
        workspace()


def test_our_own_workspace_is_one() -> None:
    assert workspace(str(OURS_IN)).root == OURS_IN
