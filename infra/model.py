"""What all parts of a spec share: unknown keys are refused with the nearest right one, and values are frozen."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic._internal._model_construction import ModelMetaclass

from infra import kubernetes_names as names
from infra.errors import BadSpec
from infra.secrets_in_specs import looks_secret


class _Checked(ModelMetaclass):
    """Construction by hand raises `BadSpec`; validation of nested data goes past this, so that problems keep their place."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as exc:
            raise BadSpec(describe(exc, self.__name__)) from None


class Model(BaseModel, metaclass=_Checked):
    """A part of a spec. Immutable; equal by value.

    Raises:
        BadSpec: on construction; every problem with its field, its value and the remedy.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.5)
                    known = near or sorted(cls.model_fields)
                    hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(known)}"
                    raise ValueError(f"unknown key {key!r}; {hint}")
        return data

    @classmethod
    def parse(cls, data: Any, where: str = "") -> Self:
        """The model of plain data, such as YAML holds.

        Args:
            where: what to call the data in a message: a file.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as exc:
            raise BadSpec(describe(exc, where or cls.__name__)) from None

    def plain(self) -> dict[str, Any]:
        """Plain data, without what was not given."""
        return self.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def describe(exc: ValidationError, what: str) -> str:
    """The problems of a validation, one a line: field, problem, value."""
    lines = []
    for error in exc.errors(include_url=False):
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"]).lstrip(".")
        message = error["msg"].removeprefix("Value error, ")
        given = error["input"]
        if error["type"] not in ("value_error", "missing") and not isinstance(given, Mapping):
            secret = any(looks_secret(str(part), str(given)) for part in error["loc"])
            message += f", not a {type(given).__name__} that may be a secret" if secret else f", not {given!r}"
        lines.append(f"{what}: {place}: {message}" if place else f"{what}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _number_as_text(value: Any) -> Any:
    """YAML gives ``cpus: 2`` as a number; a quantity is a string."""
    if isinstance(value, bool):
        return value
    return format(value, ".15g") if isinstance(value, float) else str(value) if isinstance(value, int) else value


def _env_as_text(value: Any) -> Any:
    """YAML gives ``A: 1`` and ``B: true``; the environment is text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _as_json(value: dict[str, Any]) -> Any:
    """A copy, as JSON holds it: what a builder's caller still has in hand is not part of a spec."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as exc:  # a date of YAML, say
        raise ValueError(f"{exc}; write it as text, in quotes") from None


Quantity = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(names.quantity),
    Field(json_schema_extra={"type": ["string", "number"], "examples": ["2", "500m", "8Gi"]}),
]
Bytes = Annotated[Quantity, AfterValidator(names.memory)]
Image = Annotated[str, AfterValidator(names.image)]
EnvName = Annotated[str, AfterValidator(names.env_name)]
EnvText = Annotated[str, BeforeValidator(_env_as_text), Field(json_schema_extra={"type": ["string", "number", "boolean"]})]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Labels = dict[Annotated[str, AfterValidator(names.label_key)], Annotated[str, AfterValidator(names.label_value)]]
OwnLabels = dict[Annotated[str, AfterValidator(names.own_label_key)], Annotated[str, AfterValidator(names.label_value)]]
Annotations = dict[Annotated[str, AfterValidator(names.label_key)], str]
SubdomainName = Annotated[str, AfterValidator(names.subdomain)]
GroupName = Annotated[str, AfterValidator(lambda name: names.dns_1123(name, 50))]
Raw = Annotated[dict[str, Any], AfterValidator(_as_json)]
"""A part in Kubernetes' own form (camelCase), checked by the API server."""
