"""Vectors of both published families against those of their authors' code, on transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity_cases import (
    ALL,
    CASES,
    EXACT,
    FAMILIES,
    Recording,
    copy_checkpoints,
    cosine,
    ids_of,
    item_of,
    least_cosine,
    one,
    profile_of,
)

from ume_retrieval import ReasoningEmbedder
from ume_retrieval.engines.transformers.embedder import TransformersEmbedder
from ume_retrieval.testing import FakeReasoner


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return copy_checkpoints(tmp_path_factory.mktemp("snapshots"))


@pytest.fixture(scope="session")
def engines(folders: dict[str, Path]) -> dict[tuple[str, str], TransformersEmbedder]:
    """One engine for each family and profile."""
    loaded = {}
    for family, names in FAMILIES.items():
        for name in names:
            whole = ReasoningEmbedder.from_pretrained(
                folders[family], reasoner=None, profile=name, device="cpu", dtype="float32", cache=None
            )
            assert isinstance(whole.embedder, TransformersEmbedder)
            loaded[family, name] = whole.embedder
    return loaded


class Made:
    """What the pipeline makes of a case."""

    def __init__(self, engine: TransformersEmbedder, family: str, case: dict[str, Any]) -> None:
        recording = Recording(engine)
        reply = case["input"].get("tcot")
        pipeline = ReasoningEmbedder(recording, FakeReasoner(lambda _: reply) if reply else None, cache=None)
        self.vector = pipeline.encode_query(item_of(family, case), reasoning="always" if reply else "never")
        self.rows = engine.rows(recording.chats)

    @property
    def ids(self) -> list[int]:
        return [int(token) for token in self.rows.tokens]

    def grid(self, kind: str) -> list[list[int]] | None:
        found = self.rows.pictures.get(f"{kind}_grid_thw")
        return None if found is None else found.tolist()


def engine_of(engines: dict[tuple[str, str], TransformersEmbedder], family: str, case: dict[str, Any]) -> Any:
    return engines[family, profile_of(family, case)]


@pytest.mark.parametrize(("family", "case"), EXACT)
def test_vectors_are_the_published_ones(
    engines: dict[tuple[str, str], TransformersEmbedder], family: str, case: dict[str, Any]
) -> None:
    expected = case["expected"]
    made = Made(engine_of(engines, family, case), family, case)
    assert made.ids == ids_of(family, expected)
    assert made.grid("image") == expected.get("image_grid_thw")
    assert made.grid("video") == expected.get("video_grid_thw")
    for name in ("pixel_values", "pixel_values_videos"):
        assert (name in made.rows.pictures) == (name in expected)
        if name in expected:
            pixels, figures = made.rows.pictures[name].float(), expected[name]
            flat = pixels.flatten()
            places = [round(k * (len(flat) - 1) / 15) for k in range(16)]
            assert list(pixels.shape) == figures["shape"]
            assert float(pixels.mean()) == pytest.approx(figures["mean"], abs=1e-5)
            assert float(pixels.std()) == pytest.approx(figures["std"], abs=1e-5)
            assert flat[places].tolist() == pytest.approx(figures["sample"], abs=1e-5)
    assert cosine(made.vector, expected) >= least_cosine(case)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_that_the_authors_refuse_gets_a_vector(
    engines: dict[tuple[str, str], TransformersEmbedder], family: str
) -> None:
    """Above 200 to 1 Embed-RL's code raises, and Qwen3-VL-Embedding's embeds the word NULL. Here length is lost."""
    case = one(family, "image too long")
    assert "200" in case["expected"]["error"]
    made = Made(engine_of(engines, family, case), family, case)
    ((_, height, width),) = made.grid("image") or ()
    assert min(height, width) == 2  # one token: 32 pixels
    null = Made(engine_of(engines, family, case), family, {"input": {"text": "NULL"}})
    assert abs(made.vector @ null.vector) < 0.99


def test_a_flat_box_is_a_box(engines: dict[tuple[str, str], TransformersEmbedder]) -> None:
    """The released code raises on the form that its own prompts show; a list of one box gives the same picture."""
    flat = one("embed-rl", "image + T-CoT, flat box")
    assert "TypeError" in flat["expected"]["error"]
    listed = {
        **flat,
        "input": {**flat["input"], "tcot": flat["input"]["tcot"].replace("[103", "[[103").replace("3]", "3]]")},
    }
    made, meant = (Made(engine_of(engines, "embed-rl", case), "embed-rl", case) for case in (flat, listed))
    assert made.grid("image") == meant.grid("image") == [[1, 24, 32], [1, 24, 24]]
    assert np.array_equal(made.rows.pictures["pixel_values"], meant.rows.pictures["pixel_values"])


def test_a_video_file_is_sampled_for_embed_rl(engines: dict[tuple[str, str], TransformersEmbedder]) -> None:
    """The release has no code that reads a file; ours shows the frames that training's rate takes, 2 a second."""
    case = one("embed-rl", "video file 2 s")
    assert "UnidentifiedImageError" in case["expected"]["error"]
    made = Made(engine_of(engines, "embed-rl", case), "embed-rl", case)
    assert len(made.grid("image") or ()) == 4


def test_key_frames_are_counted_as_the_prompts_count_them(
    engines: dict[tuple[str, str], TransformersEmbedder], folders: dict[str, Path]
) -> None:
    """From 1; a profile that counts from 0, as the released code does, gives its vector."""
    case = one("embed-rl", "video, 8 frames + text + T-CoT, key frames (mmeb)")
    ours = Made(engine_of(engines, "embed-rl", case), "embed-rl", case)
    assert ours.ids == ids_of("embed-rl", case["expected"])
    spec = engine_of(engines, "embed-rl", case).spec
    evidence = spec.profile.evidence.model_copy(update={"first_frame": 0})
    from_zero = spec.profile.model_copy(update={"name": "from-zero", "evidence": evidence})
    pipeline = ReasoningEmbedder.from_pretrained(
        folders["embed-rl"], reasoner=None, profile=from_zero, device="cpu", dtype="float32", cache=None
    )
    assert isinstance(pipeline.embedder, TransformersEmbedder)
    theirs = Made(pipeline.embedder, "embed-rl", case)
    assert cosine(theirs.vector, case["expected"]) >= 0.99999
    assert cosine(ours.vector, case["expected"]) < 0.99999


def test_every_case_is_expected_to_be_something() -> None:
    """No case is left out: what is not compared has a test of its own above."""
    apart = {case["name"] for family in FAMILIES for case in CASES[family] if "authors_error" in case}
    assert apart == {
        "image too long",
        "image + T-CoT, flat box",
        "video file 2 s",
        "video, 8 frames + text + T-CoT, key frames",
    }
    assert len(ALL) == 73
