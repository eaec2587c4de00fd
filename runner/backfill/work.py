"""What goes to a worker and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from runner.backfill.checkpoint import StagedFragment
from runner.backfill.column_file import RowMap, version_digest
from runner.backfill.offsets import NONE, Offsets
from runner.backfill.policy import ErrorPolicy
from runner.backfill.reader import FragmentRows
from runner.backfill.selection import ColumnState, Selection, select
from runner.errors import RowError
from runner.shipping import FunctionSpec
from runner.store import Store


@dataclass(frozen=True)
class TargetColumn:
    """A column to fill: its field, the function that fills it, and which rows of it need work."""

    name: str
    field: Any
    spec: FunctionSpec
    selection: Selection

    @property
    def function_key(self) -> str:
        """The same for columns that take their values from the same call."""
        return f"{self.spec.version}|{self.spec.name}|{self.spec.path or self.spec.pickle}|{','.join(self.spec.inputs)}"


@dataclass(frozen=True)
class Pass:
    """All that the works of one job share.

    Attributes:
        workers: how many workers run them at most; they share the rate limits.
    """

    job_id: str
    store: Store
    table_uri: str
    read_version: int
    columns: tuple[TargetColumn, ...]
    policy: ErrorPolicy
    batch_size: int | None
    timeout: float | None
    allow_pickle: bool
    versions: tuple[str, ...]
    workers: int = 1

    @property
    def data_url(self) -> str:
        return f"{self.table_uri}/data"

    @property
    def names(self) -> str:
        return ", ".join(column.name for column in self.columns)

    @cached_property
    def versions_by_digest(self) -> dict[str, str]:
        """Function versions known to have made rows of the columns, by the digest in file names."""
        return {version_digest(version): version for version in self.versions}

    def column(self, name: str) -> TargetColumn:
        return next(column for column in self.columns if column.name == name)


@dataclass(frozen=True, slots=True)
class FragmentWork:
    """Rows of one fragment to compute, for one or more columns.

    Attributes:
        state: the file that holds the column now.
        rows: how many rows need work, by the plan.
        folder: where the fragment's finished work is staged.
        offsets: the rows, where the plan had to look them up and they are few; otherwise the worker selects them.
        first: only so many of the selected rows, the first.
        known: what is known of the rows of a file of Lance's own, which has no row map.
        due: rows to compute whatever made them.
        unknown: whether that cannot be told of the fragment's rows.
        changed: rows whose inputs changed since they were computed, as far as that is known.
        span: positions among the selected rows, where a large fragment is split.
        has_parts: whether an earlier run left parts.
        join: put the parts together instead of computing; `errors` are those of the spans.
        careful: workers died on it: the function runs in a process of its own, to find the row that kills it.
        cause: how its worker died, where the work is down to the one row that is to blame; the row is not called any more.
    """

    fragment_id: int
    columns: tuple[str, ...]
    state: ColumnState
    rows: int
    folder: str
    offsets: Offsets | None = field(default=None, repr=False, compare=False)
    first: int | None = None
    known: RowMap | None = field(default=None, repr=False, compare=False)
    due: Offsets = field(default_factory=lambda: NONE, repr=False, compare=False)
    unknown: bool = False
    changed: Offsets = field(default_factory=lambda: NONE, repr=False, compare=False)
    span: tuple[int, int] | None = None
    has_parts: bool = False
    join: bool = False
    careful: bool = False
    cause: str | None = None
    errors: tuple[RowError, ...] = ()

    def row_map(self, settings: Pass) -> RowMap | None:
        """Which rows of the fragment were made by what, None where nothing is known of single rows."""
        return self.known or self.state.row_map(settings.data_url, settings.store.storage_options)

    def selected(self, rows: FragmentRows, settings: Pass, row_map: RowMap | None) -> Offsets:
        """The rows to compute, ascending."""
        if self.offsets is not None:
            return self.offsets[: self.first]
        column = settings.column(self.columns[0])
        return select(rows, column.name, self.state, column.selection, row_map, self.due).offsets[: self.first]


@dataclass(frozen=True)
class Progress:
    """Values computed, values that failed and bytes read since the last such event; `resumed` values were in parts already.

    Attributes:
        errors: the first of those that failed.
        kinds: how many failed, by the exception's name.
        calls, call_seconds: calls of the function that ended since, and how long they took in all.
        memory: most bytes that the worker's process has had resident.
    """

    computed: int = 0
    failed: int = 0
    bytes_read: int = 0
    resumed: int = 0
    errors: tuple[RowError, ...] = ()
    kinds: tuple[tuple[str, int], ...] = ()
    calls: int = 0
    call_seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class SpanDone:
    """A span of a split fragment is computed and its parts are saved."""

    work: FragmentWork
    errors: tuple[RowError, ...]


@dataclass(frozen=True)
class Failed:
    """The job cannot go on: a row failed under the policy ``fail``, or the function is not usable."""

    message: str
    errors: tuple[RowError, ...] = ()


WorkerEvent = Progress | SpanDone | StagedFragment | Failed
