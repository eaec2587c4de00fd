from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from runner.backfill.policy import ErrorPolicy
from runner.errors import BadInput
from runner.functions import UDF, as_udf, udf


@dataclass
class Stats:
    size: int
    name: str


@udf
def scalar(text: str, count: int | None, vector: npt.NDArray[np.float32]) -> float:
    return len(text) + (count or 0) + float(vector.sum())


@udf(data_type=pa.int32())
def arrow(text: pa.Array, other: pa.Array) -> pa.Array:
    return pa.array([len(text), len(other)], pa.int32())


@udf(data_type=pa.int32())
def typed_arrow(text: pa.StringArray) -> pa.Int32Array:
    return pa.array([len(text)], pa.int32())


@udf(data_type=pa.schema([("a", pa.int8()), ("b", pa.list_(pa.float32(), 2))]))
def record_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch


@udf
def stats(text: str) -> Stats:
    return Stats(len(text), text)


@udf
class Scaler:
    def __init__(self, factor: int = 1, *, offset: int = 0) -> None:
        self.factor, self.offset = factor, offset

    def __call__(self, x: int) -> int:
        return x * self.factor + self.offset


@udf(version="model-1", data_type=pa.float64())
class Labelled:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, x: pa.Array) -> pa.Array:
        return x


def shapes(made: UDF) -> tuple[Any, ...]:
    return made.kind, made.data_type, made.input_columns, made.optional


@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (scalar, ("scalar", pa.float64(), ("text", "count", "vector"), (False, True, False))),
        (arrow, ("arrow", pa.int32(), ("text", "other"), (False, False))),
        (typed_arrow, ("arrow", pa.int32(), ("text",), (False,))),
        (record_batch, ("record_batch", pa.struct([("a", pa.int8()), ("b", pa.list_(pa.float32(), 2))]), None, (True,))),
        (stats, ("scalar", pa.struct([("size", pa.int64()), ("name", pa.string())]), ("text",), (False,))),
        (Scaler, ("scalar", pa.int64(), ("x",), (False,))),
        (Labelled, ("arrow", pa.float64(), ("x",), (False,))),
    ],
)
def test_kind_types_and_inputs_follow_from_the_annotations(made: UDF, shape: tuple[Any, ...]) -> None:
    assert shapes(made) == shape


def test_a_call_of_a_decorated_function_calls_it() -> None:
    assert scalar("ab", 3, np.ones(2)) == 7.0
    assert stats.name == "stats"


def test_every_option_arrives() -> None:
    made = udf(
        data_type=pa.float32(),
        input_columns=["a", "b"],
        version="v7",
        num_cpus=0.5,
        num_gpus=0.25,
        memory=1 << 30,
        batch_size=64,
        on_error="retry:2,skip",
        timeout=1.5,
        field_metadata={"unit": "m"},
    )(lambda x, y: x + y)
    assert shapes(made) == ("scalar", pa.float32(), ("a", "b"), (False, False))
    assert (made.version, made.label, made.num_cpus, made.num_gpus, made.memory) == ("v7", "v7", 0.5, 0.25, 1 << 30)
    assert (made.batch_size, made.on_error, made.timeout) == (64, ErrorPolicy("skip", 2), 1.5)
    assert made.field_metadata == {"unit": "m"}


def test_without_options_one_cpu_is_reserved_and_the_first_failure_ends() -> None:
    assert (scalar.num_cpus, scalar.num_gpus, scalar.memory, scalar.batch_size, scalar.timeout) == (1.0, 0.0, None, None, None)
    assert (scalar.on_error, scalar.label, scalar.output, dict(scalar.field_metadata)) == (ErrorPolicy("fail"), None, None, {})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_cpus": 0}, "num_cpus=0 must be a number above 0"),
        ({"num_cpus": -1}, "num_cpus=-1"),
        ({"num_cpus": "2"}, "num_cpus='2'"),
        ({"num_cpus": True}, "num_cpus=True"),
        ({"num_gpus": -0.5}, "num_gpus=-0.5 must be a number of at least 0"),
        ({"memory": 0}, "memory=0"),
        ({"memory": 0.5}, "memory=0.5 must be a whole number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
        ({"batch_size": math.inf}, "batch_size=inf"),
        ({"batch_size": True}, "batch_size=True"),
        ({"timeout": 0}, "timeout=0"),
        ({"concurrency": 4}, "concurrency=4 is for coroutine functions (async def), which "),
        ({"rate_limit": 4.0}, "rate_limit=4.0 is for coroutine functions"),
        ({"retry_on": TimeoutError}, " retries nothing with on_error='fail'; say how often: on_error='retry:3'"),
        ({"retry_on": TimeoutError, "on_error": "skip:3"}, "retries nothing with on_error='skip:3'"),
        ({"retry_on": "Timeout", "on_error": "retry:3"}, "retry_on: 'Timeout' is not an exception"),
        ({"on_error": "skip:0"}, "on_error='skip:0': a limit is a whole number"),
        ({"timeout": math.nan}, "timeout=nan"),
        ({"on_error": "ignore"}, "on_error='ignore' is not one of"),
        ({"on_error": None}, "on_error=None"),
        ({"version": ""}, "version=''"),
        ({"version": 3}, "version=3 must be a text"),
        ({"input_columns": ["a", "b"]}, "takes 1 inputs, 2 columns were given"),
        ({"input_columns": "x"}, "input_columns='x' must be a list"),
        ({"field_metadata": {"unit": 1}}, "must map texts to texts"),
        ({"data_type": "int32"}, "no Arrow type follows"),
        ({"data_type": pa.field("x", pa.int8())}, "no Arrow type follows"),
    ],
)
def test_a_bad_value_of_an_option_is_refused_at_decoration(option: dict[str, Any], message: str) -> None:
    def function(x: int) -> int:
        return x

    with pytest.raises(BadInput) as caught:
        udf(**option)(function)
    assert message in str(caught.value)


def test_an_option_that_does_not_exist_is_refused_at_decoration() -> None:
    with pytest.raises(TypeError, match="batchsize"):
        udf(batchsize=3)  # type: ignore[call-overload]


def with_star(*x: int) -> int:
    return 1


def keyword_only(x: int, *, y: int) -> int:
    return x


def nothing() -> int:
    return 1


def mixed(x: pa.Array, y: int) -> pa.Array:
    return x


def batch_and_more(x: pa.RecordBatch, y: int) -> int:
    return y


def untyped(x: int):  # type: ignore[no-untyped-def]
    return x


def no_output(x: int) -> None: ...


def unresolved(x: int) -> Missing:  # type: ignore[name-defined]  # noqa: F821
    return x


def union(x: int | str) -> int:
    return 1


def arrow_untyped(x: pa.Array) -> pa.Array:
    return x


class NotCallable:
    pass


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (with_star, "every input is one parameter"),
        (keyword_only, r"it has \['y: int'\]|it has \[\"y: 'int'\"\]"),
        (nothing, "it has none"),
        (mixed, "annotate every parameter pa.Array, or none"),
        (batch_and_more, "takes nothing else"),
        (untyped, "say the type of its output"),
        (no_output, "say the type of its output"),
        (arrow_untyped, "say the type of its output"),
        (unresolved, "an annotation cannot be resolved: name 'Missing'"),
        (union, "union of several types"),
        (NotCallable, "every input is one parameter"),
        (scalar, "decorated with @udf twice"),
        (3, "takes a function or a class, not 3; options are given by name"),
        (functools.partial(operator.add, 1), "takes a function or a class"),
    ],
)
def test_a_function_that_cannot_compute_a_column_is_refused_in_words(function: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        udf(function)


def test_a_builtin_function_works_with_its_type_said() -> None:
    made = udf(data_type=pa.float64())(math.sqrt)
    assert (made(9.0), made.input_columns) == (3.0, ("x",))


def test_optional_of_both_spellings_takes_none() -> None:
    def function(a: Optional[int], b: str | None, c: int, d: Any) -> int:  # noqa: UP045
        return 1

    assert udf(function).optional == (True, True, False, False)


def test_a_struct_spreads_over_one_udf_for_each_field() -> None:
    outputs = stats.outputs()
    assert {name: made.column_type for name, made in outputs.items()} == {"size": pa.int64(), "name": pa.string()}
    assert {made.output for made in outputs.values()} == {"size", "name"}
    assert {made.version for made in outputs.values()} == {stats.version}
    assert stats.column_type == stats.data_type


def test_only_a_struct_spreads() -> None:
    with pytest.raises(BadInput, match="returns double; only a struct"):
        scalar.outputs()


def test_inputs_are_renamed_one_for_each_parameter() -> None:
    assert arrow.with_inputs(["a", "b"]).input_columns == ("a", "b")
    assert record_batch.with_inputs(["a", "b", "c"]).input_columns == ("a", "b", "c")
    with pytest.raises(BadInput, match=r"takes 2 inputs, 1 columns were given: \['a'\]"):
        arrow.with_inputs(["a"])


def test_a_class_keeps_its_arguments_and_every_instance_is_new() -> None:
    made = Scaler(3, offset=1)
    assert isinstance(made, UDF)
    assert made.instance()(2) == 7
    assert made.instance() is not made.instance()
    assert Scaler.instance()(2) == 2


def test_the_arguments_of_a_class_are_part_of_the_version() -> None:
    assert Scaler(3).version == Scaler(3).version
    assert len({Scaler.version, Scaler(3).version, Scaler(4).version, Scaler(3, offset=1).version}) == 4
    assert Labelled("a").version == Labelled("b").version == "model-1"


def test_the_declared_type_is_part_of_the_version_and_resources_are_not() -> None:
    def function(x: int) -> int:
        return x

    versions = {udf(data_type=kind)(function).version for kind in (pa.int32(), pa.int64())}
    assert len(versions) == 2
    assert udf(num_cpus=2, batch_size=5, on_error="skip")(function).version == udf(function).version


def test_as_udf_takes_a_udf_as_it_is_and_decorates_a_function() -> None:
    assert as_udf(scalar) is scalar
    assert shapes(as_udf(nothing_but_length)) == ("scalar", pa.int64(), ("text",), (False,))


def nothing_but_length(text: str) -> int:
    return len(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_limit": 0}, "rate_limit=0 must be a number above 0"),
        ({"rate_limit": -1.5}, "rate_limit=-1.5"),
        ({"rate_limit": math.nan}, "rate_limit=nan"),
        ({"rate_limit": "10/s"}, "rate_limit='10/s'"),
        ({"concurrency": 0}, "concurrency=0 must be a whole number above 0"),
        ({"concurrency": 2.5}, "concurrency=2.5"),
        ({"concurrency": True}, "concurrency=True"),
    ],
)
def test_limits_of_coroutines_must_be_positive(options: dict[str, Any], message: str) -> None:
    async def function(x: int) -> int:
        return x

    with pytest.raises(BadInput, match=message):
        udf(**options)(function)


def test_the_options_of_a_coroutine_arrive() -> None:
    @udf(concurrency=50, rate_limit=100, on_error="retry:3,skip:1%", retry_on=(TimeoutError, "json.JSONDecodeError"))
    async def function(x: int) -> str:
        return str(x)

    assert (function.is_coroutine, function.kind, function.data_type) == (True, "scalar", pa.string())
    assert (function.concurrency, function.rate_limit) == (50, 100.0)
    assert function.retry_on == ("TimeoutError", "json:JSONDecodeError")
    assert function.on_error == ErrorPolicy("skip", 3, "1%")
    assert (scalar.is_coroutine, scalar.prepares, Scaler.is_coroutine, Scaler.prepares) == (False,) * 4
