"""The Embedder on a server whose `/v1/embeddings` takes messages, as vLLM's does."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Embeddings, PartialEmbeddings
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.outcomes import in_order
from ume_retrieval.engines.server.client import Server, token_count
from ume_retrieval.engines.server.messages import media_settings, messages_of
from ume_retrieval.engines.server.options import EMBEDDER_URL, ServerOptions, base_urls
from ume_retrieval.engines.transformers.loading import known_revision, short_name
from ume_retrieval.errors import IncompatibleModel, UmeError
from ume_retrieval.inputs import LoadedItem


class ServerEmbedder:
    """Embeds chats by concurrent requests; the server has to pool the last token.

    Args:
        server: Where the model is.
        info: Which weights the server runs, as far as is known here.
        spec: Family and visual budget.

    Raises:
        IncompatibleModel: When the family is not pooled at the last token.
        ServerError: When the server does not embed chats.
    """

    def __init__(self, server: Server, *, info: ModelInfo, spec: EmbedderSpec) -> None:
        if spec.family == "sentence-transformers":
            raise IncompatibleModel(
                f"a server pools the last token only, and {info.name} may not", hint="use engine='transformers'"
            )
        self.server = server
        self.info = info
        self.spec = spec
        probe = embedding_chat(spec, LoadedItem("dimension", (), (), None, ""), None, None)
        [(vector, _)] = in_order(server.ask("/embeddings", [partial(self._body, probe)], _read))
        self.dimension = len(vector)

    @classmethod
    def connect(
        cls, name: str, *, spec: EmbedderSpec, options: ServerOptions, revision: str | None = None
    ) -> ServerEmbedder:
        """Find the model on its server.

        Args:
            name: The folder or hub id whose weights the server runs, for collections.
            spec: Family and visual budget.
            options: Where the server is.
            revision: Commit of the hub, when known.

        Raises:
            InputError: When the address is missing.
            IncompatibleModel: When the family is not pooled at the last token.
            ServerError: When the server cannot be reached, refuses the key, or does not serve the model.
        """
        server = Server(base_urls(options.embedder_url, EMBEDDER_URL), options.embedder_model, options)
        return cls(server, info=ModelInfo(short_name(name), known_revision(name, revision), "server"), spec=spec)

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            InputError: When the server refuses a chat (it is too long).
            ServerError: When the server does not answer.
        """
        return self.embed_partial(chats).complete(self.dimension)

    def embed_partial(self, chats: Sequence[Chat]) -> PartialEmbeddings:
        """Embed each chat; a chat that fails has its error in the place of its vector."""
        requests = [partial(self._body, chat) for chat in chats]
        answers = dict(self.server.ask("/embeddings", requests, partial(_read, dimension=self.dimension)))
        outcomes = [answers[position] for position in range(len(chats))]
        rows = [outcome if isinstance(outcome, UmeError) else outcome[0] for outcome in outcomes]
        return PartialEmbeddings(rows, sum(outcome[1] for outcome in outcomes if not isinstance(outcome, UmeError)))

    def _body(self, chat: Chat) -> dict[str, Any]:
        # embed-rl's chat ends in an open reply, at the token that is pooled; the other family's in the opening of one.
        goes_on = chat[-1].role == "assistant"
        if self.spec.family == "embed-rl" and not goes_on:
            raise IncompatibleModel(f"an input has no {self.spec.emb_token}", hint="end the chat with the model's turn")
        return {
            "model": self.server.model,
            "messages": messages_of(chat, "vllm"),
            "encoding_format": "base64",
            "add_generation_prompt": not goes_on,
            "continue_final_message": goes_on,
            # What the tokenizer adds by itself is where this family is pooled; embed-rl ends at its own token.
            "add_special_tokens": not goes_on,
            **media_settings(chat),
        }


def _read(answer: Any, dimension: int | None = None) -> tuple[npt.NDArray[np.float32], int]:
    """Return the unit vector and the number of embedded tokens; check the length if it is known."""
    [row] = answer["data"]
    vector = np.frombuffer(base64.b64decode(row["embedding"], validate=True), dtype="<f4")
    length = float(np.linalg.norm(vector))
    if vector.size != (dimension or vector.size) or not vector.size or not np.isfinite(length) or not length:
        raise ValueError("not a vector")
    return (vector / length).astype(np.float32), token_count(answer["usage"], "prompt_tokens")
