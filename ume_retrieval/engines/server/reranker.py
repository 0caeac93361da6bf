"""A reranker on a server with `/v1/rerank`: vLLM's, or another one that takes its requests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ume_retrieval.chat import ImagePart, Pair, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.base import PairScores
from ume_retrieval.engines.server.client import Server
from ume_retrieval.engines.server.messages import AS_FITTED, content_of
from ume_retrieval.engines.server.options import RERANKER_URL, ServerOptions, base_urls
from ume_retrieval.engines.transformers.loading import known_revision, short_name
from ume_retrieval.errors import UmeError


class ServerReranker:
    """Scores pairs by concurrent requests, one a pair, so that a pair that the server refuses costs no other its score.

    The server writes a pair by its own template; for Qwen3-VL-Reranker, vLLM has to be started with the published one.
    Frames of a video are sent as images, each after its time.

    Args:
        server: Where the model is.
        info: Which weights the server runs, as far as is known here.
        spec: Family and visual budget.
    """

    def __init__(self, server: Server, *, info: ModelInfo, spec: RerankerSpec) -> None:
        self.server, self.info, self.spec = server, info, spec

    @classmethod
    def connect(
        cls, name: str, *, spec: RerankerSpec, options: ServerOptions, revision: str | None = None
    ) -> ServerReranker:
        """Find the model on its server.

        Args:
            name: The folder or hub id whose weights the server runs, for reports.
            spec: Family and visual budget.
            options: Where the server is.
            revision: Commit of the hub, when known.

        Raises:
            InputError: When the address is missing.
            ServerError: When the server cannot be reached, refuses the key, or does not serve the model.
        """
        server = Server(base_urls(options.reranker_url, RERANKER_URL), options.reranker_model, options)
        return cls(server, info=ModelInfo(short_name(name), known_revision(name, revision), "server"), spec=spec)

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        """Score each pair; one that fails has its error in the place of its score."""
        answers = dict(self.server.ask("/rerank", [partial(self._body, pair) for pair in pairs], _read))
        outcomes = [answers[position] for position in range(len(pairs))]
        rows = [outcome if isinstance(outcome, UmeError) else outcome[0] for outcome in outcomes]
        return PairScores(rows, sum(outcome[1] for outcome in outcomes if not isinstance(outcome, UmeError)))

    def _body(self, pair: Pair) -> dict[str, Any]:
        body = {"model": self.server.model, "query": _side(pair.query), "documents": [_side(pair.document)]}
        if pair.instruction:
            body["instruction"] = pair.instruction
        has_pictures = any(isinstance(part, ImagePart | VideoPart) for part in (*pair.query, *pair.document))
        if has_pictures and self.spec.family == "qwen3-vl-reranker" and self.server.dialect == "vllm":
            body["mm_processor_kwargs"] = AS_FITTED
        return body


def _side(parts: Sequence[Part]) -> str | dict[str, Any]:
    """Return one side of a pair: a string where it is text alone, which every server takes."""
    words = [part.text for part in parts if isinstance(part, TextPart)]
    return "\n".join(words) if len(words) == len(parts) else {"content": content_of(parts, "openai")}


def _read(answer: Any) -> tuple[float, int]:
    """Return the score and the number of tokens that were read."""
    [row] = answer["results"]
    score = float(row["relevance_score"])
    if not np.isfinite(score):
        raise ValueError("not a score")
    return score, int((answer.get("usage") or {}).get("total_tokens") or 0)
