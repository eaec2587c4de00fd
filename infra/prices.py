"""`PriceTable`: what nodes, CPUs, memory and accelerators cost an hour. A file that its users fill in; see `stacks/prices.yaml`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from infra.errors import BadSpec
from infra.files import read_yaml
from infra.groups import Group
from infra.model import Bytes, Count, Labels, Model, Quantity

INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
# Labels whose value is the model of a node's accelerator: NVIDIA's feature discovery, GKE, Karpenter.
ACCELERATOR_LABELS = ("nvidia.com/gpu.product", "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name")
USUAL_FILES = ("prices.yaml", "stacks/prices.yaml")

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class NodePrice(Model):
    """What a node of one type costs. A pod pays the largest of its shares in the node's CPUs, memory and accelerators."""

    per_hour: Price
    labels: Labels = Field(default_factory=dict)
    """Labels that such a node has; a group whose node selector asks for all of them is on one. Default: the instance type's."""
    cpus: Quantity | None = None
    """What pods can have of the node. Default: a pod has the node to itself."""
    memory: Bytes | None = None
    gpus: Count = 0

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.cpus is None) != (self.memory is None):
            missing, given = ("memory", "cpus") if self.memory is None else ("cpus", "memory")
            raise ValueError(f"{missing}: {given} is given, so a pod's share of the node needs it too; give both or neither")
        if self.gpus and self.cpus is None:
            raise ValueError("gpus: a share of the node needs cpus and memory too; give them, or drop gpus")
        return self


class PriceTable(Model):
    """Prices per hour, in one currency."""

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    """ISO 4217."""
    source: str = Field(min_length=1)
    """Where the prices are from; printed with every cost."""
    date: dt.date | None = None
    """When they were true."""
    node_types: dict[str, NodePrice] = Field(default_factory=dict)
    """By instance type, or by any name where `labels` are given. The type with the most labels that fit a group is its type."""
    per_cpu: Price | None = None
    """Of one CPU, where no node type fits."""
    per_gib: Price | None = None
    """Of one GiB of memory, where no node type fits."""
    per_gpu: dict[str, Price] = Field(default_factory=dict)
    """Of one accelerator, where no node type fits: by its model as a node label says it, or by its resource name."""

    def labels_of(self, node_type: str) -> dict[str, str]:
        """The labels of a node of a type."""
        return dict(self.node_types[node_type].labels) or {INSTANCE_TYPE_LABEL: node_type}

    def node_type_of(self, group: Group, where: str) -> str | None:
        """The node type that a group's pods are on, None where its node selector asks for none.

        Args:
            where: what to call the group in a message.

        Raises:
            BadSpec: the selector names an instance type that is not in the table, or two types fit alike.
        """
        selector = {"kubernetes.io/arch": group.arch, **group.node_selector}
        fitting = {name: len(labels) for name in self.node_types if (labels := self.labels_of(name)).items() <= selector.items()}
        best = [name for name, count in fitting.items() if count == max(fitting.values())]
        instance = group.node_selector.get(INSTANCE_TYPE_LABEL)
        if instance is not None and INSTANCE_TYPE_LABEL not in {label for name in best for label in self.labels_of(name)}:
            raise BadSpec(
                f"prices: node_types: {instance!r} is not in it, and {where}.node_selector asks for it; "
                f"add node_types: {{{instance}: {{per_hour: ...}}}}"
            )
        if len(best) > 1:
            raise BadSpec(
                f"prices: node_types: {best[0]!r} and {best[1]!r} fit {where} alike; give one of them more labels, or the group a "
                "node_selector with the labels of one"
            )
        return best[0] if best else None

    def gpu_price(self, group: Group, where: str) -> float:
        """Of one accelerator of a group.

        Raises:
            BadSpec: neither its model nor its resource is in the table.
        """
        model = next((group.node_selector[label] for label in ACCELERATOR_LABELS if label in group.node_selector), None)
        key = model or group.gpu_resource
        if key not in self.per_gpu:
            raise BadSpec(
                f"prices: per_gpu: {key!r} is not in it, and {where} has {group.gpus} of it; add per_gpu: {{{key}: ...}}, "
                "or its node type under node_types"
            )
        return self.per_gpu[key]


def find_prices(file: str | Path | None = None) -> PriceTable | None:
    """The table of a file; of ``prices.yaml`` or ``stacks/prices.yaml`` here where none is named; None where neither is there.

    Raises:
        BadSpec: the file is named and missing, or wrong.
    """
    if file is not None:
        return read_prices(file)
    found = next((Path(name) for name in USUAL_FILES if Path(name).is_file()), None)
    return read_prices(found) if found else None


def read_prices(path: str | Path) -> PriceTable:
    """The price table that a YAML file holds.

    Raises:
        BadSpec: no such file, no YAML, or a wrong table; with file, field and remedy.
    """
    return PriceTable.parse(read_yaml(path), str(path))


def json_schema() -> dict[str, Any]:
    """JSON Schema of a price table's file, for editors and CI."""
    schema = PriceTable.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "PriceTable", **schema}
