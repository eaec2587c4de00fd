"""From the names a caller gives to the columns, functions and options of one pass; everything is checked here."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from runner import shipping
from runner.backfill.blobs import takes_blob
from runner.backfill.policy import ErrorPolicy
from runner.backfill.selection import Mode, Selection
from runner.backfill.work import Pass, TargetColumn
from runner.errors import BadInput, ColumnNotFound, FunctionNotLoadable, NotComputed
from runner.functions import UDF, as_udf
from runner.shipping import METADATA_KEY, VERSIONS_KEY, FunctionSpec

if TYPE_CHECKING:
    from runner.records import JobRecord
    from runner.store import Store

_T = TypeVar("_T")


@dataclass(frozen=True)
class Request:
    """What a caller of `Table.backfill` or `Table.plan` asked for; see there.

    Attributes:
        specs: the columns' functions, where the caller's process has resolved them for a driver elsewhere.
        adopts: whether they become the columns' own, as `udf` does.
    """

    columns: tuple[str, ...]
    udf: UDF | None = None
    where: str | None = None
    stale: bool = False
    force: bool = False
    concurrency: int | None = None
    batch_size: int | None = None
    on_error: str | None = None
    timeout: float | None = None
    queue: bool = False
    only_failed: bool = False
    limit: int | None = None
    num_fragments: int | None = None
    commit_every: int | None = None
    optimize_indices: bool = False
    specs: Mapping[str, FunctionSpec] | None = None
    adopts: bool = False

    def __post_init__(self) -> None:
        if not self.columns or len(set(self.columns)) != len(self.columns):
            raise BadInput(f"columns={list(self.columns)!r}: name at least one column, each once")
        if self.timeout is not None and not (type(self.timeout) in (int, float) and self.timeout > 0):
            raise BadInput(f"timeout={self.timeout!r} must be seconds, above 0; leave it out for no limit")
        for name in ("concurrency", "batch_size", "limit", "num_fragments", "commit_every"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise BadInput(f"{name}={value!r} must be a whole number above 0; leave it out for no such bound")
        if self.only_failed and (self.stale or self.force):
            raise BadInput("only_failed=True takes the rows that failed and no others; leave out stale and force")
        if self.force and self.commit_every is not None:
            raise BadInput(
                "force=True computes rows whatever made them, so once the table changes, what commit_every has published could not "
                "be told from what is left; leave out commit_every, or give the function a new version and use stale=True"
            )
        if self.on_error is not None:
            ErrorPolicy.parse(self.on_error)
        if self.where is not None and not self.where.strip():
            raise BadInput('where is empty; give a SQL predicate such as "day >= 7", or leave it out for all rows')

    @property
    def is_part(self) -> bool:
        """Whether rows that need work may be left for later."""
        return self.limit is not None or self.num_fragments is not None

    @property
    def has_function(self) -> bool:
        """Whether it brings a function that becomes the columns' own."""
        return self.udf is not None or self.adopts

    @property
    def mode(self) -> Mode:
        """``where`` asks for exactly those rows, so they are refreshed like with ``stale``."""
        if self.only_failed:
            return "failed"
        if self.force:
            return "force"
        return "refresh" if self.stale or self.where is not None else "missing"

    def brought(self) -> dict[str, str]:
        """The specs, as JSON, of the functions that it brings; for the job record."""
        return {name: spec.to_json() for name, spec in (self.specs or {}).items()} if self.has_function else {}

    @classmethod
    def of_record(cls, record: JobRecord) -> Request:
        """What a job was asked for; a function that it brought and that can be imported as its code is now.

        Raises:
            FunctionNotLoadable: that function cannot be imported here.
        """
        specs = {name: _current_spec(FunctionSpec.from_json(text)) for name, text in record.udf.items()}
        return cls(tuple(record.columns), specs=specs or None, adopts=bool(specs), **record.options)

    def options(self) -> dict[str, Any]:
        """What differs from the defaults, for the job record."""
        hidden = ("columns", "udf", "specs", "adopts")
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden}
        return {name: value for name, value in named.items() if value}


def target_columns(
    request: Request, dataset: Any, table: str, store: Store, names: Sequence[str] | None = None
) -> tuple[TargetColumn, ...]:
    """The columns of a request, or some of them, with their functions.

    Raises:
        ColumnNotFound, NotComputed, FunctionNotLoadable, BadInput: see their messages.
    """
    return tuple(_target(name, request, dataset, table, store) for name in names or request.columns)


def resolve(
    request: Request,
    dataset: Any,
    table: str,
    store: Store,
    job_id: str,
    *,
    allow_pickle: bool,
    columns: Sequence[str] | None = None,
) -> Pass:
    """The pass that a request means on a table as it is.

    Args:
        columns: those of the request that are filled in it. Default: all.

    Raises:
        ColumnNotFound, NotComputed, FunctionNotLoadable, BadInput: see their messages.
    """
    targets = target_columns(request, dataset, table, store, columns)
    check_where(request.where, dataset)
    versions = {v for c in targets for v in (*known_versions(dataset.schema.field(c.name)), c.spec.version)}
    return Pass(
        job_id=job_id,
        store=store,
        table_uri=dataset.uri,
        read_version=dataset.version,
        columns=targets,
        policy=ErrorPolicy.parse(request.on_error or _common(targets, "on_error", lambda spec: spec.on_error)),
        batch_size=request.batch_size or _common(targets, "batch_size", lambda spec: spec.batch_size),
        timeout=request.timeout or _common(targets, "timeout", lambda spec: spec.timeout),
        allow_pickle=allow_pickle,
        versions=tuple(sorted(versions)),
    )


def computed_columns(schema: Any) -> dict[str, FunctionSpec]:
    """The computed columns of a table and what their metadata says of their functions."""
    found = {field.name: _stored_spec(field) for field in schema}
    return {name: spec for name, spec in found.items() if spec is not None}


def known_versions(field: Any) -> list[str]:
    """Function versions that made rows of a column, as far as its metadata tells."""
    text = (field.metadata or {}).get(VERSIONS_KEY.encode())
    return list(json.loads(text)) if text else []


def check_inputs(udf: UDF, inputs: Sequence[str], schema: Any, column: str) -> None:
    """Refuse inputs that do not exist, or whose type the function plainly does not take.

    Raises:
        ColumnNotFound: an input column is missing.
        BadInput: for example a ``str`` parameter fed from an int64 column.
    """
    for position, name in enumerate(inputs):
        if name not in schema.names:
            raise ColumnNotFound(
                f"{udf.name} for column {column!r} takes its input from {name!r}, which the table does not have "
                f"({', '.join(schema.names)}); name the inputs: (function, [columns])"
            )
        if name == column:
            raise BadInput(f"column {column!r} cannot be its own input")
        if udf.kind == "scalar" and not _takes(udf.annotations[position], schema.field(name)):
            wanted = getattr(udf.annotations[position], "__name__", udf.annotations[position])
            raise BadInput(f"{udf.name} takes {wanted} from {name!r}, which is {schema.field(name).type}")


def check_no_circle(column: str, inputs: Sequence[str], schema: Any) -> None:
    """Refuse inputs that are computed from the column itself.

    Raises:
        BadInput: with the columns in between.
    """
    specs = computed_columns(schema)
    waiting: list[tuple[str, tuple[str, ...]]] = [(name, (column, name)) for name in inputs]
    while waiting:
        name, path = waiting.pop()
        if name == column:
            raise BadInput(f"the columns {' <- '.join(path)} would feed each other in a circle; give {column!r} other inputs")
        if name in specs:
            waiting += [(other, (*path, other)) for other in specs[name].inputs if other == column or other not in path]


def inputs_of(udf: UDF, schema: Any) -> tuple[str, ...]:
    """A UDF's input columns; for a record batch without named inputs all columns that are not computed."""
    if udf.input_columns is not None:
        return udf.input_columns
    return tuple(field.name for field in schema if _stored_spec(field) is None)


def _target(name: str, request: Request, dataset: Any, table: str, store: Store) -> TargetColumn:
    if name not in dataset.schema.names:
        raise ColumnNotFound(f"table {table!r} has no column {name!r}; it has {', '.join(dataset.schema.names)}")
    field = dataset.schema.field(name)
    stored = _stored_spec(field)
    if stored is None and not request.has_function:
        raise NotComputed(
            f"column {name!r} of {table!r} is not computed: no function is attached; add_columns({{...}}) makes a computed "
            "column, backfill(..., udf=...) attaches a function to this one"
        )
    if stored is None and request.stale:
        raise BadInput(
            f"column {name!r} of {table!r} has no version that its values could be older than: no function has computed it yet; "
            "leave out stale=True to fill its NULLs, or use force=True to compute all of it"
        )
    if request.specs is not None:
        spec = request.specs[name]
    else:
        spec = _given_spec(name, request, dataset, store, stored) if request.udf else _current_spec(stored)
    check_present(spec, dataset.schema, name)
    versions = known_versions(field)
    attributed = versions[0] if len(versions) == 1 else None
    clean = {k: v for k, v in (field.metadata or {}).items() if not k.startswith(b"infill:")}
    selection = Selection(request.where, request.mode, spec.version, attributed)
    return TargetColumn(name, field.with_metadata(clean).with_nullable(True), spec, selection)


def _given_spec(name: str, request: Request, dataset: Any, store: Store, stored: FunctionSpec | None) -> FunctionSpec:
    assert request.udf is not None
    udf = as_udf(request.udf)
    outputs = udf.outputs() if len(request.columns) > 1 else {}
    if outputs and name not in outputs:
        raise BadInput(f"{udf.name} has the outputs {', '.join(outputs)}, none for column {name!r}")
    udf = outputs.get(name, udf)
    inputs = stored.inputs if stored and len(stored.inputs) == len(udf.optional) and stored.name == udf.name else None
    inputs = inputs or inputs_of(udf, dataset.schema)
    check_inputs(udf, inputs, dataset.schema, name)
    check_no_circle(name, inputs, dataset.schema)
    declared, actual = udf.column_type, dataset.schema.field(name).type
    if declared != actual:
        raise BadInput(
            f"{udf.name} returns {declared}, column {name!r} is {actual}; make a new column for it, or change the function"
        )
    return shipping.describe(udf, inputs, store)


def _current_spec(stored: FunctionSpec | None) -> FunctionSpec:
    """The stored spec with the version of the code as it is now, where the code can be imported."""
    assert stored is not None
    if stored.path is None:
        return stored
    try:
        udf = shipping.import_udf(stored.path)
    except BadInput as exc:
        raise FunctionNotLoadable(
            f"the column's function {stored.path} cannot be imported here: {exc}. Run where the module is, or give the function: "
            "backfill(..., udf=...)"
        ) from exc
    return dataclasses.replace(stored, version=udf.version)


def check_present(spec: FunctionSpec, schema: Any, column: str) -> None:
    """Refuse a function whose input columns are gone."""
    missing = [name for name in spec.inputs if name not in schema.names]
    if missing:
        raise ColumnNotFound(
            f"{spec.name} for column {column!r} needs {', '.join(missing)}, which the table does not have any more"
        )


def _stored_spec(field: Any) -> FunctionSpec | None:
    text = (field.metadata or {}).get(METADATA_KEY.encode())
    return FunctionSpec.from_json(text.decode()) if text else None


def check_where(where: str | None, dataset: Any) -> None:
    """Refuse a predicate that does not fit the table."""
    if where is None:
        return
    try:
        dataset.scanner(columns=[], with_row_address=True, filter=where, limit=1).to_table()
    except Exception as exc:
        first = str(exc).splitlines()[0].split(", /")[0]
        raise BadInput(f"where={where!r} is not a predicate over this table: {first}") from exc


def _common(columns: Sequence[TargetColumn], name: str, get: Callable[[FunctionSpec], _T]) -> _T:
    values = {get(column.spec) for column in columns}
    if len(values) > 1:
        raise BadInput(f"the functions of {', '.join(c.name for c in columns)} differ in {name}; say it in the call: {name}=...")
    return values.pop()


def _takes(annotation: Any, field: Any) -> bool:
    of_blob = takes_blob(annotation, field)
    return _takes_type(annotation, field.type) if of_blob is None else of_blob


def _takes_type(annotation: Any, column_type: Any) -> bool:
    import pyarrow.types as t

    kinds: dict[Any, Callable[[Any], bool]] = {
        str: lambda kind: t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind),
        bytes: lambda kind: t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind) or t.is_binary_view(kind),
        bool: t.is_boolean,
        int: t.is_integer,
        float: lambda kind: t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind),
    }
    if t.is_dictionary(column_type):
        return _takes_type(annotation, column_type.value_type)
    check = kinds.get(annotation)
    return check is None or bool(check(column_type))
