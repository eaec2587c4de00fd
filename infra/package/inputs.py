"""What a program in another language gives the component: plain values only, as the component host asks (no unions, no models).

The annotations are read at run time: no `from __future__ import annotations` here.
"""

from collections.abc import Mapping
from typing import Any, TypedDict


class GroupInputs(TypedDict, total=False):
    """The head, or a group of workers."""

    name: str
    """Of a group of workers. Default: cpu or gpu."""
    image: str
    """Default: Ray's image for the cluster's Ray and Python version."""
    cpus: str
    """CPU limit of a pod: "2", "500m". Default 4; 8 with GPUs."""
    memory: str
    """Memory limit of a pod: "8Gi". Default 8Gi; 16Gi with GPUs."""
    gpus: int
    """Accelerators of a pod."""
    service_account: str
    """Default: the namespace's."""
    node_selector: dict[str, str]
    env: dict[str, str]
    """Plain values, and `${env:NAME}` of whoever runs Pulumi."""
    replicas: int
    """Number of workers of a cluster without autoscaler."""
    min_replicas: int
    max_replicas: int
    options: dict[str, Any]
    """Any other field of a group in a cluster's YAML file, by its name there."""


class RayClusterInputs(TypedDict, total=False):
    """A cluster."""

    name: str
    """Lowercase letters, digits and '-', at most 50 characters."""
    namespace: str
    """Default: default."""
    ray_version: str
    """Default: that of the Python that hosts the component."""
    python_version: str
    """For default images. Default: that of the Python that hosts the component."""
    head_group: GroupInputs
    worker_groups: list[GroupInputs]
    options: dict[str, Any]
    """Any other field of a cluster's YAML file, by its name there."""
    wait: bool
    """Look at the running cluster before a change, and wait until it serves. Default true."""
    force: bool
    """Make a change that ends pods even while jobs run."""


def spec_data(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs in the form of a cluster's YAML file."""
    data = _with_options({key: value for key, value in inputs.items() if key not in ("wait", "force")})
    if "head_group" in data:
        data["head_group"] = _with_options(data["head_group"])
    if "worker_groups" in data:
        data["worker_groups"] = [_with_options(group) for group in data["worker_groups"]]
    return data


def _with_options(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers arrive as floats: Pulumi has one type for them."""
    given = {key: int(value) if isinstance(value, float) else value for key, value in inputs.items() if key != "options"}
    return {**given, **inputs.get("options", {})}
