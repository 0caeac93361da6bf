"""Reasoning multimodal retrieval in LlamaIndex: embedding, reader, vector store, retriever, reranker, query engine.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from llama_index.core.ingestion import IngestionPipeline
    >>> from ume_retrieval.testing import fake_embedder
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "note.txt").write_text("the last train home")
    >>> embedding = UmeEmbedding(embedder=fake_embedder())
    >>> vectors = UmeVectorStore.open(folder / "vectors", "notes", embedding)
    >>> pipeline = IngestionPipeline(transformations=[embedding], vector_store=vectors)
    >>> _ = pipeline.run(documents=UmeReader().load_data(folder / "note.txt"))
    >>> UmeRetriever(embedding, vectors).retrieve("when does the train leave")[0].metadata["answer"]
    'the last train home'
"""

from __future__ import annotations

from ume_retrieval.errors import MissingExtra

try:
    import llama_index.core  # noqa: F401  # fails before anything else is loaded
except ImportError as error:
    raise MissingExtra("LlamaIndex is not installed", hint="pip install 'ume-retrieval[llama-index]'") from error

from ume_llama_index.embedding import UmeEmbedding
from ume_llama_index.events import LeftOutEvent, QueryReasonedEvent
from ume_llama_index.evidence import EvidenceNode, EvidencePictures
from ume_llama_index.inputs import MediaQuery
from ume_llama_index.nodes import UmeDocument
from ume_llama_index.payload import node_payload
from ume_llama_index.query_engine import evidence_query_engine
from ume_llama_index.reader import Reading, UmeReader
from ume_llama_index.rerank import TCotRerank, UmeRerank
from ume_llama_index.retriever import UmeRetriever
from ume_llama_index.vector_store import UmeVectorStore

__all__ = [
    "EvidenceNode",
    "EvidencePictures",
    "LeftOutEvent",
    "MediaQuery",
    "QueryReasonedEvent",
    "Reading",
    "TCotRerank",
    "UmeDocument",
    "UmeEmbedding",
    "UmeReader",
    "UmeRerank",
    "UmeRetriever",
    "UmeVectorStore",
    "evidence_query_engine",
    "node_payload",
]
