"""One model on several devices: each piece of a call goes to a free replica, and results keep their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from ume_retrieval.chat import Chat
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo, ReasonerSpec
from ume_retrieval.engines.base import (
    Embedder,
    Embeddings,
    Generation,
    PartialEmbeddings,
    Reasoner,
    Sampling,
    StreamingReasoner,
    SupportsPartialEmbedding,
    SupportsStreaming,
)
from ume_retrieval.errors import InputError, UmeError

Replica = TypeVar("Replica")
Done = TypeVar("Done")

PIECES_A_REPLICA: Final = 4
"""Pieces per replica: enough that no replica waits long for the last one."""

LEAST_CHATS: Final = 8
"""Least chats of a piece, so that engines can fill batches."""


def devices_of(device: str) -> tuple[str, ...]:
    """Return the devices of a name: one, several with commas between them, or every GPU.

    Raises:
        InputError: For "cuda:all" without a GPU.

    Example:
        >>> devices_of("cuda:0,cuda:1"), devices_of("auto")
        (('cuda:0', 'cuda:1'), ('auto',))
    """
    if device != "cuda:all":
        return tuple(name.strip() for name in device.split(",") if name.strip()) or ("auto",)
    import torch

    if not torch.cuda.is_available():
        raise InputError("cuda:all needs a GPU, found none", hint="run `ume doctor`")
    return tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))


class ReplicatedEmbedder:
    """Several Embedders of the same weights as one.

    Vectors are those of one replica up to the rounding of other batches.

    Args:
        replicas: At least one.
    """

    def __init__(self, replicas: Sequence[Embedder]) -> None:
        self._replicas = tuple(replicas)

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the weights."""
        return self._replicas[0].info

    @property
    def spec(self) -> EmbedderSpec:
        """Family and visual budget."""
        return self._replicas[0].spec

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self._replicas[0].dimension

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            UmeError: As a replica does.
        """
        return self.embed_partial(chats).complete(self.dimension)

    def embed_partial(self, chats: Sequence[Chat]) -> PartialEmbeddings:
        """Embed each chat; a chat that fails has its error in the place of its vector.

        Raises:
            UmeError: When a replica refuses several chats at once.
        """
        pieces = _pieces(len(chats), len(self._replicas))
        made = _share(self._replicas, pieces, lambda one, piece: _embed_partial(one, chats[piece]))
        return PartialEmbeddings([row for part in made for row in part.rows], sum(part.tokens for part in made))


class ReplicatedReasoner(StreamingReasoner):
    """Run several Reasoners with the same weights as one; sampled replies do not depend on the replica.

    Args:
        replicas: At least one.
    """

    def __init__(self, replicas: Sequence[Reasoner]) -> None:
        self._replicas = tuple(replicas)

    @property
    def info(self) -> ModelInfo:
        """Name and revision of the weights."""
        return self._replicas[0].info

    @property
    def spec(self) -> ReasonerSpec:
        """Prompts and visual budget."""
        return self._replicas[0].spec

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
        """Answer each chat once.

        Yields:
            Position of a chat with its reply or its error, in the order in which they are finished.

        Raises:
            UmeError: When a replica refuses several chats at once.
        """
        pieces = _pieces(len(chats), len(self._replicas))
        finished: queue.Queue[tuple[int, Generation | UmeError] | BaseException | None] = queue.Queue()
        stopped = threading.Event()

        def answer(replica: Reasoner, piece: slice) -> None:
            for position, outcome in _replies(replica, chats[piece], sampling):
                finished.put((piece.start + position, outcome))
                if stopped.is_set():
                    return

        def run() -> None:
            try:
                _share(self._replicas, pieces, answer, stopped)
            except BaseException as error:  # noqa: BLE001  # raised again where the replies are read
                finished.put(error)
            else:
                finished.put(None)

        worker = threading.Thread(target=run, name="replicas", daemon=True)
        worker.start()
        try:
            while (one := finished.get()) is not None:
                if isinstance(one, BaseException):
                    raise one
                yield one
        finally:
            stopped.set()
            worker.join()


def _pieces(count: int, replicas: int) -> list[slice]:
    size = max(LEAST_CHATS, -(-count // (replicas * PIECES_A_REPLICA)))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _share(
    replicas: Sequence[Replica],
    pieces: Sequence[slice],
    work: Callable[[Replica, slice], Done],
    stopped: threading.Event | None = None,
) -> list[Done]:
    """Work on all pieces and return the results in order; an error or a stop begins no further piece."""
    waiting: queue.SimpleQueue[tuple[int, slice]] = queue.SimpleQueue()
    for numbered in enumerate(pieces):
        waiting.put(numbered)
    done: dict[int, Done] = {}
    broken = stopped or threading.Event()

    def serve(replica: Replica) -> None:
        while not broken.is_set():
            try:
                number, piece = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done[number] = work(replica, piece)
            except BaseException:
                broken.set()
                raise

    with ThreadPoolExecutor(len(replicas), thread_name_prefix="replica") as threads:
        for future in [threads.submit(serve, replica) for replica in replicas]:
            future.result()
    return [done[number] for number in sorted(done)]


def _embed_partial(embedder: Embedder, chats: Sequence[Chat]) -> PartialEmbeddings:
    if isinstance(embedder, SupportsPartialEmbedding):
        return embedder.embed_partial(chats)
    try:
        embeddings = embedder.embed(chats)
    except UmeError as error:
        if len(chats) > 1:
            raise
        return PartialEmbeddings([error], 0)
    return PartialEmbeddings(list(embeddings.vectors), embeddings.tokens)


def _replies(
    reasoner: Reasoner, chats: Sequence[Chat], sampling: Sampling
) -> Iterator[tuple[int, Generation | UmeError]]:
    try:
        if isinstance(reasoner, SupportsStreaming):
            yield from reasoner.replies(chats, sampling)
        else:
            yield from enumerate(reasoner.generate(chats, sampling))
    except UmeError as error:
        if len(chats) > 1:
            raise
        yield 0, error
