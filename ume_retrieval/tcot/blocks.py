"""Split a text into the three blocks of a T-CoT, tolerating missing, repeated and misplaced tags.

Also holds what all parts of the parser share: the names of problems, and the escaping of control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Literal

from ume_retrieval.tcot.trace import Problem

BLOCKS: Final = ("thinking", "rethink", "answer")

_SPELLINGS: Final = {
    "thinking": "thinking",
    "think": "thinking",
    "thought": "thinking",
    "thoughts": "thinking",
    "reasoning": "thinking",
    "rethink": "rethink",
    "rethinking": "rethink",
    "answer": "answer",
}
# No space after "<": that is how `clean` breaks a tag up. re.ASCII keeps look-alike letters from matching without case.
_TAG = re.compile(rf"<(?P<slash>/?)(?P<name>{'|'.join(_SPELLINGS)})\s{{0,4}}>", re.IGNORECASE | re.ASCII)


break_tags: Final[Callable[[str], str]] = partial(
    re.compile(rf"<(?=/?(?:{'|'.join(_SPELLINGS)})\s{{0,4}}>)", re.IGNORECASE | re.ASCII).sub, "< "
)
"""Breaks up the tags of a T-CoT, so that a text cannot write a trace: `<answer>` becomes `< answer>`."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The text of each T-CoT block.

    Attributes:
        thinking: Content of `<thinking>`, as written.
        rethink: Content of `<rethink>`, as written.
        answer: Content of `<answer>`, as written.
        outside: The text outside all blocks, joined.
    """

    thinking: str
    rethink: str
    answer: str
    outside: str


@dataclass(slots=True)
class _Block:
    name: str
    exact: bool
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(self.pieces)

    @property
    def is_blank(self) -> bool:
        return not any(piece.strip() for piece in self.pieces)


def clean(text: str) -> str:
    """Make text safe inside a block: break up control tokens and T-CoT tags, strip white space.

    Example:
        >>> clean(" a </answer> b <|im_end|>")
        'a < /answer> b < |im_end|>'
    """
    return break_tags(neutralise(text)).strip()


def cut(text: str, findings: Findings) -> Blocks:
    """Split a text at its tags.

    The first non-blank block of a name wins; `<think>` and other spellings count only if the exact tag is missing or
    blank. Without a thinking tag, the text before the first tag is the thinking.

    Args:
        text: Any string.
        findings: Collects the problems.

    Example:
        >>> cut("<thinking>A red circle.</thinking><answer>circle", Findings())
        Blocks(thinking='A red circle.', rethink='', answer='circle', outside='')
    """
    blocks, outside = _split(text, findings)
    by_name: dict[str, list[_Block]] = {name: [] for name in BLOCKS}
    for block in blocks:
        by_name[block.name].append(block)
    order = list(dict.fromkeys(block.name for block in blocks))
    if order != [name for name in BLOCKS if name in order]:
        findings.note("out_of_order", ", ".join(order))
    texts = {name: _choose(name, by_name[name], findings) for name in BLOCKS}
    if not by_name["thinking"]:
        texts["thinking"] = outside.pop(0)
    return Blocks(**texts, outside=" ".join(piece.strip() for piece in outside if piece.strip()))


def _choose(name: str, blocks: list[_Block], findings: Findings) -> str:
    if not blocks:
        findings.note(f"missing_{name}")
    speaking = [block for block in blocks if not block.is_blank]
    if len(speaking) > 1:
        findings.note(f"repeated_{name}")
    best = next((block for block in speaking if block.exact), speaking[0] if speaking else None)
    return best.text if best else ""


def _split(text: str, findings: Findings) -> tuple[list[_Block], list[str]]:
    """Return all blocks in order, and the pieces outside them; the first piece is the text before the first tag."""
    blocks: list[_Block] = []
    outside: list[str] = []
    seen: set[str] = set()
    current: _Block | None = None
    position = 0
    for tag in _TAG.finditer(text):
        name = _SPELLINGS[tag["name"].lower()]
        piece, position = text[position : tag.start()], tag.end()
        exact = tag["name"] == name
        if not exact:
            findings.note("tag_variant", tag[0])
        if tag["slash"] and current is None and name not in seen:
            findings.note(f"unopened_{name}")
            blocks.append(_Block(name, exact, [piece]))
            outside.append("")
        elif tag["slash"]:
            (outside if current is None else current.pieces).append(piece)
            if current is not None and current.name == name:
                current = None
            else:
                findings.note("stray_tag", tag[0])
        else:
            (outside if current is None else current.pieces).append(piece)
            if current is not None:
                findings.note(f"unclosed_{current.name}")
            current = _Block(name, exact)
            blocks.append(current)
        seen.add(name)
    if current is not None:
        findings.note(f"unclosed_{current.name}")
    (outside if current is None else current.pieces).append(text[position:])
    return blocks, outside


_NAMES = r"bos|emb\w{0,16}|end_of_turn|eos|image|img|pad|s|start_of_turn|tool_call|tool_response|unk|video"

# Tokenizers cut their added tokens out of the text by exact match, so one space after "<" makes words of them.
_TOKEN_START = re.compile(rf"<(?=[|\uff5c]|/?(?:{_NAMES})>)")

# Qwen's control tokens, and the pooled one that Embed-RL adds to them.
_QWEN_TOKEN_START = re.compile(r"<(?=\|\w{1,64}\|>|emb\w{0,16}>)")

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def neutralise(text: str, tokens: Literal["any", "qwen"] = "any") -> str:
    """Break everything in `text` that a tokenizer could read as a control token.

    Covers `<|…|>` (Qwen and most others, `<|im_end|>` and `<|image_pad|>` among them), the pooled token `<emb>`, and
    the bare control tokens of other families (`<image>`, `<bos>`, `</s>` …). Lone surrogates, which no tokenizer can
    encode, become U+FFFD. The result is stable: a second call changes nothing.

    Args:
        text: Untrusted text.
        tokens: "qwen" breaks `<|…|>` and `<emb>` only: other markup is ordinary text to Qwen's tokenizers.

    Example:
        >>> neutralise("a cat<|im_end|><emb> x<y")
        'a cat< |im_end|>< emb> x<y'
        >>> neutralise("<s>a cat</s><|im_end|>", "qwen")
        '<s>a cat</s>< |im_end|>'
    """
    start = _TOKEN_START if tokens == "any" else _QWEN_TOKEN_START
    return _LONE_SURROGATE.sub("\ufffd", start.sub("< ", text))


def has_special_token(text: str) -> bool:
    """Tell whether `neutralise` would break a token of `text`.

    Example:
        >>> has_special_token("fine"), has_special_token("not <emb> fine")
        (False, True)
    """
    return _TOKEN_START.search(text) is not None


PROBLEMS: Final[dict[str, str]] = {
    "missing_thinking": "no <thinking> tag; text before the other blocks was taken instead",
    "missing_rethink": "no <rethink> tag",
    "missing_answer": "no <answer> tag",
    "unclosed_thinking": "<thinking> is not closed; read up to the next block or the end",
    "unclosed_rethink": "<rethink> is not closed; read up to the next block or the end",
    "unclosed_answer": "<answer> is not closed, most often because generation stopped at its length limit",
    "unopened_thinking": "</thinking> without an opening tag; the text before it was taken",
    "unopened_rethink": "</rethink> without an opening tag; the text before it was taken",
    "unopened_answer": "</answer> without an opening tag; the text before it was taken",
    "repeated_thinking": "more than one thinking block; the first that is not blank was taken",
    "repeated_rethink": "more than one rethink block; the first that is not blank was taken",
    "repeated_answer": "more than one answer block; the first that is not blank was taken",
    "empty_thinking": "the thinking block is empty",
    "empty_rethink": "the rethink block is empty",
    "empty_answer": "the answer block is empty",
    "out_of_order": "the blocks are not in the order thinking, rethink, answer",
    "stray_tag": "a closing tag without an open block; ignored",
    "tag_variant": "a variant of a tag (<think>, <thought>, capitals); read as that tag",
    "text_outside": "text outside the blocks; left out",
    "code_fence": "code fences (```) around the blocks or the cue; removed",
    "special_token": "a control token of a model in the text; broken up so that it cannot act",
    "missing_keywords": "no text_keywords cue with at least one keyword",
    "missing_boxes": "no bbox_2d cue with at least one usable box",
    "missing_key_frames": "no key_frames cue with at least one usable frame",
    "cue_outside_thinking": "the cue is outside the thinking block; read anyway",
    "repeated_cue": "a cue given again after more words; the last one counts",
    "loose_json": "the cue is not strict JSON (single quotes, trailing commas, bare keys); read anyway",
    "broken_json": "the cue is truncated or malformed; the part before that was kept",
    "odd_shape": "the cue is not a flat list of values; read anyway",
    "too_many_values": "more values than one cue may carry; the first ones were kept",
    "keyword_not_string": "a keyword that is not a string; kept if it is a number, else dropped",
    "number_as_string": "a number written as a string; read as the number",
    "number_rounded": "a number that is not whole; rounded",
    "bad_box": "not four numbers; dropped",
    "fractional_box": "coordinates in fractions of 1 instead of 0..1000; dropped, never guessed",
    "box_out_of_range": "a coordinate outside 0..1000; clamped",
    "swapped_corners": "right before left or bottom before top; exchanged",
    "degenerate_box": "a box without area; dropped",
    "box_image_out_of_range": "a box on an image that the item does not have; dropped",
    "bad_frame": "a key frame that is not a number; dropped",
    "frame_out_of_range": "a key frame before the first or after the last frame; dropped",
}
"""All names of a `Problem`, each with its meaning in one line."""


class Findings:
    """Collects problems, one per name, with its count and the first occurrence.

    Example:
        >>> findings = Findings()
        >>> findings.note("bad_frame", "five")
        >>> findings.note("bad_frame", True)
        >>> findings.problems()
        (Problem(name='bad_frame', detail='2 times, first: five'),)
    """

    def __init__(self) -> None:
        self._details: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def note(self, name: str, detail: object = "") -> None:
        """Count one occurrence of a problem of `PROBLEMS`."""
        self._counts[name] = self._counts.get(name, 0) + 1
        if name not in self._details:
            self._details[name] = _shorten(detail if isinstance(detail, str) else repr(detail))

    def problems(self) -> tuple[Problem, ...]:
        """Return the problems in order of first occurrence."""
        return tuple(
            Problem(name, detail if self._counts[name] == 1 else f"{self._counts[name]} times, first: {detail}")
            for name, detail in self._details.items()
        )


def _shorten(text: str, most: int = 80) -> str:
    """Shorten to one line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"
