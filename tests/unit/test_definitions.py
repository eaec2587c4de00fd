from __future__ import annotations

import datetime as dt
import getpass
import json
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from runner.definitions import Definition, Definitions
from runner.errors import BadInput, StorageError
from runner.store import Store

Plain = dict[str, Any]


@pytest.fixture
def clusters(store: Store) -> Definitions:
    return Definitions(store, "clusters")


def stored(store: Store, path: str) -> Any:
    data = store.get(path)
    assert data is not None
    return json.loads(data)


def revisions(store: Store, name: str) -> list[str]:
    return sorted(path for path, _ in store.objects(f"clusters/{name}"))


def test_a_definition_is_an_object_that_says_who_made_it_and_when(store: Store, clusters: Definitions) -> None:
    before = dt.datetime.now(dt.UTC).replace(microsecond=0)
    made = clusters.define("dev", {"name": "dev", "cpus": 2})
    assert (made.name, made.revision, made.spec, made.is_new) == ("dev", 1, {"name": "dev", "cpus": 2}, True)
    assert clusters.get("dev") == made
    kept = stored(store, "clusters/dev/000001.json")
    assert set(kept) == {"name", "revision", "defined_at", "user", "host", "spec"}
    assert (kept["user"], kept["host"]) == (getpass.getuser(), socket.gethostname())
    assert before <= dt.datetime.fromisoformat(kept["defined_at"]) <= dt.datetime.now(dt.UTC)
    assert kept == made.to_dict()


def test_each_change_is_a_revision_and_what_is_the_same_makes_none(store: Store, clusters: Definitions) -> None:
    first = clusters.define("dev", {"a": 1, "b": [1, {"c": None}]})
    again = clusters.define("dev", {"b": (1, {"c": None}), "a": 1})
    assert (again, again.is_new) == (first, False)
    second = clusters.define("dev", {"a": 2})
    assert (second.revision, second.is_new) == (2, True)
    back = clusters.define("dev", {"a": 1, "b": [1, {"c": None}]})
    assert back.revision == 3
    assert clusters.get("dev") == back
    assert clusters.get("dev", 2) == second
    assert clusters.history("dev") == [back, second, first]
    assert revisions(store, "dev") == [f"clusters/dev/00000{number}.json" for number in (1, 2, 3)]


def test_a_deletion_is_a_revision_too_and_the_history_stays(store: Store, clusters: Definitions) -> None:
    first = clusters.define("dev", {"a": 1})
    deleted = clusters.delete("dev")
    assert (deleted.revision, deleted.spec) == (2, None)
    assert stored(store, "clusters/dev/000002.json")["spec"] is None
    assert (clusters.names(), clusters.current()) == ([], [])
    gone = re.escape(f"was deleted at {deleted.defined_at} by {deleted.author}; revision 1 is what it was: define that again")
    for call in (clusters.get, clusters.delete):
        with pytest.raises(BadInput, match=gone):
            call("dev")
    with pytest.raises(BadInput, match=gone):
        clusters.get("dev", 2)
    assert clusters.get("dev", 1) == first
    assert clusters.define("dev", {"a": 1}).revision == 3
    assert [each.spec for each in clusters.history("dev")] == [{"a": 1}, None, {"a": 1}]
    assert clusters.names() == ["dev"]


def test_an_unknown_name_is_told_with_the_nearest_there_are(store: Store, clusters: Definitions) -> None:
    with pytest.raises(BadInput, match=f"no cluster 'dev' in {store.uri}; it has no clusters"):
        clusters.get("dev")
    for name in ("production", "gpu", "dev"):
        clusters.define(name, {})
    for call in (clusters.get, clusters.history, clusters.delete):
        with pytest.raises(BadInput, match=f"no cluster 'prodution' in {store.uri}; it has production$"):
            call("prodution")
    with pytest.raises(BadInput, match=r"no cluster 'prodution' in .*; it has production$"):
        clusters.get("prodution", 1)
    with pytest.raises(BadInput, match=r"no cluster '\.\./x' in .*; it has dev, gpu, production$"):
        clusters.get("../x")
    with pytest.raises(BadInput, match=f"cluster 'dev' of {store.uri} has no revision 7; its latest is 1"):
        clusters.get("dev", 7)
    clusters.delete("production")
    with pytest.raises(BadInput, match=r"it has dev, gpu$"):
        clusters.get("prodution")


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "a.", "-a", "a b", "größe", "a\n", "a\\b", "a" * 101])
def test_what_cannot_be_a_name_is_refused_and_nothing_is_written(store: Store, clusters: Definitions, name: str) -> None:
    with pytest.raises(BadInput, match=re.escape(repr(name)) + " cannot be the name of a cluster: at most 100 letters, digits"):
        clusters.define(name, {})
    assert list(store.objects("")) == []


@pytest.mark.parametrize("spec", [{"a": object()}, {"a": {1}}, {"a": float("nan")}, {"a": b"x"}])
def test_what_is_no_plain_data_is_refused(store: Store, clusters: Definitions, spec: Plain) -> None:
    with pytest.raises(BadInput, match=r"cluster 'dev' cannot be stored: .+; give text, numbers, lists and mappings only"):
        clusters.define("dev", spec)
    assert list(store.objects("")) == []


def test_kinds_are_apart_and_names_that_begin_alike_too(store: Store, clusters: Definitions) -> None:
    manifests = Definitions(store, "manifests")
    for name in ("dev", "dev-2", "dev.3", "de"):
        clusters.define(name, {"name": name})
    manifests.define("dev", {"pip": ["numpy"]})
    assert clusters.names() == ["de", "dev", "dev-2", "dev.3"]
    assert manifests.names() == ["dev"]
    assert len(clusters.history("dev")) == 1
    with pytest.raises(BadInput, match=r"no manifest 'de' in .*; it has dev"):
        manifests.get("de")


def test_objects_of_others_are_no_revisions(store: Store, clusters: Definitions) -> None:
    made = clusters.define("dev", {})
    for path in ("dev/notes.txt", "dev/1.json", "dev/000009.json.bak", "dev/old/000009.json", "000009.json", "other/readme"):
        store.put(f"clusters/{path}", b"")
    assert clusters.current() == [made]
    assert clusters.define("dev", {"a": 1}).revision == 2
    with pytest.raises(BadInput, match="no cluster 'other'"):
        clusters.get("other")


def test_revisions_are_numbers_beyond_six_digits(store: Store, clusters: Definitions) -> None:
    latest = Definition("dev", 999_999, "2026-01-01T00:00:00+00:00", "ana", "host", {"a": 1})
    store.put("clusters/dev/999999.json", json.dumps(latest.to_dict()).encode())
    assert clusters.define("dev", {"a": 2}).revision == 1_000_000
    assert clusters.get("dev").spec == {"a": 2}
    assert clusters.define("dev", {"a": 3}).revision == 1_000_001


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"name": "dev"}', b"\xff"])
def test_an_object_that_is_no_definition_is_told_with_its_address(store: Store, clusters: Definitions, content: bytes) -> None:
    clusters.define("dev", {})
    store.put("clusters/dev/000002.json", content)
    with pytest.raises(
        StorageError, match=f"{store.uri}/_runner/clusters/dev/000002.json holds no definition .* remove that object"
    ):
        clusters.get("dev")
    store.delete(["clusters/dev/000002.json"])
    assert clusters.get("dev").revision == 1


def test_fields_that_a_later_version_adds_are_passed_over(store: Store, clusters: Definitions) -> None:
    made = clusters.define("dev", {"a": 1})
    store.put("clusters/dev/000001.json", json.dumps({**made.to_dict(), "signature": "x"}).encode())
    assert clusters.get("dev") == made


class MeetingStore(Store):
    """Lets nobody create before all have come to their first create: all have read the same latest revision by then."""

    def __init__(self, uri: str, parties: int) -> None:
        super().__init__(uri)
        self._barrier = threading.Barrier(parties, timeout=60)
        self._met = threading.local()

    def create(self, path: str, data: bytes) -> bool:
        if not getattr(self._met, "once", False):
            self._met.once = True
            self._barrier.wait()
        return super().create(path, data)


def at_once(calls: list[Callable[[Definitions], Definition]], uri: str) -> list[Definition | BaseException]:
    """What each call returns or raises, all made before any of them writes."""
    clusters = Definitions(MeetingStore(uri, len(calls)), "clusters")
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call, clusters) for call in calls]
        return [future.exception() or future.result() for future in futures]


def test_of_two_who_define_at_once_both_are_kept(store: Store, clusters: Definitions) -> None:
    clusters.define("dev", {"by": "nobody"})
    made = at_once([lambda known: known.define("dev", {"by": "ana"}), lambda known: known.define("dev", {"by": "ben"})], store.uri)
    history = clusters.history("dev")
    assert [each.revision for each in history] == [3, 2, 1]
    assert sorted(str(each.spec) for each in history) == ["{'by': 'ana'}", "{'by': 'ben'}", "{'by': 'nobody'}"]
    assert sorted(made, key=lambda each: -each.revision) == history[:2]  # type: ignore[union-attr]
    assert all(each.is_new for each in made)  # type: ignore[union-attr]


def test_of_many_who_define_at_once_none_is_lost(store: Store, clusters: Definitions) -> None:
    def defining(number: int) -> Callable[[Definitions], Definition]:
        return lambda known: known.define("dev", {"number": number})

    made = at_once([defining(number) for number in range(8)], store.uri)
    history = clusters.history("dev")
    assert [each.revision for each in history] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert {each.spec["number"] for each in history if each.spec} == set(range(8))
    assert {each.revision for each in made if isinstance(each, Definition)} == set(range(1, 9))


def test_two_who_define_the_same_at_once_make_one_revision(store: Store, clusters: Definitions) -> None:
    made = at_once([lambda known: known.define("dev", {"a": 1})] * 2, store.uri)
    assert made[0] == made[1] == clusters.get("dev")
    assert sorted(each.is_new for each in made) == [False, True]  # type: ignore[union-attr]
    assert revisions(store, "dev") == ["clusters/dev/000001.json"]


def test_of_two_who_delete_at_once_one_is_told_that_it_is_gone(store: Store, clusters: Definitions) -> None:
    clusters.define("dev", {"a": 1})
    ended = at_once([lambda known: known.delete("dev")] * 2, store.uri)
    assert sorted(type(each).__name__ for each in ended) == ["BadInput", "Definition"]
    assert len(clusters.history("dev")) == 2


def test_who_defines_while_another_deletes_has_the_last_word_or_the_deletion_has(store: Store, clusters: Definitions) -> None:
    clusters.define("dev", {"a": 1})
    at_once([lambda known: known.delete("dev"), lambda known: known.define("dev", {"a": 2})], store.uri)
    assert {json.dumps(each.spec) for each in clusters.history("dev")} == {'{"a": 1}', '{"a": 2}', "null"}


def test_a_read_only_database_says_so(store: Store, clusters: Definitions) -> None:
    Path(store.uri).mkdir()
    (Path(store.uri) / "_runner").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match=r"cannot (write|list) .*_runner"):
        clusters.define("dev", {})
