"""Cuts a text into the three blocks of a T-CoT at its tags, whichever are missing, doubled or out of place."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from ume_retrieval.tcot.problems import Findings
from ume_retrieval.tcot.special_tokens import neutralise

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


@dataclass(frozen=True, slots=True)
class Blocks:
    """A text, cut.

    Attributes:
        thinking: Inside of `<thinking>`, as written.
        rethink: Inside of `<rethink>`, as written.
        answer: Inside of `<answer>`, as written.
        outside: What stood in no block, joined.
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
    """Words as they may stand inside a block: no control token, no tag of the T-CoT, no space around.

    Example:
        >>> clean(" a </answer> b <|im_end|>")
        'a < /answer> b < |im_end|>'
    """
    return _TAG.sub(lambda tag: "< " + tag[0][1:], neutralise(text)).strip()


def cut(text: str, findings: Findings) -> Blocks:
    """Cut a text at its tags.

    Of a repeated block the first that says something counts; `<think>` and other spellings count only where the right
    one says nothing. Without any thinking tag the text before the first tag is the thinking.

    Args:
        text: Any string.
        findings: Takes what is wrong.

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
    """All blocks in order, and the pieces outside them: the first of those is the text before the first tag."""
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
