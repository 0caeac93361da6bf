"""The Reasoner on any server with `/v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec
from ume_retrieval.engines.base import Generation, ResponseFormat, Sampling, StreamingReasoner, chat_seeds
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.engines.server.client import Server, token_count
from ume_retrieval.engines.server.messages import media_settings, messages_of
from ume_retrieval.engines.server.options import REASONER_URL, ServerOptions, base_urls
from ume_retrieval.engines.transformers.loading import known_revision, short_name
from ume_retrieval.errors import InputError, UmeError
from ume_retrieval.tcot.pattern import chat_pattern


class ServerReasoner(StreamingReasoner):
    """Answers chats by concurrent requests.

    Args:
        server: Where the model is.
        info: Which weights the server runs, as far as is known here.
        spec: Prompts and visual budget.
    """

    def __init__(self, server: Server, *, info: ModelInfo, spec: ReasonerSpec) -> None:
        self.server = server
        self.info = info
        self.spec = spec

    @classmethod
    def connect(
        cls, name: str, *, spec: ReasonerSpec, options: ServerOptions, revision: str | None = None
    ) -> ServerReasoner:
        """Find the model on its server.

        Args:
            name: The folder or hub id whose weights the server runs, for caches and collections.
            spec: Prompts and visual budget.
            options: Where the server is.
            revision: Commit of the hub, when known.

        Raises:
            InputError: When the address is missing.
            ServerError: When the server cannot be reached, refuses the key, or does not serve the model.
        """
        server = Server(base_urls(options.reasoner_url, REASONER_URL), options.reasoner_model, options)
        return cls(server, info=ModelInfo(short_name(name), known_revision(name, revision), "server"), spec=spec)

    @property
    def response_format(self) -> ResponseFormat:
        """Format of T-CoTs by default: constrained on a vLLM server, free on others."""
        return "tcot" if self.server.dialect == "vllm" else "free"

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
        """Answer all chats by concurrent requests, handing out every reply as soon as it arrives.

        Sampled replies follow from `seeds.chat_seeds`, where the server honours seeds, not from a chat's batch; only
        equal chats count among themselves.

        Yields:
            Position of a chat with its reply or its error.

        Raises:
            InputError: When the server cannot constrain decoding.
        """
        if sampling.response_format == "tcot" and self.server.dialect != "vllm":
            raise InputError(
                "this server cannot constrain decoding to the form of a T-CoT", hint="use response_format='free'"
            )
        seeds = chat_seeds(chats, sampling.seed, pictures=sampling.temperature > 0)
        requests = [partial(self._body, chat, sampling, seed) for chat, seed in zip(chats, seeds, strict=True)]
        yield from self.server.ask("/chat/completions", requests, _read)

    def _body(self, chat: Chat, sampling: Sampling, seed: int) -> dict[str, Any]:
        fitted = fit_chat(chat, self.spec.budget)
        body: dict[str, Any] = {
            "model": self.server.model,
            "messages": messages_of(fitted, self.server.dialect),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.temperature > 0:
            body["seed"] = seed
        if self.server.dialect == "vllm":
            # vLLM takes settings that are missing here from the checkpoint's generation_config.json.
            body |= media_settings(fitted) | {"top_k": 0, "repetition_penalty": 1.0}
        if sampling.response_format == "tcot":
            body["structured_outputs"] = {"regex": chat_pattern(fitted)}
        return body


def _read(answer: Any) -> Generation:
    choice, usage = answer["choices"][0], answer["usage"]
    return Generation(
        text=str(choice["message"]["content"] or ""),
        prompt_tokens=token_count(usage, "prompt_tokens"),
        completion_tokens=token_count(usage, "completion_tokens"),
        finish="stop" if choice["finish_reason"] == "stop" else "length",
    )
