"""`samaritan` and `python -m samaritan`."""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main() -> None:
    """Run the command line; errors made on purpose become one message and exit code 1."""
    from samaritan.cli import app
    from samaritan.errors import SamaritanError

    # a process that ends need not look for garbage among all that torch brought, which takes 0.3 s
    atexit.register(gc.freeze)
    try:
        app()
    except SamaritanError as error:
        print(f"samaritan: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
