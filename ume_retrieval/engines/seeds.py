"""Seeds for engines that sample each reply with a separate random generator."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

from ume_retrieval.chat import Chat, TextPart, images_of, videos_of


def chat_seeds(chats: Sequence[Chat], seed: int, *, pictures: bool = False) -> list[int]:
    """Seeds below 2**31 that differ between chats, so that their replies are drawn independently.

    A chat's seed follows from its words and from how often the same words came before it in the call: it does not
    depend on chats of other words, and several replies to one chat differ.

    Args:
        chats: The chats of one call.
        seed: The seed of the whole call.
        pictures: Whether pixels count as words, so that chats of one wording about different pictures do not depend on
            each other either. Every pixel is read for it, so leave it where replies are not sampled.

    Example:
        >>> from ume_retrieval.chat import Message
        >>> red, blue = ((Message("user", (TextPart(word),)),) for word in ("red", "blue"))
        >>> first, again, other = chat_seeds([red, red, blue], seed=1)
        >>> len({first, again, other}), chat_seeds([blue, red], seed=1) == [other, first]
        (3, True)
    """
    before: Counter[str] = Counter()
    seeds: list[int] = []
    for chat in chats:
        texts = [part.text for message in chat for part in message.parts if isinstance(part, TextPart)]
        words = "\0".join([*texts, *(_looks(chat) if pictures else ())])
        digest = hashlib.sha256(f"{seed}\0{before[words]}\0{words}".encode("utf-8", "replace")).digest()
        seeds.append(int.from_bytes(digest[:4], "big") >> 1)
        before[words] += 1
    return seeds


def _looks(chat: Chat) -> Iterator[str]:
    for picture in (*images_of(chat), *(frame for frames in videos_of(chat) for frame in frames.images)):
        digest = hashlib.blake2b(picture.tobytes(), digest_size=16).hexdigest()
        yield f"{picture.mode} {picture.width}x{picture.height} {digest}"
