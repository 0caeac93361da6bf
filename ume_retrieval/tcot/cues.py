"""Read keywords, boxes and key frames from the JSON cues of a reply."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from ume_retrieval.tcot.blocks import Findings, clean
from ume_retrieval.tcot.scan import Island, ObjectValue, Value, find_cues
from ume_retrieval.tcot.trace import Box

SCALE: Final = 1000
"""Box coordinates run from 0 to this over the image's width and height."""

MAX_VALUES: Final = 64
"""Most keywords, boxes or key frames that one T-CoT keeps."""

MAX_FRAME: Final = 1_000_000
"""Highest key frame that is accepted when the number of frames is unknown."""

T = TypeVar("T")

_FENCE_BEFORE = re.compile(r"``` ?[a-zA-Z0-9]{0,12}\Z")
_FENCE_AFTER = re.compile(r"\A```(?![a-zA-Z])")


def take(text: str, findings: Findings) -> tuple[str, dict[str, list[Value]]]:
    """Extract the JSON cues from a text.

    Adjacent objects form one cue, as in Qwen3-VL's `[{"bbox_2d": […], "label": …}, …]`. A later cue of the same kind
    replaces an earlier one if text separates them, unless the later one is broken.

    Args:
        text: Any string.
        findings: Collects the problems.

    Returns:
        The text without the JSON, and the values of each cue key found.

    Example:
        >>> take('A {set}. {"key_frames": [1]} No: {"key_frames": [2]}', Findings())
        ('A {set}. No:', {'key_frames': [[2]]})
    """
    prose: list[str] = []
    groups: list[list[Island]] = []
    end = 0
    for island in find_cues(text):
        before = text[end : island.start].strip()
        if groups:
            before = _FENCE_AFTER.sub("", before).strip()
        if (bare := _FENCE_BEFORE.sub("", before)) != before:
            findings.note("code_fence")
        if groups and not bare.strip(" ,;\n"):
            groups[-1].append(island)
        else:
            groups.append([island])
            prose.append(bare)
        end = island.end
        if island.loose or island.broken:
            findings.note("broken_json" if island.broken else "loose_json", text[island.start : island.end])
    if not groups:
        return text, {}
    prose.append(_FENCE_AFTER.sub("", text[end:].strip()))
    return " ".join(piece.strip() for piece in prose if piece.strip()), _merge(groups, findings)


def _merge(groups: list[list[Island]], findings: Findings) -> dict[str, list[Value]]:
    cues: dict[str, list[Value]] = {}
    for group in groups:
        found: dict[str, list[Value]] = {}
        for island in group:
            for key, value in island.cues:
                found.setdefault(key, []).append(value)
        broken = any(island.broken for island in group)
        for key, values in found.items():
            if key in cues:
                findings.note("repeated_cue", key)
            if key not in cues or not broken:
                cues[key] = values
    return cues


def read_keywords(values: list[Value], findings: Findings) -> tuple[str, ...]:
    """Return keywords in order of first mention, stripped, without blanks and duplicates.

    A number is kept as text; any other non-string is dropped. Both are reported as problems.

    Example:
        >>> read_keywords([["red circle", " blue ", "", "blue"]], Findings())
        ('red circle', 'blue')
    """
    words: dict[str, None] = {}
    for value in _leaves(values, findings):
        if not isinstance(value, str):
            findings.note("keyword_not_string", value)
        if word := clean(value if isinstance(value, str) else _number_text(value)):
            words.setdefault(word)
    return tuple(_limited(list(words), findings))


def read_frames(values: list[Value], frames: int | None, findings: Findings) -> tuple[int, ...]:
    """Return key frames, ascending and unique, each within 1..`frames`.

    Example:
        >>> read_frames([[6, 5, 5, 0, 9]], 8, Findings())
        (5, 6)
    """
    kept: set[int] = set()
    for value in _leaves(values, findings):
        number = _whole(value, MAX_FRAME + 1, findings)
        if number is None:
            findings.note("bad_frame", value)
        elif not 1 <= number <= (MAX_FRAME if frames is None else frames):
            findings.note("frame_out_of_range", value if frames is None else f"{value!r} of {frames}")
        else:
            kept.add(number)
    return tuple(_limited(sorted(kept), findings))


def read_boxes(values: list[Value], images: int, findings: Findings) -> tuple[Box, ...]:
    """Return unique boxes by image, in the order written.

    `[x1, y1, x2, y2]` and a list of those are boxes of the first image; a list of such lists has one list per image.
    Swapped corners are exchanged and coordinates clamped to 0..1000. Boxes without area, on missing images, or in
    fractions of 1 (never rescaled by guess) are dropped. Each repair is reported as a problem.

    Args:
        values: Values of the `bbox_2d` members, as scanned.
        images: How many images the item has.
        findings: Collects the problems.

    Example:
        >>> read_boxes([[40, 40, 293, 293]], 1, Findings())
        (Box(x1=40, y1=40, x2=293, y2=293, image=0),)
        >>> read_boxes([[[], [[1, 2, 3, 4]]]], 2, Findings())
        (Box(x1=1, y1=2, x2=3, y2=4, image=1),)
    """
    boxes: dict[Box, None] = {}

    def bad(value: Value) -> None:
        # The cue members of such an object were read already.
        if not (isinstance(value, ObjectValue) and value.has_cue):
            findings.note("bad_box", value)

    for image, corners in _corners(values, bad):
        if image >= images:
            findings.note("box_image_out_of_range", f"image {image + 1} of {images}")
        elif (box := _box(corners, image, findings)) is not None:
            boxes.setdefault(box)
    return tuple(_limited(sorted(boxes, key=lambda box: box.image), findings))


def _corners(values: list[Value], bad: Callable[[Value], None]) -> Iterator[tuple[int, list[Value]]]:
    """Yield lists that should be boxes, with their image, which follows from the nesting depth."""
    for value in values:
        if not isinstance(value, list):
            bad(value)
        elif value and not any(isinstance(part, list | ObjectValue) for part in value):
            yield 0, value
        else:
            lists_of_boxes = any(isinstance(part, list) and _holds_lists(part) for part in value)
            for position, part in enumerate(value):
                image = position if lists_of_boxes else 0
                if not isinstance(part, list):
                    bad(part)
                elif _holds_lists(part):
                    for inner in part:
                        if isinstance(inner, list):
                            yield image, inner
                        else:
                            bad(inner)
                elif part or not lists_of_boxes:
                    yield image, part


def _holds_lists(value: list[Value]) -> bool:
    return any(isinstance(part, list) for part in value)


def _box(corners: list[Value], image: int, findings: Findings) -> Box | None:
    numbers = [number for number in map(_number, corners) if number is not None]
    if len(corners) != 4 or len(numbers) != 4:
        findings.note("bad_box", corners)
        return None
    if all(0 <= number <= 1 for number in numbers) and any(0 < number < 1 for number in numbers):
        findings.note("fractional_box", corners)
        return None
    if not all(0 <= number <= SCALE for number in numbers):
        findings.note("box_out_of_range", corners)
    x1, y1, x2, y2 = (_whole(value, SCALE, findings) or 0 for value in corners)
    if x1 > x2 or y1 > y2:
        findings.note("swapped_corners", corners)
        x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    if x1 == x2 or y1 == y2:
        findings.note("degenerate_box", corners)
        return None
    return Box(x1, y1, x2, y2, image)


def _leaves(values: list[Value], findings: Findings) -> Iterator[Value]:
    """Yield the scalars of a list; bare scalars and nested lists are read too, and reported."""
    for value in values:
        if isinstance(value, list):
            for part in value:
                if isinstance(part, list):
                    findings.note("odd_shape", value)
                    yield from _leaves([part], findings)
                elif not (isinstance(part, ObjectValue) and part.has_cue):
                    yield part
        elif not (isinstance(value, ObjectValue) and value.has_cue):
            findings.note("odd_shape", value)
            yield value


def _number(value: Value) -> float | None:
    """Convert to float, infinities included; None for booleans, NaN and other text."""
    if isinstance(value, str):
        try:
            value = float(value[:400])
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _whole(value: Value, most: int, findings: Findings) -> int | None:
    """Round to the nearest integer, clamped to 0..`most`; None if it is not a number."""
    number = _number(value)
    if number is None:
        return None
    if isinstance(value, str):
        findings.note("number_as_string", value)
    clamped = min(max(number, 0.0), float(most))
    if clamped != round(clamped):
        findings.note("number_rounded", value)
    return round(clamped)


def _number_text(value: Value) -> str:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else ""


def _limited(values: list[T], findings: Findings) -> list[T]:
    if len(values) > MAX_VALUES:
        findings.note("too_many_values", f"{len(values)}, kept {MAX_VALUES}")
    return values[:MAX_VALUES]
