"""Implement mteb's `EncoderProtocol` with a `ReasoningEmbedder`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ume_mteb.inputs import items_of
from ume_retrieval.errors import MissingExtra, ModelError
from ume_retrieval.pipeline.embedder import ReasoningEmbedder
from ume_retrieval.pipeline.encode_options import ReasoningMode
from ume_retrieval.results import EncodeResult, Usage

try:
    from mteb.models import ModelMeta
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.types import PromptType
except ImportError as error:
    raise MissingExtra("ume_mteb needs mteb", hint="pip install 'ume-retrieval[mteb]'") from error

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from torch.utils.data import DataLoader

LOG = logging.getLogger(__name__)

UNKNOWN_FIELDS: Final = (
    *("release_date", "languages", "n_parameters", "memory_usage_mb", "max_tokens", "license", "open_weights"),
    *("public_training_code", "public_training_data", "training_datasets"),
)


class UmeEncoder(AbsEncoder):
    """A Reasoner and an Embedder as a model of mteb.

    Encodes queries by `encode_query` with the task's instruction, and everything else by `encode_corpus`. A failed
    input gets the zero vector, which counts as a miss; `failed` counts them, and the log names them.

    Args:
        model_name: Name for `ReasoningEmbedder.from_pretrained`, or a loaded embedder.
        revision: Expected revision of the Embedder; None for any.
        device: As in `from_pretrained`.
        reasoning: "always", or "never" for direct embeddings; mteb keeps their results apart.
        **kwargs: As in `from_pretrained`.

    Attributes:
        failed: Number of inputs with the zero vector so far.
        usage: Usage of the models so far.

    Raises:
        MissingExtra: When mteb is not installed.
        ModelError: When the model cannot be loaded or has another revision.
    """

    def __init__(
        self,
        model_name: str | ReasoningEmbedder,
        revision: str | None = None,
        *,
        device: str | None = None,
        reasoning: ReasoningMode = "never",
        **kwargs: Any,
    ) -> None:
        if isinstance(model_name, str):
            if reasoning == "never":
                kwargs.setdefault("reasoner", None)
            model_name = ReasoningEmbedder.from_pretrained(model_name, device=device or "auto", **kwargs)
        loaded = model_name.info.embedder.revision
        if revision not in {None, loaded}:
            raise ModelError(
                f"the Embedder has revision {loaded}, not {revision}",
                hint="leave out the revision, or load a folder that holds it",
            )
        self.embedder = model_name
        self.reasoning: ReasoningMode = reasoning
        self.failed = 0
        self.usage = Usage()
        self.mteb_model_meta = _meta(model_name, reasoning)

    def encode(
        self,
        inputs: DataLoader[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,  # noqa: ARG002  # mteb's protocol
        hf_subset: str,  # noqa: ARG002
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> npt.NDArray[np.float32]:
        """Encode the rows of a data loader, in order; shape (rows, dimension)."""
        is_query = prompt_type == PromptType.query
        instruction = self.get_instruction(task_metadata, prompt_type) if is_query else None
        items = list(items_of(inputs, instruction or None))
        encode = self.embedder.encode_query if is_query else self.embedder.encode_corpus
        result: EncodeResult = encode(items, reasoning=self.reasoning, strict=False, return_traces=True)
        self.usage += result.usage
        self.failed += len(result.failures)
        for failure in result.failures:
            LOG.warning("%s, row %d: %s", task_metadata.name, failure.index, failure.message)
        vectors: npt.NDArray[np.float32] = np.nan_to_num(result.vectors, nan=0.0)
        return vectors


def _meta(embedder: ReasoningEmbedder, reasoning: ReasoningMode) -> ModelMeta:
    """Return the metadata that mteb records with scores; unknown fields are None."""
    info = embedder.info
    models = [info.embedder.name, *([info.reasoner.name] if info.reasoner and reasoning != "never" else [])]
    name = "+".join(models)
    unknown: dict[str, Any] = dict.fromkeys(UNKNOWN_FIELDS)
    return ModelMeta(
        loader=UmeEncoder,
        name=name if len(models) == 1 and name.count("/") == 1 else f"ume/{name.replace('/', '-')}",
        revision=info.embedder.revision,
        embed_dim=embedder.dimension,
        framework=["PyTorch"],
        similarity_fn_name="cosine",
        use_instructions=True,
        modalities=["text", "image", "video"],
        experiment_kwargs={"reasoning": reasoning},
        **unknown,
    )
