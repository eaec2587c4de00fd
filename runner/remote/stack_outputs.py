"""A standing cluster by the Pulumi stack that made it: its address is in the stack's outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import BadInput, RunnerError

if TYPE_CHECKING:
    from infra.spec import KubeRayClusterSpec


def cluster_of_stack(stack: str, folder: Path | None = None) -> tuple[KubeRayClusterSpec, str]:
    """The cluster of a stack, and the name of its RayCluster.

    Args:
        stack: as Pulumi knows it, ``dev``; of a stack with several clusters ``dev/images``.
        folder: with Pulumi.yaml. Default: the working directory.

    Raises:
        BadInput: the stack has no such output.
        RunnerError: Pulumi does not know the stack.
        infra.InfraError: no Pulumi CLI; with how to install it.
    """
    from infra.spec import KubeRayClusterSpec

    name, _, wanted = stack.partition("/")
    found = {key: value for key, value in _outputs(name, folder).items() if isinstance(value, dict) and "cluster_name" in value}
    if not found:
        raise BadInput(
            f"stack {name!r} has no cluster in its outputs; export one: pulumi.export('images', RayCluster(...).outputs), and "
            "`pulumi up`"
        )
    if wanted and wanted not in found:
        raise BadInput(f"stack {name!r} has no cluster {wanted!r}; it has {', '.join(sorted(found))}")
    if not wanted and len(found) > 1:
        raise BadInput(f"stack {name!r} has {len(found)} clusters; name one: {name}/{sorted(found)[0]}")
    outputs = found[wanted or next(iter(found))]
    spec_name = str(outputs["head_service"]).removesuffix("-head-svc")
    return KubeRayClusterSpec(name=spec_name, namespace=outputs["namespace"]), str(outputs["cluster_name"])


def _outputs(stack: str, folder: Path | None) -> dict[str, Any]:
    from runner.provision.stack import pulumi_command, said_by_pulumi

    command = pulumi_command()
    from pulumi.automation import CommandError  # there is a Pulumi

    try:
        done = command.run(["stack", "output", "--json", "--stack", stack], str(folder or Path.cwd()), {})
    except CommandError as exc:
        raise RunnerError(f"pulumi does not give the outputs of stack {stack!r}: {said_by_pulumi(str(exc))}") from exc
    return dict(json.loads(done.stdout))
