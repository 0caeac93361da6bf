"""Reasoning after the fact: resumable, never twice, failures marked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from qdrant_world import models, same
from small_media import BLUE, RED, clip, document, fill, picture

from ume_qdrant import EdgeStore, Filter, Progress, Store, enrich, index
from ume_qdrant.indexing.enrich import refused_update
from ume_retrieval import Failure, InputError, ModelError, ReasoningEmbedder, ReasoningError, Sampling, TraceCache
from ume_retrieval.chat import Chat, TextPart
from ume_retrieval.engines.base import Generation
from ume_retrieval.errors import CollectionNotFound, ServerError
from ume_retrieval.testing import FakeReasoner, fake_embedder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "things")


def words(chat: Chat) -> str:
    return " ".join(part.text for message in chat for part in message.parts if isinstance(part, TextPart))


def with_reasoner(reasoner: FakeReasoner) -> ReasoningEmbedder:
    return fake_embedder(reasoner=reasoner)


def test_everything_that_waits_is_reasoned_over(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    steps: list[Progress] = []
    report = enrich(models(), store, batch_size=3, on_progress=steps.append)
    assert (report.enriched, report.remaining, report.failed, report.model_calls) == (8, 0, (), 16)
    assert [(step.stage, step.done, step.total) for step in steps] == [("reason", n, 8) for n in (3, 6, 8)]
    assert {frozenset(point.vectors) for point in store.scroll(vectors=("direct", "reasoned"))} == {
        frozenset({"direct", "reasoned"})
    }
    again = enrich(models(), store)
    assert (again.enriched, again.model_calls) == (0, 0)
    for point in store.scroll(Filter(kinds=("video",))):
        [frame] = point.payload["trace"]["key_frames"]
        assert point.payload["start_s"] <= frame["time_s"] < point.payload["end_s"]


def test_a_budget_goes_to_what_looks_most_like_others(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(40):  # texts with a word in common are twins to the fake Embedder, the others stand alone
        words = "twins in a row" if n % 2 else f"lonely{n} word{n}"
        (folder / f"{n:02}.txt").write_text(f"{words} {n}", encoding="utf-8")
    index(models(), store, folder)
    whole = 40 * 8  # tokens that the fake Reasoner writes
    report = enrich(models(), store, budget=whole // 4)
    assert report.usage.completion_tokens >= whole // 4
    assert 10 <= report.enriched <= 36  # a batch is on its way when the first T-CoTs show what they cost
    assert report.remaining == 40 - report.enriched
    done = [p.payload["source"] for p in store.scroll(Filter(reasoning=("done",)))]
    twins = [source for source in done if int(Path(source).stem) % 2]
    assert len(twins) == min(20, len(done))
    assert enrich(models(), store, budget=10**6).remaining == 0
    with pytest.raises(InputError, match="budget 0"):
        enrich(models(), store, budget=0)


def test_a_part_of_the_collection(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    report = enrich(models(), store, where=Filter(kinds=("image",)))
    assert (report.enriched, report.remaining) == (3, 0)
    assert store.count(Filter(reasoning=("later",))) == 5


def test_an_interrupted_run_goes_on_and_reasons_nothing_twice(store: Store, folder: Path, tmp_path: Path) -> None:
    class Interrupted(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            if self.calls >= 4:
                raise KeyboardInterrupt
            return super().generate(chats, sampling)

    index(models(), store, folder)
    cache = TraceCache(tmp_path / "traces.sqlite3")
    first = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        enrich(fake_embedder(reasoner=first, cache=cache), store, batch_size=2)
    assert store.count(Filter(reasoning=("done",))) == 4
    second = FakeReasoner()
    report = enrich(fake_embedder(reasoner=second, cache=cache), store, batch_size=2)
    assert (first.calls, second.calls, report.enriched) == (4, 4, 4)


def test_a_trace_that_cannot_be_made_is_marked_and_left_alone(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    fine = FakeReasoner()

    def stubborn(chat: Chat) -> str:
        return "" if "train" in words(chat) else fine.generate([chat], Sampling())[0].text

    report = enrich(with_reasoner(FakeReasoner(stubborn)), store)
    assert (report.enriched, report.remaining) == (7, 0)
    assert [(Path(f.source).name, f.error) for f in report.failed] == [("notes.txt", ReasoningError.code)]
    [marked] = store.scroll(Filter(reasoning=("failed",)))
    assert marked.payload["reasoning_error"] == ReasoningError.code
    again = enrich(with_reasoner(FakeReasoner(stubborn)), store)
    assert (again.model_calls, again.failed) == (0, ())
    assert index(models(), store, folder, reasoning="always").model_calls == 0, "indexing leaves it alone too"
    (folder / "notes.txt").rename(folder / "moved.txt")
    index(models(), store, folder, reasoning="always")
    assert store.count(Filter(reasoning=("failed",))) == 1, "and moving it does not help"
    retried = enrich(models(), store, retry_failed=True)
    assert (retried.enriched, retried.failed) == (1, ())
    assert store.count(Filter(reasoning=("done",))) == 8


def test_what_may_pass_is_not_marked(store: Store, folder: Path) -> None:
    class Busy(FakeReasoner):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
            raise ModelError("the server is busy", retryable=True)

    index(models(), store, folder)
    report = enrich(with_reasoner(Busy()), store)
    assert (report.enriched, report.remaining, len(report.failed)) == (0, 8, 6)
    assert all(failure.retryable for failure in report.failed)
    assert "(and 1 more)" in next(f.message for f in report.failed if f.source.endswith("report.pdf"))
    with pytest.raises(ModelError, match="busy"):
        enrich(with_reasoner(Busy()), store, strict=True)


def test_a_file_that_changed_or_went_away_stays_waiting(store: Store, folder: Path) -> None:
    index(models(), store, folder)
    picture(folder / "red.png", BLUE)
    (folder / "green.png").unlink()
    report = enrich(models(), store)
    assert (report.enriched, report.remaining) == (6, 2)
    assert [Path(failure.source).name for failure in report.failed] == ["green.png", "red.png"]
    assert "changed since it was indexed" in report.failed[1].message
    assert report.failed[1].hint
    index(models(), store, folder, reasoning="always")
    assert store.count(Filter(reasoning=("done",))) == store.count() == 7


def test_arguments_are_checked(store: Store, folder: Path) -> None:
    with pytest.raises(InputError, match="without a Reasoner"):
        enrich(fake_embedder(reasoner=None), store)
    with pytest.raises(InputError, match="batch_size"):
        enrich(models(), store, batch_size=0)
    with pytest.raises(CollectionNotFound):
        enrich(models(), store)


def kill_everywhere(tmp_path: Path, stride: int) -> None:
    """Kill an indexing run at every `stride`-th step, start it again, and compare with an undisturbed run."""
    folder = fill(tmp_path / "things")
    before = tmp_path / "before"
    with EdgeStore(before / "vectors", "things") as store:
        index(models(before / "traces.sqlite3"), store, folder, reasoning="always")
    # New, changed, moved, copied and deleted files, so that every kind of step occurs.
    picture(folder / "red.png", BLUE)
    picture(folder / "new.png", (10, 20, 30))
    clip(folder / "new.mp4", 20, RED, BLUE)
    document(folder / "report.pdf", RED, BLUE, (1, 2, 3))
    (folder / "clip.mp4").rename(folder / "deep" / "film.mp4")
    (folder / "copy.txt").write_bytes((folder / "notes.txt").read_bytes())
    (folder / "green.png").unlink()
    driver = Path(__file__).with_name("qdrant_kill_driver.py")
    run = subprocess.run(  # noqa: S603  # our own interpreter and script
        [sys.executable, str(driver), str(folder), str(before), str(tmp_path / "work"), str(stride)],
        capture_output=True,
        text=True,
        check=True,
    )
    outcomes = json.loads(run.stdout)
    whole = {record["id"]: record for record in outcomes["whole"]["points"]}
    assert len(whole) == 12
    assert {record["reasoning"] for record in whole.values()} == {"done"}
    assert len(outcomes["killed"]) > 3
    for step, outcome in outcomes["killed"].items():
        assert outcome["killed"], step
        assert outcome["twice"] == 0, f"killed at step {step}: a trace was generated twice"
        same({record["id"]: record for record in outcome["points"]}, whole)


def test_a_killed_run_ends_like_a_whole_one(tmp_path: Path) -> None:
    kill_everywhere(tmp_path, stride=9)


@pytest.mark.slow
def test_a_run_killed_at_any_step_ends_like_a_whole_one(tmp_path: Path) -> None:
    kill_everywhere(tmp_path, stride=1)


@pytest.mark.parametrize(
    ("failure", "marked"),
    [
        (Failure(0, "a.png", "reasoning_error", "no trace", "", retryable=False), True),
        (Failure(0, "a.png", "invalid_input", "too long", "", retryable=False), True),
        (Failure(0, "a.png", "media_error", "no thread", "", retryable=True), False),
        (Failure(0, "a.png", ServerError.code, "401", "", retryable=False), False),
    ],
)
def test_only_what_fails_for_good_is_marked(store: Store, folder: Path, failure: Failure, *, marked: bool) -> None:
    index(models(), store, folder)
    key = next(iter(store.scroll())).id
    store.update([refused_update(key, failure)])
    [point] = store.retrieve([key])
    assert point.payload["reasoning"] == ("failed" if marked else "later")
