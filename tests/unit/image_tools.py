"""A registry of images that asks for a token, and programs that stand in for builders: they write down how they were called."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

MANIFEST = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
DIGEST = f"sha256:{hashlib.sha256(MANIFEST).hexdigest()}"
TOKEN = "for-one-pull"


@dataclass
class Registry:
    """A registry that has the images of `tags`, by ``name:tag``.

    Attributes:
        asked: method, path and Authorization of each request.
        refuses: status of every request for a manifest, in place of an answer.
        no_token: the token's address refuses.
        says_digest: of the header; None for none.
        elsewhere: host that a request for a manifest is sent on to.
    """

    host: str = ""
    tags: set[str] = field(default_factory=set)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    refuses: int | None = None
    no_token: bool = False
    says_digest: str | None = DIGEST
    elsewhere: str | None = None
    open_to_all: bool = False


@contextmanager
def registry(*tags: str) -> Iterator[Registry]:
    """A registry on this machine."""
    made = Registry(tags=set(tags))

    class Handler(_Handler):
        registry = made

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.host = f"127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    registry: Registry

    def do_HEAD(self) -> None:
        self._manifest()

    def do_GET(self) -> None:
        if self.path.startswith("/token"):
            self._token()
        else:
            self._manifest()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _token(self) -> None:
        wanted = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        if self.registry.no_token or wanted != {"service": "images", "scope": "repository:team/ray:pull"}:
            self._send(403, b"{}")
        else:
            self._send(200, json.dumps({"token": TOKEN}).encode())

    def _manifest(self) -> None:
        known, authorization = self.registry, self.headers.get("Authorization")
        known.asked.append((self.command, self.path, authorization))
        name, _, tag = self.path.removeprefix("/v2/").partition("/manifests/")
        if not known.open_to_all and authorization != f"Bearer {TOKEN}":
            realm = f'Bearer realm="http://{known.host}/token",service="images",scope="repository:{name}:pull"'
            self._send(401, b"", {"WWW-Authenticate": realm})
        elif known.refuses:
            self._send(known.refuses, b"")
        elif known.elsewhere:
            self._send(307, b"", {"Location": f"http://{known.elsewhere}{self.path}"})
        elif f"{name}:{tag}" not in known.tags or "application/vnd.oci.image.index.v1+json" not in self.headers["Accept"]:
            self._send(404, b"")
        else:
            self._send(200, MANIFEST, {"Docker-Content-Digest": known.says_digest} if known.says_digest else {})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@dataclass(frozen=True)
class Builder:
    """A program that stands in for a builder."""

    folder: Path

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Of each call ``argv``, ``env`` and, of a build, the ``files`` of its folder."""
        return [json.loads(file.read_text()) for file in sorted(self.folder.glob("call-*.json"))]


def builder_named(name: str, folder: Path, *, fails: str = "", buildx: bool = True) -> Builder:
    """Put a builder into ``folder/bin``. It gives a build the SHA-256 of its Dockerfile as digest.

    Args:
        fails: what it says before it fails to build.
        buildx: of docker, whether it has that plugin.
    """
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / name
    text = _PROGRAM.format(python=sys.executable, name=name, folder=str(folder), fails=fails, buildx=buildx)
    program.write_text(textwrap.dedent(text).lstrip())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return Builder(folder)


def digest_of(dockerfile: str) -> str:
    """The digest that a builder of `builder_named` gives."""
    return f"sha256:{hashlib.sha256(dockerfile.encode()).hexdigest()}"


def only_on_path(folder: Path) -> str:
    """A PATH with the builders of a folder and nothing else."""
    return os.fspath(folder / "bin")


_PROGRAM = """
    #!{python}
    import hashlib, json, os, sys
    from pathlib import Path

    name, folder, fails, argv = {name!r}, Path({folder!r}), {fails!r}, sys.argv[1:]
    if argv == ["buildx", "version"]:
        sys.exit(0 if {buildx!r} else 1)
    known, build = folder / f"{{name}}-digest", "build" in argv
    files = {{file.name: file.read_text() for file in Path(argv[-1]).iterdir()}} if build else {{}}
    call = {{"argv": argv, "env": dict(os.environ), "files": files}}
    (folder / f"call-{{len(list(folder.glob('call-*'))):03}}.json").write_text(json.dumps(call))
    print("step 1 of 1 with", os.environ.get("INDEX_TOKEN"))
    if fails:
        print(fails, file=sys.stderr)
        sys.exit(7)
    if build:
        known.write_text(hashlib.sha256(files["Dockerfile"].encode()).hexdigest())
    digest = known.read_text()
    for option, text in (
        ("--metadata-file", json.dumps({{"containerimage.digest": f"sha256:{{digest}}"}})),
        ("--digestfile", f"sha256:{{digest}}"),
        ("--iidfile", digest if name != "docker" else f"sha256:{{digest}}"),
    ):
        if option in argv:
            Path(argv[argv.index(option) + 1]).write_text(text)
"""
