"""Reasoning multimodal retrieval in LangChain: an embedding for its vector stores, and a retriever with evidence.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from ume_qdrant import index, open_store
    >>> from ume_retrieval.testing import fake_embedder
    >>> embedder = fake_embedder()
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "note.txt").write_text("the last train home")
    >>> with open_store(folder / "vectors", "notes") as store:
    ...     _ = index(embedder, store, folder / "note.txt", reasoning="always")
    ...     [document] = UmeRetriever(embedder=embedder, store=store).invoke("when does the train leave")
    >>> document.page_content, document.metadata["keywords"]
    ('the last train home', ['the', 'last', 'train', 'home'])
"""

from __future__ import annotations

from ume_retrieval.errors import MissingExtra

try:
    import langchain_core  # noqa: F401  # fails before anything else is loaded
except ImportError as error:
    raise MissingExtra("LangChain is not installed", hint="pip install 'ume-retrieval[langchain]'") from error

from ume_langchain.embeddings import UmeEmbeddings
from ume_langchain.filters import filter_of
from ume_langchain.retriever import UmeRetriever, document_of

__all__ = ["UmeEmbeddings", "UmeRetriever", "document_of", "filter_of"]
