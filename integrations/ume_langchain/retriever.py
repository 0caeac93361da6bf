"""`UmeRetriever`: words, pictures and videos in; LangChain documents with their evidence out."""

from __future__ import annotations

from functools import partial
from inspect import Parameter, signature
from typing import Any, Final, cast

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import run_in_executor
from pydantic import ConfigDict, Field, SkipValidation

from ume_qdrant import Hit, Store, search
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.embedder import ReasoningEmbedder

OPTIONS: Final = tuple(name for name, one in signature(search).parameters.items() if one.kind is Parameter.KEYWORD_ONLY)
"""What a search can be told."""


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
        result = search(self.embedder, self.store, query, **_known({**self.search_kwargs, **kwargs}))
        return [document_of(hit) for hit in result.hits]

    async def _aget_relevant_documents(
        self, query: str | Item, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # LangChain's own hands no options of the call on.
        found = partial(self._get_relevant_documents, query, run_manager=run_manager.get_sync(), **kwargs)
        return await run_in_executor(None, found)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    """The options, if `search` takes them all."""
    if unknown := options.keys() - OPTIONS:
        raise InputError(
            f"search takes no {', '.join(sorted(unknown))}", hint=f"it takes {', '.join(OPTIONS)} (limit is how many)"
        )
    return options


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
