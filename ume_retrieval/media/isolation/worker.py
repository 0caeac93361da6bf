"""Run a decoding worker: answer one request after another until the pipe closes."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import PIL.Image

from ume_retrieval.errors import MediaTooLarge, UmeError
from ume_retrieval.inputs import Clip, Page
from ume_retrieval.media.images import check_image, open_image
from ume_retrieval.media.isolation.protocol import receive, receive_bytes, send
from ume_retrieval.media.limits import Limits
from ume_retrieval.media.pages import count_pages
from ume_retrieval.media.video import probe_video, sample_video

GRACE_S = 5
"""Seconds after its time limit at which a worker ends itself, if its parent has died and cannot kill it."""

OPEN_FILES = 64


class Answer(NamedTuple):
    """A header and the bodies that follow it."""

    header: Mapping[str, Any]
    bodies: Sequence[bytes] = ()


Operation: TypeAlias = Callable[[Mapping[str, Any], bytes], Answer]
"""Answers a request and its body."""


def serve(memory_bytes: int, seconds: float) -> None:
    """Answer requests from standard input on standard output until the parent closes it."""
    requests, answers = FileIO(os.dup(0)), FileIO(os.dup(1), "w")
    # Output of libraries must not become part of an answer.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    confine(memory_bytes)
    send(answers, {"ready": True})
    while True:
        try:
            request = receive(requests)
            body = bytes(receive_bytes(requests, request["bytes"]))
        except (EOFError, KeyboardInterrupt):
            return
        _alarm(seconds + GRACE_S)
        answer = _answer(request, body)
        _alarm(0)
        send(answers, *answer)


def confine(memory_bytes: int) -> None:
    """Limit the address space and open files of this process, and forbid writing to files."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for kind, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        with suppress(ValueError, OSError):  # macOS cannot limit address space; a lower limit may be set already
            resource.setrlimit(kind, (most, most))


def _alarm(seconds: float) -> None:
    """Let the system kill this process after some seconds, even inside native code; 0 cancels."""
    if hasattr(signal, "alarm"):
        signal.alarm(math.ceil(seconds))


def _answer(request: Mapping[str, Any], body: bytes) -> Answer:
    try:
        return OPERATIONS[request["do"]](request, body)
    except UmeError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(MediaTooLarge("it needs more memory than a worker has", hint="raise Isolation.memory_bytes"))
    except Exception as error:  # noqa: BLE001  # decoders raise almost any type on hostile bytes
        return Answer({"unforeseen": type(error).__name__})


def _refusal(error: UmeError) -> Answer:
    fields = {"code": error.code, "message": error.message, "hint": error.hint, "retryable": error.retryable}
    return Answer({"error": fields})


def _image(request: Mapping[str, Any], body: bytes) -> Answer:
    limits = Limits(**request["limits"])
    source: bytes | Path | Page = body
    if request["path"] is not None:
        path = Path(request["path"])
        source = path if request["page"] is None else Page(path, request["page"])
    return _pictures([open_image(source, limits, page_pixels=request["page_pixels"])])


def _video(request: Mapping[str, Any], _: bytes) -> Answer:
    clip = Clip(Path(request["path"]), *request["span"])
    limits, least = Limits(**request["limits"]), request["min_frames"]
    frames = sample_video(clip, request["fps"], request["max_frames"], limits, min_frames=least)
    facts = {"times": frames.timestamps, "duration_s": frames.duration_s, "warnings": frames.warnings}
    return _pictures(frames.images, **facts)


def _pictures(pictures: Sequence[PIL.Image.Image], **facts: Any) -> Answer:
    # A repeated frame is sent once; `order` refers to the distinct ones.
    distinct = list({id(picture): picture for picture in pictures}.values())
    places = {id(picture): place for place, picture in enumerate(distinct)}
    header = {"sizes": [picture.size for picture in distinct], "order": [places[id(one)] for one in pictures], **facts}
    return Answer(header, [picture.tobytes() for picture in distinct])


def _of_file(look: Callable[[Path, Limits], Any], key: str) -> Operation:
    return lambda request, _: Answer({key: look(Path(request["path"]), Limits(**request["limits"]))})


OPERATIONS: dict[str, Operation] = {
    "image": _image,
    "video": _video,
    "size": _of_file(check_image, "size"),
    "probe": _of_file(lambda path, limits: asdict(probe_video(path, limits)), "info"),
    "pages": _of_file(count_pages, "pages"),
}
