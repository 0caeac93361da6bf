"""What learns and what does not, what the model is shown, and that little memory gives the same gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contrastive_world import small, source, write_start

from ume_retrieval import EmbedderSpec, InputError, ReasoningError
from ume_retrieval.chat import images_of
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.registry import SPECS, resolve_embedder
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.tcot import extract, parse
from ume_training.contrastive import ContrastiveSettings
from ume_training.contrastive.plan import plan_run
from ume_training.contrastive.run import Order, _build
from ume_training.contrastive.shards import StepShards, training_chat
from ume_training.contrastive.start import resolve_start
from ume_training.shapes.pair.architecture import BUDGET, EMBEDDER_SPEC


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_start(tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-VL that is no Embedder yet: no `<emb>`, no row for it, no `ume.json`."""
    return write_start(tmp_path_factory.mktemp("plain"), pooled="<other>", spec=None)


def prepared(settings: ContrastiveSettings, *, hard: int = 0) -> tuple[Any, StepShards]:
    sources = (source("image_change", 2, hard=hard), source("text_to_video", 2, hard=hard))
    plan = plan_run(sources, settings)
    order = Order(settings, sources, None, plan, resolve_start(settings.embedder, settings.spec), Path())
    torch.manual_seed(0)
    encoder, processor, facts = _build(order, "cpu")
    shards = StepShards(
        plan=plan,
        sources=sources,
        processor=processor,
        spec=facts.spec,
        processes=1,
        slots=settings.batch,
        sub_batch=settings.sub_batch,
        mini_batch=settings.mini_batch,
        negatives=settings.negatives,
        pixel_dtype=torch.float32,
    )
    return encoder.train(), shards


def gradients(encoder: Any, shards: StepShards) -> dict[str, torch.Tensor | None]:
    vectors = encoder(shards[0].chunks, shards.slots * (2 + shards.negatives))
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(1))
    (vectors * weights).sum().backward()
    return {name: parameter.grad for name, parameter in encoder.named_parameters()}


def test_adapters_leave_the_vision_tower_alone(start: Path) -> None:
    encoder, shards = prepared(small(start))
    with torch.no_grad():  # adapters start as zero on one side, and would pass no gradient to the other
        for name, parameter in encoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    found = gradients(encoder, shards)
    vision = [name for name in found if ".visual." in name]
    assert len(vision) > 20
    assert not [name for name in vision if "lora" in name or found[name] is not None]
    learning = {name for name, gradient in found.items() if gradient is not None and bool(gradient.any())}
    layers = [name for name in found if "language_model.layers" in name and "lora" in name]
    assert len(layers) == 2 * 7 * 2
    assert learning == set(layers)


def test_a_new_token_gets_a_row_that_learns(plain: Path) -> None:
    encoder, shards = prepared(small(plain, spec=EMBEDDER_SPEC))
    embedding = encoder.backbone.get_input_embeddings().weight
    assert encoder.pooled_token == embedding.shape[0] - 1 == encoder.row.token
    torch.testing.assert_close(encoder.row.weight.data, embedding.data[:-1].mean(0))
    found = gradients(encoder, shards)
    assert found["row.weight"] is not None
    assert found["row.weight"].abs().max() > 0
    assert embedding.grad is None
    before = encoder(shards[0].chunks, 16).detach()
    encoder.row.weight.data += 1.0
    assert (encoder(shards[0].chunks, 16) - before).abs().max() > 1e-3


def test_a_known_token_gets_no_row_of_its_own(start: Path) -> None:
    encoder, _ = prepared(small(start))
    assert encoder.row is None


@pytest.mark.parametrize("tower", ["frozen", "trained"])
def test_without_adapters_freezing_the_vision_tower_is_a_setting(start: Path, tower: str) -> None:
    encoder, shards = prepared(small(start, lora=None, vision_tower=tower, trace_share=1.0))
    found = gradients(encoder, shards)
    vision = {name for name in found if ".visual." in name}
    learning = {name for name, gradient in found.items() if gradient is not None and bool(gradient.any())}
    assert bool(learning & vision) == (tower == "trained")
    assert any("language_model.layers.0" in name for name in learning)
    assert next(encoder.parameters()).dtype == torch.float32


@pytest.mark.parametrize("mini_batch", [1, 3])
def test_gradients_do_not_depend_on_how_many_inputs_pass_at_once(start: Path, mini_batch: int) -> None:
    expected = gradients(*prepared(small(start, mini_batch=64)))
    found = gradients(*prepared(small(start, mini_batch=mini_batch)))
    for name, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("family", ["embed-rl", "qwen3-vl-embedding"])
def test_training_sees_what_a_search_sees(start: Path, share: float, family: str) -> None:
    spec = EMBEDDER_SPEC.model_copy(update={"family": family})
    encoder, shards = prepared(small(start, lora=None, trace_share=share, spec=spec))
    shard = shards[0]
    assert shard.traced == (shard.inputs if share else 0)
    vectors = encoder.eval()(shard.chunks, 16).detach().numpy()
    engine = TransformersEmbedder.from_pretrained(str(start), spec=spec, device="cpu")
    for slot in range(8):
        number, place = divmod(slot, shards.sub_batch)
        part = shards.plan.steps[0][number]
        pair = shards.sources[part.source][part.rows[place]]
        for kind, (item, text) in enumerate(((pair.query, pair.query_tcot), (pair.positive, pair.positive_tcot))):
            tcot = parse(str(text), images=len(item.images)) if share else None
            evidence = extract(tcot, item, BUDGET.evidence_images) if tcot else None
            expected = engine.embed([embedding_chat(spec, item, tcot, evidence)]).vectors[0]
            np.testing.assert_allclose(vectors[kind * 8 + slot], expected, atol=1e-5)


def test_a_trace_brings_its_crops() -> None:
    pair = source("image_change", 1)[0]
    direct = training_chat(EMBEDDER_SPEC, pair.query, None)
    reasoned = training_chat(EMBEDDER_SPEC, pair.query, pair.query_tcot)
    boxes = parse(str(pair.query_tcot)).boxes
    assert boxes
    assert len(images_of(reasoned)) == len(images_of(direct)) + len(boxes)


def test_a_trace_that_says_nothing_is_refused() -> None:
    pair = source("text_to_image", 1)[0]
    with pytest.raises(ReasoningError, match="cannot be used"):
        training_chat(EMBEDDER_SPEC, pair.query, "<thinking></thinking>")


def test_hard_negatives_take_places_behind_the_pairs(start: Path) -> None:
    encoder, shards = prepared(small(start, negatives=3), hard=2)
    shard = shards[0]
    assert shard.negative_valid.sum(1).tolist() == [2] * 8
    assert shard.inputs == 8 * 4
    assert sorted(place for chunk in shard.chunks for place in chunk.places) == [
        *range(16),
        *(16 + 3 * slot + number for slot in range(8) for number in (0, 1)),
    ]
    vectors = encoder(shard.chunks, 8 * 5)
    torch.testing.assert_close(vectors.norm(dim=1)[:16], torch.ones(16))
    assert not bool(vectors[18::3].any())


def test_starts_are_understood(start: Path, plain: Path) -> None:
    assert resolve_start(str(start)).spec == EMBEDDER_SPEC
    assert resolve_start(str(plain)).spec == EmbedderSpec(family="embed-rl")
    assert resolve_start("Qwen/Qwen3-VL-2B-Instruct").model == "Qwen/Qwen3-VL-2B-Instruct"
    assert resolve_start("qwen3-vl-embedding-2b").spec == resolve_embedder("qwen3-vl-embedding-2b").spec
    assert resolve_start("qwen3-vl-embedding-2b").spec.family == SPECS["qwen3-vl-embedding"].family
    bundled = resolve_start("ume-tiny")
    assert bundled.spec.family == "embed-rl"
    with pytest.raises(InputError, match="sentence-transformers"):
        resolve_start("jinaai/jina-clip-v2")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"batch": 6, "sub_batch": 4}, "not a multiple"),
        ({"batch": 4, "sub_batch": 1}, "at least 2"),
        ({"vision_tower": "trained"}, "leave the vision tower alone"),
        ({"trace_share": 1.5}, "less than or equal to 1"),
        ({"tower": 1}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ContrastiveSettings.model_validate({"embedder": "x", **changes})


def test_defaults_are_the_papers() -> None:
    settings = ContrastiveSettings(embedder="x")
    assert (settings.batch, settings.sub_batch, settings.epochs, settings.learning_rate) == (512, 256, 2.0, 1e-4)
    assert (settings.warmup_steps, settings.weight_decay, settings.logit_scale) == (10, 0.01, 50.0)
    assert settings.lora is not None
    assert (settings.lora.r, settings.lora.alpha) == (64, 128.0)
