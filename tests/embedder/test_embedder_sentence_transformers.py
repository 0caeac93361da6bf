from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ume_retrieval import ReasoningEmbedder
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.sentence_transformers import SentenceTransformersEmbedder
from ume_retrieval.errors import IncompatibleModel, ModelError
from ume_retrieval.inputs import LoadedItem
from ume_retrieval.tcot.evidence import extract
from ume_retrieval.tcot.trace import Box, TCot
from ume_training.shapes.pair.architecture import BUDGET

Items = Callable[[int], list[LoadedItem]]
SPEC = EmbedderSpec(family="sentence-transformers", budget=BUDGET)


@pytest.fixture(scope="module")
def folder(random_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers model on disk, as its own `save_pretrained` writes it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(random_pair / "embedder"))
    pooling = Pooling(transformer.get_embedding_dimension(), "lasttoken")
    target = tmp_path_factory.mktemp("st")
    SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save_pretrained(str(target))
    return target


@pytest.fixture(scope="module")
def embedder(folder: Path) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder.from_pretrained(str(folder), spec=SPEC, device="cpu")


def test_text_pictures_clips_and_traces_all_get_unit_vectors(
    embedder: SentenceTransformersEmbedder, shapes_items: Items
) -> None:
    items = shapes_items(2)
    tcot = TCot(thinking="look", answer="a red circle", boxes=(Box(0, 0, 500, 500),))
    chats = [embedding_chat(SPEC, item, None, None) for item in items]
    chats += [embedding_chat(SPEC, item, tcot, extract(tcot, item, 4)) for item in items if item.images]
    vectors = embedder.embed(chats).vectors
    assert vectors.shape == (len(chats), embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([embedder.embed([chat]).vectors for chat in chats])
    assert np.min(np.sum(vectors * alone, axis=1)) >= 0.9999


def test_the_folder_is_recognised_by_from_pretrained(folder: Path) -> None:
    embedder = ReasoningEmbedder.from_pretrained(folder, device="cpu", cache=None)
    assert embedder.info.embedder.engine == "sentence-transformers"
    assert embedder.encode_query("red circle", reasoning="never").shape == (embedder.dimension,)


class OneKindModel:
    """Takes words or one picture, as CLIP-like models do."""

    def supports(self, modality: str) -> bool:
        return modality in {"text", "image"}

    def get_embedding_dimension(self) -> int:
        return 4

    def encode(self, inputs: list[Any], **_: Any) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[: len(inputs)]


def test_a_mix_is_refused_by_models_of_one_kind(shapes_items: Items) -> None:
    model = SentenceTransformersEmbedder(
        OneKindModel(), info=ModelInfo("clip", "0", "sentence-transformers"), spec=SPEC
    )
    mixed = next(item for item in shapes_items(1) if item.images and item.text)
    with pytest.raises(IncompatibleModel, match="not a mix"):
        model.embed([embedding_chat(SPEC, mixed, None, None)])


def test_a_folder_without_a_model_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(ModelError, match="cannot load"):
        SentenceTransformersEmbedder.from_pretrained(str(tmp_path / "nothing"), spec=SPEC, device="cpu")


@pytest.fixture
def with_dense(folder: Path, tmp_path: Path) -> Path:
    """The model with one more module, whose weights lie in a folder of its own."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(folder), device="cpu")
    width = model.get_embedding_dimension()
    model.append(Dense(in_features=width, out_features=8))
    model.save_pretrained(str(tmp_path / "dense"))
    return tmp_path / "dense"


def load(folder: Path) -> SentenceTransformersEmbedder:
    return SentenceTransformersEmbedder.from_pretrained(str(folder), spec=SPEC, device="cpu")


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_module_with_pickled_weights_is_refused_by_name(with_dense: Path) -> None:
    import torch
    from safetensors.torch import load_file

    assert load(with_dense).dimension == 8
    weights = next(with_dense.glob("*_Dense/model.safetensors"))
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    assert load(with_dense).dimension == 8
    weights.unlink()
    with pytest.raises(IncompatibleModel, match=r"_Dense/pytorch_model\.bin is pickled"):
        load(with_dense)


def test_missing_and_damaged_weights_of_a_model_and_of_its_modules_are_refused_by_name(with_dense: Path) -> None:
    dense = next(with_dense.glob("*_Dense/model.safetensors"))
    kept = dense.read_bytes()
    dense.write_bytes(kept[:-1])
    with pytest.raises(ModelError, match=r"_Dense: model\.safetensors is damaged"):
        load(with_dense)
    dense.write_bytes(kept)
    rewrite(dense, lambda tensors: tensors.pop("linear.bias"))
    with pytest.raises(ModelError, match=r"linear\.bias"):
        load(with_dense)
    dense.write_bytes(kept)
    rewrite(dense, lambda tensors: tensors["linear.bias"].fill_(float("nan")))
    with pytest.raises(IncompatibleModel, match=r"linear\.bias holds NaN"):
        load(with_dense)
    dense.write_bytes(kept)
    layer = "language_model.layers.0.mlp.up_proj.weight"
    rewrite(with_dense / "model.safetensors", lambda tensors: tensors.pop(layer))
    with pytest.raises(IncompatibleModel, match=r"layers\.0\.mlp\.up_proj\.weight is missing"):
        load(with_dense)
