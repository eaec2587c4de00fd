from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.errors import ColumnBusy, StorageError
from runner.lease import EXPIRE_SECONDS, column_leases
from runner.store import Store


def holder(**changes: Any) -> dict[str, Any]:
    mine = {"job": "job-1", "host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    return {**mine, "renewed": time.time(), **changes}


def put_lease(store: Store, number: int, content: dict[str, Any]) -> None:
    store.put(f"leases/images/label/{number:010d}.json", json.dumps(content).encode())


def leases(store: Store) -> list[str]:
    return sorted(path for path, _ in store.objects("leases"))


def test_a_lease_names_its_holder_while_it_is_held_and_leaves_nothing(store: Store) -> None:
    with column_leases(store, "images", ["label"], "job-1"):
        (path,) = leases(store)
        content = json.loads(store.get(path) or b"")
        assert {name: content[name] for name in ("job", "host", "pid")} == {
            "job": "job-1",
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        assert abs(content["renewed"] - time.time()) < 5
    assert leases(store) == []


def test_a_second_holder_is_refused_and_told_of_the_first(store: Store) -> None:
    other = Store(store.uri)
    with (
        column_leases(store, "images", ["label"], "job-1"),
        pytest.raises(
            ColumnBusy, match=f"column 'label' of table 'images' .* job job-1 .process {os.getpid()} on {socket.gethostname()}"
        ),
        column_leases(other, "images", ["label"], "job-2"),
    ):
        raise AssertionError("both hold it")
    with column_leases(other, "images", ["label"], "job-2"):
        assert len(leases(store)) == 1


def test_other_columns_and_tables_are_free(store: Store) -> None:
    with (
        column_leases(store, "images", ["label"], "job-1"),
        column_leases(store, "images", ["label2", "lab"], "job-2"),
        column_leases(store, "images2", ["label"], "job-3"),
    ):
        assert len(leases(store)) == 4


@pytest.mark.parametrize("name", ["a/b", "größe", "a b", "100%", "a.b"])
def test_columns_of_any_name_are_held_and_let_go(store: Store, name: str) -> None:
    with (
        column_leases(store, "images", [name], "job-1"),
        pytest.raises(ColumnBusy),
        column_leases(store, "images", [name], "job-2"),
    ):
        raise AssertionError("both hold it")
    assert leases(store) == []


def test_one_busy_column_of_several_frees_the_others_again(store: Store) -> None:
    with column_leases(store, "images", ["b"], "job-1"):
        with pytest.raises(ColumnBusy, match="column 'b'"), column_leases(store, "images", ["c", "b", "a"], "job-2"):
            raise AssertionError("both hold it")
        assert leases(store) == ["leases/images/b/0000000001.json"]


def test_an_error_inside_frees_the_column(store: Store) -> None:
    with pytest.raises(KeyError), column_leases(store, "images", ["label"], "job-1"):
        raise KeyError
    assert leases(store) == []


def test_the_lease_of_a_dead_process_is_taken_over(store: Store, tmp_path: Path) -> None:
    script = (
        "import os, sys; from runner.lease import column_leases; from runner.store import Store\n"
        "with column_leases(Store(sys.argv[1]), 'images', ['label'], 'job-dead'): os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", script, store.uri], check=True, cwd=Path(__file__).parents[2])
    assert leases(store) == ["leases/images/label/0000000001.json"]
    with column_leases(store, "images", ["label"], "job-2"):
        content = json.loads(store.get("leases/images/label/0000000002.json") or b"")
        assert content["job"] == "job-2"
    assert leases(store) == []


def test_a_process_that_only_has_the_number_of_the_dead_one_holds_nothing(store: Store) -> None:
    put_lease(store, 7, holder(started=psutil.Process().create_time() - 3600))
    with column_leases(store, "images", ["label"], "job-2"):
        assert "leases/images/label/0000000008.json" in leases(store)
    assert leases(store) == []


def test_a_stuttering_clock_does_not_make_a_living_process_dead(store: Store) -> None:
    put_lease(store, 1, holder(started=psutil.Process().create_time() - 1, renewed=0))
    with pytest.raises(ColumnBusy), column_leases(store, "images", ["label"], "job-2"):
        raise AssertionError("both hold it")


@pytest.mark.parametrize(("age", "is_held"), [(0.0, True), (EXPIRE_SECONDS - 10, True), (EXPIRE_SECONDS + 1, False)])
def test_on_another_machine_the_last_renewal_tells(store: Store, age: float, is_held: bool) -> None:
    put_lease(store, 3, holder(job="job-far", host="far.example", pid=1, renewed=time.time() - age))
    if is_held:
        with (
            pytest.raises(ColumnBusy, match=r"job job-far \(process 1 on far.example\)"),
            column_leases(store, "images", ["label"], "me"),
        ):
            raise AssertionError("both hold it")
        assert len(leases(store)) == 1
        return
    with column_leases(store, "images", ["label"], "me"):
        assert leases(store)[-1] == "leases/images/label/0000000004.json"
    assert leases(store) == []


def test_the_highest_number_tells_who_holds(store: Store) -> None:
    put_lease(store, 40, holder(job="job-newer"))
    for number in range(39, 0, -1):
        put_lease(store, number, holder(host="far.example", renewed=time.time() - 3600))
    with pytest.raises(ColumnBusy, match="job-newer"), column_leases(store, "images", ["label"], "me"):
        raise AssertionError("both hold it")


def test_one_that_its_holder_could_not_remove_is_no_obstacle_to_it(store: Store) -> None:
    class Away(Store):
        def delete(self, paths: Iterable[str]) -> None:
            raise StorageError("cannot delete: the storage is away")

    with column_leases(Away(store.uri), "images", ["label"], "job-1"):
        pass
    assert leases(store) == ["leases/images/label/0000000001.json"]
    with column_leases(store, "images", ["label"], "job-2"):
        assert leases(store)[-1] == "leases/images/label/0000000002.json"
        with pytest.raises(ColumnBusy, match="job-2"), column_leases(store, "images", ["label"], "job-3"):
            raise AssertionError("both hold it")
    assert leases(store) == []
