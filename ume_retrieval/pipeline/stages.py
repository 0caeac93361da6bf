"""The stages after loading: reason, embed. Each hands on frozen values.

A stage that cannot go on with an item tells the `Ledger`, and the rest goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.base import Embedder, Reasoner, Sampling
from ume_retrieval.engines.families import embedding_chat, evidence_of, parse_about
from ume_retrieval.errors import InputError, ModelError, ReasoningError, SomeEmbedded, SomeFailed, UmeError
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.pipeline.asking import Asking, CallMemory, Traces
from ume_retrieval.pipeline.loading import Chunk, Loaded
from ume_retrieval.pipeline.progress import Ledger
from ume_retrieval.pipeline.trace_cache import TraceRecord, trace_key
from ume_retrieval.results import Trace
from ume_retrieval.tcot.evidence import Evidence
from ume_retrieval.tcot.grammar import validate
from ume_retrieval.tcot.prompts import reasoner_chat

FloatRow: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reasoned:
    """An input with its trace and the trace's pictures, None when no reasoning was asked for."""

    loaded: Loaded
    trace: Trace | None = None
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Reasoning:
    """The second stage: an item's trace, known or from the Reasoner, and the evidence that it names.

    Equal items of a call are reasoned once, as far as `traces` remembers. Replies are kept before anything else is done
    with them.

    Attributes:
        reasoner: The engine.
        sampling: How it decodes.
        traces: Where replies are kept.
        embedder: How the Embedder wants its input: which and how many crops or key frames it is shown.
        side: Which prompts are used.
        target: What the query looks for, when the caller said so.
        lock: Held from look-up to keeping, so that two calls at once do not generate the same trace.
        unusable: Replies of this call without words to embed. No cache keeps them, so that a later call asks again;
            within this one equal items ask once.
    """

    reasoner: Reasoner
    sampling: Sampling
    traces: Traces
    embedder: EmbedderSpec
    side: Side
    target: Modality | None
    lock: threading.Lock
    unusable: CallMemory = field(default_factory=CallMemory)

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise InputError(f"unknown side {self.side!r}", hint="use 'query' or 'corpus'")
        if self.target is not None and self.target not in get_args(Modality):
            raise InputError(f"unknown target {self.target!r}", hint="use 'text', 'image' or 'video'")

    def run(self, chunk: Chunk[Loaded], ledger: Ledger) -> Chunk[Reasoned]:
        """Items of the chunk that have a usable trace, in order."""
        keys = [self._key(loaded) for loaded in chunk.items]
        with ledger.timed("reason"), self.lock:
            known = self.unusable.get_many(keys) | self.traces.get_many(keys)
            asked: dict[str, Loaded] = {}
            for key, loaded in zip(keys, chunk.items, strict=True):
                if key not in known:
                    asked.setdefault(key, loaded)
            asking = self._ask(asked, ledger)
        fresh, refused = asking.fresh, asking.refused
        known.update(fresh)
        reasoned: list[Reasoned] = []
        for key, loaded in zip(keys, chunk.items, strict=True):
            if key in refused:
                ledger.fail(refused[key], index=loaded.index, source=loaded.source)
                continue
            cached = key not in fresh or asked[key] is not loaded
            ledger.cached_traces += int(cached)
            try:
                reasoned.append(self._reasoned(loaded, known[key], ledger, cached=cached))
            except ReasoningError as error:
                self.unusable.put_many({key: known[key]})
                ledger.fail(error, index=loaded.index, source=loaded.source)
        ledger.report("reason", chunk.stop)
        return Chunk(chunk.start, chunk.stop, reasoned)

    def _key(self, loaded: Loaded) -> str:
        return trace_key(
            content_id=loaded.seen.content_id,
            side=self.side,
            target=self.target,
            reasoner=self.reasoner.info,
            prompts=self.reasoner.spec.prompts,
            budget=self.reasoner.spec.budget,
            sampling=self.sampling,
        )

    def _ask(self, asked: Mapping[str, Loaded], ledger: Ledger) -> Asking:
        asking = Asking(self.reasoner, self.sampling, self.traces, ledger)
        chats: dict[str, Chat] = {}
        for key, loaded in asked.items():
            try:
                chats[key] = reasoner_chat(loaded.seen, self.side, self.reasoner.spec.prompts, self.target)
            except UmeError as error:
                asking.refused[key] = error
        asking.ask(chats)
        return asking

    def _reasoned(self, loaded: Loaded, record: TraceRecord, ledger: Ledger, *, cached: bool) -> Reasoned:
        item = loaded.seen
        tcot = parse_about(item, record.text)
        ledger.problems.update({problem.name for problem in (*tcot.problems, *validate(tcot, item.modality))})
        evidence = evidence_of(self.embedder, item, tcot)
        trace = Trace(
            tcot=tcot,
            evidence=evidence.refs,
            cached=cached,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            content_id=item.content_id,
        )
        return Reasoned(loaded, trace, evidence)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The third stage: an item, with its trace and evidence when it has them, to a vector.

    Attributes:
        embedder: The engine.
        lock: Held while it runs.
        side: Which prompts of the Embedder are used.
    """

    embedder: Embedder
    lock: threading.Lock
    side: Side

    def run(self, chunk: Chunk[Reasoned], ledger: Ledger) -> Chunk[tuple[Reasoned, FloatRow]]:
        """Items of the chunk that could be embedded, in order, each with its vector."""
        with ledger.timed("embed"), self.lock:
            chats: list[Chat] = []
            written: list[Reasoned] = []
            for one in chunk.items:
                tcot = one.trace.tcot if one.trace else None
                try:
                    chats.append(embedding_chat(self.embedder.spec, one.loaded.shown, tcot, one.evidence, self.side))
                    written.append(one)
                except UmeError as error:
                    ledger.fail(error, index=one.loaded.index, source=one.loaded.source)
            replies = ledger.attempt(lambda some: self._embed(some, ledger), chats)
        done: list[tuple[Reasoned, FloatRow]] = []
        for one, reply in zip(written, replies, strict=True):
            if isinstance(reply, UmeError):
                ledger.fail(reply, index=one.loaded.index, source=one.loaded.source)
            elif not np.isfinite(reply).all():
                broken = ModelError("the Embedder's vector is not finite", hint="try dtype='float32'")
                ledger.fail(broken, index=one.loaded.index, source=one.loaded.source)
            else:
                done.append((one, reply))
        ledger.report("embed", chunk.stop)
        return Chunk(chunk.start, chunk.stop, done)

    def _embed(self, chats: Sequence[Chat], ledger: Ledger) -> list[FloatRow]:
        try:
            embeddings = self.embedder.embed(chats)
        except SomeFailed as some:
            ledger.embedder_calls += sum(not isinstance(outcome, UmeError) for outcome in some.outcomes)
            ledger.embedded_tokens += some.tokens if isinstance(some, SomeEmbedded) else 0
            raise
        expected = (len(chats), self.embedder.dimension)
        if embeddings.vectors.shape != expected:
            raise ModelError(
                f"the Embedder gave vectors of shape {embeddings.vectors.shape} instead of {expected}",
                hint="mend the engine",
            )
        ledger.embedder_calls += len(chats)
        ledger.embedded_tokens += embeddings.tokens
        return list(embeddings.vectors)
