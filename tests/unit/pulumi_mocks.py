"""Run a Pulumi program against Pulumi's mocks, and see all that it registers as plain values."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from pulumi.runtime import mocks
from pulumi.runtime.config import set_all_config
from pulumi.runtime.settings import configure, set_root_resource
from pulumi.runtime.stack import run_in_stack

PROJECT = "infill"
STACK = "test"

# https://github.com/pulumi/pulumi, sdk/python/lib/pulumi/runtime/rpc.py
_KIND = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
UNKNOWN = "<unknown>"


@dataclass(frozen=True)
class Registered:
    """One resource as the engine is asked for it.

    Attributes:
        inputs: plain values; what is secret is in `secrets` and not here.
        secrets: the secret inputs, revealed, by dotted path.
        request: the engine's own form.
    """

    urn: str
    inputs: dict[str, Any]
    secrets: dict[str, Any]
    request: Any

    @property
    def type(self) -> str:
        return str(self.request.type)

    @property
    def name(self) -> str:
        return str(self.request.name)

    @property
    def key(self) -> str:
        return key_of(self.urn)

    @property
    def parent(self) -> str:
        return key_of(self.request.parent)

    @property
    def provider(self) -> str:
        """Key of the provider; empty for the ambient one."""
        return key_of(self.request.provider.rpartition("::")[0]) if self.request.provider else ""

    @property
    def depends_on(self) -> set[str]:
        return {key_of(urn) for urn in self.request.dependencies}

    @property
    def metadata(self) -> dict[str, Any]:
        return dict(self.inputs["metadata"])


@dataclass
class Ran:
    """What a program did.

    Attributes:
        resources: by `key_of` their URN, in the order of their registration.
        outputs: registered outputs of components, by the same key.
        exports: of the stack.
        error: what the program raised.
        said: what it logged, with its level.
    """

    resources: dict[str, Registered] = field(default_factory=dict)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    exports: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    said: list[tuple[str, str]] = field(default_factory=list)

    def ok(self) -> Ran:
        if self.error is not None:
            raise self.error
        return self

    def failed(self, kind: type[BaseException]) -> str:
        """The text of the error that ended it."""
        assert isinstance(self.error, kind), f"ended with {self.error!r}"
        return str(self.error)

    def __getitem__(self, key: str) -> Registered:
        return self.resources[key]

    def everything_in_clear(self) -> str:
        """All inputs and outputs that the state would hold as plain text."""
        return json.dumps([[item.inputs for item in self.resources.values()], self.outputs, self.exports])


def run_program(
    program: Callable[[], object], *, stack: str = STACK, config: Mapping[str, Any] | None = None, preview: bool = False
) -> Ran:
    """Run `program` as `pulumi up` does.

    Args:
        config: as in Pulumi.<stack>.yaml; what is no text is handed over as Pulumi does, as JSON.
        preview: as `pulumi preview` does: what a provider would say is not known.
    """
    # Pulumi keeps all that is global in context variables: a context of its own keeps programs apart.
    ran = contextvars.copy_context().run(_run, program, stack, config or {}, preview)
    if ran.error is not None:
        # Outputs whose error nobody asked for tell of it, with a traceback, when they are collected. CPython 3.11 does not take
        # that in the middle of an ast.parse, such as another test's: https://github.com/python/cpython/issues/106905
        gc.collect()
    return ran


def key_of(urn: str) -> str:
    """``RayCluster dev`` of a URN, and ``infill:RayCluster dev`` of that of a component; `Registered.type` has the whole type."""
    if not urn:
        return ""
    _, _, qualified, name = urn.split("::", 3)
    kind = qualified.rpartition("$")[2]
    return f"{'infill:' if kind.startswith('infill:') else ''}{kind.rpartition(':')[2]} {name}"


def _run(program: Callable[[], object], stack: str, config: Mapping[str, Any], preview: bool) -> Ran:
    ran = Ran()
    logger = logging.getLogger(f"{__name__}.{id(ran)}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(_Collect(ran.said))
    monitor = _Monitor(ran, preview)
    configure(
        mocks.MockSettings(  # type: ignore[no-untyped-call]
            monitor=monitor,
            engine=mocks.MockEngine(logger),
            project=PROJECT,
            stack=stack,
            dry_run=preview,
            outputs=set(),
            lock=threading.Lock(),
        )
    )
    set_root_resource(None)  # type: ignore[arg-type]
    set_all_config({key: _as_text(value) for key, value in config.items()})

    def quiet() -> None:
        program()

    try:
        asyncio.run(run_in_stack(quiet))
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            raise
        ran.error = exc
    return ran


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class _Collect(logging.Handler):
    def __init__(self, said: list[tuple[str, str]]) -> None:
        super().__init__()
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append((record.levelname, record.getMessage()))


class _Echo(mocks.Mocks):
    """A provider whose resources are what was asked for."""

    def __init__(self, preview: bool) -> None:
        self._preview = preview

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        metadata = args.inputs.get("metadata") or {}
        place = "/".join(part for part in (metadata.get("namespace"), metadata.get("name", args.name)) if part)
        unknown = self._preview or not args.custom
        return ("" if unknown else place), dict(args.inputs)

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return {}, None


class _Monitor(mocks.MockMonitor):
    def __init__(self, ran: Ran, preview: bool) -> None:
        super().__init__(_Echo(preview))
        self._ran = ran
        self._one_at_a_time = threading.Lock()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        with _loop_of_thread():
            answer = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type != "pulumi:pulumi:Stack":
            secrets: dict[str, Any] = {}
            inputs = _plain(MessageToDict(request.object), "", secrets)
            with self._one_at_a_time:
                assert key_of(answer.urn) not in self._ran.resources
                self._ran.resources[key_of(answer.urn)] = Registered(answer.urn, inputs, secrets, request)
        return answer

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        outputs = _plain(MessageToDict(request.outputs), "", {})
        with self._one_at_a_time:
            if key_of(request.urn).startswith("Stack "):
                self._ran.exports.update(outputs)
            else:
                self._ran.outputs[key_of(request.urn)] = outputs
        return super().RegisterResourceOutputs(request)  # type: ignore[no-untyped-call]


@contextmanager
def _loop_of_thread() -> Iterator[None]:
    """The mocks are called in threads, make an event loop in each, and leave it open."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        yield
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _plain(value: Any, path: str, secrets: dict[str, Any]) -> Any:
    """A value of the wire, with its secrets taken out."""
    if isinstance(value, dict):
        if value.get(_KIND) == _SECRET:
            secrets[path] = _plain(value["value"], path, {})
            return "<secret>"
        return {key: _plain(item, f"{path}.{key}".lstrip("."), secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, f"{path}[{number}]", secrets) for number, item in enumerate(value)]
    return UNKNOWN if value == _UNKNOWN else value
