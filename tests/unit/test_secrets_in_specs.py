from __future__ import annotations

from typing import Any

import pytest

from infra.body import env_secret_data, env_secret_variables, ray_cluster_body
from infra.errors import BadSpec
from infra.secrets_in_specs import from_environment, literal_tree, looks_secret, referenced, referenced_tree, resolved, variables
from tests.unit.cluster_specs import parsed

AWS_KEY = "AKIAIOSFODNN7EXAMPLE"
VALUE = "wJalrXUtnFEMI/K7MDENG"

BY_FORM = [
    AWS_KEY,
    "ASIAIOSFODNN7EXAMPLE",
    f"aws_access_key_id = {AWS_KEY}",
    "ghp_" + "a1" * 18,
    "github_pat_" + "A_1" * 20,
    "glpat-abcdefghij0123456789",
    "xoxb-1234567890-abc",
    "sk-proj-abcdefghijklmnopqrst",
    "hf_" + "aB" * 17,
    "AIza" + "x" * 35,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "-----BEGIN PRIVATE KEY-----",
]
BY_NAME = [
    "AWS_SECRET_ACCESS_KEY",
    "AWS_ACCESS_KEY_ID",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "db_password",
    "DB_PASSWD",
    "CLIENT_SECRET",
    "clientSecret",
    "GOOGLE_CREDENTIALS",
]


@pytest.mark.parametrize("value", BY_FORM)
def test_a_secret_is_known_by_its_form(value: str) -> None:
    assert looks_secret("HARMLESS", value)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert looks_secret(name, "hunter2")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_SECRET_ACCESS_KEY", "${env:AWS_SECRET_ACCESS_KEY}"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "/var/secrets/google.json"),
        ("SSH_KEY", "~/.ssh/id"),
        ("USE_TOKEN", "true"),
        ("MAX_TOKENS", "4096 of them"),
        ("MAX_TOKEN", "4096 of them"),
        ("PAD_TOKEN", "<pad>"),
        ("PRIMARY_KEY", "id"),
        ("PUBLIC_KEY", "ssh-ed25519 AAAA"),
        ("topologyKey", "kubernetes.io/hostname"),
        ("key", "nvidia.com/gpu"),
        ("KEYBOARD", "qwerty"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MODEL", "sk-learn"),
    ],
)
def test_what_only_resembles_a_secret_is_harmless(name: str, value: str) -> None:
    assert not looks_secret(name, value)
    assert referenced(name, value) == value


def test_a_value_of_this_environment_becomes_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_URL", "postgres://ana:hunter2@db")
    monkeypatch.setenv("MY_AWS_KEY", AWS_KEY)
    monkeypatch.setenv("SESSION_TOKEN", "only its name says so")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("MODE", "fast")
    assert referenced("MODE", "fast") == "fast"  # or a spec would read otherwise here than elsewhere
    assert from_environment({"MODE": "fast", "OTHER": "fast"}) == {"MODE": "${env:MODE}", "OTHER": "fast"}
    assert referenced("OTHER", "only its name says so") == "${env:SESSION_TOKEN}"
    assert referenced("DB_URL", "postgres://ana:hunter2@db") == "${env:DB_URL}"
    assert referenced("DB_URL", "postgres://other") == "postgres://other"
    assert referenced("EMPTY", "") == ""
    # a secret under another name than its variable's
    assert referenced("AWS_ACCESS_KEY_ID", AWS_KEY) == "${env:MY_AWS_KEY}"
    assert referenced("HARMLESS", AWS_KEY) == "${env:MY_AWS_KEY}"


@pytest.mark.parametrize(("name", "value"), [*(("NAME", value) for value in BY_FORM), *((name, VALUE) for name in BY_NAME)])
def test_the_refusal_names_the_variable_and_not_the_secret(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="in plain sight") as caught:
        referenced(name, value, secret_ref=True)
    message = str(caught.value)
    assert message.startswith(f"{name} looks like a secret in plain sight ({len(value)} characters)")
    assert f"${{env:{name}}}" in message
    assert "{secret: NAME, key: KEY}" in message
    assert value not in message


def test_the_remedy_is_a_variable_that_can_be_set() -> None:
    with pytest.raises(ValueError, match=r"write \$\{env:NAME\} and set that variable$"):
        referenced("my.api-token", VALUE)


def test_a_tree_is_searched_at_every_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", AWS_KEY)
    tree = {
        "runtime_env": {"env_vars": {"AWS_ACCESS_KEY_ID": AWS_KEY, "A": "b"}, "pip": ["numpy", f"--key={AWS_KEY}"]},
        "list": [{"name": "AWS_ACCESS_KEY_ID", "value": AWS_KEY, "more": [{"x": AWS_KEY}]}, ("tuple", 1, None, True)],
    }
    given = repr(tree)
    reference = "${env:AWS_ACCESS_KEY_ID}"
    with pytest.raises(ValueError, match=r"^pip looks like a secret"):
        referenced_tree(tree)
    tree["runtime_env"]["pip"].pop()
    assert referenced_tree(tree) == {
        "runtime_env": {"env_vars": {"AWS_ACCESS_KEY_ID": reference, "A": "b"}, "pip": ["numpy"]},
        "list": [{"name": "AWS_ACCESS_KEY_ID", "value": reference, "more": [{"x": reference}]}, ["tuple", 1, None, True]],
    }
    assert repr(tree) == given.replace(f", '--key={AWS_KEY}'", "")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": {"apiToken": "abcdefgh"}}, "apiToken looks like a secret in plain sight (8 characters)"),
        ({"env": [{"name": "DB_PASSWORD", "value": "hunter2"}]}, "DB_PASSWORD looks like a secret"),
        ({"env": [{"name": "A", "value": "1", "more": {"x": [AWS_KEY]}}]}, "x looks like a secret"),
        ({"env": [{"name": "A", "value": "b/${env:BUCKET}"}]}, "A: ${env:BUCKET} is resolved in env and ray_init_kwargs only"),
    ],
)
def test_what_kubernetes_gets_as_it_is_holds_neither_secret_nor_reference(tree: Any, said: str) -> None:
    with pytest.raises(ValueError, match="in Kubernetes' form, as the key of a Secret") as caught:
        literal_tree(tree)
    assert str(caught.value).startswith(said)
    assert "hunter2" not in str(caught.value)


def test_kubernetes_own_references_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("name", "keys")  # an equal value of this environment changes nothing here
    tree = {
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}}],
        "volumes": [{"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "private", "path": "id"}]}}],
    }
    assert literal_tree(tree) == tree


def test_resolved_replaces_every_reference() -> None:
    tree = {"a": ["${env:A}", ("x-${env:A}-${env:B}", 1)], "b": {"c": "${env:B}", "d": None, "e": "$A ${A} ${env:}"}}
    assert list(variables(tree)) == ["A", "A", "B", "B"]
    assert resolved(tree, {"A": "1", "B": "${env:A}"}) == {
        "a": ["1", ["x-1-${env:A}", 1]],
        "b": {"c": "${env:A}", "d": None, "e": "$A ${A} ${env:}"},
    }


def test_resolved_takes_this_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFILL_TEST_A", "1")
    assert resolved("${env:INFILL_TEST_A}") == "1"


def test_resolved_names_all_that_is_missing() -> None:
    with pytest.raises(BadSpec, match=r"^B, C: not set in this environment, .*export"):
        resolved({"x": ["${env:C}", "${env:A}${env:B}"], "y": "${env:C}"}, {"A": "1"})


def test_references_of_the_environment_go_into_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KEY_ID": AWS_KEY, "BUCKET": "b"}.items():
        monkeypatch.setenv(name, value)
    groups = [{"name": "cpu", "env": {"URL": "s3://${env:BUCKET}/${env:KEY_ID}", "PLAIN": "p"}}]
    spec = parsed({"name": "a", "head_group": {"env": {"AWS_ACCESS_KEY_ID": AWS_KEY, "KEY": {"secret": "s", "key": "k"}}},
                   "worker_groups": groups, "ray_version": "2.60.0"})  # fmt: skip
    assert env_secret_variables(spec) == ["BUCKET", "KEY_ID"]
    assert env_secret_data(spec) == {"head.AWS_ACCESS_KEY_ID": AWS_KEY, "cpu.URL": f"s3://b/{AWS_KEY}"}
    for text in (repr(spec), str(spec.plain()), str(ray_cluster_body(spec))):
        assert AWS_KEY not in text
    monkeypatch.delenv("BUCKET")
    with pytest.raises(BadSpec, match=r"^BUCKET: not set"):
        env_secret_data(spec)


@pytest.mark.parametrize("given", [VALUE, [VALUE], 12345678], ids=["text", "list", "number"])
def test_a_secret_of_the_wrong_type_is_not_shown_either(given: Any) -> None:
    with pytest.raises(BadSpec) as caught:
        parsed({"name": "a", "gcs_fault_tolerance": {"redis_address": "redis:6379", "redis_password": given}})
    assert "redis_password" in str(caught.value)
    assert VALUE not in str(caught.value)
    assert "12345678" not in str(caught.value)
