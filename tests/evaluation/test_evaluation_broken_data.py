"""Broken and missing data: reported by name, and at the cost of the item alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from evaluation_world import QUERIES, World, fakes, write_jsonl, write_mmeb, write_parquet

from ume_eval import (
    Options,
    RowsNotFound,
    choose,
    evaluate,
    write_report,
)
from ume_retrieval import InputError


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
