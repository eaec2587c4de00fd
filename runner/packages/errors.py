"""What goes wrong with packages apart from `BadInput` and `StorageError`."""

from __future__ import annotations

from runner.errors import RunnerError


class FileChanging(RunnerError):
    """A file changes while it is read, or changed since it was; run again."""


class PackageMissing(RunnerError):
    """The store has no such package, or not the whole of it."""


class PackageChanged(RunnerError):
    """What the store has under a package's name is not what was uploaded."""
