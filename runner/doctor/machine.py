"""This machine: Python, packages, disks, shared memory, the clock."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from runner.doctor.check import Check, Status
from runner.packages.package import size_text

DISTRIBUTION = "infill"
EXTRA = "kubernetes"
TELLING = ("ray", "pylance", "lancedb", "pyarrow", "obstore")
GB = 1e9
LITTLE_DISK, TOO_LITTLE_DISK = 5 * GB, 1 * GB
FULL = 0.95
"""Share of a disk beyond which Ray does not spill to it (local_fs_capacity_threshold)."""
LITTLE_SHARED_MEMORY = 256e6
"""Ray moves its object store to /tmp where /dev/shm is smaller than it; containers have 64 MiB unless told otherwise."""
JUMP_SECONDS = 1.0


def look(*, kubernetes: bool, database: str | None) -> Iterator[Check]:
    """All of it.

    Args:
        kubernetes: what clusters need is asked for, and not only of use.
        database: its folder, where it is on this machine.
    """
    yield python()
    yield from packages(kubernetes=kubernetes)
    yield from disks(database)
    yield shared_memory()


def python() -> Check:
    """The version that runs this."""
    here = sys.version_info
    found = f"{here.major}.{here.minor}.{here.micro} ({sys.executable})"
    if (3, 11) <= here[:2] < (3, 14):
        return Check("python", "OK", found)
    return Check("python", "FAIL", found, "use Python 3.11 to 3.13")


def packages(*, kubernetes: bool) -> Iterator[Check]:
    """The packages that Infill asks for, at versions that it is tested with; those of the extra apart."""
    try:
        wanted = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        yield Check("packages", "WARN", "Infill is not installed, so what it needs is not known", f"pip install {DISTRIBUTION}")
        return
    base = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    extra = [one for one in wanted if one not in base and one.marker and one.marker.evaluate({"extra": EXTRA})]
    yield _packages("packages", base, f"pip install --upgrade {DISTRIBUTION}", "FAIL")
    remedy = f"pip install --upgrade '{DISTRIBUTION}[{EXTRA}]'"
    yield _packages(f"packages for {EXTRA}", extra, remedy, "FAIL" if kubernetes else "WARN")


def _packages(name: str, wanted: list[Requirement], remedy: str, otherwise: Status) -> Check:
    installed = {one.name: _version(one.name) for one in wanted}
    wrong = []
    for one in wanted:
        version = installed[one.name]
        if version is None:
            wrong.append(f"{one.name} is missing")
        elif not one.specifier.contains(version, prereleases=True):
            wrong.append(f"{one.name} {version} is not {one.specifier}")
    if wrong:
        return Check(name, otherwise, ", ".join(wrong), remedy)
    told = [f"{name} {version}" for name, version in installed.items() if name in TELLING] or [
        f"{name} {version}" for name, version in installed.items()
    ]
    return Check(name, "OK", ", ".join(told))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def disks(database: str | None) -> Iterator[Check]:
    """Room for Ray's sessions and spilled objects, for what is unpacked, and for a database in a folder."""
    places = {
        "disk of temporary files": Path(tempfile.gettempdir()),
        "disk of Ray's sessions": Path(os.environ.get("RAY_TMPDIR", "/tmp")),
        "disk of the home folder": Path.home(),
    }
    if database is not None:
        places["disk of the database"] = Path(database)
    seen: set[int] = set()
    for name, place in places.items():
        there = next((folder for folder in (place, *place.parents) if folder.exists()), Path("/"))
        device = os.stat(there).st_dev
        if device not in seen:
            seen.add(device)
            yield disk(name, there)


def disk(name: str, place: Path) -> Check:
    """Free space where a path is."""
    usage = shutil.disk_usage(place)
    found = f"{size_text(usage.free)} free of {size_text(usage.total)} at {place}"
    remedy = f"free space at {place}, or set TMPDIR and RAY_TMPDIR to a larger disk"
    if usage.free < TOO_LITTLE_DISK:
        return Check(name, "FAIL", found, remedy)
    if usage.free < LITTLE_DISK or usage.free < (1 - FULL) * usage.total:
        return Check(name, "WARN", f"{found}; Ray spills nothing to a disk that is {FULL:.0%} full", remedy)
    return Check(name, "OK", found)


def shared_memory() -> Check:
    """/dev/shm, where Ray's object store is."""
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", "OK", "no /dev/shm on this system")
    free = shutil.disk_usage(place).free
    found = f"{size_text(free)} free at {place}"
    if free >= LITTLE_SHARED_MEMORY:
        return Check("shared memory", "OK", found)
    return Check("shared memory", "WARN", found, "docker run --shm-size=2g; of a cluster: shared_memory of the group")


class SteadyClock:
    """Whether the clock is set while the rest is looked at: leases and heartbeats compare its times."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def check(self) -> Check:
        jump = time.time() - time.monotonic() - self._offset
        if abs(jump) < JUMP_SECONDS:
            return Check("clock", "OK", "steady")
        remedy = "let one service set the clock, and slew it (chrony, systemd-timesyncd); a lease looks given up after a jump"
        return Check("clock", "FAIL", f"it jumped by {jump:+.0f} s within this check", remedy)
