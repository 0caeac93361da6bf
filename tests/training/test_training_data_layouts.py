"""Small files of our own in each published layout."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import InputError, VisualBudget
from ume_retrieval.errors import TrainingError
from ume_training.data.files import PairReader
from ume_training.data.layouts import LAYOUTS, Converted, convert
from ume_training.data.layouts.base import json_array
from ume_training.data.records import FramesRef, PairRecord
from ume_training.data.sources import file_sources
from ume_training.data.validation import PairError

TCOT = '<thinking>x {"text_keywords": ["a"]}</thinking><rethink>y</rethink><answer>z</answer>'


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (32, 32), colour).save(path)
    return path


def encoded(colour: str, form: str = "PNG") -> dict[str, Any]:
    data = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), colour).save(data, form)
    return {"bytes": data.getvalue(), "path": f"{colour}.png"}


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def converted(layout: str, source: Path, out: Path, **options: Any) -> tuple[list[PairRecord], Converted]:
    done = convert(layout, source, out, **options)
    records = [located.record for located in PairReader(out, rule="usable")]
    assert done.pairs == len(records) == done.datasets.total()
    # What is written can be trained on: every medium opens.
    if records:
        sources, failures = file_sources(out, VisualBudget(), rule="usable")
        assert failures == ()
        for one in sources:
            for position in range(len(one)):
                assert one[position].query.content_id
    return records, done


def mmeb_row(**values: Any) -> dict[str, Any]:
    return {"qry": "", "qry_image_path": "", "pos_text": "", "pos_image_path": "", **values}


def test_mmeb_train(tmp_path: Path) -> None:
    source = tmp_path / "MMEB-train"
    picture(source / "images/A-OKVQA/1.png")
    picture(source / "images/A-OKVQA/2.png", "blue")
    rows = [
        mmeb_row(
            qry="<|image_1|>\nWhat colour\nis it?\n",
            qry_image_path="images/A-OKVQA/1.png",
            pos_text="red",
            neg_text="blue",
            neg_image_path="images/A-OKVQA/2.png",
        ),
        mmeb_row(qry="A blue square", pos_text="<|image_1|>", pos_image_path="images/A-OKVQA/2.png"),
        mmeb_row(qry="lost", qry_image_path="images/none.png", pos_text="x"),
        mmeb_row(pos_text="nobody asks"),
    ]
    table(source / "A-OKVQA/original-00000-of-00001.parquet", rows)
    table(source / "A-OKVQA/diverse_instruction-00000-of-00001.parquet", rows)
    table(source / "VOC2007/original-00000-of-00001.parquet", rows[:1])
    records, done = converted("mmeb-train", source, tmp_path / "out/pairs.jsonl")
    assert [record.query.text for record in records] == ["What colour\nis it?", "A blue square"]
    assert {record.dataset for record in records} == {"A-OKVQA"}
    assert (records[0].target, records[0].positive.text, records[1].target) == ("red", "red", None)
    assert records[0].negatives[0].text == "blue"
    assert records[1].positive.modality == "image"
    assert records[1].positive.text is None
    assert done.left_out == ("VOC2007",)
    assert [failure.source.rpartition("/")[2] for failure in done.failures] == [
        "original-00000-of-00001.parquet:3",
        "original-00000-of-00001.parquet:4",
    ]
    assert "query.images[0]" in done.failures[0].message
    everything, kept = converted("mmeb-train", source, tmp_path / "all.jsonl", keep_all=True)
    assert len(everything) == 3
    assert kept.left_out == ()
    with pytest.raises(PairError, match=r"line 3, query\.images\[0\]"):
        convert("mmeb-train", source, tmp_path / "strict.jsonl", on_error="stop")
    assert not (tmp_path / "strict.jsonl").exists()


def conversation(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]


def test_llava_hound(tmp_path: Path) -> None:
    for number in (1, 2, 10, 9):
        picture(tmp_path / f"train_300k/v_1/c01_{number}.jpeg")
    (tmp_path / "train_300k/v_void").mkdir()
    source = lines(
        tmp_path / "video_caption.jsonl",
        {"id": "v_1_cap", "video": "v_1", "conversations": conversation("<video>\nDescribe it.", "A red wall.")},
        {"id": "x", "video": "v_2", "conversations": conversation("<video>\n?", "!")},
        {"id": "x", "video": "v_void", "conversations": conversation("<video>\n?", "!")},
        {"id": "x", "video": "v_1", "conversations": None},
        "{torn",
    )
    frames = tmp_path / "train_300k"
    [caption], done = converted("llava-hound-caption", source, tmp_path / "caption.jsonl", media=frames)
    assert (caption.query.text, caption.positive.text, caption.target) == ("Describe it.", "A red wall.", None)
    [video] = caption.query.videos
    assert isinstance(video, FramesRef)
    assert [Path(frame).stem for frame in video.frames] == ["c01_1", "c01_2", "c01_9", "c01_10"]
    assert [failure.source.rpartition(":")[2] for failure in done.failures] == ["2", "3", "4", "5"]
    [search], _ = converted("llava-hound-retrieval", source, tmp_path / "search.jsonl", media=frames)
    assert (search.query.text, search.query.videos) == ("A red wall.", ())
    assert (search.positive.text, len(search.positive.videos)) == (None, 1)
    [answer], _ = converted("llava-hound-qa", source, tmp_path / "qa.jsonl", media=frames)
    assert (answer.target, answer.dataset) == ("A red wall.", "llava-hound/qa")


def test_document_sets_write_their_pages_once_beside_the_pair_file(tmp_path: Path) -> None:
    rows = [
        {"query": "how many?", "image": encoded("red"), "source": "docvqa", "answer": "['7']"},
        {"query": "which one?", "image": encoded("red"), "source": "docvqa", "answer": None},
        {"query": "and now?", "image": encoded("blue", "JPEG"), "source": "tabfquad", "answer": "3"},
        {"query": None, "image": encoded("green"), "source": "docvqa", "answer": "4"},
        {"query": "broken?", "image": {"bytes": b"no picture", "path": "a.png"}, "source": "docvqa", "answer": "5"},
        {"query": "nothing?", "image": None, "source": "docvqa", "answer": "6"},
    ]
    source = table(tmp_path / "data/train-00000-of-00082.parquet", rows)
    out = tmp_path / "vidore/pairs.parquet"
    records, done = converted("vidore", source.parent, out)
    assert [(record.dataset, record.target) for record in records] == [
        ("vidore/docvqa", "['7']"),
        ("vidore/docvqa", None),
        ("vidore/tabfquad", "3"),
    ]
    assert records[0].positive.images == records[1].positive.images
    written = [path.suffix for path in (out.parent / "media").rglob("*") if path.is_file()]
    assert sorted(written) == [".jpg", ".png", ".png"]
    assert all(not Path(str(image)).is_absolute() for record in records for image in record.positive.images)
    assert [failure.source.rpartition(":")[2] for failure in done.failures] == ["4", "5", "6"]
    [source_a, _], _ = file_sources(out, VisualBudget())
    assert source_a.also_answers(0, 1), "one page that answers two questions is a negative of neither"
    bare = [{"query": row["query"], "image": row["image"], "source": "ChartQA"} for row in rows]
    table(tmp_path / "visrag/train-00000.parquet", bare)
    visrag, _ = converted("visrag", tmp_path / "visrag", tmp_path / "v.jsonl", limit=2)
    assert [record.dataset for record in visrag] == ["visrag/ChartQA"] * 2


def test_embed_rl_train(tmp_path: Path) -> None:
    root = tmp_path / "data"
    picture(root / "images/a/1.png")
    for number in range(8):
        picture(root / f"llavahound/v1/{number}.jpg")
    frames = [f"MMEB-train/llavahound/v1/{number}.jpg" for number in range(8)]
    source = tmp_path / "Embed-RL-Train"
    source.mkdir()
    image = mmeb_row(qry="<|image_1|> what?", qry_image_path="images/a/1.png", pos_text="red")
    cots = {"query_cot": TCOT, "pos_cot": TCOT, "error": ""}
    blank = ["images/blank.jpg"]

    def video(name: str, query: list[str], positive: list[str], **texts: str) -> dict[str, Any]:
        return {
            "dataset_name": name,
            "qry": {"conversations": conversation(texts.get("q", ""), texts.get("qa", "")), "video": query},
            "pos": {"conversations": conversation(texts.get("p", ""), texts.get("pa", "")), "video": positive},
            **cots,
        }

    files = {
        "A-OKVQA.json": [{**image, **cots}, {**image, "query_cot": "", "pos_cot": "", "error": "Empty query"}],
        "HatefulMemes.json": [{**image, **cots}],
        "llavahound_qa_1.json": [video("llavahound_qa", frames, blank, q="<video>\nwho?", pa="a dog")],
        "llavahound_qa_2.json": [video("llavahound_qa", frames, blank, q="<video>\nwhere?", pa="here"), {"qry": {}}],
        "llavahound_video_retrieval_1.json": [
            video("llavahound_video_retrieval", blank, frames, qa="a dog runs", p="<video>\nUnderstand the video.")
        ],
    }
    for name, rows in files.items():
        (source / name).write_text(json.dumps(rows, indent=1))
    records, done = converted("embed-rl-train", source, tmp_path / "pairs.jsonl", media=root)
    assert [(record.dataset, record.id) for record in records] == [
        ("A-OKVQA", "A-OKVQA-1"),
        ("A-OKVQA", "A-OKVQA-2"),
        ("llavahound_qa", "llavahound_qa_1-1"),
        ("llavahound_qa", "llavahound_qa_2-1"),
        ("llavahound_video_retrieval", "llavahound_video_retrieval_1-1"),
    ]
    assert [record.leaked for record in records] == [True, False, True, True, True]
    assert (records[0].query_tcot, records[1].query_tcot) == (TCOT, None)
    assert (records[2].query.text, records[2].target, records[2].positive.modality) == ("who?", "a dog", "text")
    assert len(records[2].query.videos[0].frames) == 8  # type: ignore[union-attr]
    assert (records[4].query.text, records[4].query.videos) == ("a dog runs", ())
    assert (records[4].positive.text, records[4].positive.modality) == ("Understand the video.", "video")
    assert done.left_out == ("HatefulMemes",)
    assert [failure.source.rpartition("/")[2] for failure in done.failures] == ["llavahound_qa_2.json:2"]


def test_pair_files_into_one_file_of_the_other_format(tmp_path: Path) -> None:
    picture(tmp_path / "in/red.png")
    good = {"id": "1", "dataset": "d", "query": {"images": ["red.png"]}, "positive": {"text": "b"}}
    lines(tmp_path / "in/a.jsonl", good, {**good, "query": {}})
    lines(tmp_path / "in/b.jsonl", {**good, "id": "2", "dataset": "e"})
    records, done = converted("pairs", tmp_path / "in", tmp_path / "out/pairs.parquet", dataset="all")
    assert [(record.dataset, record.id) for record in records] == [("all", "1"), ("all", "2")]
    assert records[0].query.images == ("../in/red.png",)
    assert [failure.source.rpartition("/")[2] for failure in done.failures] == ["a.jsonl:2"]


def test_unknown_layouts_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown layout"):
        convert("imagenet", tmp_path, tmp_path / "out.jsonl")
    for layout in LAYOUTS:
        with pytest.raises(TrainingError):
            convert(layout, tmp_path, tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == []


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=9)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=9,
)


@given(st.lists(VALUES, max_size=6), st.integers(1, 30), st.sampled_from((None, 1)))
def test_an_array_is_read_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], chunk: int, indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("array") / "a.json"
    text = json.dumps(values, indent=indent)
    path.write_text(text, encoding="utf-8")
    assert list(json_array(path, chunk)) == values
    path.write_text(text[:-1], encoding="utf-8")
    with pytest.raises(TrainingError):
        list(json_array(path, chunk))


@given(VALUES)
def test_no_row_of_any_shape_gets_past_a_reader(tmp_path_factory: pytest.TempPathFactory, row: Any) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source = lines(folder / "rows.jsonl", json.dumps(row))
    for layout in ("mmeb-train", "llava-hound-qa", "embed-rl-train", "pairs"):
        done = convert(layout, source, folder / "out" / f"{layout}.jsonl")
        assert (done.pairs, len(done.failures)) == (0, 1)


def test_ids_stay_apart_when_data_sets_become_one(tmp_path: Path) -> None:
    row = {"query": {"text": "q"}, "positive": {"text": "p"}}
    path = lines(tmp_path / "in.jsonl", *({**row, "id": "1", "dataset": name} for name in ("d", "e")))
    records, done = converted("pairs", path, tmp_path / "out.jsonl", dataset="all")
    assert [record.id for record in records] == ["1", "e/1"]
    assert done.failures == []


def test_bytes_that_are_no_text_cost_their_own_row_alone(tmp_path: Path) -> None:
    broken, good = b'{"qry": "caf\xe9", "pos_text": "x"}', b'{"qry": "y", "pos_text": "x"}'
    deep = b'{"qry": ' + b"[" * 100_000 + b"\n"
    (tmp_path / "a.jsonl").write_bytes(broken + b"\n" + deep + good + b"\n")
    (tmp_path / "b.json").write_bytes(b"[" + broken + b", " + good + b"]")
    for layout, name, places in (("mmeb-train", "a.jsonl", [1, 2]), ("embed-rl-train", "b.json", [1])):
        records, done = converted(layout, tmp_path / name, tmp_path / f"{layout}.jsonl")
        assert [record.query.text for record in records] == ["y"]
        assert [failure.index + 1 for failure in done.failures] == places
    (tmp_path / "deep.json").write_bytes(b"[" * 100_000)
    with pytest.raises(TrainingError, match="element 1"):
        convert("embed-rl-train", tmp_path / "deep.json", tmp_path / "out.jsonl")
