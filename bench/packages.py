"""`python -m bench.packages`: what it takes to package a workspace and site-packages, beside Ray's own working_dir and Geneva.

Writes bench/PACKAGES.md. Every measurement is a fresh process; imports are not counted, and Ray's upload to its head node is
not either. The store is a folder on the same disk. Needs 8 GB of disk for a while.

Geneva packs a workspace when a manifest is defined. Of site-packages it packs those of its own environment and no others, so it has
no row there.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.envs import pinned, python_of

ROUNDS = 3
FILES, FILE_BYTES = 10_000, 20_000
SITE_BYTES = 1_500_000_000
CASES = ("first", "unchanged", "one file edited")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-packages-") as work:
        folder = Path(work)
        _workspace(folder / "workspace")
        taken = _site(folder / "site")
        found: dict[str, list[dict[str, Any]]] = {}
        for number in range(ROUNDS):
            for tool in ("ours", "ray", "geneva"):
                _round(tool, "workspace", folder, number, found)
        _round("ours", "site", folder, 0, found)
        _round("ray", "site", folder, 0, found)
    text = _table(found, taken)
    Path(__file__).with_name("PACKAGES.md").write_text(text)
    print(text)


def _round(tool: str, what: str, folder: Path, number: int, found: dict[str, list[dict[str, Any]]]) -> None:
    """First, unchanged, edited: one after the other, from nothing."""
    for left in ("cache", "db", "ray", "geneva"):
        shutil.rmtree(folder / left, ignore_errors=True)
    for case in CASES:
        if case == "one file edited":
            file = folder / what / ("p3/s103/m7.py" if what == "workspace" else "numpy/__init__.py")
            content = file.read_bytes()
            file.unlink()  # of site-packages it is a hard link
            file.write_bytes(content + f"# {tool} {number}\n".encode())
        command = [sys.executable, "-m", "bench.packages", tool, what, str(folder)]
        if tool == "geneva":
            script = Path(__file__).parent / "peers" / "pack_geneva.py"
            command = [python_of("geneva"), str(script), str(folder / what), str(folder / "geneva")]
        env = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "RAY_RUNTIME_ENV_IGNORE_GITIGNORE": "0"}
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        found.setdefault(f"{what}, {case}, {tool}", []).append(measured)
        print(what, case, tool, measured, file=sys.stderr)


def _ours(what: str, folder: Path) -> dict[str, Any]:
    from runner.packages.package import build
    from runner.packages.upload import upload
    from runner.store import Store

    store = Store(str(folder / "db"))
    before = dict(store.objects("packages/layers")) if (folder / "db").exists() else {}
    begun, cpu = time.monotonic(), time.process_time()
    package = build(folder / what, site=what == "site")
    upload(package, store)
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    sent = {path: size for path, size in store.objects("packages/layers") if path not in before}
    return {"seconds": seconds, "cpu": cpu, "sent": sum(sent.values()), "layers": f"{len(sent)} of {len(package.layers)}"}


def _ray(what: str, folder: Path) -> dict[str, Any]:
    from ray._private.runtime_env.packaging import create_package, get_uri_for_directory

    target = folder / "ray"
    target.mkdir(exist_ok=True)
    begun, cpu = time.monotonic(), time.process_time()
    uri = get_uri_for_directory(str(folder / what), include_gitignore=what != "site")
    zipped = target / uri.rpartition("/")[2]
    is_new = not zipped.exists()
    create_package(str(folder / what), zipped, include_gitignore=what != "site")
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    return {"seconds": seconds, "cpu": cpu, "sent": zipped.stat().st_size * is_new, "layers": ""}


def _workspace(root: Path) -> None:
    generator = random.Random(1)
    root.mkdir()
    (root / "pyproject.toml").write_text("")
    (root / ".gitignore").write_text("*.log\n/data/\n__pycache__/\n*.tmp\n!keep.tmp\n")
    for folder in range(200):
        place = root / f"p{folder % 20}/s{folder}"
        place.mkdir(parents=True)
        for number in range(FILES // 200):
            (place / f"m{number}.py").write_bytes(generator.randbytes(FILE_BYTES))


def _site(root: Path) -> int:
    """This Python's site-packages, with its largest files as often as it takes."""
    from runner.packages.roots import site_packages

    shutil.copytree(site_packages()[0], root, symlinks=True, copy_function=os.link, ignore=shutil.ignore_patterns("__pycache__"))
    files = [path for path in root.rglob("*") if path.is_file()]
    files.sort(key=lambda path: -path.stat().st_size)
    size = sum(path.stat().st_size for path in files)
    for number, path in enumerate(files):
        if size >= SITE_BYTES:
            break
        os.link(path, path.with_name(f"again{number}.so"))
        size += path.stat().st_size
    return size


def _table(found: dict[str, list[dict[str, Any]]], site_bytes: int) -> str:
    lines = [
        "# Packages",
        "",
        f"In one run of `python -m bench.packages` on {os.cpu_count()} cores, load of others at its end: "
        f"{os.getloadavg()[1]:.1f}. Median of {ROUNDS} for the workspace ({FILES:,} files, "
        f"{FILES * FILE_BYTES / 1e6:.0f} MB), once for site-packages ({site_bytes / 1e9:.2f} GB). Ours reads, hashes, writes "
        "layers and sends them to a store on the same disk; Ray's hashes and writes its zip file, its upload is not counted; "
        f"Geneva {pinned('geneva', 'geneva')} writes its zip file and copies it to its database on the same disk.",
        "",
        "| what | tool | seconds | of CPU | sent MB | layers sent | peak MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in found.items():
        what, case, tool = name.split(", ")
        middle = {key: statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "sent", "peak")}
        lines.append(
            f"| {what}, {case} | {tool} | {middle['seconds']:.2f} | {middle['cpu']:.2f} | {middle['sent'] / 1e6:.1f} "
            f"| {runs[-1]['layers']} | {middle['peak']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _measure(tool: str, what: str, folder: Path) -> None:
    measured = (_ours if tool == "ours" else _ray)(what, folder)
    measured["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(json.dumps(measured))


if __name__ == "__main__":
    if len(sys.argv) == 4:
        _measure(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main()
