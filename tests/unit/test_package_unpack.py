from __future__ import annotations

import datetime as dt
import io
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runner.errors import BadInput, StorageError
from runner.packages import unpack
from runner.packages.errors import PackageChanged, PackageMissing
from runner.packages.format import LayerRecord, PackageRecord, layer_id, layer_path, package_id, package_path
from runner.packages.gc import collect
from runner.packages.package import build
from runner.packages.unpack import default_base, ensure, mark_used
from runner.packages.upload import upload
from runner.store import Store
from tests.unit.package_trees import write

DAY = 86_400
SHA_X = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def uploaded(store: Store, root: Path, **files: str) -> str:
    write(root, files)
    return upload(build(root), store)


def stored(store: Store, path: str) -> Path:
    return Path(store.uri) / "_runner" / path


def the_layer(store: Store) -> Path:
    (layer,) = (path for path, _ in store.objects("packages/layers"))
    return stored(store, layer)


def left(base: Path) -> list[str]:
    return [name for name in os.listdir(base) if not name.endswith(".lock")]


def test_a_package_is_unpacked_once(tmp_path: Path, store: Store) -> None:
    package = uploaded(store, tmp_path / "root", a="1")
    place = ensure(store, package, tmp_path / "node")
    store.delete_folder("packages")
    assert ensure(store, package, tmp_path / "node") == place
    with pytest.raises(PackageMissing):
        ensure(store, package, tmp_path / "other")


@pytest.mark.parametrize("damage", ["byte of a file", "name", "mode", "cut", "grown", "other zip", "json", "format"])
def test_what_changed_under_its_name_is_refused_and_nothing_is_left(tmp_path: Path, store: Store, damage: str) -> None:
    package = uploaded(store, tmp_path / "root", a="content", b="other")
    layer = the_layer(store)
    data = layer.read_bytes()
    changed = {
        "byte of a file": data.replace(b"content", b"kontent"),
        "name": data.replace(b"a", b"c"),
        "mode": data.replace(b"\xa4\x81", b"\xed\x81"),
        "cut": data[:-1],
        "grown": data + b"\0",
        "other zip": b"x" * len(data),
    }
    if damage in changed:
        assert changed[damage] != data
        layer.write_bytes(changed[damage])
    else:
        record = stored(store, package_path(package))
        text = record.read_bytes()
        record.write_bytes(text.replace(b'"format":1', b'"format":2') if damage == "format" else text + b" ")
    with pytest.raises(PackageChanged, match=f"package {package} changed under its name"):
        ensure(store, package, tmp_path / "node")
    assert left(tmp_path / "node") == []


def test_a_package_of_another_format_says_so(tmp_path: Path, store: Store) -> None:
    data = b'{"format":2}'
    store.put(package_path(package_id(data)), data)
    with pytest.raises(PackageChanged, match="cannot be read here: format 2, where this version of the runner reads format 1"):
        ensure(store, package_id(data), tmp_path / "node")


def test_what_is_missing_is_told(tmp_path: Path, store: Store) -> None:
    package = uploaded(store, tmp_path / "root", a="1")
    the_layer(store).unlink()
    with pytest.raises(PackageMissing, match=rf"\.zip of package {package} is gone; upload the package again"):
        ensure(store, package, tmp_path / "node")
    store.delete([package_path(package)])
    with pytest.raises(PackageMissing, match=f"{store.uri} has no package {package}; it was collected, or never uploaded"):
        ensure(store, package, tmp_path / "node")
    assert left(tmp_path / "node") == []


@pytest.mark.parametrize("package", ["", "abc", "../../etc/passwd", "A" * 64, "0" * 65, "0" * 63 + "\n"])
def test_what_is_no_id_is_refused(tmp_path: Path, store: Store, package: str) -> None:
    with pytest.raises(BadInput, match="is not the id of a package"):
        ensure(store, package, tmp_path / "node")


def forged(store: Store, *entries: tuple[str, int, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    """A package that somebody put together by hand: ``(name, mode, content)``."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, mode, content in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = compression
            archive.writestr(info, content)
    kinds = {stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}
    digests = {b"x": SHA_X}
    layer = layer_id(
        (name.rstrip("/"), kinds[stat.S_IFMT(mode)], "", digests.get(content, content.decode())) for name, mode, content in entries
    )
    store.put(layer_path(layer), out.getvalue())
    data = PackageRecord("workspace", None, None, (LayerRecord(layer, len(out.getvalue()), len(entries)),)).to_json()
    store.put(package_path(package_id(data)), data)
    return package_id(data)


FILE, LINK, FOLDER = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755


def test_a_forged_package_of_good_entries_is_taken(tmp_path: Path, store: Store) -> None:
    place = ensure(store, forged(store, ("a/f", FILE, b"x"), ("a/l", LINK, b"f"), ("e/", FOLDER, b"")), tmp_path / "node")
    assert (place / "a/l").read_text() == "x"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("../f", FILE, b"x")], "would lie outside"),
        ([("/tmp/f", FILE, b"x")], "would lie outside"),
        ([("a/../../f", FILE, b"x")], "would lie outside"),
        ([("a//f", FILE, b"x")], "would lie outside"),
        ([("./f", FILE, b"x")], "would lie outside"),
        ([("../e/", FOLDER, b"")], "would lie outside"),
        ([("l", LINK, b"../../outside"), ("l/f", FILE, b"x")], "cannot unpack"),
        ([("l", LINK, b"../../outside"), ("l/k", LINK, b"f")], "written through a link"),
        ([("l", LINK, b"../../outside")], "is a link out of the package: ../../outside"),
        ([("l", LINK, b"/etc/passwd")], "is a link out of the package"),
        ([("a", LINK, b"."), ("b", LINK, b"a/../../../outside")], "is a link out of the package"),
        ([("f", FILE, b"x"), ("f", FILE, b"x")], "there already"),
        ([("f", FILE, b"x"), ("f/g", FILE, b"x")], "cannot unpack"),
    ],
)
def test_nothing_is_written_outside_or_twice(
    tmp_path: Path, store: Store, entries: list[tuple[str, int, bytes]], message: str
) -> None:
    (tmp_path / "outside").mkdir()
    package = forged(store, *entries)
    with pytest.raises((PackageChanged, StorageError), match=message):
        ensure(store, package, tmp_path / "node")
    assert left(tmp_path / "node") == []
    assert os.listdir(tmp_path / "outside") == []
    assert sorted(os.listdir(tmp_path)) == ["db", "node", "outside"]


def test_a_compressed_layer_is_refused_before_it_grows(tmp_path: Path, store: Store) -> None:
    with pytest.raises(PackageChanged, match="is compressed"):
        ensure(store, forged(store, ("f", FILE, b"x"), compression=zipfile.ZIP_DEFLATED), tmp_path / "node")


def test_names_that_the_file_system_takes_for_one_are_told(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    package = uploaded(store, tmp_path / "root", Name="1", name="2")
    assert sorted(os.listdir(ensure(store, package, tmp_path / "node"))) == ["Name", "name"]
    real = open
    monkeypatch.setattr("builtins.open", lambda file, *args, **rest: real(str(file).replace("/Name", "/name"), *args, **rest))
    with pytest.raises(StorageError, match=r"two names are one on this file system, which does not tell upper from lower case"):
        ensure(store, package, tmp_path / "other")


def test_what_a_killed_process_left_is_replaced(tmp_path: Path, store: Store) -> None:
    package = uploaded(store, tmp_path / "root", a="1")
    write(tmp_path / "node" / f"{package}.partial", {"content/half": "", "content/a": "2"})
    assert os.listdir(ensure(store, package, tmp_path / "node")) == ["a"]
    assert left(tmp_path / "node") == [package]


def test_too_little_space_is_told_before_anything_is_downloaded(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = uploaded(store, tmp_path / "root", a="1" * 5_000_000)
    usage = unpack.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage._replace(free=6 << 20))
    monkeypatch.setattr(Store, "get_file", None)
    with pytest.raises(StorageError, match=f"no space in {tmp_path}/node for package {package}: 9 MB are needed and 6 MB are free"):
        ensure(store, package, tmp_path / "node")
    assert left(tmp_path / "node") == []


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path, store: Store) -> None:
    package = uploaded(store, tmp_path / "root", a="1", b="2" * 300_000)
    program = (
        "import resource, sys; from pathlib import Path; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from runner.packages.unpack import ensure; from runner.store import Store;"
        "ensure(Store(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))"
    )
    done = subprocess.run([sys.executable, "-c", program, store.uri, package, tmp_path / "node"], capture_output=True, text=True)
    assert f"StorageError: no space in {tmp_path}/node for package {package}: File too large" in done.stderr
    assert left(tmp_path / "node") == []
    ensure(store, package, tmp_path / "node")


def test_the_usual_place_is_this_users_alone(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    package = uploaded(store, tmp_path / "root", a="1")
    place = ensure(store, package)
    assert place == tmp_path / f"infill-{os.getuid()}/packages/{package}"
    assert stat.S_IMODE((tmp_path / f"infill-{os.getuid()}").stat().st_mode) == 0o700
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    os.symlink(tmp_path / "root", tmp_path / f"infill-{mine + 1}")
    with pytest.raises(BadInput, match="is not a folder of this user"):
        default_base()
    os.unlink(tmp_path / f"infill-{mine + 1}")
    (tmp_path / f"infill-{mine + 1}").mkdir()
    with pytest.raises(BadInput, match="is not a folder of this user"):
        default_base()


def test_a_worker_needs_obstore_and_the_standard_library_only() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import runner.packages.unpack"], capture_output=True, text=True, check=True
    )
    names = re.findall(r"^import time:.*\|\s*([\w.]+)$", done.stderr, re.MULTILINE)
    ours = {name for name in names if name.startswith("runner")}
    assert ours == {
        "runner", "runner.errors", "runner.store", "runner.packages", "runner.packages.errors", "runner.packages.format",
        "runner.packages.patience", "runner.packages.unpack",
    }  # fmt: skip
    foreign = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"runner"}
    assert not foreign & {"ray", "pydantic", "typer", "pathspec", "obstore", "yaml", "infra", "pyarrow", "lance"}


def aged(store: Store, days: float, *paths: str) -> None:
    for path in paths:
        file = stored(store, path)
        then = dt.datetime.now().timestamp() - days * DAY
        os.utime(file, (then, then))


def everything(store: Store) -> list[str]:
    return sorted(path for path, _ in store.objects("packages"))


def test_the_unused_is_collected_and_what_is_shared_stays(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.packages.layers.MOST_FILES", 1)
    old = uploaded(store, tmp_path / "root", shared="1", mine="2")
    (tmp_path / "root/mine").unlink()
    young = uploaded(store, tmp_path / "root", other="3")
    aged(store, 40, *everything(store))
    aged(store, 2, package_path(young))
    orphan = layer_path("1" * 64)
    fresh = layer_path("2" * 64)
    store.put(orphan, b"")
    aged(store, 40, orphan)
    store.put(fresh, b"of an upload that goes on now")
    before = everything(store)

    planned = [one.path for one in collect(store, dt.timedelta(days=30), dry_run=True)]
    assert everything(store) == before
    removed = collect(store, dt.timedelta(days=30))
    assert [one.path for one in removed] == planned
    assert planned[0] == package_path(old)
    assert orphan in planned
    assert len(planned) == 3  # the layer of "mine" too
    assert {one.path: one.bytes for one in removed}[orphan] == 0
    assert everything(store) == sorted(set(before) - set(planned))
    assert fresh in everything(store)
    assert sorted(os.listdir(ensure(store, young, tmp_path / "node"))) == ["other", "shared"]
    assert collect(store, dt.timedelta(days=30)) == []


def test_using_a_package_keeps_it(tmp_path: Path, store: Store) -> None:
    package = uploaded(store, tmp_path / "root", a="1")
    for use in (
        lambda: ensure(store, package, tmp_path / "node"),
        lambda: upload(build(tmp_path / "root"), store),
        lambda: mark_used(store, package),
    ):
        aged(store, 40, *everything(store))
        use()
        assert collect(store, dt.timedelta(days=30)) == []
        assert len(everything(store)) == 2
    aged(store, 40, *everything(store))
    assert len(collect(store, dt.timedelta(days=30))) == 2
    assert everything(store) == []


def test_a_package_is_read_where_nothing_may_be_written(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    package = uploaded(store, tmp_path / "root", a="1")
    aged(store, 40, package_path(package))

    def refuse(*_: object) -> None:
        raise StorageError("cannot write: denied")

    monkeypatch.setattr(Store, "put", refuse)
    ensure(store, package, tmp_path / "node")


def test_a_package_that_cannot_be_read_stops_the_collection(store: Store) -> None:
    store.put("packages/broken.json", b"{")
    store.put(layer_path("1" * 64), b"")
    aged(store, 40, layer_path("1" * 64))
    with pytest.raises(StorageError, match=r"packages/broken\.json cannot be read, so which layers it needs is not known"):
        collect(store, dt.timedelta(days=30))
    assert len(everything(store)) == 2
