"""Rollouts as values: the prompt, the reply, and the Embedder's input made from it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import ReasonerSpec
from ume_retrieval.engines.base import Embedder
from ume_retrieval.engines.families import reasoned_chat
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.errors import ReasoningError
from ume_retrieval.inputs import LoadedItem, Modality, Side
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_training.egrl.sampler import PairRows

KEPT_ITEMS = 1024
"""Items whose pixels are kept: a step reads each of its rows several times."""


@dataclass(frozen=True, slots=True)
class Prompted:
    """One side of a pair, with the Reasoner's prompt.

    Attributes:
        item: Text and pixels.
        side: Which side it is.
        pair: Number of the pair.
        dataset: Name of its data set.
        chat: The question, pictures fitted to the Reasoner's budget.
        images: How many images the item has.
        frames: How many frames it has, None without video.
    """

    item: LoadedItem
    side: Side
    pair: int
    dataset: str
    chat: Chat
    images: int
    frames: int | None

    @property
    def modality(self) -> Modality:
        """Decides the cue that a T-CoT needs."""
        return self.item.modality


class Prompts:
    """Rows of training data as prompts, the newest kept in memory.

    Args:
        rows: The data.
        spec: The Reasoner's prompts and visual budget.
    """

    def __init__(self, rows: PairRows, spec: ReasonerSpec) -> None:
        self.rows = rows
        self.spec = spec
        self._kept: OrderedDict[int, Prompted] = OrderedDict()

    def __getitem__(self, row: int) -> Prompted:
        """Return the prompt of a row, as inference would ask it."""
        if row not in self._kept:
            self._load(row)
        self._kept.move_to_end(row)
        return self._kept[row]

    def _load(self, row: int) -> None:
        source, position = self.rows.locate(row)
        pair = source[position]
        sides: tuple[tuple[int, LoadedItem, Side], ...] = ((0, pair.query, "query"), (1, pair.positive, "corpus"))
        for offset, item, side in sides:
            target = pair.positive.modality if side == "query" else None
            chat = fit_chat(reasoner_chat(item, side, self.spec.prompts, target), self.spec.budget)
            frames = sum(len(video.images) for video in item.videos)
            self._kept[row - row % 2 + offset] = Prompted(
                item, side, row // 2, source.name, chat, len(item.images), frames or None
            )
        while len(self._kept) > KEPT_ITEMS:
            self._kept.popitem(last=False)


def embed_rollouts(embedder: Embedder, prompted: Sequence[Prompted], texts: Sequence[str]) -> npt.NDArray[np.float64]:
    """Embed items with the T-CoTs written about them, crops and key frames included, exactly as inference does.

    Args:
        embedder: The frozen Embedder.
        prompted: One item a rollout.
        texts: One reply a rollout.

    Returns:
        Unit vectors, shape (n, dim); a row of NaN where a reply has nothing to embed. Equal rollouts are embedded once.
    """
    vectors = np.full((len(texts), embedder.dimension), np.nan)
    rows: dict[tuple[int, Side, str], list[int]] = {}
    for index, (one, text) in enumerate(zip(prompted, texts, strict=True)):
        rows.setdefault((one.pair, one.side, text), []).append(index)
    chats: list[Chat] = []
    places: list[list[int]] = []
    for same in rows.values():
        one, text = prompted[same[0]], texts[same[0]]
        with suppress(ReasoningError):
            chats.append(reasoned_chat(embedder.spec, one.item, text, one.side).chat)
            places.append(same)
    if chats:
        for same, vector in zip(places, embedder.embed(chats).vectors, strict=True):
            vectors[same] = vector
    return vectors
