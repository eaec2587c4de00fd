"""What stays on this machine, and why.

Rules in order, the later ones over the earlier: those built in (version control, virtual environments, caches, build output,
Lance tables, notebooks' checkpoints, secrets); .gitignore files, which add and take back lines of .gitignore files only, as in
git (of the folders above the root too, up to the one with .git); .runnerignore files, in the same form, which bring back with
``!`` whatever the former leave out, and secrets with a warning; what the caller includes and excludes. As in git a folder that
stays out is not entered; one named by the beginning of a pattern that brings something back (``!build/model.bin``) is.

Of site-packages only caches and secrets stay out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runner.packages import secrets
from runner.packages.format import is_id
from runner.packages.patterns import Patterns, compiled, read_lines

GITIGNORE, RUNNERIGNORE = ".gitignore", ".runnerignore"

_CACHE, _BUILD, _VENV, _LANCE = "cache", "build output", "virtual environment", "Lance table"
_BESIDE_VERSIONS = frozenset(("data", "_transactions"))  # in the folder of a Lance table, whatever its name
_EVERYWHERE = {  # folders, in site-packages too
    "__pycache__": _CACHE,
}
_FOLDERS = {
    **dict.fromkeys((".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "_darcs"), "version control"),
    **dict.fromkeys((".venv", ".pixi", "__pypackages__"), _VENV),
    **dict.fromkeys((".tox", ".nox"), "test environments"),
    **dict.fromkeys((".cache", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".pytype", ".pyre"), _CACHE),
    **dict.fromkeys((".ipython", ".terraform", ".pulumi", ".nyc_output"), _CACHE),
    **dict.fromkeys(("node_modules", ".eggs", "htmlcov"), _BUILD),
    ".ipynb_checkpoints": "notebook checkpoints",
}
_FILES = {
    ".git": "version control",
    **dict.fromkeys((".DS_Store", "Thumbs.db", ".coverage", ".dmypy.json"), _CACHE),
}
_BUILT_BESIDE = frozenset(("pyproject.toml", "setup.py", "setup.cfg", "package.json"))
_PYTHON_ENDINGS = (".pyc", ".pyo")
_CACHEDIR = "CACHEDIR.TAG"


class Verdict(NamedTuple):
    """Whether a path stays out, and why; or, with `forced`, the pattern that brought it back."""

    reason: str | None = None
    forced: str | None = None


GOES = Verdict()


@dataclass(frozen=True)
class Scope:
    """The ignore files that count in a folder: the nearest first."""

    git: tuple[Patterns, ...] = ()
    runner: tuple[Patterns, ...] = ()


class Rules:
    """What stays out of a package of a root.

    Args:
        include: patterns of what goes in spite of every rule.
        exclude: patterns of what stays; over `include`.
        site: whether the root is a site-packages folder.
    """

    def __init__(self, root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), *, site: bool = False) -> None:
        lines = [(f"include {text!r}", f"!{text}") for text in include] + [(f"exclude {text!r}", text) for text in exclude]
        self._root = root
        self._site = site
        self._given = compiled(lines, strict=True)

    def top(self) -> Scope:
        """The scope outside of the root: .gitignore files of the folders above it."""
        return Scope() if self._site else Scope(git=tuple(_above(self._root)))

    def scope(self, outer: Scope, folder: str, names: Collection[str]) -> Scope:
        """The scope in a folder: with the ignore files that are among its names."""
        if self._site:
            return outer
        git = (*self._read(folder, GITIGNORE, names), *outer.git)
        return Scope(git, (*self._read(folder, RUNNERIGNORE, names), *outer.runner))

    def judge(self, path: str, name: str, scope: Scope, beside: Collection[str], *, folder: bool) -> Verdict:
        """Whether a path goes, by its name.

        Args:
            path: relative to the root; a folder's ends with ``/`` (a link's does not, wherever it leads).
            beside: all names in the same folder.
            folder: whether it is a folder, or a link to one.
        """
        said = self._said(path, scope)
        if said and said[0]:
            return Verdict(reason=said[1])
        reason = self.built_in(path, name, beside, folder=folder)
        if said:
            return Verdict(forced=said[1])
        if reason is None and (match := _nearest(scope.git, path)) and match[0]:
            reason = match[1]
        return Verdict(reason) if reason else GOES

    def within(self, path: str, names: Collection[str]) -> str | None:
        """Why a folder stays out by what lies in it."""
        if self._site or path == "":
            return None
        if "pyvenv.cfg" in names or "conda-meta" in names:
            return _VENV
        if "_versions" in names and not _BESIDE_VERSIONS.isdisjoint(names):
            return _LANCE
        return _CACHE if _CACHEDIR in names and _is_tagged(self._root / path / _CACHEDIR) else None

    def reach_into(self, path: str, scope: Scope) -> bool:
        """Whether an ignored folder is entered for a pattern that brings back something in it."""
        return any(patterns.reach_into(path) for patterns in (self._given, *scope.runner) if patterns)

    def built_in(self, path: str, name: str, beside: Collection[str], *, folder: bool) -> str | None:
        """The built-in rule that a path falls under."""
        if folder:
            return self._folder(path, name, beside)
        found = secrets.by_name(path, site=self._site)
        if found is not None:
            return f"secret: {found}"
        if self._site:
            return None
        if name.endswith(_PYTHON_ENDINGS):
            return _CACHE
        return "zip file of a package" if _is_layer(name) else _FILES.get(name)

    def _folder(self, path: str, name: str, beside: Collection[str]) -> str | None:
        found = secrets.in_folder(name, _parent(path.rstrip("/")))
        if found is not None:
            return f"secret: {found}"
        if self._site or name in _EVERYWHERE:
            return _EVERYWHERE.get(name)
        if name in ("build", "dist") and not _BUILT_BESIDE.isdisjoint(beside):
            return None if (self._root / path / "__init__.py").exists() else _BUILD
        if name.endswith(".lance"):
            return _LANCE
        if name.endswith(".egg-info"):
            return _BUILD
        if name == "_runner" and not (self._root / path / "__init__.py").exists():
            return "records of the runner"
        return _FOLDERS.get(name)

    def _said(self, path: str, scope: Scope) -> tuple[bool, str] | None:
        if self._given and (match := self._given.match(path)):
            return match
        return _nearest(scope.runner, path) if scope.runner else None

    def _read(self, folder: str, name: str, names: Collection[str]) -> Iterable[Patterns]:
        if name not in names:
            return
        lines = read_lines(self._root / folder / name, folder + name)
        found = compiled(lines, cut=len(folder), strict=name == RUNNERIGNORE)
        if found:
            yield found


def _nearest(stack: Iterable[Patterns], path: str) -> tuple[bool, str] | None:
    for patterns in stack:
        match = patterns.match(path)
        if match:
            return match
    return None


def _above(root: Path) -> Iterable[Patterns]:
    """Patterns of the folders above the root that are of its git repository, the nearest first."""
    if (root / ".git").exists():
        return
    top = next((folder for folder in root.parents if (folder / ".git").exists()), None)
    for folder in root.parents if top else ():
        if (folder / GITIGNORE).is_file():
            lines = read_lines(folder / GITIGNORE, str(folder / GITIGNORE))
            found = compiled(lines, above=root.relative_to(folder).as_posix() + "/")
            if found:
                yield found
        if folder == top:
            return


def _is_layer(name: str) -> bool:
    """Whether a file is one that `upload` keeps where it is told to, which may be in the workspace."""
    return name.endswith(".zip") and is_id(name.removesuffix(".zip"))


def _is_tagged(file: Path) -> bool:
    try:
        with file.open("rb") as tag:
            return tag.read(43) == b"Signature: 8a477f597d28d172789f06886806bc55"
    except OSError:
        return False


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]
