"""Index and search on Qdrant: in this process (Qdrant Edge) or on a server (`QdrantClient`).

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ume_retrieval.pipeline import ReasoningEmbedder
    >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
    >>> embedder = ReasoningEmbedder(HashEmbedder(), FakeReasoner())
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "note.txt").write_text("the last train home")
    >>> with open_store(folder / "vectors", "notes") as store:
    ...     report = index(embedder, store, folder, reasoning="always")
    ...     result = search(embedder, store, "when does the train leave")
    >>> report.indexed, result.hits[0].text, result.hits[0].evidence.keywords
    (1, 'the last train home', ('the', 'last', 'train', 'home'))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ume_qdrant.contents import SourceSummary, delete_sources, export, export_jsonl, list_sources
from ume_qdrant.edge import EdgeStore
from ume_qdrant.enrich import enrich
from ume_qdrant.filters import Filter, Kind, ReasoningState
from ume_qdrant.hits import Hit, SearchResult
from ume_qdrant.ingest import index
from ume_qdrant.location import open_store
from ume_qdrant.reports import EnrichReport, IndexReport, Progress
from ume_qdrant.retry import Retry
from ume_qdrant.schema import CollectionMeta
from ume_qdrant.search import QueryVectors, search, search_vectors
from ume_qdrant.store import Point, Scored, Store
from ume_qdrant.traces import HitEvidence, KeyFrame

if TYPE_CHECKING:
    from ume_qdrant.client import ClientStore as ClientStore

__all__ = [
    "ClientStore",
    "CollectionMeta",
    "EdgeStore",
    "EnrichReport",
    "Filter",
    "Hit",
    "HitEvidence",
    "IndexReport",
    "KeyFrame",
    "Kind",
    "Point",
    "Progress",
    "QueryVectors",
    "ReasoningState",
    "Retry",
    "Scored",
    "SearchResult",
    "SourceSummary",
    "Store",
    "delete_sources",
    "enrich",
    "export",
    "export_jsonl",
    "index",
    "list_sources",
    "open_store",
    "search",
    "search_vectors",
]


def __getattr__(name: str) -> Any:
    # qdrant_client takes most of a second to import, and a directory does not need it.
    if name == "ClientStore":
        from ume_qdrant.client import ClientStore

        return ClientStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
