"""Held-out retrieval on Shapes without files, for comparing Reasoners and ways of using their T-CoTs.

Every pair of a family of look-alikes is asked for, so that a few thousand queries cost a few thousand items. The T-CoTs
of an item are written once and embedded in every way that is compared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.base import Embedder, Reasoner, Sampling
from ume_retrieval.engines.families import embedding_chat, evidence_of, parse_about
from ume_retrieval.engines.resize import fit_chat
from ume_retrieval.inputs import LoadedItem, Side
from ume_retrieval.tcot.evidence import Evidence
from ume_retrieval.tcot.grammar import is_usable
from ume_retrieval.tcot.prompts import reasoner_chat
from ume_retrieval.tcot.trace import TCot
from ume_training.egrl.rewards import format_reward
from ume_training.shapes import evaluate
from ume_training.shapes.benchmark import GROUP_SIZE
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.samples import Pair, Sample
from ume_training.shapes.tasks import TASKS, Task, family

FAMILIES = 25
"""Families of a task in one world: 100 queries, and up to 100 candidates."""


@dataclass(frozen=True, slots=True)
class HeldOutTask:
    """A task of one world.

    Attributes:
        name: Of the task.
        queries: What is asked, with what the answer should look like.
        candidates: What may be found, different from each other.
        relevant: For each query the positions of the candidates that answer it.
        targets: Modality of what each query looks for.
    """

    name: str
    queries: tuple[LoadedItem, ...]
    candidates: tuple[LoadedItem, ...]
    relevant: tuple[frozenset[int], ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """An item with the Reasoner's T-CoT.

    Attributes:
        item: The item.
        tcot: Parsed, None when there was nothing usable.
        in_form: Whether it follows the form.
        tokens: Tokens generated.
    """

    item: LoadedItem
    tcot: TCot | None
    in_form: bool
    tokens: int


Use = Callable[[Sequence[Written], EmbedderSpec], list[tuple[TCot | None, Evidence | None]]]
"""Select the parts of one side's T-CoTs that the Embedder reads."""


def held_out_world(seed: int, level: str, families: int = FAMILIES) -> list[HeldOutTask]:
    """Draw every task of one world; seeds are apart from those of training and of `ume eval shapes`."""
    return [_draw(task, random.Random(f"held-out/{seed}/{task.name}"), level, families) for task in TASKS.values()]


def _draw(task: Task, rng: random.Random, level: str, families: int) -> HeldOutTask:
    pairs: list[Pair] = [pair for _ in range(families) for pair in family(task, rng, LEVELS[level], GROUP_SIZE)]
    pool: dict[str, Sample] = {}
    for pair in pairs:
        positive = pair.positive
        pool.setdefault(positive.text if positive.shown is None and positive.text else repr(positive.shown), positive)
    samples = list(pool.values())
    rng.shuffle(samples)
    return HeldOutTask(
        task.name,
        tuple(pair.query.item(rng) for pair in pairs),
        tuple(sample.item(rng) for sample in samples),
        tuple(frozenset(i for i, sample in enumerate(samples) if pair.answered_by(sample)) for pair in pairs),
        tuple(pair.positive.modality for pair in pairs),
    )


def write_about(
    reasoner: Reasoner, items: Sequence[LoadedItem], side: Side, targets: Sequence[str | None]
) -> list[Written]:
    """Return greedy T-CoTs of items, as inference asks for them."""
    spec = reasoner.spec
    chats: list[Chat] = [
        fit_chat(reasoner_chat(item, side, spec.prompts, target), spec.budget)  # type: ignore[arg-type]
        for item, target in zip(items, targets, strict=True)
    ]
    replies = reasoner.generate(chats, Sampling(max_tokens=spec.max_tokens))
    written = []
    for item, reply in zip(items, replies, strict=True):
        frames = sum(len(video.images) for video in item.videos) or None
        tcot = parse_about(item, reply.text)
        form = format_reward(reply.text, item.modality, images=len(item.images), frames=frames)
        written.append(Written(item, tcot if is_usable(tcot) else None, bool(form), reply.completion_tokens))
    return written


def whole(written: Sequence[Written], spec: EmbedderSpec) -> list[tuple[TCot | None, Evidence | None]]:
    """Return the T-CoT with its crops and key frames."""
    return [(one.tcot, evidence_of(spec, one.item, one.tcot) if one.tcot else None) for one in written]


def without_pictures(written: Sequence[Written], spec: EmbedderSpec) -> list[tuple[TCot | None, Evidence | None]]:
    """Return the T-CoT's text without crops and key frames."""
    return [(tcot, None) for tcot, _ in whole(written, spec)]


def answer_only(written: Sequence[Written], spec: EmbedderSpec) -> list[tuple[TCot | None, Evidence | None]]:
    """Return the answer alone."""
    return [(TCot(answer=tcot.answer) if tcot else None, None) for tcot, _ in whole(written, spec)]


def raw(written: Sequence[Written], _spec: EmbedderSpec) -> list[tuple[TCot | None, Evidence | None]]:
    """Neither text nor pictures of the T-CoT: the direct embedding."""
    return [(None, None) for _ in written]


USES: dict[str, Use] = {
    "whole": whole,
    "without_pictures": without_pictures,
    "answer_only": answer_only,
    "raw": raw,
}
"""Ways of using a T-CoT, by name."""


def hit_at_1(
    embedder: Embedder, task: HeldOutTask, queries: Sequence[Written], corpus: Sequence[Written], use: Use
) -> float:
    """Return the share of a task's queries whose nearest candidate answers them."""
    similarity = _embed(embedder, queries, use, "query") @ _embed(embedder, corpus, use, "corpus").T
    return evaluate.hit_at_1(similarity, task.relevant)


def _embed(embedder: Embedder, written: Sequence[Written], use: Use, side: Side) -> npt.NDArray[np.float32]:
    shown = use(written, embedder.spec)
    chats = [
        embedding_chat(embedder.spec, one.item, tcot, evidence, side)
        for one, (tcot, evidence) in zip(written, shown, strict=True)
    ]
    return embedder.embed(chats).vectors
