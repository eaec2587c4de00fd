"""What a worker or a driver on a cluster imports beside the standard library and Infill itself. Only the standard library."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from functools import cache
from importlib import metadata

REQUIREMENTS = ("pylance", "pyarrow", "numpy", "cloudpickle", "obstore")
SAME_VERSION = ("pylance", "pyarrow")
"""Those of them that write files: everywhere the client's version."""
PINS = "INFILL_REQUIREMENTS"
"""Variable with the client's versions, for a driver."""


def installed_version(name: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pins(names: tuple[str, ...] = REQUIREMENTS) -> list[str]:
    """The versions that are installed here, as requirements."""
    return [f"{name}=={_own_version(name)}" for name in names]


@cache
def _own_version(name: str) -> str:
    return metadata.version(name)


def lacking(wanted: dict[str, str], has: dict[str, str | None]) -> list[str]:
    """Names of those that a machine does not have, or not in the version that it must be."""
    return [name for name, version in wanted.items() if has[name] is None or (name in SAME_VERSION and has[name] != version)]


def install_missing() -> None:
    """Install what this machine lacks of the versions in `PINS`, beside what it has, once for all drivers on it."""
    wanted = dict(pin.split("==") for pin in os.environ.get(PINS, "").split())
    missing = lacking(wanted, {name: installed_version(name) for name in wanted})
    if not missing:
        return
    pinned = [f"{name}=={wanted[name]}" for name in missing]
    base = os.path.join(tempfile.gettempdir(), f"infill-{os.getuid()}")
    os.makedirs(base, mode=0o700, exist_ok=True)
    folder = os.path.join(base, f"driver-{hashlib.sha256(' '.join(pinned).encode()).hexdigest()[:16]}")
    with open(f"{folder}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several drivers may start at once; the lock ends with the process
        if not os.path.isdir(folder):
            half = tempfile.mkdtemp(dir=base)
            print(f"runner: the driver's node lacks {', '.join(missing)}: installing", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", half, *pinned], check=True)
            os.rename(half, folder)
    sys.path.insert(0, folder)
