"""What a driver's node lacks is installed once, however many drivers begin at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
