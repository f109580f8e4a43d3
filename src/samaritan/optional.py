"""Import an optional package, or say which extra brings it."""

from __future__ import annotations

import importlib
from types import ModuleType

from samaritan.errors import MissingPackage


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import `module`, or tell the user how to get it.

    Args:
        module: dotted name, as in an import statement.
        extra: the extra of this package that installs it.
        purpose: what it is needed for, as in "read DICOM SEG files".

    Raises:
        MissingPackage: if it cannot be imported.

    >>> require("json", extra="dicom", purpose="read notes").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(
            f"{module} is needed to {purpose}, but it could not be imported ({error}). "
            f'Install it with: pip install "samaritan[{extra}]"'
        ) from error


def monai(part: str, *, purpose: str) -> ModuleType:
    """Import a part of MONAI, which is slow; or tell the user how to get it.

    Args:
        part: dotted name inside of it, such as "networks.nets".
        purpose: what it is needed for.

    Raises:
        MissingPackage: if it cannot be imported.
    """
    return require(f"monai.{part}", extra="train", purpose=purpose)
