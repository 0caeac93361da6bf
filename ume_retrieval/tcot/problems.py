"""The names of everything that can be wrong with a T-CoT."""

from __future__ import annotations

from typing import Final

from ume_retrieval.tcot.trace import Problem

PROBLEMS: Final[dict[str, str]] = {
    "missing_thinking": "no <thinking> tag; text before the other blocks was taken instead",
    "missing_rethink": "no <rethink> tag",
    "missing_answer": "no <answer> tag",
    "unclosed_thinking": "<thinking> has no closing tag; read up to the next block or the end",
    "unclosed_rethink": "<rethink> has no closing tag; read up to the next block or the end",
    "unclosed_answer": "<answer> has no closing tag, most often because generation stopped at its length limit",
    "unopened_thinking": "</thinking> without an opening tag; the text before it was taken",
    "unopened_rethink": "</rethink> without an opening tag; the text before it was taken",
    "unopened_answer": "</answer> without an opening tag; the text before it was taken",
    "repeated_thinking": "more than one thinking block; the first that says something was taken",
    "repeated_rethink": "more than one rethink block; the first that says something was taken",
    "repeated_answer": "more than one answer block; the first that says something was taken",
    "empty_thinking": "the thinking block holds no words",
    "empty_rethink": "the rethink block holds no words",
    "empty_answer": "the answer block holds no words",
    "out_of_order": "the blocks do not stand in the order thinking, rethink, answer",
    "stray_tag": "a closing tag that closes nothing; ignored",
    "tag_variant": "a tag written otherwise (<think>, <thought>, capitals); read as the block that it stands for",
    "text_outside": "words outside the blocks; left out",
    "code_fence": "code fences (```) around the blocks or the cue; removed",
    "special_token": "a control token of a model in the text; broken up so that it cannot act",
    "missing_keywords": "no text_keywords cue with at least one keyword",
    "missing_boxes": "no bbox_2d cue with at least one usable box",
    "missing_key_frames": "no key_frames cue with at least one usable frame",
    "cue_outside_thinking": "the thinking has no cue, another place has; that one was read",
    "repeated_cue": "a cue given again after more words; the last one counts",
    "loose_json": "the cue is no strict JSON (single quotes, trailing commas, bare keys); read anyway",
    "broken_json": "the cue breaks off or turns unreadable; what stood before that was kept",
    "odd_shape": "the cue is no flat list of values; read anyway",
    "too_many_values": "more values than one cue may carry; the first ones were kept",
    "keyword_not_string": "a keyword that is no string; kept when it is a number, else dropped",
    "number_as_string": "a number written as a string; read as the number",
    "number_rounded": "a number that is not whole; rounded",
    "bad_box": "not four numbers; dropped",
    "fractional_box": "coordinates in fractions of 1 instead of 0..1000; dropped, never guessed",
    "box_out_of_range": "a coordinate outside 0..1000; clamped",
    "swapped_corners": "right before left or bottom before top; exchanged",
    "degenerate_box": "a box without area; dropped",
    "box_image_out_of_range": "a box on an image that the item does not have; dropped",
    "bad_frame": "a key frame that is no number; dropped",
    "frame_out_of_range": "a key frame before the first or after the last frame; dropped",
}
"""Every name that a `Problem` can have, with its meaning in one line."""


class Findings:
    """Collects problems: one a name, however often it occurs, with the first thing seen and the count.

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
        """What was noted, in the order of first occurrence."""
        return tuple(
            Problem(name, detail if self._counts[name] == 1 else f"{self._counts[name]} times, first: {detail}")
            for name, detail in self._details.items()
        )


def _shorten(text: str, most: int = 80) -> str:
    """One line of at most `most` characters."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"
