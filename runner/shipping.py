"""How a function reaches a worker: by import path where it has one, otherwise as a pickle stored under its hash."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.errors import BadInput, FunctionNotLoadable
from runner.functions import UDF, as_udf

if TYPE_CHECKING:
    from runner.store import Store

METADATA_KEY = "infill:function"
VERSIONS_KEY = "infill:versions"


@dataclass(frozen=True)
class FunctionSpec:
    """What a column's metadata holds of its function: enough to plan without loading it, and to load it on a worker.

    Attributes:
        path: ``module:qualname``, where the function can be imported.
        pickle: SHA-256 of the stored pickle, where it cannot. Exactly one of the two is set.
        inputs: input columns in the order of the parameters.
        output: struct field that the column takes, or None for the whole output.
    """

    name: str
    kind: str
    version: str
    inputs: tuple[str, ...]
    path: str | None = None
    pickle: str | None = None
    output: str | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int | None = None
    batch_size: int | None = None
    on_error: str = "fail"
    timeout: float | None = None
    concurrency: int | None = None
    rate_limit: float | None = None
    retry_on: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FunctionSpec:
        raw = json.loads(text)
        return cls(**{**raw, "inputs": tuple(raw["inputs"]), "retry_on": tuple(raw.get("retry_on", ()))})


def describe(udf: UDF, inputs: tuple[str, ...], store: Store) -> FunctionSpec:
    """The spec of a function; stores its pickle where it has no import path."""
    path = import_path(udf)
    return FunctionSpec(
        name=udf.name,
        kind=udf.kind,
        version=udf.version,
        inputs=inputs,
        path=path,
        pickle=None if path else _store_pickle(udf, store),
        output=udf.output,
        num_cpus=udf.num_cpus,
        num_gpus=udf.num_gpus,
        memory=udf.memory,
        batch_size=udf.batch_size,
        on_error=str(udf.on_error),
        timeout=udf.timeout,
        concurrency=udf.concurrency,
        rate_limit=udf.rate_limit,
        retry_on=udf.retry_on,
    )


def import_path(udf: UDF) -> str | None:
    """``module:qualname`` of a function that another process can import, else None (``__main__``, a notebook, a closure)."""
    module, name = udf.func.__module__, udf.func.__qualname__
    if module == "__main__" or "<" in name or udf.init is not None:
        return None
    found = _lookup(sys.modules.get(module), name)
    return f"{module}:{name}" if _is_same(udf, found) else None


def _is_same(udf: UDF, found: Any) -> bool:
    """Whether what a worker will import is this function, declared as here."""
    if found is udf.func:
        try:
            found = as_udf(found)
        except BadInput:  # its type is said in a decorator that the module does not have
            return False
    is_udf = isinstance(found, UDF) and found.func is udf.func
    return is_udf and (found.version, found.kind, found.data_type) == (udf.version, udf.kind, udf.data_type)


def import_udf(path: str) -> UDF:
    """The function at ``module:qualname``; a plain annotated function counts as decorated by ``@udf``.

    Raises:
        BadInput: the path is not of that form, or nothing importable is there.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise BadInput(f"{path!r} is not of the form module:function, for example my_package.features:embed")
    try:
        module = importlib.import_module(module_name)
    except Exception as exc:
        raise BadInput(f"cannot import the module {module_name!r} of {path!r}: {type(exc).__name__}: {exc}") from exc
    found = _lookup(module, name)
    if found is None:
        raise BadInput(f"the module {module_name!r} ({module.__file__}) has no {name!r}")
    return as_udf(found)


def load(spec: FunctionSpec, store: Store, *, allow_pickle: bool) -> UDF:
    """The function of a spec, checked to be the version that the spec names, and to find what it imports.

    Raises:
        FunctionNotLoadable: not importable here, another version here, pickles refused, a pickle that is not what was stored, or
            one that imports what is not installed here.
    """
    udf = _load_import(spec) if spec.path else _load_pickle(spec, store, allow_pickle)
    _check_imports(udf)
    return dataclasses.replace(
        udf,
        input_columns=spec.inputs,
        output=spec.output,
        concurrency=spec.concurrency,
        rate_limit=spec.rate_limit,
        retry_on=spec.retry_on,
    )


def _check_imports(udf: UDF) -> None:
    """Name a missing package before a row is computed: with ``on_error="skip"`` every row would become NULL."""
    from runner.manifests.imports import imports_of

    missing = sorted(name for name in imports_of(udf) if importlib.util.find_spec(name) is None)
    if missing:
        raise FunctionNotLoadable(f"{udf.name} imports {_not_installed(missing)}")


def _not_installed(modules: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in modules)
    return (
        f"{', '.join(modules)}, which is not installed where it runs; give it to workers: "
        f'db.context(manifest=ManifestFactory.create_pip("NAME").pip([{listed}]).build()), or an image that has it'
    )


def _load_import(spec: FunctionSpec) -> UDF:
    assert spec.path is not None
    try:
        udf = import_udf(spec.path)
    except BadInput as exc:
        raise FunctionNotLoadable(
            f"{spec.path} cannot be loaded on a worker: {exc}. Make the module part of what workers have "
            "(the working directory, an installed package or the image)"
        ) from exc
    if udf.version != spec.version:
        raise FunctionNotLoadable(
            f"{spec.path} here is version {udf.version}, the job runs {spec.version}: this machine has another copy of the module"
        )
    return udf


def _load_pickle(spec: FunctionSpec, store: Store, allow_pickle: bool) -> UDF:
    import cloudpickle

    if not allow_pickle:
        raise FunctionNotLoadable(
            f"{spec.name} is stored as a pickle and pickles are refused (allow_pickle=False); move it to a module that "
            "workers can import"
        )
    data = store.get(_pickle_path(spec.pickle or ""))
    if data is None:
        raise FunctionNotLoadable(
            f"the stored pickle {spec.pickle} of {spec.name} is gone; give the function: backfill(..., udf=...)"
        )
    if hashlib.sha256(data).hexdigest() != spec.pickle:
        raise FunctionNotLoadable(f"the stored pickle of {spec.name} is not what was stored: its hash is not {spec.pickle}")
    try:
        loaded = cloudpickle.loads(data)
    except ModuleNotFoundError as exc:
        raise FunctionNotLoadable(f"{spec.name} imports {_not_installed([str(exc.name)])}") from exc
    except Exception as exc:
        raise FunctionNotLoadable(f"{spec.name} cannot be unpickled here: {type(exc).__name__}: {exc}") from exc
    assert isinstance(loaded, UDF)
    return loaded


def _store_pickle(udf: UDF, store: Store) -> str:
    import cloudpickle

    try:
        data = cloudpickle.dumps(dataclasses.replace(udf, output=None))
    except Exception as exc:
        raise BadInput(f"{udf.name} cannot be pickled ({exc}); move it to a module that workers can import") from exc
    digest = hashlib.sha256(data).hexdigest()
    store.put(_pickle_path(digest), data)
    return digest


def _pickle_path(digest: str) -> str:
    return f"functions/{digest}.pkl"


def _lookup(module: Any, qualname: str) -> Any:
    found = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
