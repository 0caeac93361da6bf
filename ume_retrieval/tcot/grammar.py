"""The text format of a T-CoT: parse any string, name its problems, and render it again.

The format is that of arXiv 2602.13823, section 3:
`<thinking>… {json cue}</thinking><rethink>…</rethink><answer>…</answer>`. `parse` repairs
nothing silently: whatever it repairs, drops or misses is a `Problem` with a name from `PROBLEMS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ume_retrieval.inputs import Modality
from ume_retrieval.tcot.blocks import (
    BLOCKS,
    PROBLEMS,
    Blocks,
    Findings,
    break_tags,
    clean,
    cut,
    has_special_token,
    neutralise,
)
from ume_retrieval.tcot.cues import read_boxes, read_frames, read_keywords, take
from ume_retrieval.tcot.pattern import pattern
from ume_retrieval.tcot.scan import Value
from ume_retrieval.tcot.trace import Box, Problem, TCot

__all__ = [
    "PROBLEMS",
    "is_usable",
    "break_tags",
    "neutralise",
    "parse",
    "pattern",
    "render",
    "split_for_evidence",
    "split_reply",
    "validate",
]

_FENCE = re.compile(r"```[a-zA-Z0-9]{0,12}")
_INNERMOST = re.compile(r"\{[^{}]*\}")


def parse(text: str, *, images: int = 1, frames: int | None = None) -> TCot:
    """Parse a T-CoT from any string, in linear time; never raises.

    - A cue is JSON with a cue key, whatever braces surround it. Adjacent objects form one cue; a later cue of the same
      kind replaces an earlier one if text separates them.
    - A cue outside `<thinking>` is read only if the thinking block lacks one.
    - The first non-blank block of a name wins; `<think>` and other spellings count only if the exact tag is missing or
      blank. Text without any tag is taken as thinking.
    - Control tokens of models (`<|im_end|>`, `<emb>`) are broken up in every field.

    Args:
        text: The Reasoner's reply, complete or truncated.
        images: How many images the item has; boxes beyond are dropped.
        frames: How many frames the Reasoner saw, or None when unknown; key frames beyond are dropped.

    Returns:
        The T-CoT; `problems` lists what was wrong, one entry per name with its count.

    Example:
        >>> tcot = parse("<thinking>Two {odd} shapes. {'bbox_2d': [40, 40, 293, 293],}</thinking><answer>a cat")
        >>> tcot.thinking, tcot.boxes, tcot.answer
        ('Two {odd} shapes.', (Box(x1=40, y1=40, x2=293, y2=293, image=0),), 'a cat')
        >>> [problem.name for problem in tcot.problems]
        ['unclosed_answer', 'missing_rethink', 'loose_json']
    """
    findings = Findings()
    if has_special_token(text):
        findings.note("special_token")
    blocks = cut(text, findings)
    thinking, cues = take(blocks.thinking, findings)
    outside = blocks.outside
    if not cues:
        cues, outside = _elsewhere(blocks, findings)
    bare = _FENCE.sub("", outside)
    if bare != outside:
        findings.note("code_fence")
    if bare.strip():
        findings.note("text_outside", bare)
    return TCot(
        thinking=clean(thinking),
        rethink=clean(blocks.rethink),
        answer=clean(blocks.answer),
        keywords=read_keywords(cues.get("text_keywords", []), findings),
        boxes=read_boxes(cues.get("bbox_2d", []), images, findings),
        key_frames=read_frames(cues.get("key_frames", []), frames, findings),
        problems=findings.problems(),
        raw=text,
    )


def _elsewhere(blocks: Blocks, findings: Findings) -> tuple[dict[str, list[Value]], str]:
    """Return the cues of the first other place that holds some, and the text outside the blocks without them."""
    outside, cues = take(blocks.outside, findings)
    for text in (blocks.rethink, blocks.answer):
        cues = cues or take(text, findings)[1]
    if cues:
        findings.note("cue_outside_thinking", ", ".join(cues))
    return cues, outside


def validate(tcot: TCot, modality: Modality) -> tuple[Problem, ...]:
    """Say what a T-CoT lacks for an item of this modality: words in each block, and the cue that the modality needs.

    Text needs keywords, an image boxes, a video key frames (arXiv 2602.13823, section 3).

    Returns:
        Problems beyond those that `parse` noted; empty when the T-CoT is complete.

    Example:
        >>> [p.name for p in validate(TCot("One shape.", "", "a circle", keywords=("circle",)), "image")]
        ['empty_rethink', 'missing_boxes']
    """
    cue: tuple[object, ...]
    cue, missing = {
        "text": (tcot.keywords, "missing_keywords"),
        "image": (tcot.boxes, "missing_boxes"),
        "video": (tcot.key_frames, "missing_key_frames"),
    }[modality]
    empty = [f"empty_{block}" for block in BLOCKS if not clean(getattr(tcot, block))]
    return tuple(Problem(name) for name in (*empty, *(() if cue else (missing,))))


def is_usable(tcot: TCot) -> bool:
    """Tell whether there are words to embed: an answer or a thought.

    Example:
        >>> is_usable(parse("")), is_usable(parse("a red circle"))
        (False, True)
    """
    return bool(tcot.answer.strip() or tcot.thinking.strip())


def render(tcot: TCot) -> str:
    """Write a T-CoT in its one canonical form; `parse` reads it back.

    Control tokens and the T-CoT's own tags inside its values are broken up, so that the text is safe in any model's
    prompt and keeps its structure.

    Example:
        >>> render(TCot("One.", "Yes.", "a circle", keywords=("circle",)))
        '<thinking>One. {"text_keywords": ["circle"]}</thinking><rethink>Yes.</rethink><answer>a circle</answer>'
    """
    return "".join(split_for_evidence(tcot))


def split_for_evidence(tcot: TCot) -> tuple[str, str]:
    """Render a T-CoT in two pieces; its evidence pictures go between them in the Embedder's input.

    Returns:
        The text up to and including `</thinking>`, and the rest.

    Example:
        >>> split_for_evidence(TCot("Look.", "Yes.", "cat", boxes=(Box(40, 40, 293, 293),)))
        ('<thinking>Look. {"bbox_2d": [[40, 40, 293, 293]]}</thinking>', '<rethink>Yes.</rethink><answer>cat</answer>')
    """
    values: dict[str, list[object]] = {
        "text_keywords": [clean(keyword) for keyword in tcot.keywords],
        "bbox_2d": _nested(tcot.boxes),
        "key_frames": list(tcot.key_frames),
    }
    # Letters stay letters (no \u escapes): the Embedder reads the words, not their codes.
    cues = (json.dumps({key: listed}, ensure_ascii=False) for key, listed in values.items() if listed)
    thinking = " ".join(part for part in (clean(tcot.thinking), *cues) if part)
    return (
        f"<thinking>{thinking}</thinking>",
        f"<rethink>{clean(tcot.rethink)}</rethink><answer>{clean(tcot.answer)}</answer>",
    )


def split_reply(reply: str) -> tuple[str, str] | None:
    """Split a raw reply where its evidence pictures go in the Embedder's input.

    Text before `<thinking>` is dropped, as in the released code of arXiv 2602.13823 (`processor.py`).

    Returns:
        The text from `<thinking>` to `</thinking>`, both included, and the stripped rest; None if the block or the JSON
        in it is missing. The released code then uses the reply whole.

    Example:
        >>> split_reply('<thinking>Look. {"key_frames": [2]}</thinking> <answer>cat</answer>')
        ('<thinking>Look. {"key_frames": [2]}</thinking>', '<answer>cat</answer>')
        >>> split_reply("<thinking>Look.</thinking><answer>cat</answer>")
    """
    start = reply.find("<thinking>")
    end = reply.find("</thinking>", start)
    if start < 0 or end < 0 or not _has_json(reply[start:end]):
        return None
    end += len("</thinking>")
    return reply[start:end], reply[end:].strip()


def _has_json(text: str) -> bool:
    for found in _INNERMOST.finditer(text):
        try:
            json.loads(found[0])
        except (ValueError, RecursionError):
            continue
        return True
    return bool(take(text, Findings())[1])


def _nested(boxes: Sequence[Box]) -> list[object]:
    """Return boxes as lists: depth 2 if all are on the first image, else depth 3 with one list per image."""
    count = max((box.image for box in boxes), default=0) + 1
    by_image: list[list[list[int]]] = [[] for _ in range(count)]
    for box in boxes:
        by_image[box.image].append([box.x1, box.y1, box.x2, box.y2])
    return list(by_image[0] if count == 1 else by_image)
