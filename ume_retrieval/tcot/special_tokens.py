"""Keeps words that came from outside from acting as a model's control tokens."""

from __future__ import annotations

import re
from typing import Literal

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
        text: Words from outside.
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
