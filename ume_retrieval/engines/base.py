"""The protocols of engines: chats in, unit vectors or replies out. Engines know nothing of retrieval."""

from __future__ import annotations

import hashlib
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Generic, Literal, Protocol, Self, TypeAlias, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat, Pair, TextPart, images_of, videos_of
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo, ReasonerSpec, RerankerSpec
from ume_retrieval.engines.outcomes import attempt, in_order, require_all
from ume_retrieval.errors import UmeError


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of a list of chats.

    Attributes:
        vectors: float32, shape (n, dimension), rows L2-normalised, row i for chat i.
        tokens: Tokens that were embedded, visual ones included, padding excluded.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int


@dataclass(frozen=True, slots=True)
class PartialEmbeddings:
    """Outcomes of a list of chats of which some may have failed.

    Attributes:
        rows: For each chat its vector, float32 of shape (dimension,) and length 1, or its error.
        tokens: Tokens that were embedded for the vectors.
    """

    rows: Sequence[npt.NDArray[np.float32] | UmeError]
    tokens: int

    def complete(self, dimension: int) -> Embeddings:
        """Return the vectors of all chats.

        Args:
            dimension: Length of a vector.

        Raises:
            UmeError: The error of the first chat that failed.
        """
        vectors = np.empty((len(self.rows), dimension), dtype=np.float32)
        vectors[:] = require_all(self.rows) if self.rows else 0
        return Embeddings(vectors, self.tokens)


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint and how it is loaded.

    Attributes:
        name: A folder, or a hub id.
        revision: Commit, tag or branch on the hub; None for a folder or the newest.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        dtype: "auto" (bfloat16 on a GPU, float32 elsewhere), "float32", "bfloat16" or "float16".
        trust_remote_code: Whether code of a sentence-transformers checkpoint may run.
    """

    name: str
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False


Spec = TypeVar("Spec", EmbedderSpec, ReasonerSpec, RerankerSpec)


class Pretrained(ABC, Generic[Spec]):
    """Gives engines that run in this process their `from_pretrained`."""

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        spec: Spec,
        revision: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        trust_remote_code: bool = False,
    ) -> Self:
        """Load a model with its description; the other arguments are those of `Source`.

        Raises:
            MissingExtra: When the engine is not installed.
            ModelError: When the model cannot be found, loaded or fitted into memory.
            IncompatibleModel: When it does not fit its family, or its weights are pickled, missing or damaged.
        """
        return cls._load(Source(name, revision, device, dtype, trust_remote_code), spec)

    @classmethod
    @abstractmethod
    def _load(cls, source: Source, spec: Spec) -> Self: ...


@runtime_checkable
class Embedder(Protocol):
    """An engine that embeds chats."""

    @property
    def info(self) -> ModelInfo:
        """Name, revision and engine of the model, for collection metadata and reports."""
        ...

    @property
    def spec(self) -> EmbedderSpec:
        """Family, prompts and visual budget that the model was trained with."""
        ...

    @property
    def dimension(self) -> int:
        """Length of its vectors before any truncation."""
        ...

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            UmeError: When a chat cannot be embedded.
        """
        ...


@runtime_checkable
class SupportsPartialEmbedding(Protocol):
    """An Embedder that keeps the vectors of other chats when some fail, such as one behind concurrent requests."""

    def embed_partial(self, chats: Sequence[Chat]) -> PartialEmbeddings:
        """Embed each chat; a chat that fails has its error in the place of its vector."""
        ...


@dataclass(frozen=True, slots=True)
class PairScores:
    """Outcomes of a list of pairs.

    Attributes:
        rows: For each pair its score, higher for a better match, or its error.
        tokens: Tokens that were read for the scores, visual ones included; 0 where the engine does not say.
        shortened: Positions of pairs that were longer than the model reads and lost words at their end.
    """

    rows: Sequence[float | UmeError]
    tokens: int = 0
    shortened: tuple[int, ...] = ()


@runtime_checkable
class PairScorer(Protocol):
    """An engine that scores pairs of a query and an item."""

    @property
    def info(self) -> ModelInfo:
        """Name, revision and engine of the model, for reports."""
        ...

    @property
    def spec(self) -> RerankerSpec:
        """Family and visual budget of the model."""
        ...

    def score_pairs(self, pairs: Sequence[Pair]) -> PairScores:
        """Score each pair; the outcome of `pairs[i]` is row i, whatever the other pairs are.

        Raises:
            UmeError: When the call as a whole is refused.
        """
        ...


ResponseFormat: TypeAlias = Literal["free", "tcot"]
"""Form of a reply: any text, or only a T-CoT that parses (constrained decoding)."""


@dataclass(frozen=True, slots=True, init=False)
class Sampling:
    """How the Reasoner decodes; part of the trace cache key.

    Attributes:
        max_tokens: Most new tokens of a reply, > 0.
        temperature: 0.0 is greedy decoding.
        top_p: Nucleus mass, (0, 1].
        seed: Seed of the random stream when temperature > 0.
        response_format: "tcot" constrains decoding to `tcot.pattern`; engines without constrained decoding raise
            `InputError`. Its former name `form` is deprecated.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    response_format: ResponseFormat

    def __init__(
        self,
        max_tokens: int = 1024,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        response_format: ResponseFormat = "free",
        *,
        form: ResponseFormat | None = None,
    ) -> None:
        if form is not None:
            warnings.warn("Sampling(form=...) is now response_format", DeprecationWarning, stacklevel=2)
            response_format = form
        values = (max_tokens, temperature, top_p, seed, response_format)
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def identity(self) -> dict[str, int | float | str]:
        """Return the fields for cache keys; the default format is left out, so that older traces are found.

        Example:
            >>> Sampling(max_tokens=160).identity()
            {'max_tokens': 160, 'temperature': 0.0, 'top_p': 1.0, 'seed': 0}
        """
        # 1 and 1.0 decode alike, and JSON writes them differently.
        values = asdict(self) | {"temperature": float(self.temperature), "top_p": float(self.top_p)}
        # Keys of earlier versions call it "form".
        form = values.pop("response_format")
        return values if form == "free" else values | {"form": form}


@dataclass(frozen=True, slots=True)
class Generation:
    """One reply.

    Attributes:
        text: The reply without special tokens.
        prompt_tokens: Tokens of the prompt, visual ones included.
        completion_tokens: Tokens that were generated.
        finish: "stop" when the model ended it, "length" when `max_tokens` did.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish: Literal["stop", "length"]


@runtime_checkable
class Reasoner(Protocol):
    """An engine that answers chats."""

    @property
    def info(self) -> ModelInfo:
        """Name, revision and engine of the model, for cache keys and reports."""
        ...

    @property
    def spec(self) -> ReasonerSpec:
        """Prompts and visual budget of the model."""
        ...

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answer each chat; the reply to `chats[i]` is at position i.

        Raises:
            UmeError: When a chat cannot be answered.
        """
        ...


@runtime_checkable
class SupportsStreaming(Protocol):
    """A Reasoner that yields each reply as soon as it is finished, so that an interrupt loses no finished reply."""

    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
        """Answer each chat once.

        Yields:
            Position of a chat with its reply or its error, in the order in which they are finished.

        Raises:
            UmeError: When the call as a whole is refused.
        """
        ...


class StreamingReasoner(ABC):
    """Gives `generate` to engines with `replies`."""

    @abstractmethod
    def replies(self, chats: Sequence[Chat], sampling: Sampling) -> Iterator[tuple[int, Generation | UmeError]]:
        """See `SupportsStreaming`."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Generation]:
        """Answer each chat; the reply to `chats[i]` is at position i, whatever the batches were.

        Raises:
            InputError: When a chat is too long (it is never cut), or decoding cannot be constrained.
            ModelError: When the engine refuses a chat or does not answer.
        """
        return in_order(self.replies(chats, sampling))


@runtime_checkable
class SupportsConstrainedDecoding(Protocol):
    """A Reasoner whose engine can constrain decoding."""

    @property
    def response_format(self) -> ResponseFormat:
        """Format of T-CoTs when the caller gives no `Sampling`."""
        ...


def tcot_sampling(reasoner: Reasoner) -> Sampling:
    """Return the default sampling for T-CoTs: greedy, up to the Reasoner's `max_tokens`, in its engine's format.

    Example:
        >>> from ume_retrieval.testing import FakeReasoner
        >>> tcot_sampling(FakeReasoner()).response_format
        'free'
    """
    form: ResponseFormat = reasoner.response_format if isinstance(reasoner, SupportsConstrainedDecoding) else "free"
    return Sampling(reasoner.spec.max_tokens, response_format=form)


def answer_each(reasoner: Reasoner, chats: Sequence[Chat], sampling: Sampling) -> list[Generation | UmeError]:
    """Answer each chat; one that fails costs the others nothing.

    Returns:
        For each chat its reply or its error.
    """

    def answer(some: Sequence[Chat]) -> Sequence[Generation | UmeError]:
        if not isinstance(reasoner, SupportsStreaming):
            return reasoner.generate(some, sampling)
        return [outcome for _, outcome in sorted(reasoner.replies(some, sampling), key=lambda one: one[0])]

    return attempt(answer, chats)


def embed_each(embedder: Embedder, chats: Sequence[Chat]) -> list[npt.NDArray[np.float32] | UmeError]:
    """Embed each chat; one that fails costs the others nothing.

    Returns:
        For each chat its vector or its error.
    """
    partial = embedder.embed_partial if isinstance(embedder, SupportsPartialEmbedding) else None
    return attempt(lambda some: partial(some).rows if partial else list(embedder.embed(some).vectors), chats)


def chat_seeds(chats: Sequence[Chat], seed: int, *, pictures: bool = False) -> list[int]:
    """Seeds below 2**31 that differ between chats, so that their replies are drawn independently.

    A chat's seed follows from its words and from how often the same words came before it in the call: it does not
    depend on chats of other words, and several replies to one chat differ.

    Args:
        chats: The chats of one call.
        seed: The seed of the whole call.
        pictures: Whether pixels count as words, so that chats of one wording about different pictures do not depend on
            each other either. Every pixel is read for it, so leave it where replies are not sampled.

    Example:
        >>> from ume_retrieval.chat import Message
        >>> red, blue = ((Message("user", (TextPart(word),)),) for word in ("red", "blue"))
        >>> first, again, other = chat_seeds([red, red, blue], seed=1)
        >>> len({first, again, other}), chat_seeds([blue, red], seed=1) == [other, first]
        (3, True)
    """
    before: Counter[str] = Counter()
    seeds: list[int] = []
    for chat in chats:
        texts = [part.text for message in chat for part in message.parts if isinstance(part, TextPart)]
        words = "\0".join([*texts, *(_looks(chat) if pictures else ())])
        digest = hashlib.sha256(f"{seed}\0{before[words]}\0{words}".encode("utf-8", "replace")).digest()
        seeds.append(int.from_bytes(digest[:4], "big") >> 1)
        before[words] += 1
    return seeds


def _looks(chat: Chat) -> Iterator[str]:
    for picture in (*images_of(chat), *(frame for frames in videos_of(chat) for frame in frames.images)):
        digest = hashlib.blake2b(picture.tobytes(), digest_size=16).hexdigest()
        yield f"{picture.mode} {picture.width}x{picture.height} {digest}"
