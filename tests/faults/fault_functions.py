"""Functions of the fault tests. They note every call in a file of fixed-size records, so that calls can be counted."""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import struct
import sys
import time

from runner import udf

SECONDS_A_ROW = 0.0004
RECORD = struct.Struct("<qq")


@functools.cache
def _descriptor(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def _note(row: int, log: str) -> None:
    os.write(_descriptor(log), RECORD.pack(row, os.getpid()))


@udf(version="1")
def noted(row: int, log: str) -> int:
    """Slow, so that no worker makes more than 2,500 calls a second."""
    _note(row, log)
    time.sleep(SECONDS_A_ROW)
    return 3 * row + 1


@udf(version="1")
def deadly(row: int, log: str) -> int:
    """Kills its worker on the row that the file beside the log names, for as long as there is such a file."""
    _note(row, log)
    time.sleep(SECONDS_A_ROW)
    if row % 100 == 50 and os.path.exists(f"{log}.kill"):
        with open(f"{log}.kill") as file:
            if int(file.read()) == row:
                os.kill(os.getpid(), signal.SIGKILL)
    return 3 * row + 1


@udf(version="1")
def failing(row: int, log: str) -> int:
    """Raises on one row for as long as there is a file beside the log that names it."""
    _note(row, log)
    if row % 100 == 50 and os.path.exists(f"{log}.fail"):
        with open(f"{log}.fail") as file:
            if int(file.read()) == row:
                raise ValueError(f"row {row} is refused")
    return 3 * row + 1


@udf(version="1")
def kilobyte(row: int) -> bytes:
    """1 KiB that does not compress."""
    return hashlib.shake_128(row.to_bytes(8, "little")).digest(1024)


@udf(version="1")
def tripled(row: int) -> int:
    """Python, and nothing else."""
    return 3 * row + 1


@udf(version="1")
def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _kill_at_the_first_join() -> None:
    """In a worker of the test that asks for it: die where the parts of a split fragment are about to be joined, once."""
    from runner.backfill.worker import _FragmentRun

    once = os.environ["FAULTS_KILL_AT_JOIN"]
    original = _FragmentRun._join

    def join(self: _FragmentRun, *args: object) -> object:
        made = original(self, *args)  # type: ignore[arg-type]
        try:
            os.close(os.open(once, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return made
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    _FragmentRun._join = join  # type: ignore[method-assign,assignment]


if "FAULTS_KILL_AT_JOIN" in os.environ and "ray" in sys.modules:
    _kill_at_the_first_join()
