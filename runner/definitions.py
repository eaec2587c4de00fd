"""What is defined under a name: ``_runner/<kind>/<name>/<revision>.json``. Every revision is kept, none is ever changed.

A revision is created and never written again. Create-only puts give each of several who define at once a revision of its own, on
every store. A deletion is a revision too, one without a spec.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.errors import BadInput, StorageError
from runner.records import now, user
from runner.store import Store

CLUSTERS = "clusters"
MANIFESTS = "manifests"
LONGEST_NAME = 100

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?")
_OBJECT = re.compile(r"([0-9]{6,})\.json")


@dataclass(frozen=True)
class Definition:
    """One revision of what is defined under a name.

    Attributes:
        revision: counts from 1.
        defined_at: UTC, ISO 8601.
        spec: plain data; None where this revision is the deletion.
        is_new: whether the call that returned it made it; not stored.
    """

    name: str
    revision: int
    defined_at: str
    user: str
    host: str
    spec: dict[str, Any] | None
    is_new: bool = field(default=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """What is stored."""
        return {key: getattr(self, key) for key in _STORED}

    @property
    def author(self) -> str:
        return f"{self.user} on {self.host}"


_STORED = [known.name for known in dataclasses.fields(Definition) if known.name != "is_new"]


class Definitions:
    """The definitions of one kind in a database.

    Args:
        kind: name of their folder, a plural: ``clusters``.
    """

    def __init__(self, store: Store, kind: str) -> None:
        self._store = store
        self._kind = kind
        self._what = kind.removesuffix("s")

    def define(self, name: str, plain: Mapping[str, Any]) -> Definition:
        """Make the next revision of a name, unless the latest one says the same.

        Args:
            plain: what JSON can hold.

        Raises:
            BadInput: not a name, or not plain data.
        """
        self._check_name(name)
        spec = self._as_json(name, plain)
        while True:
            latest = self._latest(name)
            if latest is not None and latest.spec == spec:
                return latest
            made = self._create(name, latest, spec)
            if made is not None:
                return made

    def delete(self, name: str) -> Definition:
        """Define a name no more; its history stays.

        Raises:
            BadInput: nothing is defined under it.
        """
        while True:
            made = self._create(name, self.get(name), None)
            if made is not None:
                return made

    def get(self, name: str, revision: int | None = None) -> Definition:
        """What is defined under a name now, or was by an earlier revision.

        Raises:
            BadInput: nothing is; with the nearest names there are.
        """
        if revision is None:
            found = self._latest(name)
        else:
            known = self._revisions(name)
            if known and revision not in known:
                raise BadInput(f"{self._what} {name!r} of {self._store.uri} has no revision {revision}; its latest is {known[-1]}")
            found = self._read(name, revision) if known else None
        if found is None:
            raise self._unknown(name)
        if found.spec is None:
            raise BadInput(
                f"{self._what} {name!r} of {self._store.uri} was deleted at {found.defined_at} by {found.author}; "
                f"revision {found.revision - 1} is what it was: define that again to have it back"
            )
        return found

    def history(self, name: str) -> list[Definition]:
        """All revisions of a name, newest first, deletions among them.

        Raises:
            BadInput: there never was one; with the nearest names there are.
        """
        known = self._revisions(name)
        if not known:
            raise self._unknown(name)
        return [self._read(name, revision) for revision in reversed(known)]

    def current(self) -> list[Definition]:
        """What is defined now, by name."""
        paths = (path.split("/") for path, _ in self._store.objects(self._kind))
        ever = {parts[1] for parts in paths if len(parts) == 3 and _OBJECT.fullmatch(parts[2])}
        latest = (self._latest(name) for name in sorted(ever))
        return [found for found in latest if found is not None and found.spec is not None]

    def names(self) -> list[str]:
        """Names that are defined now, sorted."""
        return [found.name for found in self.current()]

    def _create(self, name: str, after: Definition | None, spec: dict[str, Any] | None) -> Definition | None:
        """The revision that follows another; None where somebody else has made one of that number."""
        revision = 1 + (after.revision if after else 0)
        made = Definition(name, revision, now(), user(), socket.gethostname(), spec, is_new=True)
        written = self._store.create(self._path(name, revision), json.dumps(made.to_dict(), indent=1).encode())
        return made if written else None

    def _latest(self, name: str) -> Definition | None:
        known = self._revisions(name)
        return self._read(name, known[-1]) if known else None

    def _revisions(self, name: str) -> list[int]:
        if not _NAME.fullmatch(name):
            return []
        objects = (path.rsplit("/", 1) for path, _ in self._store.objects(f"{self._kind}/{name}"))
        matches = (_OBJECT.fullmatch(file) for folder, file in objects if folder == f"{self._kind}/{name}")
        return sorted(int(match[1]) for match in matches if match)

    def _read(self, name: str, revision: int) -> Definition:
        path = self._path(name, revision)
        try:
            stored = json.loads(self._store.get(path) or b"")
            return Definition(**{key: stored[key] for key in _STORED})
        except (ValueError, TypeError, KeyError) as exc:
            raise StorageError(
                f"{self._store.url(path)} holds no definition of a {self._what} ({exc!r}); "
                "remove that object to have the revision before it"
            ) from None

    def _path(self, name: str, revision: int) -> str:
        return f"{self._kind}/{name}/{revision:06d}.json"

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            raise BadInput(
                f"{name!r} cannot be the name of a {self._what}: at most {LONGEST_NAME} letters, digits, '-', '_' and '.', "
                "with a letter or digit at both ends"
            )

    def _as_json(self, name: str, plain: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return dict(json.loads(json.dumps(dict(plain), allow_nan=False)))
        except (ValueError, TypeError) as exc:
            raise BadInput(f"{self._what} {name!r} cannot be stored: {exc}; give text, numbers, lists and mappings only") from None

    def _unknown(self, name: str) -> BadInput:
        names = self.names()
        near = difflib.get_close_matches(name, names, n=3) or names[:10]
        hint = f"it has {', '.join(near)}" if near else f"it has no {self._kind}"
        return BadInput(f"no {self._what} {name!r} in {self._store.uri}; {hint}")
