"""The T-CoT as a regular expression, for decoding that cannot leave the form."""

from __future__ import annotations

from ume_retrieval.chat import Chat, images_of, videos_of
from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Modality

_BLANK = r"\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CLOSED = r"<>{}\[\]`"
_THOUGHT = rf"[^{_BLANK}{_CLOSED}][^{_CLOSED}]{{0,1199}}"
_SENTENCES = rf"[^{_BLANK}<][^<]{{0,599}}"
_KEYWORD = rf'"[^{_BLANK}"\\<][^\x00-\x1f"\\<]{{0,59}}"'
_COORDINATE = r"(?:0|[1-9][0-9]{0,2}|1000)"
_BOX = rf"\[{_COORDINATE}(?:, {_COORDINATE}){{3}}\]"
_BOXES = rf"\[{_BOX}(?:, {_BOX}){{0,3}}\]"


def pattern(modality: Modality, *, images: int = 1, frames: int | None = None) -> str:
    """A regular expression for the T-CoT of an item of this modality.

    Whatever it matches parses without a problem and validates, but for one thing that no expression of sensible size
    can say: the corners of a box may come out swapped or level. Written with character classes, groups and bounded
    repetition only (no look-around, no back-references), so that llguidance, xgrammar and outlines take it as it is.
    Blocks are bounded (1,200, 600 and 600 characters, 8 keywords, 4 boxes an image, 4 key frames), so that generation
    comes to an end.

    Args:
        modality: Decides which cue is written: keywords, boxes or key frames.
        images: How many images the item has, >= 1; with several, each gets a list of boxes.
        frames: How many frames the model sees, >= 1, or None for any number below 10,000.

    Raises:
        InputError: When `images` or `frames` is below 1.

    Example:
        >>> import re
        >>> trace = '<thinking>One. {"key_frames": [2, 5]}</thinking><rethink>Yes.</rethink><answer>a cat</answer>'
        >>> bool(re.fullmatch(pattern("video", frames=8), trace)), bool(re.fullmatch(pattern("video", frames=4), trace))
        (True, False)
    """
    if images < 1 or (frames is not None and frames < 1):
        raise InputError("a pattern needs at least one image and one frame")
    if modality == "text":
        cue = rf'\{{"text_keywords": \[{_KEYWORD}(?:, {_KEYWORD}){{0,7}}\]\}}'
    elif modality == "image":
        boxes = _BOXES if images == 1 else rf"\[{_BOXES}(?:, {_BOXES}){{{images - 1}}}\]"
        cue = rf'\{{"bbox_2d": {boxes}\}}'
    else:
        frame = "[1-9][0-9]{0,3}" if frames is None else f"(?:{'|'.join(str(n + 1) for n in range(frames))})"
        cue = rf'\{{"key_frames": \[{frame}(?:, {frame}){{0,3}}\]\}}'
    return rf"<thinking>{_THOUGHT} {cue}</thinking><rethink>{_SENTENCES}</rethink><answer>{_SENTENCES}</answer>"


def chat_pattern(chat: Chat) -> str:
    """The `pattern` of the T-CoT that a Reasoner's chat asks for, read from the pictures that it shows.

    Example:
        >>> from ume_retrieval.chat import Message, TextPart
        >>> chat_pattern((Message("user", (TextPart("red"),)),)) == pattern("text")
        True
    """
    images, videos = images_of(chat), videos_of(chat)
    if videos:
        return pattern("video", frames=sum(len(frames.images) for frames in videos))
    return pattern("image", images=len(images)) if images else pattern("text")
