"""The environment variables that say how jobs are watched."""

from __future__ import annotations

import os

from runner.errors import BadInput

METRICS = "INFILL_METRICS"
"""``1``: metrics of jobs, also on a Ray that is started for them; ``0``: none; else on a Ray that was there before."""


LOG = "INFILL_LOG"
"""``json``: what is said goes to standard error as lines of JSON; ``text``, the default: as a person reads it."""


def metrics() -> bool | None:
    """What `METRICS` says, None where it says nothing.

    Raises:
        BadInput: another value.
    """
    return {"": None, "0": False, "1": True}[_one_of(METRICS, "", "0", "1")]


def logs_json() -> bool:
    """Whether `LOG` asks for JSON.

    Raises:
        BadInput: it has another value.
    """
    return _one_of(LOG, "", "text", "json") == "json"


def given() -> dict[str, str]:
    """Those that are set, for a driver elsewhere.

    Raises:
        BadInput: one has a value that it cannot have.
    """
    check()
    return {name: os.environ[name] for name in (METRICS, LOG) if os.environ.get(name)}


def check() -> None:
    """Refuse what the functions here refuse."""
    metrics()
    logs_json()


def _one_of(name: str, *values: str) -> str:
    found = os.environ.get(name, "").strip()
    if found not in values:
        known = " or ".join(repr(value) for value in values if value)
        raise BadInput(f"{name}={found!r}: it is {known}, or not set")
    return found
