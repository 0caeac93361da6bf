"""Runs: end to end with the bundled pair in every layout; killed and resumed; in shards; with broken samples."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation_world import QUERIES, World, write_jsonl, write_mmeb, write_parquet

from ume_eval import (
    Candidate,
    EvalTask,
    Options,
    ProgressCallbacks,
    Query,
    RowsNotFound,
    Sample,
    Shard,
    Stored,
    Swap,
    Task,
    VectorStore,
    all_tasks,
    choose,
    evaluate,
    read_task,
    write_report,
)
from ume_eval.encoding import SampleSet, StoredEncoder, identity, vector_key
from ume_eval.metrics import BLOCK, gains, judge_all, similarities
from ume_eval.run import VECTORS_FILE
from ume_eval.swapping import donors_of
from ume_retrieval import CacheError, InputError, ReasoningEmbedder, Sampling, TraceCache
from ume_retrieval.testing import FakeReasoner, HashEmbedder, fake_embedder
from ume_retrieval.vectors import fuse
from ume_training.shapes.draw import draw_scene
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.tasks import TASKS, family

HERE = Path(__file__).parent

ONE_OF_EACH_LAYOUT = (
    "OK-VQA",
    "MSCOCO_t2i",
    "CIRR",
    "Breakfast",
    "SmthSmthV2",
    "MSR-VTT",
    "MVBench",
    "Video-MME",
    "NExTQA",
    "EgoSchema",
    "ActivityNetQA",
    "QVHighlight",
    "MomentSeeker",
    "ViDoRe_docvqa",
)
UVRB_FORMS = ("VDC-O", "MS-TI", "LoVR-C2V")


@pytest.fixture(scope="session")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> ReasoningEmbedder:
    cache = tmp_path_factory.mktemp("evaluation-traces") / "traces.sqlite3"
    # What is told in words that the pair has never read makes it ramble: short replies keep the tests short.
    sampling = Sampling(max_tokens=64)
    return ReasoningEmbedder.from_pretrained("ume-tiny", cache=cache, device="cpu", sampling=sampling)


def fakes(folder: Path | None = None) -> ReasoningEmbedder:
    cache = TraceCache(folder / "traces.sqlite3") if folder else None
    return fake_embedder(cache=cache)


def test_the_layouts_above_are_all_there_are() -> None:
    chosen = choose("mmeb-v2", ONE_OF_EACH_LAYOUT)
    assert {task.layout for task in chosen} == {task.layout for task in all_tasks("mmeb-v2")}
    assert {task.metric for task in chosen} == {"hit@1", "ndcg@5"}


def test_every_layout_of_mmeb_runs_with_the_bundled_pair(
    bundled: ReasoningEmbedder, mmeb: Path, tmp_path: Path
) -> None:
    tasks = choose("mmeb-v2", ONE_OF_EACH_LAYOUT)
    result = evaluate(bundled, tasks, mmeb, tmp_path, options=Options(swap=False))
    check_run(result.to_dict(), [task.name for task in tasks])
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8")) == result.to_dict()
    pages = result.tasks[-1]
    assert pages.modes["reasoned"].score > 50, "the pair knows stock lists"


def test_every_form_of_uvrb_runs_with_the_bundled_pair(bundled: ReasoningEmbedder, uvrb: Path, tmp_path: Path) -> None:
    result = evaluate(bundled, choose("uvrb", UVRB_FORMS), uvrb, tmp_path, options=Options(swap=False))
    check_run(result.to_dict(), list(UVRB_FORMS))


def check_run(result: dict[str, Any], names: list[str]) -> None:
    assert [task["name"] for task in result["tasks"]] == names
    assert not result["absent"]
    for task in result["tasks"]:
        assert task["queries"] == QUERIES
        assert set(task["modes"]) == {"direct", "reasoned", "fused"}
        assert not task["problems"]
        for score in task["modes"].values():
            assert 0 <= score["score"] <= 100
            assert score["metrics"][task["metric"]] == score["score"]
            assert score["gap"] >= 0
        assert task["query_cost"]["tokens"] > 0
        # A pair of 2.5 million parameters may write no usable T-CoT about words that it has never read.
        assert all(failure["error"] == "reasoning_error" for failure in task["failures"])


def test_a_second_run_makes_no_model_call(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR", "MSR-VTT"])
    first = evaluate(fakes(tmp_path), tasks, mmeb, tmp_path)
    again = fakes(tmp_path)
    assert evaluate(again, tasks, mmeb, tmp_path).to_dict() == first.to_dict()
    assert again.embedder.chats == again.reasoner.chats == []


def test_equal_samples_are_embedded_once(mmeb: Path, tmp_path: Path) -> None:
    """The 700 classes of K700 are the candidates of every query, and yes and no those of every question."""
    embedder = fakes(tmp_path)
    tasks = choose("mmeb-v2", ["ActivityNetQA", "SmthSmthV2"])
    evaluate(embedder, tasks, mmeb, tmp_path, options=Options("never"))
    assert len(embedder.embedder.chats) == len(VectorStore(tmp_path / VECTORS_FILE)) == QUERIES + 2 + QUERIES + 5


def test_killed_at_any_point_and_started_again(mmeb: Path, tmp_path: Path) -> None:
    stride = 5
    driver = subprocess.run(  # noqa: S603  # this interpreter and a file of this folder
        [sys.executable, HERE / "evaluation_kill_driver.py", mmeb, tmp_path / "work", str(stride)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONWARNINGS": "ignore::DeprecationWarning"},
    )
    found = json.loads(driver.stdout)
    whole = found["whole"]
    assert whole["steps"] > 20
    assert whole["again"] == 0
    assert len(found["killed"]) >= whole["steps"] // stride
    for step, one in found["killed"].items():
        assert one["killed"], step
        assert one["tasks"] == whole["tasks"], f"killed at step {step}"
        assert (one["stored"], one["again"]) == (whole["stored"], 0), f"killed at step {step}: embedded again"


def test_shards_add_up(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR", "ViDoRe_docvqa"])
    whole = evaluate(fakes(), tasks, mmeb, tmp_path / "whole")
    counts = []
    for number in (1, 2, 3):
        part = tmp_path / f"part{number}"
        result = evaluate(fakes(), tasks, mmeb, part, options=Options(shard=Shard(number, 3)))
        assert not result.tasks
        counts.append(len(VectorStore(part / VECTORS_FILE)))
    assert min(counts) > 0
    merged = VectorStore(tmp_path / "merged" / VECTORS_FILE)
    assert [merged.merge(tmp_path / f"part{number}" / VECTORS_FILE) for number in (1, 2, 3)] == counts
    assert merged.merge(tmp_path / "part1" / VECTORS_FILE) == 0
    assert merged.merge(tmp_path / "part1" / ".." / "merged" / VECTORS_FILE) == 0, "its own vectors"
    judge = fakes()
    assert evaluate(judge, tasks, mmeb, tmp_path / "merged", options=Options(swap=False)).scores(
        "fused"
    ) == whole.scores("fused")
    assert judge.embedder.chats == []
    with pytest.raises(InputError):
        merged.merge(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/2/3", "-1/2", ""])
def test_shards_that_do_not_exist(text: str) -> None:
    with pytest.raises(InputError):
        Shard.parse(text)


def test_one_broken_picture_is_reported_and_costs_itself(mmeb: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(mmeb, data)
    broken = data / "image-tasks" / "CIRR" / "1.png"
    broken.unlink()
    broken.write_bytes(b"\x89PNG and then nothing")
    frame = data / "video-tasks" / "frames" / "video_ret" / "MSR-VTT" / "vid.0" / "frame_2.png"
    frame.unlink()
    frame.write_bytes(b"\xff\xd8\xff")
    result = evaluate(fakes(), choose("mmeb-v2", ["CIRR", "MSR-VTT"]), data, tmp_path / "run")
    images, videos = result.tasks
    assert [failure.source.partition("/")[0] for failure in images.failures] == ["CIRR query 1", "CIRR candidate CIRR"]
    assert {failure.error for failure in images.failures} <= {"broken_media", "unsupported_media"}
    assert [failure.source for failure in videos.failures] == ["MSR-VTT candidate vid.0"]
    assert videos.queries == images.queries == QUERIES
    assert images.modes["direct"].score <= 100 * (QUERIES - 1) / QUERIES


def test_a_query_that_could_not_be_read_is_a_miss(mmeb: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(mmeb, data)
    (data / "image-tasks" / "ImageNet-1K" / "2.png").unlink()
    [result] = evaluate(fakes(), choose("mmeb-v2", ["ImageNet-1K"]), data, tmp_path / "two").tasks
    assert result.queries == QUERIES
    assert result.modes["direct"].metrics["hit@10"] == pytest.approx(100 * (QUERIES - 1) / QUERIES)
    assert not result.comparable


def test_a_row_with_an_odd_name_costs_itself(mmeb: Path, tmp_path: Path) -> None:
    """As `os.listdir` names a file that is not UTF-8; JSON may hold such a name too."""
    data = tmp_path / "data"
    shutil.copytree(mmeb, data)
    [rows] = (data / "ziyjiang/MMEB_Test_Instruct" / "CIRR").iterdir()
    kept = pq.read_table(rows).to_pylist()
    kept[0]["tgt_img_path"][-1] = "caf\udce9.png"
    rows.unlink()
    write_jsonl(kept, rows.with_suffix(".jsonl"))
    [result] = (run := evaluate(fakes(), choose("mmeb-v2", ["CIRR"]), data, tmp_path / "run")).tasks
    assert result.queries == QUERIES
    [problem] = result.problems
    assert problem.name == "missing_media"
    assert "caf<U+DCE9>.png" in problem.where
    write_report(run, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8")) == run.to_dict()
    assert not [file for file in (tmp_path / "run").iterdir() if file.name.startswith(".")]


def test_a_corpus_without_its_column_of_pictures_costs_its_task_alone(mmeb: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(mmeb, data)
    tasks = choose("mmeb-v2", ["ViDoRe_arxivqa", "ViDoRe_docvqa"])
    [corpus] = (data / tasks[0].rows[0] / "corpus").iterdir()
    pages = [{"corpus-id": row["corpus-id"], "page": b"x"} for row in pq.read_table(corpus).to_pylist()]
    write_parquet(pages, corpus)
    shutil.rmtree(data / tasks[0].media)
    broken, whole = evaluate(fakes(), tasks, data, tmp_path / "run", options=Options("never")).tasks
    assert (broken.modes["direct"].score, len(broken.failures)) == (0.0, len(pages))
    assert not whole.failures


def test_tasks_that_are_not_there(mmeb: Path, tmp_path: Path, shapes_world: World) -> None:
    tasks = choose("mmeb-v2", ["CIRR", "EDIS"])
    write_mmeb(shapes_world, tmp_path / "data", [tasks[1]])
    result = evaluate(fakes(), tasks, tmp_path / "data", tmp_path / "run", options=Options("never"))
    assert list(result.absent) == ["CIRR"]
    assert [task.name for task in result.tasks] == ["EDIS"]
    with pytest.raises(RowsNotFound):
        evaluate(fakes(), tasks, tmp_path, tmp_path / "run")
    with pytest.raises(InputError):
        evaluate(fakes(), [], tmp_path, tmp_path / "run")


def test_reasoning_needs_a_reasoner(mmeb: Path, tmp_path: Path) -> None:
    tasks = choose("mmeb-v2", ["CIRR"])
    with pytest.raises(InputError, match="Reasoner"):
        evaluate(fake_embedder(reasoner=None), tasks, mmeb, tmp_path)
    plain = evaluate(fake_embedder(reasoner=None), tasks, mmeb, tmp_path, options=Options("never")).tasks[0]
    assert set(plain.modes) == {"direct"}
    assert plain.gain is plain.query_cost is plain.swap is None
    thought = evaluate(fakes(), tasks, mmeb, tmp_path, options=Options("always")).tasks[0]
    assert set(thought.modes) == {"reasoned"}
    assert thought.gain is None
    assert thought.query_cost is not None
    with pytest.raises(InputError):
        Options("sometimes")  # type: ignore[arg-type]


def test_progress_reaches_its_end(mmeb: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    counts: list[int] = []
    advanced: list[int] = []
    watch = ProgressCallbacks(lambda *task: seen.append(task), counts.append, advanced.append)
    evaluate(fakes(), choose("mmeb-v2", ["CIRR", "EDIS"]), mmeb, tmp_path, watch=watch)
    assert seen == [("CIRR", 0, 2), ("EDIS", 1, 2)]
    assert sum(counts) == sum(advanced) > 0
    assert len(counts) == 2


def shapes_task(folder: Path, queries: int = 24) -> Task:
    """Text to image on Shapes in MMEB-V2's layout, with look-alikes and no instruction."""
    [task] = choose("mmeb-v2", ["MSCOCO_t2i"])
    rng = random.Random(11)
    level = LEVELS["default"]
    media = folder / task.media / task.name
    media.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number in range(queries):
        pairs = family(TASKS["text_to_image"], rng, level, 4)
        paths = []
        for place, pair in enumerate(pairs):
            draw_scene(pair.positive.shown, rng).save(media / f"{number}-{place}.png")  # type: ignore[arg-type]
            paths.append(f"{task.name}/{number}-{place}.png")
        rows.append(
            {
                "qry_inst": "",
                "qry_text": pairs[0].query.text,
                "qry_img_path": "",
                "tgt_inst": "",
                "tgt_text": [""] * len(paths),
                "tgt_img_path": paths,
            }
        )
    write_parquet(rows, folder / task.rows[0] / task.name / "test-0-of-1.parquet")
    return task


def test_swapped_traces_cost_accuracy(bundled: ReasoningEmbedder, tmp_path: Path) -> None:
    task = shapes_task(tmp_path / "data")
    [result] = evaluate(bundled, [task], tmp_path / "data", tmp_path / "run").tasks
    assert result.swap is not None
    assert result.modes["reasoned"].score > 60
    assert result.swap.queries == result.queries == 24
    assert result.swap.own == pytest.approx(result.modes["reasoned"].score)
    assert result.swap.swapped < result.swap.own
    assert result.swap.verdict == "used"
    assert result.swap.cosine < 0.99
    rerun = evaluate(bundled, [task], tmp_path / "data", tmp_path / "run").tasks[0]
    assert rerun.swap == result.swap


class DeafEmbedder(HashEmbedder):
    """Reads an item's own words and never its T-CoT."""

    def embed(self, chats):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return super().embed([tuple(replace(message, parts=message.parts[:1]) for message in chat) for chat in chats])


def test_a_trace_that_is_not_used_is_said_to_be_so(tmp_path: Path) -> None:
    task = shapes_task(tmp_path / "data")
    deaf = ReasoningEmbedder(DeafEmbedder(), FakeReasoner())
    [result] = evaluate(deaf, [task], tmp_path / "data", tmp_path / "run").tasks
    assert result.swap is not None
    assert (result.swap.drop, result.swap.verdict) == (0.0, "not shown to be used")
    assert result.swap.cosine == pytest.approx(1.0)
    assert Swap(5, 100.0, 0.0, 100.0, 0.0, 0.1).verdict == "too few queries"


def test_donors_have_other_answers(mmeb: Path) -> None:
    [task] = choose("mmeb-v2", ["ActivityNetQA"])
    read = read_task(task, mmeb)
    assert donors_of(read, ["a", "b", "c"]) == [1, 2, 1], "yes, no, yes: a donor answers otherwise"
    assert donors_of(read, ["a", "", "c"]) == [None, None, None]
    assert donors_of(read, ["a", "a", "a"]) == [None, None, None]


def test_fused_similarities_are_those_of_search() -> None:
    from ume_qdrant.searching.fusion import fuse as search_fuse

    rng = np.random.default_rng(3)
    for _ in range(50):
        direct, reasoned = rng.uniform(-1, 1, 6), rng.uniform(-1, 1, 6)
        reasoned[rng.integers(0, 6, 2)] = np.nan
        fused = fuse(direct, reasoned)
        known = {str(n): float(score) for n, score in enumerate(reasoned) if not np.isnan(score)}
        expected = search_fuse({str(n): float(score) for n, score in enumerate(direct)}, known, 0.5)
        assert fused == pytest.approx([expected[str(n)] for n in range(6)])


@pytest.mark.parametrize("among", [False, True], ids=["against all", "own lists"])
@pytest.mark.parametrize(("count", "dim"), [(3, 1536), (5, 2048), (BLOCK + 7, 256)])
def test_one_vector_ties_wherever_it_stands(among: bool, count: int, dim: int) -> None:
    [cirr] = choose("mmeb-v2", ["CIRR"])
    rng = np.random.default_rng(count)
    vector = rng.normal(size=dim).astype(np.float32)
    vector /= np.linalg.norm(vector)
    asked = vector + 0.02 * rng.normal(size=(100 if count < BLOCK else 10, dim)).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    candidates = tuple(Candidate(f"c{number}", Sample(f"c{number}")) for number in range(count))
    names = tuple(one.key for one in candidates) if among else None
    queries = tuple(Query(str(n), Sample(f"q{n}"), {f"c{count - 1}": 1.0}, names) for n in range(len(asked)))
    rows = similarities(EvalTask(cirr, queries, candidates), asked, np.tile(vector, (count, 1)))
    assert all(len(row) == count and len(np.unique(row)) == 1 for row in rows)
    assert [float(row[0]) for row in rows] == pytest.approx((asked @ vector).tolist(), abs=2e-6)


def test_own_lists_and_common_ones(mmeb: Path) -> None:
    def rows(read: EvalTask) -> list[int]:
        rng = np.random.default_rng(0)
        queries, candidates = (rng.normal(size=(n, 8)).astype(np.float32) for n in (QUERIES, len(read.candidates)))
        return [len(row) for row in similarities(read, queries, candidates)]

    own, common = (read_task(choose("mmeb-v2", [name])[0], mmeb) for name in ("ActivityNetQA", "K700"))
    assert rows(own) == [2, 2, 2]
    assert rows(common) == [len(common.candidates)] * QUERIES
    assert [gain.sum() for gain, _ in gains(common)] == [1.0] * QUERIES
    perfect = judge_all(own, [gain for gain, _ in gains(own)])
    assert perfect.metrics["hit@1"] == 100.0
    assert perfect.gap == 1.0
    blind = judge_all(own, [np.full(2, 0.5)] * QUERIES)
    assert (blind.metrics["hit@1"], blind.ties) == (0.0, 2)


def test_keys_change_with_what_decides_a_vector(mmeb: Path) -> None:
    base = fakes()
    assert identity(base, "query", "direct", "text") == identity(base, "corpus", "direct", None)
    assert identity(base, "query", "reasoned", "text") != identity(base, "query", "reasoned", "video")
    assert identity(base, "query", "reasoned", None) != identity(base, "corpus", "reasoned", None)
    others = [
        ReasoningEmbedder(HashEmbedder(revision="2"), FakeReasoner()),
        fake_embedder(reasoner=FakeReasoner(revision="2")),
        fake_embedder(sampling=Sampling(max_tokens=7)),
    ]
    keys = {identity(one, "query", "reasoned", "text") for one in (base, *others)}
    assert len(keys) == 4
    assert identity(base, "query", "direct", None) == identity(others[1], "query", "direct", None)
    assert vector_key(b"a", "00") != vector_key(b"a", "01")


def test_a_store_of_another_program_is_left_alone(tmp_path: Path) -> None:
    import sqlite3
    from contextlib import closing

    path = tmp_path / "other.sqlite3"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE theirs (x)")
    with pytest.raises(CacheError, match="another program"):
        VectorStore(path)
    (tmp_path / "noise").write_bytes(b"no database" * 100)
    with pytest.raises(CacheError):
        VectorStore(tmp_path / "noise")
    with pytest.raises(CacheError):
        VectorStore(tmp_path / "noise" / "below" / "vectors.sqlite3")


def test_a_stored_vector_is_never_replaced(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "vectors.sqlite3")
    assert store.put_many({"a": Stored(np.ones(3, np.float32), 5, 1, 2, "t")}) == 1
    assert store.put_many({"a": Stored(np.zeros(3, np.float32)), "b": Stored(np.zeros(3, np.float32))}) == 1
    kept = store.get_many(["a", "c"])["a"]
    assert (kept.vector.tolist(), kept.tokens, kept.evidence, kept.keywords, kept.trace) == ([1.0] * 3, 5, 1, 2, "t")
    assert store.known(str(n) for n in range(5000)) == set()


def test_what_is_missing_is_counted_once(mmeb: Path, tmp_path: Path) -> None:
    [task] = choose("mmeb-v2", ["CIRR"])
    read = read_task(task, mmeb)
    encoder = StoredEncoder(fakes(), VectorStore(tmp_path / "vectors.sqlite3"))
    samples = SampleSet.of("corpus", None, [("one", read.candidates[0].sample), ("same", read.candidates[0].sample)])
    wanted = encoder.missing(samples, "direct")
    assert list(wanted.values()) == [0]
    assert encoder.embed(samples, "direct", wanted, lambda _: None) == []
    rows = encoder.gather(samples, "direct").rows
    assert rows[0].tolist() == rows[1].tolist()
    assert encoder.missing(samples, "direct") == {}
