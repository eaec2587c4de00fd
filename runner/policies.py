"""The policy of a database: ``_runner/policy/policy/<revision>.json``, as definitions are kept.

Whoever may write to the database may change it: it keeps a team from mistakes, and is no barrier against people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.definitions import Definition, Definitions
from runner.store import Store

if TYPE_CHECKING:
    from infra.policy import Policy
    from infra.spec import ClusterSpec

KIND = NAME = "policy"


def policy_of(store: Store) -> Policy | None:
    """The policy of a database; None where there is none.

    Raises:
        infra.BadSpec: this version of Infill does not take what is stored.
    """
    found = next(iter(Definitions(store, KIND).current()), None)
    if found is None:
        return None
    from infra.policy import Policy

    return Policy.parse(found.spec, f"policy of {store.uri}, revision {found.revision}")


def set_policy(store: Store, policy: Policy | None) -> Definition:
    """Make the next revision of a database's policy; None for no policy.

    Raises:
        BadInput: None, and there is none.
    """
    definitions = Definitions(store, KIND)
    return definitions.delete(NAME) if policy is None else definitions.define(NAME, policy.plain())


def policy_history(store: Store) -> list[Definition]:
    """All revisions, newest first.

    Raises:
        BadInput: there never was one.
    """
    return Definitions(store, KIND).history(NAME)


def check_on_demand(store: Store, spec: ClusterSpec, time_to_live: float | None) -> None:
    """Refuse to provision what the policy of the database forbids.

    Args:
        time_to_live: seconds; None for a cluster without end.

    Raises:
        infra.policy.PolicyRefused: with rule, field and value.
    """
    policy = policy_of(store)
    if policy is not None:
        from infra.policy import check_policy, check_time_to_live

        check_policy(policy, spec)
        check_time_to_live(policy, spec.name, time_to_live)
