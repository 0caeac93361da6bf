"""`UmeRetriever`: retrieve images, videos, pages and texts with their evidence."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index_instrumentation import get_dispatcher

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.events import QueryReasonedEvent
from ume_llama_index.filters import filter_of
from ume_llama_index.inputs import item_of_query
from ume_llama_index.payload import SHOWN, node_of_payload, with_evidence
from ume_llama_index.vector_store import UmeVectorStore
from ume_qdrant import SearchParams, search
from ume_qdrant.searching.fusion import Place, group
from ume_qdrant.searching.params import DEFAULT_PARAMS
from ume_qdrant.stores.base import Store
from ume_retrieval.errors import InputError, StoreMismatch
from ume_retrieval.inputs import Item
from ume_retrieval.results import Trace
from ume_retrieval.tcot.grammar import render

dispatcher = get_dispatcher(__name__)

SETTINGS: Final = frozenset(setting.name for setting in fields(SearchParams)) - {"limit", "reasoning"}

DEPTH = 10
"""Nodes requested per wanted node from a store that cannot group."""


class UmeRetriever(BaseRetriever):
    """Retrieves nodes that answer a query, with their evidence.

    A query is a string, a `QueryBundle` (with its `image_path`), or a `MediaQuery` of text, images and videos. On a
    collection of `ume_qdrant` (`UmeVectorStore`, a store of `open_store`, or a `QdrantVectorStore` on one) the
    rankings by `direct` and `reasoned` vectors are fused, and nodes have the T-CoT's answer, boxes and key frames; see
    `payload.node_of_payload`. Any other LlamaIndex vector store that stores nodes is searched with its single vector.

    Args:
        embedding: The embedding that made the vectors.
        store: The collection or vector store.
        similarity_top_k: Most nodes.
        filters: LlamaIndex's filters.
        params: Settings of the search; `limit` and `reasoning` are those of `similarity_top_k` and `embedding`.
        shown: Which place and evidence metadata the language model reads.
        **kwargs: Settings of `ume_qdrant.SearchParams` by keyword (`where`, `mode`, `target`, `group_by`, …), which
            override `params`; `callback_manager`, `verbose` and other arguments of LlamaIndex's retrievers.

    Raises:
        InputError: If a setting is invalid.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from ume_retrieval.testing import fake_embedder
        >>> embedding = UmeEmbedding(embedder=fake_embedder())
        >>> vectors = UmeVectorStore.open(tempfile.mkdtemp(), "notes", embedding)
        >>> _ = vectors.add(embedding([TextNode(text="the last train home"), TextNode(text="red shoes")]))
        >>> [best] = UmeRetriever(embedding, vectors, similarity_top_k=1).retrieve("when does the train leave")
        >>> best.text, best.metadata["keywords"]
        ('the last train home', ['the', 'last', 'train', 'home'])
    """

    def __init__(
        self,
        embedding: UmeEmbedding,
        store: Store | BasePydanticVectorStore,
        *,
        similarity_top_k: int = 10,
        filters: MetadataFilters | None = None,
        params: SearchParams = DEFAULT_PARAMS,
        shown: Sequence[str] = SHOWN,
        **kwargs: Any,
    ) -> None:
        self._embedding = embedding
        self._given = store
        self._found: Store | BasePydanticVectorStore | None = None
        self._finding = threading.Lock()
        self._filters = filters
        settings = {name: kwargs.pop(name) for name in SETTINGS & kwargs.keys()}
        self._params = params.merge(**{**settings, "limit": similarity_top_k, "reasoning": embedding.reasoning})
        self._shown = tuple(shown)
        super().__init__(**kwargs)

    @property
    def embedding(self) -> UmeEmbedding:
        """The embedding that made the vectors."""
        return self._embedding

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        item = item_of_query(query_bundle)
        store = self._store()
        if isinstance(store, BasePydanticVectorStore):
            return self._nearest(store, item)
        tenant_key = store.layout().tenant if self._filters else None
        where = filter_of(self._filters, self._params.where, tenant_key=tenant_key)
        if isinstance(self._given, UmeVectorStore):
            where = self._given.narrowed(where)
        only_videos = where is not None and where.kinds == ("video",)
        target = self._params.target or self._embedding.target or ("video" if only_videos else None)
        result = search(self._embedding.embedder, store, item, self._params, where=where, target=target)
        if result.query_trace is not None:
            dispatcher.event(_reasoned(result.query_trace))
        points = {point.id: point for point in store.retrieve([hit.point_id for hit in result.hits])}
        return [
            NodeWithScore(
                node=node_of_payload(points[hit.point_id].payload, hit.point_id, self._shown), score=hit.score
            )
            for hit in result.hits
            if hit.point_id in points
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._embedding.workers.run(self._retrieve, query_bundle)

    def _nearest(self, store: BasePydanticVectorStore, item: Item) -> list[NodeWithScore]:
        """Search a vector store with a single vector per node."""
        params = self._params
        if params.where is not None or params.mode != "fused" or params.diversity:
            raise InputError(
                f"where, mode and diversity need a collection of ume_qdrant, not a {store.class_name()}",
                hint="write nodes with UmeVectorStore, or use filters",
            )
        vector = self._embedding.get_item_query_embedding(item)
        depth = params.limit if params.group_by == "point" else DEPTH * params.limit
        found = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=depth, filters=self._filters))
        if found.ids and not found.nodes:
            raise InputError(
                f"{store.class_name()} stores vectors without their nodes", hint="use the as_retriever() of its index"
            )
        scores = found.similarities or [0.0] * len(found.nodes or [])
        nodes = {
            node.node_id: NodeWithScore(node=node, score=score)
            for node, score in zip(found.nodes or [], scores, strict=True)
        }
        places = {key: _place(one.node) for key, one in nodes.items()}
        for one in nodes.values():
            with_evidence(one.node, one.node.metadata, self._shown)
        return [nodes[key] for key in group(list(nodes), places, params.group_by)[: params.limit]]

    def _store(self) -> Store | BasePydanticVectorStore:
        with self._finding:
            if self._found is None:
                self._found = _collection_of(self._given)
            return self._found


def _collection_of(store: Store | BasePydanticVectorStore) -> Store | BasePydanticVectorStore:
    """Return the collection of `ume_qdrant` behind a vector store, or the vector store itself."""
    if isinstance(store, UmeVectorStore):
        return store.client
    if not isinstance(store, BasePydanticVectorStore):
        return store

    from qdrant_client import QdrantClient

    from ume_qdrant.stores.client import ClientStore

    name = getattr(store, "collection_name", None)
    if isinstance(name, str) and isinstance(store.client, QdrantClient):
        collection = ClientStore(store.client, name)
        try:
            collection.meta()
        except StoreMismatch:
            return store  # LlamaIndex made it
        return collection
    return store


def _reasoned(trace: Trace) -> QueryReasonedEvent:
    return QueryReasonedEvent(answer=trace.tcot.answer, tcot=render(trace.tcot), cached=trace.cached)


def _place(node: BaseNode) -> Place:
    known = node.metadata
    return Place(known.get("source") or node.ref_doc_id or node.node_id, known.get("start_s"), known.get("end_s"))
