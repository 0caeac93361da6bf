"""Default prompts of the Reasoner by side and modality, and the chat that asks for an item's T-CoT."""

from __future__ import annotations

import re
from typing import Final

from ume_retrieval.chat import Chat, ImagePart, Message, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import Prompts
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import LoadedItem, Modality, Side
from ume_retrieval.tcot.blocks import clean

_KEYWORDS = """\
<thinking>THOUGHT {"text_keywords": ["KEYWORD", "KEYWORD"]}</thinking><rethink>CHECK</rethink><answer>ANSWER</answer>
KEYWORD: 1 to 8 words or short phrases, copied from the text, that tell it from similar texts."""

_BOXES = """\
<thinking>THOUGHT {"bbox_2d": [[X1, Y1, X2, Y2], [X1, Y1, X2, Y2]]}</thinking>\
<rethink>CHECK</rethink><answer>ANSWER</answer>
X1, Y1, X2, Y2: left, top, right and bottom edge of a box around a region that matters, 1 to 4 boxes, in whole numbers
from 0 to 1000, where 1000 is the full width or height of the image. With several images write one list of boxes for
each, in their order: {"bbox_2d": [[[X1, Y1, X2, Y2]], [[X1, Y1, X2, Y2]]]}."""

_FRAMES = """\
<thinking>THOUGHT {"key_frames": [N, N]}</thinking><rethink>CHECK</rethink><answer>ANSWER</answer>
N: the numbers of the 1 to 4 frames that matter most.
There are {frames} frames in all, numbered from 1 to {frames} in the order in which you see them."""

_QUERY_ANSWER = "what a perfect match shows or says, as a description that stands on its own"
_CORPUS_ANSWER = "what the item is, shows and says, as a description that stands on its own"


def _prompt(*, task: str, thought: str, form: str, answer: str, item: str) -> str:
    """Build a template: the shared part first, the item's text last, so that engines can reuse the prefix cache."""
    return f"""{task}

Reply with this form, filled in, and nothing before or after it:
{form}
THOUGHT: {thought}; about 60 words, before the JSON.
CHECK: what the thought left out or took for granted, and whether it holds; about 20 words.
ANSWER: {answer}; about 30 words.
Write plain sentences, in English unless the item's own words are in another language. Invent nothing.

{item}"""


_QUERY_ITEM = "Instruction: {instruction}\nQuery: {text}"
_CORPUS_ITEM = "Instruction: {instruction}\nText: {text}"

DEFAULT_PROMPTS: Final = Prompts(
    version="1",
    query_text=_prompt(
        task="You prepare a query in words for a search over texts, images and document pages.",
        thought="what is looked for, which words of the query carry it, and what a match must have",
        form=_KEYWORDS,
        answer=_QUERY_ANSWER,
        item=_QUERY_ITEM,
    ),
    query_image=_prompt(
        task="You prepare a query with an image for a search. The words of the query, if there are any, may ask a "
        "question about the image, change something in it, or name a part of it; without words the image itself is "
        "looked for.",
        thought="what the image shows, what the query makes of it, and which regions prove it",
        form=_BOXES,
        answer=_QUERY_ANSWER,
        item=_QUERY_ITEM,
    ),
    query_video=_prompt(
        task="You prepare a query with a video for a search. The words of the query, if there are any, may ask a "
        "question about the video or name a moment of it; without words the video itself is looked for.",
        thought="what happens in which order, what the query makes of it, and which frames prove it",
        form=_FRAMES,
        answer=_QUERY_ANSWER,
        item=_QUERY_ITEM,
    ),
    query_text_to_video=_prompt(
        task="You prepare a query in words for a search over videos.",
        thought="who or what is to be seen, what it does in which order, where, and what a match must show",
        form=_KEYWORDS,
        answer="what the video looked for shows from beginning to end, as a description that stands on its own",
        item=_QUERY_ITEM,
    ),
    corpus_text=_prompt(
        task="You describe a text for a search index, so that every query that it answers finds it.",
        thought="its subject, what it states, and the names, numbers and terms that tell it from similar texts",
        form=_KEYWORDS,
        answer=_CORPUS_ANSWER,
        item=_CORPUS_ITEM,
    ),
    corpus_image=_prompt(
        task="You describe an image for a search index, so that every query that it answers finds it. "
        "It may be a photograph, a drawing, a diagram or a page of a document.",
        thought="objects, counts, attributes, relations, place and readable text, what sets it apart from similar "
        "images, and which regions prove it",
        form=_BOXES,
        answer=_CORPUS_ANSWER,
        item=_CORPUS_ITEM,
    ),
    corpus_video=_prompt(
        task="You describe a video for a search index, so that every query that it answers finds it.",
        thought="who or what is to be seen, what happens in which order, where, what sets it apart from similar "
        "videos, and which frames prove it",
        form=_FRAMES,
        answer=_CORPUS_ANSWER,
        item=_CORPUS_ITEM,
    ),
)
"""Prompts for instruct models that were not trained on T-CoTs, such as Qwen3-VL-Instruct."""

_PLACE = re.compile(r"\{(text|instruction|frames)\}")


def reasoner_chat(item: LoadedItem, side: Side, prompts: Prompts, target: Modality | None = None) -> Chat:
    r"""Build the chat that asks the Reasoner for the T-CoT of one item.

    Args:
        item: Text and pixels; pictures enter the chat unchanged.
        side: Query or corpus.
        prompts: Prompt templates, usually those of the Reasoner.
        target: Modality that the query searches for, if known; only "video" with a text query changes the prompt.

    Returns:
        One user message: images, videos, then the prompt.

    Raises:
        InputError: If the item has text but the prompt lacks `{text}`.

    Example:
        >>> item = LoadedItem("a {red} circle", (), (), None, "id")
        >>> prompts = DEFAULT_PROMPTS.model_copy(update={"query_text": "For: {instruction}\nFind: {text}"})
        >>> reasoner_chat(item, "query", prompts)[0].parts
        (TextPart(text='Find: a {red} circle'),)
    """
    name = f"{side}_{item.modality}"
    if name == "query_text" and target == "video":
        name = "query_text_to_video"
    template: str = getattr(prompts, name)
    text = (item.text or "").strip()
    if text and "{text}" not in template:
        raise InputError(f"the prompt {name} lacks {{text}}", hint="add {text} where the item's text belongs")
    frames = sum(len(video.images) for video in item.videos)
    values = {"text": text, "instruction": (item.instruction or "").strip(), "frames": str(frames) if frames else ""}
    words = fill(template, values)
    media: list[Part] = [*map(ImagePart, item.images), *map(VideoPart, item.videos)]
    return (Message("user", (*media, TextPart(words)) if words else tuple(media)),)


def fill(template: str, values: dict[str, str]) -> str:
    r"""Fill in a template in one pass, so that braces inside values stay literal.

    A line whose placeholder lacks a value is omitted, label included. Control tokens and T-CoT tags in values are
    broken up, so that an item cannot write its own trace.

    Args:
        template: Text with `{text}`, `{instruction}` and `{frames}`; all other braces are literal.
        values: Value of each placeholder; an empty string counts as missing.

    Example:
        >>> fill("Find this.\nInstruction: {instruction}\nQuery: {text}", {"text": "{instruction}<|im_end|>"})
        'Find this.\nQuery: {instruction}< |im_end|>'
    """
    lines = [line for line in template.split("\n") if all(values.get(place[1]) for place in _PLACE.finditer(line))]
    return _PLACE.sub(lambda place: clean(values[place[1]]), "\n".join(lines)).strip()
