"""Fetch one file over HTTP: resumed where it stopped, checked, and in its place only when complete."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, Any

from samaritan._version import __version__
from samaritan.errors import DownloadError
from samaritan.io.files import sha256_of

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, if it is known, the bytes that are to come in all."""

_BLOCK = 2**20
_SPARE_BYTES = 64 * 2**20
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_HEX64 = re.compile(r'"?([0-9a-f]{64})"?$')
_PASSING = (ConnectionError, TimeoutError, http.client.HTTPException)


@dataclass(frozen=True)
class Patience:
    """How long to try."""

    attempts: int = 4
    """Times in a row without any progress before giving up."""
    pause_s: float = 0.5
    """Before the second attempt; doubled before each further one."""
    timeout_s: float = 30.0
    """For a connection, and for each block."""


@dataclass(frozen=True)
class Downloaded:
    """A file that was fetched and checked."""

    size: int
    sha256: str
    etag: str | None


class _Restart(Exception):
    """The server cannot go on from where the partial file ends."""


class _Stopped(Exception):
    """The connection ended before the file did."""


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Downloaded:
    """Fetch a file into its place.

    A partial file from an earlier try is continued if the server still has the same file. The target
    appears only when size and hash are right.

    Args:
        url: http or https.
        target: where the file belongs; its folder must exist. Beside it stand, until the file is complete,
            the partial file and a note about it.
        size: of the whole file, if it is known.
        sha256: of the whole file, if it is known; else the one that the server states, if it does.
        progress: called after every block.
        patience: how long to try.

    Raises:
        DownloadError: if it did not work, with the reason.
    """
    if not url.startswith(("https://", "http://")):
        raise DownloadError(f"{url} is no http or https address")
    transfer = _Transfer(url, target, size, sha256, progress, patience or Patience())
    return transfer.run()


@dataclass
class _Transfer:
    """One file on its way."""

    url: str
    target: Path
    size: int | None
    sha256: str | None
    progress: Progress | None
    patience: Patience
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def note(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def run(self) -> Downloaded:
        self.state = self.read_state()
        failures, last = 0, ""
        while failures < self.patience.attempts:
            if failures:
                time.sleep(self.patience.pause_s * 2 ** (failures - 1))
            before = self.have()
            try:
                self.attempt()
                return self.finish()
            except _Restart:
                self.forget()
                failures, last = failures + 1, "the server's file has changed, or it cannot resume"
            except urllib.error.HTTPError as error:
                if error.code not in _RETRIED:
                    raise self.failed(f"the server answers {error.code} {error.reason}") from error
                failures, last = failures + 1, f"the server answers {error.code} {error.reason}"
            except urllib.error.URLError as error:
                failures, last = failures + 1, f"no connection: {error.reason}"
            except (_Stopped, *_PASSING) as error:
                failures = 1 if self.have() > before else failures + 1
                last = f"the connection broke off: {error or type(error).__name__}"
        raise self.failed(last)

    def attempt(self) -> None:
        """Ask for the rest of the file and append it."""
        start = self.have()
        headers = {"User-Agent": f"samaritan/{__version__}", "Accept-Encoding": "identity"}
        validator = self.state.get("etag") or self.state.get("modified")
        if start and validator and not str(validator).startswith("W/"):
            headers |= {"Range": f"bytes={start}-", "If-Range": str(validator)}
        elif start:
            self.forget()
            start = 0
        hops = _Hops()
        request = urllib.request.Request(self.url, headers=headers)
        opener = urllib.request.build_opener(hops)
        try:
            with opener.open(request, timeout=self.patience.timeout_s) as response:
                self.receive(response, start, hops.headers)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and start:
                if start == self.state.get("size"):
                    return
                raise _Restart from error
            raise

    def receive(self, response: http.client.HTTPResponse, start: int, hops: list[Message]) -> None:
        """Append the body of an answer to the partial file."""
        total = _total(response)
        if response.status == 206:
            span = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if (
                not span
                or int(span[1]) != start
                or (total and total != self.state.get("size", total))
            ):
                raise _Restart
        else:
            start = 0
            self.forget()
        self.check_answer(response, total)
        self.remember(response, total, hops)
        self.check_space((total or self.size or 0) - start)
        with self.part.open("ab" if start else "wb") as file:
            self.copy(response, file, start, total)

    def copy(
        self, response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None
    ) -> None:
        while block := response.read(_BLOCK):
            done += len(block)
            if total is not None and done > total:
                raise self.failed(
                    f"the server sends more than the {total:,} bytes that it announced"
                )
            file.write(block)
            if self.progress:
                self.progress(done, total)
        if total is not None and done < total:
            raise _Stopped(f"{done:,} of {total:,} bytes have come")

    def check_answer(self, response: http.client.HTTPResponse, total: int | None) -> None:
        """Refuse pages, and files of another size, before they are fetched."""
        if response.headers.get_content_type() == "text/html":
            raise self.failed("the server sends a web page instead of the file")
        if self.size is not None and total is not None and total != self.size:
            raise self.failed(
                f"the server's file has {total:,} bytes, expected {self.size:,}: it is another file"
            )

    def check_space(self, needed: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if needed + _SPARE_BYTES > free:
            raise self.failed(
                f"{self.target.parent} has {free / 1e6:,.0f} MB free, and {needed / 1e6:,.0f} MB are needed. "
                f"Free some space, or choose another folder with SAMARITAN_CACHE"
            )

    def finish(self) -> Downloaded:
        """Check the whole file and put it in its place."""
        have, expected = self.have(), self.size or self.state.get("size")
        if expected is not None and have != expected:
            self.forget()
            raise self.failed(
                f"it has {have:,} bytes, expected {expected:,}; the partial file was removed"
            )
        digest = sha256_of(self.part)
        wanted = self.sha256 or self.state.get("sha256")
        if wanted and digest != wanted:
            self.forget()
            raise self.failed(
                f"its SHA-256 is {digest}, expected {wanted}. The file was damaged on its way, or the "
                f"publisher has replaced it; it was removed"
            )
        os.replace(self.part, self.target)
        self.note.unlink(missing_ok=True)
        return Downloaded(have, digest, self.state.get("etag"))

    def have(self) -> int:
        """Bytes of the partial file."""
        try:
            return self.part.stat().st_size
        except OSError:
            return 0

    def read_state(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            values = json.loads(self.note.read_text("utf-8"))
            if isinstance(values, dict) and values.get("url") == self.url:
                return values
        self.forget()
        return {}

    def remember(
        self, response: http.client.HTTPResponse, total: int | None, hops: list[Message]
    ) -> None:
        """Note what the partial file is part of."""
        stated = (_HEX64.match(h.get("X-Linked-Etag", "")) for h in [*hops, response.headers])
        self.state = {
            "url": self.url,
            "size": total,
            "etag": response.headers.get("ETag"),
            "modified": response.headers.get("Last-Modified"),
            "sha256": next((match[1] for match in stated if match), None),
        }
        self.note.write_text(json.dumps(self.state), "utf-8")

    def forget(self) -> None:
        """Remove the partial file."""
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.state = {}

    def failed(self, reason: str) -> DownloadError:
        return DownloadError(f"{self.url} could not be fetched: {reason}")


class _Hops(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps their headers: Hugging Face states the SHA-256 in them."""

    def __init__(self) -> None:
        self.headers: list[Message] = []

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Refuse to leave http and https."""
        self.headers.append(headers)
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _total(response: http.client.HTTPResponse) -> int | None:
    """Bytes of the whole file, as an answer states them."""
    span = re.match(r"bytes \d+-\d+/(\d+)$", response.headers.get("Content-Range", ""))
    if span:
        return int(span[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and response.status == 200 else None
