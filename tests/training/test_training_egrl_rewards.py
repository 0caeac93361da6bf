"""The reward against a slow reference written straight from the paper, whatever the order of the rows."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import TCot
from ume_retrieval.tcot import Box, render
from ume_training.egrl import format_reward, outcome_rewards


def reference(vectors, sides, pairs, *, exempt, top, tau, weighted):
    """Acc@k * (mean positive - weighted mean negative), one row at a time, in plain Python."""
    rewards = []
    for i, own in enumerate(vectors):
        right, wrong = [], []
        for j, other in enumerate(vectors):
            if sides[i] == sides[j] or any(map(math.isnan, own)) or any(map(math.isnan, other)):
                continue
            similarity = sum(a * b for a, b in zip(own, other, strict=True))
            if pairs[i] == pairs[j]:
                right.append(similarity)
            elif not exempt[i][j]:
                wrong.append(similarity)
        if not right or not wrong:
            rewards.append(0.0)
            continue
        k = min(top, len(right))
        ranked = sorted([(s, 1) for s in right] + [(s, 0) for s in wrong], key=lambda pair: -pair[0])
        accuracy = sum(is_right for _, is_right in ranked[:k]) / k
        weights = [math.exp(s / tau) if weighted else 1.0 for s in wrong]
        expected = sum(w * s for w, s in zip(weights, wrong, strict=True)) / sum(weights)
        rewards.append(accuracy * (sum(right) / len(right) - expected))
    return rewards


@st.composite
def batches(draw):
    pair_count, rollouts = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = [(side, pair) for pair in range(pair_count) for side in ("query", "corpus") for _ in range(rollouts)]
    vectors = rng.normal(size=(len(rows), 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[rng.random(len(rows)) < 0.1] = np.nan
    lucky = rng.random((pair_count, pair_count)) < 0.2
    exempt = np.array([[bool(lucky[a][b] or lucky[b][a]) for _, b in rows] for _, a in rows])
    return vectors, [s for s, _ in rows], [p for _, p in rows], exempt


@settings(deadline=None)
@given(batches(), st.integers(1, 8), st.sampled_from([0.05, 0.5, 2.0]), st.booleans(), st.integers(0, 10**6))
def test_outcome_equals_the_reference_in_any_order(batch, top, tau, weighted, seed):
    vectors, sides, pairs, exempt = batch
    wanted = reference(vectors.tolist(), sides, pairs, exempt=exempt, top=top, tau=tau, weighted=weighted)
    order = list(range(len(sides)))
    random.Random(seed).shuffle(order)
    got = outcome_rewards(
        vectors[order],
        [sides[i] for i in order],
        [pairs[i] for i in order],
        exempt=exempt[np.ix_(order, order)],
        top=top,
        temperature=tau,
        weighted=weighted,
    )
    assert got.rewards.tolist() == pytest.approx([wanted[i] for i in order], abs=1e-12)


def test_equals_share_the_places_that_they_compete_for():
    vectors = [[1.0, 0.0]] * 6
    sides, pairs = ["query", "query", "query", "corpus", "corpus", "corpus"], [1, 2, 3, 1, 2, 3]
    outcome = outcome_rewards(vectors, sides, pairs)
    assert outcome.accuracy.tolist() == pytest.approx([1 / 3] * 6)
    assert outcome.rewards.tolist() == pytest.approx([0.0] * 6)


def test_nearer_negatives_count_more_when_weighted():
    vectors = np.array([[1, 0], [0.9, 0.1], [0.8, 0.2], [-1, 0], [0, 1], [0, -1]], dtype=float)
    sides, pairs = ["query", "corpus", "corpus", "corpus", "query", "query"], [0, 0, 1, 2, 1, 2]
    weighted = outcome_rewards(vectors, sides, pairs)
    plain = outcome_rewards(vectors, sides, pairs, weighted=False)
    assert weighted.margin[0] < plain.margin[0]
    assert plain.margin[0] == pytest.approx(0.9 - (0.8 - 1.0) / 2)


def test_an_answer_to_another_query_is_no_negative():
    vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]
    sides, pairs = ["query", "query", "corpus", "corpus"], [0, 1, 0, 1]
    exempt = np.zeros((4, 4), dtype=bool)
    assert outcome_rewards(vectors, sides, pairs, exempt=exempt).accuracy[0] == pytest.approx(0.5)
    exempt[0, 3] = exempt[3, 0] = True
    assert outcome_rewards(vectors, sides, pairs, exempt=exempt).rewards[0] == 0.0  # nothing left to compare with


GOOD = {
    "text": TCot("a", "b", "c", keywords=("d",)),
    "image": TCot("a", "b", "c", boxes=(Box(0, 0, 10, 10),)),
    "video": TCot("a", "b", "c", key_frames=(2,)),
}


@pytest.mark.parametrize("modality", GOOD)
def test_the_form_needs_the_cue_of_its_modality(modality):
    text = render(GOOD[modality])
    for asked in GOOD:
        assert format_reward(text, asked, frames=4) == float(asked == modality)


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "a red circle",
        render(GOOD["image"]).replace("</answer>", ""),
        render(GOOD["image"]) + " and more",
        render(GOOD["image"]).replace("<rethink>b</rethink>", ""),
        render(GOOD["image"]).replace("10", "1010"),
        render(GOOD["image"]).replace("<answer>c</answer>", "<answer></answer>"),
    ],
)
def test_whatever_parse_has_to_mend_breaks_the_form(broken):
    assert format_reward(broken, "image") == 0.0


def test_frames_beyond_the_last_and_boxes_on_missing_images_break_the_form():
    assert format_reward(render(GOOD["video"]), "video", frames=1) == 0.0
    second = TCot("a", "b", "c", boxes=(Box(0, 0, 9, 9), Box(0, 0, 9, 9, image=1)))
    assert (format_reward(render(second), "image", images=1), format_reward(render(second), "image", images=2)) == (
        0,
        1,
    )


@given(st.text(max_size=300))
def test_any_string_has_a_format_reward(text):
    assert format_reward(text, "image") in {0.0, 1.0}
