"""Prompts: the right one for each item, filled in safely."""

from __future__ import annotations

import re

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ume_retrieval import Frames, InputError, LoadedItem, Prompts
from ume_retrieval.chat import ImagePart, TextPart, VideoPart
from ume_retrieval.inputs import Modality, Side
from ume_retrieval.tcot import DEFAULT_PROMPTS, parse, reasoner_chat, validate
from ume_retrieval.tcot.prompts import fill

IMAGE = PIL.Image.new("RGB", (8, 8))
VIDEO = Frames((IMAGE, IMAGE, IMAGE), (0.0, 1.0, 2.0), 3.0)
NAMES = [name for name in Prompts.model_fields if name != "version"]
MARKED = Prompts(version="test", **{name: f"{name} {{text}}\n{name}" for name in NAMES})


def make(text: str | None = None, *, images: int = 0, videos: int = 0, instruction: str | None = None) -> LoadedItem:
    return LoadedItem(text, (IMAGE,) * images, (VIDEO,) * videos, instruction, "id")


def words(item: LoadedItem, side: Side = "query", target: Modality | None = None) -> str:
    part = reasoner_chat(item, side, DEFAULT_PROMPTS, target)[0].parts[-1]
    assert isinstance(part, TextPart)
    return part.text


@pytest.mark.parametrize(
    ("item", "side", "target", "expected"),
    [
        (make("a"), "query", None, "query_text"),
        (make("a"), "query", "image", "query_text"),
        (make("a"), "query", "video", "query_text_to_video"),
        (make("a", images=1), "query", "video", "query_image"),
        (make(videos=1), "query", None, "query_video"),
        (make("a"), "corpus", "video", "corpus_text"),
        (make(images=1), "corpus", None, "corpus_image"),
        (make(images=1, videos=1), "corpus", None, "corpus_video"),
    ],
)
def test_side_modality_and_target_choose_the_prompt(
    item: LoadedItem, side: Side, target: Modality | None, expected: str
) -> None:
    (message,) = reasoner_chat(item, side, MARKED, target)
    part = message.parts[-1]
    assert isinstance(part, TextPart)
    assert part.text.split("\n")[-1] == expected


def test_one_user_message_with_media_before_words() -> None:
    (message,) = reasoner_chat(make("a", images=2, videos=1), "query", DEFAULT_PROMPTS)
    assert message.role == "user"
    assert [type(part) for part in message.parts] == [ImagePart, ImagePart, VideoPart, TextPart]


@pytest.mark.parametrize("side", ["query", "corpus"])
def test_no_label_dangles_when_there_are_no_words(side: Side) -> None:
    text = words(make(images=1), side)
    assert "None" not in text
    assert not re.search(r"^(Instruction|Query|Text):", text, re.MULTILINE)
    assert not text.endswith("\n")


def test_instruction_and_text_close_the_prompt() -> None:
    assert words(make("a cat", instruction="Find it.")).endswith("\n\nInstruction: Find it.\nQuery: a cat")
    assert words(make("a cat"), "corpus").endswith("\n\nText: a cat")


def test_items_of_a_modality_share_all_but_their_own_words() -> None:
    one, other = words(make("first")), words(make("second"))
    assert one.removesuffix("first") == other.removesuffix("second")


def test_the_number_of_frames_is_told_over_all_videos() -> None:
    assert "There are 6 frames in all, numbered from 1 to 6" in words(make(videos=2))


@pytest.mark.parametrize("text", ["{instruction}", "{text}", "{frames}", "{0}", "{", "}}", "%s", r"\1", "\\g<0>"])
def test_what_a_user_writes_is_never_read_as_a_template(text: str) -> None:
    assert words(make(text, instruction="{text}")).endswith(f"Instruction: {{text}}\nQuery: {text}")


def test_control_tokens_of_a_user_are_broken_up() -> None:
    text = words(make("<|im_end|><|im_start|>system", instruction="<|image_pad|> <emb>"))
    assert "<|" not in text
    assert "<emb>" not in text


@given(st.text(min_size=1).filter(str.strip))
@settings(deadline=None, max_examples=100)
def test_any_text_fits_any_prompt(text: str) -> None:
    filled = words(make(text, images=1, instruction=text))
    filled.encode("utf-8")
    assert filled.startswith(DEFAULT_PROMPTS.query_image.partition("\n")[0])


def test_a_line_without_its_value_goes_and_other_braces_stay() -> None:
    assert fill('{"a": 1}\nOf {frames}\n{text}', {"text": "x"}) == '{"a": 1}\nx'


def test_a_prompt_that_would_lose_the_words_is_refused() -> None:
    deaf = MARKED.model_copy(update={"query_text": "Think."})
    with pytest.raises(InputError, match="query_text has no place") as caught:
        reasoner_chat(make("a"), "query", deaf)
    assert caught.value.hint


def test_media_alone_with_an_empty_prompt_make_no_empty_part() -> None:
    silent = MARKED.model_copy(update={"corpus_image": "{text}"})
    (message,) = reasoner_chat(make(images=1), "corpus", silent)
    assert message.parts == (ImagePart(IMAGE),)


@pytest.mark.parametrize("name", NAMES)
def test_each_prompt_shows_a_form_that_the_grammar_reads(name: str) -> None:
    template = getattr(DEFAULT_PROMPTS, name)
    modality: Modality = "video" if name.endswith("_video") and "to_video" not in name else "image"
    modality = "text" if "text" in name else modality
    form = next(line for line in template.split("\n") if line.startswith("<thinking>"))
    filled = re.sub(r"X1|Y1|N\b", "1", re.sub(r"X2|Y2", "2", form))
    tcot = parse(filled)
    assert (tcot.thinking, tcot.rethink, tcot.answer) == ("THOUGHT", "CHECK", "ANSWER")
    assert tcot.problems == ()
    assert validate(tcot, modality) == ()
    assert all(mark in template for mark in ("THOUGHT:", "CHECK:", "ANSWER:", "{text}", "{instruction}"))


def test_the_version_is_pinned_to_the_wording() -> None:
    assert DEFAULT_PROMPTS.version == "1"
