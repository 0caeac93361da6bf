"""`UmeRetriever`: LangChain documents with their evidence, for queries of text, images and videos."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, SkipValidation

from ume_qdrant import Hit, Store, search
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.embedder import ReasoningEmbedder


class UmeRetriever(BaseRetriever):
    """Retrieves from a collection of `ume_qdrant`: fuses both rankings, and returns documents with their evidence.

    A query is a string, or an `Item` of text, images and videos in any combination. The async methods search in a
    worker thread.

    Attributes:
        embedder: The models that the collection was made with.
        store: The collection, in a folder or on a server.
        search_kwargs: Settings of `ume_qdrant.SearchParams`: `limit`, `where`, `mode`, `reasoning`, `gate`, …; a call
            may override them, as in `invoke(query, limit=3)`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    embedder: SkipValidation[ReasoningEmbedder] = Field(exclude=True, repr=False)
    store: SkipValidation[Store] = Field(exclude=True, repr=False)
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    def invoke(
        self,
        input: str | Item,  # noqa: A002  # LangChain's name
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return documents that answer a query, best first.

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

    async def _aget_relevant_documents(
        self, query: str | Item, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # LangChain's own method does not pass on the options of the call.
        found = partial(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs)
        return await run_in_executor(None, found)


def document_of(hit: Hit) -> Document:
    """Convert a hit: the content is its text or the Reasoner's answer, `metadata` has its place and evidence.

    Metadata are JSON values: `source`, `kind`, `score`, `start_s`, `end_s`, `page`, `answer`, `keywords`, `boxes`
    ([x1, y1, x2, y2], 0..1000) and `key_frames`; your own under their keys, as far as these names leave them free, and
    all of them under `meta`.
    """
    facts = hit.to_dict()
    evidence = facts.pop("evidence")
    return Document(
        id=hit.point_id,
        page_content=hit.text or hit.answer or "",
        metadata={**hit.meta, "kind": hit.kind, **facts, **evidence},
    )
