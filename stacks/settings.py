"""A stack's config: `infill:...` in Pulumi.<stack>.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from infra import K8sConfigMethod
from infra.model import Model
from infra.parts import AwsConfig

NAMESPACE = "infill"


class OperatorSettings(Model):
    """KubeRay's operator, where the stack makes it."""

    version: str = "1.7.0"
    namespace: str = "kuberay-system"
    feature_gates: dict[str, bool] = Field(default_factory=dict)
    values: dict[str, Any] = Field(default_factory=dict)
    chart: str | None = None
    """Folder or archive of the chart. Default: the release's, from KubeRay's Helm repository."""
    definitions: str | None = None
    """Folder of the definitions. Default: the release's, from GitHub."""


class AccessSettings(Model):
    """Namespace and service account of job runners, where the stack makes them."""

    create_namespace: bool = True
    service_account: str = "infill-runner"
    eks_role: str | None = None
    gke_service_account: str | None = None
    azure_client_id: str | None = None


class Settings(Model):
    """All that a stack may set; each key as ``infill:<key>``."""

    clusters: list[str] | None = None
    """Names of the clusters to make. Default: all files of the folder."""
    backfills: list[str] | None = None
    """Names of the backfills to declare. Default: all files of the folder."""
    schedules: Literal["RayCronJob", "CronJob"] | None = None
    """What makes scheduled runs. Default: RayCronJob where KubeRay is known to have its feature gate on, else CronJob."""
    namespace: str | None = None
    """Default: each cluster's own."""
    config_method: K8sConfigMethod | None = None
    """Default: each cluster's own."""
    kubeconfig: str | None = None
    context: str | None = None
    aws_config: AwsConfig | None = None
    operator: OperatorSettings | bool = False
    """true, or what to set of it; without it KubeRay is expected to run already."""
    access: AccessSettings | bool = False
    """true, or what to set of it; without it the namespace is expected to exist."""
    wait: bool = True
    force: bool = False
    """End running jobs where a change needs it. Set it for one `up`, then take it back."""
    adopt: list[str] = Field(default_factory=list)
    """Clusters to take over that exist and that this stack has not made. Set it for one `up`, then take it back."""

    def of_clusters(self) -> dict[str, Any]:
        """What is set over the clusters' own fields."""
        given = {
            "namespace": self.namespace,
            "config_method": self.config_method,
            "kubeconfig": self.kubeconfig,
            "context": self.context,
            "aws_config": self.aws_config.plain() if self.aws_config else None,
        }
        return {key: value for key, value in given.items() if value is not None}


def operator_settings(settings: Settings) -> OperatorSettings | None:
    """Of KubeRay's operator; None where the stack does not make it."""
    if settings.operator is False:
        return None
    return settings.operator if isinstance(settings.operator, OperatorSettings) else OperatorSettings()


def read_settings() -> Settings:
    """The config of the stack that runs.

    Raises:
        BadSpec: an unknown or wrong key, with the nearest right one.
    """
    import pulumi
    from pulumi.runtime.config import CONFIG

    return settings_of(CONFIG.get(), pulumi.get_stack())


def settings_of(config: Mapping[str, Any], stack: str) -> Settings:
    """The settings in a stack's config, as Pulumi hands it over or as its file holds it.

    Raises:
        BadSpec: an unknown or wrong key, with the nearest right one.
    """
    return Settings.parse(parsed(config), f"Pulumi.{stack}.yaml")


def parsed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pulumi hands every value over as text; what is JSON in it is read."""
    found = {}
    for key, value in config.items():
        space, _, name = key.partition(":")
        if space == NAMESPACE:
            found[name] = _value(value) if isinstance(value, str) else value
    return found


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, bool | list | dict) else text
