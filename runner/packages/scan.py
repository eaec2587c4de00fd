"""What a folder holds: what would go to workers, and what would not, with the reason.

Links: one that leads to something inside of the root is kept as a link (an absolute one as the relative one that means the
same); one that leads to a file outside goes as that file, unless the file is a secret; one that leads to nothing stays. A link
to a folder outside, or in a circle, is an error: silence would leave the folder out, and following it could send anything.

Folders go with what is in them, empty ones as such. A name must be UTF-8; blanks, newlines and names apart by case only are
right. Sockets, pipes and devices stay.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from runner.errors import BadInput
from runner.packages import secrets
from runner.packages.format import EMPTY, FILE, LINK
from runner.packages.ignore import Rules, Scope, Verdict
from runner.packages.index import Index, Stamp

_SPECIAL = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "pipe", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}
_SHOWN = 10
_REMEDY = "leave it out with a line in .runnerignore"


class Entry(NamedTuple):
    """Something that goes.

    Attributes:
        path: relative to the root, with ``/``.
        kind: ``file``, ``link`` or ``folder``, an empty one.
        target: where a link leads.
        stamp: a file's, as it was listed.
    """

    path: str
    kind: str
    size: int = 0
    executable: bool = False
    target: str = ""
    stamp: Stamp | None = None


class Ignored(NamedTuple):
    """Something that stays; a folder's path ends with ``/`` and stands for all in it."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """A folder's content by the rules, sorted by path."""

    root: Path
    site: bool
    entries: tuple[Entry, ...]
    ignored: tuple[Ignored, ...]
    warnings: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    def file(self, entry: Entry) -> str:
        """Where an entry lies on this machine."""
        return f"{self.root}/{entry.path}"


def scan(
    root: Path, include: Sequence[str] = (), exclude: Sequence[str] = (), site: bool = False, index: Index | None = None
) -> Listing:
    """List a folder.

    Args:
        include: patterns as of .gitignore, of what goes in spite of every rule.
        exclude: patterns of what stays.
        site: whether it is a site-packages folder, of which only caches and secrets stay.
        index: remembers which files' contents are secrets.

    Raises:
        BadInput: no folder; something in it that cannot be read or has no place in a package.
    """
    root = Path(os.path.realpath(root))
    if not root.is_dir():
        raise BadInput(f"{root} is no folder")
    if root.parent == root:
        raise BadInput("the root of the file system is no workspace; start in a project, or name its folder")
    walk = _Walk(root, Rules(root, include, exclude, site=site), index or Index(), site)
    walk.run()
    if walk.problems:
        more = f"\nand {len(walk.problems) - _SHOWN} more" if len(walk.problems) > _SHOWN else ""
        raise BadInput("\n".join(sorted(walk.problems)[:_SHOWN]) + more)
    return Listing(root, site, tuple(sorted(walk.entries)), tuple(sorted(walk.ignored)), tuple(sorted(walk.warnings)))


@dataclass
class _Folder:
    """A folder to look into; where `hidden` says why it is ignored, for what patterns bring back."""

    path: str
    scope: Scope
    hidden: str | None = None
    forced: bool = False


@dataclass
class _Walk:
    root: Path
    rules: Rules
    index: Index
    site: bool
    entries: list[Entry] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        folders = [_Folder("", self.rules.top())]
        while folders:
            folders.extend(self._enter(folders.pop()))

    def _enter(self, folder: _Folder) -> Iterator[_Folder]:
        found = self._list(folder.path)
        names = {entry.name for entry in found}
        reason = None if folder.forced or folder.hidden is not None else self.rules.within(folder.path, names)
        if reason:
            self.ignored.append(Ignored(folder.path, reason))
            return
        if not found and folder.path and folder.hidden is None:
            self.entries.append(Entry(folder.path[:-1], EMPTY))
        scope = self.rules.scope(folder.scope, folder.path, names)
        for entry in found:
            inner = self._look_at(entry, folder, scope, names)
            if inner:
                yield inner

    def _list(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(f"{self.root}/{folder}") as found:
                entries = list(found)
        except OSError as exc:
            self.problems.append(_unreadable(f"{self.root}/{folder}", exc))
            return []
        return [entry for entry in entries if self._has_name(folder, entry.name)]

    def _has_name(self, folder: str, name: str) -> bool:
        if _is_utf8(name):
            return True
        self.problems.append(f"{os.fsencode(f'{self.root}/{folder}{name}')!r}: the name is not UTF-8; rename it")
        return False

    def _look_at(self, entry: os.DirEntry[str], within: _Folder, scope: Scope, names: set[str]) -> _Folder | None:
        """Put one thing where it belongs; a folder to look into is returned."""
        is_folder = entry.is_dir(follow_symlinks=False)
        path = f"{within.path}{entry.name}/" if is_folder else within.path + entry.name
        acts_as_folder = is_folder or (entry.is_symlink() and os.path.isdir(entry.path))
        verdict = self.rules.judge(path, entry.name, scope, names, folder=acts_as_folder)
        hidden = verdict.reason or (None if verdict.forced else within.hidden)
        if hidden is None:
            if is_folder:
                return _Folder(path, scope, forced=verdict.forced is not None)
            self._take(entry, path, verdict, names)
            return None
        if within.hidden is None:
            self.ignored.append(Ignored(path, hidden))
        return _Folder(path, scope, hidden) if is_folder and self.rules.reach_into(path, scope) else None

    def _take(self, entry: os.DirEntry[str], path: str, verdict: Verdict, names: set[str]) -> None:
        try:
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                self._take_link(path, verdict)
            elif stat.S_ISREG(info.st_mode):
                known = self.rules.built_in(path, entry.name, names, folder=False) if verdict.forced else None
                self._take_file(path, info, verdict, known)
            else:
                self._leave(path, _SPECIAL.get(stat.S_IFMT(info.st_mode), "no file"))
        except FileNotFoundError:
            return  # gone since it was listed
        except OSError as exc:
            self.problems.append(_unreadable(entry.path, exc))

    def _take_file(self, path: str, info: os.stat_result, verdict: Verdict, known: str | None) -> None:
        """A regular file goes unless its content is a secret; where it was brought back, with a warning."""
        stamp = Stamp.of(info)
        name = path.rpartition("/")[2]
        secret = known if known and known.startswith("secret: ") else None
        if secret is None and secrets.worth_looking(name, stamp.size):
            found = self.index.read(path, f"{self.root}/{path}", stamp)
            secret = f"secret: {found.secret}" if found.secret else None
        if secret and not verdict.forced:
            self._leave(path, secret)
            return
        if secret:
            self.warnings.append(f"{path} goes although it looks like a {secret}; {verdict.forced} brings it back")
        self.entries.append(Entry(path, FILE, stamp.size, bool(info.st_mode & stat.S_IXUSR), stamp=stamp))

    def _take_link(self, path: str, verdict: Verdict) -> None:
        place = f"{self.root}/{path}"
        text = os.readlink(place)
        try:
            info = os.stat(place)
        except (FileNotFoundError, NotADirectoryError):
            self._leave(path, "link to nothing")
            return
        except OSError as exc:
            circle = exc.errno == errno.ELOOP
            self.problems.append(f"{place}: a link in a circle; {_REMEDY}" if circle else _unreadable(place, exc))
            return
        real = os.path.realpath(place)
        inside = self._inside(path, text, real)
        if inside is not None and not _is_utf8(inside):
            self.problems.append(f"{place}: a link to a name that is not UTF-8; {_REMEDY}")
        elif inside is not None:
            self.entries.append(Entry(path, LINK, target=inside))
        elif stat.S_ISREG(info.st_mode):
            self._take_linked(path, real, info, verdict)
        elif stat.S_ISDIR(info.st_mode):
            self.problems.append(f"{place}: a link to a folder outside of the root: {text}; {_REMEDY}, or copy the folder")
        else:
            self._leave(path, f"link to a {_SPECIAL.get(stat.S_IFMT(info.st_mode), 'device')}")

    def _take_linked(self, path: str, real: str, info: os.stat_result, verdict: Verdict) -> None:
        """A file outside goes under the link's name, unless it is a secret where it lies."""
        found = secrets.by_path(real.strip("/").split("/"))
        self._take_file(path, info, verdict, f"secret: {found}, by a link" if found else None)

    def _inside(self, path: str, text: str, real: str) -> str | None:
        """A link's target where the whole way to it stays inside of the root, as a relative path."""
        if not f"{real}/".startswith(f"{self.root}/"):
            return None
        folder = posixpath.dirname(path)
        if os.path.isabs(text):
            if not f"{posixpath.normpath(text)}/".startswith(f"{self.root}/"):
                return None
            text = posixpath.relpath(text, f"{self.root}/{folder}")
        whole = posixpath.normpath(posixpath.join(folder, text))
        return None if whole == ".." or whole.startswith("../") else text

    def _leave(self, path: str, reason: str) -> None:
        self.ignored.append(Ignored(path, reason))


def _unreadable(place: str, exc: OSError) -> str:
    return f"cannot read {place}: {exc.strerror}; {_REMEDY}"


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
