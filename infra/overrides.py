"""Merge what a user overrides into a rendered resource.

Kubernetes has no strategic merge for custom resources, so this is made before submission: mappings are merged, null removes
a key, and a list whose items have names is merged by name; any other list is replaced.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

# What an item of a list is known by, in the order tried. Not `key`: two tolerations of one key are two tolerations.
_KEYS = ("mountPath", "name", "groupName", "containerPort", "topologyKey")


def merged(base: Any, change: Any) -> Any:
    """`base` with `change` on top; neither is altered.

    >>> merged({"containers": [{"name": "ray-worker", "image": "a"}]}, {"containers": [{"name": "ray-worker", "tty": True}]})
    {'containers': [{'name': 'ray-worker', 'image': 'a', 'tty': True}]}
    """
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        result = {key: copy.deepcopy(value) for key, value in base.items() if change.get(key, ...) is not None}
        for key, value in change.items():
            if value is not None:
                result[key] = merged(result[key], value) if key in result else _without_nulls(value)
        return result
    if isinstance(base, list) and isinstance(change, list) and (key := _key_of(base, change)):
        return _merged_by(key, base, change)
    return _without_nulls(change)


def _key_of(base: list[Any], change: list[Any]) -> str | None:
    items = [*base, *change]
    if not all(isinstance(item, Mapping) for item in items):
        return None
    return next((key for key in _KEYS if all(key in item for item in items)), None)


def _merged_by(key: str, base: list[Any], change: list[Any]) -> list[Any]:
    result = [copy.deepcopy(item) for item in base]
    places = {item[key]: place for place, item in enumerate(result)}
    for item in change:
        if item[key] in places:
            result[places[item[key]]] = merged(result[places[item[key]]], item)
        else:
            places[item[key]] = len(result)
            result.append(_without_nulls(item))
    return result


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return copy.deepcopy(value)
