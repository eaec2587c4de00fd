from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from runner.errors import BadInput
from runner.packages.scan import scan
from tests.unit.package_trees import KUBECONFIG, PRIVATE_KEY, SERVICE_ACCOUNT, going, paths, plain, staying, write


def test_a_planted_secret_and_a_lance_table_stay_and_say_why(tmp_path: Path) -> None:
    write(tmp_path, {"a.py": "", ".env": "TOKEN=1", "deploy/id_rsa": PRIVATE_KEY, "deploy/run.py": ""})
    large = tmp_path / "db/images.lance/data/0.lance"
    large.parent.mkdir(parents=True)
    with large.open("wb") as file:
        file.truncate(500_000_000)
    listing = scan(tmp_path)
    assert paths(listing) == ["a.py", "deploy/run.py"]
    assert listing.bytes == 0
    assert dict(listing.ignored) == {
        ".env": "secret: environment file",
        "db/images.lance/": "Lance table",
        "deploy/id_rsa": "secret: private key",
    }


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".git/config", "version control"),
        ("sub/.hg/x", "version control"),
        (".svn/x", "version control"),
        (".venv/x", "virtual environment"),
        ("envs/mine/pyvenv.cfg", "virtual environment"),
        ("conda/conda-meta/history", "virtual environment"),
        ("a/__pycache__/b.pyc", "cache"),
        (".mypy_cache/x", "cache"),
        (".ruff_cache/x", "cache"),
        (".pytest_cache/x", "cache"),
        ("a/b.pyc", "cache"),
        (".DS_Store", "cache"),
        (".tox/x", "test environments"),
        ("build/x", "build output"),
        ("dist/x", "build output"),
        ("src/mine.egg-info/PKG-INFO", "build output"),
        ("web/node_modules/x", "build output"),
        ("db/_runner/jobs/1.json", "records of the runner"),
        ("db/t.lance/x", "Lance table"),
        ("nb/.ipynb_checkpoints/x.ipynb", "notebook checkpoints"),
    ],
)
def test_what_is_made_again_elsewhere_stays(tmp_path: Path, path: str, reason: str) -> None:
    plain(tmp_path, "pyproject.toml", "src/kept.py", path)
    (found,) = staying(tmp_path).items()
    assert path.startswith(found[0])
    assert found[1] == reason
    assert going(tmp_path) == ["pyproject.toml", "src/kept.py"]


def test_a_cache_by_its_tag_stays_whatever_its_name(tmp_path: Path) -> None:
    write(
        tmp_path, {"target/CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n", "target/x": "", "fake/CACHEDIR.TAG": ""}
    )
    assert going(tmp_path) == ["fake/CACHEDIR.TAG"]
    assert staying(tmp_path) == {"target/": "cache"}


def test_a_lance_table_stays_whatever_its_name(tmp_path: Path) -> None:
    plain(tmp_path, "tables/t/_versions/1.manifest", "tables/t/data/x.bin", "src/_versions/x.py", "src/a.py")
    assert going(tmp_path) == ["src/_versions/x.py", "src/a.py"]
    assert staying(tmp_path) == {"tables/t/": "Lance table"}


def test_packages_named_build_or_runner_are_no_output(tmp_path: Path) -> None:
    kept = plain(tmp_path, "pyproject.toml", "build/__init__.py", "src/build/x.py", "src/dist/x.py", "x/_runner/__init__.py")
    assert len(going(kept)) == 5
    assert staying(kept) == {}


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        (".env", "environment file"),
        ("a/.env.production", "environment file"),
        (".env.local", "environment file"),
        ("prod.env", "environment file"),
        (".envrc", "environment file"),
        ("id_rsa", "private key"),
        ("keys/id_ed25519", "private key"),
        ("tls/server.pem", "private key"),
        ("tls/SERVER.KEY", "private key"),
        ("cert.p12", "private key"),
        ("cert.pfx", "private key"),
        ("pw.kdbx", "password database"),
        (".netrc", "passwords"),
        (".git-credentials", "passwords"),
        (".pypirc", "access token"),
        (".docker/config.json", "registry credentials"),
        ("kubeconfig", "kubeconfig"),
        ("prod.kubeconfig", "kubeconfig"),
        ("gcp/application_default_credentials.json", "cloud credentials"),
        ("infra/terraform.tfstate", "Terraform state"),
        ("infra/terraform.tfstate.backup", "Terraform state"),
    ],
)
def test_a_secret_by_its_name(tmp_path: Path, path: str, secret: str) -> None:
    plain(tmp_path, "a.py", path)
    assert staying(tmp_path) == {path: f"secret: {secret}"}
    assert going(tmp_path) == ["a.py"]
    assert staying(tmp_path, site=True) == ({} if path.lower().endswith((".pem", ".key")) else {path: f"secret: {secret}"})


@pytest.mark.parametrize("folder", [".aws", ".ssh", ".gnupg", ".kube", ".azure", ".config/gcloud"])
def test_a_folder_of_secrets(tmp_path: Path, folder: str) -> None:
    plain(tmp_path, "a.py", f"home/{folder}/config")
    (found,) = staying(tmp_path).items()
    assert found[0] == f"home/{folder}/"
    assert found[1].startswith("secret: ")


@pytest.mark.parametrize(
    ("path", "content", "secret"),
    [
        ("sa.json", SERVICE_ACCOUNT, "service account key"),
        ("adc.json", '{"type": "authorized_user", "refresh_token": "x"}', "cloud credentials"),
        ("cluster.yaml", KUBECONFIG, "kubeconfig"),
        ("config", KUBECONFIG, "kubeconfig"),
        ("cluster.json", '{"kind": "Config", "users": []}', "kubeconfig"),
        ("deploy_key", PRIVATE_KEY, "private key"),
        ("notes.txt", "see\n-----BEGIN RSA PRIVATE KEY-----\nMII\n", "private key"),
        (".npmrc", "//registry.npmjs.org/:_authToken=abc\n", "access token"),
        ("docker.json", '{"auths": {"ghcr.io": {"auth": "eDp5"}}}', "registry credentials"),
    ],
)
def test_a_secret_by_its_content(tmp_path: Path, path: str, content: str, secret: str) -> None:
    write(tmp_path, {path: content})
    assert staying(tmp_path) == {path: f"secret: {secret}"}
    assert staying(tmp_path, site=True) == {path: f"secret: {secret}"}


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (".env.example", "TOKEN="),
        (".env.sample", ""),
        (".env.template", ""),
        ("id_rsa.pub", "ssh-rsa AAAA"),
        ("env.py", ""),
        (".npmrc", "save-exact=true"),
        ("data.json", '{"type": "authorized", "private_key_id": 1}'),
        ("deployment.yaml", "kind: ConfigMap\nusers: none\n"),
        ("values.yaml", "kind: Config\nname: x\n"),
        ("keys.py", PRIVATE_KEY),
        ("doc.txt", 'a line with "-----BEGIN PRIVATE KEY-----" in it'),
        ("config.json", "{}"),
        ("monkey", "x"),
        (".key", "x"),
    ],
)
def test_what_only_looks_like_a_secret_goes(tmp_path: Path, path: str, content: str) -> None:
    write(tmp_path, {path: content})
    assert going(tmp_path) == [path]


def test_site_packages_keep_certificates_and_what_git_would_not(tmp_path: Path) -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"
    write(
        tmp_path,
        {
            "certifi/cacert.pem": certificate, "x/tests/test.key": PRIVATE_KEY, "old.pyc": "", "a/__pycache__/a.pyc": "",
            ".gitignore": "certifi", "build/x.py": "", "pip.egg-info/PKG-INFO": "", "pyvenv.cfg": "", "setup.py": "",
        },
    )  # fmt: skip
    assert staying(tmp_path, site=True) == {"a/__pycache__/": "cache", "x/tests/test.key": "secret: private key"}
    assert going(tmp_path, site=True) == [
        "build/x.py",
        "certifi/cacert.pem",
        "old.pyc",
        "pip.egg-info/PKG-INFO",
        "pyvenv.cfg",
        "setup.py",
    ]


def test_gitignore_names_the_file_and_the_line(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "# logs\n*.log\n!kept.log\n", "sub/.gitignore": "/x\n!deep.log\n"})
    plain(tmp_path, "a.log", "kept.log", "sub/x", "sub/y/x", "sub/deep.log", "sub/b.log")
    assert staying(tmp_path) == {"a.log": ".gitignore:2", "sub/b.log": ".gitignore:2", "sub/x": "sub/.gitignore:1"}
    assert going(tmp_path) == ["kept.log", "sub/deep.log", "sub/y/x"]


def test_a_gitignore_takes_back_no_built_in_rule(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "!.env\n!.venv/\n", ".env": "", ".venv/x": ""})
    assert going(tmp_path) == []


def test_gitignores_above_the_root_count_up_to_the_repository(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.txt", "repo/.gitignore": "/app/data\n*.csv\n", "repo/.git/HEAD": ""})
    plain(tmp_path / "repo/app", "data/x", "a.csv", "a.txt", "sub/data/y")
    assert going(tmp_path / "repo/app") == ["a.txt", "sub/data/y"]
    assert staying(tmp_path / "repo/app") == {
        "a.csv": f"{tmp_path}/repo/.gitignore:2",
        "data/": f"{tmp_path}/repo/.gitignore:1",
    }


def test_runnerignore_adds_and_brings_back(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "*.bin\n/models/\n", ".runnerignore": "notes/\n!weights.bin\n!/models/\n!a.lance\n"})
    plain(tmp_path, "notes/x", "weights.bin", "other.bin", "models/m", "a.lance/data", "b.lance/data")
    assert going(tmp_path) == ["a.lance/data", "models/m", "weights.bin"]
    assert staying(tmp_path) == {
        "b.lance/": "Lance table",
        "notes/": ".runnerignore:1",
        "other.bin": ".gitignore:1",
    }
    assert scan(tmp_path).warnings == ()


def test_a_secret_comes_back_by_runnerignore_or_include_with_a_warning(tmp_path: Path) -> None:
    write(tmp_path, {".runnerignore": "!.env\n", ".env": "", "sa.json": SERVICE_ACCOUNT, "other.env": ""})
    listing = scan(tmp_path, include=["sa.json"])
    assert paths(listing) == [".env", ".runnerignore", "sa.json"]
    assert listing.warnings == (
        ".env goes although it looks like a secret: environment file; .runnerignore:1 brings it back",
        "sa.json goes although it looks like a secret: service account key; include 'sa.json' brings it back",
    )
    assert dict(listing.ignored) == {"other.env": "secret: environment file"}


def test_something_in_an_ignored_folder_comes_back_by_its_whole_path(tmp_path: Path) -> None:
    plain(tmp_path, "pyproject.toml", "build/model.bin", "build/lib/x", "build/lib/y", "other/build2/model.bin")
    assert going(tmp_path, include=["build/model.bin", "build/lib/x"]) == [
        "build/lib/x", "build/model.bin", "other/build2/model.bin", "pyproject.toml",
    ]  # fmt: skip
    assert staying(tmp_path, include=["build/model.bin"]) == {"build/": "build output"}
    assert going(tmp_path, include=["model.bin"]) == ["other/build2/model.bin", "pyproject.toml"]
    assert going(tmp_path, include=["build/"], exclude=["/build/lib"]) == [
        "build/model.bin",
        "other/build2/model.bin",
        "pyproject.toml",
    ]


def test_exclude_is_over_include_and_both_over_the_files(tmp_path: Path) -> None:
    write(tmp_path, {".runnerignore": "a\n!b\n", "a": "", "b": "", "c": "", "d/e.csv": ""})
    assert going(tmp_path, include=["a", "c"], exclude=["b", "c", "*.csv"]) == ["a"]
    assert staying(tmp_path, exclude=["*.csv", "b"])["d/e.csv"] == "exclude '*.csv'"


def test_a_line_that_is_no_pattern_is_refused_where_it_is_ours(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "!\nb\n", "a": "", "b": ""})
    assert going(tmp_path) == ["a"]
    with pytest.raises(BadInput, match=r"exclude '!': '!' is no pattern as of .gitignore"):
        scan(tmp_path, exclude=["!"])
    write(tmp_path, {".runnerignore": "a\n!\n"})
    with pytest.raises(BadInput, match=r"\.runnerignore:2: '!' is no pattern"):
        scan(tmp_path)


# ASCII only: git compares bytes, so its "?" is half of an "é".
NAMES = st.sampled_from(["a", "b", "ab", "a.txt", "b.py", "x y", "[a]"])
PARTS = st.sampled_from(
    [
        "a", "b", "ab", "*", "**", "a*", "?", "*.txt", "[ab]", "[!a]", "*b", "a.txt", "\\[a]", "x y", "[a-b]*",
        "x\\ y", "\\a", "#a", "\\#a", "[]a]", "[^b]",
    ]
)  # fmt: skip
LINES = st.builds(
    lambda bang, slash, parts, end: bang + slash + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]), st.sampled_from(["", "", "/"]), st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", "/*", " "]),
)  # fmt: skip
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4).map("/".join), min_size=1, max_size=12)
FILES = st.dictionaries(st.sampled_from(["", "a/", "b/", "a/b/"]), st.lists(LINES, min_size=1, max_size=4), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.skip("no git to compare with")
    folder = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, files=FILES)
@example(tree=["src/secret", "secret"], files={"": ["secret", "!src"]})
@example(tree=["src/secret", "secret"], files={"": ["secret*", "!/src/"]})
@example(tree=["a/keep", "a/x", "a/b/y"], files={"": ["a/**", "!a/keep"]})
@example(tree=["a/x", "a/y", "b"], files={"": ["a/x", "/*", "!/a"]})
@example(tree=["a/x", "a/b/x", "a/b/c/x", "x"], files={"": ["*/", "!a/", "!b/"]})
@example(tree=["a/x", "a/b/x"], files={"": ["a/**/"]})
@example(tree=["a/x", "a/b/x", "b/x"], files={"": ["**/x", "!/b/x"], "a/": ["!x"]})
def test_gitignores_mean_what_they_mean_to_git(repository: Path, tree: list[str], files: dict[str, list[str]]) -> None:
    for entry in repository.iterdir():
        if entry.name != ".git":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for path in tree:
        place = repository / path
        if not place.exists() and not any(parent.is_file() for parent in place.parents):
            plain(repository, path)
    for folder, lines in files.items():
        if (repository / folder).is_dir():
            (repository / folder / ".gitignore").write_text("\n".join(lines))
    command = ["git", "-C", str(repository), "ls-files", "--others", "--exclude-standard", "-z"]
    env = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    told = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    assert paths(scan(repository)) == sorted(path for path in told.split("\0") if path)
