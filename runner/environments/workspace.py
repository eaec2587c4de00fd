"""How this process finds modules, and how a worker is to find the same ones."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.errors import BadInput
from runner.packages.roots import site_packages, workspace_root

OURS = ("runner", "infra")
"""Infill's own packages, of which a worker or a driver needs the source, and `OURS_IN` the folder that they are in."""
OURS_IN = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Workspace:
    """The folder that goes to workers.

    Attributes:
        root: the nearest project's, else the working directory; or the folder that was asked for.
        first: where modules are looked for in it, relative to the root, before the standard library: a script's folder.
        paths: where they are looked for behind it; the root itself is one.
        cwd: the working directory relative to the root, ``"."`` where it is not in it.
    """

    root: Path
    first: tuple[str, ...]
    paths: tuple[str, ...]
    cwd: str


def workspace(folder: str | None = None) -> Workspace:
    """The workspace of this process.

    Args:
        folder: another root.

    Raises:
        BadInput: no such folder, or it has a package with the name of one of ours, which a worker could not tell apart.
    """
    root = Path(folder).expanduser().resolve() if folder else workspace_root()
    if not root.is_dir():
        raise BadInput(f"working_dir: there is no folder {root}")
    entries = own_paths()
    stdlib = sysconfig.get_path("stdlib")
    place = entries.index(stdlib) if stdlib in entries else len(entries)
    first = dict.fromkeys(_paths_within(root, entries[:place]))
    paths = dict.fromkeys([*_paths_within(root, entries[place:]), "."])
    for path in [*first, *paths]:
        _check_names(root / path)
    return Workspace(root, tuple(first), tuple(path for path in paths if path not in first), _relative(Path.cwd(), root) or ".")


def own_paths() -> list[str]:
    """``sys.path`` of this process, for workers on this machine; the working directory in place of its empty entry."""
    return list(dict.fromkeys(os.path.abspath(entry) for entry in sys.path if os.path.exists(entry or ".")))


def _paths_within(root: Path, entries: list[str]) -> Iterator[str]:
    installed = [*site_packages(), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
    for entry in entries:
        path = Path(entry).resolve()
        found = _relative(path, root) if path.is_dir() else None
        if found is not None and not any(path.is_relative_to(folder) and folder.is_relative_to(root) for folder in installed):
            yield found


def _relative(path: Path, root: Path) -> str | None:
    path = path.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


def _check_names(folder: Path) -> None:
    for name in OURS:
        # A folder without __init__.py hides nothing: Python goes on to ours.
        for candidate, found in ((folder / name, folder / name / "__init__.py"), (folder / f"{name}.py", folder / f"{name}.py")):
            if found.exists() and candidate.resolve().parent != OURS_IN:
                raise BadInput(
                    f"{candidate} has the name of Infill's own package {name!r}, and a worker finds only one of them; rename it, "
                    "or leave the workspace out: working_dir(False)"
                )
