"""T-CoTs for both sides of training pairs, by any Reasoner, as a file that grows and goes on after a kill.

What a Reasoner writes is kept as it was written. A T-CoT with problems is counted and kept: the filter rejects what is
malformed, and training refuses it by line. One without any words to embed is a failure: its pair is not written, and
the next run tries it again. Within a run nothing is asked twice: greedy decoding would write the same again.
"""

from __future__ import annotations

import hashlib
import json
import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import InitVar, asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.base import Reasoner, Sampling, answer_each
from ume_retrieval.errors import Failure, InputError, ReasoningError, UmeError
from ume_retrieval.inputs import LoadedItem, Modality, Side
from ume_retrieval.media import DEFAULT_LIMITS, Limits
from ume_retrieval.pipeline.trace_cache import TraceCache, TraceRecord, trace_key
from ume_retrieval.tcot.grammar import is_usable, neutralise, parse, validate
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_retrieval.util.files import display_name
from ume_training.data.append_log import RecordLog, claim
from ume_training.data.files import Located, PairReader
from ume_training.data.records import ItemRecord, PairRecord
from ume_training.data.sources import located_error
from ume_training.data.validation import OnError, PairError

LEAK = "The right answer is known: {target}"
"""Text after the prompt of a query whose Reasoner is shown the answer."""


@dataclass(frozen=True, slots=True)
class AnnotateSettings:
    """Settings of annotation.

    Attributes:
        answer_hint_prob: Share of queries with a `target` whose Reasoner is shown it, 0..1. The released data has 0.5.
        seed: Of the choice which queries leak, and of sampling.
        max_tokens: Most tokens of a T-CoT; None takes what the Reasoner's checkpoint asks for.
        temperature: 0.0 is greedy decoding.
        batch: Pairs that are read, asked and written together.

    Raises:
        InputError: When a number is out of range.
    """

    answer_hint_prob: float = 0.0
    seed: int = 0
    max_tokens: int | None = None
    temperature: float = 0.0
    batch: int = 32
    leak_share: InitVar[float | None] = None

    def __post_init__(self, leak_share: float | None) -> None:
        if leak_share is not None:
            warnings.warn("`leak_share` is now `answer_hint_prob`", DeprecationWarning, stacklevel=3)
            object.__setattr__(self, "answer_hint_prob", leak_share)
        if not 0 <= self.answer_hint_prob <= 1:
            raise InputError(f"a share of {self.answer_hint_prob} leaked answers is out of range", hint="use 0 to 1")
        if self.batch < 1 or self.temperature < 0 or (self.max_tokens is not None and self.max_tokens < 1):
            raise InputError("batch and max_tokens must be at least 1, temperature at least 0")

    def leaks(self, record: PairRecord) -> bool:
        """Return whether this query is shown its answer: decided by seed and pair, not by the order of the file."""
        if record.target is None or not self.answer_hint_prob:
            return False
        return random.Random(f"leak/{self.seed}/{json.dumps(record.key)}").random() < self.answer_hint_prob

    def sampling(self, reasoner: Reasoner) -> Sampling:
        """Return how the Reasoner decodes."""
        return Sampling(self.max_tokens or reasoner.spec.max_tokens, self.temperature, seed=self.seed)


@dataclass(slots=True)
class AnnotationReport:
    """Counts of an annotation run.

    Attributes:
        pairs: Usable pairs of the input.
        annotated: Pairs written in this run.
        kept: Pairs that an earlier run had written.
        leaked: Pairs of this run whose Reasoner was shown the answer.
        problems: How many T-CoTs of this run have each named problem.
        failures: Pairs and lines that were left out.
        reasoner_calls: Chats that were answered.
        cached: T-CoTs that were known already.
        prompt_tokens: Tokens that the Reasoner read.
        completion_tokens: Tokens that it wrote.
    """

    pairs: int = 0
    annotated: int = 0
    kept: int = 0
    leaked: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    reasoner_calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "problems": dict(self.problems), "failures": [asdict(one) for one in self.failures]}


def annotate(
    pairs: Path,
    out: Path,
    reasoner: Reasoner,
    settings: AnnotateSettings | None = None,
    *,
    resume: bool = False,
    cache: TraceCache | None = None,
    on_error: OnError = "stop",
    limits: Limits = DEFAULT_LIMITS,
    on_progress: Callable[[int], None] | None = None,
) -> AnnotationReport:
    """Write T-CoTs for the query and the positive of every pair.

    A side that has a T-CoT keeps it. Equal items are asked once a batch, and once for all with a cache.

    Args:
        pairs: A pair file or folder of shards.
        out: The `.jsonl` file that grows; relative paths in it start from its own folder.
        reasoner: Any engine.
        settings: What decides which T-CoTs are written.
        resume: Go on with `out`. Pairs in it are not asked again.
        cache: Where replies are kept between runs, or None.
        on_error: What to do with a broken line or pair: stop, or leave it out and name it.
        limits: Ceilings on what media may cost.
        on_progress: Called with the number of pairs that are through.

    Raises:
        InputError: When `out` is, or would be, one of the files that are read.
        TrainingError: When `out` exists and is not to be resumed, or was written with other settings or by others.
        PairError: For the first broken line or medium, if `on_error` is "stop".
        UmeError: For the first failure of the Reasoner, if `on_error` is "stop".
    """
    chosen = settings or AnnotateSettings()
    if pairs.resolve() in (out.resolve(), out.resolve().parent):
        # A file inside of a folder of shards would be read as one of them.
        raise InputError(f"{display_name(out)} is one of the files that are read", hint="name another file")
    claim(out, _identity(reasoner, chosen), resume=resume)
    log = RecordLog(out)
    work = _Annotator(reasoner, chosen, cache, on_error, limits, AnnotationReport())
    report = work.report
    reader = PairReader(pairs, on_error=on_error, rule="usable")
    try:
        for located in _batches(reader, chosen.batch):
            waiting = [one for one in located if one.record not in log]
            report.pairs += len(located)
            report.kept += len(located) - len(waiting)
            written = work.run(waiting)
            log.append(one.record.moved(one.folder, out.parent) for one in written)
            report.annotated += len(written)
            if on_progress is not None:
                on_progress(report.pairs)
    finally:
        log.close()
    report.failures = [*reader.failures, *report.failures]
    return report


def _identity(reasoner: Reasoner, settings: AnnotateSettings) -> dict[str, Any]:
    return {
        "reasoner": f"{reasoner.info.name}@{reasoner.info.revision}",
        "prompts": reasoner.spec.prompts.version,
        "sampling": settings.sampling(reasoner).identity(),
        "leak_share": settings.answer_hint_prob,  # the name in files of earlier runs
        "seed": settings.seed,
    }


def _batches(reader: PairReader, size: int) -> Iterator[list[Located]]:
    rows = iter(reader)
    while batch := list(islice(rows, size)):
        yield batch


@dataclass(frozen=True, slots=True)
class _Ask:
    """One side of one pair that needs a T-CoT."""

    position: int
    side: Literal["query", "positive"]
    item: LoadedItem
    key: str
    chat: Chat


@dataclass(slots=True)
class _Annotator:
    """Asks for the T-CoTs of one batch after the other."""

    reasoner: Reasoner
    settings: AnnotateSettings
    cache: TraceCache | None
    on_error: OnError
    limits: Limits
    report: AnnotationReport

    def run(self, batch: Sequence[Located]) -> list[Located]:
        """Return the pairs of the batch that could be annotated, in order."""
        asks: list[_Ask] = []
        broken: dict[int, PairError] = {}
        for position, located in enumerate(batch):
            try:
                asks += self._asks(located, position)
            except PairError as error:
                broken[position] = error
        replies = self._replies(asks)
        texts: dict[int, dict[str, str]] = {}
        problems: dict[int, list[str]] = {}
        for ask in asks:
            try:
                text, found = _read(replies[ask.key], ask.item)
            except UmeError as error:
                broken.setdefault(ask.position, located_error(error, ask.side, batch[ask.position]))
                continue
            texts.setdefault(ask.position, {})[f"{ask.side}_tcot"] = text
            problems.setdefault(ask.position, []).extend(found)
        done: list[Located] = []
        for position, located in enumerate(batch):
            if position in broken:
                self._fail(broken[position])
                continue
            record, written = located.record, texts.get(position, {})
            asked = "query_tcot" in written
            leaked = self.settings.leaks(record) if asked else record.leaked
            self.report.problems.update(problems.get(position, []))
            self.report.leaked += asked and leaked
            done.append(replace(located, record=record.model_copy(update={**written, "leaked": leaked})))
        return done

    def _asks(self, located: Located, position: int) -> list[_Ask]:
        record = located.record
        asks: list[_Ask] = []
        if record.query_tcot is None:
            answer = record.target if self.settings.leaks(record) else None
            item = self._load(record.query, "query", located)
            asks.append(self._ask(position, "query", item, record.positive.modality, answer))
        if record.positive_tcot is None:
            item = self._load(record.positive, "positive", located)
            asks.append(self._ask(position, "positive", item, None, None))
        return asks

    def _load(self, item: ItemRecord, side: str, located: Located) -> LoadedItem:
        try:
            return item.load(located.folder, self.reasoner.spec.budget, self.limits)
        except UmeError as error:
            raise located_error(error, side, located) from error

    def _ask(
        self,
        position: int,
        name: Literal["query", "positive"],
        item: LoadedItem,
        target: Modality | None,
        answer: str | None,
    ) -> _Ask:
        spec, side = self.reasoner.spec, _SIDES[name]
        chat = reasoner_chat(item, side, spec.prompts, target)
        content = item.content_id
        if answer is not None:
            chat = with_answer(chat, answer)
            # A leaked T-CoT must never be found for the item alone.
            content = hashlib.sha256(f"leak\0{content}\0{answer}".encode("utf-8", "surrogatepass")).hexdigest()
        key = trace_key(
            content_id=content,
            side=side,
            target=target,
            reasoner=self.reasoner.info,
            prompts=spec.prompts,
            budget=spec.budget,
            sampling=self.settings.sampling(self.reasoner),
        )
        return _Ask(position, name, item, key, chat)

    def _replies(self, asks: Sequence[_Ask]) -> dict[str, TraceRecord | UmeError]:
        known = {} if self.cache is None else self.cache.get_many({ask.key for ask in asks})
        fresh = {ask.key: ask.chat for ask in asks if ask.key not in known}
        # All outcomes, even when one error is to stop the run: it has to be known which pair it is about.
        replies: dict[str, TraceRecord | UmeError] = dict(known)
        answers = answer_each(self.reasoner, list(fresh.values()), self.settings.sampling(self.reasoner))
        for key, answer in zip(fresh, answers, strict=True):
            replies[key] = answer if isinstance(answer, UmeError) else TraceRecord.of(answer, self.reasoner.info)
        new = {key: reply for key in fresh if isinstance(reply := replies[key], TraceRecord)}
        if self.cache is not None:
            self.cache.put_many(new)
        self.report.reasoner_calls += len(new)
        self.report.cached += len(asks) - len(fresh)
        self.report.prompt_tokens += sum(reply.prompt_tokens for reply in new.values())
        self.report.completion_tokens += sum(reply.completion_tokens for reply in new.values())
        return replies

    def _fail(self, error: PairError) -> None:
        if self.on_error == "stop":
            raise error
        self.report.failures.append(error.failure())


_SIDES: dict[Literal["query", "positive"], Side] = {"query": "query", "positive": "corpus"}


def with_answer(chat: Chat, answer: str) -> Chat:
    r"""Append the right answer to a Reasoner's question.

    Example:
        >>> chat = (Message("user", (TextPart("what is shown?"),)),)
        >>> [part.text for part in with_answer(chat, "a cat")[-1].parts]
        ['what is shown?', '\nThe right answer is known: a cat']
    """
    last = chat[-1]
    hint = TextPart("\n" + LEAK.replace("{target}", neutralise(answer)))
    return (*chat[:-1], Message(last.role, (*last.parts, hint)))


def _read(reply: TraceRecord | UmeError, item: LoadedItem) -> tuple[str, set[str]]:
    """Return a reply's text and the names of its problems.

    Raises:
        UmeError: If the reply is missing or unusable.
    """
    if isinstance(reply, UmeError):
        raise reply
    frames = sum(len(video.images) for video in item.videos)
    tcot = parse(reply.text, images=len(item.images), frames=frames or None)
    found = {problem.name for problem in (*tcot.problems, *validate(tcot, item.modality))}
    if not is_usable(tcot):
        raise ReasoningError(
            f"the Reasoner wrote no usable T-CoT ({', '.join(sorted(found))})", hint="try another Reasoner"
        )
    return reply.text, found
