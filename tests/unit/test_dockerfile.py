"""A manifest as a Dockerfile: what is in it, what never is, and that its lines do what they say in a shell."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.errors import BadInput
from runner.manifests.dockerfile import dockerfile, image_files
from runner.manifests.manifest import Manifest

BASE = f"rayproject/ray:2.60.0-py311@sha256:{'a' * 64}"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
OWN = [f"{name}=={metadata.version(name)}" for name in ("pylance", "pyarrow", "numpy", "cloudpickle", "obstore")]
SECRET = "s3cr3t-t0ken-of-the-index"
HASHED = f"six==1.17.0 --hash=sha256:{'b' * 64}"


def run_lines(text: str) -> list[str]:
    """What the RUN lines give to the shell, without their mounts."""
    joined = text.replace("\\\n", " ")
    lines = [line.removeprefix("RUN ") for line in joined.splitlines() if line.startswith("RUN ")]
    return [re.sub(r"--mount=\S+\s+", "", line) for line in lines]


def test_the_whole_of_one() -> None:
    version = metadata.version("ray")
    files = image_files(Manifest(name="images", pip=["pillow==11.0.0"], py_modules=["/src/mine"], env_vars={"MODE": "fast"}), BASE)
    assert files["Dockerfile"].splitlines() == [
        "# Made by `python -m runner manifests build`: manifest 'images', kind pip. Change the manifest, not this file.",
        "# Not in the image: the workspace and py_modules, which are uploaded at each run.",
        f"FROM {BASE}",
        "USER 1000",
        "COPY requirements.txt /home/ray/infill/requirements.txt",
        "RUN pip install --no-cache-dir --disable-pip-version-check -r /home/ray/infill/requirements.txt",
        'RUN python -c "import sys, ray, lance, pyarrow, numpy, cloudpickle, obstore; '
        "found = (sys.version_info[:2], ray.__version__); "
        f"assert found == ({tuple(sys.version_info[:2])}, '{version}'), found\"",
        'ENV MODE="fast"',
    ]
    assert files["requirements.txt"].splitlines() == ["pillow==11.0.0", *OWN]
    assert sorted(files) == ["Dockerfile", "requirements.txt"]


def test_no_requirement_still_gives_what_workers_need() -> None:
    assert image_files(Manifest(name="bare"), BASE)["requirements.txt"].splitlines() == OWN


def test_a_requirement_of_the_manifest_goes_before_our_own() -> None:
    other = "numpy>=2.1"
    assert image_files(Manifest(name="m", pip=[other]), BASE)["requirements.txt"].splitlines() == [
        other,
        *(line for line in OWN if not line.startswith("numpy")),
    ]


@pytest.mark.parametrize("kind", ["pip", "uv"])
def test_hashes_are_checked_by_uv_and_kept(kind: str) -> None:
    files = image_files(Manifest.parse({"name": "locked", "kind": kind, "pip": [HASHED]}), BASE)
    assert files["requirements.txt"].splitlines() == [HASHED, *OWN]
    assert run_lines(files["Dockerfile"])[0] == "uv pip install --system --no-cache -r /home/ray/infill/requirements.txt"


def test_the_text_is_the_same_in_every_process() -> None:
    program = (
        "import json, sys; from runner.manifests.manifest import Manifest; from runner.manifests.dockerfile import image_files;"
        "print(json.dumps(image_files(Manifest.parse(json.loads(sys.argv[1])), sys.argv[2])))"
    )
    urls = [f"https://${{env:{name}}}@index.example.com/simple" for name in ("TOKEN_C", "TOKEN_A", "TOKEN_B")]
    env_vars = {"B": "1", "A": "2", "OF_RUN": "${env:OF_RUN}", "ALSO": "${env:ALSO}"}
    plain = {"name": "m", "pip": ["six==1.17.0"], "extra_index_urls": urls, "env_vars": env_vars}
    made = [
        subprocess.run(
            [sys.executable, "-c", program, json.dumps(plain), BASE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert made[0] == made[1]
    assert json.loads(made[0]) == image_files(Manifest.parse(plain), BASE)


def test_credentials_are_mounted_and_nowhere_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INDEX_TOKEN", SECRET)
    monkeypatch.setenv("OF_RUN", SECRET)
    files = image_files(
        Manifest(
            name="m",
            pip=["six==1.17.0"],
            index_url="https://me:${env:INDEX_TOKEN}@index.example.com/simple",
            env_vars={"OF_RUN": "${env:OF_RUN}", "ALSO": SECRET, "LINES": "a\nb"},
        ),
        BASE,
    )
    text = files["Dockerfile"]
    assert SECRET not in "".join(files.values())
    assert files["requirements.txt"].splitlines()[0] == "--index-url https://me:${INDEX_TOKEN}@index.example.com/simple"
    assert re.findall(r"--mount=\S+", text) == ["--mount=type=secret,id=INDEX_TOKEN,uid=1000,required=true"]
    assert re.search(r"^(ARG|ENV)", text, flags=re.MULTILINE) is None
    assert "# Set at each run, not in the image: ALSO, LINES, OF_RUN." in text


def test_the_installer_finds_the_secrets_in_its_environment(tmp_path: Path) -> None:
    urls = ["https://${env:INDEX_USER}:${env:INDEX_TOKEN}@index.example.com/simple"]
    line = run_lines(dockerfile(Manifest(name="m", pip=["six==1.17.0"], extra_index_urls=urls), BASE))[0]
    for name, value in (("INDEX_USER", "me & co"), ("INDEX_TOKEN", f'{SECRET}"$HOME`id`\n')):
        (tmp_path / name).write_text(value)
    pip = tmp_path / "pip"
    pip.write_text(f'#!{shutil.which("sh")}\nprintf \'%s|\' "$INDEX_USER" "$INDEX_TOKEN" "$@"\n')
    pip.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line.replace("/run/secrets", str(tmp_path))], env=env, capture_output=True, text=True)
    assert done.stdout.split("|")[:3] == ["me & co", f'{SECRET}"$HOME`id`', "install"]
    missing = subprocess.run(["sh", "-c", line.replace("/run/secrets", f"{tmp_path}/no")], env=env, capture_output=True, text=True)
    assert (missing.returncode, missing.stdout) == (1, "")


@pytest.mark.parametrize("value", ["", "plain", " a  b ", 'say "no"', "$HOME ${HOME}", "back\\slash\\", "# no comment", "é=ü", "'"])
def test_variables_are_quoted_as_a_dockerfile_wants_it(value: str) -> None:
    line = next(line for line in dockerfile(Manifest(name="m", env_vars={"V": value}), BASE).splitlines() if line.startswith("ENV"))
    # Within double quotes Dockerfile's rules for ", \ and $ are those of a shell.
    done = subprocess.run(["sh", "-c", f'{line.removeprefix("ENV ")}; printf %s "$V"'], capture_output=True, text=True, check=True)
    assert done.stdout == value


def test_the_last_step_passes_where_a_worker_would_run_and_fails_elsewhere() -> None:
    proof = run_lines(dockerfile(Manifest(name="m"), BASE))[-1]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert subprocess.run(["sh", "-c", proof], env=env, capture_output=True).returncode == 0
    version = metadata.version("ray")
    other = subprocess.run(["sh", "-c", proof.replace(version, "1.0.0")], env=env, capture_output=True, text=True)
    assert other.stderr.splitlines()[-1] == f"AssertionError: ({tuple(sys.version_info[:2])}, '{version}')"


def test_what_a_worker_imports_is_in_the_image() -> None:
    program = (
        "import sys; old = set(sys.modules); import runner.backfill.worker, runner.environments.activation, runner.packages.unpack;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - old} - sys.stdlib_module_names - {'runner'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    homes = metadata.packages_distributions()
    needed = {home.lower() for name in done.stdout.split() for home in homes.get(name, [])}
    assert "numpy" in needed
    assert needed <= {line.partition("==")[0] for line in OWN} | {"python-dateutil", "six"}  # these are pyarrow's


def conda(*dependencies: Any, **more: Any) -> Manifest:
    return Manifest.parse({"name": "m", "kind": "conda", "conda": {"dependencies": list(dependencies), **more}})


def test_a_conda_environment_goes_into_the_one_that_ray_is_in() -> None:
    manifest = conda(
        "ffmpeg=6", {"pip": ["torch==2.8.0"]}, name="own", prefix="/opt/own", channels=["conda-forge"], variables={"V": 1}
    )
    files = image_files(manifest, BASE)
    assert sorted(files) == ["Dockerfile", "environment.yml"]
    assert yaml.safe_load(files["environment.yml"]) == {
        "channels": ["conda-forge"],
        "dependencies": [f"python={PYTHON}", "ffmpeg=6", "pip", {"pip": ["torch==2.8.0", *OWN]}],
    }
    assert run_lines(files["Dockerfile"])[0] == (
        "PIP_NO_CACHE_DIR=1 conda env update --name base --file /home/ray/infill/environment.yml && conda clean --all --yes"
    )
    assert files["Dockerfile"].splitlines()[-1] == 'ENV V="1"'


@pytest.mark.parametrize("pin", [f"python={PYTHON}", f"conda-forge::python =={PYTHON}.4", f"python={PYTHON}.*"])
def test_a_python_that_fits_stays_as_it_is(pin: str) -> None:
    environment = yaml.safe_load(image_files(conda(pin, "python-dateutil"), BASE)["environment.yml"])
    assert environment["dependencies"][:2] == [pin, "python-dateutil"]


@pytest.mark.parametrize("loose", ["python>=3.9", "python", "python=3", "python >=3.9,<4"])
def test_a_loose_python_is_narrowed_to_the_image_s(loose: str) -> None:
    environment = yaml.safe_load(image_files(conda(loose, "python-dateutil=2"), BASE)["environment.yml"])
    assert environment["dependencies"][:3] == [f"python={PYTHON}", loose, "python-dateutil=2"]


def test_secrets_of_conda() -> None:
    inner = {"pip": ["six==1.17.0", "--extra-index-url https://${env:INDEX_TOKEN}@index.example.com/simple"]}
    files = image_files(conda(inner, variables={"OF_RUN": "${env:OF_RUN}"}), BASE)
    assert "--mount=type=secret,id=INDEX_TOKEN,uid=1000,required=true" in files["Dockerfile"]
    assert files["Dockerfile"].count("OF_RUN") == 1
    assert "# Set at each run, not in the image: OF_RUN." in files["Dockerfile"]
    assert "OF_RUN" not in files["environment.yml"]


@pytest.mark.parametrize(
    ("manifest", "base", "says"),
    [
        ({"kind": "site"}, BASE, "is of kind site: .* give their requirements .pip freeze > requirements.txt. to a manifest"),
        ({"pip": ["mine @ file:///src/mine.whl"]}, BASE, "is a file of this machine, .* give it to py_modules"),
        (
            {"index_url": "https://${env:index_token}@index.example.com/simple"},
            BASE,
            "index_token}: pip and uv replace names in capitals only; call it INDEX_TOKEN",
        ),
        ({}, "Ray:1\nRUN true", "base: .* is no image"),
        (
            {"kind": "conda", "conda": {"dependencies": ["python=3.9"]}},
            BASE,
            f"python=3.9, and the image's Ray runs on Python {re.escape(PYTHON)}",
        ),
        (
            {"kind": "conda", "conda": {"channels": ["https://${env:CHANNEL}@c.example.com"], "dependencies": ["a"]}},
            BASE,
            "conda writes the addresses of channels into the image, and CHANNEL with them; take those packages by pip",
        ),
    ],
)
def test_what_cannot_be_baked(manifest: dict[str, Any], base: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        image_files(Manifest.parse({"name": "m", **manifest}), base)
