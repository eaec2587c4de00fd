"""Work that is finished and not yet published: parts by time, and column files in their final form.

Everything of one fragment lies in one folder, whose name is a hash of all that the values depend on. A later run takes up
exactly what is still valid by looking for the folder; what is not valid any more is never found.
"""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from runner.backfill.column_file import FileKind
from runner.backfill.offsets import NONE, Offsets, union
from runner.backfill.policy import ErrorPolicy
from runner.errors import RowError
from runner.store import Store

FOLDER = "staging"
OFFSET = "_offset"
NAMED = "base64:"
MAX_NAMED_BYTES = 4096  # an object of its own is a round trip to write, one to read and one to delete, for each fragment


@dataclass(frozen=True)
class StagedColumn:
    """A column file in its final form.

    Attributes:
        path: below ``_runner/``.
        rows: physical rows; must equal the fragment's when it is published.
        size: bytes.
        fits_inputs: whether all its values are known to be of their rows' inputs, or are marked where they are not.
        settled: what is to be kept of its rows that are done and NULL (see `settled`), as `Staging.keep` names it; or None.
    """

    column: str
    path: str
    rows: int
    size: int
    kind: FileKind
    version: str
    settled: str | None = None
    fits_inputs: bool = True


@dataclass(frozen=True)
class StagedFragment:
    """All columns of one fragment, ready to publish."""

    fragment_id: int
    computed: int
    columns: tuple[StagedColumn, ...]
    errors: tuple[RowError, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> StagedFragment:
        raw = json.loads(data)
        columns = tuple(StagedColumn(**column) for column in raw["columns"])
        return cls(raw["fragment_id"], raw["computed"], columns, tuple(RowError(**error) for error in raw["errors"]))


def staging_key(**depends_on: Any) -> str:
    """Name of a fragment's folder: a hash of everything that its values depend on."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]


def path_name(name: str) -> str:
    """A table's or column's name as part of a path. Lance's writer would encode a "%" once more, and nobody find the file."""
    return urllib.parse.quote(name, safe="").replace("%", "=")


def name_of(part: str) -> str:
    """The name that `path_name` gave the part of a path for."""
    return urllib.parse.unquote(part.replace("=", "%"))


def staging_root(table: str) -> str:
    """Where everything staged for a table lies."""
    return f"{FOLDER}/{path_name(table)}"


def staging_folder(table: str, columns: Sequence[str]) -> str:
    """Where everything staged for those columns of a table lies."""
    names = "+".join(path_name(column) for column in sorted(columns))
    if len(names) > 150:
        names = hashlib.sha256(names.encode()).hexdigest()
    return f"{staging_root(table)}/{names}"


class Staging:
    """One fragment's folder."""

    def __init__(self, store: Store, folder: str) -> None:
        self.store = store
        self.folder = folder

    def new_column_path(self) -> str:
        return f"{self.folder}/{uuid.uuid4().hex}.lance"

    def save_part(self, offsets: Offsets, columns: Sequence[Any], names: Sequence[str]) -> None:
        """Save computed rows: physical offsets, and one array for each column."""
        batch = pa.record_batch([pa.array(offsets), *columns], names=[OFFSET, *names])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self.store.put(f"{self.folder}/{int(offsets[0]):010d}-{uuid.uuid4().hex}.part", sink.getvalue().to_pybytes())

    def keep(self, path: str, data: bytes) -> str:
        """Save a few bytes as an object, or, where they are very few, in the name that `kept` finds them by."""
        if len(data) <= MAX_NAMED_BYTES:
            return NAMED + base64.b64encode(data).decode()
        self.store.put(path, data)
        return path

    def part_paths(self) -> list[str]:
        """Parts in ascending order of their first row."""
        return sorted(path for path, _ in self.store.objects(self.folder) if path.endswith(".part"))

    def load_part(self, path: str, *, offsets_only: bool = False) -> tuple[Offsets, dict[str, Any]]:
        """A part's offsets and its columns by name (none of them with `offsets_only`)."""
        data = self.store.get(path)
        if data is None:
            return NONE, {}
        options = pa.ipc.IpcReadOptions(included_fields=[0] if offsets_only else None)
        batch = pa.ipc.open_stream(data, options=options).read_all().combine_chunks()
        columns = {name: batch.column(name).chunk(0) for name in batch.schema.names if name != OFFSET}
        return batch.column(OFFSET).to_numpy(), columns

    def covered(self) -> Offsets:
        """Offsets of all rows in parts, ascending."""
        return union(*(self.load_part(path, offsets_only=True)[0] for path in self.part_paths()))

    def finish(self, staged: StagedFragment) -> None:
        """Record that the column files are whole."""
        self.store.put(done_path(self.folder), staged.to_json().encode())

    def finished(self, policy: ErrorPolicy) -> StagedFragment | None:
        """What `finish` recorded; None where there is nothing, or rows were skipped and the policy does not allow it."""
        data = self.store.get(done_path(self.folder))
        found = StagedFragment.from_json(data) if data else None
        return None if found and found.errors and policy.then == "fail" else found


def kept(store: Store, name: str) -> bytes | None:
    """What `Staging.keep` saved; None where it is gone."""
    return base64.b64decode(name.removeprefix(NAMED)) if name.startswith(NAMED) else store.get(name)


def done_path(folder: str) -> str:
    return f"{folder}/done.json"
