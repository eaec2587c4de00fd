"""Every exception that the runner raises on purpose. Each message says what failed, on what, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


class RunnerError(Exception):
    """Base of all errors of this package."""


class BadInput(RunnerError, ValueError):
    """Something the caller gave is wrong; nothing was changed."""


class TableNotFound(BadInput):
    """The database has no table of that name."""


class ColumnNotFound(BadInput):
    """The table has no column of that name."""


class NotComputed(BadInput):
    """The column exists but no function is attached to it."""


class FunctionNotLoadable(RunnerError):
    """The function of a column cannot be imported or unpickled here."""


class ColumnBusy(RunnerError):
    """Another backfill of the same column is running."""


class CommitConflict(RunnerError):
    """The table changed in a way the staged columns cannot be rebased on. The table is unchanged, staged work is kept."""


class StorageError(RunnerError):
    """The database's storage refused a read or a write (read-only, full, denied)."""


class WorkerLost(RunnerError):
    """A worker process died again and again on the same task."""


class DownloadFailed(RunnerError):
    """A file that a function needs cannot be brought to a worker's machine."""


class EnvironmentFailed(RunnerError):
    """What a manifest asks for cannot be installed on the workers, or a worker cannot take it in."""


class JobCancelled(RunnerError):
    """The job was cancelled. Staged work is kept; the next backfill takes it up."""


class JobLost(RunnerError):
    """A job's driver is gone without a word. Staged work is kept; the next backfill takes it up."""


@dataclass(frozen=True)
class RowError:
    """One row whose function call failed.

    Args:
        row_address: Lance row address, ``fragment_id << 32 | offset``, at the table version the job read.
        error: name of the exception's class.
        message: the exception's text.
        traceback: formatted traceback, from the user's function on.
    """

    row_address: int
    error: str
    message: str
    traceback: str

    @property
    def fragment_id(self) -> int:
        return self.row_address >> 32

    @property
    def offset(self) -> int:
        return self.row_address & 0xFFFFFFFF

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class BackfillFailed(RunnerError):
    """The function failed and the error policy is ``fail``. Nothing was published, finished work is kept.

    Attributes:
        errors: the rows that failed, where rows are known.
    """

    def __init__(self, message: str, errors: Sequence[RowError] = ()) -> None:
        super().__init__(message, tuple(errors))
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return str(self.args[0])
