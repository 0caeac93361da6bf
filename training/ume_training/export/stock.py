"""The files by which sentence-transformers loads an Embedder with its own modules: no code travels with the weights.

Its last-token pooling meets `<emb>` because its chat template ends there: nothing that follows a token changes that
token's state in a causal model. The template is kept apart from the processor's own, in the module's settings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image

from ume_retrieval.chat import ImagePart, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec
from ume_retrieval.engines.families import embedding_chat
from ume_retrieval.engines.transformers.processor import ChatInputs
from ume_retrieval.errors import IncompatibleModel
from ume_retrieval.inputs import Frames, LoadedItem

MACROS = """\
{%- macro words(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}{%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro seen(part) -%}
{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}{%- endif -%}
{%- endmacro -%}
{%- macro shape(content) -%}
{%- if content is string -%}text
{%- elif content | selectattr('type', 'equalto', 'video') | list -%}video
{%- elif content | selectattr('type', 'equalto', 'image') | list | length > 1 -%}images
{%- else -%}image{%- endif -%}
{%- endmacro -%}
{%- macro item(content, instruction) -%}
{%- for kind in ORDERS[shape(content)] -%}
{%- if kind == 'text' -%}
{%- set said = words(content) -%}{{- instruction + ('\\n' if instruction and said else '') + said -}}
{%- else -%}{%- for part in content if part.type == kind -%}{{- seen(part) -}}{%- endfor -%}{%- endif -%}
{%- endfor -%}
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
{{- item(message.content, told) + SUMMARY + '<|im_end|>\\n<|im_start|>assistant\\n' + EMB -}}
{%- else -%}
{{- in_order(message.content) + ('' if loop.last else '<|im_end|>\\n') -}}
{%- endif -%}
{%- endfor -%}"""
"""A user's turn alone is closed and answered with the pooled token; a chat that brings its answer ends with it."""

QWEN3_VL_EMBEDDING = """\
{{- '<|im_start|>system\\n' + (told or INSTRUCTION) + '<|im_end|>\\n' -}}
{%- for message in messages if message.role != 'system' -%}
{{- '<|im_start|>' + message.role + '\\n' + item(message.content, '') + '<|im_end|>\\n' -}}
{%- endfor -%}
{{- '<|im_start|>assistant\\n' -}}"""


def stock_template(spec: EmbedderSpec) -> str:
    """Return a chat template after which the last token is the one that the family pools.

    Takes messages as sentence-transformers makes them of strings, pictures and mixes: text and pictures in any order
    are read in the family's order. A system turn is the item's instruction.

    Example:
        >>> "<emb>" in stock_template(EmbedderSpec(family="embed-rl"))
        True
    """
    body = EMBED_RL if spec.family == "embed-rl" else QWEN3_VL_EMBEDDING
    names = {
        "SUMMARY": spec.summary_prompt,
        "EMB": spec.emb_token,
        "INSTRUCTION": spec.default_instruction,
        "ORDERS": {name: _order(spec, item) for name, item in _items().items()},
    }
    set_names = "".join(f"{{%- set {name} = {json.dumps(value)} -%}}\n" for name, value in names.items())
    return MACROS + set_names + body


def write_stock_modules(folder: Path, processor: Any, spec: EmbedderSpec, dimension: int) -> None:
    """Write what `SentenceTransformer(folder)` reads next to weights and processor.

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
                # Bounds of all frames together: right for a video of as many frames as the budget takes.
                "video": {
                    "size": {
                        "shortest_edge": budget.frame_min_pixels * budget.video_frames,
                        "longest_edge": budget.frame_max_pixels * budget.video_frames,
                    },
                    "cap_pixels_per_frame": False,
                },
            },
        },
    )
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    for name, settings in (
        ("1_Pooling", {"embedding_dimension": dimension, "pooling_mode": "lasttoken", "include_prompt": True}),
        ("2_Normalize", {}),
    ):
        (folder / name).mkdir(exist_ok=True)
        _write(folder / name / "config.json", settings)


def add_stock_modules(folder: Path, spec: EmbedderSpec) -> None:
    """Write the same for a whole checkpoint on disk.

    Raises:
        IncompatibleModel: As `write_stock_modules` does.
    """
    import transformers

    classes: Any = transformers
    width = int(classes.AutoConfig.from_pretrained(folder).get_text_config().hidden_size)
    write_stock_modules(folder, classes.AutoProcessor.from_pretrained(folder), spec, width)


def _items() -> dict[str, LoadedItem]:
    """Return one item for each combination of media that a family may order differently."""
    picture = PIL.Image.new("RGB", (32, 32))
    video = Frames((picture,) * 2, (0.0, 1.0), 2.0)
    shapes: dict[str, tuple[tuple[PIL.Image.Image, ...], tuple[Frames, ...]]] = {
        "text": ((), ()),
        "image": ((picture,), ()),
        "images": ((picture,) * 2, ()),
        "video": ((picture,), (video,)),
    }
    return {name: LoadedItem("a cat", images, videos, None, "") for name, (images, videos) in shapes.items()}


def _order(spec: EmbedderSpec, item: LoadedItem) -> list[str]:
    """Kinds of parts in the order in which the family writes them."""
    user = next(message for message in embedding_chat(spec, item, None, None) if message.role == "user")
    kinds = {TextPart: "text", ImagePart: "image", VideoPart: "video"}
    return list(dict.fromkeys([*(kinds[type(part)] for part in user.parts), *kinds.values()]))


def _require_same_reading(processor: Any, spec: EmbedderSpec, template: str) -> None:
    """Compare both templates on words, and on pictures with words, up to the pooled token."""
    for name, item in _items().items():
        # A family may show a video as images; what sentence-transformers reads as a video is left to its processor.
        if name == "video":
            continue
        parts = [*({"type": "image"} for _ in item.images), {"type": "text", "text": "a cat"}]
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
