"""The adapter under mteb's own conformance run, and what reaches the embedder."""

from __future__ import annotations

from typing import Any

import mteb
import numpy as np
import PIL.Image
import pytest
import torch
from mteb.types import PromptType

from ume_mteb import UmeEncoder
from ume_mteb.inputs import EMPTY, frames_of, items_of
from ume_retrieval import InputError, ModelError
from ume_retrieval.testing import FakeReasoner, fake_embedder

# mteb's mock tasks hold constant labels, of which scipy and scikit-learn warn.
pytestmark = pytest.mark.filterwarnings("ignore")


class Task:
    """As much of a task's metadata as an encoder asks for."""

    name = "Some"
    type = "Retrieval"
    prompt = {"query": "Find the scene", "document": "Describe the scene"}  # noqa: RUF012  # as mteb has it


def fake(**kwargs: Any) -> UmeEncoder:
    return UmeEncoder(fake_embedder(reasoner=FakeReasoner(**kwargs)), reasoning="always")


def encode(encoder: UmeEncoder, rows: list[str], side: PromptType | None) -> Any:
    return encoder.encode(
        [{"text": rows[:2]}, {"text": rows[2:]}],  # type: ignore[arg-type]  # an iterable of batches, as a loader is
        task_metadata=Task(),  # type: ignore[arg-type]  # as much as is asked for
        hf_split="test",
        hf_subset="default",
        prompt_type=side,
    )


@pytest.mark.parametrize("reasoning", ["never", pytest.param("always", marks=pytest.mark.slow)])
def test_the_conformance_run_passes_on_text_and_pictures(reasoning: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    results = mteb.mock_run(UmeEncoder("ume-tiny", reasoning=reasoning, device="cpu", cache=None))
    states = {modality: (state, failed) for state, modality, failed in results.modality_summary()}
    assert states["text"] == ("✓ (35/35)", "")
    assert states["image"] == ("✓ (15/15)", "")
    errors = [str(one.exception) for _, one in results.items() if hasattr(one, "exception")]
    assert all("torchcodec" in error for error in errors)  # clips need a decoder that may not be there


def test_queries_carry_the_instruction_and_documents_none() -> None:
    encoder = fake()
    texts = ["a red circle", "the last train", "a blue square"]
    queries, documents = (encode(encoder, texts, side) for side in (PromptType.query, PromptType.document))
    assert queries.shape == documents.shape == (3, 64)
    assert not np.allclose(queries, documents)
    plain = encoder.embedder.encode_corpus(texts)
    np.testing.assert_array_equal(documents, plain)
    assert encode(encoder, texts, None).tolist() == plain.tolist()


def test_what_cannot_be_encoded_counts_as_a_miss(caplog: pytest.LogCaptureFixture) -> None:
    encoder = fake(answer=lambda chat: "" if "train" in str(chat) else "<answer>fine</answer>")
    vectors = encode(encoder, ["a red circle", "the last train", "a blue square"], PromptType.document)
    lengths = np.linalg.norm(vectors, axis=1)
    assert encoder.failed == int((lengths == 0).sum()) >= 1
    assert lengths[1] == 0
    assert "row 1" in caplog.text


def test_names_keep_modes_apart() -> None:
    pair = fake_embedder()
    reasoned, direct = UmeEncoder(pair, reasoning="always"), UmeEncoder(pair, reasoning="never")
    names = {one.mteb_model_meta.name for one in (reasoned, direct)}
    assert len(names) == 2
    assert all(name.count("/") == 1 for name in names)
    assert direct.mteb_model_meta.modalities == ["text", "image", "video"]


def test_a_revision_that_was_not_loaded_is_refused() -> None:
    pair = fake_embedder()
    loaded = pair.info.embedder.revision
    assert UmeEncoder(pair, loaded).mteb_model_meta.revision == loaded
    with pytest.raises(ModelError, match="not another"):
        UmeEncoder(pair, "another")


def test_batches_become_items() -> None:
    picture = PIL.Image.new("L", (8, 8))
    batch = {"text": ["a", ""], "image": [picture, [picture, picture]], "video": [None, torch.zeros(3, 3, 8, 8)]}
    first, second = items_of([batch], "Find it")
    assert (first.text, len(first.images), len(first.videos), first.instruction) == ("a", 1, 0, "Find it")
    assert (second.text, len(second.images), len(second.videos)) == (None, 2, 1)
    assert second.images[0].mode == "RGB"  # type: ignore[union-attr]  # a picture
    assert [one.text for one in items_of([{"text": ["", " ", "\n\t"]}], None)] == [EMPTY] * 3
    [captionless] = items_of([{"text": [" "], "image": [picture]}], None)
    assert captionless.text is None
    with pytest.raises(InputError, match="audio only"):
        list(items_of([{"audio": [1]}], None))


class Decoder:
    """What torchcodec's VideoDecoder offers, as far as it is read."""

    class metadata:  # noqa: N801  # its name there
        average_fps = 4.0
        duration_seconds = 50.0

    def __len__(self) -> int:
        return 200

    def get_frames_at(self, indices: list[int]) -> Any:
        class Batch:
            data = torch.stack([torch.full((3, 8, 8), number, dtype=torch.uint8) for number in indices])

        return Batch


def test_frames_keep_their_times() -> None:
    frames = frames_of(Decoder())
    assert (len(frames.images), frames.timestamps[0], frames.timestamps[-1]) == (64, 0.0, 199 / 4)
    assert frames.duration_s == 50.0
    assert frames.images[1].getpixel((0, 0)) == (3, 3, 3)
    with pytest.raises(InputError, match="0 frames"):
        frames_of(torch.zeros(0, 3, 8, 8))
