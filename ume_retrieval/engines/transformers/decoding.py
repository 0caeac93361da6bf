"""Generation in slots: a reply that is finished makes room at once, and the next prompt takes its place.

Prompts are read without padding (`unpadded`), keys and values lie in slots of equal room, and rows that run are always
the first slots, so that every step works on one dense block.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from ume_retrieval.engines.base import Sampling, chat_seeds
from ume_retrieval.engines.transformers import unpadded
from ume_retrieval.engines.transformers.processor import PackedBatch, RenderedChat, pack

if TYPE_CHECKING:
    import torch

PREFILL_TOKENS = 4096
"""Most tokens of prompts that are read in one forward pass."""

CPU_GROUP = 32
"""Rows that a step on a CPU attends to in one call."""

REFILL_SHARE = 0.25
"""Prompts wait until this share of the slots is free: reading many at once is cheaper than one by one."""


def decode(
    model: Any,
    prompts: Sequence[RenderedChat],
    rows_of: Callable[[Sequence[RenderedChat]], PackedBatch],
    sampling: Sampling,
    *,
    ends: frozenset[int],
    budget: int,
) -> Iterator[tuple[int, int, list[int]]]:
    """Continue every prompt.

    Args:
        model: A Qwen3-VL with a language-model head that went through `unpadded.prepare`.
        prompts: In any order.
        rows_of: Makes tensors of prompts.
        sampling: How tokens are chosen. With a temperature, each prompt has a random stream of its own (`seeds`), so
            that a reply does not depend on its batch.
        ends: Tokens that end a reply.
        budget: Most tokens, prompts and replies together, that have a place at the same time.

    Yields:
        Position in `prompts`, tokens of the prompt and tokens of the reply, an end token included; each reply when it
        is finished.
    """
    seeds = chat_seeds([prompt.chat for prompt in prompts], sampling.seed, pictures=sampling.temperature > 0)
    classes: defaultdict[int, list[int]] = defaultdict(list)
    for position, prompt in enumerate(prompts):
        # Rooms of a power of two: long prompts must not set the room of short ones.
        classes[1 << (prompt.length + sampling.max_tokens - 1).bit_length()].append(position)
    for room, positions in sorted(classes.items(), reverse=True):
        slots = _Slots(model, min(len(positions), max(1, budget // room)), room)
        run = _Run(model, slots, sampling, ends)
        waiting = deque(sorted(positions, key=lambda position: -prompts[position].length))
        while waiting or run.replies:
            free = slots.count - len(run.replies)
            if waiting and free >= max(1, int(slots.count * REFILL_SHARE)):
                some = [waiting.popleft() for _ in range(min(free, len(waiting)))]
                for batch in pack([prompts[position].length for position in some], PREFILL_TOKENS):
                    chosen = [some[number] for number in batch]
                    rows = rows_of([prompts[position] for position in chosen]).to(model.device)
                    run.read([_Reply(position, seeds[position]) for position in chosen], rows)
            else:
                run.step()
            for reply in run.finished():
                yield reply.position, reply.prompt_tokens, reply.tokens


class _Reply:
    """A reply that is being written.

    Attributes:
        position: Of its prompt in the call.
        random: Its random stream.
        prompt_tokens: Tokens of its prompt.
        tokens: Its tokens so far.
    """

    __slots__ = ("position", "prompt_tokens", "random", "tokens")

    def __init__(self, position: int, seed: int) -> None:
        self.position = position
        self.random = Random(seed)  # noqa: S311  # sampling needs no cryptographic randomness
        self.prompt_tokens = 0
        self.tokens: list[int] = []


class _Run:
    """Replies that are being written; reply i is in slot i."""

    def __init__(self, model: Any, slots: _Slots, sampling: Sampling, ends: frozenset[int]) -> None:
        self._model, self._slots, self._sampling, self._ends = model, slots, sampling, ends
        self.replies: list[_Reply] = []

    def read(self, replies: Sequence[_Reply], rows: PackedBatch) -> None:
        """Take prompts into free slots and write their first tokens."""
        import torch

        slots, first = self._slots, len(self.replies)
        self.replies += replies
        for reply, length in zip(replies, rows.lengths, strict=True):
            reply.prompt_tokens = length
        taken = slice(first, len(self.replies))
        with torch.inference_mode():
            packed = unpadded.Packed(rows, slots.keeper(first, rows))
            hidden, slots.places[taken] = unpadded.last_states(self._model, rows, packed)
            self._write(taken, hidden)

    def step(self) -> None:
        """Write one more token of every reply."""
        import torch

        slots, count = self._slots, len(self.replies)
        with torch.inference_mode():
            hidden = unpadded.step_states(self._model, slots.tokens[:count], slots.places[:count], _Step(slots, count))
            slots.places[:count] += 1
            slots.lengths[:count] += 1
            self._write(slice(0, count), hidden)

    def finished(self) -> Iterator[_Reply]:
        """Take out the replies that have ended; the last ones move into their slots."""
        for slot in reversed(range(len(self.replies))):
            reply = self.replies[slot]
            if reply.tokens[-1] in self._ends or len(reply.tokens) >= self._sampling.max_tokens:
                last = self.replies.pop()
                if slot < len(self.replies):
                    self.replies[slot] = last
                    self._slots.move(len(self.replies), slot)
                yield reply

    def _write(self, slots: slice, hidden: torch.Tensor) -> None:
        tokens = self._choose(self._model.lm_head(hidden).float(), self.replies[slots])
        self._slots.tokens[slots] = tokens
        for reply, token in zip(self.replies[slots], tokens.tolist(), strict=True):
            reply.tokens.append(token)

    def _choose(self, scores: torch.Tensor, replies: Sequence[_Reply]) -> torch.Tensor:
        """A token for each row of scores, shape (rows,)."""
        import torch

        if self._sampling.temperature == 0:
            return scores.argmax(-1)
        shares, order = (scores / self._sampling.temperature).softmax(-1).sort(-1, descending=True)
        if self._sampling.top_p < 1:
            # A token stays while those before it have not reached the mass; the first always does.
            shares[shares.cumsum(-1) - shares >= self._sampling.top_p] = 0
        cumulated = shares.cumsum(-1)
        drawn = torch.tensor([[reply.random.random()] for reply in replies], device=scores.device)
        chosen = torch.searchsorted(cumulated, drawn * cumulated[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return order.gather(-1, chosen)[:, 0]


class _Slots:
    """Keys and values of rows that are being continued.

    Attributes:
        count: How many rows have a place.
        tokens: Token that each row reads next, shape (count,).
        places: Its rotary position, shape (count,).
        lengths: Tokens that each row has read, shape (count,).
        keys: Shape (layers, count, heads, room, size).
        values: The same.
    """

    def __init__(self, model: Any, count: int, room: int) -> None:
        import torch

        config = model.config.get_text_config()
        shape = (config.num_hidden_layers, count, config.num_key_value_heads, room, config.head_dim)
        self.count = count
        # Zeros: what is masked is still multiplied, and memory may hold NaN.
        self.keys, self.values = (torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(2))
        # On the CPU too: how far to look must be known without waiting for the device.
        self.lengths = torch.zeros(count, dtype=torch.long)
        self.tokens, self.places = (torch.zeros(count, dtype=torch.long, device=model.device) for _ in range(2))

    def keeper(self, first: int, rows: PackedBatch) -> Callable[[int, torch.Tensor, torch.Tensor], None]:
        """Keeps what `unpadded.Packed` computes for rows that begin in slot `first`."""
        shared = rows.shared
        for slot, length in enumerate(rows.lengths, first):
            self.lengths[slot] = length

        def keep(layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
            for slots, states in ((self.keys, keys), (self.values, values)):
                slots[layer, first : first + len(rows.lengths), :, :shared] = states[:, :shared]
                start = shared
                for slot, length in enumerate(rows.lengths, first):
                    end = start + length - shared
                    slots[layer, slot, :, shared:length] = states[:, start:end]
                    start = end

        return keep

    def move(self, source: int, target: int) -> None:
        """Put the row of one slot into another."""
        length = int(self.lengths[source])
        for held in (self.keys, self.values):
            held[:, target, :, :length] = held[:, source, :, :length]
        for each in (self.tokens, self.places, self.lengths):
            each[target] = each[source]


class _Step:
    """Attention of one new token in each of the first slots to all that its row has read.

    Rows are looked at in groups, each as far as its longest row goes: on a CPU the keys that are read set the pace, and
    slots are filled by length.
    """

    last = None

    def __init__(self, slots: _Slots, count: int) -> None:
        import torch

        device = slots.keys.device
        size = CPU_GROUP if device.type == "cpu" else count
        self._slots = slots
        self._last = slots.lengths[:count].to(device)
        self._rows = torch.arange(count, device=device)
        self._groups: list[tuple[slice, int, torch.Tensor]] = []
        for start in range(0, count, size):
            rows = slice(start, min(start + size, count))
            longest = int(slots.lengths[rows].max()) + 1
            seen = torch.arange(longest, device=device) <= self._last[rows, None]
            self._groups.append((rows, longest, seen[:, None, None]))

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `unpadded.Attention`."""
        import torch

        keys, values = self._slots.keys[layer], self._slots.values[layer]
        keys[self._rows, :, self._last] = key[:, :, 0]
        values[self._rows, :, self._last] = value[:, :, 0]
        count, heads, _, size = query.shape
        # Heads that share keys are queries of one head: nothing is repeated.
        queries = query.reshape(count, keys.shape[1], -1, size)
        mixed = [
            torch.nn.functional.scaled_dot_product_attention(
                queries[rows], keys[rows, :, :longest], values[rows, :, :longest], attn_mask=seen, scale=scale
            )
            for rows, longest, seen in self._groups
        ]
        return torch.cat(mixed).reshape(count, 1, heads, size)
