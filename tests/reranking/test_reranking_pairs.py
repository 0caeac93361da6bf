"""`Reranker`: pairs of a query and an item, scored by engines that are real as far as they run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from ume_retrieval import InputError, Item, ModelError, Reranker
from ume_retrieval.chat import ImagePart, Pair, TextPart
from ume_retrieval.checkpoint import ModelInfo, RerankerSpec
from ume_retrieval.engines.base import PairScores
from ume_retrieval.engines.cross_encoder import CrossEncoderScorer
from ume_retrieval.errors import IncompatibleModel, MediaNotFound
from ume_retrieval.reranking import PairReranker, TCotReranker

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "circle", "square", "the", "train", "a"]


def cross_encoder(folder: Path, labels: int = 1) -> Path:
    """A tiny random BERT classifier with a tokenizer of eleven words, as its own library saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=labels,
        initializer_range=0.7,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cross_encoder(tmp_path_factory.mktemp("cross"))


@pytest.fixture(scope="module")
def reranker(folder: Path) -> PairReranker:
    loaded = Reranker.from_pretrained(folder, device="cpu")
    assert isinstance(loaded, PairReranker)
    assert isinstance(loaded.scorer, CrossEncoderScorer)
    return loaded


def test_a_cross_encoder_gives_its_own_scores(reranker: PairReranker, folder: Path) -> None:
    from sentence_transformers import CrossEncoder

    texts = ["red circle", "blue square", "the train " * 20]
    expected = CrossEncoder(str(folder), device="cpu").predict([("red circle", text) for text in texts])
    result = reranker.rerank("red circle", texts)
    assert result.scores == pytest.approx(expected, abs=1e-6)
    assert result.shortened == (2,)
    assert (result.usage.reranker_calls, result.usage.reranked_tokens) == (3, 7 + 7 + 16)
    told = reranker.score(Item(text="red circle", instruction="the train"), texts[:2])
    assert np.abs(told - expected[:2]).max() > 1e-4


def test_items_that_cannot_be_scored_cost_the_others_nothing(reranker: PairReranker) -> None:
    items = ["red circle", Item(images=(PIL.Image.new("RGB", (8, 8)),)), Item(images=("gone.png",)), "blue square"]
    result = reranker.rerank("red circle", items)
    assert [failure.error for failure in result.failures] == ["incompatible_model", "media_not_found"]
    assert np.isnan(result.scores).tolist() == [False, True, True, False]
    assert set(result.order[:2]) == {0, 3}
    assert result.order[2:] == [1, 2]
    assert reranker.score("red circle", items)[[0, 3]] == pytest.approx(
        reranker.score("red circle", ["red circle", "blue square"])
    )


def test_a_query_that_cannot_be_used_raises(reranker: PairReranker) -> None:
    with pytest.raises(MediaNotFound):
        reranker.score(Item(images=("gone.png",)), ["red circle"])
    with pytest.raises(InputError):
        reranker.score("red circle", 3)  # type: ignore[arg-type]  # what a caller may do
    assert reranker.score("red circle", []).shape == (0,)


async def test_a_reranking_can_be_awaited(reranker: PairReranker) -> None:
    result = await reranker.arerank("red circle", ["blue square"])
    assert result.scores == pytest.approx(reranker.score("red circle", ["blue square"]))


def test_a_classifier_of_several_labels_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(IncompatibleModel, match="3 labels"):
        Reranker.from_pretrained(cross_encoder(tmp_path, labels=3), device="cpu")


def test_names_are_understood_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a embedder, not a reranker"):
        Reranker.from_pretrained("qwen3-vl-embedding-2b")
    with pytest.raises(ModelError, match="holds no reranker"):
        Reranker.from_pretrained(tmp_path)
    with pytest.raises(InputError, match="engine"):
        Reranker.from_pretrained("qwen3-vl-reranker-2b", engine="abacus")
    assert isinstance(Reranker.from_pretrained("ume-tiny", device="cpu"), TCotReranker)


class Picky:
    """An engine that refuses a whole call when one pair says "bad"."""

    info = ModelInfo("picky", "1", "fake")
    spec = RerankerSpec(family="qwen3-vl-reranker")

    def __init__(self) -> None:
        self.pairs: list[Pair] = []

    def score_pairs(self, pairs: Any) -> PairScores:
        texts = [part.text for pair in pairs for part in pair.document if isinstance(part, TextPart)]
        if "bad" in texts:
            raise InputError("a bad pair")
        self.pairs += pairs
        return PairScores([float(len(text)) for text in texts], tokens=len(texts))


def test_a_call_that_the_engine_refuses_is_bisected() -> None:
    result = PairReranker(Picky()).rerank("q", ["aa", "bad", "a", "aaa"])
    assert result.scores[[0, 2, 3]].tolist() == [2, 1, 3]
    assert [(failure.index, failure.message) for failure in result.failures] == [(1, "a bad pair")]
    assert result.usage.reranked_tokens == 3


def test_control_tokens_of_an_item_are_broken_up_and_media_come_first() -> None:
    engine = Picky()
    picture = PIL.Image.new("RGB", (64, 64))
    PairReranker(engine).score("q<|im_end|>", [Item(text="  x<|image_pad|>", images=(picture,))])
    [pair] = engine.pairs
    assert pair.query == (TextPart("q< |im_end|>"),)
    assert isinstance(pair.document[0], ImagePart)
    assert pair.document[1:] == (TextPart("  x< |image_pad|>"),)
