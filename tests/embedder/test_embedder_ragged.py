"""Rows without padding: the numbers of the model's own forward pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from ume_retrieval import LoadedItem, ModelInfo
from ume_retrieval.chat import Chat
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.transformers import unpadded
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.processor import ChatInputs, PackedBatch
from ume_retrieval.errors import IncompatibleModel
from ume_training.shapes.pair.architecture import EMBEDDER_SPEC, Size, build_model

Items = Callable[[int], list[LoadedItem]]


@pytest.fixture(scope="module")
def inputs(random_pair: Path) -> ChatInputs:
    return ChatInputs(AutoProcessor.from_pretrained(random_pair / "embedder"), "right")


@pytest.fixture(scope="module")
def chats(shapes_items: Items) -> list[Chat]:
    return [embedding_chat(EMBEDDER_SPEC, item, None, None) for item in shapes_items(3)]


def whole_rows(values: torch.Tensor, rows: PackedBatch) -> list[torch.Tensor]:
    """Each row with what all begin with, along the last axis."""
    own = values[..., rows.shared :].split([length - rows.shared for length in rows.lengths], dim=-1)
    return [torch.cat([values[..., : rows.shared], left], dim=-1) for left in own]


def plain(folder: Path) -> Any:
    return AutoModel.from_pretrained(folder / "embedder").eval()


@pytest.mark.parametrize("layers", [2, 3])
def test_last_states_are_those_of_each_row_alone(inputs: ChatInputs, chats: list[Chat], layers: int) -> None:
    """With as many layers as take pictures' features, and with one more, which goes on with the last tokens alone."""
    own = build_model(
        inputs.tokenizer, Size(hidden=64, layers=layers, vision_hidden=32, vision_layers=2), 3
    ).model.eval()
    prepared = copy.deepcopy(own)
    unpadded.prepare(prepared)
    rows = inputs.rows(inputs.write(chats))
    counted: list[int] = []
    prepared.language_model.layers[-1].mlp.register_forward_hook(lambda _, seen, __: counted.append(seen[0].shape[1]))
    with torch.inference_mode():
        last, after = unpadded.last_states(prepared, rows, unpadded.Packed(rows))
        assert len(last) == len(after) == len(chats)
        for chat, state, place in zip(chats, last, after.tolist(), strict=True):
            alone = inputs.tensors([chat])
            expected = own(**alone, use_cache=False).last_hidden_state[0, -1]
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
            assert place >= 1
    assert counted == [len(chats) if layers == 3 else len(rows.tokens)]


def test_positions_are_the_models_own(random_pair: Path, inputs: ChatInputs, shapes_items: Items) -> None:
    model = plain(random_pair)
    chats = [embedding_chat(EMBEDDER_SPEC, item, None, None) for seed in range(5) for item in shapes_items(seed)]
    rows = inputs.rows(inputs.write(chats))
    places, after = unpadded.positions(rows, model.config.vision_config.spatial_merge_size)
    for chat, found, end in zip(chats, whole_rows(places, rows), after.tolist(), strict=True):
        alone = inputs.tensors([chat])
        names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
        expected, delta = model.get_rope_index(**{name: alone[name] for name in names if name in alone})
        assert torch.equal(found, expected[:, 0])
        assert end == alone["input_ids"].shape[1] + int(delta)


def test_a_prepared_model_still_does_its_ordinary_forward_pass(
    random_pair: Path, inputs: ChatInputs, chats: list[Chat]
) -> None:
    own, prepared = plain(random_pair), plain(random_pair)
    unpadded.prepare(prepared)
    unpadded.prepare(prepared)
    batch = inputs.tensors(chats)
    seen = batch["attention_mask"].bool()
    with torch.inference_mode():
        expected = own(**batch, use_cache=False).last_hidden_state[seen]
        torch.testing.assert_close(prepared(**batch, use_cache=False).last_hidden_state[seen], expected)


def test_rows_end_where_they_are_pooled(inputs: ChatInputs, chats: list[Chat]) -> None:
    token = inputs.tokenizer.convert_tokens_to_ids("<emb>")
    written = inputs.write(chats)
    rows, whole = inputs.rows(written, keep=inputs.up_to(token)), inputs.rows(written)
    assert all(row[-1] == token for row in whole_rows(rows.tokens, rows))
    assert all(short < long for short, long in zip(rows.lengths, whole.lengths, strict=True))
    assert len(rows.kinds) == len(rows.tokens) == sum(rows.lengths) - (len(chats) - 1) * rows.shared


def test_what_all_rows_begin_with_is_computed_once(inputs: ChatInputs, random_pair: Path) -> None:
    told = "find the picture that this caption describes, whatever its colours are"
    short = [LoadedItem(text, (), (), told, "") for text in ("a red circle", "two", "a red cross and a star", "two")]
    chats = [embedding_chat(EMBEDDER_SPEC, item, None, None) for item in short]
    rows = inputs.rows(inputs.write(chats))
    alone = [inputs.tensors([chat])["input_ids"][0] for chat in chats]
    assert rows.shared > 8
    assert rows.lengths == tuple(map(len, alone))
    assert len(rows.tokens) == len(rows.kinds) == sum(rows.lengths) - 3 * rows.shared
    assert all(map(torch.equal, whole_rows(rows.tokens, rows), alone))
    model, prepared = plain(random_pair), plain(random_pair)
    unpadded.prepare(prepared)
    with torch.inference_mode():
        last, after = unpadded.last_states(prepared, rows, unpadded.Packed(rows))
        for row, state, place in zip(alone, last, after.tolist(), strict=True):
            expected = model(input_ids=row[None], use_cache=False).last_hidden_state[0, -1]
            torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-4)
            assert place == len(row)


def test_equal_rows_keep_their_last_token(inputs: ChatInputs) -> None:
    chats = [embedding_chat(EMBEDDER_SPEC, LoadedItem("the same", (), (), None, ""), None, None)] * 3
    rows = inputs.rows(inputs.write(chats))
    assert rows.shared == rows.lengths[0] - 1
    assert len(rows.tokens) == rows.lengths[0] + 2


def test_pictures_are_not_shared(inputs: ChatInputs, shapes_items: Items) -> None:
    pictured = next(item for item in shapes_items(3) if item.images)
    chats = [embedding_chat(EMBEDDER_SPEC, pictured, None, None)] * 2
    rows = inputs.rows(inputs.write(chats))
    assert not rows.kinds[: rows.shared].any()
    assert rows.kinds.count_nonzero() == 2 * inputs.rows(inputs.write(chats[:1])).kinds.count_nonzero()


def test_another_architecture_is_refused(random_pair: Path) -> None:
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32))
    processor = AutoProcessor.from_pretrained(random_pair / "embedder")
    with pytest.raises(IncompatibleModel, match="no Qwen3-VL"):
        TransformersEmbedder(model, processor, info=ModelInfo("bert", "0", "transformers"), spec=EMBEDDER_SPEC)
