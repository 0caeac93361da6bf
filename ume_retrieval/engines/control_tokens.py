"""Break the control tokens of a model's own tokenizer in text that is not to be trusted.

`tcot.blocks.neutralise` knows the spellings of many models, also where no tokenizer is at hand. Here the tokenizer
itself says what it would cut out of a text, such as BERT's `[SEP]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any


def token_breaker(tokenizers: Iterable[Any]) -> Callable[[str], str]:
    """Return a function that breaks every special token of some tokenizers with a space after its first character.

    Tokenizers cut special tokens out of a text by exact match, so what is left are ordinary words. Other text is
    returned unchanged. A token of one character cannot be broken, and stays.

    Args:
        tokenizers: Tokenizers of transformers, or processors that have one; anything else is ignored.

    Example:
        >>> class Tokenizer:
        ...     all_special_tokens = ["[CLS]", "[SEP]"]
        >>> token_breaker([Tokenizer()])("a [SEP] b [sep] [MASK]")
        'a [ SEP] b [sep] [MASK]'
    """
    exact, folded = set[str](), set[str]()
    for one in tokenizers:
        tokenizer = getattr(one, "tokenizer", one)
        exact.update(map(str, getattr(tokenizer, "all_special_tokens", ())))
        for token in getattr(tokenizer, "added_tokens_decoder", {}).values():
            if token.special:
                # Such a token is looked for after the text was normalised, which may change its case.
                (folded if token.normalized else exact).add(str(token))
    exact, folded = ({token for token in tokens if len(token) > 1} for tokens in (exact, folded))
    patterns = [
        f"(?{flag}:{'|'.join(map(_first_of, sorted(tokens)))})"
        for flag, tokens in (("", exact), ("i", folded))
        if tokens
    ]
    return partial(re.compile("|".join(patterns)).sub, r"\g<0> ") if patterns else str


def _first_of(token: str) -> str:
    """Return a pattern of a token's first character, where the others follow."""
    return f"{re.escape(token[0])}(?={re.escape(token[1:])})"
