from __future__ import annotations

import copy
from operator import itemgetter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.overrides import merged

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.none() | st.integers(0, 3) | NAMES


_NAME, _PATH = itemgetter("name"), itemgetter("mountPath")


def _mappings(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    named = st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"x": values, "y": values}), max_size=3, unique_by=_NAME)
    mounts = st.lists(st.fixed_dictionaries({"mountPath": NAMES}, optional={"x": values}), max_size=3, unique_by=_PATH)
    return named | mounts | st.lists(values, max_size=2) | _mapping(values)


def _mapping(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(["x", "y", "z"]), values, max_size=3)


TREES = _mapping(st.recursive(SCALARS, _mappings, max_leaves=12))


@pytest.mark.parametrize(
    ("base", "change", "expected"),
    [
        pytest.param({"a": 1}, {}, {"a": 1}, id="nothing"),
        pytest.param({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}, id="keys"),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}, id="mappings below"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null removes"),
        pytest.param({"a": 1}, {"b": None, "c": {"d": None, "e": 1}}, {"a": 1, "c": {"e": 1}}, id="null of nothing"),
        pytest.param({"a": 1}, {"a": {"b": None, "c": [{"d": None}]}}, {"a": {"c": [{}]}}, id="null in a replacement"),
        pytest.param([1, 2], [3], [3], id="lists without names are replaced"),
        pytest.param(["a", {"name": "b"}], [{"name": "b"}], [{"name": "b"}], id="lists of which not all have names too"),
        pytest.param([{"name": "a"}, {"name": "b"}], [], [{"name": "a"}, {"name": "b"}], id="an empty list changes nothing"),
        pytest.param(
            [], [{"name": "a", "x": None}, {"name": "a", "y": 1}], [{"name": "a", "y": 1}], id="one name twice is one item"
        ),
        pytest.param(
            [{"name": "a", "v": 1, "w": 1}, {"name": "b", "v": 1}],
            [{"name": "c", "v": 3}, {"name": "a", "v": 2, "w": None}],
            [{"name": "a", "v": 2}, {"name": "b", "v": 1}, {"name": "c", "v": 3}],
            id="by name, in place, new ones last",
        ),
        pytest.param(
            [{"groupName": "cpu", "minReplicas": 1}],
            [{"groupName": "cpu", "maxReplicas": 2}],
            [{"groupName": "cpu", "minReplicas": 1, "maxReplicas": 2}],
            id="groups",
        ),
        pytest.param(
            [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}],
            [{"name": "data", "mountPath": "/c"}, {"name": "data", "mountPath": "/a", "readOnly": True}],
            [
                {"name": "data", "mountPath": "/a", "readOnly": True},
                {"name": "data", "mountPath": "/b"},
                {"name": "data", "mountPath": "/c"},
            ],
            id="mounts, which have one volume's name",
        ),
        pytest.param(
            [{"name": "gcs", "containerPort": 6379}],
            [{"containerPort": 6379, "hostPort": 1}],
            [{"name": "gcs", "containerPort": 6379, "hostPort": 1}],
            id="ports without a name",
        ),
        pytest.param(
            [{"key": "a", "effect": "NoSchedule"}],
            [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}],
            [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoExecute"}],
            id="tolerations are replaced: a key is no name",
        ),
        pytest.param({"a": [{"name": "b"}]}, {"a": "text"}, {"a": "text"}, id="another type"),
        pytest.param(
            {"containers": [{"name": "ray-head", "env": [{"name": "A", "value": "1"}]}]},
            {"containers": [{"name": "ray-head", "env": [{"name": "B", "value": "2"}]}, {"name": "sidecar"}]},
            {
                "containers": [
                    {"name": "ray-head", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                    {"name": "sidecar"},
                ]
            },
            id="names within names",
        ),
    ],
)
def test_merged(base: Any, change: Any, expected: Any) -> None:
    assert merged(base, change) == expected


@given(TREES, TREES)
def test_a_change_made_twice_is_a_change_made_once(base: dict[str, Any], change: dict[str, Any]) -> None:
    once = merged(base, change)
    assert merged(once, change) == once


@given(TREES, TREES)
def test_what_is_merged_is_not_altered_and_not_shared(base: dict[str, Any], change: dict[str, Any]) -> None:
    before = copy.deepcopy((base, change))
    result = merged(base, change)
    _spoil(result)
    assert (base, change) == before


@given(TREES, TREES)
def test_a_null_of_a_change_is_never_in_the_result(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert not list(_nulls(merged(_without_nulls(base), change)))


@given(TREES)
def test_no_change_leaves_everything(base: dict[str, Any]) -> None:
    assert merged(base, {}) == base


def _spoil(tree: Any) -> None:
    for item in list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        _spoil(item)
    if isinstance(tree, dict):
        tree["spoilt"] = True
    elif isinstance(tree, list):
        tree.append("spoilt")


def _without_nulls(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    return [_without_nulls(item) for item in tree if item is not None] if isinstance(tree, list) else tree


def _nulls(tree: Any) -> Any:
    """Values of mappings that are null."""
    if isinstance(tree, dict):
        yield from (key for key, value in tree.items() if value is None)
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []:
        yield from _nulls(item)
