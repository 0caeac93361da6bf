"""Damaged and foreign checkpoints: each is refused, by the name of what is wrong with it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ume_cli.app import app
from ume_retrieval import ModelError, ReasoningEmbedder
from ume_retrieval.engines.transformers.reasoner import TransformersReasoner
from ume_retrieval.errors import IncompatibleModel
from ume_training.shapes.pair.architecture import REASONER_SPEC
from ume_training.shapes.pair.tokenizer import build_tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
LAYER = "model.language_model.layers.0.mlp.up_proj.weight"

Tensors = dict[str, Any]


def change_weights(change: Callable[[Tensors], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def change_json(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        change(data)
        (folder / name).write_text(json.dumps(data), encoding="utf-8")

    return damage


def remove(*names: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def put(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return damage


def fill(value: float) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        tensors[LAYER][0, 0] = value

    return change


def shard(folder: Path) -> None:
    """Weights in two files and an index, as large checkpoints are stored."""
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {
        f"model-0000{number}-of-00002.safetensors": part
        for number, part in ((1, names[: len(names) // 2]), (2, names[len(names) // 2 :]))
    }
    for shard_name, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / shard_name, metadata={"format": "pt"})
    where = {name: shard_name for shard_name, part in shards.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    (folder / WEIGHTS).unlink()


def lose_a_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def point_outside(folder: Path) -> None:
    shard(folder)
    change_json(INDEX, lambda index: index["weight_map"].update({LAYER: "../elsewhere.safetensors"}))(folder)


def cut_index(folder: Path) -> None:
    shard(folder)
    put(INDEX, b'{"weight_map": {"a')(folder)


def pickle_weights(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()


def truncate(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def keep_adapters_only(folder: Path) -> None:
    put("adapter_config.json", b'{"base_model_name_or_path": "some/base", "peft_type": "LORA"}')(folder)
    (folder / WEIGHTS).rename(folder / "adapter_model.safetensors")


def take_anothers_tokenizer(folder: Path) -> None:
    other = build_tokenizer("<emb>", samples=200)
    other.add_tokens([f"<more-{number}>" for number in range(50)])
    other.save_pretrained(folder)


def add_layer(config: dict[str, Any]) -> None:
    config["text_config"]["num_hidden_layers"] += 1
    config["text_config"].pop("layer_types", None)


def untie(config: dict[str, Any]) -> None:
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = False


def shift_ids(config: dict[str, Any]) -> None:
    config["image_token_id"] += 1


@dataclass(frozen=True)
class Damage:
    """What is done to a checkpoint, and what the error then says."""

    do: Callable[[Path], None]
    says: str
    kind: type[ModelError] = ModelError


MISFITS = {
    "a weight is missing": Damage(
        change_weights(lambda tensors: tensors.pop(LAYER)),
        r"layers\.0\.mlp\.up_proj\.weight is missing",
        IncompatibleModel,
    ),
    "a weight too many": Damage(
        change_weights(lambda tensors: tensors.update({"model.language_model.layers.9.gate": torch.zeros(2)})),
        r"no place for the weight .*layers\.9\.gate",
        IncompatibleModel,
    ),
    "a weight of another shape": Damage(
        change_weights(lambda tensors: tensors.update({LAYER: tensors[LAYER][:-1].clone()})),
        r"up_proj\.weight has shape \(191, 64\), the model's is \(192, 64\)",
        IncompatibleModel,
    ),
    "NaN in a weight": Damage(change_weights(fill(float("nan"))), r"up_proj\.weight holds NaN", IncompatibleModel),
    "infinity in a weight": Damage(change_weights(fill(float("-inf"))), r"up_proj\.weight holds", IncompatibleModel),
    "weights cut off": Damage(truncate, r"model\.safetensors is damaged"),
    "weights overwritten": Damage(put(WEIGHTS, b"\xff" * 4096), r"model\.safetensors is damaged"),
    "weights empty": Damage(put(WEIGHTS, b""), r"model\.safetensors is empty"),
    "weights not fetched": Damage(
        put(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"), "is a pointer"
    ),
    "weights missing": Damage(remove(WEIGHTS), r"model\.safetensors is missing"),
    "weights pickled": Damage(pickle_weights, r"pytorch_model\.bin is pickled", IncompatibleModel),
    "a shard missing": Damage(lose_a_shard, r"model-00002-of-00002\.safetensors is missing"),
    "a shard elsewhere": Damage(point_outside, r"outside the folder \(\.\./elsewhere"),
    "an index cut off": Damage(cut_index, r"index\.json cannot be read"),
    "adapters only": Damage(keep_adapters_only, "LoRA adapters of some/base", IncompatibleModel),
    "adapters next to weights": Damage(put("adapter_config.json", b"{}"), "LoRA adapters", IncompatibleModel),
    "a configuration missing": Damage(remove("config.json"), r"config\.json is missing"),
    "a configuration cut off": Damage(put("config.json", b'{"model_type": '), r"config\.json cannot be read"),
    "a configuration of a list": Damage(put("config.json", b"[]"), r"config\.json holds no JSON object"),
    "an unheard-of architecture": Damage(
        change_json("config.json", lambda config: config.update(model_type="unheard_of")), "unheard_of"
    ),
    "another architecture": Damage(put("config.json", b'{"model_type": "bert"}'), "the weight embeddings.* is missing"),
    "another size": Damage(
        change_json("config.json", lambda config: config["text_config"].update(hidden_size=32)),
        "has shape",
        IncompatibleModel,
    ),
    "more layers than weights": Damage(
        change_json("config.json", add_layer),
        r"layers\.2\..* is missing",
        IncompatibleModel,
    ),
    "no chat template": Damage(remove("chat_template.jinja"), "no chat template", IncompatibleModel),
    "no processor": Damage(remove("processor_config.json"), r"preprocessor_config\.json is missing"),
    "no tokenizer": Damage(
        remove("tokenizer.json", "tokenizer_config.json"), "tokenizer has no words", IncompatibleModel
    ),
    "a damaged tokenizer": Damage(put("tokenizer.json", b'{"model": '), r"tokenizer\.json cannot be read"),
    "another tokenizer": Damage(take_anothers_tokenizer, r"tokenizer has \d+ tokens, its embedding matrix \d+ rows"),
    "other ids of pictures": Damage(
        change_json("config.json", shift_ids), r"image token id is \d+ in its tokenizer", IncompatibleModel
    ),
}


@pytest.fixture
def copy(random_pair: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(random_pair / "embedder", tmp_path / "copy"))


@pytest.mark.parametrize("name", MISFITS)
def test_a_damaged_embedder_is_refused_by_what_is_wrong(name: str, copy: Path) -> None:
    damage = MISFITS[name]
    damage.do(copy)
    with pytest.raises(damage.kind, match=damage.says) as raised:
        ReasoningEmbedder.from_pretrained(str(copy), reasoner=None, device="cpu")
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("name", ["a weight is missing", "weights pickled", "no chat template"])
def test_a_damaged_reasoner_is_refused_likewise(name: str, random_pair: Path, tmp_path: Path) -> None:
    damage = MISFITS[name]
    copy = Path(shutil.copytree(random_pair / "reasoner", tmp_path / "copy"))
    damage.do(copy)
    with pytest.raises(damage.kind, match=damage.says):
        ReasoningEmbedder.from_pretrained(str(random_pair / "embedder"), reasoner=str(copy), device="cpu", cache=None)


def test_a_reasoner_without_its_head_is_refused(random_pair: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(random_pair / "reasoner", tmp_path / "copy"))
    change_json("config.json", untie)(copy)
    with pytest.raises(IncompatibleModel, match=r"lm_head\.weight is missing"):
        TransformersReasoner.from_pretrained(str(copy), spec=REASONER_SPEC, device="cpu")


@pytest.mark.parametrize("name", ["a weight is missing", "a shard missing", "adapters only"])
def test_the_command_says_it_in_one_line(name: str, copy: Path, tmp_path: Path) -> None:
    MISFITS[name].do(copy)
    (tmp_path / "media").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "media" / "red.png")
    arguments = ["index", str(tmp_path / "media"), "--model", str(copy), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    said = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert re.search(MISFITS[name].says, said[0])
    assert "Traceback" not in result.stderr
    assert "LOAD REPORT" not in result.stderr
