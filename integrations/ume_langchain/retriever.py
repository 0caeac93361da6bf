"""`UmeRetriever`: words, pictures and videos in; LangChain documents with their evidence out."""

from __future__ import annotations

from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, SkipValidation

from ume_qdrant import Hit, Store, search
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline import ReasoningEmbedder


class UmeRetriever(BaseRetriever):
    """Retrieves from a collection of `ume_qdrant`: both rankings fused, and each document with the reasons for it.

    A query is a string, or an `Item` of words, pictures and videos in any mix. The async methods are LangChain's own;
    they search in a worker thread.

    Attributes:
        embedder: The models that the collection was made with.
        store: The collection, in a folder or on a server.
        search_kwargs: What else `ume_qdrant.search` takes: `limit`, `where`, `mode`, `reasoning`, `gate`, …; a call may
            say otherwise, as in `invoke(query, limit=3)`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    embedder: SkipValidation[ReasoningEmbedder] = Field(exclude=True, repr=False)
    store: SkipValidation[Store] = Field(exclude=True, repr=False)
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def invoke(
        self,
        input: str | Item,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Find what answers a query, best first.

        Raises:
            UmeError: As `ume_qdrant.search` does.
        """
        return super().invoke(cast("str", input), config, **kwargs)

    async def ainvoke(
        self,
        input: str | Item,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`invoke`, awaited."""
        return await super().ainvoke(cast("str", input), config, **kwargs)

    def _get_relevant_documents(
        self,
        query: str | Item,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002  # LangChain's signature
        **kwargs: Any,
    ) -> list[Document]:
        result = search(self.embedder, self.store, query, **{**self.search_kwargs, **kwargs})
        return [document_of(hit) for hit in result.hits]


def document_of(hit: Hit) -> Document:
    """A hit as a document: its words (a text's own, else the Reasoner's answer), and in `metadata` place and evidence.

    Metadata are JSON values: `source`, `kind`, `score`, `start_s`, `end_s`, `page`, `answer`, `keywords`, `boxes`
    ([x1, y1, x2, y2], 0..1000) and `key_frames`.
    """
    facts = hit.to_dict()
    evidence = facts.pop("evidence")
    return Document(
        id=hit.point_id, page_content=hit.text or hit.answer or "", metadata={"kind": hit.kind, **facts, **evidence}
    )
