"""The files by which sentence-transformers loads an Embedder with its own modules: no code travels with the weights.

Its last-token pooling meets `<emb>` because its chat template ends there: nothing that follows a token changes that
token's state in a causal model. The template is kept apart from the processor's own, in the module's settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image

from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.inputs import LoadedItem

MACROS = """\
{%- macro words(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}{%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro seen(part) -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}{%- endif -%}
{%- endmacro -%}
{%- macro pictures(content, kinds) -%}
{%- if content is not string -%}
{%- for kind in kinds -%}{%- for part in content if part.type == kind -%}{{- seen(part) -}}{%- endfor -%}{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- macro in_order(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{- part.text -}}{%- else -%}{{- seen(part) -}}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set told = words(messages[0].content) if messages[0].role == 'system' else '' -%}
"""

EMBED_RL = """\
{%- for message in messages if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if loop.last and message.role == 'user' -%}
{%- set said = words(message.content) -%}
{{- pictures(message.content, ['image', 'video']) + told + ('\\n' if told and said else '') + said -}}
{{- SUMMARY + '<|im_end|>\\n<|im_start|>assistant\\n' + EMB -}}
{%- else -%}
{{- in_order(message.content) + ('' if loop.last else '<|im_end|>\\n') -}}
{%- endif -%}
{%- endfor -%}"""
"""A user's turn alone is closed and answered with the pooled token; a chat that brings its answer ends with it."""

QWEN3_VL_EMBEDDING = """\
{{- '<|im_start|>system\\n' + (told or INSTRUCTION) + '<|im_end|>\\n' -}}
{%- for message in messages if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\\n' + pictures(message.content, ['video', 'image']) -}}
{{- words(message.content) + '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' -}}"""


def stock_template(spec: EmbedderSpec) -> str:
    """A chat template after which the last token is the one that the family pools.

    Takes messages as sentence-transformers makes them of strings, pictures and mixes: text and pictures in any order
    are read in the family's order. A system turn is the item's instruction.

    Example:
        >>> "<emb>" in stock_template(EmbedderSpec(family="embed-rl"))
        True
    """
    body = EMBED_RL if spec.family == "embed-rl" else QWEN3_VL_EMBEDDING
    names = {"SUMMARY": spec.summary_prompt, "EMB": spec.emb_token, "INSTRUCTION": spec.default_instruction}
    set_names = "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in names.items())
    return MACROS + set_names + body


def write_stock_modules(folder: Path, processor: Any, spec: EmbedderSpec, dimension: int) -> None:
    """Write what `SentenceTransformer(folder)` reads beside weights and processor.

    Args:
        folder: The checkpoint.
        processor: Its processor.
        spec: How it wants its input.
        dimension: Length of a vector.

    Raises:
        IncompatibleModel: When the checkpoint's own chat template writes something else than this one, so that
            vectors would differ.
    """
    template = stock_template(spec)
    _require_same_reading(processor, spec, template)
    way = {"method": "forward", "method_output_name": "last_hidden_state"}
    budget = spec.budget
    _write(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
    )
    _write(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {
                **dict.fromkeys(("text", "image", "video"), way),
                "message": {**way, "format": "structured"},
            },
            "module_output_name": "token_embeddings",
            "processing_kwargs": {
                "chat_template": {"chat_template": template},
                "image": {"size": {"shortest_edge": budget.image_min_pixels, "longest_edge": budget.image_max_pixels}},
            },
        },
    )
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    for name, settings in (
        ("1_Pooling", {"embedding_dimension": dimension, "pooling_mode": "lasttoken", "include_prompt": True}),
        ("2_Normalize", {}),
    ):
        (folder / name).mkdir()
        _write(folder / name / "config.json", settings)


def _require_same_reading(processor: Any, spec: EmbedderSpec, template: str) -> None:
    """Compare both templates on words, and on a picture with words, up to the pooled token."""
    picture = PIL.Image.new("RGB", (32, 32))
    content = [{"type": "image"}, {"type": "text", "text": "a cat"}]
    for item, parts in (
        (LoadedItem("a cat", (), (), None, ""), content[1:]),
        (LoadedItem("a cat", (picture,), (), None, ""), content),
    ):
        own = ChatInputs(processor, "right").render(embedding_chat(spec, item, None, None))
        if spec.family == "embed-rl":
            own = own[: own.rindex(spec.emb_token) + len(spec.emb_token)]
        stock = processor.apply_chat_template(
            [{"role": "user", "content": parts}], chat_template=template, tokenize=False
        )
        if own != stock:
            raise IncompatibleModel(
                f"the checkpoint's chat template writes {own!r}, sentence-transformers would read {stock!r}",
                hint="give the checkpoint the chat template of Qwen3-VL",
            )


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
