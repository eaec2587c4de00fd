"""What becomes of an on-demand cluster when its context ends."""

from __future__ import annotations

from enum import StrEnum


class ExitMode(StrEnum):
    """As of Geneva's execution contexts."""

    DELETE = "delete"
    """Wait for all jobs, then delete the cluster. The default."""
    RETAIN_ON_FAILURE = "retain_on_failure"
    """Wait for all jobs; keep the cluster if one failed, the block raised or ``wait_timeout`` was exceeded, else delete it."""
    RETAIN = "retain"
    """Never delete it. Its jobs go on."""
