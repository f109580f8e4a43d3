"""Published weights by name: from the cache, or fetched into it."""

from __future__ import annotations

import os
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import filelock

from samaritan.checkpoints.cache import cached, place_of, read_note, write_note
from samaritan.checkpoints.downloading import Patience, Progress, download
from samaritan.checkpoints.registry import Published, find_published, get_published
from samaritan.checkpoints.sniffing import resolve_folder
from samaritan.errors import DownloadError, FileError
from samaritan.io.files import sha256_of

_HUGGING_FACE = "https://huggingface.co"


def fetch(
    name: str | Path,
    *,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """The file of published weights, fetched into the cache if it is not there yet.

    A download that was broken off is continued. The file is checked by size and SHA-256; where no hash
    is published, it is recorded beside the file. Two processes that want the same file fetch it once.

    Args:
        name: of published weights; a path or file:// address of a local file is passed on.
        cache_dir: another folder than the cache.
        progress: called with bytes so far and bytes in all (None if that is not known).
        patience: how long to try.

    Raises:
        DownloadError: if it could not be fetched; the text says which file to put where.
        ConfigError: if there are no such weights.
    """
    local = _local(name)
    if local is not None:
        return local
    published = get_published(str(name))
    path = place_of(published, cache_dir)
    if published.shipped:
        return _shipped(published, path)
    _make_folder(path.parent)
    with filelock.FileLock(path.with_name(path.name + ".lock")):
        if cached(published.name, cache_dir=cache_dir) is None:
            _fetch_into(published, path, progress, patience)
        elif not read_note(path):
            _take_over(published, path)
    return path


def locate(
    path_or_name: str | Path, *, download: bool = True, progress: Progress | None = None
) -> Path:
    """The file for a path or the name of published weights.

    Args:
        path_or_name: an existing file or folder, or a name.
        download: fetch published weights that are not in the cache.
        progress: as in `fetch`.

    Raises:
        FileError: if there is no such file, and it is not a name either.
        DownloadError: if the weights are not here and could not be, or should not be fetched.
    """
    local = _local(path_or_name)
    if local is not None:
        return local
    if _looks_like_path(str(path_or_name)) and find_published(str(path_or_name)) is None:
        raise FileError(f"there is no file {path_or_name}")
    published = get_published(str(path_or_name))
    path = cached(published.name)
    if path is not None:
        return path
    if published.shipped:
        return _shipped(published, place_of(published))
    if not download:
        raise DownloadError(
            f"{published.name} is not in the cache. {_by_hand(published, place_of(published))}"
        )
    return fetch(published.name, progress=progress)


def resolve_model(
    path_or_name: str | Path, *, download: bool = True, progress: Progress | None = None
) -> Path:
    """The file of weights that `--model` means: a file, a training run's folder, or a name.

    Of a run the best weights are taken, or its last ones where nothing was validated.

    Raises:
        FileError: if there is no such file, or a folder holds no weights.
        DownloadError: as `locate`.
    """
    return resolve_folder(locate(path_or_name, download=download, progress=progress))


def _shipped(published: Published, path: Path) -> Path:
    if not path.is_file():
        raise FileError(
            f"{path} is missing, though it is a part of this package: install samaritan again"
        )
    return path


def _fetch_into(
    published: Published, path: Path, progress: Progress | None, patience: Patience | None
) -> None:
    if published.url is None:
        raise DownloadError(
            f"{published.name} is offered on a page that needs a browser. {_by_hand(published, path)}"
        )
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise DownloadError(
            f"{published.name} is not fetched because HF_HUB_OFFLINE is set. {_by_hand(published, path)}"
        )
    try:
        done = download(
            _address(published.url),
            path,
            size=published.size if published.size_exact else None,
            sha256=published.sha256,
            progress=progress,
            patience=patience,
        )
    except (DownloadError, OSError) as error:
        raise DownloadError(
            f"{error}.\n{_by_hand(published, path)}".replace("..\n", ".\n")
        ) from error
    values = {"sha256": done.sha256, "size": done.size, "etag": done.etag}
    write_note(path, {**_origin(published), **values})


def _take_over(published: Published, path: Path) -> None:
    """Check a file that somebody put into the cache by hand, and note its hash."""
    digest = sha256_of(path)
    if published.sha256 and digest != published.sha256:
        raise DownloadError(
            f"{path} was put there by hand, but is not {published.name}: its SHA-256 is {digest}, expected "
            f"{published.sha256}. Remove it, or give its path instead of the name"
        )
    write_note(path, {**_origin(published), "sha256": digest, "size": path.stat().st_size})


def _origin(published: Published) -> dict[str, Any]:
    return {"name": published.name, "url": published.url, "licence": published.licence}


def _address(url: str) -> str:
    """The address on the mirror that HF_ENDPOINT names, as for other tools of Hugging Face."""
    mirror = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return url.replace(_HUGGING_FACE, mirror, 1) if mirror else url


def _by_hand(published: Published, path: Path) -> str:
    """How to get the file without this program."""
    source = published.url or published.page
    page = f" (page: {published.page})" if published.url else ""
    return (
        f"To do it by hand: get {source}{page}, about {published.size / 1e6:,.0f} MB, and save it as "
        f"{path}. A path to the file works wherever a name does"
    )


def _local(name: str | Path) -> Path | None:
    """The existing file or folder that is meant, if one is."""
    text = str(name)
    if text.startswith("file://"):
        parts = urllib.parse.urlsplit(text)
        path = Path(urllib.request.url2pathname(parts.path))
        if parts.netloc not in ("", "localhost") or not path.exists():
            raise FileError(f"there is no file {text}")
        return path
    path = Path(name).expanduser()
    return path if path.exists() else None


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix != ""


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadError(
            f"the cache {folder} cannot be made: {error}. Choose another with SAMARITAN_CACHE"
        ) from error
