"""The stage that reasons: an item's trace from the cache or the Reasoner, and the evidence that the trace names."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, get_args

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.base import Generation, Reasoner, Sampling, SupportsStreaming
from ume_retrieval.engines.families import evidence_of, parse_about
from ume_retrieval.engines.outcomes import isolate
from ume_retrieval.errors import InputError, ModelError, ReasoningError, Stopped, UmeError
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.pipeline.spare_traces import SpareableTraces
from ume_retrieval.pipeline.stages import Call, Chunk, StageItem
from ume_retrieval.pipeline.trace_cache import InMemoryTraceCache, TraceCache, TraceRecord, trace_key
from ume_retrieval.results import Trace
from ume_retrieval.tcot.grammar import validate
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_retrieval.tcot.trace import TCot
from ume_retrieval.util.threads import fork_safe_lock

KEEP_EVERY_S = 1.0
"""Longest time in seconds before finished replies are written to the cache while others are being generated."""

ASKED_AT_ONCE = 64
"""Chats per call to an engine without streaming; an interrupt loses at most these."""

Traces: TypeAlias = TraceCache | InMemoryTraceCache | SpareableTraces


@dataclass(slots=True)
class TraceGenerator:
    """Generates replies, and caches finished ones while others are being generated.

    Attributes:
        reasoner: The engine.
        sampling: How it decodes.
        traces: Where replies are kept; a `TraceCache` keeps those with words to embed.
        call: Counts replies and tokens, and cancels.
        records: Records of the replies so far, by key.
    """

    reasoner: Reasoner
    sampling: Sampling
    traces: Traces
    call: Call
    records: dict[str, TraceRecord] = field(default_factory=dict)

    def generate(self, chats: Mapping[str, Chat]) -> dict[str, TraceRecord | UmeError]:
        """Ask the Reasoner about each chat.

        Args:
            chats: By the key of its trace.

        Returns:
            By key, the record or the error; in a strict call, chats after the first error may be left out.

        Raises:
            Stopped: When the call is cancelled; finished replies are kept.
            UmeError: In a strict call, when a temporary error strikes several chats alike.
        """
        keys = {id(chat): key for key, chat in chats.items()}
        outcomes: dict[str, TraceRecord | UmeError] = {}
        at_once = len(chats) if isinstance(self.reasoner, SupportsStreaming) else ASKED_AT_ONCE
        some = list(chats.values())
        strict = self.call.failures.strict

        def ask(asked: Sequence[Chat]) -> list[TraceRecord | UmeError]:
            return self._ask({keys[id(chat)]: chat for chat in asked})

        for start in range(0, len(some), max(1, at_once)):
            asked = some[start : start + at_once]
            try:
                answers = ask(asked)
            except UmeError as error:
                answers = isolate(error, ask, asked, strict=strict)
            outcomes |= {keys[id(chat)]: answer for chat, answer in zip(asked, answers, strict=True)}
            if strict and any(isinstance(answer, UmeError) for answer in answers):
                break
        return outcomes

    def _ask(self, chats: Mapping[str, Chat]) -> list[TraceRecord | UmeError]:
        keys = list(chats)
        streams = isinstance(self.reasoner, SupportsStreaming)
        outcomes: dict[str, TraceRecord | UmeError] = {}
        waiting: dict[str, TraceRecord] = {}
        last = time.monotonic()
        self._require_wanted()
        for position, reply in self._replies(list(chats.values())):
            key = keys[position]
            if isinstance(reply, UmeError):
                outcomes[key] = reply
            else:
                # A chat that is asked again keeps the reply that was counted.
                record = self.records.get(key) or TraceRecord.of(reply, self.reasoner.info)
                outcomes[key] = waiting[key] = record
            # Without streaming, all replies are finished already.
            if streams and (self.call.stopped.is_set() or time.monotonic() - last >= KEEP_EVERY_S):
                self._keep(waiting)
                waiting, last = {}, time.monotonic()
                self._require_wanted()
        self._keep(waiting)
        _require_count(len(outcomes), len(chats))
        return [outcomes[key] for key in keys]

    def _replies(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Generation | UmeError]]:
        if isinstance(self.reasoner, SupportsStreaming):
            return self.reasoner.replies(chats, self.sampling)
        replies = self.reasoner.generate(chats, self.sampling)
        _require_count(len(replies), len(chats))
        return iter(enumerate(replies))

    def _require_wanted(self) -> None:
        if self.call.stopped.is_set():
            raise Stopped

    def _keep(self, records: Mapping[str, TraceRecord]) -> None:
        new = {key: record for key, record in records.items() if key not in self.records}
        self.traces.put_many(new)
        self.records.update(new)
        stats = self.call.stats
        stats.reasoner_calls += len(new)
        stats.prompt_tokens += sum(record.prompt_tokens for record in new.values())
        stats.completion_tokens += sum(record.completion_tokens for record in new.values())


def _require_count(replies: int, chats: int) -> None:
    if replies != chats:
        raise ModelError(f"the Reasoner gave {replies} replies to {chats} chats", hint="fix the engine implementation")


@dataclass(frozen=True, slots=True)
class ReasonStage:
    """Adds an item's trace, cached or generated, and its evidence.

    Equal items of a call are reasoned once, as far as `traces` remembers. Replies are kept before they are parsed.

    Attributes:
        reasoner: The engine.
        sampling: How it decodes.
        traces: Where replies are kept.
        embedder: How the Embedder wants its input: which and how many crops or key frames it is shown.
        side: Which prompts are used.
        target: Modality that the query searches for, if the caller gave one.
        lock: Held from look-up to keeping, so that two calls at once do not generate the same trace.
        unusable: Replies of this call without words to embed. No cache keeps them, so a later call asks again; within
            this one, equal items ask once.

    Raises:
        InputError: When side or target are unknown.
    """

    reasoner: Reasoner
    sampling: Sampling
    traces: Traces
    embedder: EmbedderSpec
    side: Side
    target: Modality | None = None
    lock: threading.Lock = field(default_factory=fork_safe_lock)
    unusable: InMemoryTraceCache = field(default_factory=InMemoryTraceCache)

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise InputError(f"unknown side {self.side!r}", hint="use 'query' or 'corpus'")
        if self.target is not None and self.target not in get_args(Modality):
            raise InputError(f"unknown target {self.target!r}", hint="use 'text', 'image' or 'video'")

    def run(self, chunk: Chunk, call: Call) -> Chunk:
        """Return the items that have a usable trace, in order."""
        keys = [self._key(item) for item in chunk.items]
        with self.lock:
            since = time.perf_counter()
            known: dict[str, TraceRecord | UmeError] = {}
            known |= self.unusable.get_many(keys) | self.traces.get_many(keys)
            asked: dict[str, StageItem] = {}
            for key, item in zip(keys, chunk.items, strict=True):
                if key not in known:
                    asked.setdefault(key, item)
            known |= self._ask(asked, call)
        reasoned: list[StageItem] = []
        for key, item in zip(keys, chunk.items, strict=True):
            # In a strict call the first error comes before any key without an outcome, and is raised.
            record = known[key]
            try:
                if isinstance(record, UmeError):
                    raise record
                cached = asked.get(key) is not item
                call.stats.cached_traces += cached
                reasoned.append(self._reasoned(item, record, call, cached=cached))
            except UmeError as error:
                if isinstance(error, ReasoningError) and isinstance(record, TraceRecord):
                    self.unusable.put_many({key: record})
                call.failures.add(error, index=item.index, source=item.source)
        call.advance("reason", chunk.stop, since)
        return Chunk(chunk.start, chunk.stop, reasoned)

    def _key(self, item: StageItem) -> str:
        return trace_key(
            content_id=item.seen.content_id,
            side=self.side,
            target=self.target,
            reasoner=self.reasoner.info,
            prompts=self.reasoner.spec.prompts,
            budget=self.reasoner.spec.budget,
            sampling=self.sampling,
        )

    def _ask(self, asked: Mapping[str, StageItem], call: Call) -> dict[str, TraceRecord | UmeError]:
        chats: dict[str, Chat] = {}
        refused: dict[str, TraceRecord | UmeError] = {}
        for key, item in asked.items():
            try:
                chats[key] = reasoner_chat(item.seen, self.side, self.reasoner.spec.prompts, self.target)
            except UmeError as error:
                refused[key] = error
        return refused | TraceGenerator(self.reasoner, self.sampling, self.traces, call).generate(chats)

    def _reasoned(self, item: StageItem, record: TraceRecord, call: Call, *, cached: bool) -> StageItem:
        seen = item.seen
        tcot = parse_about(seen, record.text)
        call.stats.problems.update(problems_of(tcot, seen.modality))
        evidence = evidence_of(self.embedder, seen, tcot)
        trace = Trace(
            tcot=tcot,
            evidence=evidence.refs,
            cached=cached,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            content_id=seen.content_id,
        )
        return replace(item, trace=trace, evidence=evidence)


def problems_of(tcot: TCot, modality: Modality) -> set[str]:
    """Return the names of a trace's problems, each once."""
    return {problem.name for problem in (*tcot.problems, *validate(tcot, modality))}
