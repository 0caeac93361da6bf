"""T-CoTs swapped between queries: the loss that shows whether an Embedder reads them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from evaluation_world import write_parquet

from ume_eval import (
    Swap,
    Task,
    choose,
    evaluate,
    read_task,
)
from ume_eval.swapping import donors_of
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.testing import FakeReasoner, HashEmbedder
from ume_training.shapes.draw import draw_scene
from ume_training.shapes.levels import LEVELS
from ume_training.shapes.tasks import TASKS, family


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
