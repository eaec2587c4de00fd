"""One thing that was looked at, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing.

    Attributes:
        status: ``FAIL`` where something that is asked for cannot work; ``WARN`` where part of it may not.
        found: what there is.
        remedy: what to do; empty where nothing need be done.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""


def clock(name: str, apart: float, of: str) -> Check:
    """How far this machine's clock is from another's.

    Args:
        apart: seconds that this one is ahead.
    """
    from runner.lease import EXPIRE_SECONDS

    remedy = f"set the clock (timedatectl, chronyc makestep): a lease counts as given up after {EXPIRE_SECONDS:.0f} s"
    status: Status = "FAIL" if abs(apart) >= EXPIRE_SECONDS else "WARN" if abs(apart) >= EXPIRE_SECONDS / 6 else "OK"
    found = f"{abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} {of}" if status != "OK" else f"with {of}"
    return Check(name, status, found, "" if status == "OK" else remedy)
