"""A fake Reasoner and a fake Embedder for the tests of apps: no weights, no torch, the same answer every time.

They understand nothing. The Reasoner repeats an item's words and names the colours of its pictures; the Embedder
counts words and colours. That is enough for similar things to get similar vectors, so that an app's own logic can be
tested around them. `fake_embedder` puts both into a `ReasoningEmbedder`; no preset loads them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image

from ume_retrieval.chat import Chat, TextPart, images_of, videos_of
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo, Prompts, ReasonerSpec, VisualBudget
from ume_retrieval.engines.base import Embeddings, Generation, Reasoner, Sampling
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.trace import Box, TCot

SMALL_BUDGET = VisualBudget(
    image_min_pixels=32 * 32,
    image_max_pixels=96 * 96,
    frame_min_pixels=32 * 32,
    frame_max_pixels=96 * 96,
    crop_min_pixels=32 * 32,
    crop_max_pixels=96 * 96,
)
"""A visual budget that keeps tests fast."""

PLAIN_PROMPTS = Prompts(version="fake-1", **dict.fromkeys(Prompts.model_fields.keys() - {"version"}, "{text}"))
"""Prompts that ask nothing, so that a fake trace holds the item's own words only."""

COLOURS = {
    "red": (220, 40, 40),
    "orange": (240, 140, 30),
    "yellow": (240, 220, 50),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "purple": (130, 50, 160),
    "black": (0, 0, 0),
    "grey": (128, 128, 128),
    "white": (255, 255, 255),
}
"""Names and RGB values, 0..255, to which pixels are rounded."""


def fake_embedder(*, reasoner: Reasoner | Literal["fake"] | None = "fake", **options: Any) -> ReasoningEmbedder:
    """Build a `ReasoningEmbedder` from a `HashEmbedder` and a `FakeReasoner`, for the tests of an app.

    Args:
        reasoner: Writes the T-CoTs; "fake" builds a new `FakeReasoner`, None builds an embedder without a Reasoner.
        options: Keyword arguments of `ReasoningEmbedder`, such as `cache`, `limits` or `chunk_items`.

    Example:
        >>> embedder = fake_embedder()
        >>> corpus = embedder.encode_corpus(["a red circle on grass", "the last train home"])
        >>> query = embedder.encode_query("red circle", reasoning="always")
        >>> embedder.similarity(query, corpus).argmax().item()
        0
    """
    return ReasoningEmbedder(HashEmbedder(), FakeReasoner() if reasoner == "fake" else reasoner, **options)


class FakeReasoner:
    """A Reasoner without a model: it answers every chat with a valid T-CoT made from the chat's words and colours.

    Args:
        answer: Called with each chat instead, when given; returns the text of the reply, well formed or not.
        name: Name of the model in `info`; part of the trace cache key.
        revision: Revision in `info`; part of the trace cache key.
        spec: Prompts and visual budget; by default prompts that ask nothing and a small budget.

    Attributes:
        chats: Every chat that was answered, in order.

    Example:
        >>> from ume_retrieval.chat import Message, TextPart
        >>> reasoner = FakeReasoner()
        >>> [reply] = reasoner.generate([(Message("user", (TextPart("red"),)),)], Sampling())
        >>> reply.text
        '<thinking>words {"text_keywords": ["red"]}</thinking><rethink>sure</rethink><answer>red</answer>'
        >>> reasoner.calls
        1
    """

    def __init__(
        self,
        answer: Callable[[Chat], str] | None = None,
        *,
        name: str = "fake-reasoner",
        revision: str = "1",
        spec: ReasonerSpec | None = None,
    ) -> None:
        self.info = ModelInfo(name, revision, "fake")
        self.spec = spec or ReasonerSpec(prompts=PLAIN_PROMPTS, budget=SMALL_BUDGET)
        self.chats: list[Chat] = []
        self._answer = answer or _canonical_reply

    @property
    def calls(self) -> int:
        """Number of chats answered so far."""
        return len(self.chats)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answer each chat; tokens are counted as words, and a reply over `sampling.max_tokens` words is truncated."""
        self.chats.extend(chats)
        return [self._reply(chat, sampling.max_tokens) for chat in chats]

    def _reply(self, chat: Chat, max_tokens: int) -> Generation:
        text = self._answer(chat)
        prompt_tokens = len(_words(chat)) + len(_pictures(chat))
        spoken = text.split(" ")
        if len(spoken) > max_tokens:
            return Generation(" ".join(spoken[:max_tokens]), prompt_tokens, max_tokens, "length")
        return Generation(text, prompt_tokens, len(spoken), "stop")


class HashEmbedder:
    """An Embedder without a model: a random but fixed direction for each word and colour, summed and normalised.

    Chats that share words, or whose pictures share colours, get similar vectors; a picture of a colour is close to the
    colour's name (see `COLOURS`).

    Args:
        dimension: Length of the vectors, > 0.
        name: Name of the model in `info`.
        revision: Revision in `info`.
        spec: Family, prompts and visual budget; by default a plain family and a small budget.

    Attributes:
        chats: Every chat that was embedded, in order.

    Example:
        >>> from ume_retrieval.chat import Message, TextPart
        >>> words = ["a red circle", "one red circle", "the last train home"]
        >>> vectors = HashEmbedder().embed([(Message("user", (TextPart(w),)),) for w in words]).vectors
        >>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
        ((3, 64), True)
    """

    def __init__(
        self,
        *,
        dimension: int = 64,
        name: str = "hash-embedder",
        revision: str = "1",
        spec: EmbedderSpec | None = None,
    ) -> None:
        self.info = ModelInfo(name, revision, "fake")
        self.spec = spec or EmbedderSpec(family="sentence-transformers", budget=SMALL_BUDGET)
        self.dimension = dimension
        self.chats: list[Chat] = []

    @property
    def calls(self) -> int:
        """Number of chats embedded so far."""
        return len(self.chats)

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; tokens are counted as words and pictures."""
        self.chats.extend(chats)
        vectors = np.zeros((len(chats), self.dimension), dtype=np.float32)
        for row, chat in zip(vectors, chats, strict=True):
            row[:] = self._vector(chat)
        return Embeddings(vectors, sum(len(_words(chat)) + len(_pictures(chat)) for chat in chats))

    def _vector(self, chat: Chat) -> npt.NDArray[np.float64]:
        features = [(word, 1.0) for word in _words(chat)]
        features += [share for picture in _pictures(chat) for share in _colour_shares(picture)]
        # The bias keeps a chat without a single word off the origin, which lacks a direction.
        total = 0.1 * _direction("", self.dimension)
        for feature, weight in features:
            total = total + weight * _direction(feature, self.dimension)
        unit: npt.NDArray[np.float64] = total / np.linalg.norm(total)
        return unit


def _canonical_reply(chat: Chat) -> str:
    words = _words(chat)
    pictures = _pictures(chat)
    if not pictures:
        keywords = tuple(dict.fromkeys(word for word in words if len(word) > 2)) or ("nothing",)
        return render(TCot("words", "sure", " ".join(words) or "nothing", keywords=keywords))
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures)).digest()
    colours = dict.fromkeys(_colour_shares(picture)[0][0] for picture in pictures)
    seen, answer = f"picture {digest.hex()[:8]}", " ".join([*words, *colours])
    if videos := videos_of(chat):
        return render(TCot(seen, "sure", answer, key_frames=(1 + digest[0] % len(videos[0].images),)))
    left, top = 2 * digest[0], 2 * digest[1]
    box = Box(left, top, left + 400, top + 400, image=digest[2] % len(pictures))
    return render(TCot(seen, "sure", answer, boxes=(box,)))


def _words(chat: Chat) -> list[str]:
    text = " ".join(part.text for message in chat for part in message.parts if isinstance(part, TextPart))
    return re.findall(r"\w+", re.sub(r"</?\w+>", " ", text.lower()))


def _pictures(chat: Chat) -> list[PIL.Image.Image]:
    return images_of(chat) + [image for frames in videos_of(chat) for image in frames.images]


def _colour_shares(picture: PIL.Image.Image) -> list[tuple[str, float]]:
    """Colours of a picture and the share of its area, 0..1, that each takes, largest first."""
    small = picture.convert("RGB").resize((16, 16), PIL.Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64).reshape(-1, 1, 3)
    nearest = np.argmin(((pixels - np.array(list(COLOURS.values()))) ** 2).sum(axis=-1), axis=1)
    names = list(COLOURS)
    return [(names[index], count / len(pixels)) for index, count in Counter(nearest.tolist()).most_common()]


@lru_cache(maxsize=4096)
def _direction(word: str, dimension: int) -> npt.NDArray[np.float64]:
    seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(dimension)
