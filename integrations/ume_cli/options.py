"""Options that several commands share, and what they open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

if TYPE_CHECKING:
    from ume_qdrant.stores.base import Store
    from ume_qdrant.stores.layout import Sharding
    from ume_retrieval.media.limits import Limits
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

API_KEY_VARIABLE = "QDRANT_API_KEY"
"""The only way in for a server's key: arguments show in process lists and shell histories."""

ModelOption = Annotated[
    str, typer.Option("--model", help="Embedder: a preset (see `ume models`), a hub id or a folder.")
]
ReasonerOption = Annotated[
    str, typer.Option("--reasoner", help="Reasoner: a preset, a hub id, a folder, `auto` or `none`.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1; cuda:all for a replica on each.")]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        envvar="UME_ENGINE",
        help="auto, transformers, vllm, or server: $UME_REASONER_URL and $UME_EMBEDDER_URL with the key $UME_API_KEY.",
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="How items are written for the Embedder: mmeb or train (Embed-RL), published (Qwen3-VL-Embedding), ume.",
        show_default=False,
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="What the Reasoner is asked instead of its own prompts: a .toml or .json file.",
        show_default=False,
    ),
]
IsolateOption = Annotated[
    bool,
    typer.Option(
        "--isolate",
        envvar="UME_ISOLATE",
        help="Decode files in worker processes with limits on time and memory: for files that others send.",
    ),
]
DecoderName: TypeAlias = Literal["pyav", "decord", "torchcodec"]
"""The names of `ume_retrieval.media.limits.DecoderName`, which imports what `ume --help` does not need."""

DecoderOption = Annotated[
    DecoderName,
    typer.Option(
        "--decoder",
        envvar="UME_DECODER",
        help="Library that decodes films; decord and torchcodec are pip extras. Films beyond it fall back to pyav.",
    ),
]
StoreOption = Annotated[
    str,
    typer.Option(
        "--store", help=f"A directory (in-process) or a Qdrant server's address; its key is ${API_KEY_VARIABLE}."
    ),
]
CollectionOption = Annotated[str, typer.Option("--collection", help="Name of the collection.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

DEFAULT_MODEL = "ume-tiny"
DEFAULT_STORE = "ume-store"
DEFAULT_COLLECTION = "default"


def load_embedder(
    model: str,
    reasoner: str,
    device: str,
    engine: str = "auto",
    *,
    prompts: Path | None = None,
    profile: str | None = None,
    cache: Path | None = None,
    isolate: bool = False,
    decoder: DecoderName = "pyav",
) -> ReasoningEmbedder:
    """The models that a command names, with progress bars of other libraries switched off."""
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

    quiet_libraries()
    return ReasoningEmbedder.from_pretrained(
        model,
        reasoner=None if reasoner == "none" else reasoner,
        profile=profile,
        engine=engine,
        device=device,
        cache=cache or "auto",
        limits=limits_of(isolate=isolate, decoder=decoder),
        prompts=prompts,
    )


def quiet_libraries() -> None:
    """Switch off progress bars and warnings of the libraries beneath; a command has its own."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from transformers import utils

    logging: Any = utils.logging
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def limits_of(*, isolate: bool, decoder: DecoderName = "pyav") -> Limits:
    """The usual limits on media, in workers if asked."""
    from ume_retrieval.media.limits import Isolation, Limits

    return Limits(isolation=Isolation() if isolate else None, decoder=decoder)


def open_named_store(location: str, collection: str, sharding: Sharding | None = None) -> Store:
    """The store that a command names."""
    from ume_qdrant import open_store

    is_server = "://" in location
    key = os.environ.get(API_KEY_VARIABLE) if is_server else None
    return open_store(location, collection, api_key=key, sharding=sharding)
