from __future__ import annotations

import datetime as dt
import os
import pickle
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from obstore.store import S3Store

from runner.errors import BadInput, StorageError
from runner.store import Store, normalise_uri, retry_config, secret_options, split_options

KEYS = {"aws_access_key_id": "id", "aws_secret_access_key": "secret", "region": "eu-west-1"}


def test_an_object_is_read_as_it_was_written_and_what_is_not_there_is_none(store: Store) -> None:
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert store.get("a/b.json") == b"two"
    assert store.get("a/c.json") is None
    assert (Path(store.uri) / "_runner/a/b.json").read_bytes() == b"two"


def test_create_writes_once(store: Store) -> None:
    assert store.create("lease/1", b"first") is True
    assert store.create("lease/1", b"second") is False
    assert store.get("lease/1") == b"first"


def test_objects_lists_a_folder_and_not_its_namesakes(store: Store) -> None:
    for path in ("t/a/1", "t/a/deep/2", "t/ab/3", "t/a.json"):
        store.put(path, b"12345"[: len(path) - 4])
    assert sorted(store.objects("t/a")) == [("t/a/1", 1), ("t/a/deep/2", 5)]
    assert list(store.objects("nothing")) == []


def test_delete_removes_and_forgives_what_is_gone(store: Store) -> None:
    store.put("a", b"")
    store.put("b", b"")
    store.delete(["a", "never", "a"])
    assert [path for path, _ in store.objects("")] == ["b"]


def test_delete_folder_leaves_neither_objects_nor_empty_folders(store: Store) -> None:
    store.put("staging/t/x/1", b"")
    store.put("staging/t/x/deep/2", b"")
    store.put("staging/t/xy/3", b"")
    store.delete_folder("staging/t/x")
    assert sorted(os.listdir(Path(store.uri) / "_runner/staging/t")) == ["xy"]
    store.delete_folder("staging/t/x")


def test_publish_is_a_hard_link_that_outlives_the_staged_name(store: Store) -> None:
    store.put("staging/x.lance", b"values")
    os.makedirs(Path(store.uri) / "t.lance/data")
    store.publish("staging/x.lance", "t.lance/data/y.lance")
    staged, published = Path(store.uri) / "_runner/staging/x.lance", Path(store.uri) / "t.lance/data/y.lance"
    assert staged.stat().st_ino == published.stat().st_ino
    store.delete(["staging/x.lance"])
    assert published.read_bytes() == b"values"
    store.remove_published("t.lance/data/y.lance")
    store.remove_published("t.lance/data/y.lance")
    assert not published.exists()


def test_folders_are_the_tables_and_the_runners_own(store: Store) -> None:
    assert store.folders() == []
    assert not Path(store.uri).exists()
    os.makedirs(Path(store.uri) / "images.lance/data")
    store.put("jobs/1.json", b"")
    (Path(store.uri) / "notes.txt").write_text("no folder")
    assert sorted(store.folders()) == ["_runner", "images.lance"]


def test_a_refusal_of_the_disk_names_the_object(store: Store) -> None:
    Path(store.uri).mkdir()
    (Path(store.uri) / "_runner").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=f"cannot write {store.uri}/_runner/jobs/1.json: .+"):
        store.put("jobs/1.json", b"")
    with pytest.raises(StorageError, match="cannot write"):
        store.create("jobs/1.json", b"")
    with pytest.raises(StorageError, match="cannot publish"):
        store.publish("jobs/1.json", "t.lance/data/1")


def test_a_store_travels_to_another_process_without_its_open_connection(store: Store) -> None:
    store.put("a", b"1")
    arrived = pickle.loads(pickle.dumps(store))
    assert (arrived.uri, arrived.get("a")) == (store.uri, b"1")
    far = pickle.loads(pickle.dumps(Store("s3://bucket/db/", KEYS)))
    assert (far.uri, far.storage_options, far.is_local) == ("s3://bucket/db", KEYS, False)
    assert far.url("jobs/1") == "s3://bucket/db/_runner/jobs/1"


@pytest.mark.parametrize("name", ["a b", "größe", "100%", "a%20b", "x+y", "a#b", "a?b"])
def test_a_database_in_a_folder_of_any_name_is_found_again(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / name)  # type: ignore[arg-type]
    store.put("a/b", b"1")
    assert (tmp_path / name / "_runner/a/b").read_bytes() == b"1"
    assert list(store.objects("a")) == [("a/b", 1)]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/db", "/data/db"),
        ("/data/db/", "/data/db"),
        (Path("/data/db"), "/data/db"),
        ("file:///data/db/", "/data/db"),
        ("s3://bucket/db/", "s3://bucket/db"),
        ("gs://bucket", "gs://bucket"),
        ("az://container/db//", "az://container/db"),
    ],
)
def test_an_address_is_normalised(uri: Any, expected: str) -> None:
    assert normalise_uri(uri) == expected


def test_a_relative_path_and_a_home_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert normalise_uri("data/db") == str(tmp_path / "data/db")
    assert normalise_uri("~/db") == "/home/somebody/db"


@pytest.mark.parametrize(("uri", "message"), [("db://cloud", "LanceDB Cloud or Enterprise"), ("", "address is empty")])
def test_an_address_that_is_no_database_of_files_is_refused(uri: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        normalise_uri(uri)
    with pytest.raises(BadInput, match=message):
        Store(uri)


@pytest.mark.parametrize(
    ("given", "config", "client"),
    [
        ({"allow_http": "true"}, {}, {"allow_http": True}),
        ({"allow_http": "false"}, {}, {"allow_http": False}),
        ({"ALLOW_HTTP": "1"}, {}, {"allow_http": True}),
        ({"allow_http": True}, {}, {"allow_http": True}),
        ({"allow_invalid_certificates": "yes"}, {}, {"allow_invalid_certificates": True}),
        ({"http1_only": "no"}, {}, {"http1_only": False}),
        ({"timeout": "60s", "connect_timeout": "5s"}, {}, {"timeout": "60s", "connect_timeout": "5s"}),
        ({"read_timeout": "60s", "pool_idle_timeout": "9s"}, {}, {"read_timeout": "60s", "pool_idle_timeout": "9s"}),
        ({"pool_max_idle_per_host": "4"}, {}, {"pool_max_idle_per_host": "4"}),
        ({"proxy_url": "http://p", "proxy_excludes": "a"}, {}, {"proxy_url": "http://p", "proxy_excludes": "a"}),
        ({"proxy_ca_certificate": "PEM"}, {}, {"proxy_ca_certificate": "PEM"}),
        ({"user_agent": "me"}, {}, {"user_agent": "me"}),
        ({"headers.X-Team": "images", "HEADERS.x-b": "c"}, {}, {"default_headers": {"x-team": "images", "x-b": "c"}}),
        ({"AWS_REGION": "x", "endpoint": "http://e"}, {"aws_region": "x", "endpoint": "http://e"}, {}),
        ({"virtual_hosted_style_request": "true"}, {"virtual_hosted_style_request": "true"}, {}),
        ({"download_retry_count": "3", "client_max_retries": "2", "client_retry_timeout": "9"}, {}, {}),
        ({"expires_at_millis": "1", "new_table_data_storage_version": "2.1", "refresh_offset_millis": "1"}, {}, {}),
        ({"lance_aimd_max_retries": "3"}, {}, {}),
        ({}, {}, {}),
    ],
)
def test_options_as_lance_takes_them_are_split_as_obstore_takes_them(
    given: dict[str, str], config: dict[str, Any], client: dict[str, Any]
) -> None:
    assert split_options(given) == (config, client)


@pytest.mark.parametrize(
    "options",
    [
        {"allow_http": "true", "endpoint": "http://localhost:1"},
        {"allow_invalid_certificates": "false"},
        {"timeout": "60s", "connect_timeout": "5s", "read_timeout": "1m", "pool_idle_timeout": "9s"},
        {"pool_max_idle_per_host": "4", "user_agent": "me", "proxy_url": "http://proxy:1", "proxy_excludes": "localhost"},
        {"http1_only": "true"},
        {"headers.X-Team": "images"},
        {"http2_only": "true", "http2_keep_alive_interval": "3s", "http2_keep_alive_timeout": "3s", "randomize_addresses": "false"},
        {"http2_keep_alive_while_idle": "true", "http2_max_frame_size": "30000", "default_content_type": "text/plain"},
        {"download_retry_count": "3", "client_max_retries": "2", "client_retry_timeout": "9", "expires_at_millis": "1"},
        {
            "AWS_SESSION_TOKEN": "t",
            "aws_unsigned_payload": "true",
            "aws_server_side_encryption": "aws:kms",
            "aws_sse_kms_key_id": "k",
        },
        {"virtual_hosted_style_request": "true", "aws_copy_if_not_exists": "multipart"},
    ],
)
def test_obstore_takes_every_option_that_lance_takes(options: dict[str, str]) -> None:
    assert isinstance(Store("s3://bucket/db", {**KEYS, **options})._store, S3Store)


def test_headers_and_plain_http_reach_the_server() -> None:
    seen: list[str | None] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["X-Team"])
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Nothing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {"endpoint": f"http://127.0.0.1:{server.server_port}", "allow_http": "true", "headers.X-Team": "images"}
        assert Store("s3://bucket/db", {**KEYS, **options}).get("a") is None
        server.shutdown()
    assert seen == ["images"]


def test_secret_options_stay_and_headers_may_hold_one() -> None:
    options = {**KEYS, "headers.authorization": "Bearer x", "timeout": "5s"}
    assert secret_options(Store("s3://bucket/db", options)).keys() == options.keys() - {"region", "timeout"}


def test_an_option_that_nobody_knows_is_told_with_its_name() -> None:
    with pytest.raises(StorageError, match=r"(?s)cannot open s3://bucket/db: .*aws_regoin"):
        Store("s3://bucket/db", {**KEYS, "aws_regoin": "x"}).get("a")


def test_retries_are_lance_s_and_a_patient_store_keeps_what_the_caller_set() -> None:
    assert retry_config({"region": "eu"}) is None
    given = {"Client_Max_Retries": "3", "client_retry_timeout": "7"}
    assert retry_config(given) == {"max_retries": 3, "retry_timeout": dt.timedelta(seconds=7)}
    with pytest.raises(BadInput, match=r"storage_options: client_max_retries='many' is no whole number"):
        retry_config({"client_max_retries": "many"})
    patient = Store("s3://b/db", {"client_max_retries": "3", "region": "eu"}).patient()
    assert patient.storage_options == {"client_max_retries": "3", "client_retry_timeout": "180", "region": "eu"}
    assert Store("s3://b/db").patient().storage_options == {"client_max_retries": "100", "client_retry_timeout": "180"}
