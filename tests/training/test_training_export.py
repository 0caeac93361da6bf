"""Exported checkpoints load by themselves, here and in sentence-transformers, and their cards say what was measured."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from contrastive_world import small, source, write_start
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ume_retrieval import EmbedderSpec, InputError, Item, ReasonerSpec, ReasoningEmbedder
from ume_retrieval.checkpoint import read_spec
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.errors import IncompatibleModel
from ume_training.contrastive import train_contrastive
from ume_training.contrastive.run import read_facts
from ume_training.export import Card, Score, StageFact, card_of_run, export, merge_embedder, render_card
from ume_training.export.stock import stock_template, write_stock_modules
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, REASONER_SPEC


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run from a model without `<emb>`, with adapters and Matryoshka dimensions."""
    folder = tmp_path_factory.mktemp("export")
    start = write_start(folder / "start", pooled="<other>", spec=None)
    settings = small(start, spec=EMBEDDER_SPEC, steps=4, matryoshka_dims=(8, 16), learning_rate=1e-2)
    train_contrastive(settings, [source("text_to_image", 2), source("image_change", 2)], folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    card = card_of_run(read_facts(run), "tiny")
    return export(run, run.parent / "out", card=card).folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("model."): value for name, value in load_file(folder / "model.safetensors").items()}


def messages(items: list[Any]) -> list[Any]:
    return [
        [
            {
                "role": "user",
                "content": [
                    *({"type": "image", "image": image} for image in item.images),
                    *([{"type": "text", "text": item.text}] if item.text else []),
                ],
            }
        ]
        for item in items
    ]


def test_the_checkpoint_describes_itself(exported: Path) -> None:
    spec = read_spec(exported)
    assert isinstance(spec, EmbedderSpec)
    assert spec == EMBEDDER_SPEC.model_copy(update={"matryoshka_dims": (8, 16, 32)})
    config = json.loads((exported / "config.json").read_text())
    tokenizer = json.loads((exported / "tokenizer.json").read_text())
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert config["emb_token_ids"] == [ids["<emb>"]]
    assert config["architectures"] == ["Qwen3VLForConditionalGeneration"]
    assert not list(exported.glob("adapter*"))
    assert (exported / "README.md").read_text().startswith("---\n")


def test_vision_weights_are_the_base_s_to_the_bit_and_language_layers_are_not(run: Path, exported: Path) -> None:
    before, after = state(run.parent / "start"), state(exported)
    vision = [name for name in before if name.startswith("visual.")]
    assert len(vision) > 20
    assert all(torch.equal(before[name], after[name]) for name in vision)
    layers = [name for name in before if re.search(r"language_model\.layers\.\d+\..*_proj\.weight", name)]
    assert len(layers) == 2 * 7
    assert not any(torch.equal(before[name], after[name]) for name in layers)


def test_the_new_row_is_the_learned_one(run: Path, exported: Path) -> None:
    before, after = (state(folder)["language_model.embed_tokens.weight"] for folder in (run.parent / "start", exported))
    assert after.shape[0] == before.shape[0] + 1
    assert torch.equal(after[:-1], before)
    learned = load_file(run / "trained" / "emb_row.safetensors")["weight"]
    assert torch.equal(after[-1], learned)
    assert (learned - before.mean(0)).abs().max() > 1e-4


def test_merged_weights_give_the_vectors_of_the_adapters(run: Path, exported: Path) -> None:
    from ume_training.contrastive.plan import plan_run
    from ume_training.contrastive.run import Order, _build
    from ume_training.contrastive.start import resolve_start

    settings = read_facts(run).settings
    sources = [source("text_to_image", 2), source("image_change", 2)]
    start = resolve_start(settings.embedder, settings.spec)
    encoder, _, _ = _build(Order(settings, sources, None, plan_run(sources, settings), start, run), "cpu")
    encoder.restore(run / "trained")
    ours = ReasoningEmbedder.from_pretrained(exported, device="cpu", cache=None)
    item = sources[1][0].query
    chat = [*_chats(ours, [item])]
    tensors = ours.embedder._inputs.tensors(chat)  # type: ignore[attr-defined]
    with torch.no_grad():
        unmerged = encoder.eval().embed(tensors).numpy()
    np.testing.assert_allclose(ours.encode_corpus([item], reasoning="never"), unmerged, atol=1e-5)


def _chats(embedder: ReasoningEmbedder, items: list[Any]) -> list[Any]:
    from ume_retrieval.engines.families import embedding_chat

    return [embedding_chat(embedder.embedder.spec, item, None, None) for item in items]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("family", ["embed-rl", "qwen3-vl-embedding"])
def test_sentence_transformers_gives_the_same_vectors(run: Path, exported: Path, family: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = exported
    if family != "embed-rl":
        spec = EMBEDDER_SPEC.model_copy(update={"family": family})
        settings = small(run.parent / "start", spec=spec, steps=1)
        train_contrastive(settings, [source("image_change", 2)], tmp_path / "run")
        folder = merge_embedder(tmp_path / "run", tmp_path / "out")
    ours = ReasoningEmbedder.from_pretrained(folder, device="cpu", cache=None)
    theirs = SentenceTransformer(str(folder), device="cpu", trust_remote_code=False)
    rng = random.Random(3)
    pairs = [*source("image_change", 2).pairs, *source("text_to_image", 1).pairs]
    items: list[Any] = [side.item(rng) for pair in pairs for side in (pair.query, pair.positive)]
    large = PIL.Image.effect_noise((230, 170), 60).convert("RGB")
    items += [Item(images=(large,)), Item(text="a large one", images=(large,))]
    vectors = ours.encode_corpus(items, reasoning="never")
    found = theirs.encode(messages(items))
    assert np.min(np.sum(vectors * found, axis=1)) >= 0.9999
    # Strings and pictures by themselves are read as such messages.
    texts = [str(item.text) for item in items if not item.images]
    expected = ours.encode_corpus(texts, reasoning="never")
    assert np.min(np.sum(theirs.encode(texts) * expected, axis=1)) >= 0.9999
    assert np.sum(theirs.encode([large])[0] * vectors[-2]) >= 0.9999
    # The comparison means something: other inputs have other vectors.
    assert np.min(vectors @ vectors.T) < 0.999


@pytest.mark.filterwarnings("default")
def test_a_checkpoint_gets_the_files_of_sentence_transformers(random_pair: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = export(random_pair / "embedder", tmp_path / "out").folder
    ours = ReasoningEmbedder.from_pretrained(folder, reasoner=None, device="cpu")
    picture = PIL.Image.effect_noise((230, 170), 60).convert("RGB")
    items = [Item(text="a red circle"), Item(images=(picture,)), Item(text="a red circle", images=(picture,) * 2)]
    vectors = ours.encode_corpus(items, reasoning="never")
    theirs = SentenceTransformer(str(folder), device="cpu").encode(messages(items))
    assert np.min(np.sum(vectors * theirs, axis=1)) >= 0.9999
    assert np.min(vectors @ vectors.T) < 0.999


def test_weights_trained_without_adapters_are_exported_too(run: Path, tmp_path: Path) -> None:
    settings = small(run.parent / "start", steps=1, lora=None, spec=EMBEDDER_SPEC)
    train_contrastive(settings, [source("text_to_image", 2)], tmp_path / "run")
    folder = merge_embedder(tmp_path / "run", tmp_path / "out")
    before, trained, after = state(run.parent / "start"), state(tmp_path / "run" / "trained"), state(folder)
    assert all(torch.equal(trained[name], after[name]) for name in trained)
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("visual."))
    assert ReasoningEmbedder.from_pretrained(folder, device="cpu", cache=None).dimension == 32


def test_nothing_is_overwritten_unless_asked(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        export(run, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    export(run, out, replace=True)
    assert read_spec(out) is not None
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_export_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("ume_training.export.merge.write_stock_modules", fail)
    with pytest.raises(OSError, match="disk full"):
        merge_embedder(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_what_is_no_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "run.json").write_text((run / "run.json").read_text())
    with pytest.raises(InputError, match="no finished"):
        export(tmp_path / "half", tmp_path / "out")
    with pytest.raises(InputError, match="neither a finished run nor a checkpoint"):
        export(tmp_path, tmp_path / "out")


def test_a_reasoner_is_exported_with_its_prompts(random_pair: Path, tmp_path: Path) -> None:
    trained = tmp_path / "run" / "reasoner"
    trained.parent.mkdir()
    trained.symlink_to(random_pair / "reasoner", target_is_directory=True)
    done = export(tmp_path / "run", tmp_path / "out", card=Card("r", "reasoner"))
    assert done.role == "reasoner"
    spec = read_spec(done.folder)
    assert spec == REASONER_SPEC
    assert isinstance(spec, ReasonerSpec)
    assert torch.equal(
        load_file(done.folder / "model.safetensors")["model.language_model.norm.weight"],
        load_file(trained / "model.safetensors")["model.language_model.norm.weight"],
    )
    loaded = TransformersReasoner.from_pretrained(str(done.folder), spec=spec, device="cpu")
    assert loaded.spec == REASONER_SPEC
    assert "encode_query" not in (done.folder / "README.md").read_text()


def test_a_template_that_reads_otherwise_is_refused(exported: Path, tmp_path: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(exported)
    processor.chat_template = "{% for message in messages %}{{ message.content[-1].text }}{% endfor %}"
    with pytest.raises(IncompatibleModel, match="would read"):
        write_stock_modules(tmp_path, processor, EMBEDDER_SPEC, 32)


def test_the_stock_template_reads_instructions_and_answers(exported: Path) -> None:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(exported)
    template = stock_template(EMBEDDER_SPEC)

    def read(*turns: dict[str, Any]) -> str:
        return str(processor.apply_chat_template(list(turns), chat_template=template, tokenize=False))

    told = read({"role": "system", "content": "find it"}, {"role": "user", "content": "a cat"})
    assert told == "<|im_start|>user\nfind it\na catsummary:<|im_end|>\n<|im_start|>assistant\n<emb>"
    answered = read(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "<emb>"}]},
    )
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert answered == f"<|im_start|>user\na{picture}b<|im_end|>\n<|im_start|>assistant\n<emb>"


# Cards.


NAMES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8)


@given(
    pairs=st.dictionaries(NAMES, st.integers(1, 10**6), max_size=3),
    steps=st.integers(1, 10**5),
    value=st.floats(0, 1),
    seeds=st.lists(st.integers(0, 99), max_size=3),
)
def test_a_card_has_no_figure_that_was_not_handed_in(
    pairs: dict[str, int], steps: int, value: float, seeds: list[int]
) -> None:
    card = Card(
        "model",
        "embedder",
        data=pairs,
        stages=(StageFact("stage", steps),),
        seeds=tuple(seeds),
        scores=(Score("shapes", "hit at one", value, queries=7),),
    )
    text = render_card(card)
    handed = {f"{value:.3f}", repr(value), str(steps), "7", *map(str, pairs.values()), *map(str, seeds)}
    body = text.split("---\n", 2)[2]
    assert {figure.rstrip(".") for figure in re.findall(r"\d[\d.e+-]*", body)} <= handed
    assert f"{value:.3f}" in body


def test_a_card_without_scores_says_so() -> None:
    text = render_card(Card("model", "reasoner", base="Qwen/Qwen3-VL-2B-Instruct"))
    assert "Nothing has been measured" in text
    assert "base_model: Qwen/Qwen3-VL-2B-Instruct" in text
    assert "model-index" not in text


def test_a_card_keeps_to_its_tables() -> None:
    card = Card("a\n# b", "embedder", data={"x | y\nz": 3}, scores=(Score("s", "hit@1", 0.5, std=0.01, seeds=(1, 2)),))
    text = render_card(card)
    assert "| x \\| y z | 3 |" in text
    assert "\n# b" not in text
    assert "0.500 ± 0.010" in text


def test_the_card_of_a_run_names_its_data_and_settings(run: Path) -> None:
    text = render_card(card_of_run(read_facts(run), "tiny"))
    assert "| text_to_image | 8 |" in text
    assert "contrastive: 4 steps" in text
    assert "| learning_rate | 0.01 |" in text
    assert str(run.parent) not in text
