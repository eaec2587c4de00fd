from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runner.errors import BadInput
from runner.packages.roots import site_packages, workspace_root
from runner.packages.scan import Entry, Listing, scan
from tests.unit.package_trees import PRIVATE_KEY, SERVICE_ACCOUNT, going, paths, plain, staying, write


def kinds(listing: Listing) -> dict[str, str]:
    return {entry.path: entry.target or entry.kind for entry in listing.entries}


@pytest.mark.parametrize("mark", ["pyproject.toml", "setup.cfg", ".git/HEAD"])
def test_the_workspace_is_the_nearest_marked_folder(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path, mark, "a/b/c.py", "a/setup.py")
    assert workspace_root(tmp_path / "a/b") == tmp_path
    monkeypatch.chdir(tmp_path / "a/b")
    assert workspace_root() == tmp_path
    plain(tmp_path, "a/pyproject.toml")
    assert workspace_root() == tmp_path / "a"


def test_without_a_marked_folder_it_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(Path, "exists", lambda self: False)
    assert workspace_root(tmp_path / "a") == tmp_path / "a"


def test_site_packages_are_where_this_package_manager_installs() -> None:
    assert Path(pytest.__file__).parents[1] in site_packages()


def test_entries_are_sorted_with_sizes_and_executable_bits(tmp_path: Path) -> None:
    write(tmp_path, {"b/z.py": "12345", "a.py": "1", "b/run": "#!", "a/x": "", "B": ""})
    (tmp_path / "b/run").chmod(0o700)
    (tmp_path / "b/z.py").chmod(0o655)  # only others may execute it
    found = [(entry.path, entry.size, entry.executable) for entry in scan(tmp_path).entries]
    assert found == [("B", 0, False), ("a.py", 1, False), ("a/x", 0, False), ("b/run", 2, True), ("b/z.py", 5, False)]


def test_empty_folders_go_and_folders_of_ignored_things_do_not(tmp_path: Path) -> None:
    write(tmp_path, {"a/": "", "b/c/": "", "left/__pycache__/x.pyc": "", "d/.env": "", "e/x": ""})
    assert kinds(scan(tmp_path)) == {"a": "folder", "b/c": "folder", "e/x": "file"}


def test_an_ignored_folder_is_told_once(tmp_path: Path) -> None:
    plain(tmp_path, ".venv/a", ".venv/b/c", ".venv/b/.env", "x")
    assert staying(tmp_path) == {".venv/": "virtual environment"}


def test_an_ignored_folder_is_not_entered(tmp_path: Path) -> None:
    write(tmp_path, {".gitignore": "private\n", "a": ""})
    (tmp_path / "private").mkdir()
    os.symlink("/usr", tmp_path / "private/usr")
    assert going(tmp_path) == ["a"]


def test_links_inside_of_the_root_stay_links(tmp_path: Path) -> None:
    plain(tmp_path, "lib/deep/a.py", "b.py")
    for link, target in {
        "to_file": "b.py",
        "lib/up": "../b.py",
        "to_folder": "lib/deep",
        "absolute": str(tmp_path / "lib/deep/a.py"),
        "lib/absolute": str(tmp_path / "lib/deep"),
        "chain": "to_file",
    }.items():
        os.symlink(target, tmp_path / link)
    assert kinds(scan(tmp_path)) == {
        "absolute": "lib/deep/a.py", "b.py": "file", "chain": "to_file", "lib/absolute": "deep", "lib/deep/a.py": "file",
        "lib/up": "../b.py", "to_file": "b.py", "to_folder": "lib/deep",
    }  # fmt: skip


def test_links_to_files_outside_go_as_files(tmp_path: Path) -> None:
    plain(tmp_path / "root", "a.py")
    write(tmp_path, {"outside/tool": "#!tool"})
    (tmp_path / "outside/tool").chmod(0o755)
    os.symlink("../outside/tool", tmp_path / "root/relative")
    os.symlink(tmp_path / "outside/tool", tmp_path / "root/absolute")
    os.symlink("../root/a.py", tmp_path / "root/out_and_in")
    found = {entry.path: (entry.kind, entry.size, entry.executable) for entry in scan(tmp_path / "root").entries}
    assert found == {
        "a.py": ("file", 1, False), "absolute": ("file", 6, True), "relative": ("file", 6, True), "out_and_in": ("file", 1, False),
    }  # fmt: skip


def test_a_link_to_a_secret_outside_stays_whatever_its_name(tmp_path: Path) -> None:
    write(tmp_path, {"home/.ssh/work": "x", "home/.env": "", "home/key": PRIVATE_KEY, "home/sa.json": SERVICE_ACCOUNT})
    plain(tmp_path / "root", "a.py")
    for name, target in {"config": ".ssh/work", "settings": ".env", "k": "key", "s.json": "sa.json"}.items():
        os.symlink(f"../home/{target}", tmp_path / "root" / name)
    assert going(tmp_path / "root") == ["a.py"]
    assert staying(tmp_path / "root") == {
        "config": "secret: keys of SSH, by a link",
        "k": "secret: private key",
        "s.json": "secret: service account key",
        "settings": "secret: environment file, by a link",
    }
    assert scan(tmp_path / "root", include=["config"]).warnings == (
        "config goes although it looks like a secret: keys of SSH, by a link; include 'config' brings it back",
    )


def test_links_to_nothing_and_to_devices_stay(tmp_path: Path) -> None:
    os.symlink("missing", tmp_path / "broken")
    os.symlink("/no/such/file", tmp_path / "broken_outside")
    os.symlink("/dev/null", tmp_path / "null")
    assert staying(tmp_path) == {"broken": "link to nothing", "broken_outside": "link to nothing", "null": "link to a device"}


def test_a_link_to_a_folder_outside_is_refused_unless_it_is_left_out(tmp_path: Path) -> None:
    plain(tmp_path, "data/x", "root/a.py")
    os.symlink("../data", tmp_path / "root/data")
    os.symlink("..", tmp_path / "root/above")
    with pytest.raises(BadInput) as refused:
        scan(tmp_path / "root")
    first, second = str(refused.value).splitlines()
    assert first.startswith(f"{tmp_path}/root/above: a link to a folder outside of the root: ..;")
    assert second == (
        f"{tmp_path}/root/data: a link to a folder outside of the root: ../data; "
        "leave it out with a line in .runnerignore, or copy the folder"
    )
    write(tmp_path / "root", {".runnerignore": "data\n/above\n"})
    assert going(tmp_path / "root") == ["a.py"]


def test_a_link_by_the_name_of_a_folder_that_stays_is_no_error(tmp_path: Path) -> None:
    plain(tmp_path, "data/x", "root/a.py")
    for name in (".venv", "images.lance", "node_modules"):
        os.symlink("../data", tmp_path / "root" / name)
    assert staying(tmp_path / "root") == {
        ".venv": "virtual environment",
        "images.lance": "Lance table",
        "node_modules": "build output",
    }


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    os.symlink("b", tmp_path / "a")
    os.symlink("a", tmp_path / "b")
    with pytest.raises(BadInput, match=f"(?s){tmp_path}/a: a link in a circle; .*{tmp_path}/b: a link in a circle"):
        scan(tmp_path)


def test_a_link_up_the_tree_is_kept_and_not_followed(tmp_path: Path) -> None:
    plain(tmp_path, "a/b.py")
    os.symlink("..", tmp_path / "a/up")
    assert kinds(scan(tmp_path)) == {"a/b.py": "file", "a/up": ".."}


def test_a_link_whose_target_leads_out_through_another_is_no_link_in_the_package(tmp_path: Path) -> None:
    plain(tmp_path, "out/x.py", "root/sub/a.py")
    os.symlink("../sub", tmp_path / "root/sub/here")  # stays inside
    os.symlink("here/../../out/x.py", tmp_path / "root/sub/x")
    found = scan(tmp_path / "root").entries
    assert [(entry.path, entry.kind) for entry in found] == [("sub/a.py", "file"), ("sub/here", "link"), ("sub/x", "file")]


def test_odd_names_go(tmp_path: Path) -> None:
    names = [
        "a b.py",
        "größe.py",
        "new\nline",
        "tab\t",
        "'quote\"",
        "Case.py",
        "case.py",
        "back\\slash",
        "-dash",
        "日本",
        "%41",
        "~",
    ]
    plain(tmp_path, *names, "sp ace/x")
    assert paths(scan(tmp_path)) == sorted([*names, "sp ace/x"])


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9")).write_text("")
    with pytest.raises(BadInput, match=r"latin\\xe9': the name is not UTF-8; rename it"):
        scan(tmp_path)


def test_a_link_whose_target_is_not_utf8_is_refused(tmp_path: Path) -> None:
    plain(tmp_path, "x", ".venv/y")
    os.mkdir(os.fsencode(tmp_path) + b"/.venv/caf\xe9")
    os.symlink(b".venv/caf\xe9/../../x", os.fsencode(tmp_path) + b"/link")
    with pytest.raises(BadInput, match=f"{tmp_path}/link: a link to a name that is not UTF-8; leave it out"):
        scan(tmp_path)


def test_what_is_no_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # the address of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        assert staying(tmp_path) == {"pipe": "pipe", "socket": "socket"}


def test_an_unreadable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain(tmp_path, "open/a", "closed/b")
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("/closed/"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(BadInput, match=r"cannot read .*/closed/: Permission denied; leave it out with a line in .runnerignore"):
        scan(tmp_path)


def test_what_is_no_workspace_is_refused(tmp_path: Path) -> None:
    plain(tmp_path, "file")
    for root in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BadInput, match=f"{root} is no folder"):
            scan(root)
    with pytest.raises(BadInput, match="root of the file system"):
        scan(Path("/"))


def test_a_root_that_is_a_link_is_the_folder(tmp_path: Path) -> None:
    plain(tmp_path, "real/a.py")
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert scan(tmp_path / "link") == scan(tmp_path / "real")


def test_deep_trees_are_walked(tmp_path: Path) -> None:
    place = tmp_path.joinpath(*["d"] * 300)
    place.mkdir(parents=True)
    (place / "x").write_text("")
    (entry,) = scan(tmp_path).entries
    assert entry == Entry("d/" * 300 + "x", "file", stamp=entry.stamp)
