"""Chats as frozen values: the one language between families, prompts and engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import PIL.Image

from ume_retrieval.inputs import Frames, Side


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """One RGB image."""

    image: PIL.Image.Image


@dataclass(frozen=True, slots=True)
class VideoPart:
    """Sampled frames of one video.

    Attributes:
        frames: The frames.
        doubled: Whether the template's own vision tokens stay around those of each pair of frames.
    """

    frames: Frames
    doubled: bool = True


Part: TypeAlias = TextPart | ImagePart | VideoPart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: Who speaks.
        parts: What is said and shown, in order.
        side: End of retrieval that the turn's item is on, for models with a prompt or a route of their own for each;
            None where the model makes no difference.
    """

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A query and an item, as a reranker reads them together.

    Attributes:
        query: What is searched for, in order.
        document: What may answer it, in order.
        instruction: The retrieval task, or None.
    """

    query: tuple[Part, ...]
    document: tuple[Part, ...]
    instruction: str | None = None


Chat: TypeAlias = tuple[Message, ...]
"""Turns in order. An engine decides from the last turn's role whether a reply is to be generated."""


def images_of(chat: Chat) -> list[PIL.Image.Image]:
    """Every image of a chat, in reading order."""
    return [part.image for message in chat for part in message.parts if isinstance(part, ImagePart)]


def videos_of(chat: Chat) -> list[Frames]:
    """Every video of a chat, in reading order."""
    return [part.frames for message in chat for part in message.parts if isinstance(part, VideoPart)]
