"""EKS: kubeconfigs, tokens and refusals, with boto3's own code against moto, or against a server that answers as AWS does."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import hmac
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import yaml
from moto import mock_aws
from moto.backends import get_backend
from moto.core.models import DEFAULT_ACCOUNT_ID
from typer.testing import CliRunner

from infra.eks import eks_kubeconfig, eks_token, write_kubeconfig
from infra.errors import BadSpec, InfraError, NotAllowed
from runner.cli import app

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"
ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/deployer"
CLUSTER_ARN = f"arn:aws:eks:{REGION}:{DEFAULT_ACCOUNT_ID}:cluster/prod"
USER = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:user/ana"


@pytest.fixture(autouse=True)
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS settings, and one try for each request."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.fixture
def keys(no_aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.fixture
def aws(no_aws: None) -> Iterator[None]:
    with mock_aws():
        yield


def make_cluster(name: str = "prod", region: str = REGION, status: str = "ACTIVE") -> dict[str, Any]:
    client = boto3.Session().client("eks", region_name=region)
    client.create_cluster(name=name, roleArn=ROLE, resourcesVpcConfig={})
    get_backend("eks")[DEFAULT_ACCOUNT_ID][region].clusters[name].status = status
    cluster: dict[str, Any] = client.describe_cluster(name=name)["cluster"]
    return cluster


def signed_url(credential: dict[str, Any]) -> str:
    token = credential["status"]["token"]
    assert re.fullmatch(r"k8s-aws-v1\.[A-Za-z0-9_-]+", token)  # base64url, no padding
    encoded = token.removeprefix("k8s-aws-v1.")
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()


def query(credential: dict[str, Any]) -> dict[str, str]:
    return {key: value for key, (value,) in parse_qs(urlsplit(signed_url(credential)).query).items()}


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


# Refusals


@dataclass
class FakeAws:
    """A server that gives every request of a path or an STS action one answer, as AWS writes it."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def rest_error(self, path: str, status: int, code: str, message: str) -> None:
        headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
        self.answers[path] = (status, headers, json.dumps({"message": message}))

    def clusters(self, *names: str) -> None:
        self.answers["/clusters"] = (200, {"Content-Type": "application/json"}, json.dumps({"clusters": names}))

    def query_error(self, action: str, status: int, code: str, message: str) -> None:
        error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
        text = f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{error}<RequestId>1</RequestId></ErrorResponse>'
        self.answers[action] = (status, {"Content-Type": "text/xml"}, text)


@pytest.fixture
def fake(keys: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAws]:
    fake = FakeAws()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            what = parse_qs(body)["Action"][0] if body else urlsplit(self.path).path
            fake.asked.append(what)
            if what not in fake.answers:
                return  # hangs up
            status, headers, text = fake.answers[what]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield fake
        server.shutdown()
        thread.join()


def test_no_credentials(no_aws: None) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(NotAllowed, match=r"EKS cluster 'prod' in eu-west-1: there are no AWS credentials here; .*AWS_PROFILE"):
            ask(REGION, "prod", None)
    with pytest.raises(NotAllowed, match=r"cannot assume role arn.*deployer: there are no AWS credentials here"):
        eks_token(REGION, "prod", ROLE)


def test_half_of_the_credentials(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(BadSpec, match="credentials are incomplete; set both"):
        eks_token(REGION, "prod", None)


def test_no_region(keys: None) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="no region; give one, or set AWS_REGION, or a region in the AWS profile"):
            ask(None, "prod", None)


def test_no_such_profile(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "wrok")
    for region in (REGION, None):
        with pytest.raises(BadSpec, match=r"there is no such AWS profile; set AWS_PROFILE .*wrok"):
            eks_kubeconfig(region, "prod", None)


def test_an_sso_login_that_is_missing(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["[profile sso]", "sso_start_url = https://x.awsapps.com/start", f"sso_region = {REGION}"]
    (tmp_path / ".aws").mkdir()
    config = tmp_path / ".aws" / "config"
    config.write_text("\n".join([*lines, f"sso_account_id = {DEFAULT_ACCOUNT_ID}", "sso_role_name = dev", ""]))
    monkeypatch.setenv("AWS_PROFILE", "sso")
    with pytest.raises(NotAllowed, match=r"login of this profile is missing or has expired; log in again \(`aws sso login`\)"):
        eks_token(REGION, "prod", None)


def test_a_credential_process_that_fails(no_aws: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(f"[default]\ncredential_process = {sys.executable} -c 'import sys; sys.exit(3)'\n")
    with pytest.raises(NotAllowed, match="AWS credentials cannot be fetched; correct the profile"):
        eks_token(REGION, "prod", None)


def test_a_cluster_that_is_not_there(aws: None) -> None:
    with pytest.raises(BadSpec, match=r"cannot use EKS cluster 'prdo' in eu-west-1: .*there are no clusters at all"):
        eks_kubeconfig(REGION, "prdo", None)
    make_cluster("prod")
    make_cluster("dev")
    make_cluster("elsewhere", "us-east-1")
    with pytest.raises(BadSpec) as raised:
        eks_kubeconfig(REGION, "prdo", None)
    assert str(raised.value) == "cannot use EKS cluster 'prdo' in eu-west-1: there is none of that name; there are dev, prod"


def test_other_clusters_are_named_in_order(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 404, "ResourceNotFoundException", "No cluster found for name: prod.")
    fake.clusters("prod-2", "dev", "prod-1")
    with pytest.raises(BadSpec, match=r"there is none of that name; there are dev, prod-1, prod-2$"):
        eks_kubeconfig(REGION, "prod", None)


def test_a_cluster_that_is_not_there_where_listing_is_refused(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 404, "ResourceNotFoundException", "No cluster found for name: prod.")
    fake.rest_error("/clusters", 403, "AccessDeniedException", f"User: {USER} is not authorized to perform: eks:ListClusters")
    with pytest.raises(BadSpec, match="there is none of that name; check name, region and account"):
        eks_kubeconfig(REGION, "prod", None)
    assert fake.asked == ["/clusters/prod", "/clusters"]


@pytest.mark.parametrize("status", ["CREATING", "DELETING", "FAILED", "PENDING"])
def test_a_cluster_that_is_not_in_service(aws: None, status: str) -> None:
    make_cluster(status=status)
    with pytest.raises(InfraError, match=f"EKS cluster 'prod' in eu-west-1: it is {status}, not ACTIVE; run this again when it is"):
        eks_kubeconfig(REGION, "prod", None)


def test_a_cluster_that_is_updated_is_in_service(aws: None) -> None:
    make_cluster(status="UPDATING")
    assert eks_kubeconfig(REGION, "prod", None)["current-context"].endswith("prod")


def test_describing_is_denied(fake: FakeAws) -> None:
    why = "because no identity-based policy allows the eks:DescribeCluster action"
    said = f"User: {USER} is not authorized to perform: eks:DescribeCluster on resource: {CLUSTER_ARN} {why}"
    fake.rest_error("/clusters/prod", 403, "AccessDeniedException", said)
    with pytest.raises(NotAllowed) as raised:
        eks_kubeconfig(REGION, "prod", None)
    assert str(raised.value) == (
        f"cannot use EKS cluster 'prod' in eu-west-1: {USER} may not eks:DescribeCluster on resource: {CLUSTER_ARN} {why}; "
        "let its IAM policy allow eks:DescribeCluster on the cluster, or name a role that is allowed to"
    )


def test_describing_is_denied_in_few_words(fake: FakeAws) -> None:
    fake.rest_error("/clusters/prod", 403, "AccessDeniedException", "Forbidden")
    with pytest.raises(NotAllowed, match=r"'prod' in eu-west-1: the caller may not eks:DescribeCluster \(Forbidden\); let its IAM"):
        eks_kubeconfig(REGION, "prod", None)


@pytest.mark.parametrize("ask", [eks_kubeconfig, eks_token])
def test_assuming_is_denied(fake: FakeAws, ask: Any) -> None:
    said = f"User: {USER} is not authorized to perform: sts:AssumeRole on resource: {ROLE}"
    fake.query_error("AssumeRole", 403, "AccessDenied", said)
    with pytest.raises(NotAllowed) as raised:
        ask(REGION, "prod", ROLE)
    assert str(raised.value) == (
        f"cannot assume role {ROLE}: {USER} may not sts:AssumeRole on resource: {ROLE}; the role must exist, its trust policy "
        "must name who assumes it, and the policy of who does must allow it"
    )
    assert fake.asked == ["AssumeRole"]  # nothing went on without the role


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (403, "ExpiredTokenException", "The security token included in the request is expired", "credentials have expired; log in"),
        (403, "UnrecognizedClientException", "The security token included in the request is invalid", "does not know these"),
        (403, "InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier", "this machine's clock is wrong"),
        (400, "InvalidRequestException", "Something new", "AWS answered InvalidRequestException"),
    ],
)
def test_eks_refuses_the_credentials(fake: FakeAws, status: int, code: str, message: str, expected: str) -> None:
    fake.rest_error("/clusters/prod", status, code, message)
    with pytest.raises(InfraError, match=f"cannot use EKS cluster 'prod' in eu-west-1: .*{expected}.* AWS: {message}") as raised:
        eks_kubeconfig(REGION, "prod", None)
    assert isinstance(raised.value, NotAllowed) == (status == 403)


@pytest.mark.parametrize(
    ("role", "action", "doing"),
    [
        (ROLE, "AssumeRole", "cannot assume role arn:"),
        ("deployer", "GetCallerIdentity", "cannot find out whose role 'deployer' is"),
    ],
)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ExpiredToken", "the AWS credentials have expired; log in again"),
        ("InvalidClientTokenId", "AWS does not know these credentials"),
        ("SignatureDoesNotMatch", "the secret key does not belong to the access key"),
        ("RegionDisabledException", "the account has not enabled STS in this region"),
    ],
)
def test_sts_refuses_the_credentials(fake: FakeAws, role: str, action: str, doing: str, code: str, expected: str) -> None:
    fake.query_error(action, 403, code, "in the words of AWS")
    with pytest.raises(NotAllowed, match=f"{doing}.*{expected}.* AWS: in the words of AWS"):
        eks_token(REGION, "prod", role)


def test_nobody_answers(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    unreachable = rf"no answer from AWS; check the spelling of the region, the network .*127\.0\.0\.1:{port}"
    with pytest.raises(InfraError, match=f"cannot use EKS cluster 'prod' in eu-west-1: {unreachable}"):
        eks_kubeconfig(REGION, "prod", None)
    with pytest.raises(InfraError, match=f"cannot assume role .*: {unreachable}"):
        eks_token(REGION, "prod", ROLE)


def test_somebody_hangs_up(fake: FakeAws) -> None:
    with pytest.raises(InfraError, match=r"cannot use EKS cluster 'prod' in eu-west-1: no answer from AWS; check"):
        eks_kubeconfig(REGION, "prod", None)
    assert fake.asked == ["/clusters/prod"]


@pytest.mark.parametrize("region", ["EU WEST", "eu_west_1", "https://eks"])
def test_a_region_that_cannot_be_one(keys: None, region: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match=f"that is not the name of a region; write it as in eu-west-1.*{region}"):
            ask(region, "prod", None)


@pytest.mark.parametrize("name", ["", "../prod", "a b", "-prod", "p" * 101, "prod\n", CLUSTER_ARN])
def test_what_cannot_name_a_cluster(keys: None, name: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="is not the name of an EKS cluster: letters, digits, - and _, at most 100"):
            ask(REGION, name, None)


@pytest.mark.parametrize(
    "role", ["arn:aws:sts::123456789012:assumed-role/deployer/me", "arn:aws:iam::12:role/deployer", USER, "a role", "x\n"]
)
def test_what_cannot_name_a_role(keys: None, role: str) -> None:
    for ask in (eks_kubeconfig, eks_token):
        with pytest.raises(BadSpec, match="is not a role: give its name, or its ARN, arn:aws:iam::<account>:role/<name>"):
            ask(REGION, "prod", role)


def test_boto3_is_not_installed(keys: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InfraError, match=r"EKS needs boto3, .*: pip install 'infill\[kubernetes\]'"):
        eks_token(REGION, "prod", None)


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
