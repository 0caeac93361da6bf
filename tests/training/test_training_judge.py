from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import InputError, ModelError, Sampling, TCot
from ume_retrieval.chat import Chat, TextPart
from ume_retrieval.engines.base import Generation
from ume_retrieval.errors import TrainingError
from ume_retrieval.testing import FakeReasoner
from ume_training.data.files import PairReader
from ume_training.data.filter import REASONS, filter_pairs
from ume_training.data.judge import Judgement, ReasonerJudge, WordsJudge, judge_chat, read_answer


def tcot(answer: str) -> str:
    return f'<thinking>x {{"text_keywords": ["a"]}}</thinking><rethink>y</rethink><answer>{answer}</answer>'


def row(name: int, query: str | None, positive: str | None, dataset: str = "d") -> dict[str, object]:
    traces = {"query_tcot": query, "positive_tcot": positive}
    return {"id": str(name), "dataset": dataset, "query": {"text": "q"}, "positive": {"text": "p"}} | traces


ROWS = [
    row(0, tcot("red circle"), tcot("a red circle")),
    row(1, tcot("red circle"), tcot("blue square")),
    row(2, tcot("red circle"), None),
    row(3, tcot("..."), tcot("blue square")),
    row(4, "just words", tcot("blue square"), "e"),
    row(5, tcot("blue square"), tcot("blue square"), "e"),
]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "annotated.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in ROWS))
    return path


def ids(path: Path) -> list[str]:
    return [located.record.id for located in PairReader(path, rule="usable")]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        *((text, "keep") for text in ("No", "no.", " **No** ", '"NO"', "no!\n")),
        *((text, "reject") for text in ("Yes", "yes.", "(yes)")),
        *((text, "undecided") for text in ("", "No, but", "Yes and no", "not", "None", "I think no", "No Yes", "N0")),
        (tcot("no"), "undecided"),
    ],
)
def test_a_reply_is_read_strictly(reply: str, verdict: str) -> None:
    assert read_answer(reply) == verdict


@given(st.text(max_size=20))
def test_only_a_bare_word_decides(reply: str) -> None:
    letters = "".join(letter for letter in reply.lower() if letter.isalnum())
    assert read_answer(reply) == "undecided" or letters in {"yes", "no"}


def test_the_question_shows_both_traces_and_lets_nothing_in_them_act() -> None:
    query = TCot(answer="{found} <|im_end|>", thinking="look")
    [message] = judge_chat(query, TCot(answer="{query}"))
    [part] = message.parts
    assert isinstance(part, TextPart)
    assert "<|im_end|>" not in part.text
    assert part.text.index("{found}") < part.text.index("{query}")
    assert "clearly irrelevant" in part.text
    assert "contradict" in part.text


def test_a_reasoner_judges_and_its_tokens_are_counted() -> None:
    def same(chat: Chat) -> str:
        [part] = chat[0].parts
        assert isinstance(part, TextPart)
        return "Yes." if "blue" in part.text and "red" in part.text else "No."

    judge = ReasonerJudge(FakeReasoner(same))
    verdicts = judge.judge([(TCot(answer="red"), TCot(answer="blue")), (TCot(answer="red"), TCot(answer="red"))])
    assert [one.verdict for one in verdicts] == ["reject", "keep"]
    assert all(one.tokens > 5 for one in verdicts)
    assert judge.name == "fake-reasoner@1"


def test_a_judge_that_cannot_answer_stops_the_filter(pairs: Path, tmp_path: Path) -> None:
    class Broken(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            raise ModelError("no memory left")

    with pytest.raises(ModelError, match="no memory"):
        filter_pairs(pairs, tmp_path / "k.jsonl", tmp_path / "r.jsonl", ReasonerJudge(Broken()))
    mended = ReasonerJudge(FakeReasoner(lambda _: "No"))
    report = filter_pairs(pairs, tmp_path / "k.jsonl", tmp_path / "r.jsonl", mended, resume=True)
    assert report.kept == 4


def test_words_in_common() -> None:
    judge = WordsJudge(0.5)

    def verdict(one: str, other: str) -> str:
        return judge.judge([(TCot(answer=one), TCot(answer=other))])[0].verdict

    assert verdict("red circle top left, blue ring", "red circle") == "keep"
    assert verdict("Red, circle.", "red circle") == "keep"
    assert verdict("red circle", "blue square") == "reject"
    assert verdict("red circle", "red square") == "keep"
    assert verdict("red circle left", "red square right") == "reject"
    assert verdict("", "red") == "undecided"
    with pytest.raises(InputError):
        WordsJudge(1.1)


@given(st.text(max_size=30), st.text(max_size=30))
def test_words_judge_is_symmetric_and_keeps_what_is_equal(one: str, other: str) -> None:
    judge = WordsJudge(0.4)
    there, back = (judge.judge([(TCot(answer=a), TCot(answer=b))])[0] for a, b in ((one, other), (other, one)))
    assert there == back
    assert judge.judge([(TCot(answer=one), TCot(answer=one))])[0].verdict in {"keep", "undecided"}


def test_every_pair_goes_to_one_file_and_the_report_says_why(pairs: Path, tmp_path: Path) -> None:
    kept, rejected = tmp_path / "kept.jsonl", tmp_path / "deep" / "rejected.jsonl"
    report = filter_pairs(pairs, kept, rejected, WordsJudge())
    assert ids(kept) == ["0", "5"]
    assert ids(rejected) == ["1", "2", "3", "4"]
    assert report.reasons == {"agrees": 2, "contradicts": 1, "no_tcot": 1, "undecided": 1, "malformed": 1}
    assert set(report.reasons) == set(REASONS)
    data = report.to_dict()
    assert (data["kept"], data["rejected"], data["kept_share"]) == (2, 4, 0.3333)
    assert data["datasets"]["e"] == {"malformed": 1, "rejected": 1, "agrees": 1, "kept": 1}
    assert list(PairReader(kept)), "what is kept is strictly valid"
    entries = [json.loads(line) for line in (tmp_path / "kept.jsonl.verdicts.jsonl").read_text().splitlines()]
    assert [entry["id"] for entry in entries] == [str(number) for number in range(6)]
    assert entries[1]["reply"] == "0.00 of the words in common"
    lenient = filter_pairs(pairs, tmp_path / "k.jsonl", tmp_path / "r.jsonl", WordsJudge(), undecided="keep")
    assert (lenient.kept, ids(tmp_path / "k.jsonl")) == (3, ["0", "3", "5"])


class Killed(BaseException):
    pass


class Dying:
    """Judges some pairs, then the process is gone; notes whom it judged."""

    name = "dying"

    def __init__(self, lives: int, judged: list[str]) -> None:
        self.lives = lives
        self.judged = judged

    def judge(self, pairs: Sequence[tuple[TCot, TCot]]) -> list[Judgement]:
        if not self.lives:
            raise Killed
        self.lives -= 1
        self.judged += [query.answer for query, _ in pairs]
        return [Judgement("keep" if int(query.answer) % 3 else "reject", query.answer) for query, _ in pairs]


@settings(max_examples=15)
@given(st.lists(st.integers(0, 2), max_size=3), st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2000))
def test_however_often_it_is_killed_every_pair_is_sorted_once(
    tmp_path_factory: pytest.TempPathFactory, lives: list[int], tear_kept: int, tear_rejected: int, tear_book: int
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    rows = (row(number, tcot(str(number)), tcot("x")) for number in range(100))
    (folder / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    kept, rejected, book = (folder / name for name in ("k.jsonl", "r.jsonl", "k.jsonl.verdicts.jsonl"))
    judged: list[str] = []
    for number, calls in enumerate([*lives, 99]):
        try:
            report = filter_pairs(folder / "pairs.jsonl", kept, rejected, Dying(calls, judged), resume=number > 0)
        except Killed:
            if number == 0 and calls:
                # A kill between two writes: the pairs are behind the book, each file as far as it came.
                for path, tear in ((kept, tear_kept), (rejected, tear_rejected)):
                    path.write_bytes(path.read_bytes()[: len(path.read_bytes()) - tear])
                book.write_bytes(book.read_bytes() + b'{"dataset": "d", "id": "9' + b"9" * (tear_book % 7))
    assert sorted(map(int, ids(kept))) == [number for number in range(100) if number % 3]
    assert sorted(map(int, ids(rejected))) == [number for number in range(100) if not number % 3]
    assert (report.kept, report.rejected, report.reasons) == (66, 34, {"agrees": 66, "contradicts": 34})
    entries = [json.loads(line) for line in book.read_text().splitlines()]
    assert sorted(int(entry["id"]) for entry in entries) == list(range(100))
    assert lives or len(judged) == 100


def test_files_belong_to_their_judge(pairs: Path, tmp_path: Path) -> None:
    kept, rejected = tmp_path / "k.jsonl", tmp_path / "r.jsonl"
    filter_pairs(pairs, kept, rejected, WordsJudge())
    with pytest.raises(TrainingError, match="exists"):
        filter_pairs(pairs, kept, rejected, WordsJudge())
    with pytest.raises(TrainingError, match=r"other settings \(judge\)"):
        filter_pairs(pairs, kept, rejected, WordsJudge(0.9), resume=True)
    again = filter_pairs(pairs, kept, rejected, WordsJudge(), resume=True)
    assert (again.judged, again.kept, again.rejected) == (0, 2, 4)
    for wrong in ((pairs, rejected), (kept, kept)):
        with pytest.raises(InputError, match="three different files"):
            filter_pairs(pairs, *wrong, WordsJudge(), resume=True)


def test_broken_lines_are_named_and_the_others_sorted(pairs: Path, tmp_path: Path) -> None:
    with pairs.open("a") as file:
        file.write('{"id": "x"}\n')
    with pytest.raises(TrainingError, match="line 7"):
        filter_pairs(pairs, tmp_path / "k.jsonl", tmp_path / "r.jsonl", WordsJudge())
    report = filter_pairs(pairs, tmp_path / "k2.jsonl", tmp_path / "r2.jsonl", WordsJudge(), on_error="skip")
    assert (report.kept, report.rejected, len(report.failures)) == (2, 4, 1)
