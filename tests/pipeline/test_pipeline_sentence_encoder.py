"""sentence-transformers' own keywords and evaluators on a `ReasoningEmbedder`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

from ume_retrieval import InputError
from ume_retrieval.pipeline.sentence_encoder import SentenceEncoder
from ume_retrieval.testing import fake_embedder

CORPUS = {
    "circle": "a red circle on grass",
    "train": "the last train home",
    "cake": "a cake with red candles",
    "harbour": "boats in the old harbour",
}
QUERIES = {"q1": "red circle", "q2": "train home", "q3": "red grass candles", "q4": "old grass boats of the train"}
RELEVANT = {"q1": {"circle"}, "q2": {"train"}, "q3": {"cake", "circle"}, "q4": {"harbour"}}


@pytest.mark.parametrize("reasoning", ["always", "never"])
def test_their_evaluator_ranks_as_we_do(reasoning: str) -> None:
    embedder = fake_embedder()
    evaluator = InformationRetrievalEvaluator(
        QUERIES, CORPUS, RELEVANT, mrr_at_k=[4], ndcg_at_k=[4], accuracy_at_k=[1], map_at_k=[4], write_csv=False
    )
    found = evaluator(SentenceEncoder(embedder, reasoning=reasoning))  # type: ignore[arg-type]  # the methods it calls
    scores = embedder.similarity(
        embedder.encode_query([*QUERIES.values()], reasoning=reasoning),  # type: ignore[call-overload]  # parametrized
        embedder.encode_corpus([*CORPUS.values()], reasoning=reasoning),  # type: ignore[call-overload]  # parametrized
    )
    names = list(CORPUS)
    ranked = [[names[place] for place in np.argsort(-row)] for row in scores]
    first = [
        min(ranking.index(name) for name in RELEVANT[query]) for query, ranking in zip(QUERIES, ranked, strict=True)
    ]
    assert found["cosine_accuracy@1"] == pytest.approx(np.mean([place == 0 for place in first]))
    assert found["cosine_mrr@4"] == pytest.approx(np.mean([1 / (1 + place) for place in first]))


def test_keywords_change_the_form_and_not_the_vectors() -> None:
    embedder = fake_embedder()
    encoder = SentenceEncoder(embedder)
    texts = [*CORPUS.values()]
    expected = embedder.encode_corpus(texts)
    options = {"batch_size": 2, "normalize_embeddings": True, "show_progress_bar": True}
    np.testing.assert_array_equal(encoder.encode_document(texts, **options), expected)
    np.testing.assert_array_equal(encoder.encode(texts, prompt_name="document"), expected)
    tensor = encoder.encode_document(texts, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), expected)
    rows = encoder.encode_document(texts, convert_to_numpy=False)
    assert isinstance(rows, list)
    np.testing.assert_array_equal(torch.stack(rows).numpy(), expected)
    assert encoder.encode_document("a cake", truncate_dim=8).shape == (8,)
    np.testing.assert_array_equal(encoder.encode("a cake", prompt_name="query"), embedder.encode_query("a cake"))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"prompt_name": "passage"}, "unknown prompt_name 'passage'"),
        ({"prompt": "Find: "}, "prompt is 'Find: '"),
        ({"device": "cuda"}, "device is 'cuda'"),
        ({"output_value": "token_embeddings"}, "output_value is 'token_embeddings'"),
    ],
)
def test_what_it_cannot_do_is_refused(keywords: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SentenceEncoder(fake_embedder()).encode("a cake", **keywords)  # type: ignore[arg-type]  # wrong on purpose
