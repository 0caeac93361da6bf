"""Asking a Reasoner: replies are kept while others are still being written, and nothing is asked twice in a call."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Generation, Reasoner, Sampling, Streams
from ume_retrieval.errors import ModelError, Stopped, UmeError
from ume_retrieval.pipeline.progress import Ledger
from ume_retrieval.pipeline.trace_cache import TraceCache, TraceRecord

KEEP_EVERY_S = 1.0
"""How long finished traces may wait to be kept while others are being written."""

ASKED_AT_ONCE = 64
"""Chats of one call to an engine that hands out its replies together; an interrupt loses no more than these."""

REMEMBERED = 16_384
"""Traces that a call keeps in memory when none are kept on disk, some 50 MB where traces are long."""


class CallMemory:
    """Traces of one call, for when none are kept on disk; the same two methods as `TraceCache`.

    Args:
        most: How many are remembered, >= 1; the one that was not needed for longest is forgotten first, so that memory
            does not grow with a stream.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._records = OrderedDict[str, TraceRecord]()
        self._most = most

    def get_many(self, keys: Iterable[str]) -> dict[str, TraceRecord]:
        """Records of the keys that are known."""
        known = {key: self._records[key] for key in keys if key in self._records}
        for key in known:
            self._records.move_to_end(key)
        return known

    def put_many(self, records: Mapping[str, TraceRecord]) -> None:
        """Remember records."""
        for key, record in records.items():
            self._records[key] = record
            self._records.move_to_end(key)
        while len(self._records) > self._most:
            self._records.popitem(last=False)


Traces: TypeAlias = TraceCache | CallMemory


@dataclass(slots=True)
class Asking:
    """Replies to chats that are known by keys.

    Attributes:
        reasoner: The engine.
        sampling: How it decodes.
        traces: Where replies are kept; a `TraceCache` keeps those with words to embed.
        ledger: Of the call.
        fresh: Records of the replies so far, those without words too.
        refused: For the other keys the reason why there is none.
    """

    reasoner: Reasoner
    sampling: Sampling
    traces: Traces
    ledger: Ledger
    fresh: dict[str, TraceRecord] = field(default_factory=dict)
    refused: dict[str, UmeError] = field(default_factory=dict)

    def ask(self, chats: Mapping[str, Chat]) -> None:
        """Ask for every chat; when the call is strict, up to the first that is refused.

        Raises:
            Stopped: When the call is no longer wanted; finished replies are kept.
            UmeError: As `Ledger.attempt` does.
        """
        keys = {id(chat): key for key, chat in chats.items()}
        reasoner, answer, at_once = self.reasoner, self._generate, ASKED_AT_ONCE
        if isinstance(reasoner, Streams):
            answer, at_once = partial(self._stream, reasoner, keys), len(chats)
        for some in _slices(list(chats.items()), at_once):
            replies = self.ledger.attempt(answer, [chat for _, chat in some])
            told = {key: reply for (key, _), reply in zip(some, replies, strict=True)}
            refused = {key: reply for key, reply in told.items() if isinstance(reply, UmeError)}
            self.refused |= refused
            self._keep({key: reply for key, reply in told.items() if not isinstance(reply, UmeError)})
            if refused and self.ledger.strict:  # the call ends at the first of them
                return

    def _generate(self, chats: Sequence[Chat]) -> list[Generation]:
        self._require_wanted()
        return _checked(self.reasoner.generate(chats, self.sampling), len(chats))

    def _stream(self, reasoner: Streams, keys: Mapping[int, str], chats: Sequence[Chat]) -> list[Generation]:
        self._require_wanted()
        found: dict[int, Generation] = {}
        unkept: dict[str, Generation] = {}
        last = time.monotonic()
        for position, reply in reasoner.replies(chats, self.sampling):
            found[position] = unkept[keys[id(chats[position])]] = reply
            if self.ledger.stopped.is_set() or time.monotonic() - last >= KEEP_EVERY_S:
                self._keep(unkept)
                unkept, last = {}, time.monotonic()
            self._require_wanted()
        return _checked([found[position] for position in sorted(found)], len(chats))

    def _require_wanted(self) -> None:
        if self.ledger.stopped.is_set():
            raise Stopped

    def _keep(self, replies: Mapping[str, Generation]) -> None:
        records = {key: self._record(reply) for key, reply in replies.items() if key not in self.fresh}
        self.traces.put_many(records)
        self.fresh.update(records)
        self.ledger.reasoner_calls += len(records)
        self.ledger.prompt_tokens += sum(record.prompt_tokens for record in records.values())
        self.ledger.completion_tokens += sum(record.completion_tokens for record in records.values())

    def _record(self, reply: Generation) -> TraceRecord:
        # A lone surrogate cannot go to disk, and a first run must read what a second run will read.
        text = reply.text.encode("utf-8", "replace").decode("utf-8")
        info = self.reasoner.info
        return TraceRecord(
            text, reply.prompt_tokens, reply.completion_tokens, reply.finish, f"{info.name}@{info.revision}"
        )


def _checked(replies: list[Generation], expected: int) -> list[Generation]:
    if len(replies) != expected:
        raise ModelError(f"the Reasoner gave {len(replies)} replies to {expected} chats", hint="mend the engine")
    return replies


def _slices(rows: Sequence[tuple[str, Chat]], size: int) -> Iterator[Sequence[tuple[str, Chat]]]:
    return (rows[start : start + size] for start in range(0, len(rows), max(1, size)))
