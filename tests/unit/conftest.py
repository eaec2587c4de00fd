from __future__ import annotations

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from infra.kube import Kubernetes
from runner.store import Store
from tests.unit.fake_kubernetes import FakeKubernetes, serve

LoadModule = Callable[..., ModuleType]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "db"))


@pytest.fixture
def load_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadModule:
    """Import a source text as a module of a name, each time from a file of its own."""
    numbers = itertools.count()

    def load(source: str, name: str = "user_module") -> ModuleType:
        path = tmp_path / f"sources{next(numbers)}" / f"{name.rpartition('.')[2]}.py"
        path.parent.mkdir()
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    """An API server that answers as it is told."""
    made, server = serve()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def kube(fake: FakeKubernetes, tmp_path: Path) -> Kubernetes:
    return fake.connect(tmp_path)
