"""`TCotReranker`: a Reasoner is asked which item's T-CoT and evidence fit those of the query."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Self

import numpy as np
import PIL.Image

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Generation, Reasoner, Sampling, tcot_sampling
from ume_retrieval.engines.families import evidence_of, parse_about
from ume_retrieval.engines.resize import fit_image
from ume_retrieval.errors import InputError, ModelError, Stopped, UmeError
from ume_retrieval.inputs import Side
from ume_retrieval.media.limits import DEFAULT_LIMITS, Limits
from ume_retrieval.pipeline.embedder import NO_REASONER, ReasoningEmbedder
from ume_retrieval.pipeline.loading import Input, ItemLoader, as_sequence
from ume_retrieval.pipeline.reasoning import ReasonStage
from ume_retrieval.pipeline.stages import Call, Chunk, Failures, StageItem
from ume_retrieval.pipeline.trace_cache import InMemoryTraceCache, TraceCache
from ume_retrieval.reranking.base import Known, Reranker, RerankResult, load_query
from ume_retrieval.results import Usage
from ume_retrieval.tcot.choice import CHOICE_TOKENS, Described, choice_chat, read_choice
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.trace import TCot

PICTURE_GROWTH = 2
"""Most pixels of a picture in a question, in least pixels of an image: twenty candidates must fit one prompt."""


class TCotReranker(Reranker):
    """Asks a Reasoner repeatedly which of the remaining items fits the query best.

    The question is that of the process reward (arXiv 2602.13823, section 3.3), with the crops and key frames that the
    T-CoTs name. Each question lists the items in another order, derived from their T-CoTs, so that no position has an
    advantage. When the Reasoner chooses none, the rest keeps the order in which it was given. Scores say the order
    only: 1 for the first of n items, 1/n for the last.

    Items without a known T-CoT are reasoned over first; one that cannot be has no score.

    Args:
        reasoner: Writes the T-CoTs and answers the questions. The bundled `ume-tiny` cannot judge.
        cache: Where T-CoTs are kept; None keeps them for one call.
        limits: Limits on what is decoded.
        allow_remote: Hosts that addresses in items may be fetched from.
        sampling: How T-CoTs are decoded; by default greedily.
        window: Number of items from the first on that are compared; later ones keep their order behind them.
        questions: Most questions; each finds one item.
        pictures: Most evidence pictures of an item in a question.
        lock: Held while the Reasoner runs, if others use it too.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner
        >>> judge = FakeReasoner(lambda chat: "1")
        >>> traces = Known(TCot("", "", "red"), (TCot("", "", "blue"), TCot("", "", "red")))
        >>> result = TCotReranker(judge, questions=1).rerank("red", ["blue", "red"], known=traces)
        >>> sorted(result.scores.tolist()), result.usage.reranker_calls
        ([0.5, 1.0], 1)
    """

    def __init__(
        self,
        reasoner: Reasoner,
        *,
        cache: TraceCache | None = None,
        limits: Limits = DEFAULT_LIMITS,
        allow_remote: Sequence[str] = (),
        sampling: Sampling | None = None,
        window: int = 20,
        questions: int = 5,
        pictures: int = 1,
        lock: threading.Lock | None = None,
    ) -> None:
        if window < 1 or questions < 1 or pictures < 0:
            raise InputError(
                f"window {window}, questions {questions}, pictures {pictures}: out of range",
                hint="window and questions are 1 or more, pictures 0 or more",
            )
        budget = reasoner.spec.budget.model_copy(update={"evidence_images": pictures})
        self._loader = ItemLoader(reasoner.spec.budget, limits=limits, allow_remote=allow_remote)
        self._stage = ReasonStage(
            reasoner=reasoner,
            sampling=sampling or tcot_sampling(reasoner),
            traces=InMemoryTraceCache() if cache is None else cache,
            embedder=EmbedderSpec(family="sentence-transformers", budget=budget),
            side="corpus",
            lock=lock or threading.Lock(),
        )
        self._keeps = cache is not None
        self.window, self.questions = window, questions

    @classmethod
    def of(cls, embedder: ReasoningEmbedder, *, window: int = 20, questions: int = 5, pictures: int = 1) -> Self:
        """Return a reranker that shares Reasoner, cache and limits with an embedder.

        Raises:
            InputError: When the embedder has no Reasoner.
        """
        if embedder.reasoner is None:
            raise InputError("T-CoTs need a Reasoner, and this embedder has none", hint=NO_REASONER)
        return cls(
            embedder.reasoner,
            cache=embedder.cache,
            limits=embedder.limits,
            allow_remote=embedder.allow_remote,
            sampling=embedder.sampling,
            window=window,
            questions=questions,
            pictures=pictures,
            lock=embedder.reasoner_lock,
        )

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the Reasoner."""
        return self._stage.reasoner.info

    def rerank(
        self,
        query: Input,
        items: Sequence[Input],
        *,
        known: Known | None = None,
        stopped: threading.Event | None = None,
    ) -> RerankResult:
        """Score items; see `Reranker.rerank`.

        Raises:
            ReasoningError: When the Reasoner writes no usable T-CoT of the query.
        """
        since, known = perf_counter(), known or Known()
        several, _ = as_sequence(items)
        compared = several[: self.window]
        asking, call = (Call(Failures(strict), stopped=stopped or threading.Event()) for strict in (True, False))
        scores = np.full(len(several), np.nan, dtype=np.float32)
        if not several:
            return RerankResult(scores)
        asked = load_query(self._loader, query)
        [wanted] = self._described([asked], {0: known.query} if known.query else {}, "query", known, asking).values()
        tcots = {index: tcot for index, tcot in enumerate(known.items[: self.window]) if tcot is not None}
        candidates: dict[int, Described] = {}
        for chunk in self._loader.chunks(compared, call):
            candidates |= self._described(chunk.items, tcots, "corpus", known, call)
        judging = _Judging(self._stage.reasoner, self._stage.lock, call.stopped)
        ranked = rank_by_choice(judging.ask, wanted, dict(sorted(candidates.items())), self.questions)
        ranked += range(len(compared), len(several))
        for rank, position in enumerate(ranked):
            scores[position] = 1 - rank / len(ranked)
        judged = Usage(
            items=len(several),
            reranker_calls=judging.questions,
            reranked_tokens=judging.prompt_tokens,
            completion_tokens=judging.completion_tokens,
            seconds={"rerank": perf_counter() - since},
        )
        reasoned = (replace(one.usage(), items=0) for one in (asking, call))
        return RerankResult(scores, call.failures.in_order(), sum(reasoned, judged))

    def _described(
        self, items: Sequence[StageItem], tcots: Mapping[int, TCot], side: Side, known: Known, call: Call
    ) -> dict[int, Described]:
        """Return T-CoTs and evidence by position; items that fail are left out."""
        stage = replace(self._stage, side=side, target=known.target if side == "query" else None)
        if not self._keeps:
            stage = replace(stage, traces=InMemoryTraceCache())
        found: dict[int, Described] = {}
        missing = [item for item in items if item.index not in tcots]
        for item in stage.run(Chunk(0, len(items), missing), call).items if missing else ():
            assert item.trace is not None  # noqa: S101  # the stage returns items with traces
            assert item.evidence is not None  # noqa: S101  # and evidence
            found[item.index] = self._shown(item.trace.tcot, item.evidence.images)
        for item in items:
            if (tcot := tcots.get(item.index)) is not None:
                try:
                    # Cues beyond what this Reasoner is shown are dropped: another one may have sampled more frames.
                    tcot = parse_about(item.seen, render(tcot))
                    found[item.index] = self._shown(tcot, evidence_of(stage.embedder, item.seen, tcot).images)
                except UmeError as error:
                    call.failures.add(error, index=item.index, source=item.source)
        return found

    def _shown(self, tcot: TCot, pictures: Sequence[PIL.Image.Image]) -> Described:
        least = self._stage.reasoner.spec.budget.image_min_pixels
        fitted = tuple(fit_image(picture, least, PICTURE_GROWTH * least) for picture in pictures)
        return Described(render(tcot), fitted)


def rank_by_choice(
    ask: Callable[[Chat], str], wanted: Described, candidates: Mapping[int, Described], questions: int
) -> list[int]:
    """Ask which candidate fits best, then which of the rest does, and so on.

    Args:
        ask: Answers a chat.
        wanted: The query.
        candidates: By position, in the order that those keep that no question finds.
        questions: Most questions.

    Returns:
        Positions, best first: those that were chosen, then the other ones.
    """
    left = dict(candidates)
    ranked: list[int] = []
    while len(ranked) < questions and len(left) > 1:
        listed = sorted(left, key=lambda position: (_order(wanted, len(ranked), left[position]), position))
        choice = read_choice(ask(choice_chat(wanted, [left[position] for position in listed])), len(listed))
        if choice is None:
            break
        ranked.append(listed[choice])
        del left[listed[choice]]
    return [*ranked, *left]


def _order(wanted: Described, asked: int, candidate: Described) -> bytes:
    return hashlib.sha256(f"{asked}\0{wanted.tcot}\0{candidate.tcot}".encode("utf-8", "replace")).digest()


class _Judging:
    """Asks a Reasoner questions and counts them."""

    def __init__(self, reasoner: Reasoner, lock: threading.Lock, stopped: threading.Event) -> None:
        self._reasoner, self._lock, self._stopped = reasoner, lock, stopped
        self.questions = self.prompt_tokens = self.completion_tokens = 0

    def ask(self, chat: Chat) -> str:
        if self._stopped.is_set():
            raise Stopped
        with self._lock:
            replies: list[Generation] = self._reasoner.generate([chat], Sampling(max_tokens=CHOICE_TOKENS))
        if len(replies) != 1:
            raise ModelError(
                f"the Reasoner gave {len(replies)} replies to 1 chat", hint="fix the engine implementation"
            )
        self.questions += 1
        self.prompt_tokens += replies[0].prompt_tokens
        self.completion_tokens += replies[0].completion_tokens
        return replies[0].text
