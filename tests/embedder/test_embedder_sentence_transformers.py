from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sentence_models import clip_model, routed_model, text_model

from ume_retrieval import (
    EmbedderSpec,
    Frames,
    InputError,
    Item,
    LoadedItem,
    ModelError,
    ReasoningEmbedder,
    ReasoningError,
    TCot,
)
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.registry import bundled_folder
from ume_retrieval.engines.sentence_transformers import SentenceTransformersEmbedder, fuse
from ume_retrieval.engines.transformers.processor import video_metadata
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.tcot import Box, extract
from ume_retrieval.testing import FakeReasoner
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


def same(ours: Any, theirs: Any) -> None:
    """Each row is the other's: nearest to itself, and in its direction."""
    theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    assert np.min(np.sum(ours * theirs, axis=1)) >= 0.99999
    assert np.max(ours @ theirs.T - np.eye(len(ours))) < 0.99999, "different items have different vectors"


TEXTS = ["a red circle", "find the page that answers the question", "a blue square is left of the green cross"]
PROMPTS = {
    "e5": {"query": "query: ", "document": "passage: "},
    "gemma": {"query": "task: search result | query: ", "document": "title: none | text: "},
    "bare": {},
}


@pytest.fixture(scope="module", params=[*PROMPTS])
def pair_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ReasoningEmbedder, Any]:
    """A text model in this library, and in sentence-transformers itself."""
    folder = tmp_path_factory.mktemp("text") / request.param
    return both(text_model(folder, PROMPTS[request.param], dense=request.param == "gemma"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[ReasoningEmbedder, Any]:
    return both(clip_model(tmp_path_factory.mktemp("dual") / "clip"))


def both(folder: Path) -> tuple[ReasoningEmbedder, Any]:
    from sentence_transformers import SentenceTransformer

    ours = ReasoningEmbedder.from_pretrained(folder, reasoner=None, device="cpu")
    return ours, SentenceTransformer(str(folder), device="cpu")


def picture(seed: int) -> PIL.Image.Image:
    # Large patches: random weights take fine noise for grey.
    pixels = np.random.default_rng(seed).integers(0, 255, (2, 3, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).resize((70, 50), PIL.Image.Resampling.NEAREST)


def test_queries_and_documents_are_the_models_own(pair_of: tuple[ReasoningEmbedder, Any]) -> None:
    ours, theirs = pair_of
    found = ours.encode_query(TEXTS, reasoning="never", return_traces=True)
    same(found.vectors, theirs.encode_query(TEXTS))
    same(ours.encode_corpus(TEXTS, reasoning="never"), theirs.encode_document(TEXTS))
    prompt = theirs.prompts["query"]
    assert found.usage.embedded_tokens == sum(len(theirs.tokenizer(prompt + text)["input_ids"]) for text in TEXTS)


def test_an_instruction_goes_into_the_prompt(pair_of: tuple[ReasoningEmbedder, Any]) -> None:
    ours, theirs = pair_of
    own = theirs.prompts["query"]
    expected = "task: find the page | query: " if own.startswith("task") else f"{own}find the page\n"
    items = [Item(text=text, instruction="find the page") for text in TEXTS]
    same(ours.encode_query(items, reasoning="never"), theirs.encode_query(TEXTS, prompt=expected))


def test_a_long_text_is_refused_with_its_length_and_the_others_are_embedded(
    pair_of: tuple[ReasoningEmbedder, Any],
) -> None:
    ours, theirs = pair_of
    texts = [TEXTS[0], "red " * 5000, TEXTS[1]]
    found = ours.encode_corpus(texts, reasoning="never", strict=False, return_traces=True)
    (failure,) = found.failures
    length = len(theirs.tokenizer(theirs.prompts["document"] + texts[1])["input_ids"])
    assert (failure.index, failure.error) == (1, "invalid_input")
    assert f"takes {length} tokens" in failure.message
    assert "reads 64" in failure.message
    same(found.vectors[[0, 2]], theirs.encode_document([texts[0], texts[2]]))
    # Exactly as many tokens as the model reads are read.
    room = 64 - len(theirs.tokenizer(theirs.prompts["query"])["input_ids"])
    fitting = " ".join(["red"] * room)
    same(ours.encode_query([fitting, "a"], reasoning="never"), theirs.encode_query([fitting, "a"]))
    with pytest.raises(InputError, match="takes 65 tokens"):
        ours.encode_query(fitting + " red", reasoning="never")


def test_queries_and_documents_go_by_their_own_routes_and_limits(tmp_path: Path) -> None:
    ours, theirs = both(routed_model(tmp_path / "routed"))
    texts = ["a red circle", "find the page"]
    queries, documents = ours.encode_query(texts, reasoning="never"), ours.encode_corpus(texts, reasoning="never")
    same(queries, theirs.encode_query(texts))
    same(documents, theirs.encode_document(texts))
    assert np.max(np.sum(queries * documents, axis=1)) < 0.999
    longer = " ".join(["red"] * 30)
    assert ours.encode_corpus(longer, reasoning="never").shape == (32,)
    with pytest.raises(InputError, match="takes 32 tokens, routed reads 16"):
        ours.encode_query(longer, reasoning="never")


def test_a_dual_encoder_embeds_words_and_pictures_as_its_own(clip: tuple[ReasoningEmbedder, Any]) -> None:
    ours, theirs = clip
    pictures = [picture(seed) for seed in range(3)]
    same(ours.encode_corpus(pictures, reasoning="never"), theirs.encode_document(pictures))
    same(ours.encode_query(TEXTS, reasoning="never"), theirs.encode_query(TEXTS))


def test_words_that_look_like_an_address_stay_words(clip: tuple[ReasoningEmbedder, Any], tmp_path: Path) -> None:
    ours, theirs = clip
    picture(1).save(path := tmp_path / "a.png")
    short = path.relative_to(tmp_path)
    with contextlib.chdir(tmp_path):
        texts = [str(short), "data:image/png"]
        found = ours.encode_query(texts, reasoning="never")
    same(found, theirs.encode_query([{"text": text} for text in texts]))


def test_a_mix_is_fused_by_the_rule_of_the_spec(clip: tuple[ReasoningEmbedder, Any]) -> None:
    ours, theirs = clip
    seen, said = theirs.encode([picture(1)], normalize_embeddings=True), theirs.encode(TEXTS, normalize_embeddings=True)
    mixed = ours.encode_corpus(Item(text=TEXTS[0], images=(picture(1),)), reasoning="never")
    share = ours.embedder.spec.words_share
    expected = (1 - share) * seen[0] + share * said[0]
    np.testing.assert_allclose(mixed, expected / np.linalg.norm(expected), atol=1e-5)
    with pytest.raises(IncompatibleModel, match="no instruction for a picture"):
        ours.encode_query(Item(images=(picture(1),), instruction="find it"), reasoning="never")


def test_a_dual_encoder_reads_the_answer_of_a_trace(clip: tuple[ReasoningEmbedder, Any]) -> None:
    bare, theirs = clip
    reply = "<thinking>{}</thinking><rethink>so</rethink><answer>a red circle</answer>".format("look at the red " * 40)
    reasoned = ReasoningEmbedder(bare.embedder, FakeReasoner(lambda _: reply))
    seen = theirs.encode([picture(1)], normalize_embeddings=True)[0]
    said = theirs.encode(["a red circle"], normalize_embeddings=True)[0]
    expected = fuse(np.stack([seen, said]), [False, True], bare.embedder.spec.words_share)
    np.testing.assert_allclose(reasoned.encode_corpus(picture(1)), expected, atol=1e-5)
    long = ReasoningEmbedder(bare.embedder, FakeReasoner(lambda _: reply.replace("a red circle", "red " * 40)))
    with pytest.raises(InputError, match="reads 40"):
        long.encode_corpus(picture(1))
    empty = ReasoningEmbedder(bare.embedder, FakeReasoner(lambda _: reply.replace("a red circle", "")))
    with pytest.raises(ReasoningError, match="lacks an answer"):
        empty.encode_corpus(picture(1))


def test_a_text_model_refuses_a_picture_by_name(pair_of: tuple[ReasoningEmbedder, Any]) -> None:
    with pytest.raises(IncompatibleModel, match="does not read image"):
        pair_of[0].encode_corpus(picture(1), reasoning="never")


@pytest.mark.filterwarnings("default")
def test_the_bundled_pair_is_the_same_in_sentence_transformers(shapes_items: Items) -> None:
    folder = bundled_folder("ume-tiny", "embedder")
    ours, theirs = both(folder)
    items = [
        Item(text=item.text, images=item.images, videos=item.videos) for item in shapes_items(3) if len(item.images) < 2
    ]
    inputs = [theirs_of(item) for item in items]
    found = [
        theirs.encode_document([one], processing_kwargs={"video": {"do_sample_frames": False}})[0] for one in inputs
    ]
    assert np.min(np.sum(ours.encode_corpus(items, reasoning="never") * np.stack(found), axis=1)) >= 0.9999
    # Collections that were made before those files came are still this model's.
    assert ours.info.embedder.revision == "sha256:d1ab73b50c7b"


@pytest.mark.filterwarnings("default")
def test_a_video_is_a_video_input_of_a_model_that_has_those(folder: Path, shapes_items: Items) -> None:
    ours, theirs = both(folder)
    assert ours.info.embedder.engine == "sentence-transformers"
    clips = [Item(videos=item.videos) for item in shapes_items(12) if item.videos][:2]
    assert len(clips) == 2
    items = [*clips, *(Item(text="a red circle moves", videos=clip.videos) for clip in clips)]
    sampled = {"video": {"do_sample_frames": False}}
    found = [theirs.encode_document([theirs_of(item)], processing_kwargs=sampled)[0] for item in items]
    own = ours.encode_corpus(items, reasoning="never")
    same(own, np.stack(found))
    frames = [video for clip in clips for video in clip.videos if isinstance(video, Frames)]
    as_images = ours.encode_corpus([Item(images=one.images) for one in frames], reasoning="never")
    assert np.max(np.sum(own[:2] * as_images, axis=1)) < 0.9999


def theirs_of(item: Item) -> dict[str, Any]:
    """An item as sentence-transformers takes it."""
    found: dict[str, Any] = {"image": item.images[0]} if item.images else {}
    for video in item.videos:
        assert isinstance(video, Frames)
        frames = np.stack([np.asarray(image) for image in video.images])
        found["video"] = {"array": frames, "video_metadata": video_metadata(video)}
    return found | ({"text": item.text} if item.text else {})


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


def test_modules_inside_a_router_are_checked_as_others_are(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    routed = routed_model(tmp_path / "routed", dense=True)
    assert load(routed).dimension == 16
    reader = routed / "document_0_Transformer" / "model.safetensors"
    kept = reader.read_bytes()
    rewrite(reader, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(IncompatibleModel, match=r"encoder\.layer\.1\.output\.dense\.weight is missing"):
        load(routed)
    reader.write_bytes(kept)
    weights = routed / "query_2_Dense" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(IncompatibleModel, match=r"query_2_Dense/pytorch_model\.bin is pickled"):
        load(routed)
    (routed / "router_config.json").write_text('{"types": 1}')
    with pytest.raises(ModelError, match=r"router_config\.json names no modules"):
        load(routed)


def test_the_revision_of_a_folder_changes_with_its_modules(with_dense: Path, tmp_path: Path) -> None:
    before = load(with_dense).info.revision
    assert load(with_dense).info.revision == before
    (pooling,) = with_dense.glob("*_Pooling/config.json")
    kept = pooling.read_text()
    pooling.write_text(kept.replace("lasttoken", "mean"))
    pooled = load(with_dense).info.revision
    pooling.write_text(kept)
    dense = next(with_dense.glob("*_Dense/model.safetensors"))
    rewrite(dense, lambda tensors: tensors["linear.bias"].add_(1))
    assert len({before, pooled, load(with_dense).info.revision}) == 3
    routed = routed_model(tmp_path / "routed")
    before = load(routed).info.revision
    rewrite(routed / "query_0_Transformer" / "model.safetensors", lambda tensors: next(iter(tensors.values())).add_(1))
    assert load(routed).info.revision != before
