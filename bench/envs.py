"""The peers' environments: one folder each under `bench/.envs`, built from pinned requirements, reused after."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def requirements(peer: str) -> Path:
    return HERE / "peers" / f"{peer}.txt"


def python_of(peer: str) -> str:
    """The interpreter of a peer's environment, which is built first if it is missing or out of date."""
    folder = HERE / ".envs" / peer
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements(peer).read_bytes() + sys.version.encode()).hexdigest()
    if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
        print(f"building the environment of {peer}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _build(folder, python, requirements(peer))
        stamp.write_text(wanted)
    return str(python)


def _build(folder: Path, python: Path, pins: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if uv := shutil.which("uv"):
        _call(uv, "venv", "--quiet", "--python", sys.executable, str(folder))
        _call(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), "--requirement", str(pins))
    else:
        _call(sys.executable, "-m", "venv", str(folder))
        _call(str(python), "-m", "pip", "install", "--quiet", "--requirement", str(pins))


def _call(*command: str) -> None:
    subprocess.run(command, check=True)


def pinned(peer: str, package: str) -> str:
    """The version of a package in a peer's requirements."""
    for line in requirements(peer).read_text().splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version
    raise KeyError(f"{package} is not pinned in {requirements(peer).name}")
