"""Which annotated pairs to learn from: a judge asks whether the two T-CoTs contradict each other.

The question is that of arXiv 2602.13823, section 4: are the T-CoTs of query and target clearly irrelevant to each other
or contradictory? "No" keeps the pair. Rejected pairs are the hard ones, which EG-RL learns from; `filtering` sorts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.base import Reasoner, Sampling, answer_each
from ume_retrieval.errors import InputError, UmeError
from ume_retrieval.tcot.grammar import render
from ume_retrieval.tcot.trace import TCot

COUNTS_WORDS = "words"
"""Name of the judge that counts words in common; a share may follow after a colon."""

Verdict: TypeAlias = Literal["keep", "reject", "undecided"]

QUESTION = """\
Two descriptions follow: what a search query looks for, and what was found.

Query: {query}

Found: {found}

Are the two clearly irrelevant to each other, or do they contradict each other? Answer with one word, Yes or No."""

_ANSWER = re.compile(r"[\s*_\"'`(]*(yes|no)[\s*_\"'`).!]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A judge's verdict on one pair.

    Attributes:
        verdict: Keep it, reject it, or neither.
        reply: What the judge said, for reading.
        tokens: Tokens that the judge read and wrote.
    """

    verdict: Verdict
    reply: str = ""
    tokens: int = 0


class Judge(Protocol):
    """Decides whether the T-CoTs of query and positive fit each other."""

    @property
    def name(self) -> str:
        """Name in reports; changes with anything that changes its verdicts."""
        ...

    def judge(self, pairs: Sequence[tuple[TCot, TCot]]) -> list[Judgement]:
        """Judge pairs of (query's T-CoT, positive's T-CoT); the judgement of `pairs[i]` is at position i."""
        ...


class ReasonerJudge:
    """Asks any Reasoner the paper's question, in words alone.

    Args:
        reasoner: An instruct model. One that was trained on T-CoTs alone answers with a T-CoT, which is undecided.
        max_tokens: Most tokens of the answer.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner
        >>> judge = ReasonerJudge(FakeReasoner(lambda chat: "No."))
        >>> judge.judge([(TCot(answer="a cat"), TCot(answer="a cat asleep"))])[0].verdict
        'keep'
    """

    def __init__(self, reasoner: Reasoner, max_tokens: int = 8) -> None:
        self.reasoner = reasoner
        self.sampling = Sampling(max_tokens=max_tokens)

    @property
    def name(self) -> str:
        """The Reasoner's name and revision."""
        return f"{self.reasoner.info.name}@{self.reasoner.info.revision}"

    def judge(self, pairs: Sequence[tuple[TCot, TCot]]) -> list[Judgement]:
        """Ask for each pair.

        Raises:
            UmeError: When the Reasoner cannot answer a pair even alone.
        """
        judgements: list[Judgement] = []
        for reply in answer_each(self.reasoner, [judge_chat(query, found) for query, found in pairs], self.sampling):
            if isinstance(reply, UmeError):
                raise reply
            tokens = reply.prompt_tokens + reply.completion_tokens
            judgements.append(Judgement(read_answer(reply.text), reply.text, tokens))
        return judgements


class WordsJudge:
    """Keeps pairs whose answers have words in common.

    For Shapes, where the answers of both sides are complete descriptions in one small vocabulary and the bundled
    Reasoner, trained on T-CoTs alone, cannot answer a question. Unfit for real text.

    Args:
        least: Least share of the shorter answer's words that the longer one must have, 0..1.

    Example:
        >>> judge = WordsJudge(least=0.5)
        >>> judge.judge([(TCot(answer="red circle top left"), TCot(answer="red circle"))])[0].verdict
        'keep'
    """

    def __init__(self, least: float = 0.5) -> None:
        if not 0 <= least <= 1:
            raise InputError(f"a share of {least} common words is out of range", hint="use 0 to 1")
        self.least = least

    @property
    def name(self) -> str:
        """Its rule and number."""
        return f"words:{self.least:g}"

    def judge(self, pairs: Sequence[tuple[TCot, TCot]]) -> list[Judgement]:
        """Compare the answers' words; an answer without any decides nothing."""
        return [self._judge(query, found) for query, found in pairs]

    def _judge(self, query: TCot, found: TCot) -> Judgement:
        one, other = (set(re.findall(r"\w+", tcot.answer.lower())) for tcot in (query, found))
        if not one or not other:
            return Judgement("undecided", "an answer lacks words")
        share = len(one & other) / min(len(one), len(other))
        return Judgement("keep" if share >= self.least else "reject", f"{share:.2f} of the words in common")


def judge_chat(query: TCot, found: TCot) -> Chat:
    """Return the judge's question about one pair. T-CoTs are rendered, so control tokens in them cannot act."""
    words = QUESTION.format(query=render(query), found=render(found))
    return (Message("user", (TextPart(words),)),)


def read_answer(text: str) -> Verdict:
    """Read a reply strictly: one word, yes or no, and nothing else but quotes, stars and a full stop.

    Example:
        >>> [read_answer(reply) for reply in ("No.", " **yes** ", "No, but", "")]
        ['keep', 'reject', 'undecided', 'undecided']
    """
    answer = _ANSWER.fullmatch(text)
    if answer is None:
        return "undecided"
    return "keep" if answer[1].lower() == "no" else "reject"


def load_judge(name: str, device: str = "auto") -> Judge:
    """Load the judge that a recipe or command names.

    Args:
        name: A Reasoner by preset, hub id or folder; or "words", "words:SHARE" for words in common.
        device: Of the Reasoner: "auto", "cpu" or "cuda".

    Raises:
        InputError: If the share is not a number of 0 to 1.
        ModelError: If the Reasoner cannot be loaded.
    """
    share = words_share(name)
    return ReasonerJudge(load_reasoner(name, device)) if share is None else WordsJudge(share)


def words_share(name: str) -> float | None:
    """Read the share of a judge called "words" or "words:SHARE"; None for any other name.

    Raises:
        InputError: If the share is not a number.
    """
    kind, _, share = name.partition(":")
    try:
        return float(share or 0.5) if kind == COUNTS_WORDS else None
    except ValueError:
        raise InputError(f"{name} is not a judge", hint="write words:0.5") from None


def load_reasoner(name: str, device: str = "auto", engine: str = "auto") -> Reasoner:
    """Load a Reasoner by preset, hub id or folder.

    Args:
        name: The model.
        device: "auto", "cpu" or "cuda".
        engine: Name of the engine; "auto" chooses.

    Raises:
        ModelError: If it cannot be loaded.
        InputError: If a server's address is missing.
    """
    from ume_retrieval.engines.load import LoadOptions, choose_engine
    from ume_retrieval.engines.registry import resolve_reasoner

    return choose_engine(engine).load_reasoner(resolve_reasoner(name), LoadOptions(device=device))
