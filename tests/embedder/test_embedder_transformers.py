from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ume_retrieval import EmbedderSpec, Frames, InputError, LoadedItem, ModelError, ModelInfo, TCot
from ume_retrieval.chat import Chat, Message, TextPart
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder, pooled_token
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.tcot import Box, extract
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, Size, build_model, build_processor
from ume_training.shapes.pair.tokenizer import build_tokenizer

Items = Callable[[int], list[LoadedItem]]

QWEN_SPEC = EMBEDDER_SPEC.model_copy(update={"family": "qwen3-vl-embedding"})


@pytest.fixture(scope="module", params=["embed-rl", "qwen3-vl-embedding"])
def embedder(request: pytest.FixtureRequest, random_pair: Path) -> TransformersEmbedder:
    spec = EMBEDDER_SPEC if request.param == "embed-rl" else QWEN_SPEC
    return TransformersEmbedder.from_pretrained(str(random_pair / "embedder"), spec=spec, device="cpu")


def chats_of(embedder: TransformersEmbedder, items: list[LoadedItem]) -> list[Chat]:
    """Every other item with a trace."""
    chats = []
    for position, item in enumerate(items):
        tcot = TCot(thinking="look", answer="a red circle", boxes=(Box(0, 0, 500, 500),)) if item.images else None
        traced = tcot if position % 2 else None
        evidence = extract(traced, item, 4) if traced else None
        chats.append(embedding_chat(embedder.spec, item, traced, evidence))
    return chats


def test_a_batch_gives_the_vectors_of_single_calls(embedder: TransformersEmbedder, shapes_items: Items) -> None:
    chats = chats_of(embedder, shapes_items(3))
    together = embedder.embed(chats).vectors
    alone = np.concatenate([embedder.embed([chat]).vectors for chat in chats])
    assert np.min(np.sum(together * alone, axis=1)) >= 0.9999


def test_order_does_not_matter(embedder: TransformersEmbedder, shapes_items: Items) -> None:
    chats = chats_of(embedder, shapes_items(4))
    forward = embedder.embed(chats).vectors
    backward = embedder.embed(chats[::-1]).vectors[::-1]
    assert np.min(np.sum(forward * backward, axis=1)) >= 0.9999


def test_vectors_are_unit_float32_and_differ(embedder: TransformersEmbedder, shapes_items: Items) -> None:
    chats = chats_of(embedder, shapes_items(5))
    result = embedder.embed(chats)
    assert result.vectors.dtype == np.float32
    assert result.vectors.shape == (len(chats), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1.0, atol=1e-5)
    assert len(np.unique(result.vectors.round(4), axis=0)) > len(chats) // 2
    assert result.tokens > 0


def test_small_batches_give_the_same(random_pair: Path, shapes_items: Items) -> None:
    wide = TransformersEmbedder.from_pretrained(str(random_pair / "embedder"), spec=EMBEDDER_SPEC, device="cpu")
    narrow = TransformersEmbedder(wide.model, wide._inputs.processor, info=wide.info, spec=wide.spec, batch_tokens=100)
    chats = chats_of(wide, shapes_items(6))
    assert np.min(np.sum(wide.embed(chats).vectors * narrow.embed(chats).vectors, axis=1)) >= 0.9999


def test_a_long_input_is_refused_not_cut(embedder: TransformersEmbedder) -> None:
    item = LoadedItem("red circle " * 3000, (), (), None, "id")
    with pytest.raises(InputError, match="tokens"):
        embedder.embed([embedding_chat(embedder.spec, item, None, None)])


def test_no_input_gives_no_vectors(embedder: TransformersEmbedder) -> None:
    assert embedder.embed([]).vectors.shape == (0, embedder.dimension)


def test_tokens_are_counted_without_looking_at_a_pixel(embedder: TransformersEmbedder, shapes_items: Items) -> None:
    inputs = ChatInputs(embedder._inputs.processor, "right")
    films = [
        Frames((PIL.Image.new("RGB", (64, 32)),) * count, tuple(second * n for n in range(count)), second * count)
        for count in (1, 2, 7, 33)
        for second in (0.3, 9.95, 500.3, 50_000.7)
    ]
    items = [LoadedItem("red", (), (film, film), None, "id") for film in films]
    for chat in chats_of(embedder, [*shapes_items(7), *items]):
        assert inputs.count_tokens(chat) == int(inputs.tensors([chat])["attention_mask"].sum())


# The released code takes the last token when `<emb>` is missing, silently.


def test_an_input_without_the_pooled_token_is_refused(random_pair: Path) -> None:
    embedder = TransformersEmbedder.from_pretrained(str(random_pair / "embedder"), spec=EMBEDDER_SPEC, device="cpu")
    with pytest.raises(IncompatibleModel, match="<emb>"):
        embedder.embed([(Message("user", (TextPart("no place to pool"),)),)])


@pytest.fixture
def bare() -> tuple[Any, Any]:
    """A model and a processor that do not know `<emb>`."""
    tokenizer = build_tokenizer("<other>", samples=50)
    size = Size(hidden=64, layers=2, vision_hidden=32, vision_layers=2)
    return build_model(tokenizer, size, 0), build_processor(tokenizer)


def test_a_model_without_a_row_for_the_pooled_token_is_refused(bare: tuple[Any, Any]) -> None:
    model, processor = bare
    with pytest.raises(IncompatibleModel, match="rows"):
        TransformersEmbedder(model, processor, info=ModelInfo("bare", "0", "transformers"), spec=EMBEDDER_SPEC)


def test_a_token_that_only_the_config_knows_is_added(bare: tuple[Any, Any]) -> None:
    model, processor = bare
    next_id = len(processor.tokenizer)
    model.resize_token_embeddings(next_id + 1)
    model.config.emb_token_ids = [next_id]
    assert pooled_token(model, processor.tokenizer, EMBEDDER_SPEC) == next_id
    assert processor.tokenizer("<emb>")["input_ids"] == [next_id]


def test_a_tokenizer_that_disagrees_with_the_config_is_refused(bare: tuple[Any, Any]) -> None:
    model, processor = bare
    model.resize_token_embeddings(len(processor.tokenizer) + 8)
    model.config.emb_token_ids = [3]
    with pytest.raises(IncompatibleModel, match="trained with"):
        pooled_token(model, processor.tokenizer, EMBEDDER_SPEC)


def test_an_undeclared_token_is_refused(bare: tuple[Any, Any]) -> None:
    model, processor = bare
    model.resize_token_embeddings(len(processor.tokenizer) + 8)
    with pytest.raises(IncompatibleModel, match="declared neither"):
        pooled_token(model, processor.tokenizer, EMBEDDER_SPEC)


def test_a_folder_without_a_model_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot load"):
        TransformersEmbedder.from_pretrained(str(tmp_path), spec=EmbedderSpec(family="embed-rl"), device="cpu")


def test_an_unknown_device_is_a_typed_error(random_pair: Path) -> None:
    with pytest.raises(InputError, match="device"):
        TransformersEmbedder.from_pretrained(str(random_pair / "embedder"), spec=EMBEDDER_SPEC, device="abacus")
