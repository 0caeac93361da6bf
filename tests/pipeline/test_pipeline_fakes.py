"""The public fakes: valid traces, and vectors that mean something."""

from __future__ import annotations

import sys
from subprocess import run

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Embedder, Frames, Item, Reasoner, Sampling
from ume_retrieval.chat import Message, TextPart
from ume_retrieval.pipeline.loading import Input
from ume_retrieval.testing import COLOURS, FakeReasoner, HashEmbedder, fake_embedder


def shade(colour: str) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (40, 40), COLOURS[colour])


def test_they_keep_the_engines_protocols() -> None:
    assert isinstance(FakeReasoner(), Reasoner)
    assert isinstance(HashEmbedder(), Embedder)


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_any_text_gets_a_sound_trace_and_a_unit_vector(text: str) -> None:
    result = fake_embedder().encode_query([text], return_traces=True)
    assert result.usage.trace_problems == {}
    assert np.linalg.norm(result.vectors) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    "item",
    [
        shade("red"),
        Item("and a word", (shade("red"), shade("blue"))),
        Frames((shade("red"), shade("green")), (0.0, 1.0), 2.0),
        Item("w", (shade("red"),), (Frames((shade("red"),), (0.0,), 1.0),) * 2),
    ],
)
def test_every_modality_gets_the_cue_that_it_needs(item: Input) -> None:
    result = fake_embedder().encode_corpus(item, return_traces=True)
    [trace] = result.traces
    assert result.usage.trace_problems == {}
    assert trace is not None
    assert trace.evidence


@pytest.mark.parametrize("reasoning", ["always", "never"])
def test_a_colours_name_finds_its_picture(reasoning: str) -> None:
    embedder = fake_embedder()
    pictures = embedder.encode_corpus([shade(colour) for colour in COLOURS], reasoning=reasoning)
    names = embedder.encode_query([f"something {colour}" for colour in COLOURS], reasoning=reasoning)
    assert embedder.similarity(names, pictures).argmax(axis=1).tolist() == list(range(len(COLOURS)))


def test_equal_pixels_are_told_from_other_pixels() -> None:
    reasoner = FakeReasoner()
    replies = [
        fake_embedder(reasoner=reasoner).trace(PIL.Image.new("RGB", (40, 40), (200, shade, 20)), "corpus")
        for shade in (20, 20, 21)
    ]
    thoughts = [reply.traces[0].tcot.thinking for reply in replies if reply.traces[0]]
    assert thoughts[0] == thoughts[1] != thoughts[2]


def test_long_replies_are_cut_at_the_limit() -> None:
    chat = (Message("user", (TextPart("a cat"),)),)
    [reply] = FakeReasoner(lambda chat: "one two three four").generate([chat], Sampling(max_tokens=2))
    assert (reply.text, reply.completion_tokens, reply.finish) == ("one two", 2, "length")


def test_they_need_no_torch() -> None:
    script = (
        "import sys\nfrom ume_retrieval import ReasoningEmbedder\n"
        "from ume_retrieval.testing import FakeReasoner, HashEmbedder\n"
        "ReasoningEmbedder(HashEmbedder(), FakeReasoner()).encode_query('a cat')\nassert 'torch' not in sys.modules"
    )
    run([sys.executable, "-c", script], check=True)  # noqa: S603 - the tests' own interpreter
