"""The Embedder on sentence-transformers: any model that the package loads, with its own prompts and routes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from ume_retrieval.chat import Chat, ImagePart, Part, TextPart, VideoPart
from ume_retrieval.checkpoint import EmbedderSpec, ModelInfo
from ume_retrieval.engines.base import Embeddings, Pretrained, Source
from ume_retrieval.engines.checkpoint_files import locate, require_safetensors
from ume_retrieval.engines.control_tokens import token_breaker
from ume_retrieval.engines.forks import home_of
from ume_retrieval.engines.transformers.loading import (
    cannot_load,
    check_sentence_transformer,
    choose_device,
    choose_dtype,
    known_revision,
    short_name,
)
from ume_retrieval.engines.transformers.processor import video_metadata
from ume_retrieval.errors import IncompatibleModel, InputError, MissingExtra, ModelError
from ume_retrieval.inputs import Side

BATCH_SIZE = 32
"""sentence-transformers batches by count; it sorts by length on its own."""

UNKNOWN_LIMIT = 10**9
"""Tokenizers whose files name no limit say 10^30."""

SETTINGS = {"text": {"truncation": False, "verbose": False}, "video": {"do_sample_frames": False}}
"""Texts are whole, so that long ones are found and not cut; the frames of videos are sampled already."""

TASK_SLOT = re.compile(r"(Instruct: |task: ).*?(\n *Query: ?| \| query: ?)", re.DOTALL)
"""Query prompts with a place for the task: those of E5-Mistral, Qwen3-Embedding and others, and EmbeddingGemma's."""

PROMPT_NAMES: Mapping[Side, tuple[str, ...]] = {"query": ("query",), "corpus": ("document", "passage", "corpus")}
"""Names of the prompts that `encode_query` and `encode_document` look for, in this order."""


@dataclass(frozen=True, slots=True)
class _Input:
    """One input of the model.

    Attributes:
        content: As `SentenceTransformer.encode` takes it.
        kind: Its modalities; a batch holds one kind.
        side: Method that embeds it; None is plain `encode`.
        prompt: In the place of the model's own for this side, or None.
    """

    content: Any
    kind: tuple[str, ...]
    side: Side | None
    prompt: str | None


class SentenceTransformersEmbedder(Pretrained[EmbedderSpec]):
    """Embeds chats with a `SentenceTransformer`: queries by `encode_query`, the corpus by `encode_document`.

    A video is one of the model's video inputs where it has those, else its sampled frames are images. A model that
    reads either words or pictures (CLIP, SigLIP) embeds them apart, and `fuse` makes one vector of them.

    Args:
        model: The loaded model.
        info: Which weights these are.
        spec: How videos are sampled, and which part of a T-CoT is embedded.
    """

    def __init__(self, model: Any, *, info: ModelInfo, spec: EmbedderSpec) -> None:
        self.model = model
        self.info = info
        self._home = home_of(info.name, model.device.type)
        readers = [getattr(reader, name, None) for reader in _readers(model) for name in ("tokenizer", "processor")]
        self._broken = token_breaker(readers)
        self._apart = model.supports("image") and not model.supports(("image", "text"))
        self.spec = (
            spec.model_copy(update={"trace_part": "answer"}) if self._apart and spec.trace_part is None else spec
        )

    @classmethod
    def _load(cls, source: Source, spec: EmbedderSpec) -> Self:
        model, info = load_stock("SentenceTransformer", source)
        return cls(model, info=info, spec=spec)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self.model.get_embedding_dimension())

    def embed(self, chats: Sequence[Chat]) -> Embeddings:
        """Embed each chat; the vector of `chats[i]` is row i.

        Raises:
            InputError: When an input is longer than the model reads; it is never cut silently.
            IncompatibleModel: When the model cannot read a modality of an item.
            ModelError: When the model refuses an input.
        """
        if self._home is not None:
            self._home.require()
        inputs = [self._inputs(chat) for chat in chats]
        flat = [one for several in inputs for one in several]
        vectors = np.empty((len(flat), self.dimension), dtype=np.float32)
        tokens = 0
        # sentence-transformers 6.2 rewrites a batch of strings, pictures and messages into messages, and then pictures
        # get other vectors than alone; so each kind has a call of its own.
        groups: dict[tuple[object, ...], list[int]] = {}
        for row, one in enumerate(flat):
            groups.setdefault((one.side, one.prompt, one.kind), []).append(row)
        for rows in groups.values():
            vectors[rows], counted = self._encode([flat[row] for row in rows])
            tokens += counted
        whole = np.empty((len(chats), self.dimension), dtype=np.float32)
        start = 0
        for row, several in enumerate(inputs):
            pieces, start = vectors[start : start + len(several)], start + len(several)
            words = [one.kind == ("text",) for one in several]
            whole[row] = pieces[0] if len(several) == 1 else fuse(pieces, words, self.spec.words_share)
        return Embeddings(whole, tokens)

    def _inputs(self, chat: Chat) -> list[_Input]:
        """Return the inputs of a chat: one, or several to fuse where the model reads one modality at a time."""
        parts = chat[-1].parts
        words = [self._broken(part.text) for part in parts if isinstance(part, TextPart)]
        media = [one for part in parts for one in self._media(part)]
        instruction = self._broken(chat[0].parts[0].text) if chat[0].role == "system" else None  # type: ignore[union-attr]  # words
        if self._apart:
            pieces = [[one] for one in (*media, *(("text", text) for text in words))]
            if instruction and not words:
                raise IncompatibleModel(
                    f"{self.info.name} takes no instruction for a picture alone", hint="leave the instruction out"
                )
        else:
            pieces = [[*media, *([("text", "\n".join(words))] if words or not media else [])]]
        return [self._input(piece, chat[-1].side, instruction) for piece in pieces]

    def _media(self, part: Part) -> list[tuple[str, Any]]:
        """Images and videos of a part, each with its kind."""
        if isinstance(part, ImagePart):
            return [("image", part.image)]
        if not isinstance(part, VideoPart):
            return []
        if not self.model.supports("video"):
            return [("image", image) for image in part.frames.images]
        frames = [np.asarray(image) for image in part.frames.images]
        return [("video", {"array": np.stack(frames), "video_metadata": video_metadata(part.frames)})]

    def _input(self, content: Sequence[tuple[str, Any]], side: Side | None, instruction: str | None) -> _Input:
        """Media first, then words.

        Text alone is a dictionary too: a bare string that looks like an address would be loaded as a picture.
        """
        names = [name for name, _ in content]
        kind = tuple(dict.fromkeys(names))
        if not self.model.supports(kind[0] if len(kind) == 1 else tuple(sorted(kind))):
            raise IncompatibleModel(
                f"{self.info.name} does not read {' with '.join(kind)}",
                hint="choose a multimodal model, or give it items of text",
            )
        prompt = self._prompt(side, instruction) if instruction else None
        if len(content) > 1 and "video" not in kind and self.model.supports("message"):
            turn = {"role": "user", "content": [{"type": name, name: one} for name, one in content]}
            return _Input([turn], kind, side, prompt)
        grouped = {name: [one for key, one in content if key == name] for name in kind}
        return _Input({k: v[0] if len(v) == 1 else v for k, v in grouped.items()}, kind, side, prompt)

    def _own_prompt(self, side: Side | None) -> str:
        prompts = self.model.prompts
        names = PROMPT_NAMES[side] if side else ()
        return prompts.get(next((name for name in names if name in prompts), self.model.default_prompt_name)) or ""

    def _prompt(self, side: Side | None, instruction: str) -> str:
        """The model's own prompt of a side with the item's instruction."""
        own = self._own_prompt(side)
        if slot := TASK_SLOT.fullmatch(own):
            return f"{slot[1]}{instruction}{slot[2]}"
        # A model of chats reads its prompt as the system turn.
        return instruction if self.model.supports("message") else f"{own}{instruction}\n"

    def _encode(self, inputs: Sequence[_Input]) -> tuple[npt.NDArray[np.float32], int]:
        """Vectors of inputs of one kind, and their tokens.

        Lengths are read where they cost nothing and are exact: off the tensors that the model's own preprocessing has
        made, before they go through the model.
        """
        side, prompt = inputs[0].side, inputs[0].prompt
        methods = {"query": self.model.encode_query, "corpus": self.model.encode_document, None: self.model.encode}
        readers = _readers(self.model)
        lengths: list[int] = []
        hooks = [reader.register_forward_pre_hook(partial(self._count, lengths, side)) for reader in readers]
        try:
            vectors = methods[side](
                [one.content for one in inputs],
                prompt=prompt,
                batch_size=BATCH_SIZE,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
                **self._settings(readers, [one.content for one in inputs], side, prompt),
            )
        except ValueError as error:
            first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise ModelError(f"{self.info.name} refuses an input: {first_line}", hint="look at the item") from error
        finally:
            for hook in hooks:
                hook.remove()
        return vectors, sum(lengths)

    def _count(self, lengths: list[int], side: Side | None, reader: Any, args: tuple[Any, ...]) -> None:
        """Note the lengths of a batch on its way into the model.

        Raises:
            InputError: When one is longer than the model reads.
        """
        counted = token_lengths(args[0], getattr(reader, "config", None))
        if "input_ids" in args[0]:
            self._require_length(max(counted, default=0), reader, side)
        lengths.extend(counted)

    def _settings(self, readers: Sequence[Any], contents: Sequence[Any], side: Side | None, prompt: str | None) -> Any:
        """Settings that disable truncation in the package's own modules; custom modules get a length check instead."""
        from sentence_transformers.base.modules import Transformer

        if all(isinstance(reader, Transformer) for reader in readers):
            return {"processing_kwargs": SETTINGS}
        for reader in readers:
            tokenizer = getattr(reader, "tokenizer", None)
            if callable(tokenizer):
                own = self._own_prompt(side) if prompt is None else prompt
                texts = [own + one["text"] for one in contents if isinstance(one, dict) and "text" in one]
                longest = max((len(tokenizer(text, truncation=False)["input_ids"]) for text in texts), default=0)
                self._require_length(longest, reader, side)
        return {}

    def _require_length(self, length: int, reader: Any, side: Side | None) -> None:
        task = {"query": "query_length", "corpus": "document_length"}.get(side or "", "")
        limit = getattr(reader, task, None) or getattr(reader, "max_seq_length", None) or UNKNOWN_LIMIT
        if UNKNOWN_LIMIT <= limit < math.inf:
            limit = self.spec.max_tokens
        if length > limit:
            raise InputError(
                f"an input takes {length} tokens, {self.info.name} reads {limit}",
                hint="shorten or split the text, or use a model that reads more",
            )


def load_stock(kind: Literal["SentenceTransformer", "CrossEncoder"], source: Source) -> tuple[Any, ModelInfo]:
    """Load a model of sentence-transformers, whole or not at all, from safetensors only.

    Raises:
        MissingExtra: When sentence-transformers is not installed.
        ModelError: When the model cannot be found or loaded.
        IncompatibleModel: When its weights are pickled, missing or damaged.
    """
    name = source.name
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtra(
            f"{name} needs sentence-transformers",
            hint="pip install 'ume-retrieval[sentence-transformers]'",
        ) from error
    classes: Any = sentence_transformers
    target = choose_device(source.device)
    located = locate(name, source.revision, code=source.trust_remote_code)
    require_safetensors(located.folder)
    try:
        model = getattr(classes, kind)(
            str(located.folder),
            device=str(target),
            trust_remote_code=source.trust_remote_code,
            # Other weights than safetensors are pickles, which may run code.
            model_kwargs={"dtype": choose_dtype(source.dtype, target), "use_safetensors": True},
        )
        check_sentence_transformer(name, located.folder, model)
    except Exception as error:  # files of strangers make it raise almost any type
        raise cannot_load(name, error) from error
    known = known_revision(str(located.folder), located.commit)
    return model, ModelInfo(short_name(name), known, "sentence-transformers")


def fuse(pieces: npt.NDArray[np.float32], words: Sequence[bool], words_share: float) -> npt.NDArray[np.float32]:
    """One vector for an item whose words and pictures were embedded apart.

    The mean direction of its words and the mean direction of its pictures, weighted; where there is but one of both,
    that one.

    Args:
        pieces: Unit vectors, shape (n, dim), n > 0.
        words: Which of them are of words, one a row; the others are of pictures.
        words_share: Weight of the words, 0..1.

    Returns:
        Shape (dim,), length 1.

    Example:
        >>> picture, text = np.eye(2, dtype=np.float32)
        >>> fuse(np.array([picture, picture, text]), [False, False, True], 0.5).round(3).tolist()
        [0.7070000171661377, 0.7070000171661377]
    """
    of_words = np.asarray(words)
    means = [pieces[rows].mean(axis=0) for rows in (of_words, ~of_words) if rows.any()]
    if len(means) == 1:
        return _unit(means[0])
    return _unit(words_share * _unit(means[0]) + (1 - words_share) * _unit(means[1]))


def token_lengths(features: Mapping[str, Any], config: Any = None) -> list[int]:
    """Count the tokens of each row that a model is about to read: text and pictures, without masked padding.

    Args:
        features: Tensors of a batch as sentence-transformers' preprocessing makes them.
        config: The model's configuration; says how large the patches of a picture are.

    Example:
        >>> import torch
        >>> token_lengths({"input_ids": torch.zeros(2, 3), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])})
        [3, 1]
    """
    for name in ("attention_mask", "pixel_attention_mask"):
        if (mask := features.get(name)) is not None:
            return [int(length) for length in mask.sum(dim=-1)]
    ends = features.get("cu_seq_lens_q")  # rows end to end, as flash attention takes them
    if ends is not None:
        return [int(length) for length in ends.diff()]
    ids = features.get("input_ids")
    if ids is not None:
        return [int(ids.shape[-1])] * (len(ids) if ids.ndim > 1 else 1)
    pixels = features.get("pixel_values")
    patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
    if pixels is None or pixels.ndim != 4 or not isinstance(patch, int):
        return []
    return [(pixels.shape[2] // patch) * (pixels.shape[3] // patch)] * len(pixels)


def _readers(model: Any) -> list[Any]:
    """The modules that take a model's inputs: its first one, or the first one of each route."""
    first = model[0]
    routes = first.sub_modules.values() if hasattr(first, "sub_modules") else ()
    return list(dict.fromkeys(route[0] for route in routes)) or [first]


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return vector / np.linalg.norm(vector)
