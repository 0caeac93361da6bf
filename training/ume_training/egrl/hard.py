"""Which pairs to learn from: those that the Reasoner does not get right yet.

The paper feeds RL with pairs that its judge rejected: 19,000 of 2.2 million (arXiv 2602.13823, section 4). A step on
pairs that all rollouts get right teaches nothing, because the advantages within a group are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from ume_retrieval.engines.base import Reasoner, Sampling
from ume_training.data.sources import ChosenPairs, PairSource
from ume_training.egrl.process import Discriminator, Question, canonical, process_rewards
from ume_training.egrl.rollouts import Prompts
from ume_training.egrl.sampler import PairRows


def hard_pairs(source: PairSource, reasoner: Reasoner, discriminator: Discriminator) -> ChosenPairs:
    """Whole groups of look-alikes in which greedy T-CoTs do not tell the discriminator what belongs together.

    A group is hard when for one of its queries the discriminator prefers the T-CoT of another pair's target.

    Args:
        source: A data set whose groups hold look-alikes; a pair alone in its group is never hard.
        reasoner: Writes the T-CoTs.
        discriminator: Chooses between the targets of a group.
    """
    rows = PairRows((source,))
    prompts = Prompts(rows, reasoner.spec)
    asked = [prompts[row] for row in range(len(rows))]
    replies = reasoner.generate([one.chat for one in asked], Sampling(max_tokens=reasoner.spec.max_tokens))
    texts = [
        canonical(reply.text, images=one.images, frames=one.frames) for reply, one in zip(replies, asked, strict=True)
    ]
    groups: dict[str, list[int]] = {}
    for index in range(len(source)):
        groups.setdefault(source.group(index), []).append(index)
    questions = [_question(source, pair, group, texts) for group in groups.values() for pair in group]
    rewards = process_rewards(questions, discriminator)
    order = [pair for group in groups.values() for pair in group]
    missed = {source.group(pair) for pair, reward in zip(order, rewards, strict=True) if not reward}
    return ChosenPairs(
        source, tuple(pair for pair in order if source.group(pair) in missed and len(groups[source.group(pair)]) > 1)
    )


def _question(source: PairSource, pair: int, group: Sequence[int], texts: Sequence[str | None]) -> Question | None:
    """Ask which target of the group belongs to a query; None if the query lacks a usable T-CoT."""
    own = texts[2 * pair]
    candidates = [other for other in group if texts[2 * other + 1] is not None]
    if own is None or not candidates:
        return None
    right = {i for i, other in enumerate(candidates) if other == pair or source.also_answers(pair, other)}
    written = tuple(str(texts[2 * other + 1]) for other in candidates)
    # Two targets with equal T-CoTs cannot be distinguished: that is hard, whichever is named.
    wrong = {text for i, text in enumerate(written) if i not in right}
    return Question(own, written, frozenset(i for i in right if written[i] not in wrong))
