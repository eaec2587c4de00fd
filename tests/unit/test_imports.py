from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import runner

HEAVY = {"pyarrow", "ray", "lance", "lancedb", "numpy", "rich", "obstore", "pandas", "cloudpickle"}
ROOT = Path(__file__).parents[2]


def imported(*command: str) -> tuple[set[str], str]:
    """The packages that a Python command imports, and what it prints."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in names}, done.stdout


@pytest.mark.parametrize("command", [[], ["backfill"], ["plan"], ["errors"], ["jobs"], ["jobs", "list"]])
def test_help_answers_without_importing_anything_heavy(command: list[str]) -> None:
    names, text = imported("-m", "runner", *command, "--help")
    assert "Usage:" in text
    assert "typer" in names
    assert names.isdisjoint(HEAVY)


def test_import_runner_imports_nothing_heavy() -> None:
    names, _ = imported("-c", "import runner")
    assert "runner" in names
    assert names.isdisjoint(HEAVY | {"typer", "asyncio"})


def test_every_public_name_is_there_and_others_are_not() -> None:
    assert {name: getattr(runner, name).__name__ for name in runner.__all__} == {name: name for name in runner.__all__}
    with pytest.raises(AttributeError, match="module 'runner' has no attribute 'no_such_name'"):
        _ = runner.no_such_name
