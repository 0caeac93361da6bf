"""The dry run counts what the models hold, and names what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shapes_pairs import write_shapes_pairs

from ume_training.recipes.planning import memory
from ume_training.recipes.planning.estimates import MEASURED, tiny_architecture
from ume_training.recipes.planning.memory import GB, HEADROOM, Memory
from ume_training.recipes.planning.plan import Machine, count_pairs, plan_recipe
from ume_training.recipes.planning.sizes import PUBLISHED, Architecture, architecture_of
from ume_training.recipes.schema import bundled_recipes, load_recipe, parse_recipe
from ume_training.recipes.stages import SizeSettings
from ume_training.shapes.pair.architecture import Size, build_model
from ume_training.shapes.pair.tokenizer import build_tokenizer

NO_GPU = Machine(gpu=0, disk=10**15)
H100 = Machine(gpu=80 * GB, disk=10**15)


def qwen3_vl(size: Architecture) -> Any:
    """The model of that size without weights."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            "vocab_size": size.vocabulary,
            "hidden_size": size.hidden,
            "intermediate_size": size.intermediate,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "num_key_value_heads": size.kv_heads,
            "head_dim": size.head_dim,
            "tie_word_embeddings": size.tied,
        },
        vision_config={
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_intermediate,
            "num_heads": 16,
            "out_hidden_size": size.hidden,
            "num_position_embeddings": size.vision_positions,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "deepstack_visual_indexes": list(range(size.deepstack)),
        },
        tie_word_embeddings=size.tied,
    )
    with torch.device("meta"):
        return Qwen3VLForConditionalGeneration(config)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("Qwen/Qwen3-VL-2B-Instruct", 2_127_532_032),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
    ],
)
def test_parameters_are_counted_as_transformers_builds_them(name: str, parameters: int) -> None:
    size = PUBLISHED[name]
    model = qwen3_vl(size)
    assert size.parameters == parameters == sum(weight.numel() for weight in model.parameters())
    assert size.vision == sum(weight.numel() for weight in model.model.visual.parameters())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")  # peft still asks by the old name
def test_adapters_are_counted_as_peft_adds_them() -> None:
    from peft import LoraConfig, get_peft_model

    size = PUBLISHED["Qwen/Qwen3-VL-2B-Instruct"]
    layers = r".*language_model\.layers\.\d+\..*_proj"
    model = get_peft_model(qwen3_vl(size), LoraConfig(r=64, target_modules=layers))
    assert size.adapters(64) == sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def test_the_small_pair_is_counted_as_it_is_built() -> None:
    tokenizer = build_tokenizer("<emb>")
    model = build_model(tokenizer, Size(), seed=0)
    planned = tiny_architecture(SizeSettings())
    assert planned.vocabulary == len(tokenizer)
    assert planned.parameters == sum(weight.numel() for weight in model.parameters())
    bundled = architecture_of("ume-tiny")
    assert bundled is not None
    assert abs(bundled.parameters - planned.parameters) < 10 * planned.hidden  # its tokenizer has a few tokens more


def test_a_folder_says_its_size_and_nonsense_none(random_pair: Path, tmp_path: Path) -> None:
    size = architecture_of(str(random_pair / "reasoner"))
    assert size is not None
    assert (size.hidden, size.layers, size.vision_layers) == (64, 2, 2)
    (tmp_path / "config.json").write_text('{"text_config": []}')
    assert architecture_of(str(tmp_path)) is None
    assert architecture_of("nobody/knows") is None


def test_memory_by_hand() -> None:
    size = PUBLISHED["Qwen/Qwen3-VL-2B-Instruct"]
    assert memory.weights(size, number_bytes=2, rank=None) == 2 * 2_127_532_032
    assert memory.weights(size, number_bytes=2, rank=64) == 2 * 2_127_532_032 + 4 * 69_730_304
    assert memory.trained(size, rank=None, vision=False) == size.parameters - size.vision
    assert memory.kv_cache(size, sequences=2, tokens=1000, number_bytes=2) == 2 * 1000 * 28 * 2 * 8 * 128 * 2
    assert memory.logits(size, tokens=10) == 10 * 151_936 * 8
    full, less = (memory.activations(size, tokens=100, number_bytes=2, checkpointing=on) for on in (False, True))
    assert full == 100 * 2 * 28 * (4 * 2048 + 2 * 32 * 128 + 16 * 128 + 4 * 6144)
    assert less < full / 10
    assert Memory(weights=3, kv_cache=5, activations=2).total == 8


def test_every_bundled_recipe_has_a_plan() -> None:
    for name in bundled_recipes():
        plan = plan_recipe(load_recipe(name), Path(), machine=H100)
        assert len(plan.stages) == len(load_recipe(name).stages)
        assert plan.to_dict()["recipe"] == name


def test_the_80_gb_recipe_fits_80_gb_and_the_papers_does_not() -> None:
    fits = plan_recipe(load_recipe("embed-rl-2b-lora-80gb"), Path(), machine=H100)
    assert not [one for one in fits.missing if one.kind == "gpu"]
    trained = {stage.name: stage.memory for stage in fits.stages if stage.memory}
    assert set(trained) == {"contrastive", "egrl"}
    assert all(held.total * HEADROOM < 80 * GB for held in trained.values())
    paper = plan_recipe(load_recipe("embed-rl-2b"), Path(), machine=H100)
    assert [one.what for one in paper.missing if one.kind == "gpu"]


def test_zero2_divides_gradients_and_optimizer() -> None:
    recipe = load_recipe("embed-rl-2b")
    plans = (plan_recipe(recipe, Path(), machine=H100, processes=8, shards=shards) for shards in (1, 8))
    one, other = (next(stage.memory for stage in plan.stages if stage.name == "egrl") for plan in plans)
    assert one is not None
    assert other is not None
    assert other.gradients == one.gradients // 8
    assert other.weights == one.weights


def test_time_is_told_only_where_it_was_measured() -> None:
    plans = {stage.name: stage for stage in plan_recipe(load_recipe("shapes-small"), Path(), machine=NO_GPU).stages}
    assert plans["captions"].seconds == 700 / MEASURED["captions"].steps_per_s
    assert plans["egrl"].seconds is None
    smaller = {stage.name: stage for stage in plan_recipe(load_recipe("shapes-test"), Path(), machine=NO_GPU).stages}
    assert smaller["captions"].seconds is None  # another size than was measured


def test_what_is_missing_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_recipe(load_recipe("embed-rl-2b"), Path(), machine=NO_GPU)
    found = [(one.kind, one.what) for one in plan.missing]
    assert ("file", "data/pairs.jsonl") in found
    assert len(found) == len(set(found))
    assert plan.pairs is None
    assert all(one.fix for one in plan.missing)
    full = plan_recipe(load_recipe("shapes-small"), Path(), machine=Machine(gpu=0, disk=1000))
    assert [one.kind for one in full.missing] == ["disk"]
    assert plan_recipe(load_recipe("shapes-small"), Path(), machine=NO_GPU).missing == ()


def test_steps_follow_from_the_data(tmp_path: Path) -> None:
    pairs = write_shapes_pairs(
        tmp_path, tasks=("text_to_image",), level="default", group_size=2, count=12, traces="true"
    )
    recipe = parse_recipe(
        f"""\
name: counted
description: two passes over twelve pairs
data: {{pairs: ['{pairs}']}}
stages:
  - {{stage: contrastive, settings: {{embedder: ume-tiny, batch: 4, sub_batch: 4}}}}
  - {{stage: egrl, settings: {{reasoner: ume-tiny, embedder: ume-tiny, discriminator: words, pairs: 5}}}}
  - {{stage: score, reasoner: nobody-knows, embedder: nobody/knows}}
""",
        "counted.yaml",
    )
    assert count_pairs(recipe) == 12
    plan = plan_recipe(recipe, tmp_path, machine=NO_GPU)
    assert [stage.steps for stage in plan.stages] == [6, 2, None]
    assert [(one.kind, one.what) for one in plan.missing] == [("model", "nobody-knows"), ("model", "nobody/knows")]


def test_steps_by_weights_are_not_guessed(tmp_path: Path) -> None:
    path = write_shapes_pairs(tmp_path, tasks=["text_to_image"], count=16)
    weights = "weights: {shapes/text_to_image: 2}"
    recipe = parse_recipe(
        f"""\
name: weighed
description: a data set read twice
data: {{pairs: ['{path}'], {weights}}}
stages:
  - {{stage: contrastive, settings: {{embedder: ume-tiny, batch: 4, sub_batch: 4}}}}
""",
        "weighed.yaml",
    )
    assert plan_recipe(recipe, tmp_path, machine=NO_GPU).stages[0].steps is None
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"weights": {}})})
    assert plan_recipe(plain, tmp_path, machine=NO_GPU).stages[0].steps == 8
