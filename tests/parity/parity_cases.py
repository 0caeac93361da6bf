"""Inputs of both published families, with what their authors' code made of them: ids, grids, pixels and vectors.

`<family>/cases.json` was made with transformers 4.57.3. Weights are random and the architecture is the true one, so a
token too many or a pixel off turns a vector far. Nothing here is by the authors: pictures, videos, tokenizer and
weights were made for these tests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from ume_retrieval import Embedder, Frames, Item
from ume_retrieval.chat import Chat
from ume_retrieval.engines.base import Embeddings

HERE = Path(__file__).parent
FAMILIES = {"embed-rl": ("mmeb", "train"), "qwen3-vl-embedding": ("published",)}
"""Families and their published profiles, the default one first."""
CASES = {family: json.loads((HERE / family / "cases.json").read_text(encoding="utf-8")) for family in FAMILIES}


class Recording:
    """An Embedder that keeps the chats that it is given, and what each call took."""

    def __init__(self, engine: Embedder) -> None:
        self.engine = engine
        self.info, self.spec, self.dimension = engine.info, engine.spec, engine.dimension
        self.chats: list[Chat] = []
        self.tokens = 0

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        self.chats += chats
        made = self.engine.embed(chats)
        self.tokens += made.tokens
        return made


def label(case: dict[str, Any]) -> str:
    return case["name"] + (f" ({case['profile']})" if "profile" in case else "")


ALL = [pytest.param(family, case, id=f"{family}: {label(case)}") for family in FAMILIES for case in CASES[family]]
EXACT = [param for param in ALL if "authors_error" not in param.values[1]]


def one(family: str, name: str) -> dict[str, Any]:
    (case,) = (case for case in CASES[family] if label(case) == name)
    return case


def profile_of(family: str, case: dict[str, Any]) -> str:
    profile: str = case.get("profile", FAMILIES[family][0])
    return profile


def copy_checkpoints(into: Path) -> dict[str, Path]:
    """Checkpoints in folders whose names say nothing, as a hub's cache keeps them."""
    made = {}
    for digit, family in enumerate(FAMILIES):
        made[family] = into / (f"{digit}3f9c0" * 6)
        shutil.copytree(HERE / family / "checkpoint", made[family])
    return made


def item_of(family: str, case: dict[str, Any]) -> Item:
    media, given = HERE / family / "media", case["input"]
    videos: tuple[Any, ...] = ()
    if video := given.get("video"):
        if "file" in video:
            videos = (media / video["file"],)
        else:
            images = tuple(PIL.Image.open(media / name).convert("RGB") for name in video["frames"])
            videos = (Frames(images, tuple(video["times_s"]), len(images) / video["fps"]),)
    images = tuple(media / name for name in given.get("images", ()))
    return Item(given.get("text"), images, videos, given.get("instruction"))


def ids_of(family: str, expected: dict[str, Any]) -> list[int]:
    """Published ids, runs of equal ones spelled out; of Embed-RL's up to the token that is pooled."""
    ids = spread(expected["input_ids"])
    if family == "embed-rl":
        (pooled,) = json.loads((HERE / family / "checkpoint" / "config.json").read_text())["emb_token_ids"]
        ids = ids[: len(ids) - ids[::-1].index(pooled)]
    return ids


def cosine(vector: npt.NDArray[np.float32], expected: dict[str, Any]) -> float:
    published = np.array(expected["vector"])
    return float(vector @ published / np.linalg.norm(published))


def least_cosine(case: dict[str, Any]) -> float:
    """Frames of files are resized by Pillow here and by torchvision there."""
    return 0.9999 if "file" in case["input"].get("video", ()) else 0.99999


RERANKER = "qwen3-vl-reranker"
RERANKED = json.loads((HERE / RERANKER / "cases.json").read_text(encoding="utf-8"))
"""Queries with documents, and the scores that the published reranker gives them."""


def reranked(case: dict[str, Any]) -> tuple[Item, list[Item]]:
    """Query, with the instruction, and documents of a case."""
    given = case["input"]
    query = item_of(RERANKER, {"input": {**_spelled(given["query"]), "instruction": given.get("instruction")}})
    return query, [item_of(RERANKER, {"input": _spelled(one)}) for one in given["documents"]]


def _spelled(given: dict[str, Any]) -> dict[str, Any]:
    """Texts may be pieces with how often they are repeated."""
    if not isinstance(given.get("text"), list):
        return given
    return {**given, "text": "".join(words * count for words, count in given["text"])}


def spread(ids: list[Any]) -> list[int]:
    """Token ids, runs of equal ones spelled out."""
    return [t for x in ids for t in ([x[0]] * x[1] if isinstance(x, list) else [x])]


def score_tolerance(case: dict[str, Any]) -> float:
    """Frames of files are resized by Pillow here and by torchvision there."""
    return 3e-4 if any("file" in one.get("video", ()) for one in case["input"]["documents"]) else 1e-4
