"""Reasoning multimodal retrieval (arXiv 2602.13823) over any strong Embedder.

Names are imported when they are first used, so that `import ume_retrieval` takes a few milliseconds.

Example:
    >>> from ume_retrieval import Item
    >>> Item(text="a red circle").modality
    'text'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ume_retrieval import former

if TYPE_CHECKING:
    __version__: str
    from ume_retrieval.checkpoint import EmbedderSpec as EmbedderSpec
    from ume_retrieval.checkpoint import ModelInfo as ModelInfo
    from ume_retrieval.checkpoint import Prompts as Prompts
    from ume_retrieval.checkpoint import ReasonerSpec as ReasonerSpec
    from ume_retrieval.checkpoint import VisualBudget as VisualBudget
    from ume_retrieval.engines.base import Embedder as Embedder
    from ume_retrieval.engines.base import Reasoner as Reasoner
    from ume_retrieval.engines.base import Sampling as Sampling
    from ume_retrieval.errors import CacheError as CacheError
    from ume_retrieval.errors import Failure as Failure
    from ume_retrieval.errors import InputError as InputError
    from ume_retrieval.errors import MediaError as MediaError
    from ume_retrieval.errors import MissingExtra as MissingExtra
    from ume_retrieval.errors import ModelError as ModelError
    from ume_retrieval.errors import ReasoningError as ReasoningError
    from ume_retrieval.errors import StoreError as StoreError
    from ume_retrieval.errors import UmeError as UmeError
    from ume_retrieval.inputs import Clip as Clip
    from ume_retrieval.inputs import Frames as Frames
    from ume_retrieval.inputs import Item as Item
    from ume_retrieval.inputs import LoadedItem as LoadedItem
    from ume_retrieval.inputs import Page as Page
    from ume_retrieval.media.limits import Limits as Limits
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder as ReasoningEmbedder
    from ume_retrieval.pipeline.trace_cache import TraceCache as TraceCache
    from ume_retrieval.reranking import Reranker as Reranker
    from ume_retrieval.reranking import RerankResult as RerankResult
    from ume_retrieval.results import EncodeResult as EncodeResult
    from ume_retrieval.results import Trace as Trace
    from ume_retrieval.results import Usage as Usage
    from ume_retrieval.tcot.trace import TCot as TCot

_HOMES = {
    "checkpoint": ("EmbedderSpec", "ModelInfo", "Prompts", "ReasonerSpec", "VisualBudget"),
    "engines.base": ("Embedder", "Reasoner", "Sampling"),
    "errors": (
        "CacheError",
        "Failure",
        "InputError",
        "MediaError",
        "MissingExtra",
        "ModelError",
        "ReasoningError",
        "StoreError",
        "UmeError",
    ),
    "inputs": ("Clip", "Frames", "Item", "LoadedItem", "Page"),
    "media.limits": ("Limits",),
    "pipeline.embedder": ("ReasoningEmbedder",),
    "pipeline.trace_cache": ("TraceCache",),
    "reranking": ("RerankResult", "Reranker"),
    "results": ("EncodeResult", "Trace", "Usage"),
    "tcot.trace": ("TCot",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME]  # noqa: PLE0604 - one table instead of two lists of the same names


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("ume-retrieval")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


former.install()
