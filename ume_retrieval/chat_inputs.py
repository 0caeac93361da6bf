"""Chats to model tensors, through the checkpoint's own template, tokenizer and picture processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ume_retrieval.chat import Chat, ImagePart, Part, TextPart, images_of, videos_of
from ume_retrieval.fitting import GRID
from ume_retrieval.inputs import Frames

if TYPE_CHECKING:
    import torch

TICKS_PER_SECOND = 1000
"""Frame times travel as whole milliseconds: the processor knows frame numbers and a rate, not times."""


class ChatInputs:
    """Builds the tensors of a batch of chats with a Qwen3-VL processor.

    Args:
        processor: A transformers processor with `image_processor`, `video_processor` and `tokenizer`.
        padding_side: "left" for generation, "right" for pooling.
    """

    def __init__(self, processor: Any, padding_side: Literal["left", "right"]) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = padding_side

    def render(self, chat: Chat) -> str:
        """The chat as the model's template writes it, one placeholder a picture.

        A chat whose last turn is not the assistant's ends with the opening of a reply.
        """
        reply = chat[-1].role != "assistant"
        messages = [
            {"role": message.role, "content": [_template_part(part) for part in message.parts]} for message in chat
        ]
        rendered: str = self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=reply)
        return rendered

    def count_tokens(self, chat: Chat) -> int:
        """Length of a fitted chat in tokens, pictures and their time marks included, without decoding a pixel."""
        text_tokens = len(self.tokenizer(self.render(chat), add_special_tokens=False)["input_ids"])
        image_tokens = sum(_grid_tokens(image.width, image.height) - 1 for image in images_of(chat))
        return text_tokens + image_tokens + sum(_video_tokens(frames) for frames in videos_of(chat))

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
        pictures: dict[str, Any] = {}
        images = [image for chat in chats for image in images_of(chat)]
        videos = [frames for chat in chats for frames in videos_of(chat)]
        if images:
            pictures["images"] = images
            pictures["images_kwargs"] = {"do_resize": False}
        if videos:
            pictures["videos"] = [list(frames.images) for frames in videos]
            pictures["videos_kwargs"] = {
                "do_resize": False,
                "do_sample_frames": False,
                "cap_pixels_per_frame": False,
                "video_metadata": [_metadata(frames) for frames in videos],
            }
        batch = self.processor(
            text=texts,
            padding=True,
            add_special_tokens=False,
            return_mm_token_type_ids=True,
            return_tensors="pt",
            **pictures,
        )
        return {name: value for name, value in batch.items() if hasattr(value, "shape")}


def _template_part(part: Part) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image"} if isinstance(part, ImagePart) else {"type": "video"}


def _grid_tokens(width: int, height: int) -> int:
    return (width // GRID) * (height // GRID)


TIME_MARK_TOKENS = 8
"""Upper bound of a time mark such as `<12.5 seconds>` with the tokens around a frame pair."""


def _video_tokens(frames: Frames) -> int:
    pairs = (len(frames.images) + 1) // 2
    first = frames.images[0]
    return pairs * (_grid_tokens(first.width, first.height) + TIME_MARK_TOKENS)


def _metadata(frames: Frames) -> dict[str, Any]:
    """Times relative to the stretch's own start, so that equal segments of one video look equal."""
    start = frames.timestamps[0]
    return {
        "fps": TICKS_PER_SECOND,
        "frames_indices": [round((time - start) * TICKS_PER_SECOND) for time in frames.timestamps],
        "total_num_frames": max(1, round(frames.duration_s * TICKS_PER_SECOND)),
        "duration": frames.duration_s,
    }
