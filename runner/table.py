"""A table and its computed columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner import console, shipping
from runner.backfill.plan import BackfillPlan
from runner.context import Context, current_context
from runner.errors import BadInput, ColumnNotFound, NotComputed, RowError
from runner.failed_rows import failed_rows
from runner.functions import UDF, as_udf
from runner.jobs import Handle, Job
from runner.layering import in_layers, plan_only
from runner.result import BackfillResult
from runner.shipping import METADATA_KEY, VERSIONS_KEY, FunctionSpec
from runner.store import refused
from runner.targets import Request, check_inputs, computed_columns, inputs_of

if TYPE_CHECKING:
    from infra.prices import PriceTable
    from runner.connection import Connection
    from runner.estimate import Estimate
    from runner.estimating import SampleSize
    from runner.records import JobRecord

Transform = str | UDF | Callable[..., Any] | tuple[UDF | Callable[..., Any], Sequence[str]]


class Table:
    """A Lance table with columns computed by functions. Made by `Connection.open_table`.

    Attributes:
        path: the table's folder below the database; `uri`: its full address.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        if not name or "/" in name or name.startswith("."):
            raise BadInput(f"{name!r} is not a table's name")
        self.connection = connection
        self.name = name
        self.path = f"{name}.lance"
        self.uri = f"{connection.uri}/{self.path}"

    def patient(self) -> Table:
        """The same table over a storage that is waited for; see `runner.store.Store.patient`."""
        return Table(self.connection.patient(), self.name)

    def to_lance(self, version: int | None = None) -> Any:
        """The table as a ``lance.LanceDataset``, at its latest version or at `version`."""
        import lance

        return lance.dataset(self.uri, version=version, storage_options=self.connection.store.storage_options or None)

    def to_lancedb(self) -> Any:
        """The table as a ``lancedb`` table: search, add, update, indexes and all the rest."""
        return self.connection.to_lancedb().open_table(self.name)

    def to_arrow(self, columns: list[str] | None = None) -> Any:
        """The table, or some columns of it, in memory."""
        return self.to_lance().to_table(columns=columns)

    @property
    def schema(self) -> Any:
        """Arrow schema of the latest version."""
        return self.to_lance().schema

    def computed_columns(self) -> dict[str, FunctionSpec]:
        """The computed columns and their functions."""
        return computed_columns(self.schema)

    def add_columns(self, transforms: Mapping[str, Transform] | UDF) -> None:
        """Add computed columns, all NULL until they are backfilled. Metadata only: one table version, no data written.

        Args:
            transforms: column name to function, to ``(function, [input columns])``, or to a SQL expression, which is computed
                at once. A function may take another of the new columns. A UDF by itself adds one column for each field of its
                struct output, filled in one pass.

        Raises:
            BadInput: a column exists already, an input does not, or the types do not fit. Nothing is added then.
        """
        if isinstance(transforms, UDF):
            transforms = dict(transforms.outputs())
        dataset = self.to_lance()
        taken = [name for name in transforms if name in dataset.schema.names]
        if taken:
            raise BadInput(f"table {self.name!r} has {', '.join(taken)} already; backfill(..., udf=...) computes a column anew")
        sql = {name: value for name, value in transforms.items() if isinstance(value, str)}
        fields = self._computed_fields({name: value for name, value in transforms.items() if name not in sql}, dataset.schema)
        if sql:
            _checked_sql(dataset, sql)
            with refused("add columns to", self.uri):
                dataset.add_columns(sql)
        if fields:
            import pyarrow as pa

            with refused("add columns to", self.uri):
                dataset.add_columns(pa.schema(fields))

    def plan(
        self,
        columns: str | Sequence[str],
        *,
        udf: UDF | Callable[..., Any] | None = None,
        where: str | None = None,
        stale: bool = False,
        force: bool = False,
        only_failed: bool = False,
        limit: int | None = None,
        num_fragments: int | None = None,
    ) -> BackfillPlan:
        """What `backfill` with the same arguments would do now. Changes nothing and starts nothing."""
        request = self._request(
            columns, udf, where=where, stale=stale, force=force, only_failed=only_failed, limit=limit, num_fragments=num_fragments
        )
        return plan_only(self, request)

    def estimate(
        self,
        columns: str | Sequence[str],
        *,
        sample: SampleSize | None = None,
        cluster: str | None = None,
        prices: PriceTable | None = None,
        udf: UDF | Callable[..., Any] | None = None,
        where: str | None = None,
        stale: bool = False,
        force: bool = False,
        only_failed: bool = False,
        limit: int | None = None,
        num_fragments: int | None = None,
        concurrency: int | None = None,
        batch_size: int | None = None,
        timeout: float | None = None,
    ) -> Estimate:
        """What `backfill` with the same arguments would take: bytes, tasks and workers; with a sample, time, GPU hours and cost.

        The sample calls the function on rows that need work, and writes nothing to the database. It runs on the workers that the
        backfill would have, all at once, on a Ray that is started for it; for a cluster elsewhere in this process, with this
        machine's speed and this machine's way to the store.

        Args:
            sample: how much to try. Default: nothing, and no time.
            cluster: ``"local"``, ``"inline"``, or a defined cluster, grown as far as the tasks make it. Default: the context it is
                called in, otherwise ``"local"``.
            prices: what the pods of a defined cluster cost; see `infra.prices.find_prices`.

        Raises:
            BadInput: something given is wrong, no worker fits the cluster, or columns to be sampled feed each other.
            RunnerError: the function cannot be constructed, or killed a worker.
        """
        from runner.estimating import estimate

        request = self._request(
            columns, udf, where=where, stale=stale, force=force, only_failed=only_failed, limit=limit,
            num_fragments=num_fragments, concurrency=concurrency, batch_size=batch_size, timeout=timeout,
        )  # fmt: skip
        return estimate(self, request, cluster, sample, prices)

    def backfill(
        self,
        columns: str | Sequence[str],
        *,
        udf: UDF | Callable[..., Any] | None = None,
        where: str | None = None,
        stale: bool = False,
        force: bool = False,
        only_failed: bool = False,
        limit: int | None = None,
        num_fragments: int | None = None,
        commit_every: int | None = None,
        optimize_indices: bool = False,
        concurrency: int | None = None,
        batch_size: int | None = None,
        on_error: str | None = None,
        timeout: float | None = None,
        progress: bool = True,
    ) -> BackfillResult:
        """Compute what is missing of one or more columns and publish it, each column in one new table version.

        Runs in the context it is called in; without one, on a local Ray that is started for it and stopped after. Several
        columns are computed in one pass over their inputs; a column that is fed by another one of them comes after it.

        Where others change the table meanwhile the job plans anew, and takes over what is still valid.

        Args:
            udf: another function for the column, or one for several columns. It becomes the columns' function when it has run.
            where: SQL predicate. Exactly the rows that match are computed, unless this version of the function made them already.
            stale: compute rows of older function versions too, and rows whose inputs changed since they were computed.
            force: compute rows even where this version made them.
            only_failed: compute the rows that the error policy skipped, and no others.
            limit: compute so many rows of each column at most, the first that need work.
            num_fragments: fill so many fragments at most, the first that need work.
            commit_every: publish whenever so many rows more are finished. Default: once, at the end.
            optimize_indices: have indexes on the columns cover what was recomputed, as a last step.
            concurrency: most workers to use. Default: as many as there is room for.
            batch_size: instead of the function's own, as are the next two; see `udf`.
            on_error: what becomes of a row whose call fails.
            timeout: seconds that one call may take.
            progress: show progress on stderr.

        Raises:
            BadInput: something given is wrong; nothing was changed.
            BackfillFailed: the function failed and the policy is ``fail``; nothing was published, finished work is kept.
            ColumnBusy: another backfill of the column runs.
            CommitConflict: others rewrote the table again and again, or dropped the column; finished work is kept.
        """
        request = self._request(
            columns, udf, where=where, stale=stale, force=force, only_failed=only_failed, limit=limit,
            num_fragments=num_fragments, commit_every=commit_every, optimize_indices=optimize_indices,
            concurrency=concurrency, batch_size=batch_size, on_error=on_error, timeout=timeout,
        )  # fmt: skip
        return self._run(request, progress)

    def resume(self, record: JobRecord, *, progress: bool = True) -> BackfillResult:
        """Run a backfill again as it was asked for, in the context that this is called in; what it finished is taken over.

        Args:
            record: of an earlier job of this table; `Connection.job` gives it.
            progress: show progress on stderr.

        Raises:
            as `backfill`.
        """
        return self._run(Request.of_record(record), progress)

    def _run(self, request: Request, progress: bool) -> BackfillResult:
        job = self._job(request, current_context())
        if not progress:
            return job.run_here()
        with console.following(", ".join(request.columns), job):
            return job.run_here()

    def backfill_async(
        self,
        columns: str | Sequence[str],
        *,
        udf: UDF | Callable[..., Any] | None = None,
        where: str | None = None,
        stale: bool = False,
        force: bool = False,
        only_failed: bool = False,
        limit: int | None = None,
        num_fragments: int | None = None,
        commit_every: int | None = None,
        optimize_indices: bool = False,
        concurrency: int | None = None,
        batch_size: int | None = None,
        on_error: str | None = None,
        timeout: float | None = None,
    ) -> Handle:
        """`backfill` in the background. The context it is called in waits for it before it closes."""
        request = self._request(
            columns, udf, where=where, stale=stale, force=force, only_failed=only_failed, limit=limit,
            num_fragments=num_fragments, commit_every=commit_every, optimize_indices=optimize_indices,
            concurrency=concurrency, batch_size=batch_size, on_error=on_error, timeout=timeout,
        )  # fmt: skip
        context = current_context()
        job = self._job(request, context)
        if context is not None:
            context.track(job)
        return job.start()

    def _job(self, request: Request, context: Context | None) -> Handle:
        return context.job(self, request) if context is not None else Job(self, request, None)

    def errors(self, column: str) -> list[RowError]:
        """Rows of a computed column that are NULL because the function failed on them, by row address.

        A row that a compaction moved is listed where it is now. What its error was is known as long as the version that the
        job read is there.

        Raises:
            ColumnNotFound, NotComputed: there is no such computed column.
        """
        dataset = self.to_lance()
        if column not in dataset.schema.names:
            raise ColumnNotFound(f"table {self.name!r} has no column {column!r}; it has {', '.join(dataset.schema.names)}")
        if column not in computed_columns(dataset.schema):
            raise NotComputed(f"column {column!r} of {self.name!r} is not computed, so no function can have failed on it")
        return failed_rows(self, dataset, column)

    def _request(self, columns: str | Sequence[str], udf: UDF | Callable[..., Any] | None, **options: Any) -> Request:
        names = (columns,) if isinstance(columns, str) else tuple(columns)
        return Request(names, as_udf(udf) if udf is not None else None, **options)

    def _computed_fields(self, transforms: Mapping[str, Any], schema: Any) -> list[Any]:
        """The fields of new columns, in the order given. One may be fed by another."""
        udfs = {name: _udf_of(transform) for name, transform in transforms.items()}
        layers = in_layers({name: udf.input_columns or () for name, udf in udfs.items()})
        made: dict[str, Any] = {}
        for name in (name for layer in layers for name in layer):
            made[name] = self._computed_field(name, udfs[name], schema)
            schema = schema.append(made[name])
        return [made[name] for name in transforms]

    def _computed_field(self, name: str, udf: UDF, schema: Any) -> Any:
        import pyarrow as pa

        columns = inputs_of(udf, schema)
        check_inputs(udf, columns, schema, name)
        spec = shipping.describe(udf, columns, self.connection.store)
        metadata = {**udf.field_metadata, METADATA_KEY: spec.to_json(), VERSIONS_KEY: json.dumps([udf.version])}
        return pa.field(name, udf.column_type, nullable=True, metadata=metadata)

    def __repr__(self) -> str:
        return f"Table({self.name!r} in {self.connection.uri!r})"


def _udf_of(transform: Any) -> UDF:
    function, inputs = transform if isinstance(transform, tuple) else (transform, None)
    udf = as_udf(function)
    return udf.with_inputs(inputs) if inputs is not None else udf


def _checked_sql(dataset: Any, expressions: Mapping[str, str]) -> None:
    for name, expression in expressions.items():
        try:
            dataset.scanner(columns={name: expression}, limit=1).to_table()
        except Exception as exc:
            raise BadInput(
                f"the SQL expression {expression!r} of column {name!r} cannot be computed: {str(exc).splitlines()[0]}"
            ) from exc
