"""`UmeEmbeddings`: texts as LangChain's vector stores want them embedded."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode


class UmeEmbeddings(Embeddings):
    """A `ReasoningEmbedder` as a LangChain embedding, for texts alone: LangChain has no hook for media.

    The async methods are LangChain's own; they run these in a worker thread.

    Args:
        embedder: The models.
        reasoning: "always" or "never"; None reasons when there is a Reasoner. To search the `direct` vectors of a
            collection of `ume_qdrant` with LangChain's `QdrantVectorStore`, take "never".

    Example:
        >>> from ume_retrieval.testing import FakeReasoner, HashEmbedder
        >>> embeddings = UmeEmbeddings(ReasoningEmbedder(HashEmbedder(), FakeReasoner()))
        >>> len(embeddings.embed_query("red circle")), len(embeddings.embed_documents(["a", "b"]))
        (64, 2)
    """

    def __init__(self, embedder: ReasoningEmbedder, *, reasoning: ReasoningMode | None = None) -> None:
        self.embedder = embedder
        self.reasoning: ReasoningMode = reasoning or ("never" if embedder.reasoner is None else "always")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of length 1, one a text, made as a corpus is.

        Raises:
            UmeError: As `ReasoningEmbedder.encode_corpus` does.
        """
        vectors: list[list[float]] = self.embedder.encode_corpus(texts, reasoning=self.reasoning).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """A vector of length 1, made as a query is.

        Raises:
            UmeError: As `ReasoningEmbedder.encode_query` does.
        """
        vector: list[float] = self.embedder.encode_query(text, reasoning=self.reasoning).tolist()
        return vector
