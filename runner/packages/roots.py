"""Which folders go to workers."""

from __future__ import annotations

import site
from pathlib import Path

MARKS = ("pyproject.toml", "setup.cfg", ".git")


def workspace_root(start: Path | None = None) -> Path:
    """The nearest folder with a pyproject.toml, a setup.cfg or a .git, from `start` upwards; without one `start` itself.

    Args:
        start: default: the working directory.
    """
    start = (start or Path.cwd()).resolve()
    marked = (folder for folder in (start, *start.parents) if any((folder / mark).exists() for mark in MARKS))
    return next(marked, start)


def site_packages() -> list[Path]:
    """The folders that this Python's packages are installed in; those of `site.getsitepackages()` that exist."""
    found = dict.fromkeys(Path(folder).resolve() for folder in site.getsitepackages())
    return [folder for folder in found if folder.is_dir()]
