"""EKS: kubeconfigs and tokens, with boto3's own code against moto."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
import yaml
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from typer.testing import CliRunner

from infra.eks import eks_kubeconfig, eks_token, write_kubeconfig
from infra.errors import BadSpec, InfraError
from runner.cli import app
from tests.unit.eks.fake_aws import (
    ACCESS_KEY,
    REGION,
    ROLE,
    ROOT,
    SECRET_KEY,
    USER,
    FakeAws,
    make_cluster,
    query,
    signed_url,
)

# The kubeconfig


def test_kubeconfig_has_endpoint_and_ca_and_runs_this_python_for_tokens(aws: None) -> None:
    cluster = make_cluster()
    name = f"{REGION}-{DEFAULT_ACCOUNT_ID}-prod"
    server = {"server": cluster["endpoint"], "certificate-authority-data": cluster["certificateAuthority"]["data"]}
    assert len(server["certificate-authority-data"]) > 1000
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-m", "runner", "eks-token", "--cluster", "prod", "--region", REGION],
        "interactiveMode": "Never",
    }
    assert eks_kubeconfig(REGION, "prod", None) == {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "users": [{"name": name, "user": {"exec": command}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def test_a_role_is_in_the_command_and_in_the_names(aws: None) -> None:
    make_cluster()
    plain = eks_kubeconfig(REGION, "prod", None)
    config = eks_kubeconfig(REGION, "prod", ROLE)
    assert config["users"][0]["user"]["exec"]["args"][-2:] == ["--role", ROLE]
    assert config["clusters"] == plain["clusters"]
    assert re.fullmatch(re.escape(plain["current-context"]) + "-[0-9a-f]{8}", config["current-context"])
    assert config["contexts"][0]["context"]["user"] == config["users"][0]["name"] == config["current-context"]
    assert eks_kubeconfig(REGION, "prod", "deployer") == config  # a bare name is a role of the caller's account
    other = eks_kubeconfig(REGION, "prod", "reader")
    assert other["current-context"] != config["current-context"]


def test_the_cluster_is_described_as_the_role(aws: None) -> None:
    """The cluster lives in an account that only the role belongs to."""
    there = "arn:aws:iam::210987654321:role/deployer"
    make_cluster()
    keys = boto3.Session().client("sts", region_name=REGION).assume_role(RoleArn=there, RoleSessionName="test")["Credentials"]
    theirs = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], REGION)
    theirs.client("eks").create_cluster(name="theirs", roleArn=there, resourcesVpcConfig={})
    config = eks_kubeconfig(REGION, "theirs", there)
    assert config["clusters"][0]["name"] == f"{REGION}-210987654321-theirs"
    with pytest.raises(BadSpec, match="there are prod"):
        eks_kubeconfig(REGION, "theirs", None)


@pytest.mark.parametrize("role", ["team/deployer", "/team/deployer"])
def test_a_bare_role_name_is_of_the_callers_partition(aws: None, role: str) -> None:
    make_cluster(region="cn-north-1")
    config = eks_kubeconfig("cn-north-1", "prod", role)
    assert config["users"][0]["user"]["exec"]["args"][-1] == f"arn:aws-cn:iam::{DEFAULT_ACCOUNT_ID}:role/team/deployer"


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-north-1"}, "eu-north-1"),
        ({"AWS_DEFAULT_REGION": "eu-south-1"}, "eu-south-1"),
        ({"AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-south-1"}, "eu-north-1"),
        ({"AWS_PROFILE": "work"}, "eu-central-2"),
    ],
)
def test_the_region_comes_from_the_environment(
    aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], region: str
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[profile work]\nregion = eu-central-2\n")
    make_cluster(region=region)
    make_cluster(region=REGION)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert eks_kubeconfig(None, "prod", None)["users"][0]["user"]["exec"]["args"][-1] == region
    assert eks_kubeconfig(REGION, "prod", None)["users"][0]["user"]["exec"]["args"][-1] == REGION
    assert urlsplit(signed_url(eks_token(None, "prod", None))).netloc == f"sts.{region}.amazonaws.com"


def test_the_file_is_for_this_user_only_and_holds_no_secret(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cluster()
    session = eks_token(REGION, "prod", ROLE)["status"]["token"]
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token-of-mine")
    config = eks_kubeconfig(REGION, "prod", ROLE)
    path = write_kubeconfig(config)
    assert path == tmp_path / ".cache" / "infill" / "kubeconfigs" / f"{config['current-context']}.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    text = path.read_text()
    assert yaml.safe_load(text) == config
    secrets = [os.environ[f"AWS_{name}"] for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")]
    for secret in [*secrets, session, "k8s-aws-v1", "ASIA", "token:"]:
        assert secret not in text


def test_the_same_cluster_gives_the_same_bytes_wherever_they_go(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cluster()
    first = write_kubeconfig(eks_kubeconfig(REGION, "prod", ROLE), tmp_path / "a" / "b")
    backwards = dict(reversed(eks_kubeconfig(REGION, "prod", ROLE).items()))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    second = write_kubeconfig(backwards)
    assert second.parent == tmp_path / "cache" / "infill" / "kubeconfigs"
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_an_old_file_is_replaced_whole_and_nothing_is_left_beside_it(aws: None, tmp_path: Path) -> None:
    make_cluster()
    config = eks_kubeconfig(REGION, "prod", None)
    path = tmp_path / f"{config['current-context']}.yaml"
    path.write_text("x" * 100_000)
    path.chmod(0o644)
    reader = path.open()
    assert write_kubeconfig(config, tmp_path) == path
    assert len(reader.read()) == 100_000  # who had it open still reads the old one, to its end
    reader.close()
    assert yaml.safe_load(path.read_text()) == config
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == [path.name]


def test_a_folder_that_cannot_be_written_to_is_named(aws: None, tmp_path: Path) -> None:
    make_cluster()
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match=r"cannot write kubeconfig .*/file/eu-west-1-.*-prod.yaml: .*; name another folder"):
        write_kubeconfig(eks_kubeconfig(REGION, "prod", None), tmp_path / "file")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cluster()
    config = eks_kubeconfig(REGION, "prod", None)
    path = write_kubeconfig(config, tmp_path / "k")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InfraError, match=r"cannot write kubeconfig .*: No space left on device; name another folder"):
        write_kubeconfig({"current-context": config["current-context"]}, tmp_path / "k")
    assert list(path.parent.iterdir()) == [path]
    assert yaml.safe_load(path.read_text()) == config


# The token


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
        ("us-east-1", "sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
        ("ap-southeast-1", "sts.ap-southeast-1.amazonaws.com"),  # of a length that puts a / in plain base64
    ],
)
def test_a_token_is_a_presigned_identity_request(keys: None, monkeypatch: pytest.MonkeyPatch, region: str, host: str) -> None:
    monkeypatch.setenv("AWS_STS_REGIONAL_ENDPOINTS", "legacy")  # an old setting, of which EKS knows nothing
    before = datetime.now(UTC).replace(microsecond=0)
    credential = eks_token(region, "prod", None)
    after = datetime.now(UTC)
    assert credential["apiVersion"] == "client.authentication.k8s.io/v1"
    assert credential["kind"] == "ExecCredential"
    url = urlsplit(signed_url(credential))
    assert (url.scheme, url.netloc, url.path) == ("https", host, "/")
    assert {key: value for key, value in query(credential).items() if key not in ("X-Amz-Date", "X-Amz-Signature")} == {
        "Action": "GetCallerIdentity",
        "Version": "2011-06-15",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{ACCESS_KEY}/{query(credential)['X-Amz-Date'][:8]}/{region}/sts/aws4_request",
        "X-Amz-Expires": "60",
        "X-Amz-SignedHeaders": "host;x-k8s-aws-id",
    }
    expires = datetime.strptime(credential["status"]["expirationTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert before + timedelta(minutes=14) <= expires <= after + timedelta(minutes=14)


def test_the_signature_is_of_the_cluster(keys: None) -> None:
    """Signed again, by hand, from what the server sees of the URL and the header: only the right cluster's name fits."""
    credential = eks_token(REGION, "prod", None)
    asked = query(credential)
    canonical_query = "&".join(
        sorted(part for part in urlsplit(signed_url(credential)).query.split("&") if "Signature" not in part)
    )
    scope = asked["X-Amz-Credential"].partition("/")[2]

    def signature(cluster: str) -> str:
        headers = f"host:sts.{REGION}.amazonaws.com\nx-k8s-aws-id:{cluster}\n"
        body = hashlib.sha256(b"").hexdigest()
        request = "\n".join(["GET", "/", canonical_query, headers, "host;x-k8s-aws-id", body])
        text = "\n".join(["AWS4-HMAC-SHA256", asked["X-Amz-Date"], scope, hashlib.sha256(request.encode()).hexdigest()])
        key = f"AWS4{SECRET_KEY}".encode()
        for part in [*scope.split("/"), text]:
            key = hmac.digest(key, part.encode(), "sha256")
        return key.hex()

    assert asked["X-Amz-Signature"] == signature("prod") != signature("other")


@pytest.mark.parametrize("role", [ROLE, "deployer"])
def test_a_token_of_a_role_is_signed_with_the_roles_credentials(aws: None, role: str) -> None:
    asked = query(eks_token(REGION, "prod", role))
    key = asked["X-Amz-Credential"].partition("/")[0]
    assumed = get_backend("sts")[DEFAULT_ACCOUNT_ID]["global"].assumed_roles
    assert [(one.role_arn, one.session_name) for one in assumed if one.access_key_id == key] == [(ROLE, "infill")]
    assert asked["X-Amz-Security-Token"] == assumed[-1].session_token
    assert key != os.environ["AWS_ACCESS_KEY_ID"]


def test_two_clusters_asked_for_in_turn_get_tokens_of_their_own(keys: None) -> None:
    assert len({query(eks_token(REGION, name, None))["X-Amz-Signature"] for name in ("a", "b", "c")}) == 3


# The command


def test_the_command_prints_the_credential(keys: None) -> None:
    done = CliRunner().invoke(app, ["eks-token", "--cluster", "prod", "--region", REGION])
    assert (done.exit_code, done.stderr) == (0, "")
    credential = json.loads(done.stdout)
    assert query(credential)["X-Amz-SignedHeaders"] == "host;x-k8s-aws-id"
    assert urlsplit(signed_url(credential)).netloc == f"sts.{REGION}.amazonaws.com"


def test_the_command_assumes_the_role(aws: None) -> None:
    done = CliRunner().invoke(app, ["eks-token", "--cluster", "prod", "--region", REGION, "--role", "deployer"])
    assert done.exit_code == 0, done.output
    assumed = get_backend("sts")[DEFAULT_ACCOUNT_ID]["global"].assumed_roles[-1]
    assert query(json.loads(done.stdout))["X-Amz-Security-Token"] == assumed.session_token


def test_exit_code_2_where_something_given_is_wrong(keys: None) -> None:
    done = CliRunner().invoke(app, ["eks-token", "--cluster", "prod"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot open an AWS session: no region;")


def test_exit_code_1_where_aws_refuses(fake: FakeAws) -> None:
    said = f"User: {USER} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
    fake.query_error("AssumeRole", 403, "AccessDenied", said)
    done = CliRunner().invoke(app, ["eks-token", "--cluster", "prod", "--region", REGION, "--role", ROLE])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"error: cannot assume role {ROLE}: {USER} may not sts:AssumeRole")
    assert done.stderr.count("\n") == 1


def test_the_kubeconfigs_own_command_gives_a_token(aws: None, tmp_path: Path) -> None:
    """As kubectl runs it: what the file says, in a new process, without a network."""
    make_cluster()
    path = write_kubeconfig(eks_kubeconfig(REGION, "prod", None), tmp_path)
    command = yaml.safe_load(path.read_text())["users"][0]["user"]["exec"]
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    done = subprocess.run(
        [command["command"], *command["args"]],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    credential = json.loads(done.stdout)
    assert credential["apiVersion"] == command["apiVersion"]
    assert query(credential)["X-Amz-Credential"].startswith(f"{ACCESS_KEY}/")
    assert urlsplit(signed_url(credential)).netloc == f"sts.{REGION}.amazonaws.com"
    assert "X-Amz-Security-Token" not in query(credential)


def test_imports_are_light() -> None:
    names = subprocess.run(
        [sys.executable, "-c", "import sys, infra.eks, runner.cli; print(*sys.modules)"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert "infra.eks" in names
    assert {"boto3", "botocore", "yaml", "pydantic"}.isdisjoint(names)
