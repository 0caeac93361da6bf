"""Forward passes without padding: rows of unequal length, end to end, each of which attends to itself only.

A padded batch computes every row at the length of its longest. Here linear layers see one long row of real tokens, and
attention, the only place where rows must not meet, goes row by row. Vectors and tokens are those of single calls. What
all rows begin with, such as an instruction, is computed once. Unread states are not computed: the last layer's
feed-forward part sees the last token of each row only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import torch

    from ume_retrieval.engines.transformers.processor import PackedBatch

Store: TypeAlias = "Callable[[int, torch.Tensor, torch.Tensor], None]"

ATTENTION = "ume_unpadded"
"""Name under which transformers finds the attention of this file."""


class Attention(Protocol):
    """Attention over the rows of one forward pass."""

    @property
    def last(self) -> torch.Tensor | None:
        """Places of the tokens whose last state is read, shape (rows,), int64; None for all of them."""
        ...

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """From (1 or n, heads, tokens, size) to (1 or n, tokens, heads, size); keys and values may have fewer heads."""
        ...


def is_supported(model: Any) -> bool:
    """Return whether the model can run without padding."""
    return str(model.config.model_type) == "qwen3_vl"


def prepare(model: Any) -> None:
    """Let the language model of a Qwen3-VL take its attention from the call; other calls attend as before.

    The last layer goes on with the tokens that are read. The patches' embedding, a convolution whose kernel is as large
    as its input, is computed as the matrix product that it is: the same numbers in a quarter of the time on a CPU.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation({"text_config": ATTENTION})
    base = _base(model)
    patches, layers = base.visual.patch_embed.proj, base.language_model.layers
    patches.forward = _Product(patches)
    # Pictures are added to the first layers' states, all of them; a last layer that is among these stays as it is.
    if len(layers) > len(base.visual.deepstack_visual_indexes) and not isinstance(layers[-1].forward, _LastLayer):
        layers[-1].forward = _LastLayer(layers[-1])


def last_states(model: Any, rows: PackedBatch, attention: Attention) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden state (after the norm) of each packed row's last token.

    Args:
        model: A Qwen3-VL that went through `prepare`.
        rows: On the model's device.
        attention: Most often `Packed`.

    Returns:
        States of shape (rows, width), and the rotary position that follows each row, shape (rows,).
    """
    base = _base(model)
    places, after = positions(rows, base.visual.spatial_merge_size)
    output = base(
        input_ids=rows.tokens[None],
        position_ids=places[:, None],
        attention_mask=_ready_mask(rows.tokens),
        use_cache=False,
        unpadded=attention,
        **rows.pictures,
    )
    hidden = output.last_hidden_state[0]
    return (hidden if len(hidden) == len(rows.lengths) else hidden[attention.last]), after


def step_states(model: Any, tokens: torch.Tensor, places: torch.Tensor, attention: Attention) -> torch.Tensor:
    """Last hidden states of one more token a row.

    Args:
        model: A Qwen3-VL that went through `prepare`.
        tokens: Shape (n,).
        places: Rotary position of each, shape (n,).
        attention: Holds keys and values of earlier tokens.

    Returns:
        Shape (n, width).
    """
    language_model = _base(model).language_model
    output = language_model(
        inputs_embeds=language_model.embed_tokens(tokens[:, None]),
        position_ids=places[None, :, None].expand(3, -1, 1),
        attention_mask=_ready_mask(tokens),
        use_cache=False,
        unpadded=attention,
    )
    hidden: torch.Tensor = output.last_hidden_state[:, 0]
    return hidden


class Packed:
    """Causal attention of rows that are end to end.

    Neighbours of equal length are attended to in one call, so rows are best sorted by length.

    Args:
        rows: The rows, on the model's device.
        store: Called with layer, keys and values, each (heads, tokens, size), when they are to be kept; or None.
    """

    def __init__(self, rows: PackedBatch, store: Store | None = None) -> None:
        import torch

        device = rows.tokens.device
        self._store = store
        self._shared = rows.shared
        own = [length - rows.shared for length in rows.lengths]
        self.last = (torch.tensor(own).cumsum(0) + (rows.shared - 1)).to(device)
        self._runs = _runs(own, rows.shared)
        # What a row's own tokens see: all that is shared, and their own up to themselves.
        seen = {length: torch.ones(length, rows.shared + length).tril(rows.shared).bool() for length in set(own)}
        self._seen = {length: mask.to(device) for length, mask in seen.items()} if rows.shared else {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """See `Attention`."""
        if self._store is not None:
            self._store(layer, key[0], value[0])
        _, heads, tokens, size = query.shape
        out = query.new_empty(tokens, heads, size)
        if self._shared:
            q, k, v = (states[:, :, : self._shared] for states in (query, key, value))
            out[: self._shared] = _causal(q, k, v, scale)[0]
        for start, count, length in self._runs:
            part = slice(start, start + count * length)
            q, k, v = (_apart(states[0, :, part], count) for states in (query, key, value))
            if self._shared:
                k, v = (_behind(states[0, :, : self._shared], own) for states, own in ((key, k), (value, v)))
            out[part] = _causal(q, k, v, scale, self._seen.get(length)).flatten(0, 1)
        return out[None]


def _runs(lengths: Iterable[int], start: int) -> list[tuple[int, int, int]]:
    """Neighbours of equal length: where they start, how many they are, and their length.

    Example:
        >>> _runs([3, 3, 2], start=1)
        [(1, 2, 3), (7, 1, 2)]
    """
    runs: list[tuple[int, int, int]] = []
    for length, same in groupby(lengths):
        count = sum(1 for _ in same)
        runs.append((start, count, length))
        start += count * length
    return runs


def _apart(states: torch.Tensor, count: int) -> torch.Tensor:
    """Rows of one length, from (heads, count * length, size) to (count, heads, length, size)."""
    heads, tokens, size = states.shape
    return states.reshape(heads, count, tokens // count, size).transpose(0, 1)


def _behind(shared: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Prepend the shared prefix to each row, from (heads, shared, size) and (count, heads, length, size)."""
    import torch

    return torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=2)


def _causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float, seen: torch.Tensor | None = None
) -> torch.Tensor:
    """Attention to what came before, or to what is `seen`, from (rows, heads, ...) to (rows, length, heads, size)."""
    import torch

    mixed = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, seen, is_causal=seen is None, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return mixed.transpose(1, 2)


def _attention(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **settings: Any) -> tuple[Any, None]:
    """Attend in one layer of the language model; transformers calls it."""
    unpadded: Attention | None = settings.pop("unpadded", None)
    if unpadded is not None:
        return unpadded.attend(module.layer_idx, query, key, value, settings["scaling"]), None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    mixed, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
    return mixed, None


class _LastLayer:
    """The last decoder layer: attends to every token, and computes the feed-forward part for the needed tokens only."""

    def __init__(self, layer: Any) -> None:
        self._layer, self._whole = layer, layer.forward

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        unpadded: Attention | None = kwargs.get("unpadded")
        if unpadded is None or unpadded.last is None:
            whole: torch.Tensor = self._whole(hidden_states, *args, **kwargs)
            return whole
        layer = self._layer
        mixed, _ = layer.self_attn(layer.input_layernorm(hidden_states), *args, **kwargs)
        read = (hidden_states + mixed)[:, unpadded.last]
        after: torch.Tensor = read + layer.mlp(layer.post_attention_layernorm(read))
        return after


class _Product:
    """A convolution over exactly one patch, as a matrix product."""

    def __init__(self, convolution: Any) -> None:
        self._convolution = convolution

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        import torch

        weight, bias = self._convolution.weight, self._convolution.bias
        product = torch.nn.functional.linear(patches.flatten(1), weight.flatten(1), bias)
        return product[:, :, None, None, None]


def positions(rows: PackedBatch, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions of packed rows: what Qwen3-VL's `get_rope_index` gives for each alone, in a tenth of the time.

    Words count on; the tokens of a picture or of a pair of frames share a time and count rows and columns from there,
    and what follows goes on after the longer side.

    Args:
        rows: The rows.
        merge: Patches on a side that become one token.

    Returns:
        Positions of time, row and column, shape (3, tokens of `rows`), and the position that follows each row, shape
        (rows,).
    """
    import torch

    images, videos = (
        iter(rows.pictures[name].tolist() if name in rows.pictures else [])
        for name in ("image_grid_thw", "video_grid_thw")
    )
    # Pairs of frames are apart, each behind its time mark.
    grids = {1: images, 2: (grid for time, *grid in videos for _ in range(time))}
    kinds = rows.kinds.tolist()
    places = np.empty((3, len(kinds)), dtype=np.int64)
    places[:, : rows.shared] = np.arange(rows.shared)
    after: list[int] = []
    start = rows.shared
    for length in (whole - rows.shared for whole in rows.lengths):
        place, end = rows.shared, start + length
        while start < end:
            kind = kinds[start]
            if kind == 0:
                stop = start
                while stop < end and kinds[stop] == 0:
                    stop += 1
                places[:, start:stop] = np.arange(place, place + stop - start)
                place += stop - start
            else:
                height, width = (side // merge for side in next(grids[kind])[-2:])
                stop = start + height * width
                places[0, start:stop] = place
                places[1, start:stop] = np.repeat(np.arange(place, place + height), width)
                places[2, start:stop] = np.tile(np.arange(place, place + width), height)
                place += max(height, width)
            start = stop
        after.append(int(places[:, end - length : end].max()) + 1)
    device = rows.tokens.device
    return torch.from_numpy(places).to(device), torch.tensor(after, device=device)


def _base(model: Any) -> Any:
    """The model below the head, if it has one."""
    return model if hasattr(model, "visual") and hasattr(model, "language_model") else model.model


def _ready_mask(tokens: torch.Tensor) -> torch.Tensor:
    """A mask of four dimensions is taken as it is; without one, transformers would build tokens x tokens."""
    return tokens.new_zeros(1, 1, 1, 1)
