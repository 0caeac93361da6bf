"""Prompts from a file: read, refused by name, and a version that changes with the wording."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ume_qdrant import EdgeStore, index, search
from ume_retrieval import InputError, Prompts, ReasoningEmbedder
from ume_retrieval.engines import load as engines
from ume_retrieval.engines.load import ENGINES, Engine, LoadOptions
from ume_retrieval.engines.registry import Resolved
from ume_retrieval.errors import StoreMismatch
from ume_retrieval.tcot import DEFAULT_PROMPTS
from ume_retrieval.testing import FakeReasoner, HashEmbedder

EXAMPLE = Path(__file__).parents[2] / "examples" / "prompts.toml"
WORDING = DEFAULT_PROMPTS.model_dump(exclude={"version"})


def write(path: Path, fields: dict[str, object]) -> Path:
    path.write_text(json.dumps(fields), encoding="utf-8")
    return path


def test_both_formats_hold_the_same_prompts(tmp_path: Path) -> None:
    as_json = write(tmp_path / "prompts.json", {"version": "7", **WORDING})
    as_toml = tmp_path / "prompts.toml"
    lines = [f"{name} = '''\n{wording}'''" for name, wording in WORDING.items()]
    as_toml.write_text("\n".join(['version = "7"', *lines]), encoding="utf-8")
    assert Prompts.from_file(as_json) == Prompts.from_file(str(as_toml))
    assert Prompts.from_file(as_json) == DEFAULT_PROMPTS.model_copy(update={"version": "7"})


def test_without_a_version_the_wording_is_the_version(tmp_path: Path) -> None:
    first = Prompts.from_file(write(tmp_path / "a.json", WORDING))
    same = Prompts.from_file(write(tmp_path / "b.json", dict(reversed(WORDING.items()))))
    other = Prompts.from_file(write(tmp_path / "c.json", {**WORDING, "corpus_image": "Look: {text}"}))
    assert first.version == same.version
    assert first.version.startswith("sha256:")
    assert other.version != first.version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"query_text": "Find {text}",\n\n oops}', "line 3"),
        ("[]", "no table of prompts"),
        (json.dumps({"query_text": "{text}"}), "query_image is missing"),
        (json.dumps({**WORDING, "query_sound": "{text}"}), "query_sound is not a prompt"),
        (json.dumps({**WORDING, "corpus_text": 3}), "corpus_text"),
        (json.dumps({**WORDING, "corpus_text": "Describe it."}), "corpus_text lacks \\{text\\}"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_line_or_field(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        Prompts.from_file(path)


def test_a_misspelt_field_is_named_before_the_one_that_it_leaves_missing(tmp_path: Path) -> None:
    fields = {name.replace("corpus_text", "corpus_txt"): wording for name, wording in WORDING.items()}
    with pytest.raises(InputError, match="corpus_txt is not a prompt") as caught:
        Prompts.from_file(write(tmp_path / "prompts.json", fields))
    assert caught.value.hint == "did you mean corpus_text?"


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.toml").write_text("query_text = 'a\n")
    (tmp_path / "prompts.yaml").write_text("a: b")
    for name in ("bytes.json", "broken.toml", "prompts.yaml", "none.json"):
        with pytest.raises(InputError, match=name):
            Prompts.from_file(tmp_path / name)


def test_the_example_can_be_used() -> None:
    prompts = Prompts.from_file(EXAMPLE)
    assert all("<answer>" in wording for name, wording in prompts.model_dump().items() if name != "version")


@pytest.fixture(autouse=True)
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose Reasoner says what it was told of itself."""

    def reasoner(resolved: Resolved, _: LoadOptions) -> FakeReasoner:
        assert resolved.spec.role == "reasoner"
        return FakeReasoner(spec=resolved.spec)

    fake = Engine(lambda _resolved, _options: HashEmbedder(), reasoner)
    monkeypatch.setattr(engines, "ENGINES", {**ENGINES, "fake": fake})


def load(prompts: Prompts | Path | None) -> ReasoningEmbedder:
    return ReasoningEmbedder.from_pretrained("ume-tiny", engine="fake", cache=None, prompts=prompts)


def test_a_loaded_reasoner_is_asked_with_them(tmp_path: Path) -> None:
    path = write(tmp_path / "prompts.json", WORDING)
    assert load(path).info.prompt_version == Prompts.from_file(path).version
    assert load(DEFAULT_PROMPTS).reasoner.spec.prompts == DEFAULT_PROMPTS  # type: ignore[union-attr]  # it has one
    assert load(None).info.prompt_version not in {Prompts.from_file(path).version, DEFAULT_PROMPTS.version}


def test_without_a_reasoner_to_load_they_are_refused() -> None:
    for reasoner in (None, FakeReasoner()):
        with pytest.raises(InputError, match="prompts go to a Reasoner"):
            ReasoningEmbedder.from_pretrained("ume-tiny", reasoner=reasoner, engine="fake", prompts=DEFAULT_PROMPTS)


def test_a_collection_refuses_other_wording(tmp_path: Path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("a red circle")
    first = write(tmp_path / "a.json", WORDING)
    other = write(tmp_path / "b.json", {**WORDING, "query_text": "Find: {text}"})
    with EdgeStore(tmp_path / "store", "notes") as store:
        index(load(first), store, text, reasoning="always", strict=True)
        assert store.meta().prompt_version == Prompts.from_file(first).version
        assert len(search(load(first), store, "circle", reasoning="always").hits) == 1
        with pytest.raises(StoreMismatch):
            search(load(other), store, "circle", reasoning="always")
