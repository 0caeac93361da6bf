"""`UmeEmbeddings`: embed texts for LangChain's vector stores."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings

from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode


class UmeEmbeddings(Embeddings):
    """A `ReasoningEmbedder` as a LangChain embedding. LangChain's interface only embeds texts.

    The async methods run in a worker thread.

    Args:
        embedder: The models.
        reasoning: "always" or "never"; None reasons if there is a Reasoner. To search the `direct` vectors of a
            collection of `ume_qdrant` with LangChain's `QdrantVectorStore`, use "never".

    Example:
        >>> from ume_retrieval.testing import fake_embedder
        >>> embeddings = UmeEmbeddings(fake_embedder())
        >>> len(embeddings.embed_query("red circle")), len(embeddings.embed_documents(["a", "b"]))
        (64, 2)
    """

    def __init__(self, embedder: ReasoningEmbedder, *, reasoning: ReasoningMode | None = None) -> None:
        self.embedder = embedder
        self.reasoning: ReasoningMode = reasoning or ("never" if embedder.reasoner is None else "always")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return unit vectors, one per text, encoded as documents.

        Raises:
            UmeError: As `ReasoningEmbedder.encode_corpus` does.
        """
        vectors: list[list[float]] = self.embedder.encode_corpus(texts, reasoning=self.reasoning).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return a unit vector, encoded as a query.

        Raises:
            UmeError: As `ReasoningEmbedder.encode_query` does.
        """
        vector: list[float] = self.embedder.encode_query(text, reasoning=self.reasoning).tolist()
        return vector
