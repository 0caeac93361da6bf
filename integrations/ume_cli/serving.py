"""`ume serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ume_cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    ModelOption,
    ReasonerOption,
    StoreOption,
)
from ume_cli.output import command

DRAIN_S = 30
"""Seconds that requests may take to end after SIGTERM."""


def serve(
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    media: Annotated[
        list[Path] | None, typer.Option("--media", help="File or folder that clients may index; may be repeated.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", help="Host name that is answered besides this machine's; may be repeated."),
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option("--api-key-file", help="File with API keys, one a line.", show_default=False)
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, help="Most requests per minute and key.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load the models once and serve search, evidence and embeddings over HTTP until SIGTERM or Ctrl-C."""
    with command(as_json=as_json) as output:
        from ume_cli.options import quiet_libraries
        from ume_retrieval.errors import InputError, MissingExtra

        try:
            import uvicorn

            from ume_serve import Settings, create_app
            from ume_serve.settings import LOOPBACK, read_keys
        except ImportError as error:
            raise MissingExtra(f"ume serve needs {error.name}", hint="pip install 'ume-retrieval[serve]'") from error

        keys = read_keys(api_key_file) if api_key_file else ()
        if host not in {"127.0.0.1", "localhost", "::1"} and not keys:
            raise InputError(
                f"--host {host} lets other machines in without a key", hint="give --api-key-file, or leave --host out"
            )
        settings = Settings(
            store=store,
            collection=collection,
            model=model,
            reasoner=None if reasoner == "none" else reasoner,
            device=device,
            engine=engine,
            media=tuple(media or ()),
            hosts=(*LOOPBACK, *(name.lower() for name in allow_host or ())),
            keys=keys,
            requests_per_minute=rate,
        )
        quiet_libraries()
        config = uvicorn.Config(
            create_app(settings),
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
            h11_max_incomplete_event_size=65_536,
        )
        listening = config.bind_socket()
        listening.listen(config.backlog)  # who reads the address below can connect
        url = f"http://{'127.0.0.1' if host in {'0.0.0.0', '::'} else host}:{listening.getsockname()[1]}"  # noqa: S104  # compared, not bound
        output.result({"url": url, "collection": collection}, f"serving on {url}")
        sys.stdout.flush()
        uvicorn.Server(config).run(sockets=[listening])


def mcp(
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Offer search and evidence to an agent over the Model Context Protocol on standard input and output."""
    with command(as_json=as_json):
        import asyncio

        from ume_cli.options import quiet_libraries
        from ume_retrieval.errors import MissingExtra

        try:
            from ume_serve import Settings, serve_stdio
        except ImportError as error:
            raise MissingExtra(f"ume mcp needs {error.name}", hint="pip install 'ume-retrieval[serve]'") from error

        quiet_libraries()
        wanted = None if reasoner == "none" else reasoner
        settings = Settings(
            store=store, collection=collection, model=model, reasoner=wanted, device=device, engine=engine
        )
        asyncio.run(serve_stdio(settings))
