"""The protocol of rerankers: a query and a list of items in, a score for each item out."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ume_retrieval.checkpoint import ModelInfo, ReasonerSpec
from ume_retrieval.engines.server.options import ServerOptions
from ume_retrieval.errors import Failure
from ume_retrieval.inputs import Modality
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.pipeline.loading import Input, ItemLoader
from ume_retrieval.pipeline.stages import Call, Failures, StageItem
from ume_retrieval.results import Usage
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.threads import awaitable

Scores: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Known:
    """T-CoTs that are known already, so that a reranker that reads T-CoTs does not ask for them again.

    Attributes:
        query: The query's, or None.
        items: Those of the items, None where unknown; empty if all are unknown.
        target: Modality that the query searches for, if known.
    """

    query: TCot | None = None
    items: tuple[TCot | None, ...] = ()
    target: Modality | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RerankResult:
    """Scores of a list of items.

    Attributes:
        scores: Shape (n,), float32, higher is better; NaN where the item failed.
        failures: Items without a score, by index, with their reasons.
        usage: What the call cost.
        shortened: Positions of items whose pair with the query lost words, because it was longer than the model reads.
    """

    scores: Scores
    failures: tuple[Failure, ...] = ()
    usage: Usage = field(default_factory=Usage)
    shortened: tuple[int, ...] = ()

    @property
    def order(self) -> list[int]:
        """Positions of the items, best first. Equal scores keep their order, and items without a score come last.

        Example:
            >>> RerankResult(np.array([0.1, np.nan, 0.9, 0.1], dtype=np.float32)).order
            [2, 0, 3, 1]
        """
        # NaN is sorted last.
        return [int(position) for position in np.argsort(-self.scores, kind="stable")]


class Reranker(ABC):
    """Scores items by how well they answer a query; more careful and slower than a comparison of vectors.

    An item whose media cannot be read, or that the model refuses, gets the score NaN and a `Failure`; all others are
    scored. A query that cannot be used raises. Calls from several threads are safe.
    """

    @staticmethod
    def from_pretrained(
        name: str | Path,
        *,
        engine: str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        limits: Limits = DEFAULT_LIMITS,
        allow_remote: Sequence[str] = (),
        trust_remote_code: bool = False,
        server: ServerOptions | None = None,
    ) -> Reranker:
        """Load a reranker.

        Args:
            name: Preset ("qwen3-vl-reranker-2b"), hub id or folder of a Qwen3-VL-Reranker or of a sentence-transformers
                CrossEncoder; or a Reasoner's, which then compares T-CoTs (`reranking.TCotReranker`).
            engine: What runs the model; "auto" or a name in `engines.ENGINES`.
            device: "auto" (a GPU where the model fits it), "cpu", "cuda", "cuda:1".
            dtype: "auto" (bfloat16 on a GPU, else float32), "float32", "bfloat16", "float16".
            limits: Limits on what is decoded.
            allow_remote: Hosts that addresses in items may be fetched from.
            trust_remote_code: Whether code of a CrossEncoder's checkpoint may run.
            server: Where the model of `engine="server"` is; by default as the environment says.

        Raises:
            ModelError: When the name means nothing, or the model does not fit the device or cannot be loaded.
            InputError: When the engine does not exist.
        """
        from ume_retrieval.engines.load import LoadOptions, choose_engine
        from ume_retrieval.engines.registry import resolve_reranker
        from ume_retrieval.reranking.pairs import PairReranker
        from ume_retrieval.reranking.tcot import TCotReranker

        chosen = choose_engine(engine)
        resolved = resolve_reranker(str(name))
        options = chosen.place([resolved], LoadOptions(device, dtype, trust_remote_code, server))
        if isinstance(resolved.spec, ReasonerSpec):
            reasoner = chosen.load_reasoner(resolved, options)
            return TCotReranker(reasoner, limits=limits, allow_remote=allow_remote)
        scorer = chosen.load_scorer(resolved, options)
        return PairReranker(scorer, limits=limits, allow_remote=allow_remote)

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """Name and revision of the model."""

    @abstractmethod
    def rerank(
        self,
        query: Input,
        items: Sequence[Input],
        *,
        known: Known | None = None,
        stopped: threading.Event | None = None,
    ) -> RerankResult:
        """Score items, and say what failed and what it cost.

        Args:
            query: What is searched for; its instruction is the retrieval task.
            items: What may answer it: text, PIL images, pages, clips, frames, `Item`s. A `str` is text, never a path.
            known: T-CoTs that are known already; rerankers that read none ignore it.
            stopped: Set this event from another thread to cancel the call.

        Raises:
            UmeError: When the query cannot be used, or the model fails as a whole.
            Stopped: When the call is cancelled.
        """

    def score(self, query: Input, items: Sequence[Input]) -> Scores:
        """Score items: shape (n,), float32, higher is better, NaN where an item failed. See `rerank` for the reasons.

        Raises:
            UmeError: As `rerank` does.
        """
        return self.rerank(query, items).scores

    async def arerank(self, query: Input, items: Sequence[Input], *, known: Known | None = None) -> RerankResult:
        """`rerank` in a thread, so that the event loop goes on; cancelling the task cancels the call."""
        return await awaitable(self.rerank)(query, items, known=known)


def load_query(loader: ItemLoader, query: Input) -> StageItem:
    """Load the query of a reranking.

    Raises:
        UmeError: When it cannot be used.
    """
    [chunk] = loader.chunks([query], Call(Failures(strict=True), 1))
    return chunk.items[0]
