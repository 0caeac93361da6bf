"""A query engine whose multimodal language model sees the evidence."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms import LLM
from llama_index.core.query_engine import RetrieverQueryEngine

from ume_llama_index.evidence import EvidencePictures
from ume_llama_index.rerank import TCotRerank, UmeRerank
from ume_llama_index.retriever import UmeRetriever


def evidence_query_engine(
    retriever: UmeRetriever,
    llm: LLM,
    *,
    rerank: TCotRerank | UmeRerank | None = None,
    pictures: EvidencePictures | None = None,
    **kwargs: Any,
) -> RetrieverQueryEngine:
    """Retrieve, optionally rerank, and answer from crops and key frames instead of whole files.

    Args:
        retriever: Finds the nodes.
        llm: A multimodal chat model.
        rerank: Reorders them.
        pictures: How evidence is shown; by default up to four pictures per node.
        **kwargs: Other arguments of `RetrieverQueryEngine.from_args` (`response_mode`, `streaming`, …).
    """
    shown = pictures or EvidencePictures(embedding=retriever.embedding)
    return RetrieverQueryEngine.from_args(
        retriever,
        llm=llm,
        multimodal=True,
        node_postprocessors=[*([rerank] if rerank else []), shown],
        **kwargs,
    )
