"""`connect()` and the database it opens."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from runner.context import Context
from runner.definitions import CLUSTERS, MANIFESTS, Definition, Definitions
from runner.errors import BadInput, TableNotFound
from runner.exit_mode import ExitMode
from runner.records import JobRecord, JobRecords
from runner.store import Store
from runner.table import Table

if TYPE_CHECKING:
    from infra.policy import Policy
    from infra.prices import PriceTable
    from infra.spec import ClusterSpec
    from runner.manifests.manifest import Manifest


def connect(
    uri: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None, allow_pickle: bool = True
) -> Connection:
    """Open a LanceDB database.

    Args:
        uri: a path, or an ``s3://``, ``gs://`` or ``az://`` address.
        storage_options: as Lance takes them (``aws_access_key_id``, ``region``, ``endpoint``, ...).
        allow_pickle: whether functions stored as pickles may be loaded, here and on workers; see docs/functions.md.

    Raises:
        BadInput: an address that is no LanceDB OSS database, ``db://`` for example.
    """
    return Connection(uri, storage_options=storage_options, allow_pickle=allow_pickle)


class Connection:
    """A database: a folder of Lance tables, with the runner's records under ``_runner/``."""

    def __init__(
        self, uri: str | os.PathLike[str], *, storage_options: Mapping[str, str] | None = None, allow_pickle: bool = True
    ) -> None:
        self.store = Store(os.fspath(uri), storage_options)
        self.allow_pickle = allow_pickle

    def patient(self) -> Connection:
        """The same database over a storage that is waited for; see `runner.store.Store.patient`."""
        return Connection(self.uri, storage_options=self.store.patient().storage_options, allow_pickle=self.allow_pickle)

    @property
    def uri(self) -> str:
        return self.store.uri

    def open_table(self, name: str) -> Table:
        """A table by its name.

        Raises:
            TableNotFound: with the nearest names there are.
        """
        table = Table(self, name)
        try:
            table.to_lance()
        except (ValueError, FileNotFoundError) as exc:
            names = self.table_names()
            if name in names:
                raise
            near = difflib.get_close_matches(name, names, n=3) or names[:10]
            hint = f"it has {', '.join(near)}" if near else "it has no tables"
            raise TableNotFound(f"no table {name!r} in {self.uri}; {hint}") from exc
        return table

    get_table = open_table

    def table_names(self) -> list[str]:
        """Names of all tables, sorted."""
        return sorted(name.removesuffix(".lance") for name in self.store.folders() if name.endswith(".lance"))

    def create_table(self, name: str, data: Any, *, mode: str = "create", stable_row_ids: bool = False) -> Table:
        """Make a table.

        Args:
            data: an Arrow table, a reader or an iterable of batches, or a pandas DataFrame.
            mode: ``"create"``, or ``"overwrite"`` to replace a table of that name.
            stable_row_ids: give each row an id that updates and compactions keep, and the version of its last update, by which
                ``backfill(..., stale=True)`` finds rows whose inputs changed. A table has it from its making or never.

        Raises:
            BadInput: the table exists, or `mode` is another.
        """
        import lance

        if mode not in ("create", "overwrite"):
            raise BadInput(f"mode={mode!r} is not 'create' or 'overwrite'")
        if mode == "create" and name in self.table_names():
            raise BadInput(f"table {name!r} exists in {self.uri}; open_table({name!r}) opens it, mode='overwrite' replaces it")
        table = Table(self, name)
        lance.write_dataset(
            data,
            table.uri,
            mode=mode,
            storage_options=self.store.storage_options or None,
            enable_stable_row_ids=stable_row_ids,
        )
        return table

    def to_lancedb(self) -> Any:
        """The same database as a ``lancedb`` connection, for everything that is not a backfill."""
        import lancedb

        return lancedb.connect(self.uri, storage_options=self.store.storage_options or None)

    @staticmethod
    def local_ray_context(manifest: Manifest | None = None) -> Context:
        """``context(cluster="local")``; on the class as well as on a connection."""
        from runner.context_choice import Wishes, context_of

        return context_of(None, "local", manifest, Wishes())

    def context(
        self,
        cluster: str | ClusterSpec = "local",
        manifest: str | Manifest | None = None,
        *,
        runtime_env: Mapping[str, Any] | None = None,
        on_exit: ExitMode = ExitMode.DELETE,
        wait_timeout: float | None = None,
        reuse: Literal["match", "always", "never"] = "match",
        time_to_live: float | None = None,
        stack: str | None = None,
    ) -> Context:
        """Where the backfills inside the ``with`` block run.

        On ``inline`` and ``local`` this process drives them. On another cluster they are jobs of that cluster's Ray, which this
        process submits and follows, and which go on without it.

        Args:
            cluster: ``"inline"``: in this process, for debugging and for small tables. ``"local"``: on Ray on this machine.
                Otherwise the name of a cluster that is defined, its spec, or the address of one: ``http(s)://host:8265`` (Jobs
                API), ``ray://host:10001`` (Ray Client). One of kind kuberay is provisioned on Kubernetes when the block begins.
            manifest: what workers run in, or its name. Default: what this process has.
            runtime_env: Ray's, over what the manifest and the cluster say.
            on_exit: what becomes of a provisioned cluster when the block ends; clusters that others run stay in any case.
            wait_timeout: seconds that the end of the block waits for the jobs; None for as long as they take. After it, DELETE
                cancels what still runs, with finished work kept.
            reuse: what to do where a cluster of that name runs: ``"match"`` joins it if it is of the same spec, ``"always"`` as
                it is, ``"never"`` refuses.
            time_to_live: seconds after which Kubernetes deletes a provisioned cluster that no client and no job renews. Default:
                half an hour; with RETAIN none.
            stack: in place of `cluster`, the Pulumi stack of a standing one, as ``pulumi`` in the working directory knows it:
                ``dev``, or ``dev/images`` where it has several clusters.

        Raises:
            BadInput: no such cluster or manifest, with the nearest names; one that cannot be used here; a wrong argument.
        """
        from runner.context_choice import Wishes, context_of

        return context_of(self, cluster, manifest, Wishes(runtime_env, on_exit, wait_timeout, reuse, time_to_live, stack))

    def define_cluster(self, name: str, spec: ClusterSpec) -> Definition:
        """Keep a cluster in the database under its name, for `context` and for others who open the database.

        The definitions before it stay in `cluster_history`; one that says the same as the latest makes no new revision.

        Args:
            name: that of the spec.
            spec: what the builders of `infra` and `infra.parse_spec` make.

        Raises:
            BadInput: the name is another than the spec's, or `spec` is no spec.
            infra.BadSpec: a spec that cannot be read back: one that was changed without its checks; one that the policy forbids.
        """
        from infra.policy import check_policy
        from runner.context_choice import HERE

        plain = _plain_cluster(spec)
        if name in HERE:
            raise BadInput(f"{name!r} is what context(cluster={name!r}) knows already; give the cluster another name")
        self._check_name(CLUSTERS, name, plain)
        check_policy(self.policy(), spec)
        return Definitions(self.store, CLUSTERS).define(name, plain)

    def get_cluster(self, name: str) -> ClusterSpec:
        """The cluster that is defined under a name.

        Raises:
            BadInput: there is none; with the nearest names there are.
            infra.BadSpec: this version of Infill does not take what is stored.
        """
        return self._cluster(Definitions(self.store, CLUSTERS).get(name))

    def list_clusters(self) -> list[ClusterSpec]:
        """All clusters that are defined, by name.

        Raises:
            infra.BadSpec: this version of Infill does not take one of them.
        """
        return [self._cluster(found) for found in Definitions(self.store, CLUSTERS).current()]

    def cluster_history(self, name: str) -> list[Definition]:
        """All revisions of a cluster's definition, newest first; a deletion is one without a spec.

        Raises:
            BadInput: there never was one; with the nearest names there are.
        """
        return Definitions(self.store, CLUSTERS).history(name)

    def delete_cluster(self, name: str) -> Definition:
        """Define a cluster no more. One that runs goes on running, and the history of the definition stays.

        Raises:
            BadInput: there is none; with the nearest names there are.
        """
        return Definitions(self.store, CLUSTERS).delete(name)

    def policy(self) -> Policy | None:
        """The rules that hold for the clusters of this database: to define one, and to provision one on demand.

        Raises:
            infra.BadSpec: this version of Infill does not take what is stored.
        """
        from runner.policies import policy_of

        return policy_of(self.store)

    def set_policy(self, policy: Policy | None) -> Definition:
        """Set the rules, for everyone who opens the database; None for no rules. Earlier ones stay in the history.

        Clusters that are defined or run already stay as they are; the rules hold when they are defined or provisioned again.
        """
        from runner.policies import set_policy

        return set_policy(self.store, policy)

    def _cluster(self, found: Definition) -> ClusterSpec:
        from infra.spec import parse_spec

        return parse_spec(found.spec, self._where("cluster", found))

    def define_manifest(self, name: str, manifest: Manifest) -> Definition:
        """Keep a manifest in the database under its name, for others who open the database.

        The definitions before it stay in `manifest_history`; one that says the same as the latest makes no new revision. Its
        py_modules are uploaded as they are now, so that it means the same on another machine.

        Args:
            name: that of the manifest.
            manifest: what the builders of `ManifestFactory` make.

        Raises:
            BadInput: the name is another than the manifest's, `manifest` is none, or a py_module is not on this machine.
            infra.BadSpec: a manifest that cannot be read back: one that was changed without its checks.
            StorageError: the database takes no packages.
        """
        from runner.manifests.modules import upload_modules

        plain = _plain_manifest(manifest)
        self._check_name(MANIFESTS, name, plain)
        if manifest.py_modules:
            zips: dict[str, Any] = {"local_zip_output_dir": manifest.zip_folder, "delete_local_zips": manifest.delete_local_zips}
            plain["py_modules"] = upload_modules(manifest.py_modules, self.store, **zips)
        return Definitions(self.store, MANIFESTS).define(name, plain)

    def get_manifest(self, name: str) -> Manifest:
        """The manifest that is defined under a name.

        Raises:
            BadInput: there is none; with the nearest names there are.
            infra.BadSpec: this version of Infill does not take what is stored.
        """
        return self._manifest(Definitions(self.store, MANIFESTS).get(name))

    def list_manifests(self) -> list[Manifest]:
        """All manifests that are defined, by name.

        Raises:
            infra.BadSpec: this version of Infill does not take one of them.
        """
        return [self._manifest(found) for found in Definitions(self.store, MANIFESTS).current()]

    def manifest_history(self, name: str) -> list[Definition]:
        """All revisions of a manifest's definition, newest first; a deletion is one without a spec.

        Raises:
            BadInput: there never was one; with the nearest names there are.
        """
        return Definitions(self.store, MANIFESTS).history(name)

    def delete_manifest(self, name: str) -> Definition:
        """Define a manifest no more. Its history stays.

        Raises:
            BadInput: there is none; with the nearest names there are.
        """
        return Definitions(self.store, MANIFESTS).delete(name)

    def _manifest(self, found: Definition) -> Manifest:
        from runner.manifests.manifest import Manifest

        return Manifest.parse(found.spec, self._where("manifest", found))

    def _check_name(self, kind: str, name: str, plain: dict[str, Any]) -> None:
        if name != plain["name"]:
            what, says = ("cluster", "its spec says") if kind == CLUSTERS else ("manifest", "it says itself")
            raise BadInput(f"the {what} is to be known as {name!r} and {says} {plain['name']!r}; give both the same name")

    def _where(self, what: str, found: Definition) -> str:
        return f"{what} {found.name!r} of {self.uri}, revision {found.revision}"

    def jobs(self, table: str | None = None, limit: int = 100) -> list[JobRecord]:
        """The latest backfills, newest first."""
        return JobRecords(self.store).latest(table, limit)

    def job(self, job_id: str) -> JobRecord:
        """One backfill by its id or the beginning of it."""
        return JobRecords(self.store).get(job_id)

    def job_report(self, job_id: str, prices: PriceTable | None = None) -> str:
        """What a backfill did, as one HTML file that needs no network; see `runner.watch.report.job_report`."""
        from runner.watch.report import job_report

        return job_report(self, job_id, prices)

    def __repr__(self) -> str:
        return f"Connection({self.uri!r})"


def _plain_cluster(spec: Any) -> dict[str, Any]:
    """What is stored of a spec, once it is known that it can be read back and holds no secret."""
    from infra.spec import ClusterSpec, parse_spec

    _check_type(
        spec, ClusterSpec, "define_cluster", "the spec", "infra.parse_spec(mapping) and infra.files.read_spec(path) make one"
    )
    return {"kind": spec.kind, **parse_spec({"kind": spec.kind, **spec.plain()}).plain()}


def _plain_manifest(manifest: Any) -> dict[str, Any]:
    """What is stored of a manifest, once it is known that it can be read back and holds no secret."""
    from runner.manifests.manifest import Manifest
    from runner.manifests.modules import check_modules

    _check_type(manifest, Manifest, "define_manifest", "the manifest", "the builders of runner.ManifestFactory make one")
    checked = Manifest.parse(manifest.plain(), f"manifest {manifest.name!r}")
    check_modules(checked.py_modules, f"manifest {checked.name!r}")
    return {"kind": str(checked.kind), **checked.plain()}


def _check_type(given: Any, wanted: type, call: str, what: str, makers: str) -> None:
    name = type(given).__name__
    if hasattr(given, "build"):
        raise BadInput(f"{call} takes {what} that .build() returns, and this is a {name}; add .build()")
    if not isinstance(given, wanted):
        raise BadInput(f"{call} takes a {wanted.__name__}, not a {name}; {makers}")
