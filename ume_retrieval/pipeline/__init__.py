"""From inputs to vectors: `ReasoningEmbedder`, and its stages for programs that schedule them themselves.

`load_items` decodes inputs with an `ItemLoader`; `apply_stage` runs a `ReasonStage` or an `EmbedStage` over them. All
three pass `StageItem` values, and name what failed.
"""

from ume_retrieval.pipeline.batching import Batching
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.loading import ItemLoader
from ume_retrieval.pipeline.reasoning import ReasonStage
from ume_retrieval.pipeline.run import Outcomes, apply_stage, load_items
from ume_retrieval.pipeline.stages import EmbedStage, StageItem
from ume_retrieval.pipeline.trace_cache import InMemoryTraceCache, TraceCache, default_cache_path

__all__ = [
    "Batching",
    "EmbedStage",
    "InMemoryTraceCache",
    "ItemLoader",
    "Outcomes",
    "ReasonStage",
    "ReasoningEmbedder",
    "StageItem",
    "TraceCache",
    "apply_stage",
    "default_cache_path",
    "load_items",
]
