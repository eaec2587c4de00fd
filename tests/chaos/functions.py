"""The function of a chaos table: right on every row, and in trouble on one for as long as a file is there."""

from __future__ import annotations

from pathlib import Path

from runner import UDF, udf

SECONDS_A_ROW = 0.001
CALLS_A_SECOND = int(1 / SECONDS_A_ROW)
"""Most calls that a worker makes in a second, which is the most that its death may lose."""


def chaotic(log: Path, flag: Path, bad: int, trouble: str, cgroup: str) -> UDF:
    """``3 * row + 1``, with each call in a log of fixed-size records; `trouble` happens on the row `bad` while `flag` is there.

    It goes to workers by value, so all that it needs is inside.

    Args:
        trouble: ``raise`` and ``garbage`` stay until the flag goes; the others take the flag away themselves: once.
        cgroup: its processes file, which a hog of memory joins to be killed by the kernel.
    """
    paths, seconds = (str(log), str(flag)), SECONDS_A_ROW

    def out(row: int) -> int:
        import ctypes
        import os
        import struct
        import time

        descriptor = os.open(paths[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, struct.pack("<qq", row, os.getpid()))
        os.close(descriptor)
        time.sleep(seconds)
        if row != bad or not os.path.exists(paths[1]):
            return 3 * row + 1
        if trouble == "raise":
            raise ValueError(f"row {row} is refused")
        if trouble == "garbage":
            return "garbage"  # type: ignore[return-value]
        os.unlink(paths[1])
        if trouble == "raise once":
            raise ConnectionError(f"row {row} is refused once")
        if trouble == "hang":
            time.sleep(600)
        if trouble == "print":
            for _ in range(8):
                print("x" * 1_000_000, flush=True)
        if trouble == "segfault":
            ctypes.string_at(0)
        if trouble == "hog":
            with open(cgroup, "w") as processes:
                processes.write(str(os.getpid()))
            hoard = bytearray(512 << 20)
            hoard[::4096] = b"x" * len(hoard[::4096])
        return 3 * row + 1

    return udf(version="1")(out)
