"""A policy as a Pulumi policy pack: its rules for every program, whoever wrote it and in whatever language.

``pulumi preview --policy-pack FOLDER`` runs it, where FOLDER has a PulumiPolicy.yaml and a program that calls `policy_pack`. Needs
``pip install "infill[policy]"``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pulumi
from pulumi_policy import EnforcementLevel, PolicyPack, ReportViolation, ResourceValidationArgs, ResourceValidationPolicy
from pulumi_policy.proxy import UnknownValueError

from infra import labels
from infra.errors import BadSpec
from infra.policy import Policy, read_policy
from infra.policy_rules import Violation, violations

OF_THE_RUNNER = ("max_time_to_live",)
"""Rules on what no resource says."""


def policy_pack(file: str | Path) -> PolicyPack:
    """The pack of a policy's file; Pulumi's engine asks it, and it runs until that is done.

    Raises:
        pulumi.RunError: the file cannot be read, or has an unknown or wrong rule.
    """
    try:
        policy = read_policy(file)
    except BadSpec as exc:  # which Pulumi prints without a traceback
        raise pulumi.RunError(str(exc)) from None
    return PolicyPack("infill", [*policies(policy)], EnforcementLevel.MANDATORY)


def policies(policy: Policy) -> list[ResourceValidationPolicy]:
    """One for each rule, so that a team may set how strictly each is held.

    They look at resources of ``ray.io``, and at all that has the label ``app.kubernetes.io/managed-by: infill``.
    """
    return [
        ResourceValidationPolicy(rule.replace("_", "-"), str(field.description), _validation(policy, rule))
        for rule, field in Policy.model_fields.items()
        if rule not in OF_THE_RUNNER
    ]


def _validation(policy: Policy, rule: str) -> Callable[[ResourceValidationArgs, ReportViolation], None]:
    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for found in _found(policy, args):
            if found.rule == rule:
                report(f"{args.name}: {found}", None)

    return validate


def _found(policy: Policy, args: ResourceValidationArgs) -> list[Violation]:
    if not args.resource_type.startswith("kubernetes:"):
        return []
    body = _plain(args.props)
    managed = (body.get("metadata") or {}).get("labels") or {}
    is_ours = str(body.get("apiVersion", "")).startswith("ray.io/") or managed.get(labels.MANAGED_BY) == labels.MANAGER
    return violations(policy, body) if is_ours else []


def _plain(value: Any) -> Any:
    """Plain data of Pulumi's view of it, without what is not known before `up`."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in _known(value, value)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for _, item in _known(value, range(len(value)))]
    return int(value) if isinstance(value, float) and value.is_integer() else value  # Pulumi has one type for numbers


def _known(value: Any, keys: Any) -> Iterator[tuple[Any, Any]]:
    for key in keys:
        try:
            yield key, value[key]
        except UnknownValueError:
            continue
