"""Send a package to the store: only the layers that are not there, and at the very end the JSON that makes it a package."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from runner.errors import BadInput, StorageError
from runner.packages.format import LAYERS, layer_path, package_path
from runner.packages.layers import Layer
from runner.packages.package import Package, size_text
from runner.packages.patience import patiently
from runner.packages.zips import write_zip
from runner.store import Store

AT_A_TIME = 4
_LOOKS = 3


def upload(
    package: Package,
    store: Store,
    say: Callable[[str], None] = lambda text: None,
    *,
    local_zip_output_dir: Path | None = None,
    delete_local_zips: bool = True,
) -> str:
    """Make a package available to workers, and its id known to be in use now.

    An upload that was cut short is taken up where it was: what arrived whole is not sent again.

    Args:
        say: takes one line about what is sent.
        local_zip_output_dir: where the zip files are written; default: a temporary folder.
        delete_local_zips: whether they are removed once sent; if not, all of the package are there afterwards.

    Returns:
        The package's id.

    Raises:
        StorageError: the store refuses; nothing can be seen of a package that is not whole.
        FileChanging: a file changed since the package was built.
    """
    if not delete_local_zips and local_zip_output_dir is None:
        raise BadInput("delete_local_zips=False needs local_zip_output_dir, a folder to keep the zip files in")
    with _zip_folder(local_zip_output_dir) as folder:
        sender = _Sender(package, store, folder, keep=not delete_local_zips)
        missing = sender.missing()
        if missing:
            total = size_text(sum(layer.bytes for layer in missing))
            say(f"sending {len(missing)} of {len(package.layers)} layers of package {package.id[:12]}, {total}")
        sender.complete(missing)
        if not delete_local_zips:
            sender.write_all()
    return package.id


def package_id_only(package: Package, store: Store, say: Callable[[str], None] = lambda text: None, **_zips: object) -> str:
    """What `upload` returns, with nothing sent."""
    return package.id


@contextlib.contextmanager
def _zip_folder(given: Path | None) -> Iterator[Path]:
    if given is None:
        with tempfile.TemporaryDirectory(prefix="infill-zips-") as name:
            yield Path(name)
        return
    folder = Path(given).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise BadInput(f"cannot write zip files to {folder}: {exc.strerror}") from exc
    yield folder


class _Sender:
    def __init__(self, package: Package, store: Store, folder: Path, *, keep: bool) -> None:
        self._package = package
        self._store = store
        self._folder = folder
        self._keep = keep

    def missing(self) -> list[Layer]:
        """The layers that the store does not have whole."""
        there = dict(self._store.objects(LAYERS))
        layers = {layer.id: layer for layer in self._package.layers}.values()
        return [layer for layer in layers if there.get(layer_path(layer.id)) != layer.bytes]

    def complete(self, missing: list[Layer]) -> None:
        """Send what is missing and, once all is there, the JSON; look again after it, for what was collected meanwhile."""
        for _ in range(_LOOKS):
            if missing:
                self._send_all(missing)
                missing = patiently(self.missing)
            if not missing:
                patiently(lambda: self._store.put(package_path(self._package.id), self._package.record.to_json()))
                missing = patiently(self.missing)
            if not missing:
                return
        self._store.delete([package_path(self._package.id)])
        raise StorageError(
            f"{self._store.url(layer_path(missing[0].id))} was written, and is not there or not of {missing[0].bytes} bytes"
        )

    def _send_all(self, layers: list[Layer]) -> None:
        """Write and send layers, several at a time; the first failure ends it."""
        pool = ThreadPoolExecutor(min(AT_A_TIME, len(layers)))
        try:
            _finish([pool.submit(self._send, layer) for layer in layers])
        finally:
            pool.shutdown(cancel_futures=True)

    def write_all(self) -> None:
        """Have the zip file of every layer in the folder."""
        for layer in self._package.layers:
            file = self._folder / f"{layer.id}.zip"
            if not file.exists() or file.stat().st_size != layer.bytes:
                self._write(layer, file)

    def _send(self, layer: Layer) -> None:
        file = self._folder / f"{layer.id}.zip"
        try:
            self._write(layer, file)
            patiently(lambda: self._store.put_file(layer_path(layer.id), file))
        finally:
            if not self._keep:
                file.unlink(missing_ok=True)

    def _write(self, layer: Layer, file: Path) -> None:
        half = file.with_suffix(f".{os.getpid()}.part")
        try:
            with half.open("wb", buffering=1 << 20) as out:
                write_zip(layer, self._package.root, out)
            half.replace(file)
        except OSError as exc:
            raise StorageError(f"cannot write {file}: {exc.strerror}; it is {size_text(layer.bytes)}") from exc
        finally:
            half.unlink(missing_ok=True)


def _finish(futures: list[Future[None]]) -> None:
    """Wait for all, or for the first that fails."""
    done, _ = wait(futures, return_when="FIRST_EXCEPTION")
    for future in done:
        future.result()
