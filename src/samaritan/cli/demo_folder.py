"""A folder that a command fills again and again, in which nobody else's file is ever replaced."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FORMAT = "samaritan-demo/1"
NOTE = "demo.json"
"""Says which files are ours, by their hashes, and what was found."""


def check_folder(folder: Path, names: tuple[str, ...]) -> None:
    """Refuse to begin where files of these names are somebody else's, or changed since.

    Raises:
        FileError: naming them, or saying why the folder cannot be used.
    """
    from samaritan.errors import FileError
    from samaritan.io.files import sha256_of

    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file; name a folder with --output")
    known = _known(folder)
    foreign = [
        name
        for name in names
        if os.path.lexists(folder / name)
        and not ((folder / name).is_file() and sha256_of(folder / name) in known.get(name, ()))
    ]
    if (folder / NOTE).exists() and not known:
        foreign.append(NOTE)
    if foreign:
        raise FileError(
            f"{folder} holds {', '.join(foreign)}, which this command did not write, or which changed since. "
            "Nothing was replaced: move them away, or name another folder with --output"
        )


@contextlib.contextmanager
def filling(folder: Path, results: dict[str, Any], names: tuple[str, ...]) -> Iterator[Path]:
    """Give a temporary folder; if the block ends well, what is in it is moved to `folder`.

    Args:
        folder: made if need be.
        results: what the note tells beside the names of the files; may be filled inside the block.
        names: of all files that may be made, for the check.

    Raises:
        FileError: if the folder cannot be written, or files in it are not ours.
    """
    from samaritan.errors import FileError
    from samaritan.io.files import sha256_of

    check_folder(folder, names)
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    temporary: Path | None = None
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-demo-", dir=folder))
        yield temporary
        files = sorted(temporary.iterdir())
        known = _known(folder)
        new = {file.name: [sha256_of(file)] for file in files}
        # the old hashes stay until all files are there: a run that is killed here leaves nothing strange
        both = {**known, **{name: [*hashes, *known.get(name, ())] for name, hashes in new.items()}}
        _note(folder, both, results)
        for file in files:
            file.replace(folder / file.name)
        _note(folder, {**known, **new}, results)
        done = True
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"{folder} cannot be written: {reason}. Name another folder with --output"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for parent in () if done else made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def _known(folder: Path) -> dict[str, list[str]]:
    """Hashes of our files by name, as the note tells."""
    try:
        values = json.loads((folder / NOTE).read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            return {}
        return {str(name): [str(v) for v in hashes] for name, hashes in values["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _note(folder: Path, files: dict[str, list[str]], results: dict[str, Any]) -> None:
    from samaritan.io.files import replacing

    text = json.dumps({"format": FORMAT, "files": files, **results}, indent=1)
    with replacing(folder / NOTE) as (temporary,):
        temporary.write_text(text + "\n", encoding="utf-8")
