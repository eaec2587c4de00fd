"""Facts of this process."""

from __future__ import annotations

import os
import resource
import socket
import sys
from dataclasses import dataclass

_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, getrusage(2)


@dataclass(frozen=True)
class Place:
    """Where a worker runs: the machine's name (of a pod, its own), and the process there."""

    node: str
    process: int


def here() -> Place:
    """Of this process."""
    return Place(socket.gethostname(), os.getpid())


def peak_memory() -> int:
    """Most bytes that this process, or one that it started and that has ended, has had resident."""
    return _UNIT * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
