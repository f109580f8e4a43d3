"""A file is fetched whole or not at all, continued where it stopped, and checked."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from samaritan.checkpoints.downloading import Patience, download
from samaritan.errors import DownloadError

DATA = bytes(range(256)) * 12_000  # three blocks and a bit
SHA256 = hashlib.sha256(DATA).hexdigest()
FAST = Patience(attempts=3, pause_s=0.001, timeout_s=5.0)


@dataclass
class Behaviour:
    """What the server does, and what it was asked."""

    data: bytes = DATA
    ranges: bool = True
    etag: str | None = '"v1"'
    cut: list[int] = field(default_factory=list)
    fail: list[int] = field(default_factory=list)
    kind: str = "application/octet-stream"
    length: bool = True
    redirect: str | None = None
    linked: str | None = None
    asked: list[str | None] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        b = self.server.behaviour
        b.asked.append(self.headers.get("Range"))
        if b.redirect and self.path == "/hop":
            self.send_response(302)
            self.send_header("Location", b.redirect)
            if b.linked:
                self.send_header("X-Linked-Etag", f'"{b.linked}"')
            self.end_headers()
            return
        if b.fail:
            self.send_error(b.fail.pop(0))
            return
        start, status = 0, 200
        asked = self.headers.get("Range")
        fresh = self.headers.get("If-Range") in (None, b.etag)
        if asked and b.ranges and fresh:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(b.data):
                self.send_error(416)
                return
        body = b.data[start:]
        self.send_response(status)
        self.send_header("Content-Type", b.kind)
        if b.length:
            self.send_header("Content-Length", str(len(body)))
        if b.etag:
            self.send_header("ETag", b.etag)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(b.data) - 1}/{len(b.data)}")
        self.end_headers()
        self.wfile.write(body[: b.cut.pop(0)] if b.cut else body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Stay quiet about clients that hang up."""


@pytest.fixture
def server(monkeypatch):
    """A server on this machine: (behaviour, address)."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server(("127.0.0.1", 0), Handler)
    made.behaviour = Behaviour()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made.behaviour, f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_file_comes_with_progress_and_its_hash(server, tmp_path):
    behaviour, url = server
    seen = []
    done = download(
        f"{url}/w.pth", tmp_path / "w.pth", progress=lambda *a: seen.append(a), patience=FAST
    )
    assert (tmp_path / "w.pth").read_bytes() == DATA
    assert (done.sha256, done.size, done.etag) == (SHA256, len(DATA), '"v1"')
    assert seen[-1] == (len(DATA), len(DATA))
    assert [n for n, _ in seen] == sorted(n for n, _ in seen)
    assert names(tmp_path) == ["w.pth"]
    assert behaviour.asked == [None]


def test_broken_connections_are_continued_where_they_stopped(server, tmp_path):
    behaviour, url = server
    behaviour.cut = [1000, 500_000, 7]
    download(f"{url}/w.pth", tmp_path / "w.pth", sha256=SHA256, patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA
    assert behaviour.asked == [None, "bytes=1000-", "bytes=501000-", "bytes=501007-"]


def test_a_later_call_continues_the_partial_file(server, tmp_path):
    behaviour, url = server
    behaviour.cut, behaviour.fail = [1000], []
    with pytest.raises(DownloadError, match="broke off"):
        download(f"{url}/w.pth", tmp_path / "w.pth", patience=Patience(1, 0.001, 5.0))
    assert names(tmp_path) == ["w.pth.part", "w.pth.part.json"]
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA
    assert behaviour.asked[-1] == "bytes=1000-"
    assert names(tmp_path) == ["w.pth"]


def test_a_changed_file_is_started_again(server, tmp_path):
    behaviour, url = server
    behaviour.cut = [1000]
    with pytest.raises(DownloadError):
        download(f"{url}/w.pth", tmp_path / "w.pth", patience=Patience(1, 0.001, 5.0))
    behaviour.etag, behaviour.data = '"v2"', DATA[::-1]
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA[::-1]


def test_a_server_that_ignores_ranges_sends_the_file_again(server, tmp_path):
    behaviour, url = server
    behaviour.cut, behaviour.ranges = [1000], False
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA


def test_a_server_without_validators_is_never_continued(server, tmp_path):
    behaviour, url = server
    behaviour.cut, behaviour.etag = [1000], None
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert behaviour.asked == [None, None]
    assert (tmp_path / "w.pth").read_bytes() == DATA


def test_a_partial_file_that_is_already_whole_is_finished(server, tmp_path):
    behaviour, url = server
    (tmp_path / "w.pth.part").write_bytes(DATA)
    state = {"url": f"{url}/w.pth", "size": len(DATA), "etag": '"v1"'}
    (tmp_path / "w.pth.part.json").write_text(json.dumps(state))
    download(f"{url}/w.pth", tmp_path / "w.pth", sha256=SHA256, patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA
    assert behaviour.asked == [f"bytes={len(DATA)}-"]


def test_a_partial_file_that_is_too_long_is_started_again(server, tmp_path):
    _, url = server
    (tmp_path / "w.pth.part").write_bytes(DATA + b"more")
    state = {"url": f"{url}/w.pth", "size": len(DATA), "etag": '"v1"'}
    (tmp_path / "w.pth.part.json").write_text(json.dumps(state))
    download(f"{url}/w.pth", tmp_path / "w.pth", sha256=SHA256, patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA


def test_a_partial_file_of_another_address_is_not_used(server, tmp_path):
    behaviour, url = server
    (tmp_path / "w.pth.part").write_bytes(b"x" * 1000)
    (tmp_path / "w.pth.part.json").write_text('{"url": "http://other", "etag": "\\"v1\\""}')
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert behaviour.asked == [None]


def test_a_wrong_hash_leaves_nothing(server, tmp_path):
    _, url = server
    with pytest.raises(DownloadError, match=f"SHA-256 is {SHA256}, expected {'0' * 64}"):
        download(f"{url}/w.pth", tmp_path / "w.pth", sha256="0" * 64, patience=FAST)
    assert names(tmp_path) == []


def test_a_wrong_size_is_refused_before_the_file_comes(server, tmp_path):
    _, url = server
    with pytest.raises(DownloadError, match="3,072,000 bytes, expected 5"):
        download(f"{url}/w.pth", tmp_path / "w.pth", size=5, patience=FAST)
    assert names(tmp_path) == []


def test_a_short_body_without_length_is_noticed_by_its_size(server, tmp_path):
    behaviour, url = server
    behaviour.length, behaviour.cut = False, [10]
    with pytest.raises(DownloadError, match="10 bytes, expected 3,072,000"):
        download(f"{url}/w.pth", tmp_path / "w.pth", size=len(DATA), patience=FAST)
    assert names(tmp_path) == []


def test_pages_are_refused(server, tmp_path):
    behaviour, url = server
    behaviour.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="web page"):
        download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert names(tmp_path) == []


def test_absent_files_fail_at_once_and_passing_errors_are_tried_again(server, tmp_path):
    behaviour, url = server
    behaviour.fail = [404]
    with pytest.raises(DownloadError, match="answers 404"):
        download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert len(behaviour.asked) == 1
    behaviour.fail = [503, 429]
    download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA
    behaviour.fail = [500] * 3
    with pytest.raises(DownloadError, match="answers 500"):
        download(f"{url}/x.pth", tmp_path / "x.pth", patience=FAST)


def test_redirects_are_followed_and_their_hash_is_believed(server, tmp_path):
    behaviour, url = server
    behaviour.redirect, behaviour.linked = f"{url}/w.pth", SHA256
    download(f"{url}/hop", tmp_path / "w.pth", patience=FAST)
    assert (tmp_path / "w.pth").read_bytes() == DATA
    behaviour.linked = "1" * 64
    with pytest.raises(DownloadError, match="expected 1111"):
        download(f"{url}/hop", tmp_path / "x.pth", patience=FAST)


def test_redirects_keep_the_range(server, tmp_path):
    behaviour, url = server
    behaviour.redirect, behaviour.cut = f"{url}/w.pth", [1000]
    download(f"{url}/hop", tmp_path / "w.pth", patience=FAST)
    assert behaviour.asked[-1] == "bytes=1000-"


def test_redirects_to_files_of_this_machine_are_refused(server, tmp_path):
    behaviour, url = server
    behaviour.redirect = "file:///etc/passwd"
    with pytest.raises(DownloadError, match="could not be fetched"):
        download(f"{url}/hop", tmp_path / "w.pth", patience=FAST)
    assert names(tmp_path) == []


def test_no_connection_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(DownloadError, match="no connection"):
        download(f"http://127.0.0.1:{port}/w.pth", tmp_path / "w.pth", patience=FAST)
    assert names(tmp_path) == []


def test_a_full_disk_is_noticed_before_the_file_comes(server, tmp_path, monkeypatch):
    _, url = server
    usage = type("Usage", (), {"free": 10**6})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match="1 MB free, and 3 MB are needed"):
        download(f"{url}/w.pth", tmp_path / "w.pth", patience=FAST)


@pytest.mark.parametrize("url", ["ftp://x/w.pth", "file:///etc/passwd", "w.pth"])
def test_other_addresses_are_refused(url, tmp_path):
    with pytest.raises(DownloadError, match="no http"):
        download(url, tmp_path / "w.pth")
