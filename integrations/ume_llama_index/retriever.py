"""`UmeRetriever`: text, image, video or a mix in; images, videos, pages and texts with their evidence out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index_instrumentation import get_dispatcher

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.events import QueryReasonedEvent
from ume_llama_index.filters import filter_of
from ume_llama_index.payload import SHOWN, node_of_payload, with_evidence
from ume_llama_index.queries import item_of_query
from ume_llama_index.vector_store import UmeVectorStore
from ume_qdrant import Filter, search
from ume_qdrant.searching.fusion import Grouping, Place, group
from ume_qdrant.searching.params import REASONED_WEIGHT, Mode
from ume_qdrant.stores.base import Store
from ume_retrieval.errors import InputError, StoreMismatch
from ume_retrieval.inputs import Item, Modality
from ume_retrieval.results import Trace
from ume_retrieval.tcot.grammar import render

dispatcher = get_dispatcher(__name__)

DEPTH = 10
"""Nodes that are asked of a store that cannot group, for each that is wanted."""


class UmeRetriever(BaseRetriever):
    """Retrieves what answers a query, with the reasons.

    A query is a string, a `QueryBundle` (its `image_path` counts), or a `MediaQuery` of text, images and videos. On a
    collection of `ume_qdrant` (`UmeVectorStore`, a store of `open_store`, or a `QdrantVectorStore` on one) the
    rankings by `direct` and `reasoned` vectors are fused, and nodes carry the T-CoT's answer, boxes and key frames; see
    `payload.node_of_payload`. Any other LlamaIndex vector store that keeps nodes is searched with the one vector it
    has.

    Args:
        embedding: The embedding that the vectors were made with.
        store: What to search.
        similarity_top_k: Most nodes.
        filters: Which nodes count, in LlamaIndex's words.
        where: Which nodes count, in `ume_qdrant`'s words; only with its collections.
        mode: "fused", "direct" or "reasoned".
        target: What is looked for; "video" when only videos count.
        group_by: One node a "point" (a page, a segment), a "moment" or a "source".
        diversity: Weight of unlikeness among the nodes, 0..1.
        weight: Share of the reasoned score in a fused one, 0..1.
        shown: Which of the place and evidence in the metadata a language model reads.
        **kwargs: `callback_manager`, `verbose` and what else LlamaIndex's retrievers take.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from ume_retrieval.pipeline.embedder import ReasoningEmbedder
        >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
        >>> embedding = UmeEmbedding(embedder=ReasoningEmbedder(HashEmbedder(), FakeReasoner()))
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
        where: Filter | None = None,
        mode: Mode = "fused",
        target: Modality | None = None,
        group_by: Grouping = "point",
        diversity: float = 0.0,
        weight: float = REASONED_WEIGHT,
        shown: Sequence[str] = SHOWN,
        **kwargs: Any,
    ) -> None:
        self._embedding = embedding
        self._given = store
        self._found: Store | BasePydanticVectorStore | None = None
        self._finding = threading.Lock()
        self._top_k = similarity_top_k
        self._filters = filters
        self._where = where
        self._mode: Mode = mode
        self._target = target or embedding.target
        self._group_by: Grouping = group_by
        self._diversity = diversity
        self._weight = weight
        self._shown = tuple(shown)
        super().__init__(**kwargs)

    @property
    def embedding(self) -> UmeEmbedding:
        """The embedding that the vectors were made with."""
        return self._embedding

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        item = item_of_query(query_bundle)
        store = self._store()
        if isinstance(store, BasePydanticVectorStore):
            return self._nearest(store, item)
        where = filter_of(self._filters, self._where)
        only_videos = where is not None and where.kinds == ("video",)
        result = search(
            self._embedding.embedder,
            store,
            item,
            limit=self._top_k,
            reasoning=self._embedding.reasoning,
            mode=self._mode,
            target=self._target or ("video" if only_videos else None),
            where=where,
            group_by=self._group_by,
            diversity=self._diversity,
            weight=self._weight,
        )
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
        """Search a store of single vectors."""
        if self._where is not None or self._mode != "fused" or self._diversity:
            raise InputError(
                f"where, mode and diversity need a collection of ume_qdrant, and {store.class_name()} is none",
                hint="write nodes with UmeVectorStore, or use filters",
            )
        vector = self._embedding.get_item_query_embedding(item)
        depth = self._top_k if self._group_by == "point" else DEPTH * self._top_k
        found = store.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=depth, filters=self._filters))
        if found.ids and not found.nodes:
            raise InputError(
                f"{store.class_name()} keeps vectors without their nodes", hint="use the as_retriever() of its index"
            )
        scores = found.similarities or [0.0] * len(found.nodes or [])
        nodes = {
            node.node_id: NodeWithScore(node=node, score=score)
            for node, score in zip(found.nodes or [], scores, strict=True)
        }
        places = {key: _place(one.node) for key, one in nodes.items()}
        for one in nodes.values():
            with_evidence(one.node, one.node.metadata, self._shown)
        return [nodes[key] for key in group(list(nodes), places, self._group_by)[: self._top_k]]

    def _store(self) -> Store | BasePydanticVectorStore:
        with self._finding:
            if self._found is None:
                self._found = _collection_of(self._given)
            return self._found


def _collection_of(store: Store | BasePydanticVectorStore) -> Store | BasePydanticVectorStore:
    """The collection of `ume_qdrant` behind a vector store, or the vector store where there is none."""
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
