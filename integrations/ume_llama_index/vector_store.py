"""`UmeVectorStore`: a collection of `ume_qdrant` as a LlamaIndex vector store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores import MetadataFilters, VectorStoreQuery, VectorStoreQueryResult
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQueryMode

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.filters import filter_of
from ume_llama_index.nodes import REASONING_KEYS, item_of_node, names_file
from ume_llama_index.payload import SPLIT_FROM, content_digest, node_of_payload, point_id_of, point_payload
from ume_qdrant import ANY_TENANT, EnrichReport, Filter, QueryVectors, enrich, open_store, search_vectors
from ume_qdrant.stores.base import Payload, Point, Store, Vector, VectorName, batches
from ume_qdrant.stores.metadata import META_FIELD
from ume_qdrant.stores.schema import meta_of
from ume_retrieval.errors import InputError

MODES: Final = (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR)

DELETED_AT_A_TIME: Final = 500


class UmeVectorStore(BasePydanticVectorStore):
    """Stores nodes as points with a `direct` and a `reasoned` vector, for one pair of models.

    Nodes that an `IngestionPipeline` writes here can be read by `ume search`, `UmeRetriever`, LlamaIndex's
    `QdrantVectorStore` and plain Qdrant clients; this class also reads what `ume index` wrote. Nodes that
    `UmeEmbedding` reasoned over get both vectors (the direct one is computed here); others are queued for `enrich`.

    Args:
        store: The collection; created when the first nodes are added.
        embedding: The embedding that makes the vectors.
        tenant: The tenant of all reading, deleting and enriching, in a collection that has tenants; a query may choose
            it by a filter `tenant key == …` instead. Nodes name their tenant in their metadata.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> from ume_retrieval.testing import fake_embedder
        >>> embedding = UmeEmbedding(embedder=fake_embedder())
        >>> with UmeVectorStore.open(tempfile.mkdtemp(), "notes", embedding) as vectors:
        ...     _ = vectors.add(embedding([TextNode(text="the last train home"), TextNode(text="red shoes")]))
        ...     query = VectorStoreQuery(query_embedding=embedding.get_query_embedding("train"))
        ...     vectors.query(query).nodes[0].text
        'the last train home'
    """

    stores_text: bool = True
    location: str
    collection: str
    tenant: str | None = None

    _store: Store = PrivateAttr()
    _embedding: UmeEmbedding = PrivateAttr()

    def __init__(self, store: Store, embedding: UmeEmbedding, *, tenant: str | None = None) -> None:
        super().__init__(stores_text=True, location=store.location, collection=store.collection, tenant=tenant)
        self._store = store
        self._embedding = embedding

    @classmethod
    def open(
        cls,
        location: str | Path,
        collection: str,
        embedding: UmeEmbedding,
        *,
        api_key: str | None = None,
        tenant: str | None = None,
    ) -> UmeVectorStore:
        """Open a collection in a folder (Qdrant Edge) or on a server; see `ume_qdrant.open_store`."""
        return cls(open_store(location, collection, api_key=api_key), embedding, tenant=tenant)

    @classmethod
    def class_name(cls) -> str:
        """Name in serialised form."""
        return "UmeVectorStore"

    @property
    def client(self) -> Store:
        """The collection."""
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._store.close()

    def add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """Write nodes; removes nodes of a file's former content, and pieces of a file that is now written whole.

        If an existing node has a `reasoned` vector and the new one has not, the vector is kept and the metadata are
        updated: equal ids mean equal content.

        Returns:
            Ids of the nodes' points.

        Raises:
            StoreMismatch: If the collection was made with other models or prompts.
            InputError: If a node lacks a vector of the right length, or has media that cannot be embedded.
            MediaError: If a node's file cannot be read.
        """
        if not nodes:
            return []
        payloads = [point_payload(node, self._embedding.embedder.limits) for node in nodes]
        reasoned = [payload["reasoning"] == "done" for payload in payloads]
        self._prepare(reasoned=any(reasoned))
        thought = [node for node, done in zip(nodes, reasoned, strict=True) if done]
        direct = iter(self._direct(thought))
        points = []
        for node, payload, done in zip(nodes, payloads, reasoned, strict=True):
            own = self._vector(node)
            vectors: dict[VectorName, Vector] = {"direct": next(direct), "reasoned": own} if done else {"direct": own}
            points.append(Point(point_id_of(node.node_id), vectors, payload))
        kept = self._kept(points)
        self._store.upsert([point for point in points if point.id not in kept])
        self._sweep([point for node, point in zip(nodes, points, strict=True) if names_file(node)])
        return [point.id for point in points]

    async def async_add(self, nodes: Sequence[BaseNode], **_: Any) -> list[str]:
        """`add` without blocking the event loop."""
        return await self._embedding.workers.run(self.add, nodes)

    def enrich(self, *, where: Filter | None = None, retry_failed: bool = False) -> EnrichReport:
        """Reason over nodes that were added without reasoning; see `ume_qdrant.enrich`."""
        chosen = self.narrowed(where)
        return enrich(self._embedding.embedder, self._store, where=chosen, retry_failed=retry_failed)

    def query(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """Return the points nearest to a vector, compared with both kinds of vectors if there are both.

        Raises:
            InputError: If the mode is not DEFAULT or MMR, or a filter is not supported.
        """
        if query.mode not in MODES:
            raise InputError(f"queries by {query.mode.value!r} are not possible here", hint="use DEFAULT or MMR")
        if query.query_embedding is None:
            raise InputError("a query needs its embedding", hint="embed it with UmeEmbedding")
        meta = self._store.meta()
        meta.check(meta_of(self._embedding.embedder, reasoned=True), self.collection)
        vector = np.asarray(query.query_embedding, dtype=np.float32)
        mmr = query.mode is VectorStoreQueryMode.MMR
        hits = search_vectors(
            self._store,
            QueryVectors(direct=vector, reasoned=vector if meta.reasoner else None),
            limit=query.similarity_top_k,
            where=self.narrowed(self._filter(query.filters), self._wanted(query)),
            diversity=1 - (0.5 if query.mmr_threshold is None else query.mmr_threshold) if mmr else 0.0,
        )
        points = {point.id: point for point in self._store.retrieve([hit.point_id for hit in hits])}
        found = [(hit, points[hit.point_id]) for hit in hits if hit.point_id in points]
        return VectorStoreQueryResult(
            nodes=[node_of_payload(point.payload, point.id) for _, point in found],
            similarities=[hit.score for hit, _ in found],
            ids=[point.id for _, point in found],
        )

    async def aquery(self, query: VectorStoreQuery, **_: Any) -> VectorStoreQueryResult:
        """`query` without blocking the event loop."""
        return await self._embedding.workers.run(self.query, query)

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return nodes by id, by filter, or all; an empty list of ids selects none."""
        if node_ids == []:
            return []
        where = self.narrowed(self._filter(filters), _point_ids(node_ids))
        return [node_of_payload(point.payload, point.id) for point in self._store.scroll(where)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` without blocking the event loop."""
        return await self._embedding.workers.run(self.get_nodes, node_ids, filters)

    def delete(self, ref_doc_id: str, **_: Any) -> None:
        """Remove a document: the node with that id, the nodes of that source, and the pieces split from it."""
        if self._store.exists():
            self._store.delete(sorted(self._of_documents([ref_doc_id])))

    async def adelete(self, ref_doc_id: str, **_: Any) -> None:
        """`delete` without blocking the event loop."""
        await self._embedding.workers.run(self.delete, ref_doc_id)

    def delete_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any) -> None:
        """Remove nodes by id, by filter, or both; an empty list of ids selects none.

        Raises:
            InputError: If neither restricts anything; `clear` removes all.
        """
        if node_ids == []:
            return
        where = self.narrowed(self._filter(filters), _point_ids(node_ids))
        if where == self.narrowed(None):
            raise InputError("nothing says which nodes to delete", hint="use clear() to delete all")
        self._remove(where)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **_: Any
    ) -> None:
        """`delete_nodes` without blocking the event loop."""
        await self._embedding.workers.run(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Remove all nodes; the collection is kept."""
        if self._store.exists():
            self._remove(self.narrowed(None))

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await self._embedding.workers.run(self.clear)

    def narrowed(self, where: Filter | None, ids: set[str] | None = None) -> Filter | None:
        """Restrict a filter to the store's tenant, and to ids unless None.

        Raises:
            InputError: If the filter chooses another tenant.
        """
        if self.tenant is not None:
            if where is not None and where.tenant not in {None, self.tenant}:
                raise InputError(
                    f"this vector store is restricted to tenant {self.tenant!r}, not {where.tenant!r}",
                    hint="open another UmeVectorStore for that tenant",
                )
            where = replace(where or Filter(), tenant=self.tenant)
        return where if ids is None else replace(where or Filter(), ids=tuple(sorted(ids)))

    def _filter(self, filters: MetadataFilters | None) -> Filter | None:
        return filter_of(filters, tenant_key=self._store.layout().tenant if filters else None)

    def _prepare(self, *, reasoned: bool) -> None:
        wanted = meta_of(self._embedding.embedder, reasoned=reasoned)
        self._store.create(meta_of(self._embedding.embedder, reasoned=False))
        held = self._store.meta()
        held.check(wanted, self.collection)
        if reasoned and not held.reasoner:
            self._store.set_metadata(wanted)

    def _direct(self, nodes: Sequence[BaseNode]) -> list[Vector]:
        items = [item_of_node(node) for node in nodes]
        embedder = self._embedding.embedder
        return [row.astype(np.float32) for row in embedder.encode_corpus(items, reasoning="never")] if items else []

    def _vector(self, node: BaseNode) -> Vector:
        vector = np.asarray(node.get_embedding(), dtype=np.float32)
        if vector.shape != (self._embedding.embedder.dimension,):
            raise InputError(
                f"node {node.node_id} has a vector of length {len(vector)}, not {self._embedding.embedder.dimension}",
                hint="embed it with this store's embedding, without truncate_dim",
            )
        return vector

    def _kept(self, points: Sequence[Point]) -> set[str]:
        ids = [point.id for point in points if "reasoned" not in point.vectors]
        held = {point.id: point.payload for point in self._store.retrieve(ids)}
        same = {p.id: p for p in points if p.id in held and held[p.id].get("file_digest") == p.payload["file_digest"]}
        kept = {key for key in same if held[key].get("reasoning") == "done"}
        self._store.update([Point(key, {}, _without_reasoning(same[key].payload)) for key in kept])
        return kept

    def _sweep(self, points: Sequence[Point]) -> None:
        if not points:
            return
        key = self._store.layout().tenant

        def file(point: Point) -> tuple[str, object]:
            return point.payload["source"], key and point.payload[META_FIELD][key]

        digests = {file(point): content_digest(point.payload) for point in points}
        new = {point.id for point in points}
        whole = {file(point) for point in points if SPLIT_FROM not in point.payload}
        where = Filter(sources=tuple(sorted({source for source, _ in digests})), tenant=ANY_TENANT)
        fields = ("source", "file_digest", SPLIT_FROM, META_FIELD)
        held = [point for point in self._store.scroll(where, fields=fields) if file(point) in digests]
        former = [p.id for p in held if content_digest(p.payload) != digests[file(p)]]
        pieces = [p.id for p in held if file(p) in whole and SPLIT_FROM in p.payload and p.id not in new]
        self._store.delete([*former, *pieces])

    def _of_documents(self, doc_ids: Sequence[str]) -> set[str]:
        """Return the ids of the points of documents, by source or document id."""
        found: set[str] = set()
        nodes = Filter(ids=tuple(point_id_of(doc_id) for doc_id in doc_ids))
        for where in (nodes, Filter(sources=tuple(doc_ids)), Filter(doc_ids=tuple(doc_ids))):
            found |= {point.id for point in self._store.scroll(self.narrowed(where), fields=("source",))}
        return found

    def _wanted(self, query: VectorStoreQuery) -> set[str] | None:
        ids = _point_ids(query.node_ids)
        if not query.doc_ids:
            return ids
        of_documents = self._of_documents(query.doc_ids)
        return of_documents if ids is None else ids & of_documents

    def _remove(self, where: Filter | None) -> None:
        ids = [point.id for point in self._store.scroll(where, fields=("source",))]
        for some in batches(ids, DELETED_AT_A_TIME):
            self._store.delete(some)


def _point_ids(node_ids: list[str] | None) -> set[str] | None:
    """Return the ids of nodes' points. As in LlamaIndex's stores, an empty list does not restrict."""
    return set(map(point_id_of, node_ids)) if node_ids else None


def _without_reasoning(payload: Payload) -> Payload:
    """Return a payload without the fields of reasoning; `text` is one of them, as media have the answer there."""
    return {field: value for field, value in payload.items() if field not in (*REASONING_KEYS, "text")}
