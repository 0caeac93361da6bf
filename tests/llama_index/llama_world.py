"""A folder of small real files, models that need no weights, and ears for LlamaIndex's events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_index.core.instrumentation as instrument
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import CustomLLM
from small_media import BLUE, GREEN, RED, YELLOW, clip, document, picture

from ume_llama_index import UmeEmbedding
from ume_retrieval import ReasoningEmbedder
from ume_retrieval.testing import FakeReasoner, fake_embedder


def fill(folder: Path) -> Path:
    """Five files, seven points: two pictures, a text, two pages, two segments of video."""
    folder.mkdir(parents=True)
    picture(folder / "red.png", RED)
    picture(folder / "green.png", GREEN)
    (folder / "notes.txt").write_text("the last train home", encoding="utf-8")
    document(folder / "report.pdf", RED, YELLOW)
    clip(folder / "clip.mp4", 20, GREEN, BLUE)
    return folder


def models(**kwargs: Any) -> ReasoningEmbedder:
    return fake_embedder(reasoner=FakeReasoner(**kwargs))


def embedding(**kwargs: Any) -> UmeEmbedding:
    return UmeEmbedding(embedder=models(), **kwargs)


def names(nodes: Sequence[Any]) -> list[str]:
    return [Path(node.metadata["source"]).name for node in nodes]


class Ear(BaseEventHandler):
    """Keeps every event of LlamaIndex's instrumentation."""

    events: list[Any] = []  # noqa: RUF012  # a pydantic field, copied for each instance

    @classmethod
    def class_name(cls) -> str:
        return "Ear"

    def handle(self, event: Any, **_: Any) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]


@contextmanager
def listening() -> Iterator[Ear]:
    ear = Ear()
    root = instrument.get_dispatcher()
    root.add_event_handler(ear)
    try:
        yield ear
    finally:
        root.event_handlers.remove(ear)


class RecordingLLM(CustomLLM):
    """A chat model that reads nothing and keeps what it was shown."""

    _seen: list[Sequence[ChatMessage]] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(context_window=1_000_000, num_output=64, is_chat_model=True, model_name="recording")

    @property
    def blocks(self) -> list[Any]:
        return [block for messages in self._seen for message in messages for block in message.blocks]

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self._seen.append(list(messages))
        return ChatResponse(message=ChatMessage(role="assistant", content="seen"))

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        raise AssertionError("a chat model is chatted with")

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> Any:
        raise AssertionError("a chat model is chatted with")
