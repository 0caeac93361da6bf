"""The process reward: can someone who sees only T-CoTs tell which target a query's T-CoT belongs to?

A frozen discriminator sees one rollout and a shuffled list: rollouts of the other side of its pair, and rollouts of
other pairs that are hard to tell from them. It names the best match (arXiv 2602.13823, section 3.3).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Message, TextPart
from ume_retrieval.engines.base import Reasoner, Sampling
from ume_retrieval.inputs import Side
from ume_retrieval.tcot import choice
from ume_retrieval.tcot.choice import CHOICE_TOKENS, read_choice
from ume_retrieval.tcot.grammar import parse, render
from ume_training.data.judge import COUNTS_WORDS, load_reasoner
from ume_training.egrl.settings import EgrlSettings


@dataclass(frozen=True, slots=True)
class Question:
    """One choice.

    Attributes:
        tcot: The T-CoT to find a match for.
        candidates: T-CoTs of the other side, shuffled.
        right: Positions of the candidates that belong to the same pair.
    """

    tcot: str
    candidates: tuple[str, ...]
    right: frozenset[int]


class Discriminator(Protocol):
    """Names the best match."""

    def choose(self, questions: Sequence[Question]) -> list[int | None]:
        """Position of the best candidate of each question, or None where no answer could be had."""
        ...


@dataclass(frozen=True, slots=True)
class WordsDiscriminator:
    """Chooses the candidate whose answer has most words in common with the question's.

    For Shapes, whose answers are complete and whose bundled Reasoner cannot judge; unfit for real text. The
    measure is F1 over words counted with repetition; of equals the first in shuffled order is chosen.

    Example:
        >>> first, second = "<answer>red circle</answer>", "<answer>blue circle</answer>"
        >>> WordsDiscriminator().choose([Question(second, (first, second), frozenset({1}))])
        [1]
    """

    def choose(self, questions: Sequence[Question]) -> list[int | None]:
        """Position of the best candidate of each question."""
        return [self._best(question) for question in questions]

    def _best(self, question: Question) -> int:
        wanted = _words(question.tcot)
        scores = [_overlap(wanted, _words(candidate)) for candidate in question.candidates]
        return scores.index(max(scores))


def _words(tcot: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", parse(tcot).answer.lower()))


def _overlap(a: Counter[str], b: Counter[str]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 0.0


@dataclass(frozen=True, slots=True)
class ReasonerDiscriminator:
    """Asks any Reasoner engine, in one batch.

    Attributes:
        reasoner: The engine.
    """

    reasoner: Reasoner

    def choose(self, questions: Sequence[Question]) -> list[int | None]:
        """Position of the best candidate of each question, None where the reply names none."""
        chats = [(Message("user", (TextPart(choice_prompt(question)),)),) for question in questions]
        replies = self.reasoner.generate(chats, Sampling(max_tokens=CHOICE_TOKENS))
        return [
            read_choice(reply.text, len(question.candidates))
            for reply, question in zip(replies, questions, strict=True)
        ]


def load_discriminator(settings: EgrlSettings) -> Discriminator:
    """Load the discriminator that the settings name, on any engine; without a process reward, words are counted.

    Raises:
        ModelError: When it cannot be loaded.
        InputError: If its server's address is missing.
    """
    if settings.discriminator == COUNTS_WORDS or not settings.weights.process:
        return WordsDiscriminator()
    return ReasonerDiscriminator(load_reasoner(settings.discriminator, engine=settings.discriminator_engine))


def choice_prompt(question: Question) -> str:
    """Return the question as a model is asked it."""
    return choice.choice_prompt(question.tcot, question.candidates)


def build_question(
    row: int,
    *,
    texts: Sequence[str | None],
    sides: Sequence[Side],
    pairs: Sequence[int],
    similarity: npt.NDArray[np.float64],
    exempt: npt.NDArray[np.bool_],
    hard_negatives: int,
    seed: str,
) -> Question | None:
    """Return the question about one rollout, independent of the position of its row.

    Args:
        row: Which rollout is asked about.
        texts: Replies, one a row, None for those without anything to read.
        sides: "query" or "corpus", one a row.
        pairs: Number of the pair, one a row.
        similarity: Of all rows' vectors, shape (n, n).
        exempt: Rows that are not negatives of each other, shape (n, n).
        hard_negatives: Most rollouts of other pairs, the most similar first.
        seed: Of the shuffle, together with the texts.

    Returns:
        The question, or None when there is nothing to choose between.
    """
    own = texts[row]
    if own is None:
        return None
    across = [i for i, side in enumerate(sides) if side != sides[row] and texts[i] is not None]
    right = {str(texts[i]) for i in across if pairs[i] == pairs[row]}
    others: dict[str, float] = {}
    for i in across:
        text = str(texts[i])
        if pairs[i] != pairs[row] and not exempt[row, i] and text not in right:
            others[text] = max(others.get(text, -2.0), float(similarity[row, i]))
    wrong = sorted(others, key=lambda text: (-round(others[text], 6), text))[:hard_negatives]
    if not right or not wrong:
        return None
    candidates = sorted({*right, *wrong})
    digest = hashlib.sha256("\0".join((seed, own, *candidates)).encode("utf-8", "replace")).digest()
    random.Random(digest).shuffle(candidates)
    return Question(
        own, tuple(candidates), frozenset(i for i, candidate in enumerate(candidates) if candidate in right)
    )


def process_rewards(questions: Sequence[Question | None], discriminator: Discriminator) -> list[float]:
    """1.0 where the discriminator names a candidate of the same pair, else 0.0; equal questions are asked once."""
    different = list(dict.fromkeys(question for question in questions if question is not None))
    chosen = dict(zip(different, discriminator.choose(different) if different else [], strict=True))
    return [float(question is not None and chosen[question] in question.right) for question in questions]


def canonical(text: str, *, images: int, frames: int | None) -> str | None:
    """Return a reply in canonical form, as the Embedder and the discriminator read it; None if unusable."""
    tcot = parse(text, images=images, frames=frames)
    return render(tcot) if tcot.answer or tcot.thinking else None
