"""Checkpoints as people keep them: in shards, untied, in bfloat16, with more than is read, in the hub's cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, processors

from ume_retrieval import EmbedderSpec, ModelError, ReasoningEmbedder
from ume_retrieval.checkpoint import write_spec
from ume_retrieval.engines.base import Source
from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.engines.transformers.loading import fingerprint, load_checkpoint
from ume_retrieval.errors import IncompatibleModel

WEIGHTS = "model.safetensors"
COMMIT = "8ce3aab0c2f5d6e7f8091a2b3c4d5e6f70819203"


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def keep(folder: Path) -> Path:
    return folder


def shard(folder: Path) -> Path:
    tensors = load_file(folder / WEIGHTS)
    where = {}
    for number, name in enumerate(sorted(tensors), 1):
        where[name] = f"model-{number:05}-of-{len(tensors):05}.safetensors"
        save_file({name: tensors[name]}, folder / where[name], metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / WEIGHTS).unlink()
    return folder


def add_extras(folder: Path) -> Path:
    """A head that an Embedder does not read, and constants that older versions of transformers stored."""

    def add(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = torch.randn(tensors["model.language_model.embed_tokens.weight"].shape)
        tensors["model.language_model.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(folder, add)
    return folder


def untie(folder: Path) -> Path:
    rewrite(folder, lambda all_: all_.update({"lm_head.weight": all_["model.language_model.embed_tokens.weight"] * 2}))
    text = json.loads((folder / "config.json").read_text())["text_config"]
    edit_config(folder, tie_word_embeddings=False, text_config=text | {"tie_word_embeddings": False})
    return folder


def keep_the_body(folder: Path) -> Path:
    """Names as `AutoModel.save_pretrained` writes them, without the prefix."""

    def strip(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    rewrite(folder, strip)
    return folder


def cache(folder: Path) -> Path:
    """The hub's cache: a folder named by its commit, of links to files named by their digests."""
    snapshot = folder.parent / "models--some--body" / "snapshots" / COMMIT
    blobs = snapshot.parent.parent / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number:064x}")
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


def rename(folder: Path) -> Path:
    return folder.rename(folder.parent / COMMIT)


@pytest.fixture(scope="module")
def published(random_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Embedder as published: no `ume.json`; its config names the pooled token; stored in bfloat16."""
    folder = Path(shutil.copytree(random_pair / "embedder", tmp_path_factory.mktemp("published") / "embedder"))
    token = Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id("<emb>")
    (folder / "ume.json").unlink()
    edit_config(folder, emb_token_ids=[token], dtype="bfloat16")
    rewrite(folder, lambda tensors: tensors.update({name: one.bfloat16() for name, one in tensors.items()}))
    return folder


def vectors_of(folder: Path) -> Any:
    embedder = ReasoningEmbedder.from_pretrained(str(folder), reasoner=None, device="cpu", cache=None)
    return embedder.encode_corpus(["a red circle", "two blue squares"], reasoning="never")


@pytest.mark.parametrize("store", [shard, add_extras, untie, keep_the_body, cache, rename])
def test_however_it_is_stored_the_vectors_are_the_same(
    store: Callable[[Path], Path], published: Path, tmp_path: Path
) -> None:
    stored = store(Path(shutil.copytree(published, tmp_path / "copy")))
    np.testing.assert_allclose(vectors_of(stored), vectors_of(published), atol=1e-6)


def test_bfloat16_weights_are_those_of_the_same_numbers_in_float32(published: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(published, tmp_path / "copy"))
    rewrite(copy, lambda tensors: tensors.update({name: one.float() for name, one in tensors.items()}))
    edit_config(copy, dtype="float32")
    np.testing.assert_allclose(vectors_of(copy), vectors_of(published), atol=1e-6)


def test_a_reasoner_reads_its_own_head(published: Path, tmp_path: Path) -> None:
    heads = []
    for store in (keep, untie):
        copy = store(Path(shutil.copytree(published, tmp_path / store.__name__)))
        loaded = load_checkpoint(Source(str(copy), None, "cpu", "float32"), "AutoModelForImageTextToText")
        heads.append(loaded.model.lm_head.weight)
    torch.testing.assert_close(heads[1], heads[0] * 2)


def test_links_are_fingerprinted_by_what_they_lead_to(published: Path, tmp_path: Path) -> None:
    snapshot = cache(Path(shutil.copytree(published, tmp_path / "copy")))
    assert fingerprint(snapshot) == fingerprint(published)
    blob = (snapshot / "config.json").resolve()
    blob.write_text(blob.read_text() + " ")
    assert fingerprint(snapshot) != fingerprint(published)


def append_token(folder: Path) -> None:
    """Let the tokenizer close each text with a token, as that of Qwen3-VL-Embedding does."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = "<|endoftext|>"
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_modules(folder: Path, pooling: str, *others: str) -> None:
    """Files of sentence-transformers."""
    kinds = ["Transformer", "Pooling", *others, "Normalize"]
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(kinds[1:], 1))]
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))


@pytest.fixture
def bare(published: Path, tmp_path: Path) -> Path:
    """An instruct Qwen3-VL in the hub's cache's form: nothing says what it is but its files."""
    folder = Path(shutil.copytree(published, tmp_path / COMMIT))
    config = json.loads((folder / "config.json").read_text())
    del config["emb_token_ids"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def family_of(folder: Path) -> str:
    spec = resolve_embedder(str(folder)).spec
    assert isinstance(spec, EmbedderSpec)
    return spec.family


def test_families_are_told_by_content(published: Path, bare: Path) -> None:
    assert family_of(published) == "embed-rl"
    append_token(bare)
    assert family_of(bare) == "qwen3-vl-embedding"
    write_modules(bare, "lasttoken")
    assert family_of(bare) == "qwen3-vl-embedding"
    for folder in (published, bare):
        with pytest.raises(ModelError, match="holds an embedder"):
            resolve_reasoner(str(folder))


@pytest.mark.parametrize(("pooling", "others"), [("mean_tokens", ()), ("lasttoken", ("Dense",))])
def test_whoever_pools_otherwise_is_left_to_sentence_transformers(
    pooling: str, others: tuple[str, ...], bare: Path
) -> None:
    append_token(bare)
    write_modules(bare, pooling, *others)
    assert family_of(bare) == "sentence-transformers"


def test_an_instruct_model_is_no_embedder_but_a_reasoner(bare: Path) -> None:
    with pytest.raises(IncompatibleModel, match="not an Embedder") as raised:
        resolve_embedder(str(bare))
    assert "reasoner" in raised.value.hint
    assert resolve_reasoner(str(bare)).model == str(bare)


def test_what_a_folder_says_of_itself_comes_first(bare: Path) -> None:
    append_token(bare)
    write_spec(EmbedderSpec(family="embed-rl"), bare)
    assert family_of(bare) == "embed-rl"


def test_a_token_that_nobody_knows_is_refused(bare: Path) -> None:
    spec = EmbedderSpec(family="embed-rl", emb_token="<unheard-of>")
    with pytest.raises(IncompatibleModel, match="declared neither"):
        TransformersEmbedder.from_pretrained(str(bare), spec=spec, device="cpu")


def test_adapters_alone_are_refused_by_name_in_both_roles(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "Qwen/Qwen3-VL-2B-Instruct"}')
    for resolve in (resolve_embedder, resolve_reasoner):
        with pytest.raises(IncompatibleModel, match="adapters of Qwen/Qwen3-VL-2B-Instruct") as raised:
            resolve(str(tmp_path))
        assert "ume train export" in raised.value.hint
