"""The `ume` command line: index folders, search them, and see why something was found."""

from __future__ import annotations


def main() -> None:
    """Run `ume`; the entry point of the console script."""
    from ume_cli.app import app

    app()
