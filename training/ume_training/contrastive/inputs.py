"""What the Embedder is shown of a pair: exactly what it will be shown when it searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.families import embedding_chat, reasoned_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import InputError, ReasoningError
from ume_retrieval.inputs import LoadedItem


def training_chat(spec: EmbedderSpec, item: LoadedItem, tcot: str | None) -> Chat:
    """An item as the Embedder reads it, with its T-CoT, crops and key frames when it has one.

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
    """Tokens of a chat.

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
    """Positions in chunks of like length, longest first, so that little is padded and too much memory shows at once.

    Example:
        >>> chunked([5, 90, 7], size=2)
        [[1, 2], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
    return [order[start : start + size] for start in range(0, len(order), size)]


def chunk_tensors(inputs: ChatInputs, chats: Sequence[Chat], pixel_dtype: Any) -> dict[str, Any]:
    """Tensors of a chunk, pixels in the model's number type: it converts them anyway, and they travel lighter."""
    tensors = inputs.tensors(chats)
    return {name: value.to(pixel_dtype) if value.is_floating_point() else value for name, value in tensors.items()}
