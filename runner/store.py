"""The objects of a database: the runner's own under ``_runner/`` and, for publishing, the tables' data files."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.errors import BadInput, StorageError

ROOT = "_runner"
PART_BYTES = 8 << 20  # of an object that goes in parts; each part has the time limit of a request

# Lance takes these in storage_options; in obstore they are options of the HTTP client, not of the store.
_CLIENT_OPTIONS = {
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "timeout",
    "user_agent",
}
_HEADER = "headers."
"""Lance sends ``headers.NAME`` with each request; obstore has them in a mapping of its client's."""
# Lance's own, which obstore does not know.
_LANCE_ONLY = {
    "client_max_retries",
    "client_retry_timeout",
    "download_retry_count",
    "expires_at_millis",
    "new_table_data_storage_version",
    "refresh_offset_millis",
}
_RETRIES = {"client_max_retries": "max_retries", "client_retry_timeout": "retry_timeout"}
_BOOLEAN = {
    "allow_http",
    "allow_invalid_certificates",
    "http1_only",
    "http2_keep_alive_while_idle",
    "http2_only",
    "randomize_addresses",
}


LIST_ATTEMPTS = 5
_SECRET_OPTION = re.compile(r"key|secret|token|password|credential|sas|service_account|^headers\.", re.IGNORECASE)
# Of Lance and of obstore alike; either doubles its pause up to 15 s.
_PATIENCE = {"client_max_retries": "100", "client_retry_timeout": "180"}


class Store:
    """Objects below a database's address. Paths are relative to ``<database>/_runner/`` unless said otherwise.

    Args:
        uri: address of the database: a path, ``file://``, ``s3://``, ``gs://`` or ``az://``.
        storage_options: as Lance takes them.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.uri = normalise_uri(uri)
        self.storage_options = dict(storage_options or {})
        self._inner: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.uri, self.storage_options)

    def patient(self) -> Store:
        """The same, for work under way: a storage that does not answer is waited for, three minutes at most.

        Without it a request is tried for seconds, which tells of a wrong address soon. What the caller set stays.
        """
        return Store(self.uri, {**_PATIENCE, **self.storage_options})

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri

    def url(self, path: str) -> str:
        """Full address of one of the runner's objects, as Lance takes it."""
        return f"{self.uri}/{ROOT}/{path}"

    def get(self, path: str) -> bytes | None:
        """The bytes of an object, None where there is none."""
        import obstore

        try:
            with refused("read", self.url(path)):
                return bytes(obstore.get(self._store, f"{ROOT}/{path}").bytes())
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes) -> None:
        """Write an object whole, over what is there."""
        import obstore

        with refused("write", self.url(path)):
            obstore.put(self._store, f"{ROOT}/{path}", data, use_multipart=False)

    def create(self, path: str, data: bytes) -> bool:
        """Write an object only where there is none yet; False where there is one."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        try:
            with refused("write", self.url(path)):
                obstore.put(self._store, f"{ROOT}/{path}", data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def put_file(self, path: str, file: Path, parts: int = 2) -> None:
        """Write an object from a file, in parts where it is large, so many at a time."""
        import obstore

        with refused("write", self.url(path)):
            obstore.put(self._store, f"{ROOT}/{path}", file, chunk_size=PART_BYTES, max_concurrency=parts)

    def get_file(self, path: str, file: Path) -> int | None:
        """Write an object to a file, part by part, each a request of its own; its size, None where there is none."""
        import obstore

        where = f"{ROOT}/{path}"
        try:
            with refused("read", self.url(path)):
                size = int(obstore.head(self._store, where)["size"])
            with file.open("wb") as out:
                for start in range(0, size, PART_BYTES):
                    with refused("read", self.url(path)):
                        part = obstore.get_range(self._store, where, start=start, end=min(start + PART_BYTES, size))
                    out.write(part)
        except FileNotFoundError:
            return None
        return size

    def modified(self, path: str) -> dt.datetime | None:
        """When an object was last written, None where there is none."""
        import obstore

        try:
            with refused("read", self.url(path)):
                return obstore.head(self._store, f"{ROOT}/{path}")["last_modified"]
        except FileNotFoundError:
            return None

    def times(self, prefix: str) -> Iterator[tuple[str, int, dt.datetime]]:
        """``(path, bytes, last written)`` of every object below a prefix."""
        with refused("list", self.url(prefix)):
            for entry in self._list(f"{ROOT}/{prefix}"):
                yield entry["path"][len(ROOT) + 1 :], int(entry["size"]), entry["last_modified"]

    def _list(self, prefix: str) -> list[Any]:
        """All below a prefix. obstore tries an answer that breaks off again when it reads, and not when it lists."""
        import obstore
        from obstore.exceptions import GenericError

        for _ in range(LIST_ATTEMPTS - 1):
            try:
                return [entry for page in obstore.list(self._store, prefix=prefix) for entry in page]
            except GenericError as exc:
                if "response body" not in str(exc):
                    raise
        return [entry for page in obstore.list(self._store, prefix=prefix) for entry in page]

    def objects(self, prefix: str) -> Iterator[tuple[str, int]]:
        """``(path, bytes)`` of every object below a prefix."""
        yield from ((path, size) for path, size, _ in self.times(prefix))

    def folders(self) -> list[str]:
        """Names of the folders in the database: its tables, and the runner's own."""
        import obstore

        if self.is_local and not os.path.isdir(self.uri):
            return []
        with refused("list", self.uri):
            return [path.rstrip("/").rsplit("/", 1)[-1] for path in obstore.list_with_delimiter(self._store)["common_prefixes"]]

    def delete(self, paths: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        import obstore

        for path in paths:
            try:
                with refused("delete", self.url(path)):
                    obstore.delete(self._store, f"{ROOT}/{path}")
            except FileNotFoundError:
                continue

    def delete_folder(self, prefix: str) -> None:
        """Remove everything below a prefix, on a file system the empty folders too."""
        self.delete([path for path, _ in self.objects(prefix)])
        if self.is_local:
            _remove_empty_folders(Path(self.uri) / ROOT / prefix)

    def publish(self, path: str, target: str) -> None:
        """Give a staged object a second name, relative to the database: a hard link on disk, a server-side copy elsewhere."""
        import obstore

        with refused("publish", self.url(path)):
            obstore.copy(self._store, f"{ROOT}/{path}", target)

    def remove_published(self, target: str) -> None:
        """Take back the second name that `publish` gave."""
        import obstore

        try:
            obstore.delete(self._store, target)
        except FileNotFoundError:
            return

    @property
    def _store(self) -> Any:
        if self._inner is None:
            self._inner = open_store(self.uri, self.storage_options)
        return self._inner


def normalise_uri(uri: str | os.PathLike[str]) -> str:
    """An absolute path for a local database, any other address without its trailing slash.

    Raises:
        BadInput: an address that is not a LanceDB OSS database.
    """
    text = os.fspath(uri)
    if not text:
        raise BadInput("the database's address is empty; give a folder or an address such as s3://bucket/db")
    if text.startswith("db://"):
        raise BadInput(
            f"{text!r} is a LanceDB Cloud or Enterprise address, which takes no files from outside; "
            "give the database's own storage: a path, s3://, gs:// or az://"
        )
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text:
        return text.rstrip("/")
    return str(Path(text).expanduser().absolute())


def open_store(uri: str, options: Mapping[str, str]) -> Any:
    from obstore.store import LocalStore, from_url

    if "://" not in uri:
        return LocalStore(uri, mkdir=True)
    config, client = split_options(options)
    try:
        return from_url(uri, config=config or None, client_options=client or None, retry_config=retry_config(options))  # type: ignore[arg-type]
    except Exception as exc:
        raise StorageError(f"cannot open {uri}: {exc}") from exc


def split_options(options: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Lance's storage options as obstore's ``(config, client_options)``."""
    config: dict[str, Any] = {}
    client: dict[str, Any] = {}
    for key, value in options.items():
        name = key.lower()
        if name in _LANCE_ONLY or name.startswith("lance_"):
            continue
        if name.startswith(_HEADER):
            client.setdefault("default_headers", {})[name.removeprefix(_HEADER)] = value
        elif name in _CLIENT_OPTIONS:
            client[name] = str(value).lower() in ("1", "true", "yes") if name in _BOOLEAN else value
        else:
            config[name] = value
    return config, client


def retry_config(options: Mapping[str, str]) -> dict[str, Any] | None:
    """Lance's options of retries as obstore's, None where there are none.

    Raises:
        BadInput: one that is no whole number.
    """
    given = {key.lower(): value for key, value in options.items() if key.lower() in _RETRIES}
    for key, value in given.items():
        if not str(value).isdecimal():
            raise BadInput(f"storage_options: {key}={value!r} is no whole number")
    found = {_RETRIES[key]: int(value) for key, value in given.items()}
    if "retry_timeout" in found:
        return {**found, "retry_timeout": dt.timedelta(seconds=found["retry_timeout"])}
    return found or None


def secret_options(store: Store) -> dict[str, str]:
    """The storage options that nobody is to see."""
    return {name: value for name, value in store.storage_options.items() if _SECRET_OPTION.search(name)}


@contextmanager
def refused(what: str, url: str) -> Iterator[None]:
    """Say which object the storage refused, and its own words; objects missing or already there pass through."""
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except (FileNotFoundError, AlreadyExistsError):
        raise
    except (BaseError, OSError) as exc:
        raise StorageError(f"cannot {what} {url}: {first_line(exc)}") from exc


def first_line(exc: BaseException) -> str:
    """What an error says, in one line; without the place in Lance's source that it ends with."""
    text = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
    return re.sub(r", /\S+\.rs:\d+:\d+$", "", text)


def _remove_empty_folders(folder: Path) -> None:
    for parent, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(parent)
        except OSError:  # not empty, or gone
            continue
