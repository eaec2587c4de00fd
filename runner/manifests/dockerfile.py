"""A manifest as the Dockerfile of an image that has it installed. Pure functions: same manifest, same base, same text.

The image has what a run would install, by the same function (`runner.environments.runtime_env`): its workers start at once.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

from infra import kubernetes_names as names
from infra.secrets_in_specs import looks_secret, variables
from runner.environments.own_requirements import REQUIREMENTS, pins
from runner.environments.runtime_env import environment, with_requirements
from runner.errors import BadInput
from runner.manifests import conda_environment
from runner.manifests.manifest import Manifest, ManifestKind

FIRST_LINE = "# Made by `python -m runner manifests build`"
REQUIREMENTS_FILE = "requirements.txt"
CONDA_FILE = "environment.yml"
FILES = ("Dockerfile", REQUIREMENTS_FILE, CONDA_FILE)
"""All that an image may be made of."""

USER = "1000"
"""`ray` of Ray's images, as they give it themselves: a number, which Kubernetes can tell from root."""
_FOLDER = "/home/ray/infill"
_MODULES = {"pylance": "lance"}
_INSTALL = {
    "pip": f"pip install --no-cache-dir --disable-pip-version-check -r {_FOLDER}/{REQUIREMENTS_FILE}",
    "uv": f"uv pip install --system --no-cache -r {_FOLDER}/{REQUIREMENTS_FILE}",
    "conda": f"PIP_NO_CACHE_DIR=1 conda env update --name base --file {_FOLDER}/{CONDA_FILE} && conda clean --all --yes",
}


def dockerfile(manifest: Manifest, base: str) -> str:
    """The Dockerfile of an image that has a manifest installed; it copies the other files of `image_files`.

    Raises:
        BadInput: see `image_files`.
    """
    return image_files(manifest, base)["Dockerfile"]


def image_files(manifest: Manifest, base: str) -> dict[str, str]:
    """The files that an image is built from, by name: the Dockerfile, and what it installs.

    Secrets are in none of them: the build mounts those that an index asks for.

    Args:
        base: an image of Ray's, of the client's Ray and Python; with a digest, to have the same image another day.

    Raises:
        BadInput: `base` is no image; see also `check_bakeable`.
    """
    check_bakeable(manifest)
    try:
        names.image(base)
    except ValueError as exc:
        raise BadInput(f"base: {exc}") from None
    made = with_requirements(environment(manifest), pins())
    installer = str(made.installer)
    wanted = made.runtime_env[installer]
    shown, held_back = _variables(manifest)
    lines = [
        f"{FIRST_LINE}: manifest {manifest.name!r}, kind {manifest.kind}. Change the manifest, not this file.",
        "# Not in the image: the workspace and py_modules, which are uploaded at each run.",
        *([f"# Set at each run, not in the image: {', '.join(held_back)}."] if held_back else []),
        f"FROM {base}",
        f"USER {USER}",
        *_installation(installer, _secrets(manifest)),
        f'RUN python -c "{_proof()}"',
        *(f"ENV {name}={_quoted(value)}" for name, value in shown.items()),
    ]
    files = {"Dockerfile": "\n".join(lines) + "\n"}
    if installer == "conda":
        from infra.files import to_yaml

        return {**files, CONDA_FILE: to_yaml(_with_python({key: wanted[key] for key in wanted if key != "variables"}))}
    return {**files, REQUIREMENTS_FILE: "\n".join(wanted["packages"]) + "\n"}


def check_bakeable(manifest: Manifest) -> None:
    """Refuse what no image can be made of.

    Raises:
        BadInput: a manifest of kind site; requirements that are files of this machine; a conda environment with another Python, or
            with secrets that conda would leave in the image.
    """
    what = f"manifest {manifest.name!r}"
    if manifest.kind is ManifestKind.SITE:
        raise BadInput(
            f"{what} is of kind site: site-packages of this machine are no recipe for an image; give their requirements "
            "(pip freeze > requirements.txt) to a manifest of kind pip, or their lock file to one of kind uv"
        )
    lines = [*manifest.pip, *conda_environment.pip_lines(manifest.conda)]
    if local := [line for line in lines if re.search(r"@\s*file:", line)]:
        raise BadInput(
            f"{what}: {local[0]!r} is a file of this machine, which the image's build does not see; give it to py_modules"
        )
    if small := [name for name in _secrets(manifest) if name != name.upper()]:
        raise BadInput(f"{what}: ${{env:{small[0]}}}: pip and uv replace names in capitals only; call it {small[0].upper()}")
    _check_conda(manifest.conda, what)


def _secrets(manifest: Manifest) -> list[str]:
    """Names of the variables that the indexes and addresses of the installation refer to."""
    asking = [manifest.index_url, *manifest.extra_index_urls, *manifest.pip, *conda_environment.pip_lines(manifest.conda)]
    return sorted(set(variables(asking)))


def _check_conda(conda: Mapping[str, Any], what: str) -> None:
    outer = {**conda, "dependencies": conda_environment.packages(conda), "variables": {}}
    if secrets := sorted(set(variables(outer))):
        raise BadInput(
            f"{what}: conda: conda writes the addresses of channels into the image, and {', '.join(secrets)} with them; take those "
            "packages by pip, or bake on a base (--base) whose .condarc has the channel"
        )
    here = (_python(), _python().partition(".")[0])
    if others := [pin for pin, minor in conda_environment.python_pins(conda).items() if minor not in here]:
        raise BadInput(
            f"{what}: conda: {others[0]}, and the image's Ray runs on Python {_python()}, the client's; "
            "take a client of that Python, or drop the pin"
        )


def _installation(installer: str, secrets: Sequence[str]) -> Iterator[str]:
    """Lines that install. A secret is a file while its line runs, and a variable in that line's shell, for pip and uv."""
    file = CONDA_FILE if installer == "conda" else REQUIREMENTS_FILE
    yield f"COPY {file} {_FOLDER}/{file}"
    mounts = [f"--mount=type=secret,id={name},uid={USER},required=true" for name in secrets]
    exports = [f'{name}="$(cat /run/secrets/{name})" && export {name} &&' for name in secrets]
    yield "RUN " + " \\\n    ".join([*mounts, *exports, _INSTALL[installer]])


def _proof() -> str:
    """Python that fails where a worker would: another Python or Ray, or a package that cannot be imported."""
    version = tuple(int(part) for part in _python().split("."))
    modules = ", ".join(_MODULES.get(name, name) for name in REQUIREMENTS)
    wanted = f"({version}, '{metadata.version('ray')}')"
    return f"import sys, ray, {modules}; found = (sys.version_info[:2], ray.__version__); assert found == {wanted}, found"


def _variables(manifest: Manifest) -> tuple[dict[str, str], list[str]]:
    """Variables that the image sets, and names of those that it must not or cannot: secrets, and text that ENV does not take."""
    given = {**manifest.conda.get("variables", {}), **manifest.env_vars}
    texts = {name: str(value) for name, value in given.items()}
    held_back = [
        name for name, value in texts.items() if list(variables(value)) or looks_secret(name, value) or not value.isprintable()
    ]
    return {name: value for name, value in texts.items() if name not in held_back}, sorted(held_back)


def _quoted(value: str) -> str:
    """A text in Dockerfile's double quotes."""
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _with_python(conda: dict[str, Any]) -> dict[str, Any]:
    """With the image's Python named, as Ray names it too: conda is free to take a newer one otherwise."""
    if _python() in conda_environment.python_pins(conda).values():
        return conda
    return {**conda, "dependencies": [f"python={_python()}", *conda["dependencies"]]}


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
