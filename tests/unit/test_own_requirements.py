"""What a driver installs for itself on a node that lacks it, once for all that start there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from runner.environments.own_requirements import lacking

ROOT = Path(__file__).parents[2]
PIP = """
import pathlib, sys
target = pathlib.Path(sys.argv[sys.argv.index("--target") + 1])
(target / "nowhere.py").write_text("made = 1")
with open({log!r}, "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
"""
DRIVER = "from runner.environments.own_requirements import install_missing; install_missing(); import nowhere; print(nowhere.made)"


def test_two_drivers_at_once(tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text(PIP.format(log=str(tmp_path / "log")))
    paths = f"{tmp_path}:{ROOT}"
    env = {"PYTHONPATH": paths, "TMPDIR": str(tmp_path), "INFILL_REQUIREMENTS": "not-there==1.0 numpy==0.1"}
    drivers = [
        subprocess.Popen([sys.executable, "-c", DRIVER], env=env, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [driver.communicate(timeout=60)[0] for driver in drivers] == ["1\n"] * 4
    (installed,) = (tmp_path / "log").read_text().splitlines()
    assert installed.endswith(" not-there==1.0")  # numpy may be of another version


def test_files_are_written_by_the_client_s_versions_and_others_need_only_be_there() -> None:
    wanted = {"pylance": "14.0.2", "pyarrow": "26.0.1", "numpy": "2.4.6", "obstore": "0.12.1"}
    has = {"pylance": "14.0.1", "pyarrow": "26.0.1", "numpy": "2.0.0", "obstore": None}
    assert lacking(wanted, has) == ["pylance", "obstore"]
