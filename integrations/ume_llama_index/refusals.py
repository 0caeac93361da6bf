"""What `UmeEmbedding` refuses, and why."""

from __future__ import annotations

from typing import Any

from ume_retrieval.errors import InputError


def refuse_embeddings_cache(value: Any) -> None:
    """Refuse LlamaIndex's cache of vectors.

    Raises:
        InputError: When there is one.
    """
    if value is not None:
        raise InputError(
            "embeddings_cache gives a query the vector of a document with the same words",
            hint="leave it out and pass cache=…: ume_retrieval.TraceCache keeps the T-CoTs by content and side",
        )


def made_in_hand(model: str) -> InputError:
    """The error for bringing back an embedding that was made with `embedder=`."""
    return InputError(
        f"this embedding was made with {model} in hand, so no name brings its models back",
        hint="make it with names, as in UmeEmbedding('ume-tiny'), to store it or to send it to another process",
    )
