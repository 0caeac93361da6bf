"""A byte-level tokenizer that reads the words of Shapes, and the coordinates of its boxes, as one token each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from ume_retrieval.tcot.grammar import render
from ume_training.shapes.levels import COLOURS, LEVELS, SHAPES, TEXTURES, Level
from ume_training.shapes.tasks import TASKS

END_OF_TURN, PADDING = "<|im_end|>", "<|endoftext|>"

QWEN_TOKENS = (
    PADDING,
    "<|im_start|>",
    END_OF_TURN,
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

TRACE_TOKENS = (
    "<thinking>",
    "</thinking>",
    "<rethink>",
    "</rethink>",
    "<answer>",
    "</answer>",
    '{"text_keywords": ["',
    '", "',
    '"]}',
    '{"bbox_2d": [',
    '{"key_frames": [',
)
"""The fixed parts of a T-CoT: ordinary tokens, one each, so that a trace is short."""

SPLIT = r" ?\[*\d{2,}[\]},]*| ?\d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"
"""A coordinate keeps its brackets and comma; a single digit, as in page counts, is its own token."""

CHAT_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- else -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
"""Qwen3-VL's own turns, without tools."""


def build_tokenizer(emb_token: str, vocabulary: int = 900, samples: int = 3000) -> Any:
    """Train the tokenizer on what Shapes says.

    Args:
        emb_token: Token that the Embedder pools at; the Reasoner carries it too, so that both share a vocabulary.
        vocabulary: Most tokens; fewer if nothing is left to merge.
        samples: Pairs of the default level to read.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_reading(LEVELS["default"], samples), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (*QWEN_TOKENS, emb_token)])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TRACE_TOKENS])
    make: Any = PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
        chat_template=CHAT_TEMPLATE,
    )


def _reading(level: Level, samples: int) -> Iterator[str]:
    rng = random.Random(7)
    for _ in range(samples):
        pair = TASKS[rng.choice(list(TASKS))].draw(rng, level)
        for sample in (pair.query, pair.positive):
            text = f"{sample.text or ''}\n{render(sample.tcot)}"
            for token in TRACE_TOKENS:
                text = text.replace(token, "\n")
            yield text
    # Words of the harder levels are whole tokens too, so that training may go on there with the same tokenizer.
    for _ in range(200):
        yield " ".join((*COLOURS, *SHAPES, *TEXTURES, "user", "assistant", "query: item: summary:", "<12.5 seconds>"))
