"""What a driver on a cluster installs for itself, once for all that start on its node."""

from __future__ import annotations

import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.environments import own_requirements
from runner.environments.own_requirements import PINS, install_missing, lacking, pins


def test_drivers_that_start_at_once_install_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed: list[str] = []
    begun = threading.Barrier(2)

    def pip(command: list[str], check: bool) -> None:
        installed.append(command[-1])
        Path(command[command.index("--target") + 1], "no_such_module.py").touch()

    def driver() -> None:
        begun.wait()
        install_missing()

    monkeypatch.setattr(own_requirements.subprocess, "run", pip)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(PINS, " ".join([*pins(), "no-such-module==1.0"]))
    with ThreadPoolExecutor(2) as pool:
        for started in [pool.submit(driver), pool.submit(driver)]:
            started.result()
    assert installed == ["no-such-module==1.0"]
    assert sys.path[0] == sys.path[1]
    assert [path.name for path in Path(sys.path[0]).iterdir()] == ["no_such_module.py"]


def test_files_are_written_by_the_client_s_versions_and_others_need_only_be_there() -> None:
    wanted = {"pylance": "14.0.2", "pyarrow": "26.0.1", "numpy": "2.4.6", "obstore": "0.12.1"}
    has = {"pylance": "14.0.1", "pyarrow": "26.0.1", "numpy": "2.0.0", "obstore": None}
    assert lacking(wanted, has) == ["pylance", "obstore"]
