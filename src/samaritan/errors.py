"""Every error that Samaritan raises on purpose.

::

    SamaritanError
     ├── GeometryError          a grid that cannot be used as it is
     │    └── GridMismatch      two grids that should be one
     ├── FileError              a file that cannot be read or written
     │    ├── UnsupportedFormat nobody here speaks this format (or this variant of it)
     │    ├── CorruptFile       the file is not what it claims to be
     │    ├── TooLarge          reading would take more memory than allowed
     │    └── UnsafeFile        reading would execute what is inside
     ├── PromptError            a click, box or mask that cannot be used
     ├── CheckpointError        weights that do not fit the model
     ├── ConfigError            a setting or name that is not known
     ├── TrainingError          training that cannot go on
     ├── DownloadError          weights that could not be fetched
     └── MissingPackage         an optional package is not installed (also an ImportError)

Catch `SamaritanError` to catch them all. The text says what was wrong with the value, what was
expected, and what to do next.
"""


class SamaritanError(Exception):
    """The root of all errors raised on purpose."""


class GeometryError(SamaritanError):
    """A grid or affine that cannot be used as it is."""


class GridMismatch(GeometryError):
    """Two arrays that should share one grid do not."""


class FileError(SamaritanError):
    """A file that cannot be read or written."""


class UnsupportedFormat(FileError):
    """A format, or a variant of it, that is not supported."""


class CorruptFile(FileError):
    """A file that is not what it claims to be: truncated, inconsistent or damaged."""


class TooLarge(FileError):
    """A file whose contents would take more memory than allowed."""


class UnsafeFile(FileError):
    """A file that would execute code when read."""


class PromptError(SamaritanError):
    """A point, box or mask that cannot be used: outside the image, empty, or not for this model."""


class CheckpointError(SamaritanError):
    """Weights that do not fit: missing, unexpected or mis-shaped tensors, or an unknown layout."""


class ConfigError(SamaritanError):
    """A setting, option or name that is not known or not valid."""


class TrainingError(SamaritanError):
    """Training that cannot go on: a loss that is not finite, or nothing that learns."""


class DownloadError(SamaritanError):
    """Weights that could not be fetched or did not verify."""


class MissingPackage(SamaritanError, ImportError):
    """An optional package is not installed."""
