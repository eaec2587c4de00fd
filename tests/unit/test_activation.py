"""What a worker's process is given: variables, of the client's and of the node's own environment."""

from __future__ import annotations

import os

import pytest

from runner.environments.activation import activate
from runner.errors import EnvironmentFailed


def test_variables_are_the_client_s_and_those_of_the_node_by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_NODE", "n1")
    for name in ("PLAIN", "SECRET"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
    activate({"env": {"PLAIN": "p"}, "references": {"SECRET": "a-${env:OF_NODE}"}})
    assert (os.environ["PLAIN"], os.environ["SECRET"]) == ("p", "a-n1")


def test_variables_that_the_node_lacks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH", raising=False)
    with pytest.raises(EnvironmentFailed, match=r"^NO_SUCH: not set on the worker's node, and .*env of its groups"):
        activate({"references": {"SECRET": "${env:NO_SUCH}"}})
