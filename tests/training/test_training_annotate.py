"""T-CoTs for pairs, by a fake Reasoner here; the command line's tests use the bundled one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import InputError, ModelError, Sampling, TraceCache
from ume_retrieval.chat import Chat, TextPart
from ume_retrieval.engines.base import Generation
from ume_retrieval.errors import TrainingError
from ume_retrieval.testing import FakeReasoner
from ume_training.data.annotate import AnnotateSettings, annotate
from ume_training.data.files import PairReader
from ume_training.data.records import PairRecord
from ume_training.data.validation import PairError


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve pairs of a picture and its colour, each with a label."""
    for number, colour in enumerate(("red", "green", "blue")):
        PIL.Image.new("RGB", (32, 32), colour).save(tmp_path / f"{number}.png")
    path = tmp_path / "pairs.jsonl"
    rows = (
        {
            "id": str(number),
            "dataset": "d",
            "query": {"text": f"which colour is number {number}", "images": [f"{number % 3}.png"]},
            "positive": {"text": ("red", "green", "blue")[number % 3]},
            "target": f"label {number}",
        }
        for number in range(12)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[PairRecord]:
    return [located.record for located in PairReader(path, rule="usable")]


def words_of(chat: Chat) -> str:
    return " ".join(part.text for message in chat for part in message.parts if isinstance(part, TextPart))


def test_both_sides_of_every_pair_are_written_in_order(pairs: Path, tmp_path: Path) -> None:
    reasoner = FakeReasoner()
    out = tmp_path / "deep" / "out.jsonl"
    report = annotate(pairs, out, reasoner, AnnotateSettings(batch=5))
    records = read(out)
    assert [record.id for record in records] == [str(number) for number in range(12)]
    assert all(record.query_tcot and record.positive_tcot and not record.leaked for record in records)
    assert records[0].query_tcot != records[1].query_tcot
    assert records[1].query.images == ("../1.png",)
    assert list(PairReader(out)), "what a good Reasoner writes is strictly valid"
    assert (report.pairs, report.annotated, report.kept, report.failures) == (12, 12, 0, [])
    # Positives repeat: a batch of five asks for each of the three words once.
    assert reasoner.calls == report.reasoner_calls == 12 + 3 + 3 + 2
    assert report.prompt_tokens > 0 < report.completion_tokens


def test_a_side_that_has_a_trace_keeps_it(pairs: Path, tmp_path: Path) -> None:
    tcot = '<thinking>x {"text_keywords": ["a"]}</thinking><rethink>y</rethink><answer>mine</answer>'
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    rows[0] |= {"positive_tcot": tcot}
    rows[1] |= {"query_tcot": tcot.replace('{"text_keywords": ["a"]}', '{"bbox_2d": [[0, 0, 9, 9]]}'), "leaked": True}
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    annotate(pairs, tmp_path / "out.jsonl", FakeReasoner())
    records = read(tmp_path / "out.jsonl")
    assert records[0].positive_tcot == tcot
    assert records[0].query_tcot not in (None, tcot)
    assert records[1].leaked
    assert "mine" in (records[1].query_tcot or "")
    assert not records[0].leaked


class Killed(BaseException):
    """What a signal would do: no handler of ours catches it."""


class Dying(FakeReasoner):
    """Answers some calls, then the process is gone."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        if not self.left:
            raise Killed
        self.left -= 1
        return super().generate(chats, sampling)


@settings(max_examples=15)
@given(st.lists(st.integers(0, 3), max_size=4), st.integers(1, 7), st.integers(0, 300))
def test_however_often_it_is_killed_every_pair_is_there_once(
    tmp_path_factory: pytest.TempPathFactory, lives: list[int], batch: int, tear: int
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    rows = (
        {"id": str(i), "dataset": "d", "query": {"text": f"q{i}"}, "positive": {"text": f"p{i}"}} for i in range(12)
    )
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, chosen, asked = folder / "out.jsonl", AnnotateSettings(batch=batch), list[str]()
    for number, calls in enumerate([*lives, 99]):
        reasoner = Dying(calls)
        try:
            annotate(folder / "pairs.jsonl", out, reasoner, chosen, resume=number > 0)
        except Killed:
            if number == 0 and out.read_bytes():
                out.write_bytes(out.read_bytes()[: -1 - tear])  # the last write was torn
        asked += [words_of(chat) for chat in reasoner.chats]
    whole = folder / "whole.jsonl"
    annotate(folder / "pairs.jsonl", whole, FakeReasoner(), chosen)
    assert sorted(out.read_text().splitlines()) == sorted(whole.read_text().splitlines())
    if not lives:
        assert len(asked) == len(set(asked)) == 24


def test_a_finished_run_that_is_resumed_asks_nothing(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    annotate(pairs, out, FakeReasoner())
    reasoner = FakeReasoner()
    before = out.read_bytes()
    report = annotate(pairs, out, reasoner, resume=True)
    assert (reasoner.calls, report.kept, report.annotated) == (0, 12, 0)
    assert out.read_bytes() == before
    with pytest.raises(TrainingError, match="exists"):
        annotate(pairs, out, reasoner)
    for other in (AnnotateSettings(seed=1), AnnotateSettings(answer_hint_prob=0.5)):
        with pytest.raises(TrainingError, match="other settings"):
            annotate(pairs, out, reasoner, other, resume=True)
    with pytest.raises(TrainingError, match=r"other settings \(reasoner\)"):
        annotate(pairs, out, FakeReasoner(revision="2"), resume=True)


def test_a_cache_answers_for_the_reasoner_and_never_with_a_leaked_trace(pairs: Path, tmp_path: Path) -> None:
    cache = TraceCache(tmp_path / "traces.sqlite3")
    annotate(pairs, tmp_path / "leaked.jsonl", FakeReasoner(), AnnotateSettings(answer_hint_prob=1.0), cache=cache)
    reasoner = FakeReasoner()
    report = annotate(pairs, tmp_path / "honest.jsonl", reasoner, cache=cache)
    assert reasoner.calls == 12, "positives are known, queries are not"
    assert report.cached == 12
    assert not any("label" in (record.query_tcot or "") for record in read(tmp_path / "honest.jsonl"))
    again = FakeReasoner()
    annotate(pairs, tmp_path / "again.jsonl", again, cache=cache)
    assert again.calls == 0
    assert read(tmp_path / "again.jsonl") == read(tmp_path / "honest.jsonl")


def test_a_leak_is_asked_for_seeded_and_written_down(pairs: Path, tmp_path: Path) -> None:
    reasoner = FakeReasoner()
    report = annotate(pairs, tmp_path / "half.jsonl", reasoner, AnnotateSettings(answer_hint_prob=0.5, seed=3))
    leaked = {record.id for record in read(tmp_path / "half.jsonl") if record.leaked}
    assert 2 <= len(leaked) <= 10
    assert report.leaked == len(leaked)
    for chat in reasoner.chats:
        words = words_of(chat)
        number = words.partition("number ")[2].split()[0] if "number " in words else None
        assert ("The right answer is known" in words) == (number in leaked)
        assert (f"label {number}" in words) == (number in leaked)
    # The choice is the pair's own, whatever else is in the file.
    (tmp_path / "less.jsonl").write_text("".join(pairs.read_text().splitlines(keepends=True)[::-2]))
    annotate(
        tmp_path / "less.jsonl",
        tmp_path / "fewer.jsonl",
        FakeReasoner(),
        AnnotateSettings(answer_hint_prob=0.5, seed=3),
    )
    assert {r.id for r in read(tmp_path / "fewer.jsonl") if r.leaked} == leaked & {str(n) for n in range(1, 12, 2)}
    annotate(pairs, tmp_path / "other.jsonl", FakeReasoner(), AnnotateSettings(answer_hint_prob=0.5, seed=4))
    assert {r.id for r in read(tmp_path / "other.jsonl") if r.leaked} != leaked


def test_without_a_label_nothing_leaks(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"id": "1", "dataset": "d", "query": {"text": "q"}, "positive": {"text": "p"}}) + "\n")
    annotate(path, tmp_path / "out.jsonl", FakeReasoner(), AnnotateSettings(answer_hint_prob=1.0))
    assert [record.leaked for record in read(tmp_path / "out.jsonl")] == [False]


def test_a_malformed_trace_is_kept_as_written_and_counted(pairs: Path, tmp_path: Path) -> None:
    report = annotate(pairs, tmp_path / "out.jsonl", FakeReasoner(lambda chat: "just words"))
    assert {record.query_tcot for record in read(tmp_path / "out.jsonl")} == {"just words"}
    assert report.problems["missing_answer"] == 24
    assert report.problems["missing_boxes"] == 12
    with pytest.raises(PairError, match="malformed"):
        list(PairReader(tmp_path / "out.jsonl"))


def test_a_trace_without_words_is_a_failure_that_the_next_run_mends(pairs: Path, tmp_path: Path) -> None:
    def speechless(chat: Chat) -> str:
        return "<answer></answer>" if "number 7" in words_of(chat) else "<answer>words</answer>"

    out = tmp_path / "out.jsonl"
    with pytest.raises(PairError, match="line 8, query: the Reasoner wrote no usable T-CoT"):
        annotate(pairs, tmp_path / "strict.jsonl", FakeReasoner(speechless))
    report = annotate(pairs, out, FakeReasoner(speechless), on_error="skip")
    assert [record.id for record in read(out)] == [str(n) for n in range(12) if n != 7]
    assert [failure.source for failure in report.failures] == [f"{pairs}:8"]
    mended = annotate(pairs, out, FakeReasoner(), resume=True)
    assert (mended.annotated, mended.kept) == (1, 11)
    assert len(read(out)) == 12


def test_a_refused_chat_costs_its_pair_alone(pairs: Path, tmp_path: Path) -> None:
    class Refusing(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            if any("number 3" in words_of(chat) for chat in chats):
                raise ModelError("too long")
            return super().generate(chats, sampling)

    report = annotate(pairs, tmp_path / "out.jsonl", Refusing(), on_error="skip")
    assert report.annotated == 11
    assert "line 4, query: too long" in report.failures[0].message


def test_broken_lines_and_media_are_named_once(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing")
    with pairs.open("a") as file:
        file.write("{oops\n")
    report = annotate(pairs, tmp_path / "out.jsonl", FakeReasoner(), on_error="skip")
    assert report.annotated == 8
    assert sorted(int(failure.source.rpartition(":")[2]) for failure in report.failures) == [3, 6, 9, 12, 13]
    with pytest.raises(PairError, match=r"line 3, query: .*2\.png"):
        annotate(pairs, tmp_path / "strict.jsonl", FakeReasoner(), AnnotateSettings(batch=2))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"answer_hint_prob": 1.5}, {"answer_hint_prob": float("nan")}, {"batch": 0}, {"temperature": -1.0}):
        with pytest.raises(InputError):
            AnnotateSettings(**wrong)  # type: ignore[arg-type]


def test_files_of_others_are_neither_gone_on_with_nor_written_over(pairs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    before = pairs.read_text().rstrip("\n")
    mine.write_text(before)
    with pytest.raises(TrainingError, match="not begun by this command"):
        annotate(pairs, mine, FakeReasoner(), resume=True)
    for source, out in ((mine, mine), (tmp_path, tmp_path / "more.jsonl")):
        with pytest.raises(InputError, match="is one of the files that are read"):
            annotate(source, out, FakeReasoner(), resume=True)
    assert mine.read_text() == before
    (tmp_path / "empty.jsonl").touch()
    assert annotate(pairs, tmp_path / "empty.jsonl", FakeReasoner(), resume=True).annotated == 12


def test_the_setting_of_the_last_release_is_taken_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="answer_hint_prob"):
        assert AnnotateSettings(leak_share=0.5) == AnnotateSettings(answer_hint_prob=0.5)
    with pytest.warns(DeprecationWarning, match="leak_share"), pytest.raises(InputError, match="out of range"):
        AnnotateSettings(leak_share=1.5)
