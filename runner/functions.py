"""`@udf`: a Python function that computes a column."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from runner.backfill.policy import ErrorPolicy
from runner.errors import BadInput
from runner.exception_names import exception_names
from runner.fingerprint import fingerprint
from runner.signatures import Kind, Signature, check_methods, is_coroutine, output_type


@dataclass(frozen=True, eq=False)
class UDF:
    """A function with what is needed to run it over a column. Made by `udf`; calling it calls the function.

    Calling a decorated *class* keeps the arguments: ``Embed("clip")`` is a UDF whose instance every worker constructs once.

    Attributes:
        kind: ``"scalar"`` is called with one value of each input, ``"arrow"`` with arrays, ``"record_batch"`` with one batch.
        data_type: Arrow type of the output; a struct may be spread over several columns.
        input_columns: columns that feed the parameters, in their order; None for a record batch of all columns.
        optional: for each parameter, whether it takes None; a row with NULL in any other input gives NULL uncalled.
        retry_on: names of the exceptions that are retried; empty for all of them.
        version: hash of code and closed-over values, or the caller's own label.
        output: name of the struct field that the column takes, where several columns come of one function.
    """

    func: Any
    kind: Kind
    data_type: Any
    input_columns: tuple[str, ...] | None
    optional: tuple[bool, ...]
    annotations: tuple[Any, ...]
    version: str
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int | None = None
    batch_size: int | None = None
    on_error: ErrorPolicy = field(default_factory=ErrorPolicy)
    timeout: float | None = None
    concurrency: int | None = None
    rate_limit: float | None = None
    retry_on: tuple[str, ...] = ()
    field_metadata: Mapping[str, str] = field(default_factory=dict)
    init: tuple[tuple[Any, ...], dict[str, Any]] | None = None
    output: str | None = None
    label: str | None = None

    @property
    def name(self) -> str:
        return str(self.func.__qualname__)

    @property
    def is_coroutine(self) -> bool:
        """Whether its calls are awaited, many at once."""
        return is_coroutine(self.func)

    @property
    def prepares(self) -> bool:
        """Whether ``preprocess`` gets the inputs, and ``__call__`` what it returns."""
        return inspect.isclass(self.func) and hasattr(self.func, "preprocess")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not inspect.isclass(self.func):
            return self.func(*args, **kwargs)
        version = self.label or fingerprint(self.func, self.kind, str(self.data_type), args, kwargs)
        return dataclasses.replace(self, init=(args, kwargs), version=version)

    def outputs(self) -> dict[str, UDF]:
        """One UDF for each field of a struct output, all computed in one pass.

        Raises:
            BadInput: the output is not a struct.
        """
        import pyarrow as pa

        if not pa.types.is_struct(self.data_type):
            raise BadInput(f"{self.name} returns {self.data_type}; only a struct spreads over several columns")
        return {child.name: dataclasses.replace(self, output=child.name) for child in self.data_type}

    @property
    def column_type(self) -> Any:
        """Arrow type of the column this UDF fills."""
        return self.data_type if self.output is None else self.data_type.field(self.output).type

    def with_inputs(self, columns: Sequence[str]) -> UDF:
        """The same function fed from other columns.

        Raises:
            BadInput: not one column for each parameter.
        """
        if self.kind != "record_batch" and len(columns) != len(self.optional):
            raise BadInput(f"{self.name} takes {len(self.optional)} inputs, {len(columns)} columns were given: {list(columns)}")
        return dataclasses.replace(self, input_columns=tuple(columns))

    def instance(self) -> Callable[..., Any]:
        """What is called on a worker: the function itself, or a new object of the class."""
        if not inspect.isclass(self.func):
            return typing.cast("Callable[..., Any]", self.func)
        args, kwargs = self.init or ((), {})
        return typing.cast("Callable[..., Any]", self.func(*args, **kwargs))


@overload
def udf(func: Callable[..., Any], /) -> UDF: ...


@overload
def udf(
    *,
    data_type: Any = None,
    input_columns: Sequence[str] | None = None,
    version: str | None = None,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    memory: int | None = None,
    batch_size: int | None = None,
    on_error: str | ErrorPolicy = "fail",
    timeout: float | None = None,
    concurrency: int | None = None,
    rate_limit: float | None = None,
    retry_on: Any = None,
    field_metadata: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], UDF]: ...


def udf(
    func: Callable[..., Any] | None = None,
    /,
    *,
    data_type: Any = None,
    input_columns: Sequence[str] | None = None,
    version: str | None = None,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    memory: int | None = None,
    batch_size: int | None = None,
    on_error: str | ErrorPolicy = "fail",
    timeout: float | None = None,
    concurrency: int | None = None,
    rate_limit: float | None = None,
    retry_on: Any = None,
    field_metadata: Mapping[str, str] | None = None,
) -> UDF | Callable[[Callable[..., Any]], UDF]:
    """Declare a function that computes a column.

    Bare (``@udf``) on a function of annotated scalars; with options otherwise. Parameters annotated ``pa.Array`` make an Arrow
    function (arrays in, an array of the same length out), one annotated ``pa.RecordBatch`` a batch function. A class is
    constructed once a worker and its ``__call__`` is the function; its ``setup()``, if there is one, runs before the first
    batch, and its ``preprocess`` gets the inputs in threads, batches ahead, and gives ``__call__`` what it returns. Of an
    ``async def`` many calls run at once.

    Args:
        data_type: Arrow type of the output. Default: from the return annotation. A ``pa.Schema`` is a struct of its fields.
        input_columns: columns that feed the parameters. Default: the parameters' names.
        version: label of the function's version. Default: a hash of the source and of what it closes over.
        num_cpus: CPUs that a worker reserves (Ray resources), above 0. Default 1.
        num_gpus: GPUs that a worker reserves; a fraction shares one. Default 0.
        memory: bytes that a worker reserves. Default: none reserved.
        batch_size: rows in a call of an Arrow or batch function. Default: adapts to bytes and to time.
        on_error: ``"fail"``, ``"skip"``, ``"skip:100"`` or ``"skip:1%"`` (at most so many rows), any of them after
            ``"retry:N,"``. Default ``"fail"``.
        timeout: seconds that one call may take, ``setup`` and ``preprocess`` apart. Default: no limit.
        concurrency: calls of a coroutine function that are in flight at once on a worker. Default 16.
        rate_limit: calls of a coroutine function a second, over all workers of the job. Default: no limit.
        retry_on: exceptions that ``retry:N`` retries, as classes or by name. Default: all.
        field_metadata: metadata of the column's field.

    Raises:
        BadInput: an option's value is not usable, or the types do not follow from the annotations.
        TypeError: an option does not exist.

    Examples:
        >>> @udf
        ... def filename_len(filename: str) -> int:
        ...     return len(filename)
    """

    def decorate(function: Callable[..., Any]) -> UDF:
        if isinstance(function, UDF):
            raise BadInput(f"{function.name} is decorated with @udf twice")
        if not (inspect.isclass(function) or inspect.isroutine(function)):
            raise BadInput(f"@udf takes a function or a class, not {function!r}; options are given by name: @udf(batch_size=64)")
        if isinstance(input_columns, str):
            raise BadInput(f"input_columns={input_columns!r} must be a list of columns")
        if version is not None and not (isinstance(version, str) and version):
            raise BadInput(f"version={version!r} must be a text that is not empty")
        if not all(isinstance(text, str) for pair in (field_metadata or {}).items() for text in pair):
            raise BadInput(f"field_metadata={field_metadata!r} must map texts to texts")
        check_methods(function)
        signature = Signature.of(function)
        kind, policy = signature.kind, ErrorPolicy.parse(on_error)
        _check_calls(function, policy, concurrency=concurrency, rate_limit=rate_limit, retry_on=retry_on)
        out_type = output_type(function, kind, data_type)
        chosen = tuple(input_columns) if input_columns is not None else (None if kind == "record_batch" else signature.names)
        made = UDF(
            func=function,
            kind=kind,
            data_type=out_type,
            input_columns=None,
            optional=signature.optional,
            annotations=signature.annotations,
            version=version or fingerprint(function, kind, str(out_type)),
            num_cpus=_positive("num_cpus", num_cpus),
            num_gpus=_positive("num_gpus", num_gpus, zero=True),
            memory=None if memory is None else _whole("memory", memory),
            batch_size=None if batch_size is None else _whole("batch_size", batch_size),
            on_error=policy,
            timeout=None if timeout is None else _positive("timeout", timeout),
            concurrency=None if concurrency is None else _whole("concurrency", concurrency),
            rate_limit=None if rate_limit is None else _positive("rate_limit", rate_limit),
            retry_on=() if retry_on is None else exception_names(retry_on),
            field_metadata=dict(field_metadata or {}),
            label=version,
        )
        return made if chosen is None else made.with_inputs(chosen)

    return decorate if func is None else decorate(func)


def as_udf(value: Any) -> UDF:
    """A UDF as it is; a plain annotated function as ``udf(function)``."""
    return value if isinstance(value, UDF) else udf(value)


def _check_calls(function: Callable[..., Any], policy: ErrorPolicy, *, retry_on: Any, **of_coroutines: Any) -> None:
    """Refuse options that would do nothing."""
    for name, value in of_coroutines.items():
        if value is not None and not is_coroutine(function):
            raise BadInput(f"{name}={value!r} is for coroutine functions (async def), which {function.__qualname__} is not")
    if retry_on is not None and not policy.retries:
        raise BadInput(f"retry_on={retry_on!r} retries nothing with on_error={str(policy)!r}; say how often: on_error='retry:3'")


def _positive(name: str, value: Any, *, zero: bool = False) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and (value > 0 or (zero and value == 0))
    if not good:
        raise BadInput(f"{name}={value!r} must be a number {'of at least' if zero else 'above'} 0")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadInput(f"{name}={value!r} must be a whole number above 0")
    return value
