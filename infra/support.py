"""What a RayCluster asks of KubeRay: the version, and the feature gate where the field is behind one that is off by default."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.errors import BadSpec


@dataclass(frozen=True)
class Requirement:
    """A field of the RayCluster and what it needs.

    Attributes:
        path: dotted, below ``spec``; ``[]`` is each item of a list. A value may be asked for: ``...backend=rocksdb``.
        since: KubeRay's version that has the field.
        gate: feature gate that must be on.
    """

    path: str
    since: str
    gate: str | None = None


# From the types of KubeRay's releases 1.3.0 to 1.7.0, and pkg/features/features.go of 1.7.0.
MATRIX = (
    Requirement("gcsFaultToleranceOptions", "1.3.0"),
    Requirement("workerGroupSpecs[].idleTimeoutSeconds", "1.3.0"),
    Requirement("autoscalerOptions.version", "1.4.0"),
    Requirement("headGroupSpec.labels", "1.5.0"),
    Requirement("workerGroupSpecs[].labels", "1.5.0"),
    Requirement("authOptions", "1.5.1"),
    Requirement("upgradeStrategy", "1.6.0"),
    Requirement("workerGroupSpecs[].priority", "1.7.0"),
    Requirement("headGroupSpec.ingressOptions", "1.7.0"),
    Requirement("networkPolicy", "1.7.0", "RayClusterNetworkPolicy"),
    Requirement("tlsOptions", "1.7.0", "RayClusterMTLS"),
    Requirement("historyServerOptions", "1.7.0", "RayClusterHistoryServer"),
    Requirement("gcsFaultToleranceOptions.backend=rocksdb", "1.7.0", "GCSFaultToleranceEmbeddedStorage"),
)


@dataclass(frozen=True)
class Operator:
    """The KubeRay that runs.

    Attributes:
        version: None where it is not known.
        gates: feature gates that are on; None where they are not known.
    """

    version: str | None = None
    gates: frozenset[str] | None = None


def requirements(body: Mapping[str, Any]) -> list[Requirement]:
    """What a RayCluster asks for, of `MATRIX`."""
    return [needed for needed in MATRIX if _asks(body["spec"], needed.path)]


def check_supported(body: Mapping[str, Any], operator: Operator) -> None:
    """Refuse what the operator that runs does not have. What is not known of it is left to KubeRay, which refuses by an event.

    Raises:
        BadSpec: with every field, and the version or gate it needs.
    """
    name, problems = body["metadata"]["name"], []
    for needed in requirements(body):
        if operator.version and _is_before(operator.version, needed.since):
            problems.append(
                f"spec.{needed.path} needs KubeRay {needed.since}, and {operator.version} runs; upgrade it, or drop the field"
            )
        elif needed.gate and operator.gates is not None and needed.gate not in operator.gates:
            problems.append(
                f"spec.{needed.path} needs KubeRay's feature gate {needed.gate}, which is off; "
                f"turn it on (Helm: featureGates), or drop the field"
            )
    if problems:
        raise BadSpec("\n".join(f"cluster {name!r}: {problem}" for problem in problems))


JOBS_SINCE = "1.7.0"
"""KubeRay's version that has all that a declared backfill asks for, preRunningDeadlineSeconds last of all."""
CRON_GATE = "RayCronJob"


def check_jobs_supported(name: str, operator: Operator) -> None:
    """Refuse a declared backfill where the operator that runs is too old for it.

    Raises:
        BadSpec: with the version that it needs.
    """
    if operator.version and _is_before(operator.version, JOBS_SINCE):
        raise BadSpec(f"backfill {name!r} needs KubeRay {JOBS_SINCE}, and {operator.version} runs; upgrade it")


def schedule_kind(operator: Operator) -> Literal["RayCronJob", "CronJob"]:
    """What makes the runs of a schedule: KubeRay's own resource where its gate is known to be on, else Kubernetes' own."""
    return "RayCronJob" if operator.gates is not None and CRON_GATE in operator.gates else "CronJob"


def operator_of(deployments: Iterable[Mapping[str, Any]]) -> Operator:
    """The operator that Helm's Deployment runs, from its image's tag and its arguments."""
    for deployment in deployments:
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            tag = container.get("image", "").partition("@")[0].rpartition(":")[2].removeprefix("v")
            words = [*container.get("command", []), *container.get("args", [])]
            return Operator(tag if tag[:1].isdigit() and _numbers(tag) else None, _gates(words))
    return Operator()


def _gates(words: Iterable[str]) -> frozenset[str]:
    given = re.findall(r"(?<!\S)--?feature-gates[= ](\S+)", " ".join(words))
    pairs = [pair.partition("=") for gates in given for pair in gates.split(",")]
    return frozenset(name for name, _, value in pairs if value.lower() == "true")


def _asks(part: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    key, _, value = head.partition("=")
    if key.endswith("[]"):
        return any(_asks(item, rest) for item in part.get(key[:-2]) or [])
    if not isinstance(part, Mapping) or part.get(key) in (None, {}):
        return False
    return _asks(part[key], rest) if rest else (not value or part[key] == value)


def _is_before(version: str, since: str) -> bool:
    """Whether it is older; 1.7 is any 1.7."""
    running = _numbers(version)
    return running < _numbers(since)[: len(running)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("-")[0].split(".")[:3] if part.isdigit())
