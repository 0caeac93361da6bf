from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ume_retrieval import Clip, InputError, Item, Page
from ume_retrieval.errors import TrainingError
from ume_training.data.append_log import RecordLog, claim, cut_torn_line
from ume_training.data.files import (
    PairReader,
    count_lines,
    read_pairs,
    shards,
    write_pairs,
    write_records,
)
from ume_training.data.pairs import TrainingPair
from ume_training.data.records import FramesRef, ItemRecord, PageRef, PairRecord, StretchRef
from ume_training.data.validation import PairError

GOOD = {"id": "1", "dataset": "d", "query": {"text": "a"}, "positive": {"text": "b"}}
DOCS = Path(__file__).parents[2] / "docs" / "training-data.md"


def tcot(cue: str) -> str:
    return f"<thinking>x {cue}</thinking><rethink>y</rethink><answer>z</answer>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    PIL.Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    (tmp_path / "empty.png").touch()
    return tmp_path


def write(folder: Path, *lines: object, name: str = "pairs.jsonl") -> Path:
    path = folder / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


FAULTS: list[tuple[object, str, str]] = [
    ("{oops", "", "is not JSON"),
    ('{"id": "2", "da', "", "is not JSON"),
    ([1], "", "object"),
    ({**GOOD, "id": 2}, "id", "valid string, not 2"),
    ({**GOOD, "leaked": "yes"}, "leaked", "boolean"),
    ({**GOOD, "negatives": {}}, "negatives", "valid array"),
    ({**GOOD, "colour": "red"}, "colour", "is not a field"),
    ({**GOOD, "query": {"text": "a", "sound": "b.wav"}}, "query.sound", "is not a field"),
    ({**GOOD, "query": {"text": " \t"}}, "query.text", "empty text"),
    ({**GOOD, "target": ""}, "target", "empty text"),
    ({**GOOD, "query": {}}, "query", "needs text, an image or a video"),
    ({"id": "2", "dataset": "d", "query": {"text": "a"}}, "positive", "is missing"),
    ({**GOOD, "query": {"images": ["no.png"]}}, "query.images[0]", "no.png does not exist"),
    ({**GOOD, "negatives": [{"images": ["red.png", "empty.png"]}]}, "negatives[0].images[1]", "is an empty file"),
    ({**GOOD, "query": {"images": ["."]}}, "query.images[0]", "not a regular file"),
    ({**GOOD, "query": {"images": ["https://example.org/a.png"]}}, "query.images[0]", "address"),
    ({**GOOD, "query": {"images": [7]}}, "query.images[0]", "valid string, not 7"),
    ({**GOOD, "query": {"images": [{"path": "red.png", "page": 0}]}}, "query.images[0].page", "greater"),
    ({**GOOD, "query": {"images": [{"frames": ["red.png"]}]}}, "query.images[0].path", "is missing"),
    ({**GOOD, "query": {"videos": [{"path": "a", "start_s": 3.0, "end_s": 1.0}]}}, "query.videos[0]", "is not after"),
    ({**GOOD, "query": {"videos": [{"frames": []}]}}, "query.videos[0].frames", "is empty"),
    ({**GOOD, "query": {"videos": [{"frames": ["red.png"], "fps": 0}]}}, "query.videos[0].fps", "greater"),
    ({**GOOD, "query_tcot": "<emb>"}, "query_tcot", "malformed"),
    ({**GOOD, "query_tcot": "<answer></answer>"}, "query_tcot", "says nothing"),
    ({**GOOD, "positive_tcot": "just words"}, "positive_tcot", "missing_answer"),
    (
        {**GOOD, "query": {"images": ["red.png"]}, "query_tcot": tcot('{"bbox_2d": [[0, 0, 500, 1400]]}')},
        "query_tcot",
        "box_out_of_range",
    ),
    ({**GOOD, "query": {"images": ["red.png"]}, "query_tcot": tcot('{"bbox_2d": [1, 2]}')}, "query_tcot", "bad_box"),
    (
        {**GOOD, "query": {"videos": [{"frames": ["red.png"]}]}, "query_tcot": tcot('{"key_frames": [2]}')},
        "query_tcot",
        "frame_out_of_range",
    ),
    (GOOD, "id", "occurs before"),
]


@pytest.mark.parametrize(("line", "field", "reason"), FAULTS)
def test_a_broken_line_is_named_by_file_line_field_and_reason(
    folder: Path, line: object, field: str, reason: str
) -> None:
    path = write(folder, GOOD, line, {**GOOD, "id": "3"})
    with pytest.raises(PairError) as caught:
        list(PairReader(path))
    error = caught.value
    assert (error.file, error.line, error.field) == (path, 2, field)
    assert reason in error.reason
    assert str(error).startswith(f"{path}, line 2")
    reader = PairReader(path, on_error="skip")
    assert [located.record.id for located in reader] == ["1", "3"]
    [failure] = reader.failures
    assert (failure.source, failure.error, failure.index) == (f"{path}:2", "bad_pair", 1)


def test_what_is_merely_odd_is_no_fault(folder: Path) -> None:
    odd = "Well: <think>x {'text_keywords': ['a',]}</think><rethink>y</rethink><answer>z</answer>"
    path = write(folder, {**GOOD, "query_tcot": odd}, "", {**GOOD, "id": "2"})
    assert [located.line for located in PairReader(path)] == [1, 3]


def test_usable_lets_malformed_traces_pass_but_not_empty_ones(folder: Path) -> None:
    path = write(folder, {**GOOD, "query_tcot": "just words"}, {**GOOD, "id": "2", "query_tcot": "<answer></answer>"})
    reader = PairReader(path, on_error="skip", rule="usable")
    assert [located.record.id for located in reader] == ["1"]
    assert len(reader.failures) == 1


def test_the_documented_example_is_read_and_every_field_of_the_schema_is_documented(folder: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])  # type: ignore[index]
    for name in ("clip.mp4", "scene.png", "stock.pdf", "f1.png", "f2.png"):
        PIL.Image.new("RGB", (64, 64)).save(folder / name, "PNG")
    [pair] = read_pairs(write(folder, example))
    assert pair.query == Item(
        example["query"]["text"], videos=(Clip(folder / "clip.mp4", 4.0, 8.0),), instruction="Find the answer."
    )
    assert pair.positive.images == (folder / "scene.png", Page(folder / "stock.pdf", 2))
    assert len(pair.negatives) == 2
    assert set(example) == set(PairRecord.model_fields)
    tables = set(re.findall(r"`(\w+)`", "\n".join(line for line in text.splitlines() if line.startswith("| `"))))
    documented = {*PairRecord.model_fields, *ItemRecord.model_fields}
    documented |= {*PageRef.model_fields, *StretchRef.model_fields, *FramesRef.model_fields}
    in_braces = set(re.findall(r'"(\w+)"', text))
    assert documented <= tables | in_braces


def test_faults_in_the_docs_are_those_that_are_said(folder: Path) -> None:
    said = []
    for line, field, _ in FAULTS:
        reader = PairReader(write(folder, GOOD, line), on_error="skip")
        list(reader)
        said.append((field, reader.failures[0].message.partition("line 2")[2]))
    text = DOCS.read_text(encoding="utf-8")
    for excerpt in (
        "is not JSON",
        "input should be a valid string, not 2",
        "is not a field of the schema",
        "is empty text",
    ):
        assert excerpt in text
        assert any(excerpt in message for _, message in said)


WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12).map(lambda text: f"w{text}")
PATHS = st.sampled_from(("red.png", "sub/blue.png", "/abs/green.png", "../up.png"))
IMAGES = st.one_of(PATHS, st.builds(PageRef, path=PATHS, page=st.integers(1, 9)))
VIDEOS = st.one_of(
    PATHS,
    st.builds(StretchRef, path=PATHS, start_s=st.floats(0, 9), end_s=st.one_of(st.none(), st.floats(10, 20))),
    st.builds(FramesRef, frames=st.lists(PATHS, min_size=1, max_size=3).map(tuple), fps=st.floats(0.5, 30)),
)
ITEMS = st.builds(
    ItemRecord,
    text=WORDS,
    images=st.lists(IMAGES, max_size=2).map(tuple),
    videos=st.lists(VIDEOS, max_size=2).map(tuple),
    instruction=st.one_of(st.none(), WORDS),
)
RECORDS = st.builds(
    PairRecord,
    id=WORDS,
    dataset=WORDS,
    query=ITEMS,
    positive=ITEMS,
    negatives=st.lists(ITEMS, max_size=2).map(tuple),
    group=st.one_of(st.none(), WORDS),
    target=st.one_of(st.none(), WORDS),
    query_tcot=st.one_of(st.none(), WORDS),
    positive_tcot=st.one_of(st.none(), WORDS),
    leaked=st.booleans(),
)


@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.key), st.sampled_from((".jsonl", ".parquet")))
def test_records_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, records: list[PairRecord], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("records") / f"pairs{suffix}"
    assert write_records(records, path) == len(records)
    reader = PairReader(path, media=False, rule="usable", on_error="skip")
    assert [located.record for located in reader] == records
    assert count_lines(path) == len(records)


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))))
def test_any_bytes_are_read_or_named(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "pairs.jsonl"
    path.write_bytes(data)
    reader = PairReader(path, on_error="skip")
    assert list(reader) == []
    assert len(reader.failures) <= data.count(b"\n") + 1


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=5,
)


@given(st.sampled_from(sorted(PairRecord.model_fields)), JSON_VALUES)
def test_any_value_in_any_field_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    path = write(tmp_path_factory.mktemp("values"), {**GOOD, field: value})
    reader = PairReader(path, on_error="skip")
    assert len(list(reader)) + len(reader.failures) == 1


@given(RECORDS)
def test_moving_a_record_changes_no_file_that_it_means(record: PairRecord) -> None:
    here, there = Path("/data/one"), Path("/data/two/deep")
    moved = record.moved(here, there)
    for (_, one), (_, other) in zip(record.sides(), moved.sides(), strict=True):
        for (place, path), (_, new) in zip(one.paths(), other.paths(), strict=True):
            assert (here / path).resolve() == (there / new).resolve(), place
    assert moved.moved(there, there) == moved


def test_a_folder_of_shards_is_one_file(folder: Path) -> None:
    write(folder, GOOD, name="b.jsonl")
    write_records([PairRecord.model_validate_json(json.dumps({**GOOD, "id": "0"}))], folder / "a.parquet")
    write(folder, GOOD, name="c.jsonl")
    assert [file.name for file in shards(folder)] == ["a.parquet", "b.jsonl", "c.jsonl"]
    reader = PairReader(folder, on_error="skip")
    assert [(located.file.name, located.record.id) for located in reader] == [("a.parquet", "0"), ("b.jsonl", "1")]
    assert "c.jsonl, line 1, id" in reader.failures[0].message
    assert count_lines(folder) == 3


def test_parquet_of_other_hands_names_its_rows(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [GOOD, {**GOOD, "id": "2", "query": {"text": " "}}, {**GOOD, "id": None}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    pq.write_table(pa.table({"id": [b"\x00"]}), folder / "y.parquet")
    reader = PairReader(folder, on_error="skip")
    assert [located.record.id for located in reader] == ["1"]
    assert [failure.source.rpartition("/")[2] for failure in reader.failures[:2]] == ["x.parquet:2", "x.parquet:3"]
    assert "y.parquet, line 1" in reader.failures[2].message


def test_a_file_that_is_no_pair_file_is_refused(folder: Path) -> None:
    (folder / "torn.parquet").write_bytes(b"PAR1 and no more")
    for path in (folder / "none.jsonl", folder / "red.png", folder / "torn.parquet"):
        with pytest.raises(TrainingError):
            list(PairReader(path))
    (folder / "void").mkdir()
    with pytest.raises(TrainingError, match="holds no"):
        list(PairReader(folder / "void"))
    with pytest.raises(TrainingError, match="cannot write"):
        write_records([], folder / "pairs.csv")
    with pytest.raises(InputError):
        PairReader(folder, on_error="ignore")  # type: ignore[arg-type]


def test_a_write_that_fails_leaves_the_old_file(folder: Path) -> None:
    path = write(folder, GOOD)
    before = path.read_text()

    def records() -> Any:
        yield PairRecord.model_validate_json(json.dumps(GOOD))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(records(), path)
    assert path.read_text() == before
    assert sorted(file.name for file in folder.iterdir()) == ["empty.png", "pairs.jsonl", "red.png"]


def test_pairs_go_through_a_file_in_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    pair = TrainingPair("1", "d", Item("q", images=("red.png",)), Item(videos=(Clip(folder / "red.png", 1.0, 2.0),)))
    write_pairs([pair], folder / "deep" / "pairs.jsonl")
    [back] = read_pairs(folder / "deep" / "pairs.jsonl")
    assert isinstance(back.query.images[0], Path)
    assert back.query.images[0].resolve() == folder / "red.png"
    assert back.positive.videos == (Clip(folder / "red.png", 1.0, 2.0),)


def test_pixels_do_not_go_into_a_pair_file(folder: Path) -> None:
    pair = TrainingPair("1", "d", Item(images=(PIL.Image.new("RGB", (8, 8)),)), Item("b"))
    with pytest.raises(InputError, match="holds no pixels"):
        write_pairs([pair], folder / "pairs.jsonl")


def records(*ids: str) -> list[PairRecord]:
    return [PairRecord.model_validate_json(json.dumps({**GOOD, "id": name})) for name in ids]


@given(st.integers(0, 400))
def test_a_file_torn_anywhere_goes_on(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "pairs.jsonl"
    log = RecordLog(path)
    log.append(records("1", "2", "3"))
    log.close()
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    again = RecordLog(path)
    assert again.cut == len(data[:keep]) - len(data[:keep].rpartition(b"\n")[0]) - (b"\n" in data[:keep])
    again.append(record for record in records("1", "2", "3", "4") if record not in again)
    again.close()
    assert [located.record.id for located in PairReader(path)] == ["1", "2", "3", "4"]


def test_a_torn_line_longer_than_a_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(b"one\n" + b"x" * 200_000)
    assert cut_torn_line(path) == 200_000
    assert path.read_bytes() == b"one\n"
    path.write_bytes(b"y" * 200_000)
    assert cut_torn_line(path) == 200_000
    assert cut_torn_line(tmp_path / "none.jsonl") == 0


def test_a_growing_file_belongs_to_its_settings(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    claim(out, {"seed": 1, "leak": 0.0}, resume=False)
    out.touch()
    with pytest.raises(TrainingError, match="exists"):
        claim(out, {"seed": 1, "leak": 0.0}, resume=False)
    claim(out, {"seed": 1, "leak": 0.0}, resume=True)
    with pytest.raises(TrainingError, match=r"other settings \(seed\)"):
        claim(out, {"seed": 2, "leak": 0.0}, resume=True)


def test_a_file_is_never_taken_for_a_folder_nor_a_folder_for_a_file(folder: Path) -> None:
    (folder / "file").write_text("mine")
    (folder / "folder.jsonl").mkdir()
    with pytest.raises(TrainingError, match="is not a folder"):
        write_records(records("1"), folder / "file" / "pairs.jsonl")
    with pytest.raises(TrainingError, match="is not a folder"):
        claim(folder / "file" / "deeper" / "pairs.jsonl", {}, resume=False)
    with pytest.raises(TrainingError, match="is a folder"):
        write_records(records("1"), folder / "folder.jsonl")
    with pytest.raises(TrainingError, match="not begun"):
        claim(folder / "folder.jsonl", {}, resume=True)
    assert (folder / "file").read_text() == "mine"


def test_a_last_line_without_its_end_is_counted(folder: Path) -> None:
    path = write(folder, GOOD)
    path.write_text(path.read_text().rstrip("\n"))
    assert count_lines(path) == len(list(PairReader(path))) == 1
    path.write_text("")
    assert count_lines(path) == 0
