"""Routes that clients of OpenAI's API use unchanged: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Annotated, Any, Final, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from ume_retrieval.errors import InputError
from ume_retrieval.inputs import Item
from ume_retrieval.pipeline.encode_options import EncodeOptions
from ume_serve.routes import service_of
from ume_serve.service import Service

MOST_INPUTS: Final = 2048
"""Most inputs of a request, as OpenAI allows."""

MOST_PICTURES: Final = 16
"""Most pictures of an input."""

router = APIRouter(prefix="/v1")
Shared = Annotated[Service, Depends(service_of)]

Part: TypeAlias = dict[str, Any]
"""A part of an input: {"type": "text", "text": …} or {"type": "image_url", "image_url": {"url": "data:…"}}."""


class ContentIn(BaseModel):
    """A multimodal input, in the form of OpenRouter."""

    content: str | list[Part]


class MessageIn(BaseModel):
    """A message, in the form of vLLM."""

    role: str = "user"
    content: str | list[Part]


class EmbeddingsIn(BaseModel):
    """A request for vectors: `input`, or `messages` for one multimodal input."""

    model: str = ""
    input: str | list[str] | list[int] | list[list[int]] | list[ContentIn] | None = None
    messages: list[MessageIn] | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    reasoning: Literal["always", "never"] = "never"
    side: Literal["query", "corpus"] = "corpus"
    user: str | None = None


@router.get("/models")
async def models(service: Shared) -> dict[str, Any]:
    """List the Embedder."""
    return {"object": "list", "data": [_model(service)]}


@router.get("/models/{name:path}")
async def model(service: Shared, name: str) -> dict[str, Any]:
    """Describe the Embedder."""
    _check_name(service, name)
    return _model(service)


@router.post("/embeddings")
async def embeddings(service: Shared, request: EmbeddingsIn) -> dict[str, Any]:
    """Embed texts and multimodal inputs; `side` and `reasoning` are additions to OpenAI's fields."""
    if request.model:
        _check_name(service, request.model)
    embedder = service.embedder
    items = await asyncio.to_thread(_items, request, service)
    options = EncodeOptions(reasoning=request.reasoning, truncate_dim=request.dimensions)
    most = embedder.batching.items
    parts = [items[start : start + most] for start in range(0, len(items), most)]
    rows: list[Any] = []
    tokens = 0
    for part in parts:
        result = await embedder.encode_together(part, request.side, options)
        rows += list(result.vectors)
        tokens += result.usage.embedded_tokens + result.usage.prompt_tokens
    data = [
        {"object": "embedding", "index": number, "embedding": _written(row, request.encoding_format)}
        for number, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": service.settings.model, "usage": usage}


def _items(request: EmbeddingsIn, service: Service) -> list[Item]:
    if (request.input is None) == (request.messages is None):
        raise InputError("give either input or messages")
    if request.messages is not None:
        parts = [part for message in request.messages for part in _parts(message.content)]
        return [_item(parts, service)]
    given = [request.input] if isinstance(request.input, str) else request.input or []
    if not 0 < len(given) <= MOST_INPUTS:
        raise InputError(f"{len(given)} inputs", hint=f"give 1 to {MOST_INPUTS}")
    items: list[Item] = []
    for one in given:
        if isinstance(one, str):
            items.append(Item(text=one))
        elif isinstance(one, ContentIn):
            items.append(_item(_parts(one.content), service))
        else:
            # Tokens of another model's vocabulary mean nothing here.
            raise InputError("token ids cannot be embedded, only texts", hint="check_embedding_ctx_length=False")
    return items


def _parts(content: str | list[Part]) -> list[Part]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _item(parts: list[Part], service: Service) -> Item:
    from ume_retrieval.media import open_image

    texts: list[str] = []
    images: list[Any] = []
    for part in parts:
        match part:
            case {"type": "text" | "input_text", "text": str(text)}:
                texts.append(text)
            case {"type": "image_url" | "input_image", "image_url": {"url": str(url)} | str(url)}:
                if len(images) == MOST_PICTURES:
                    raise InputError(f"an input may have {MOST_PICTURES} pictures")
                images.append(open_image(_bytes_of(url), service.limits))
            case _:
                raise InputError("a content part is text or image_url", hint='{"type": "text", "text": "…"}')
    return Item(text="\n".join(texts) or None, images=tuple(images))


def _bytes_of(url: str) -> bytes:
    head, comma, data = url.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise InputError("pictures are given as data:image/…;base64,…", hint="this server fetches no addresses")
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise InputError("the picture is not valid base64") from error


def _written(row: np.ndarray[Any, Any], form: str) -> list[float] | str:
    vector = np.asarray(row, dtype="<f4")
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.settings.model, "object": "model", "created": 0, "owned_by": "ume-retrieval"}


def _check_name(service: Service, name: str) -> None:
    if name != service.settings.model:
        raise InputError(f"this server has no model {name!r}", hint=f"it serves {service.settings.model}")
