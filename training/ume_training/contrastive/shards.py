"""Steps as a data set: position `step * processes + process` holds that process's share of that step, as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.families import embedding_chat, reasoned_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import InputError, ReasoningError, UmeError
from ume_retrieval.inputs import LoadedItem
from ume_training.contrastive.plan import StepPlan, SubBatch

if TYPE_CHECKING:
    from ume_training.data.sources import LoadedPair, PairSource


def training_chat(spec: EmbedderSpec, item: LoadedItem, tcot: str | None) -> Chat:
    """Return an item as the Embedder reads it, with its T-CoT, crops and key frames when it has one.

    Args:
        spec: Family, prompts and visual budget.
        item: Text and pixels.
        tcot: The T-CoT as the Reasoner wrote it, or None for a direct input.

    Raises:
        ReasoningError: When the T-CoT says nothing that can be used; a search would refuse it too.
    """
    if tcot is None:
        return embedding_chat(spec, item, None, None)
    try:
        return reasoned_chat(spec, item, tcot).chat
    except ReasoningError as error:
        raise ReasoningError(f"the T-CoT cannot be used: {error}", hint="annotate the pair again") from error


def checked_length(inputs: ChatInputs, chat: Chat, spec: EmbedderSpec) -> int:
    """Count the tokens of a chat.

    Raises:
        InputError: When the model does not read that many; nothing is ever cut silently.
    """
    length = inputs.count_tokens(chat)
    if length > spec.max_tokens:
        raise InputError(
            f"an input takes {length} tokens, the model reads {spec.max_tokens}",
            hint="shorten the text, or give fewer images",
        )
    return length


def chunked(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Group positions into chunks of similar length, longest first: little padding, and early out-of-memory errors.

    Example:
        >>> chunked([5, 90, 7], size=2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    return [order[start : start + size] for start in range(0, len(order), size)]


def chunk_tensors(inputs: ChatInputs, chats: Sequence[Chat], pixel_dtype: Any) -> dict[str, Any]:
    """Build the tensors of a chunk, with pixels in the model's number type, which takes less to transfer."""
    tensors = inputs.tensors(chats)
    return {name: value.to(pixel_dtype) if value.is_floating_point() else value for name, value in tensors.items()}


NOTHING = LoadedItem("-", (), (), None, "")
"""Goes through the model where a process has nothing to embed: all must take part in every step."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Inputs that pass through the model together.

    Attributes:
        places: Where each row belongs in `Shard`'s order of inputs; -1 for padding.
        tensors: The model's arguments.
    """

    places: tuple[int, ...]
    tensors: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Broken:
    """A pair that could not be used.

    Attributes:
        dataset: Name of its data set.
        row: Its position there.
        error: Code of the error.
        message: What happened, with file and line where the source knows them.
    """

    dataset: str
    row: int
    error: str
    message: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Inputs that one process embeds in one step.

    Inputs are ordered: queries, positives, then `negatives` hard negatives a pair; slots without a pair count as well
    and are False in the masks.

    Attributes:
        chunks: The inputs as tensors.
        valid: Which slots hold a pair, shape (slots,).
        negative_valid: Which hard negatives exist, shape (slots, negatives).
        ids: Content of queries, positives and hard negatives as whole numbers, shape (slots, 2 + negatives).
        also: Whether the positive in place j of the sub-batch answers the query of the slot, shape (slots, sub_batch).
        traced: Inputs that carry a T-CoT.
        inputs: Inputs in all.
        broken: Pairs that could not be used.
    """

    chunks: tuple[Chunk, ...]
    valid: Any
    negative_valid: Any
    ids: Any
    also: Any
    traced: int
    inputs: int
    broken: tuple[Broken, ...]


@dataclass(frozen=True, slots=True)
class _Row:
    """An input that waits for a chunk."""

    place: int
    chat: Chat
    length: int


@dataclass(slots=True)
class StepShards:
    """A map-style data set for torch's DataLoader; equal positions give equal shards.

    Attributes:
        plan: The run.
        sources: The data sets that it draws from.
        processor: The checkpoint's processor; each worker process has its own copy.
        spec: How the Embedder wants its input.
        processes: How many processes train.
        slots: Slots of a shard, pairs of a step / processes.
        sub_batch: Places of a sub-batch.
        mini_batch: Inputs of a chunk.
        negatives: Most hard negatives a pair.
        pixel_dtype: Number type of pixels.
    """

    plan: StepPlan
    sources: Sequence[PairSource]
    processor: Any
    spec: EmbedderSpec
    processes: int
    slots: int
    sub_batch: int
    mini_batch: int
    negatives: int
    pixel_dtype: Any
    _inputs: ChatInputs | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.plan.steps) * self.processes

    def __getitem__(self, position: int) -> Shard:
        import torch

        if self._inputs is None:
            self._inputs = ChatInputs(self.processor, "right", special_tokens=True)
        step, process = divmod(position, self.processes)
        parts = self.plan.steps[step]
        valid = torch.zeros(self.slots, dtype=torch.bool)
        negative_valid = torch.zeros(self.slots, self.negatives, dtype=torch.bool)
        ids = torch.zeros(self.slots, 2 + self.negatives, dtype=torch.int64)
        also = torch.zeros(self.slots, self.sub_batch, dtype=torch.bool)
        rows: list[_Row] = []
        broken: list[Broken] = []
        traced = 0
        for slot in range(self.slots):
            # Neighbours go to different processes, so that a short sub-batch leaves none without work.
            number, place = divmod(slot * self.processes + process, self.sub_batch)
            if number >= len(parts) or place >= len(parts[number].rows):
                continue
            part, source = parts[number], self.sources[parts[number].source]
            row = part.rows[place]
            try:
                pair = source[row]
                items = (pair.query, pair.positive, *pair.negatives[: self.negatives])
                traces = self._traces(pair, part, len(items))
                fresh = [self._row(slot, kind, *one) for kind, one in enumerate(zip(items, traces, strict=True))]
            except UmeError as error:
                # Returned, not raised: the DataLoader would wrap an error of its worker in a long traceback.
                broken.append(Broken(source.name, row, error.code, error.message))
                continue
            rows += fresh
            traced += sum(trace is not None for trace in traces)
            valid[slot] = True
            negative_valid[slot, : len(items) - 2] = True
            ids[slot, : len(items)] = torch.tensor([_whole_number(item.content_id) for item in items])
            for other, positive in enumerate(part.rows):
                also[slot, other] = other != place and _also_answers(source, row, positive)
        return Shard(
            chunks=self._chunks(rows),
            valid=valid,
            negative_valid=negative_valid,
            ids=ids,
            also=also,
            traced=traced,
            inputs=len(rows),
            broken=tuple(broken),
        )

    def _traces(self, pair: LoadedPair, part: SubBatch, count: int) -> list[str | None]:
        """Return the T-CoT of each item; hard negatives come without."""
        if not part.with_trace:
            return [None] * count
        return [pair.query_tcot, pair.positive_tcot, *[None] * (count - 2)]

    def _row(self, slot: int, kind: int, item: LoadedItem, tcot: str | None) -> _Row:
        assert self._inputs is not None  # noqa: S101  # set by the only caller
        chat = training_chat(self.spec, item, tcot)
        place = kind * self.slots + slot if kind < 2 else 2 * self.slots + slot * self.negatives + kind - 2
        return _Row(place, chat, checked_length(self._inputs, chat, self.spec))

    def _chunks(self, rows: list[_Row]) -> tuple[Chunk, ...]:
        assert self._inputs is not None  # noqa: S101  # set by the only caller
        rows = rows or [_Row(-1, training_chat(self.spec, NOTHING, None), 1)]
        return tuple(
            Chunk(
                tuple(rows[position].place for position in positions),
                chunk_tensors(self._inputs, [rows[position].chat for position in positions], self.pixel_dtype),
            )
            for positions in chunked([row.length for row in rows], self.mini_batch)
        )


def _also_answers(source: PairSource, query: int, positive: int) -> bool:
    """Ask the source; a pair that it cannot read answers nothing."""
    try:
        return source.also_answers(query, positive)
    except UmeError:
        return False


def _whole_number(content_id: str) -> int:
    """60 bits of an item's content id: enough that two contents of a batch never collide. 0 is an unknown content."""
    return int(hashlib.sha256(content_id.encode()).hexdigest()[:15], 16) if content_id else 0
