"""`BackfillSpec`: a backfill as a file in git declares it. What is computed is the runner's to know; where and when, this one's."""

from __future__ import annotations

import re
import zoneinfo
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from infra import kubernetes_names as names
from infra.cron import check_schedule
from infra.groups import SecretKey
from infra.model import Model, Raw
from infra.secrets_in_specs import referenced, variables

LONGEST_NAME = 36
"""KubeRay takes 36 characters of a RayCronJob and 47 of a RayJob, which is `<name>-<hash>` or `<name>-<minute>`
(ray-operator/controllers/ray/utils/constant.go of 1.7.0)."""
DAY = 86400

ExitMode = Literal["DELETE", "RETAIN_ON_FAILURE", "RETAIN"]
ConcurrencyPolicy = Literal["Forbid", "Replace", "Allow"]

_ADDRESS = re.compile(r"(s3|gs|az|abfss?|s3\+ddb)://\S+")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_OF_SCHEDULES = ("time_zone", "concurrency_policy", "history_seconds")


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class BackfillSpec(Model):
    """A backfill that runs once for each change of its file, or again and again by a schedule."""

    name: Annotated[str, AfterValidator(lambda name: names.dns_1035(name, LONGEST_NAME))]
    """Lowercase letters, digits and '-', at most 36 characters."""
    database: str
    """Address that the pods reach: s3://, gs:// or az://."""
    table: Annotated[str, Field(min_length=1)]
    columns: Annotated[list[str], BeforeValidator(_list), Field(min_length=1, json_schema_extra={"type": ["string", "array"]})]
    """One, or several that are computed in one pass."""
    function: str | None = None
    """module:function. Adds the columns where they are missing. Default: the columns' own."""
    inputs: list[str] | None = None
    """Columns that feed a new column's function. Default: its parameters' names."""
    where: str | None = None
    """SQL: exactly the rows that match."""
    stale: bool = False
    """Rows of older versions of the function too, and those whose inputs changed since."""
    force: bool = False
    """Rows even where this version of the function made them."""
    only_failed: bool = False
    """The rows that the error policy skipped, and no others."""
    on_error: str | None = None
    """fail, skip, skip:100, skip:1%, retry:N or retry:N,skip. Default: the function's."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds that one call of the function may take."""
    concurrency: Annotated[int, Field(gt=0)] | None = None
    """Most workers. Default: as many as the cluster has."""
    batch_size: Annotated[int, Field(gt=0)] | None = None
    """Rows in a call of a batch function."""
    commit_every: Annotated[int, Field(gt=0)] | None = None
    """Publish whenever so many rows more are done."""
    optimize_indices: bool = False
    """Have indexes on the columns cover what was recomputed."""

    cluster: Annotated[str, Field(min_length=1)]
    """Name of a declared cluster. Each run has one of its own of that shape, unless `standing`."""
    standing: bool = False
    """Run on the declared cluster itself, which stays."""
    manifest: str | dict[str, Any] | None = None
    """Environment of the workers: a file (relative to this one), the name of one that the database has, or the manifest itself."""
    code: Literal["upload", "image"] = "upload"
    """How the function and the runner reach the pods: uploaded to the database by whoever declares it, or baked into the image."""
    on_exit: Annotated[ExitMode, BeforeValidator(_upper)] = "DELETE"
    """What becomes of a run's own cluster."""
    revision: Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)] = ""
    """Anything. Another value is a change, and so another run."""

    schedule: Annotated[str, AfterValidator(check_schedule)] | None = None
    """Five fields of cron: "0 3 * * *"."""
    time_zone: str = "Etc/UTC"
    """Of the schedule, as the IANA names it: Europe/Berlin."""
    concurrency_policy: ConcurrencyPolicy = "Forbid"
    """Where the last run still goes on: Forbid skips the new one, Replace cancels the old one, Allow queues behind it."""
    history_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] = DAY
    """How long a scheduled run that has ended is kept, with what `on_exit` leaves of its cluster."""
    suspend: bool = False
    """Declared, and not run."""
    active_deadline_seconds: Annotated[int, Field(gt=0, le=2**31 - 1)] | None = None
    """Longest time of a run, the start of its cluster included. Default: none."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 0
    """Runs again after a failed one, each on a cluster of its own."""
    storage_options: dict[str, str | SecretKey] = Field(default_factory=dict)
    """As Lance takes them; a secret as {secret: NAME, key: KEY}, or as ${env:NAME} of whoever declares it."""

    @field_validator("database")
    @classmethod
    def _is_reached_by_pods(cls, database: str) -> str:
        if not _ADDRESS.fullmatch(database):
            raise ValueError(
                f"{database!r} is no address that pods reach; write s3://bucket/db, gs://bucket/db or az://container/db"
            )
        return database.rstrip("/")

    @field_validator("columns")
    @classmethod
    def _columns_are_apart(cls, columns: list[str]) -> list[str]:
        repeated = next((name for name in columns if columns.count(name) > 1 or not name.strip()), None)
        if repeated is not None:
            raise ValueError(f"{repeated!r} is empty or given twice; name each column once")
        return columns

    @field_validator("function")
    @classmethod
    def _is_function(cls, function: str | None) -> str | None:
        if function is not None and not _FUNCTION.fullmatch(function):
            raise ValueError(f"{function!r} is not of the form module:function, such as my_package.features:embed")
        return function

    @field_validator("where")
    @classmethod
    def _is_predicate(cls, where: str | None) -> str | None:
        if where is not None and not where.strip():
            raise ValueError('it is empty; give a SQL predicate such as "day >= 7", or leave it out for all rows')
        return where

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        try:
            zoneinfo.ZoneInfo(zone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{zone!r} is no time zone; write Etc/UTC or Europe/Berlin") from None
        return zone

    @field_validator("manifest")
    @classmethod
    def _manifest_is_given(cls, manifest: str | Raw | None) -> str | Raw | None:
        if manifest == "":
            raise ValueError("it is empty; give a file, a name, or the manifest itself")
        return manifest

    @field_validator("storage_options")
    @classmethod
    def _options_hold_no_secret(cls, options: dict[str, str | SecretKey]) -> dict[str, str | SecretKey]:
        return {
            name: value if isinstance(value, SecretKey) else referenced(name, value, secret_ref=True)
            for name, value in options.items()
        }

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        given = self.model_fields_set
        if self.schedule is None and (alone := [name for name in _OF_SCHEDULES if name in given]):
            raise ValueError(f"{alone[0]}: belongs to a schedule, and there is none; give schedule, or drop it")
        if self.only_failed and (self.stale or self.force):
            raise ValueError("only_failed: takes the rows that failed and no others; drop stale and force")
        if self.inputs is not None and self.function is None:
            raise ValueError("inputs: belong to a function, and none is given; give function, or drop them")
        if self.standing:
            self._check_standing(given)
        if self.suspend and self.schedule is None and (self.standing or self.on_exit != "DELETE"):
            # KubeRay suspends a RayJob by shutting its cluster down, and so only one that does so at the end too.
            raise ValueError(
                "suspend: KubeRay suspends only runs with a cluster of their own and on_exit DELETE; give those, or remove the file"
            )
        return self

    def _check_standing(self, given: set[str]) -> None:
        if "on_exit" in given and self.on_exit != "RETAIN":
            raise ValueError(f"on_exit: {self.on_exit} is for a cluster of the run's own; a standing one stays: drop it")
        if self.backoff_limit:
            raise ValueError("backoff_limit: KubeRay tries again on new clusters only, and this one stands; drop it, or standing")
        if self.secret_options:
            raise ValueError(
                f"storage_options.{next(iter(self.secret_options))}: a run cannot give secrets to the pods of a standing cluster; "
                "give them in the cluster's own head_group, as env_from_secrets or a service account"
            )

    @property
    def secret_options(self) -> dict[str, str | SecretKey]:
        """The storage options that are references."""
        return {
            name: value for name, value in self.storage_options.items() if isinstance(value, SecretKey) or list(variables(value))
        }

    @property
    def shown_options(self) -> dict[str, str]:
        """The storage options that anyone may see."""
        return {name: str(value) for name, value in self.storage_options.items() if name not in self.secret_options}

    @property
    def options(self) -> dict[str, Any]:
        """What of the request differs from the defaults, by the names that `runner.Table.backfill` gives it."""
        known = ("where", "stale", "force", "only_failed", "on_error", "timeout", "concurrency", "batch_size", "commit_every")
        found = {name: getattr(self, name) for name in (*known, "optimize_indices")}
        return {name: value for name, value in found.items() if value}
