"""Every published layout is read, and whatever is broken in one is named and costs no more than itself."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from evaluation_world import QUERIES, THINGS, World, write_jsonl, write_mmeb, write_parquet, write_uvrb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ume_eval import EvalTask, Film, RowsNotFound, all_tasks, choose, classes, read_task
from ume_eval.layouts.builder import evenly, film, inside
from ume_eval.layouts.documents import short_name
from ume_eval.rows import find_rows
from ume_retrieval import InputError, MissingExtra
from ume_retrieval.errors import MediaNotFound


def problem_counts(read: EvalTask) -> Counter[str]:
    return Counter(problem.name for problem in read.problems)


def only(name: str, folder: Path, limit: int | None = None) -> EvalTask:
    benchmark = "uvrb" if any(task.name == name for task in all_tasks("uvrb")) else "mmeb-v2"
    [task] = choose(benchmark, [name])
    return read_task(task, folder, limit=limit)


@pytest.mark.parametrize("task", all_tasks("mmeb-v2"), ids=lambda task: task.name)
def test_every_task_of_mmeb_is_read(mmeb: Path, task) -> None:
    read = read_task(task, mmeb)
    assert not read.problems
    assert len(read.queries) == QUERIES
    keys = {candidate.key for candidate in read.candidates}
    assert len(keys) == len(read.candidates)
    for query in read.queries:
        assert query.answers.keys() <= keys
        assert (query.among is None) == (task.scope == "all")
        assert query.sample.instruction, "every published task says what is wanted"
        query.sample.item()
    assert {candidate.sample.item().modality for candidate in read.candidates} == {task.target}
    assert len({query.sample.digest() for query in read.queries}) == QUERIES
    assert not read.limited


@pytest.mark.parametrize("task", all_tasks("uvrb"), ids=lambda task: task.name)
def test_every_data_set_of_uvrb_is_read(uvrb: Path, task) -> None:
    read = read_task(task, uvrb)
    assert not read.problems
    assert (len(read.queries), len(read.candidates)) == (QUERIES, THINGS)
    assert {len(query.answers) for query in read.queries} == {2 if "CMP" in task.groups else 1}
    forms = {"MSRVTT-I2V": "image", "MS-TI": "image", "MS-TV": "video", "LoVR-C2V": "video"}
    assert {query.sample.modality for query in read.queries} == {forms.get(task.name, "text")}
    assert {candidate.sample.item().modality for candidate in read.candidates} == {"video"}


def test_what_a_model_is_told(mmeb: Path, uvrb: Path) -> None:
    told = {
        name: only(name, mmeb).queries[0].sample.instruction
        for name in ("ImageNet-1K", "MSR-VTT", "UCF101", "ViDoRe_docvqa", "MomentSeeker")
    }
    assert told == {
        "ImageNet-1K": "Represent the given image",  # from the row, without its image token
        "MSR-VTT": "Find a video that contains the following visual content:",
        "UCF101": "What activities or sports are being performed by the person in the video?",
        "ViDoRe_docvqa": "Find a document image that matches the given query:",
        "MomentSeeker": "Find the clip that corresponds to the given text:",
    }
    seeking = [query.sample for query in only("MomentSeeker", mmeb).queries]
    assert [sample.modality for sample in seeking] == ["text", "image", "video"]
    assert len({sample.instruction for sample in seeking}) == 3
    said = only("VDC-O", uvrb).queries[0].sample.instruction
    assert said == "Find the video according to the object description."


def test_questions_carry_their_options(mmeb: Path) -> None:
    read = only("MVBench", mmeb)
    assert "Options:\n(A) " in str(read.queries[0].sample.text)
    assert next(iter(read.queries[1].answers)).startswith("(B) "), "MVBench's candidates keep their letters"
    plain = only("Video-MME", mmeb)
    assert not next(iter(plain.queries[1].answers)).startswith("B."), "Video-MME's lose them"
    assert [list(query.answers) for query in only("ActivityNetQA", mmeb).queries] == [["yes"], ["no"], ["yes"]]


def test_classes_that_no_row_shows_are_candidates(mmeb: Path) -> None:
    read = only("Breakfast", mmeb)
    assert {candidate.key for candidate in read.candidates} == set(classes(read.task))
    assert [len(classes(task)) for task in choose("mmeb-v2", ["K700", "HMDB51", "UCF101", "Breakfast"])] == [
        700,
        51,
        101,
        10,
    ]


def test_grades_and_pages_from_both_places(mmeb: Path) -> None:
    for name in ("ViDoRe_docvqa", "VisRAG_ChartQA"):
        read = only(name, mmeb)
        assert sorted(read.queries[0].answers.values()) == [1.0, 2.0], "a score of 0 is no answer"
        kinds = {type(candidate.sample.images[0]).__name__ for candidate in read.candidates}
        assert len(kinds) == 2, "pictures from the folder and from the corpus"
        digests = {candidate.sample.digest() for candidate in read.candidates}
        assert len(digests) == THINGS


@pytest.mark.parametrize("length", [250, 255, 300])
def test_a_page_with_a_name_that_is_too_long_is_found_under_its_short_one(
    length: int, tmp_path: Path, shapes_world: World
) -> None:
    [task] = choose("mmeb-v2", ["VisRAG_ChartQA"])
    write_mmeb(shapes_world, tmp_path, [task])
    name = "x" * length + ".png"
    shapes_world.page(0, tmp_path / task.media / short_name(name))
    root = tmp_path / task.rows[0]
    write_parquet([{"corpus-id": name, "image": None}], next((root / "corpus").iterdir()))
    write_parquet([{"query-id": 0, "corpus-id": name, "score": 1}], next((root / "qrels").iterdir()))
    read = read_task(task, tmp_path)
    assert [candidate.sample.images[0].name for candidate in read.candidates] == [short_name(name)]  # type: ignore[union-attr]  # a file
    assert not problem_counts(read).get("broken_row")


def test_the_original_labels_are_another_repository(mmeb: Path, tmp_path: Path, shapes_world: World) -> None:
    [task] = choose("mmeb-v2", ["ViDoSeek-page"], "original")
    with pytest.raises(RowsNotFound) as refused:
        read_task(task, mmeb)
    assert "VLM2Vec/ViDoSeek-page " in refused.value.hint
    write_mmeb(shapes_world, tmp_path, [task])
    assert len(read_task(task, tmp_path).queries) == QUERIES


def test_captions_tell_equal_pictures_apart(tmp_path: Path, shapes_world: World) -> None:
    """The published code takes a picture's first caption for all of them (EDIS)."""
    [task] = choose("mmeb-v2", ["EDIS"])
    write_mmeb(shapes_world, tmp_path, [task])
    row = {"qry_inst": "Find:", "qry_text": "x", "qry_img_path": "", "tgt_inst": "", "tgt_img_path": ["EDIS/0.png"] * 2}
    write_parquet([row | {"tgt_text": ["one", "two"]}], tmp_path / task.rows[0] / "EDIS" / "test-0-of-1.parquet")
    read = read_task(task, tmp_path)
    assert [candidate.sample.text for candidate in read.candidates] == ["one", "two"]


def test_a_limit_keeps_the_answers(mmeb: Path) -> None:
    read = only("ViDoRe_docvqa", mmeb, limit=1)
    assert read.limited
    assert len(read.queries) == 1
    assert len(read.candidates) == len(read.queries[0].answers) + 1
    assert len(only("ImageNet-1K", mmeb, limit=2).queries) == 2
    assert not only("ImageNet-1K", mmeb, limit=QUERIES).limited
    with pytest.raises(InputError):
        only("ImageNet-1K", mmeb, limit=0)


@pytest.fixture
def damaged(mmeb: Path, uvrb: Path, tmp_path: Path) -> Path:
    for source in (mmeb, uvrb):
        shutil.copytree(source, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_missing_query_picture_costs_its_query(damaged: Path) -> None:
    (damaged / "image-tasks" / "ImageNet-1K" / "1.png").unlink()
    read = only("ImageNet-1K", damaged)
    [problem] = read.problems
    assert (problem.name, problem.where) == ("missing_media", "ImageNet-1K query 1")
    assert read.lost == 1
    assert len(read.queries) == QUERIES - 1


def test_a_missing_candidate_is_never_found(damaged: Path) -> None:
    (damaged / "image-tasks" / "WebQA" / "0.png").unlink()
    read = only("WebQA", damaged)
    assert read.lost == 0
    assert problem_counts(read) == {"missing_media": 1}
    assert len(read.candidates) == THINGS - 1
    assert next(iter(read.queries[0].answers)) not in {candidate.key for candidate in read.candidates}


def test_frames_that_are_not_there_are_named(damaged: Path) -> None:
    shutil.rmtree(damaged / "video-tasks" / "frames" / "video_ret" / "MSR-VTT" / "vid.1")
    read = only("MSR-VTT", damaged)
    assert problem_counts(read) == {"missing_media": 1, "no_answer": 1}
    shutil.rmtree(damaged / "video-tasks" / "frames" / "video_mret" / "QVHighlight" / "vid.2")
    assert only("QVHighlight", damaged).lost == 1


def test_broken_rows_are_counted(damaged: Path) -> None:
    place = damaged / "CMRB" / "UVRB" / "CMRB" / "jsonl"
    rows = (place / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    others = [
        "{not json",
        '"a text"',
        '{"id": "q1"}',  # the instruction alone is no query
        '{"id": "nobody", "text": "x"}',
        '{"id": "q2", "text": "x", "image": "../../../etc/passwd"}',
        '{"id": "q2", "text": "x", "image": 7}',
    ]
    (place / "queries.jsonl").write_text("\n".join([rows[0], *others]), encoding="utf-8")
    with (place / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write('{"id": "d9"}\nnonsense\n{"id": "d10", "video": "gone.mp4"}\n')
    read = only("CMRB", damaged)
    assert len(read.queries) == 1
    assert read.lost == len(others)
    assert problem_counts(read) == {"broken_row": 7, "no_answer": 1, "missing_media": 1}
    assert len(read.candidates) == THINGS


def test_wrong_columns_and_answers_are_counted(damaged: Path) -> None:
    file = damaged / "video-tasks" / "NExTQA" / "MC" / "test-00000-of-00001.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    write_jsonl([rows[0], {**rows[1], "answer": 9}, {"video": 2}, {**rows[2], "answer": None}], file)
    read = only("NExTQA", damaged)
    assert len(read.queries) == 1
    assert problem_counts(read) == {"broken_row": 3}
    assert "no column" in read.problems[1].message


def test_broken_judgements_and_empty_pages(damaged: Path) -> None:
    [task] = choose("mmeb-v2", ["ViDoRe_docvqa"])
    root = damaged / task.rows[0]
    write_parquet(
        [{"query-id": 0, "corpus-id": 1, "score": None}, {"query-id": 0, "corpus-id": 1, "score": 1}],
        root / "qrels" / "test-00000-of-00001.parquet",
    )
    write_parquet(
        [
            {"corpus-id": 1, "image": {"bytes": None, "path": "x"}},
            {"corpus-id": 3, "image": {"bytes": b"x", "path": ""}},
        ],
        root / "corpus" / "test-00000-of-00001.parquet",
    )
    read = read_task(task, damaged)
    assert problem_counts(read) == {"broken_row": 1, "no_answer": 2}
    assert len(read.queries) == 1
    with pytest.raises(MediaNotFound, match="no picture"):
        read.candidates[0].sample.digest()
    read.candidates[1].sample.digest()


def test_a_file_that_is_no_table_stops_its_task(damaged: Path) -> None:
    [file] = (damaged / "video-tasks" / "MSVD" / "data").iterdir()
    file.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="cannot read"):
        only("MSVD", damaged)


def test_without_pyarrow_the_install_command_is_named(mmeb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for name in ("CIRR", "ViDoRe_docvqa"):
        with pytest.raises(MissingExtra) as missing:
            only(name, mmeb)
        assert "ume-retrieval[eval]" in missing.value.hint
    assert len(only("NExTQA", mmeb).queries) == QUERIES, "JSON lines need nothing"


def test_rows_that_are_not_there_say_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(RowsNotFound) as refused:
        only("MSR-VTT", tmp_path)
    assert "hf download VLM2Vec/MSR-VTT" in refused.value.hint
    with pytest.raises(RowsNotFound) as refused:
        only("CMRB", tmp_path)
    assert "Alibaba-NLP/UVRB" in refused.value.hint


def test_rows_are_also_found_where_the_published_code_reads_them_offline(tmp_path: Path, shapes_world: World) -> None:
    [task] = choose("mmeb-v2", ["CIRR"])
    write_mmeb(shapes_world, tmp_path, [task])
    (tmp_path / task.rows[0] / "CIRR").rename(tmp_path / "image-tasks" / "rows")
    [rows] = (tmp_path / "image-tasks" / "rows").iterdir()
    rows.rename(tmp_path / "image-tasks" / "CIRR" / rows.name)
    assert len(read_task(task, tmp_path).queries) == QUERIES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def lines(draw: st.DrawFn, columns: tuple[str, ...]) -> str:
    """A line of a file: an object with some of the columns and anything in them, or no object at all."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.text(alphabet=st.characters(exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")))
    chosen = draw(st.lists(st.sampled_from(columns), unique=True))
    plain = st.sampled_from(["d1", "q1", "sub/1.mp4", "1.png"])
    return json.dumps({column: draw(plain | JSON) for column in chosen})


@given(
    st.lists(lines(("id", "text", "image", "video")), max_size=4),
    st.lists(lines(("id", "video")), max_size=4),
    st.lists(lines(("qid", "pos")), max_size=4),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_row_stops_a_task(uvrb: Path, queries: list[str], corpus: list[str], answers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "CMRB"
        (place / "jsonl").mkdir(parents=True)
        for name in ("videos_frames", "images"):
            (place / name).symlink_to(uvrb / "CMRB" / "UVRB" / "CMRB" / name)
        for name, rows in (("queries", queries), ("corpus", corpus), ("instances", answers)):
            text = "\n".join(rows)
            (place / "jsonl" / f"{name}.jsonl").write_text(text, encoding="utf-8", errors="surrogatepass")
        read = only("CMRB", Path(folder))
    assert len(read.queries) + read.lost == sum(bool(row.strip()) for row in queries)
    assert all(query.answers for query in read.queries)


def test_rows_as_the_hub_names_them(tmp_path: Path) -> None:
    [coco, msvd, vidore] = choose("mmeb-v2", ["MSCOCO", "MSVD", "ViDoRe_docvqa"])
    flat = tmp_path / coco.rows[0]
    write_jsonl([], flat / "MSCOCO-test.jsonl")
    write_jsonl([], flat / "MSCOCO-train.jsonl")
    write_jsonl([], flat / "MSCOCO_t2i-test.jsonl")
    assert [file.name for file in find_rows(tmp_path, coco)] == ["MSCOCO-test.jsonl"]
    root = tmp_path / msvd.rows[0]
    write_jsonl([], root / "dataset_infos.json")
    for name in ("test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl", "train-00000-of-00001.jsonl"):
        write_jsonl([], root / "data" / name)
    assert [file.name[:10] for file in find_rows(tmp_path, msvd)] == ["test-00000", "test-00001"]
    pages = tmp_path / vidore.rows[0] / "data"
    write_jsonl([], pages / "queries-test.jsonl")
    assert [file.name for file in find_rows(tmp_path, vidore, "queries")] == ["queries-test.jsonl"]
    with pytest.raises(RowsNotFound):
        find_rows(tmp_path, vidore, "qrels")


@given(st.integers(1, 200), st.integers(2, 16))
def test_frames_are_thinned_as_published(count: int, most: int) -> None:
    expected = np.linspace(0, count - 1, most, dtype=int).tolist() if count > most else list(range(count))
    assert evenly(count, most) == expected


def test_frames_are_in_their_own_order(tmp_path: Path, shapes_world: World) -> None:
    for number in (10, 9, 1, 2):
        shutil.copy(shapes_world.store / "scene0.png", tmp_path / f"frame_{number}.png")
    read = film(tmp_path.parent, tmp_path.name)
    assert [frame.name for frame in read.frames] == [f"frame_{number}.png" for number in (1, 2, 9, 10)]
    assert (read.times, read.duration_s) == ((0.0, 0.5, 1.0, 1.5), 2.0)
    assert film(tmp_path.parent, tmp_path.name, saved_fps=8).times == (0.0, 0.125, 0.25, 0.375)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "a/../../b", "a\0b"])
def test_rows_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(InputError):
        inside(Path("data"), name)


def test_a_sample_is_named_by_its_content(mmeb: Path, tmp_path: Path) -> None:
    first = only("MSVD", mmeb).candidates[0].sample
    [video] = first.videos
    assert isinstance(video, Film)
    moved = Film(tuple(shutil.copy(frame, tmp_path / frame.name) for frame in video.frames), video.times, 2.0)
    assert type(first)(videos=(moved,), instruction=first.instruction).digest() == first.digest()
    later = Film(video.frames, tuple(time + 1 for time in video.times), 2.0)
    assert type(first)(videos=(later,), instruction=first.instruction).digest() != first.digest()


def test_uvrb_shows_a_file_where_there_are_no_frames(uvrb: Path) -> None:
    shown = [candidate.sample.videos[0] for candidate in only("MSRVTT", uvrb).candidates]
    assert [isinstance(one, Path) for one in shown] == [True, *[False] * (THINGS - 1)]


def test_composed_queries_have_their_own_clips_where_they_are_named(uvrb: Path) -> None:
    assert {len(query.among or ()) for query in only("MS-TV", uvrb).queries} == {4}
    assert {query.among for query in only("MS-TI", uvrb).queries} == {None}
    few = only("MS-TV", uvrb, limit=1)
    assert {candidate.key for candidate in few.candidates} >= set(few.queries[0].among or ())


def test_both_places_of_uvrb(uvrb: Path, tmp_path: Path, shapes_world: World) -> None:
    [task] = choose("uvrb", ["CMRB"])
    write_uvrb(shapes_world, tmp_path, [task])
    (tmp_path / "CMRB" / "UVRB" / "CMRB").rename(tmp_path / "here")
    shutil.rmtree(tmp_path / "CMRB")
    (tmp_path / "here").rename(tmp_path / "CMRB")
    assert [query.key for query in read_task(task, tmp_path).queries] == ["0", "1", "2"]
