"""Chats as the messages of the OpenAI API. Pictures are sent as PNG, so that the model sees the exact pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import PIL.Image

from ume_retrieval.chat import Chat, ImagePart, Part, TextPart, VideoPart, images_of, videos_of
from ume_retrieval.engines.server.client import Dialect
from ume_retrieval.engines.transformers.processor import TICKS_PER_SECOND, video_metadata
from ume_retrieval.errors import InputError

BARE_VIDEOS = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
{%- elif part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- '<|video_pad|>' -}}
{%- endif -%}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
"""Qwen3-VL's chat template, except that a video is its placeholder alone: the processor writes vision tokens around
each pair of frames, and the published models were not given those that the template writes around them all."""

AS_FITTED = {
    "images_kwargs": {"do_resize": False},
    "videos_kwargs": {"do_resize": False, "do_sample_frames": False, "cap_pixels_per_frame": False},
}
"""Settings of a model's processor: pictures are resized already."""


def messages_of(chat: Chat, dialect: Dialect) -> list[dict[str, Any]]:
    """A chat as messages.

    vLLM takes a video as one part. Other servers are shown its frames as images, each after its time in the words of
    Qwen3-VL, `<1.5 seconds>`.
    """
    return [{"role": message.role, "content": content_of(message.parts, dialect)} for message in chat]


def content_of(parts: Sequence[Part], dialect: Dialect) -> list[dict[str, Any]]:
    """Parts of one message, or of one side of a pair, as the API's content parts."""
    return [wire for part in parts for wire in _parts(part, dialect)]


def media_settings(chat: Chat) -> dict[str, Any]:
    """Return the settings of a request to vLLM: its pictures are resized already, and its frames have these times.

    vLLM takes such settings only when it was started with `--trust-request-mm-kwargs`, and a template of the request,
    which videos of the published profiles need, only with `--trust-request-chat-template`.

    Raises:
        InputError: When a chat has several videos with different times: one request carries the times of one.
    """
    if not images_of(chat) and not videos_of(chat):
        return {}
    settings: dict[str, Any] = {"mm_processor_kwargs": AS_FITTED}
    times = [video_metadata(frames) for frames in videos_of(chat)]
    if any(one != times[0] for one in times):
        raise InputError("a server takes one video an item", hint="split the item, or use engine='vllm'")
    if times:
        settings["media_io_kwargs"] = {"video": {"num_frames": -1, "do_sample_frames": False, **times[0]}}
    if any(isinstance(part, VideoPart) and not part.doubled for message in chat for part in message.parts):
        settings["chat_template"] = BARE_VIDEOS
    return settings


def _parts(part: Part, dialect: Dialect) -> list[dict[str, Any]]:
    if isinstance(part, TextPart):
        return [_text(part.text)]
    if isinstance(part, ImagePart):
        return [_image(part.image)]
    if dialect == "vllm":
        # The frames of this media type are read by Pillow one by one, so PNG does as well as JPEG, and loses nothing.
        frames = ",".join(map(_encoded, part.frames.images))
        return [{"type": "video_url", "video_url": {"url": f"data:video/jpeg;base64,{frames}"}}]
    return _shown_frames(part)


def _shown_frames(part: VideoPart) -> list[dict[str, Any]]:
    ticks = video_metadata(part.frames)["frames_indices"]
    return [
        wire
        for tick, image in zip(ticks, part.frames.images, strict=True)
        for wire in (_text(f"<{tick / TICKS_PER_SECOND:.1f} seconds>"), _image(image))
    ]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: PIL.Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_encoded(image)}"}}


def _encoded(image: PIL.Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
