"""`ume cache`: the traces that the Reasoner wrote, stored for reuse."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from ume_cli.options import JsonOption
from ume_cli.output import command, plain
from ume_retrieval.errors import InputError

if TYPE_CHECKING:
    from ume_retrieval import TraceCache

cache_app = typer.Typer(no_args_is_help=True)


def open_cache() -> TraceCache:
    """Open the cache at its default path."""
    from ume_retrieval.pipeline.trace_cache import TraceCache, default_cache_path

    return TraceCache(default_cache_path())


@cache_app.command()
def info(*, as_json: JsonOption = False) -> None:
    """Show where the traces are, how many, and their size. A full cache forgets the oldest."""
    with command(as_json=as_json) as output, open_cache() as cache:
        data = {
            "path": str(cache.path),
            "traces": len(cache),
            "bytes": cache.size_bytes,
            "max_bytes": cache.max_bytes,
        }
        most = "" if cache.max_bytes is None else f" of at most {cache.max_bytes / 1e6:.0f}"
        size = f"{cache.size_bytes / 1e6:.1f}{most} MB"
        output.result(data, f"{data['traces']} traces, {size} in {plain(str(data['path']))}")


@cache_app.command()
def clear(*, as_json: JsonOption = False) -> None:
    """Delete all traces."""
    with command(as_json=as_json) as output, open_cache() as cache:
        removed = cache.clear()
        output.result({"removed": removed}, f"{removed} traces removed")


@cache_app.command()
def prune(
    *,
    days: Annotated[float | None, typer.Option(help="Remove traces older than this.", show_default=False)] = None,
    megabytes: Annotated[float | None, typer.Option(help="Then the oldest, down to this.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old traces."""
    with command(as_json=as_json) as output, open_cache() as cache:
        for name, number in (("--days", days), ("--megabytes", megabytes)):
            if number is not None and not 0 <= number < math.inf:
                raise InputError(f"{name} is {number}", hint="use a number from 0 on")
        most = None if megabytes is None else int(megabytes * 1e6)
        removed = cache.prune(older_than_days=days, max_bytes=most)
        output.result({"removed": removed}, f"{removed} traces removed")
