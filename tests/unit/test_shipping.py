from __future__ import annotations

import dataclasses
import hashlib
import sys
import threading
from pathlib import Path

import cloudpickle
import pyarrow as pa
import pytest

from runner import shipping
from runner.errors import BadInput, FunctionNotLoadable
from runner.functions import UDF, udf
from runner.shipping import FunctionSpec
from runner.store import Store
from tests.unit.conftest import LoadModule

HERE = __name__


@udf(num_cpus=2, num_gpus=0.5, memory=1024, batch_size=32, on_error="retry:2,skip", timeout=3)
def decorated(text: str) -> int:
    return len(text)


def plain(text: str) -> int:
    return len(text) + 1


def without_types(x):  # type: ignore[no-untyped-def]
    return x


@udf
class Adder:
    def __init__(self, amount: int = 1) -> None:
        self.amount = amount

    def __call__(self, x: int) -> int:
        return x + self.amount


class Outer:
    @staticmethod
    @udf
    def inner(x: int) -> int:
        return -x


def closure(amount: int) -> UDF:
    @udf
    def add(x: int) -> int:
        return x + amount

    return add


def shipped(made: UDF, store: Store) -> tuple[FunctionSpec, UDF]:
    spec = shipping.describe(made, made.input_columns or (), store)
    return spec, shipping.load(FunctionSpec.from_json(spec.to_json()), store, allow_pickle=True)


@pytest.mark.parametrize(
    ("made", "path"),
    [
        (decorated, f"{HERE}:decorated"),
        (udf(plain), f"{HERE}:plain"),
        (Adder, f"{HERE}:Adder"),
        (Outer.inner, f"{HERE}:Outer.inner"),
        (Adder(2), None),
        (closure(1), None),
        (udf(data_type=pa.int8())(lambda x: x), None),
        (udf(data_type=pa.int32())(plain), None),
        (udf(version="v1")(plain), None),
        (udf(data_type=pa.int8())(without_types), None),
    ],
)
def test_a_path_is_given_only_where_importing_it_gives_the_same_function(made: UDF, path: str | None) -> None:
    assert shipping.import_path(made) == path


def test_a_function_of_main_has_no_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: int) -> int:
        return x

    function.__module__, function.__qualname__ = "__main__", "function"
    monkeypatch.setattr(sys.modules["__main__"], "function", function, raising=False)
    assert shipping.import_path(udf(function)) is None


def test_a_spec_holds_what_planning_needs_and_survives_json(store: Store) -> None:
    spec = shipping.describe(decorated, ("body",), store)
    assert spec == FunctionSpec(
        name="decorated",
        kind="scalar",
        version=decorated.version,
        inputs=("body",),
        path=f"{HERE}:decorated",
        num_cpus=2.0,
        num_gpus=0.5,
        memory=1024,
        batch_size=32,
        on_error="retry:2,skip",
        timeout=3.0,
    )
    assert FunctionSpec.from_json(spec.to_json()) == spec
    assert list(store.objects("functions")) == []


@udf(concurrency=50, rate_limit=100, on_error="retry:3,skip:1%", retry_on=(TimeoutError, OSError))
async def asking(text: str) -> str:
    return text


def test_the_limits_of_a_coroutine_are_in_its_spec_and_win_over_the_module_s(store: Store) -> None:
    spec = shipping.describe(asking, ("text",), store)
    assert (spec.concurrency, spec.rate_limit, spec.retry_on) == (50, 100.0, ("TimeoutError", "OSError"))
    assert spec.on_error == "retry:3,skip:1%"
    assert FunctionSpec.from_json(spec.to_json()) == spec
    slower = dataclasses.replace(spec, rate_limit=1.0, concurrency=2, retry_on=("ValueError",))
    loaded = shipping.load(slower, store, allow_pickle=False)
    assert (loaded.rate_limit, loaded.concurrency, loaded.retry_on) == (1.0, 2, ("ValueError",))


def test_a_spec_of_before_there_were_these_options_is_read() -> None:
    text = '{"name": "f", "kind": "scalar", "version": "1", "inputs": ["x"], "path": "m:f"}'
    assert FunctionSpec.from_json(text) == FunctionSpec("f", "scalar", "1", ("x",), path="m:f")


@pytest.mark.parametrize(
    ("made", "argument", "value"),
    [
        (decorated, "abc", 3),
        (udf(plain), "abc", 4),
        (Adder, 1, 2),
        (Adder(10), 1, 11),
        (closure(5), 1, 6),
        (Outer.inner, 4, -4),
        (udf(data_type=pa.int8())(lambda x: x * 2), 4, 8),
        (udf(data_type=pa.int8())(without_types), 4, 4),
    ],
)
def test_what_arrives_computes_the_same(made: UDF, argument: object, value: int, store: Store) -> None:
    spec, arrived = shipped(made, store)
    assert (spec.path is None) != (spec.pickle is None)
    assert arrived.instance()(argument) == value
    assert (arrived.version, arrived.data_type, arrived.kind) == (made.version, made.data_type, made.kind)


def test_what_arrives_takes_the_columns_inputs_and_output(store: Store) -> None:
    @udf(data_type=pa.schema([("a", pa.int8()), ("b", pa.int16())]))
    def both(x: int) -> dict[str, int]:
        return {"a": x, "b": x}

    spec = shipping.describe(both.outputs()["b"], ("n",), store)
    arrived = shipping.load(spec, store, allow_pickle=True)
    assert (arrived.input_columns, arrived.output, arrived.column_type) == (("n",), "b", pa.int16())


def test_outputs_of_one_function_share_one_pickle(store: Store) -> None:
    @udf(data_type=pa.schema([("a", pa.int8()), ("b", pa.int16())]))
    def both(x: int) -> dict[str, int]:
        return {"a": x, "b": x}

    specs = [shipping.describe(made, ("x",), store) for made in both.outputs().values()]
    assert len({spec.pickle for spec in specs}) == 1
    assert [path for path, _ in store.objects("functions")] == [f"functions/{specs[0].pickle}.pkl"]


def test_a_pickle_is_stored_under_the_hash_of_its_bytes(store: Store) -> None:
    spec, _ = shipped(closure(1), store)
    data = store.get(f"functions/{spec.pickle}.pkl")
    assert data is not None
    assert hashlib.sha256(data).hexdigest() == spec.pickle


def test_a_changed_pickle_is_not_loaded(store: Store) -> None:
    spec, _ = shipped(closure(1), store)
    ran: list[int] = []

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[int]]:
            return ran.append, (1,)

    store.put(f"functions/{spec.pickle}.pkl", cloudpickle.dumps(Harm()))
    with pytest.raises(FunctionNotLoadable, match=f"its hash is not {spec.pickle}"):
        shipping.load(spec, store, allow_pickle=True)
    assert ran == []


def test_refused_pickles_are_not_loaded_and_the_remedy_is_named(store: Store) -> None:
    spec, _ = shipped(closure(1), store)
    with pytest.raises(FunctionNotLoadable, match=r"pickles are refused \(allow_pickle=False\); move it to a module"):
        shipping.load(spec, store, allow_pickle=False)


def test_refusing_pickles_leaves_import_paths_alone(store: Store) -> None:
    spec = shipping.describe(decorated, ("text",), store)
    assert shipping.load(spec, store, allow_pickle=False)("abcd") == 4


def test_a_pickle_that_is_gone_is_told(store: Store) -> None:
    spec, _ = shipped(closure(1), store)
    store.delete([f"functions/{spec.pickle}.pkl"])
    with pytest.raises(FunctionNotLoadable, match=r"is gone; give the function: backfill\(\.\.\., udf=\.\.\.\)"):
        shipping.load(spec, store, allow_pickle=True)


def test_bytes_that_are_no_pickle_are_told(store: Store) -> None:
    digest = hashlib.sha256(b"nonsense").hexdigest()
    store.put(f"functions/{digest}.pkl", b"nonsense")
    spec = FunctionSpec("f", "scalar", "v", ("x",), pickle=digest)
    with pytest.raises(FunctionNotLoadable, match="f cannot be unpickled here: UnpicklingError"):
        shipping.load(spec, store, allow_pickle=True)


def test_another_version_of_the_module_is_refused(store: Store, load_module: LoadModule) -> None:
    source = "from runner.functions import udf\n@udf\ndef f(x: int) -> int:\n    return x + 1\n"
    spec = shipping.describe(load_module(source, "shipped_module").f, ("x",), store)
    assert spec.path == "shipped_module:f"
    newer = load_module(source.replace("+ 1", "+ 2"), "shipped_module").f
    with pytest.raises(FunctionNotLoadable) as caught:
        shipping.load(spec, store, allow_pickle=True)
    assert spec.version in str(caught.value)
    assert newer.version in str(caught.value)


def test_a_module_that_workers_do_not_have_is_told(store: Store) -> None:
    spec = dataclasses.replace(shipping.describe(decorated, ("text",), store), path="no_such_module:f")
    with pytest.raises(
        FunctionNotLoadable, match=r"cannot import the module 'no_such_module'.*Make the module part of what workers have"
    ):
        shipping.load(spec, store, allow_pickle=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("decorated", "not of the form module:function"),
        (":f", "not of the form"),
        ("os:", "not of the form"),
        ("no.such.module:f", "cannot import the module 'no.such.module'"),
        ("os.path:no_such_function", "has no 'no_such_function'"),
        ("os:sep", "takes a function or a class"),
        ("os:path", "takes a function or a class"),
    ],
)
def test_a_path_that_names_no_function_is_refused(path: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        shipping.import_udf(path)


def test_a_module_that_raises_is_told_with_its_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no licence')\n")
    with pytest.raises(BadInput, match="RuntimeError: no licence"):
        shipping.import_udf("broken_module:f")


def test_what_cannot_be_pickled_is_refused_when_the_column_is_made(store: Store) -> None:
    lock = threading.Lock()

    @udf
    def locked(x: int) -> int:
        with lock:
            return x

    with pytest.raises(BadInput, match=r"cannot be pickled .*move it to a module"):
        shipping.describe(locked, ("x",), store)
    assert list(store.objects("functions")) == []
