"""``python -m runner``, and the console script ``infill``."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; functions are looked up in the working directory first, as ``python -m`` does."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    from runner.cli import app

    app()


if __name__ == "__main__":
    main()
