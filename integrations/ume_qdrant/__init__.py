"""Index and search on Qdrant: in this process (Qdrant Edge) or on a server (`QdrantClient`).

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ume_retrieval.testing import fake_embedder
    >>> embedder = fake_embedder()
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

from ume_qdrant.admin.contents import SourceSummary, delete, delete_sources, export, export_jsonl, list_sources
from ume_qdrant.admin.migrate import MigrationReport, migrate
from ume_qdrant.admin.repair import RepairReport, repair
from ume_qdrant.admin.snapshots import restore, snapshot
from ume_qdrant.admin.verify import VerifyReport, verify
from ume_qdrant.indexing.contents import Document
from ume_qdrant.indexing.documents import aindex_documents, index_documents
from ume_qdrant.indexing.enrich import enrich
from ume_qdrant.indexing.ingest import index
from ume_qdrant.inference import register_inference, unregister_inference
from ume_qdrant.reports import EnrichReport, IndexReport, Progress
from ume_qdrant.searching.gating import calibrate_gate
from ume_qdrant.searching.hits import Hit, SearchResult
from ume_qdrant.searching.params import SearchParams
from ume_qdrant.searching.pictures import report_query
from ume_qdrant.searching.search import QueryVectors, asearch, asearch_vectors, search, search_vectors
from ume_qdrant.stores.async_store import AsyncStore, ThreadStore
from ume_qdrant.stores.base import Point, Scored, Store
from ume_qdrant.stores.conditions import (
    And,
    AnyOf,
    Condition,
    ContainsText,
    ContainsWords,
    Exists,
    Not,
    Or,
    Range,
)
from ume_qdrant.stores.edge import EdgeStore
from ume_qdrant.stores.filters import ANY_TENANT, Filter, Kind, ReasoningState
from ume_qdrant.stores.layout import Layout, SearchEffort, Sharding
from ume_qdrant.stores.metadata import Metadata, clean_metadata
from ume_qdrant.stores.open import open_async_store, open_store
from ume_qdrant.stores.schema import CollectionMeta, HitEvidence, IndexKind, KeyFrame
from ume_qdrant.stores.where import parse_where
from ume_retrieval.util.retry import Retry

if TYPE_CHECKING:
    from ume_qdrant.stores.async_client import AsyncClientStore as AsyncClientStore
    from ume_qdrant.stores.client import ClientStore as ClientStore

__all__ = [
    "ANY_TENANT",
    "And",
    "AnyOf",
    "AsyncClientStore",
    "AsyncStore",
    "ClientStore",
    "CollectionMeta",
    "Condition",
    "ContainsText",
    "ContainsWords",
    "Document",
    "EdgeStore",
    "EnrichReport",
    "Exists",
    "Filter",
    "Hit",
    "HitEvidence",
    "IndexKind",
    "IndexReport",
    "KeyFrame",
    "Kind",
    "Layout",
    "Metadata",
    "MigrationReport",
    "Not",
    "Or",
    "Point",
    "Progress",
    "QueryVectors",
    "Range",
    "ReasoningState",
    "RepairReport",
    "Retry",
    "Scored",
    "SearchEffort",
    "SearchParams",
    "SearchResult",
    "Sharding",
    "SourceSummary",
    "Store",
    "ThreadStore",
    "VerifyReport",
    "aindex_documents",
    "asearch",
    "asearch_vectors",
    "calibrate_gate",
    "clean_metadata",
    "delete",
    "delete_sources",
    "enrich",
    "export",
    "export_jsonl",
    "index",
    "index_documents",
    "list_sources",
    "migrate",
    "open_async_store",
    "open_store",
    "parse_where",
    "register_inference",
    "repair",
    "restore",
    "report_query",
    "search",
    "search_vectors",
    "snapshot",
    "unregister_inference",
    "verify",
]


def __getattr__(name: str) -> Any:
    # Importing qdrant_client takes most of a second, which a directory does not need.
    if name == "ClientStore":
        from ume_qdrant.stores.client import ClientStore

        return ClientStore
    if name == "AsyncClientStore":
        from ume_qdrant.stores.async_client import AsyncClientStore

        return AsyncClientStore
    if name == "Effort":
        import warnings

        warnings.warn("Effort is deprecated: use SearchEffort", DeprecationWarning, stacklevel=2)
        return SearchEffort
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
