"""What a function takes and returns, from its annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from runner.errors import BadInput

Kind = Literal["scalar", "arrow", "record_batch"]


@dataclass(frozen=True)
class Signature:
    """The parameters of a function, or of a class's ``preprocess`` or ``__call__``, whichever gets the inputs.

    Attributes:
        annotations: of the parameters; ``pa.Array`` for each kind of array, ``Any`` where there is none.
        optional: for each parameter, whether it takes None.
    """

    kind: Kind
    annotations: tuple[Any, ...]
    optional: tuple[bool, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Signature:
        """The signature of what the inputs go to.

        Raises:
            BadInput: parameters that no column can feed, or annotations that cannot be resolved.
        """
        import pyarrow as pa

        from runner.arrow_types import split_optional

        called = takes_inputs(function)
        names = _positional(called)
        hints = _hints(called)
        raw = [hints.get(name, Any) for name in names]
        pairs = [split_optional(annotation) if annotation is not Any else (Any, False) for annotation in raw]
        annotations = tuple(pa.Array if _is_array(pair[0]) else pair[0] for pair in pairs)
        if annotations == (pa.RecordBatch,):
            return cls("record_batch", annotations, (True,), ())
        if pa.RecordBatch in annotations:
            raise BadInput(f"{function.__qualname__}: a function of a pa.RecordBatch takes nothing else")
        kind: Kind = "arrow" if pa.Array in annotations else "scalar"
        if kind == "arrow" and set(annotations) != {pa.Array}:
            raise BadInput(f"{function.__qualname__}: annotate every parameter pa.Array, or none")
        return cls(kind, annotations, tuple(pair[1] for pair in pairs), names)


def takes_inputs(function: Callable[..., Any]) -> Callable[..., Any]:
    """What the input columns go to: the function, a class's ``preprocess`` where it has one, else its ``__call__``."""
    if not inspect.isclass(function):
        return function
    return typing.cast("Callable[..., Any]", getattr(function, "preprocess", function.__call__))


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Whether a call of the function, or of an object of the class, is to be awaited."""
    return inspect.iscoroutinefunction(function.__call__ if inspect.isclass(function) else function)


def output_type(function: Callable[..., Any], kind: Kind, data_type: Any) -> Any:
    """The Arrow type of the output: as given, or from the return annotation.

    Raises:
        BadInput: neither tells it.
    """
    import pyarrow as pa

    from runner.arrow_types import arrow_type

    if isinstance(data_type, pa.Schema):
        return pa.struct(list(data_type))
    if isinstance(data_type, pa.DataType):
        return data_type
    if data_type is not None:
        return arrow_type(data_type)
    returned = _hints(function.__call__ if inspect.isclass(function) else function).get("return", Any)
    if kind != "scalar" or returned in (Any, type(None)):
        raise BadInput(f"{function.__qualname__}: say the type of its output, @udf(data_type=...), or annotate what it returns")
    return arrow_type(returned)


def check_methods(function: Callable[..., Any]) -> None:
    """Refuse ``setup`` and ``preprocess`` where they would not be called, or not with what they take.

    Raises:
        BadInput: which one, and what it must look like.
    """
    name = function.__qualname__
    found = [method for method in ("setup", "preprocess") if hasattr(function, method)]
    if not found:
        return
    if not inspect.isclass(function):
        raise BadInput(f"{name} is a plain function and has {found[0]}, which would never run; make it a class with {found[0]}()")
    for method in found:
        if not inspect.isroutine(inspect.getattr_static(function, method)):
            raise BadInput(f"{name}.{method} must be a method")
    if "setup" in found and _positional(function.setup, none=True):  # type: ignore[attr-defined]
        raise BadInput(f"{name}.setup takes {', '.join(_positional(function.setup))}; it is called with nothing but self")  # type: ignore[attr-defined]
    if "preprocess" in found:
        _check_preprocess(function)


def _check_preprocess(function: Any) -> None:
    name = function.__qualname__
    if is_coroutine(function) or inspect.iscoroutinefunction(function.preprocess):
        raise BadInput(
            f"{name}: preprocess runs in threads, ahead of a plain __call__; in a class of coroutines await it in __call__ itself"
        )
    taken = _positional(function.__call__)
    if len(taken) != 1:
        raise BadInput(f"{name}.__call__ takes {', '.join(taken)}; it must take one value: what preprocess returns")


def _positional(function: Callable[..., Any], *, none: bool = False) -> tuple[str, ...]:
    """Names of the parameters, each of which must be given by position; `none` allows that there is none."""
    try:
        parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    except ValueError as exc:
        raise BadInput(f"{function.__qualname__} does not tell its parameters; wrap it in a function of your own") from exc
    wrong = [str(p) for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY)]
    if wrong or not (parameters or none):
        raise BadInput(f"{_owner(function)}: every input is one parameter, given by position; it has {wrong or 'none'}")
    return tuple(p.name for p in parameters)


def _owner(function: Callable[..., Any]) -> str:
    return function.__qualname__.removesuffix(".__call__")


def _is_array(annotation: Any) -> bool:
    import pyarrow as pa

    return inspect.isclass(annotation) and issubclass(annotation, pa.Array)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, AttributeError, SyntaxError, TypeError) as exc:
        raise BadInput(f"{function.__qualname__}: an annotation cannot be resolved: {exc}") from exc
