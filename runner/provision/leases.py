"""Who uses a provisioned cluster, and who makes or removes it at this moment."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from runner.errors import RunnerError
from runner.lease import ExclusiveLease, Renewed, holder_here, is_alive
from runner.records import user
from runner.store import Store

LEASES = "cluster-leases"
LOCKS = "cluster-locks"
PAUSE_SECONDS = 0.3


class ClusterBusy(RunnerError):
    """Another process makes or removes the cluster, or uses it."""


class ClusterLease:
    """That this process uses a cluster: ``_runner/cluster-leases/<cluster>/<id>.json``, renewed until it ends.

    Args:
        also: called after each renewal.
    """

    def __init__(self, store: Store, cluster: str, also: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self.path = f"{LEASES}/{cluster}/{secrets.token_hex(6)}.json"
        self._renewed = Renewed(store, self.path, holder_here(user=user()), also)
        store.create(self.path, self._renewed.content())
        self._renewed.start()

    def end(self) -> None:
        """Use it no more. Ended twice is no error."""
        self._renewed.stop()
        self._store.delete([self.path])


def living_leases(store: Store, cluster: str) -> list[dict[str, Any]]:
    """Holders that are there: ``user``, ``host``, ``pid``, ``renewed``; each with its ``path``."""
    found = []
    for path, _ in store.objects(f"{LEASES}/{cluster}"):
        data = store.get(path)
        holder = json.loads(data) if data else None
        if holder and is_alive(holder):
            found.append({**holder, "path": path})
    return found


def delete_leases(store: Store, cluster: str) -> None:
    """Of those who are gone."""
    living = {holder["path"] for holder in living_leases(store, cluster)}
    store.delete([path for path, _ in store.objects(f"{LEASES}/{cluster}") if path not in living])


def sweep_leases(store: Store) -> None:
    """Drop the leases and locks of those who are gone; nothing depends on them."""
    for path, _ in store.objects(LEASES):
        data = store.get(path)
        if data and not is_alive(json.loads(data)):
            store.delete([path])
    for cluster in sorted({path.split("/")[1] for path, _ in store.objects(LOCKS)}):
        with contextlib.suppress(ClusterBusy), cluster_lock(store, cluster, lambda _: None, wait=False):
            pass  # leaving it drops what others left before


def described(holder: dict[str, Any]) -> str:
    return f"{holder['user']} on {holder['host']} (process {holder['pid']})"


def cluster_lock(store: Store, cluster: str, say: Callable[[str], None], *, wait: bool = True) -> ExclusiveLease:
    """What one process at a time has while it makes, joins or removes a cluster; others wait for it, and `say` whom for.

    Raises:
        ClusterBusy: on entering, another has it, and not `wait`.
    """
    said: list[str] = []

    def busy(holder: dict[str, Any]) -> None:
        what = f"cluster {cluster}: {described(holder)} makes or removes it at this moment"
        if not wait:
            raise ClusterBusy(what)
        if not said:
            said.append(what)
            say(f"{what}; waiting")
        time.sleep(PAUSE_SECONDS)

    return ExclusiveLease(store, f"{LOCKS}/{cluster}", {"user": user(), "cluster": cluster}, busy)
