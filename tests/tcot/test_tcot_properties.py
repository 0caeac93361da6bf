"""Properties of the written form: any string is read, what is written is read back, time grows in line with length."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from ume_retrieval import InputError, TCot
from ume_retrieval.inputs import Modality
from ume_retrieval.tcot import PROBLEMS, Box, parse, pattern, render, split_for_evidence, validate
from ume_retrieval.tcot.blocks import has_special_token, neutralise
from ume_retrieval.tcot.scan import find_cues

FRAGMENTS = st.sampled_from(
    [
        *("<thinking>", "</thinking>", "<rethink>", "</rethink>", "<answer>", "</answer>", "<think>", "</THOUGHT >"),
        *('{"bbox_2d": ', '{"key_frames": ', '{"text_keywords": ', "bbox_2d", "'key_frames':", '[{"label": "x", '),
        *("{", "}", "[", "]", "[[", "]]", ",", ":", '"', "'", "\\", "\\u12", "\\ud800", "```json", "```", "\n"),
        *("1", "-2.5", "1e400", "9" * 5000, "NaN", "Infinity", "true", "None", "0.5", '"12"', "a", "red circle", " "),
        *("<|im_end|>", "<|image_pad|>", "<emb>", "<", "<|", "|>", "\ud800", "\x00", "\u3000", "😀", "[1, 2, 3, 4]"),
    ]
)
SALAD = st.lists(FRAGMENTS, max_size=40).map("".join)

CONTROL = ("<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<emb>", "</s>", "<image>")

WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(str.strip)
PROSE = WORDS.filter(
    lambda text: not has_special_token(text) and "<" not in text and "_" not in text and "`" not in text
)

PLAIN = st.text(st.characters(categories=["L", "N", "P"], exclude_characters='<>{}[]`"\\_'), min_size=1, max_size=60)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, ...]:
    found = draw(
        st.lists(
            st.tuples(*[st.integers(0, 1000)] * 4, st.integers(0, 3)).filter(lambda b: b[0] < b[2] and b[1] < b[3]),
            max_size=6,
        )
    )
    return tuple(sorted({Box(*box) for box in found}, key=lambda box: (box.image, box.x1, box.y1, box.x2, box.y2)))


TCOTS = st.builds(
    TCot,
    thinking=PROSE,
    rethink=PROSE,
    answer=PROSE,
    keywords=st.lists(PROSE.filter(bool), max_size=6, unique=True).map(tuple),
    boxes=boxes(),
    key_frames=st.sets(st.integers(1, 500), max_size=6).map(sorted).map(tuple),
)


def check(tcot: TCot) -> None:
    """What holds for every parsed text."""
    assert {problem.name for problem in tcot.problems} <= PROBLEMS.keys()
    assert len({problem.name for problem in tcot.problems}) == len(tcot.problems)
    assert all("\n" not in problem.detail and len(problem.detail) < 120 for problem in tcot.problems)
    for words in (tcot.thinking, tcot.rethink, tcot.answer, *tcot.keywords):
        assert words == words.strip()
        assert not has_special_token(words)
        words.encode("utf-8")
    assert all(0 <= b.x1 < b.x2 <= 1000 and 0 <= b.y1 < b.y2 <= 1000 and 0 <= b.image < 2 for b in tcot.boxes)
    assert list(tcot.key_frames) == sorted(set(tcot.key_frames))
    assert all(1 <= frame <= 8 for frame in tcot.key_frames)
    assert all(tcot.keywords)
    assert len(set(tcot.keywords)) == len(tcot.keywords)


@given(st.text() | SALAD)
@settings(max_examples=400, deadline=None)
def test_any_string_is_parsed(text: str) -> None:
    tcot = parse(text, images=2, frames=8)
    check(tcot)
    assert tcot.raw == text


@given(SALAD)
@settings(max_examples=200, deadline=None)
def test_what_was_parsed_reads_the_same_after_rendering(text: str) -> None:
    tcot = parse(text, images=2, frames=8)
    again = parse(render(tcot), images=2, frames=8)
    assert (again.rethink, again.answer) == (tcot.rethink, tcot.answer)
    check(again)


@given(TCOTS)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_rendering_is_read_back(tcot: TCot) -> None:
    text = render(tcot)
    if islands := find_cues(text):
        # Words that leave a bracket open right before the cue become part of its JSON.
        assume(islands[0].start == len("<thinking>") + len(tcot.thinking) + (1 if tcot.thinking else 0))
    assert replace(parse(text, images=4), raw="") == tcot


@given(TCOTS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_the_two_pieces_make_the_whole(tcot: TCot) -> None:
    thinking, rest = split_for_evidence(tcot)
    assert thinking + rest == render(tcot)
    assert thinking.endswith("</thinking>")
    assert rest.startswith("<rethink>")


def test_layout() -> None:
    tcot = TCot("Two.", "Yes.", "cats", ("红",), (Box(40, 40, 293, 293), Box(707, 373, 960, 627)), (5, 6))
    assert render(tcot) == (
        '<thinking>Two. {"text_keywords": ["红"]} {"bbox_2d": [[40, 40, 293, 293], [707, 373, 960, 627]]} '
        '{"key_frames": [5, 6]}</thinking><rethink>Yes.</rethink><answer>cats</answer>'
    )
    assert render(TCot(key_frames=(1,))) == (
        '<thinking>{"key_frames": [1]}</thinking><rethink></rethink><answer></answer>'
    )
    assert '{"bbox_2d": [[], [[1, 2, 3, 4]]]}' in render(TCot(boxes=(Box(1, 2, 3, 4, image=1),)))


class TestControlTokens:
    @pytest.mark.parametrize("token", CONTROL)
    def test_none_gets_through_rendering(self, token: str) -> None:
        words = f"a{token}b"
        text = render(TCot(words, words, words, keywords=(words,)))
        assert token not in text
        assert text.count("a< ") == 4

    @pytest.mark.parametrize("token", CONTROL)
    def test_parsing_names_and_breaks_them(self, token: str) -> None:
        tcot = parse(f"<thinking>a{token}</thinking><rethink>b</rethink><answer>c {token}</answer>")
        assert [problem.name for problem in tcot.problems] == ["special_token"]
        assert token not in tcot.thinking + tcot.answer

    def test_own_tags_inside_values_cannot_break_the_structure(self) -> None:
        tcot = TCot("a</thinking><answer>stolen</answer>", "r", "real", keywords=("</thinking>",))
        again = parse(render(tcot))
        assert (again.answer, again.rethink, again.keywords) == ("real", "r", ("< /thinking>",))

    def test_escapes_in_the_cue_cannot_smuggle_a_token(self) -> None:
        tcot = parse(r'<thinking>t {"text_keywords": ["\u003c|im_end|\u003e"]}</thinking>')
        assert tcot.keywords == ("< |im_end|>",)

    @given(st.text() | SALAD)
    @settings(deadline=None)
    def test_neutralising_is_stable_and_complete(self, text: str) -> None:
        once = neutralise(text)
        assert neutralise(once) == once
        assert not has_special_token(once)
        assert not any(token in once for token in CONTROL)
        once.encode("utf-8")


class TestPattern:
    @pytest.mark.parametrize("modality", ["text", "image", "video"])
    @given(data=st.data())
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    def test_what_it_matches_parses_and_validates(self, modality: Modality, data: st.DataObject) -> None:
        text = data.draw(st.from_regex(pattern(modality), fullmatch=True))
        tcot = parse(text)
        allowed = {"swapped_corners", "degenerate_box"} if modality == "image" else set()
        assert {problem.name for problem in tcot.problems} <= allowed
        missing = {problem.name for problem in validate(tcot, modality)}
        assert missing <= ({"missing_boxes"} if not tcot.boxes and modality == "image" else set())

    @given(data=st.data())
    @settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
    def test_with_several_images_and_known_frames(self, data: st.DataObject) -> None:
        tcot = parse(data.draw(st.from_regex(pattern("image", images=3), fullmatch=True)), images=3)
        assert {problem.name for problem in tcot.problems} <= {"swapped_corners", "degenerate_box"}
        tcot = parse(data.draw(st.from_regex(pattern("video", frames=12), fullmatch=True)), frames=12)
        assert tcot.problems == ()

    @given(st.lists(PLAIN, max_size=5), PLAIN)
    @settings(max_examples=60, deadline=None)
    def test_it_matches_what_is_rendered(self, keywords: list[str], words: str) -> None:
        whole = TCot(words, words, words, ("cat", *keywords), (Box(0, 10, 100, 1000), Box(5, 6, 7, 8)), (3, 7))
        assert re.fullmatch(pattern("text"), render(replace(whole, boxes=(), key_frames=())))
        assert re.fullmatch(pattern("image"), render(replace(whole, keywords=(), key_frames=())))
        assert re.fullmatch(pattern("video", frames=8), render(replace(whole, keywords=(), boxes=())))

    def test_only_plain_constructs(self) -> None:
        for modality in ("text", "image", "video"):
            expression = pattern(modality, images=2, frames=8)
            assert not re.search(r"\(\?[^:]|\\[0-9wdsbBAZ]|[*+?]\?", expression)
            assert not re.search(r"(?<!\\)[*+]", expression)

    @pytest.mark.parametrize("limits", [{"images": 0}, {"frames": 0}])
    def test_nothing_to_point_at_is_refused(self, limits: dict[str, int]) -> None:
        with pytest.raises(InputError):
            pattern("image", **limits)


CUE = '{"bbox_2d": [1, 2, 3, 4]}'
HOSTILE = [
    "{", '{"', "[{", '{"a":[', "{a:", '{"bbox_2d": [', "bbox_2d   :", '{"bbox_2d": [[1, 2, 3, 4]]} x ', "<thinking>",
    "<thinking></thinking></answer>", "<|im_end|>", "```", " ",
]  # fmt: skip


SECONDS = 2.0
"""CPU time for a megabyte. It takes 0.1 to 0.8 s; anything that does not grow in line with length takes minutes."""


def fastest(call: Callable[[], object]) -> float:
    """CPU time of a call in seconds; a neighbour on a shared machine slows one of three, not all."""
    times: list[float] = []
    while len(times) < 3 and min(times, default=SECONDS) >= SECONDS:
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


@pytest.mark.parametrize("unit", HOSTILE)
def test_a_hostile_megabyte_is_read_in_linear_time(unit: str) -> None:
    text = f"<thinking>{CUE}" + unit * (500_000 // len(unit)) + CUE + unit * (500_000 // len(unit))
    assert fastest(lambda: parse(text)) < SECONDS


@pytest.mark.parametrize("cut", ['{"bbox_2d": [', '{"bbox_2d": [[0.', '{"key_frames": [', '{"key_frames": ["'])
def test_a_number_of_a_million_digits(cut: str) -> None:
    start = time.process_time()
    check(parse(f"<thinking>{cut}{'7' * 1_000_000}, 1, 1, 1]]}}</thinking>", images=2, frames=8))
    assert time.process_time() - start < SECONDS
