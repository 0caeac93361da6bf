"""Seeds: what they follow from, and what they cost."""

from __future__ import annotations

import PIL.Image
import pytest

from ume_retrieval import Frames
from ume_retrieval.chat import Chat, ImagePart, Message, TextPart, VideoPart
from ume_retrieval.engines.base import chat_seeds


def picture(colour: str, width: int = 8) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, 64 // width), colour)


def shown(*pictures: PIL.Image.Image) -> Chat:
    return (Message("user", (*(ImagePart(one) for one in pictures), TextPart("describe it"))),)


def filmed(*colours: str) -> Chat:
    frames = Frames(tuple(picture(colour) for colour in colours), tuple(float(n) for n in range(len(colours))), 9.0)
    return (Message("user", (VideoPart(frames), TextPart("describe it"))),)


DIFFERENT = [shown(picture("red")), shown(picture("blue")), shown(picture("red", 4)), filmed("red", "blue")]


def test_pictures_tell_chats_of_one_wording_apart() -> None:
    together = chat_seeds(DIFFERENT, 3, pictures=True)
    assert len(set(together)) == len(DIFFERENT)
    assert chat_seeds(DIFFERENT[::-1], 3, pictures=True)[::-1] == together
    assert [chat_seeds([chat], 3, pictures=True)[0] for chat in DIFFERENT] == together


def test_replies_to_one_chat_are_drawn_independently() -> None:
    assert len(set(chat_seeds([shown(picture("red"))] * 4, 3, pictures=True))) == 4
    assert len(set(chat_seeds(DIFFERENT, 3))) == len(DIFFERENT)


def test_words_alone_have_the_seeds_that_they_had() -> None:
    chats: list[Chat] = [(Message("user", (TextPart(word),)),) for word in ("a", "b", "a")]
    assert chat_seeds(chats, 3, pictures=True) == chat_seeds(chats, 3)


def test_no_pixel_is_read_unless_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(PIL.Image.Image, "tobytes")
    assert len(chat_seeds(DIFFERENT, 3)) == len(DIFFERENT)
    with pytest.raises(AttributeError):
        chat_seeds(DIFFERENT, 3, pictures=True)
