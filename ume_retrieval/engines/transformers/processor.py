"""Chats to model tensors, through the checkpoint's own template, tokenizer and picture processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from ume_retrieval.chat import Chat, ImagePart, Part, TextPart, VideoPart
from ume_retrieval.engines.control_tokens import token_breaker
from ume_retrieval.engines.resize import GRID
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.inputs import Frames

if TYPE_CHECKING:
    import torch

TICKS_PER_SECOND = 1000
"""Frame times are passed as whole milliseconds: the processor knows frame numbers and a rate, not times."""


SHARED_SHARE = 0.1
"""Least share of a batch's tokens that must be spared for rows to share their beginning."""


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A fitted chat as the model's template writes it.

    Attributes:
        chat: The chat.
        text: One placeholder a picture.
        length: Tokens, pictures and their time marks included.
    """

    chat: Chat
    text: str
    length: int


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """Chats as tensors without padding: rows of tokens end to end.

    Attributes:
        tokens: Shape (all tokens,): those that all rows begin with, once, and then what is left of each row.
        kinds: 0 text, 1 image, 2 video, shape (all tokens,); stays on the CPU.
        shared: How many words all rows begin with, where it pays to compute them once; else 0.
        lengths: Tokens of each row, the shared ones counted in each.
        pictures: Pixels and grids of all rows, as the model's forward pass takes them.
    """

    tokens: torch.Tensor
    kinds: torch.Tensor
    shared: int
    lengths: tuple[int, ...]
    pictures: dict[str, torch.Tensor]

    def to(self, device: Any) -> PackedBatch:
        """Return the batch on a device; copies to a GPU do not wait for each other."""
        if device == self.tokens.device:
            return self
        if device.type != "cuda":
            return replace(self, tokens=self.tokens.to(device), pictures=_moved(self.pictures, device))
        pinned = {name: value.pin_memory() for name, value in self.pictures.items()}
        tokens = self.tokens.pin_memory().to(device, non_blocking=True)
        return replace(self, tokens=tokens, pictures=_moved(pinned, device))


class ChatInputs:
    """Builds the tensors of a batch of chats with a Qwen3-VL processor.

    Args:
        processor: A transformers processor with `image_processor`, `video_processor` and `tokenizer`.
        padding_side: "left" for generation, "right" for pooling.
        special_tokens: Whether the tokenizer adds what it adds to every input that it encodes, by its post-processor.
            An Embedder is pooled at such a token (Qwen3-VL-Embedding: `<|endoftext|>`); a Reasoner's reply must not
            begin behind one.
    """

    def __init__(self, processor: Any, padding_side: Literal["left", "right"], *, special_tokens: bool = False) -> None:
        self.processor = processor
        self.special_tokens = special_tokens
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = padding_side
        self._broken = token_breaker([self.tokenizer])

    def render(self, chat: Chat) -> str:
        """Write a chat with the model's template, one placeholder a picture.

        A chat whose last turn is not the assistant's ends with the opening of a reply. Special tokens in the words of
        other turns are broken up; the assistant's turn may hold one, such as the pooled `<emb>`.
        """
        reply = chat[-1].role != "assistant"
        messages = [
            {"role": message.role, "content": [self._template_part(part, message.role) for part in message.parts]}
            for message in chat
        ]
        rendered: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
        return rendered

    def write(self, chats: Sequence[Chat]) -> list[RenderedChat]:
        """Render fitted chats and count their tokens, without looking at a pixel."""
        if not chats:
            return []
        texts = [self.render(chat) for chat in chats]
        return [
            RenderedChat(chat, text, len(ids) + self._picture_tokens(chat))
            for chat, text, ids in zip(chats, texts, self.encode(texts), strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered chats, one placeholder a picture, with the special tokens that are wanted."""
        encoded = self.tokenizer(list(texts), add_special_tokens=self.special_tokens, return_attention_mask=False)
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _picture_tokens(self, chat: Chat) -> int:
        """Tokens that pictures take beyond their one placeholder."""
        return sum(
            _grid_tokens(part.image.width, part.image.height) - 1
            if isinstance(part, ImagePart)
            else self._video_tokens(part.frames)
            for part in _pictures(chat)
        )

    def _video_tokens(self, frames: Frames) -> int:
        marks = _time_marks(frames)
        written = self.tokenizer(marks, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        first = frames.images[0]
        # After its time mark, each pair of frames is between two tokens of its own.
        return sum(map(len, written)) + len(marks) * (_grid_tokens(first.width, first.height) + 2) - 1

    def count_tokens(self, chat: Chat) -> int:
        """Length of a fitted chat in tokens, pictures and their time marks included, without decoding a pixel."""
        return self.write([chat])[0].length

    def rows(
        self, written: Sequence[RenderedChat], *, keep: Callable[[Sequence[int]], Sequence[int]] | None = None
    ) -> PackedBatch:
        """Tensors of fitted chats without padding.

        Args:
            written: At least one; pictures already fitted to the budget.
            keep: From a row's token ids to the places of those that stay, ascending; those of pictures always do.
                None keeps all.

        Raises:
            IncompatibleModel: When `keep` does: a row lacks the token that is pooled.
        """
        import torch

        chats = [one.chat for one in written]
        batch = self._process([one.text for one in written], chats, padding=False)
        tokens: list[list[int]] = batch["input_ids"]
        kinds: list[list[int]] = batch["mm_token_type_ids"]
        if keep is not None:
            kept = [keep(row) for row in tokens]
            tokens = [[row[place] for place in places] for row, places in zip(tokens, kept, strict=True)]
            kinds = [[row[place] for place in places] for row, places in zip(kinds, kept, strict=True)]
        shared = _shared_words(tokens, kinds) if len(tokens) > 1 else 0
        return PackedBatch(
            tokens=torch.tensor(_once(tokens, shared)),
            kinds=torch.tensor(_once(kinds, shared)),
            shared=shared,
            lengths=tuple(map(len, tokens)),
            pictures={name: value for name, value in batch.items() if isinstance(value, torch.Tensor)},
        )

    def tensors(self, chats: Sequence[Chat], completions: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Padded tensors of a batch of fitted chats, ready for the model's forward pass.

        Args:
            chats: At least one; pictures already fitted to the budget.
            completions: Text to append to each chat's open reply (for training), or None.

        Returns:
            `input_ids` and `attention_mask` of shape (n, longest), plus pixel tensors when there are pictures.
        """
        texts = [self.render(chat) for chat in chats]
        if completions is not None:
            texts = [text + completion for text, completion in zip(texts, completions, strict=True)]
        batch = self._process(texts, chats, padding=True, text_kwargs={"return_tensors": "pt"})
        return {name: value for name, value in batch.items() if hasattr(value, "shape")}

    def up_to(self, token: int | None) -> Callable[[Sequence[int]], Sequence[int]] | None:
        """Return a `keep` for `rows` that ends rows after the last token with an id; None for no id.

        Later tokens decide nothing about it in a causal model.
        """
        return None if token is None else lambda row: range(self.end_of(row, token))

    def end_of(self, row: Sequence[int], until: int) -> int:
        """Number of tokens up to the last one with an id, which is the one that is pooled.

        Raises:
            IncompatibleModel: When the row lacks that token.
        """
        if until not in row:
            name = self.tokenizer.convert_ids_to_tokens(until)
            raise IncompatibleModel(f"an input has no {name}", hint="check the model's chat template")
        return len(row) - row[::-1].index(until)

    def _process(self, texts: list[str], chats: Sequence[Chat], **settings: Any) -> Any:
        pictures: dict[str, Any] = {}
        parts = [part for chat in chats for part in _pictures(chat)]
        images = [part.image for part in parts if isinstance(part, ImagePart)]
        videos = [part.frames for part in parts if isinstance(part, VideoPart)]
        if images:
            pictures["images"] = images
            pictures["images_kwargs"] = {"do_resize": False, "return_tensors": "pt"}
        if videos:
            pictures["videos"] = [list(frames.images) for frames in videos]
            pictures["videos_kwargs"] = {
                "do_resize": False,
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
                "video_metadata": [video_metadata(frames) for frames in videos],
                "return_tensors": "pt",
            }
        return self.processor(
            text=texts,
            add_special_tokens=self.special_tokens,
            return_mm_token_type_ids=True,
            **settings,
            **pictures,
        )

    def _template_part(self, part: Part, role: str) -> dict[str, str]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text if role == "assistant" else self._broken(part.text)}
        if isinstance(part, ImagePart):
            return {"type": "image"}
        # The processor puts vision tokens around each pair of frames. The template's own, around them all, stay only
        # where the placeholder is left to the template (transformers 4.57 took them away, 5.x does not).
        return {"type": "video"} if part.doubled else {"type": "text", "text": self.processor.video_token}


def _pictures(chat: Chat) -> Iterator[ImagePart | VideoPart]:
    """Images and videos of a chat, in reading order."""
    return (part for message in chat for part in message.parts if not isinstance(part, TextPart))


def _shared_words(tokens: Sequence[Sequence[int]], kinds: Sequence[Sequence[int]]) -> int:
    """How many words all rows begin with; 0 where sharing them would save less than it costs.

    A causal model computes the same for them in every row. The last token of a row is its own, because it is read.
    """
    ends = min(map(len, tokens)) - 1
    first, words = tokens[0], kinds[0]
    # Rows are compared with the first: what each shares with it, all share.
    for row in tokens[1:]:
        ends = next((place for place in range(ends) if row[place] != first[place]), ends)
    shared = next((place for place in range(ends) if words[place]), ends)
    return shared if (len(tokens) - 1) * shared >= SHARED_SHARE * sum(map(len, tokens)) else 0


def _once(rows: Sequence[Sequence[int]], shared: int) -> list[int]:
    """Concatenated rows, after their shared prefix.

    Example:
        >>> _once([[1, 2, 3], [1, 2, 4]], shared=2)
        [1, 2, 3, 4]
    """
    return [*rows[0][:shared], *(value for row in rows for value in row[shared:])]


def _moved(tensors: dict[str, torch.Tensor], device: Any) -> dict[str, torch.Tensor]:
    return {name: value.to(device, non_blocking=True) for name, value in tensors.items()}


def _grid_tokens(width: int, height: int) -> int:
    return (width // GRID) * (height // GRID)


def _time_marks(frames: Frames) -> list[str]:
    """Return the time marks that the model's processor writes before each pair of frames.

    Example:
        >>> import PIL.Image
        >>> _time_marks(Frames((PIL.Image.new("RGB", (4, 4)),) * 3, (5.0, 6.0, 18.0), 20.0))
        ['<0.5 seconds>', '<13.0 seconds>']
    """
    ticks = [*video_metadata(frames)["frames_indices"]]
    ticks += ticks[-1:] * (len(ticks) % 2)
    seconds = [(a + b) / 2 / TICKS_PER_SECOND for a, b in zip(ticks[::2], ticks[1::2], strict=True)]
    return [f"<{mark:.1f} seconds>" for mark in seconds]


def video_metadata(frames: Frames) -> dict[str, Any]:
    """Frame times for Qwen3-VL's processor, relative to the segment's start: equal segments get equal inputs."""
    start = frames.timestamps[0]
    return {
        "fps": TICKS_PER_SECOND,
        "frames_indices": [round((time - start) * TICKS_PER_SECOND) for time in frames.timestamps],
        "total_num_frames": max(1, round(frames.duration_s * TICKS_PER_SECOND)),
        "duration": frames.duration_s,
    }


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group inputs that are computed without padding, so that each batch stays within the budget.

    Longest first, so that an input that does not fit in memory shows at once, and inputs of equal length are
    neighbours. An input longer than the budget is a batch of its own.

    Args:
        lengths: Tokens of each input.
        budget: Most tokens of a batch, all inputs together.

    Returns:
        Positions of the inputs, every one exactly once.

    Example:
        >>> pack([10, 90, 12, 11], budget=100)
        [[1], [2, 3, 0]]
    """
    batches: list[list[int]] = []
    room = 0
    for position in _longest_first(lengths):
        if not batches or lengths[position] > room:
            batches.append([])
            room = budget
        batches[-1].append(position)
        room -= lengths[position]
    return batches


def pack_padded(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """The same for inputs that are padded to the longest of their batch.

    Args:
        lengths: Tokens of each input.
        budget: Most tokens of a padded batch: longest length times batch size.

    Returns:
        Positions of the inputs, every one exactly once.

    Example:
        >>> pack_padded([10, 90, 12, 11], budget=30)
        [[1], [2, 3], [0]]
    """
    batches: list[list[int]] = []
    for position in _longest_first(lengths):
        # The first of a batch is its longest, so it sets the padded length.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda position: (-lengths[position], position))
