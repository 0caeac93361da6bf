"""Recipes are refused with file, line and reason, and every key is documented."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ume_retrieval import InputError, UmeError
from ume_training.data.judge import words_share
from ume_training.recipes.schema import (
    Recipe,
    RecipeData,
    bundled_recipes,
    load_recipe,
    parse_recipe,
    recipe_path,
    references,
)
from ume_training.recipes.stages import ContrastiveStage, EgrlStage, ExportStage, FilterStage, Stage

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def reference_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_reference", DOCUMENT.parent / "tools" / "recipe_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = reference_tool()

GOOD = """\
name: good
description: what it is for
data:
  shapes: {level: default}
stages:
  - stage: captions
    schedule: {steps: 3, learning_rate: 1e-3}
  - stage: traces
    schedule:
      steps: 4
      learning_rate: 0.002
  - stage: score
    reasoner: stage:traces
    embedder: ume-tiny
"""


def test_a_good_recipe_says_what_it_says() -> None:
    recipe = parse_recipe(GOOD, "good.yaml")
    captions, traces, score = recipe.stages
    assert [stage.name for stage in recipe.stages] == ["captions", "traces", "score"]
    assert captions.schedule.learning_rate == 0.001  # type: ignore[union-attr]  # 1e-3 is a text in YAML 1.1
    assert traces.schedule.value().steps == 4  # type: ignore[union-attr]
    assert [(one.place, one.stage) for one in references(score)] == [(("reasoner",), "traces")]
    assert recipe.seed == 0


@pytest.mark.parametrize(
    ("before", "after", "line", "reason"),
    [
        ("name: good", "name: good\nsede: 3", 2, "sede: unknown key"),
        ("steps: 4", "steps: 0", 10, "stages[1].schedule.steps: Input should be greater than 0"),
        ("steps: 4", "steps: four", 10, "stages[1].schedule.steps: Input should be a valid integer"),
        ("steps: 4", "step: 4", 10, "stages[1].schedule.step: unknown key"),
        ("      steps: 4\n", "", 9, "stages[1].schedule.steps: this key is missing"),
        ("level: default", "level: easy", 4, "data.shapes.level: Input should be"),
        ("stage: traces", "stage: trace", 8, "does not match any of the expected tags"),
        ("stage:traces", "stage:tracks", 13, "no stage before this one is called 'tracks'"),
        ("stage:traces", "stage:traces/rejected", 13, "the stage traces makes no 'rejected'"),
        ("embedder: ume-tiny", "embedder: stage:score", 14, "no stage before this one is called 'score'"),
        ("  shapes: {level: default}", "  pairs: [a.jsonl]", 6, "captions learns from the Shapes world"),
        ("  shapes: {level: default}", "  weights: {}", 3, "give either `pairs` or `shapes`"),
        ("stage: captions", "stage: captions\n    name: first", 7, "is called as its kind"),
        ("  - stage: score", "  - stage: score\n    name: traces", 13, "two stages are called 'traces'"),
        ("name: good", "name: good\nname: again", 2, "the key 'name' is given twice"),
        ("name: good", "name: [good", 2, "expected"),
        ("steps: 4", "steps: !!python/object/apply:os.getcwd []", 10, "could not determine a constructor"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_line(before: str, after: str, line: int, reason: str) -> None:
    assert before in GOOD
    with pytest.raises(InputError) as caught:
        parse_recipe(GOOD.replace(before, after, 1), "mine.yaml")
    assert caught.value.message.startswith("mine.yaml, line ")
    assert re.search(rf"line {line}: [^;]*{re.escape(reason)}", caught.value.message), caught.value.message
    assert caught.value.hint


def test_pairs_and_models_are_not_taken_for_each_other() -> None:
    text = """\
name: swapped
description: a model where pairs are due
data: {pairs: [a.jsonl]}
stages:
  - {stage: annotate, reasoner: ume-tiny}
  - {stage: filter, judge: words}
  - stage: contrastive
    data: stage:filter
    settings: {embedder: stage:annotate}
  - stage: egrl
    data: stage:contrastive
    settings: {}
"""
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "mine.yaml")
    assert "line 9: stages[2].settings.embedder: the stage annotate makes pairs, not a model" in caught.value.message
    assert "line 11: stages[3].data: the stage contrastive makes a model, not pairs" in caught.value.message


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    with pytest.raises(UmeError):
        parse_recipe(text, "any.yaml")


KEYS = st.sampled_from(["name", "stages", "data", "stage", "schedule", "seed", "pairs"])
PLAIN = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
VALUES = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


@given(VALUES)
def test_no_values_crash_the_reader(value: Any) -> None:
    import yaml

    with pytest.raises(UmeError):
        parse_recipe(yaml.safe_dump({"name": "x", "description": "y", "data": value, "stages": [value]}), "any.yaml")


def test_every_bundled_recipe_is_right() -> None:
    assert set(bundled_recipes()) == {
        "embed-rl-2b",
        "embed-rl-2b-lora-80gb",
        "embed-rl-4b",
        "shapes",
        "shapes-small",
        "shapes-test",
    }
    for name in bundled_recipes():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert isinstance(recipe.stages[-1], ExportStage)


@pytest.mark.parametrize(
    ("name", "batch", "sub_batch", "lora"), [("embed-rl-2b", 512, 256, (64, 128)), ("embed-rl-4b", 256, 128, (96, 192))]
)
def test_the_papers_recipes_have_the_papers_settings(
    name: str, batch: int, sub_batch: int, lora: tuple[int, int]
) -> None:
    recipe = load_recipe(name)
    contrastive, egrl = recipe.stage("contrastive"), recipe.stage("egrl")
    assert isinstance(contrastive, ContrastiveStage)
    assert isinstance(egrl, EgrlStage)
    first, second = contrastive.settings, egrl.settings
    assert first.lora is not None
    assert (first.batch, first.sub_batch, (first.lora.r, first.lora.alpha)) == (batch, sub_batch, lora)
    assert (first.epochs, first.learning_rate, first.schedule, first.warmup_steps) == (2, 1e-4, "cosine", 10)
    assert (first.weight_decay, first.logit_scale, first.trace_share) == (0.01, 50, 1.0)
    assert (second.rollouts, second.epsilon, second.kl, second.learning_rate) == (8, 0.2, 0.01, 3e-6)
    assert (second.epochs, second.top, second.negative_temperature) == (1, 8, 0.5)
    assert (second.weights.format, second.weights.process, second.weights.outcome) == (0.05, 0.8, 0.2)
    assert second.reasoner == "qwen3-vl-8b"
    assert second.pairs * 2 == 256


def test_a_recipe_that_is_not_there_names_near_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        recipe_path("shapes-smal")
    assert "shapes-small" in caught.value.hint
    # A file in the working folder wins over a bundled name.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").write_text(GOOD)
    assert load_recipe("shapes").name == "good"


def test_every_key_is_documented() -> None:
    seen: list[type[BaseModel]] = [Recipe, RecipeData, Stage, *TOOL.SHARED, *TOOL.stage_kinds()]
    for model in seen:
        for key, kind, _, meaning in TOOL.rows(model):
            assert key == "stage" or meaning, f"{model.__name__}.{key} has no docstring"
            assert kind


def test_the_document_is_made_from_the_schema() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert TOOL.rewritten(text) == text, "run `make docs`"
    written = TOOL.render()
    for kind in TOOL.stage_kinds():
        for key in kind.model_fields.keys() - {"stage"}:
            assert f"| `{key}` |" in written


def test_docstrings_are_found_where_they_are_inherited() -> None:
    assert TOOL.field_docs(EgrlStage)["name"].startswith("Name of the stage's folder")
    assert re.match("Pairs to learn from", TOOL.field_docs(EgrlStage)["data"])


def test_models_are_taken_for_what_they_are_and_names_are_free() -> None:
    text = """\
name: roles
description: each model in the place of the other
data: {shapes: {level: default}}
stages:
  - {stage: contrastive, settings: {embedder: ume-tiny}}
  - {stage: egrl, settings: {embedder: 'stage:contrastive', reasoner: 'stage:contrastive'}}
  - {stage: contrastive, name: again, settings: {embedder: 'stage:egrl'}}
  - {stage: score, reasoner: 'stage:egrl', embedder: 'stage:egrl'}
  - {stage: export, name: replaced, reasoner: 'stage:again'}
"""
    with pytest.raises(InputError) as caught:
        parse_recipe(text, "mine.yaml")
    for told in (
        "line 6: stages[1].settings.reasoner: the stage contrastive makes the embedder, not the reasoner",
        "line 8: stages[3].embedder: the stage egrl makes the reasoner, not the embedder",
        "line 9: stages[4].reasoner: the stage again makes the embedder, not the reasoner",
        "line 9: stages[4].name: replaced/ is where",
    ):
        assert told in caught.value.message
    assert caught.value.message.count("line ") == 4


@pytest.mark.parametrize("judge", ["words:half", "words:2", "words:-1", "words:nan"])
def test_a_judge_of_no_share_is_refused(judge: str) -> None:
    text = GOOD.replace(
        "  - stage: captions", f"  - {{stage: filter, data: data, judge: '{judge}'}}\n  - stage: captions"
    )
    with pytest.raises(InputError, match=rf"line 6: stages\[0\]\.judge: '{judge}' is not a judge"):
        parse_recipe(text, "mine.yaml")


@pytest.mark.parametrize(
    ("judge", "share"), [("words", 0.5), ("words:0.75", 0.75), ("words:1", 1.0), ("ume-tiny", None)]
)
def test_a_judge_says_its_share_of_words(judge: str, share: float | None) -> None:
    assert words_share(FilterStage(stage="filter", judge=judge).judge) == share


def test_keys_of_the_last_release_are_read_with_a_warning() -> None:
    new = GOOD + (
        "  - {stage: vectors, group_size: 2, warm_start: {steps: 1, learning_rate: 1e-3}, "
        "schedule: {steps: 1, learning_rate: 1e-3}}\n"
        "  - {stage: annotate, reasoner: ume-tiny, answer_hint_prob: 0.5}\n"
    )
    new = new.replace("{level: default}", "{level: default, group_size: 2}")
    old = new.replace("group_size", "kin").replace("warm_start", "apart").replace("answer_hint_prob", "leak_share")
    with pytest.warns(FutureWarning, match="is now") as warned:
        assert parse_recipe(old, "old.yaml") == parse_recipe(new, "new.yaml")
    assert {str(one.message) for one in warned} == {
        "`kin` is now `group_size`",
        "`apart` is now `warm_start`",
        "`leak_share` is now `answer_hint_prob`",
    }
    both = new.replace("group_size: 2, warm_start", "group_size: 2, kin: 2, warm_start")
    with pytest.raises(InputError, match="kin: unknown key"):
        parse_recipe(both, "both.yaml")
