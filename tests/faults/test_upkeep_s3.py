"""`doctor` and `checkpoints gc` on a real S3 server."""

from __future__ import annotations

import datetime as dt
import uuid

import pyarrow as pa

import runner
from runner.doctor import storage
from runner.leftovers import collect
from runner.store import Store


def test_doctor_finds_all_that_leases_stand_on(s3: dict[str, str]) -> None:
    store = Store(f"s3://faults/{uuid.uuid4().hex}", s3)
    found = list(storage.look(store))
    assert [(check.name, check.status) for check in found] == [
        ("store", "OK"), ("store: create once", "OK"), ("store: delete", "OK"), ("clock of the store", "OK"),
    ]  # fmt: skip
    assert [path for path, _ in store.objects("doctor") if not path.endswith("doctor")] == []


def test_doctor_on_a_store_that_refuses(s3: dict[str, str]) -> None:
    wrong = {**s3, "aws_secret_access_key": "another", "client_max_retries": "0"}
    (found,) = storage.look(Store("s3://faults/refused", wrong))
    assert (found.name, found.status) == ("store", "FAIL")
    assert "cannot write s3://faults/refused/_runner/doctor/" in found.found
    assert "credentials" in found.remedy


def test_what_a_dropped_table_left_goes(s3: dict[str, str]) -> None:
    db = runner.connect(f"s3://faults/{uuid.uuid4().hex}", storage_options=s3)
    db.create_table("kept", pa.table({"x": [1]}))
    db.store.put("staging/gone/y/0-abc/0000000000-1.part", b"four")
    db.store.put("staging/gone/y/1-abc/done.json", b"{}")
    would = collect(db, dt.timedelta(days=30), dry_run=True)
    assert [(one.name, one.why, one.bytes) for one in would] == [
        ("staging/gone/y/0-abc", "table gone is gone", 4),
        ("staging/gone/y/1-abc", "table gone is gone", 2),
    ]
    assert len(list(db.store.objects("staging"))) == 2
    assert collect(db, dt.timedelta(days=30)) == would
    assert collect(db, dt.timedelta(days=30)) == []
