from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes_pairs import write_shapes_pairs

from ume_retrieval import InputError, VisualBudget
from ume_retrieval.errors import TrainingError
from ume_retrieval.tcot import parse, validate
from ume_training.data.files import PairReader, write_records
from ume_training.data.sources import FileSource, PairIndex, file_sources, undecodable
from ume_training.data.validation import PairError
from ume_training.shapes.pairs import ShapesSource, shapes_records
from ume_training.shapes.tasks import TASKS

BUDGET = VisualBudget(video_fps=2.0, video_frames=8)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs of every task as real files, with their true T-CoTs."""
    folder = tmp_path_factory.mktemp("shapes")
    return write_shapes_pairs(folder, level="questions", seed=3, group_size=2, count=3, traces="true")


@pytest.fixture(params=(".jsonl", ".parquet"))
def pair_file(request: pytest.FixtureRequest, shapes: Path) -> Path:
    if request.param == ".jsonl":
        return shapes
    path = shapes.with_name("same.parquet")
    write_records((located.record for located in PairReader(shapes)), path)
    return path


def test_every_task_is_written_as_strictly_valid_pairs_with_real_media(shapes: Path) -> None:
    rows = list(PairReader(shapes))
    assert len(rows) == 3 * len(TASKS)
    assert {located.record.dataset for located in rows} == {f"shapes/{task}" for task in TASKS}
    assert {path.suffix for path in (shapes.parent / "media").rglob("*.*")} == {".png", ".mp4", ".pdf"}
    assert [fault for located in rows for fault in undecodable(located, BUDGET)] == []


def test_written_pairs_are_those_that_are_drawn(pair_file: Path) -> None:
    sources, failures = file_sources(pair_file, BUDGET)
    assert failures == ()
    for source in sources:
        drawn = ShapesSource(source.name.removeprefix("shapes/"), "questions", seed=3, group_size=2, count=3)
        assert len(source) == len(drawn) == 3
        for index in range(3):
            one, other = source[index], drawn[index]
            assert (one.query_tcot, one.positive_tcot) == (other.query_tcot, other.positive_tcot)
            for side in ("query", "positive"):
                item, twin = getattr(one, side), getattr(other, side)
                assert item.text == twin.text
                pictures = (*item.images, *(frame for video in item.videos for frame in video.images))
                twins = (*twin.images, *(frame for video in twin.videos for frame in video.images))
                for picture, drawing in zip(pictures, twins, strict=True):
                    is_page = picture.height > picture.width
                    seen = picture.resize(drawing.size) if is_page else picture
                    apart = np.abs(np.asarray(seen).astype(int) - np.asarray(drawing).astype(int))
                    # Pictures are written without loss; videos and pages are not.
                    assert apart.mean() < (4 if item.videos or is_page else 1e-9)
        assert source.group(0) == source.group(1) != source.group(2)


@settings(max_examples=25)
@given(st.sampled_from(sorted(TASKS)), st.integers(0, 99), st.integers(1, 5), st.integers(0, 40))
def test_a_drawn_pair_depends_on_seed_and_position_alone(task: str, seed: int, group_size: int, index: int) -> None:
    source = ShapesSource(task, "questions", seed, group_size, count=41)
    pair = source.pair(index)
    for other in random.Random(index).sample(range(41), 3):
        source[other]
    again = ShapesSource(task, "questions", seed, group_size, count=41)
    assert again.pair(index) == pair
    one, twin = source[index], again[index]
    assert one.query_tcot == twin.query_tcot
    assert [image.tobytes() for image in one.query.images] == [image.tobytes() for image in twin.query.images]
    assert one.query.content_id == twin.query.content_id
    assert source.also_answers(index, index)
    tcot = parse(one.positive_tcot or "", images=1, frames=8)
    assert (tcot.problems, validate(tcot, one.positive.modality)) == ((), ())
    family = [position for position in range(41) if source.group(position) == source.group(index)]
    assert index in family
    assert len(family) <= group_size


def test_a_drawn_source_knows_whose_positive_answers_also() -> None:
    source = ShapesSource("image_question", "questions", seed=0, group_size=8, count=64)
    texts = [source.pair(index).positive.text for index in range(64)]
    for query in range(64):
        for positive in range(64):
            assert source.also_answers(query, positive) == (texts[query] == texts[positive])
    assert len(set(texts)) < 64


def test_what_cannot_be_drawn_is_refused() -> None:
    for task, level, group_size, count in (
        ("no_task", "questions", 1, 1),
        ("grounding", "easy", 1, 1),
        ("grounding", "rich", 0, 1),
    ):
        with pytest.raises(InputError):
            ShapesSource(task, level, 0, group_size, count)
    with pytest.raises(IndexError):
        ShapesSource("grounding", "rich", 0, 1, 1)[1]


def make(folder: Path, *pairs: dict[str, object]) -> Path:
    path = folder / "pairs.jsonl"
    rows = ({"id": str(number), "dataset": "d", **pair} for number, pair in enumerate(pairs))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_equal_content_answers_also_whatever_the_files_are_called(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    shutil.copy(tmp_path / "red.png", tmp_path / "same.png")
    PIL.Image.new("RGB", (32, 32), "blue").save(tmp_path / "blue.png")
    pairs = (
        {"query": {"text": "one"}, "positive": {"images": ["red.png"]}},
        {"query": {"text": "two"}, "positive": {"images": ["same.png"]}},
        {"query": {"text": "one"}, "positive": {"images": ["blue.png"]}},
        {"query": {"text": "two"}, "positive": {"images": ["red.png"], "text": "red"}},
    )
    [source], _ = file_sources(make(tmp_path, *pairs), BUDGET)
    expected = {(0, 1), (0, 2), (1, 3)}
    for one in range(4):
        for other in range(4):
            assert source.also_answers(one, other) == (one == other or tuple(sorted((one, other))) in expected)


def test_a_medium_that_does_not_decode_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    path = make(
        tmp_path,
        {"query": {"text": "fine"}, "positive": {"text": "fine"}},
        {"query": {"text": "a"}, "positive": {"images": ["broken.png"]}},
    )
    [source], failures = file_sources(path, BUDGET)
    assert failures == ()
    assert source[0].query.text == "fine"
    with pytest.raises(PairError, match=r"pairs.jsonl, line 2, positive: .*broken.png"):
        source[1]


def test_frames_that_are_not_there_show_when_the_video_is_decoded(tmp_path: Path, shapes: Path) -> None:
    video = next((shapes.parent / "media").rglob("*.mp4"))
    shutil.copy(video, tmp_path / "clip.mp4")
    tcot = '<thinking>x {"key_frames": [9]}</thinking><rethink>y</rethink><answer>z</answer>'
    stretch = {"path": "clip.mp4", "start_s": 0.0, "end_s": 4.0}
    path = make(tmp_path, {"query": {"videos": [stretch]}, "positive": {"text": "a"}, "query_tcot": tcot})
    [located] = PairReader(path)
    [fault] = undecodable(located, BUDGET)
    assert (fault.line, fault.field) == (1, "query_tcot")
    assert "frame_out_of_range" in fault.reason


def test_listed_frames_are_a_video_sampled_as_the_budget_says(tmp_path: Path) -> None:
    names = []
    for number in range(20):
        names.append(f"f{number}.png")
        PIL.Image.new("RGB", (32, 32), (10 * number, 0, 0)).save(tmp_path / names[-1])
    path = make(tmp_path, {"query": {"videos": [{"frames": names, "fps": 2.0}]}, "positive": {"text": "a"}})
    [source], _ = file_sources(path, BUDGET)
    [video] = source[0].query.videos
    assert len(video.images) == 8
    assert (video.timestamps[0], video.timestamps[-1], video.duration_s) == (0.0, 9.5, 10.0)
    assert [image.getpixel((0, 0))[0] for image in video.images] == [round(20 * time) for time in video.timestamps]  # type: ignore[index]
    [few], _ = file_sources(
        make(tmp_path, {"query": {"videos": [{"frames": names[:3], "fps": 2.0}]}, "positive": {"text": "a"}}), BUDGET
    )
    assert few[0].query.videos[0].timestamps == (0.0, 0.5, 1.0)


def test_an_index_leaves_broken_lines_out_and_still_finds_the_others(tmp_path: Path) -> None:
    good = {"query": {"text": "ä" * 40}, "positive": {"text": "b"}}
    path = make(tmp_path, good, {"query": {"text": ""}, "positive": {"text": "b"}}, {**good, "dataset": "e"}, good)
    with pytest.raises(PairError, match="line 2"):
        PairIndex(path)
    index = PairIndex(path, on_error="skip")
    assert dict(index.datasets) == {"d": 2, "e": 1}
    assert [index.read("d", position).line for position in range(2)] == [1, 4]
    assert [failure.source for failure in index.failures] == [f"{path}:2"]
    with pytest.raises(TrainingError, match="lacks the data set 'f'") as caught:
        FileSource(index, "f", BUDGET)
    assert caught.value.hint == "it has d, e"
    for position in (-1, 2):
        with pytest.raises(IndexError):
            FileSource(index, "d", BUDGET)[position]


def test_a_file_that_changes_under_an_index_is_noticed(tmp_path: Path) -> None:
    good = {"query": {"text": "a"}, "positive": {"text": "b"}}
    path = make(tmp_path, good, good)
    index = PairIndex(path)
    path.write_text("\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(PairError):
        index.read("d", 1)


def test_nothing_usable_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = make(tmp_path, {"query": {"text": ""}, "positive": {"text": "b"}})
    with pytest.raises(TrainingError, match=r"no pair.*line 1, query\.text: is empty text"):
        file_sources(path, BUDGET, on_error="skip")


def test_families_are_cut_at_the_count(tmp_path: Path) -> None:
    records = list(shapes_records(tmp_path, tasks=["grounding"], group_size=4, count=6))
    assert [record.group for record in records] == [records[0].group] * 4 + [records[4].group] * 2
    assert all(record.target is None or record.positive.text == record.target for record in records)


def test_what_the_filter_rejects_as_malformed_is_there_for_who_reads_no_traces(tmp_path: Path) -> None:
    pair = {"query": {"text": "a"}, "positive": {"text": "b"}}
    path = make(tmp_path, pair | {"query_tcot": "<answer>a</answer>"}, pair | {"query_tcot": "<thinking></thinking>"})
    [source], failures = file_sources(path, BUDGET, rule="any")
    assert (len(source), failures) == (2, ())
    [source], failures = file_sources(path, BUDGET, rule="usable", on_error="skip")
    assert (len(source), len(failures)) == (1, 1)
