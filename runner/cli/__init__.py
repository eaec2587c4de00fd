"""The command line. Every command is one call of the library; nothing heavy is imported before it runs."""

from runner.cli.main import app

__all__ = ["app"]
