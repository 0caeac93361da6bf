"""Write model cards from given facts; a card contains measured figures only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from ume_retrieval.util.files import atomic_write

if TYPE_CHECKING:
    from ume_training.contrastive.run import RunFacts

Plain: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class StageFact:
    """One stage of training.

    Attributes:
        name: What it is called.
        steps: Optimizer steps that were taken.
        settings: What decided it, by name.
    """

    name: str
    steps: int
    settings: Mapping[str, Plain] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """Something that was measured.

    Attributes:
        dataset: On what.
        metric: "hit@1", "ndcg@5", …
        value: The measurement, or the mean of several.
        how: What was asked how: "reasoned", "direct", …; may be empty.
        queries: Queries it is over, or None where it is not known.
        std: Standard deviation over seeds, or None for a single measurement.
        seeds: Seeds it was measured with.
    """

    dataset: str
    metric: str
    value: float
    how: str = ""
    queries: int | None = None
    std: float | None = None
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Card:
    """Everything that a model card says.

    Attributes:
        name: Of the model.
        role: What it does.
        base: Hub id of the weights it started from, or None when it was trained from scratch or from a local folder.
        license: Licence of the weights by its short name, or None where it is not settled.
        summary: What it is, in a sentence or two.
        data: Pairs of each data set.
        stages: In order.
        seeds: Of data and weights.
        scores: What was measured; empty when nothing was.
        limits: What it cannot do, one sentence each.
    """

    name: str
    role: Literal["embedder", "reasoner"]
    base: str | None = None
    license: str | None = None
    summary: str = ""
    data: Mapping[str, int] = field(default_factory=dict)
    stages: tuple[StageFact, ...] = ()
    seeds: tuple[int, ...] = ()
    scores: tuple[Score, ...] = ()
    limits: tuple[str, ...] = ()


def render_card(card: Card) -> str:
    """Return a card as Markdown with the header that model hubs read.

    Example:
        >>> text = render_card(Card("tiny", "embedder", data={"shapes": 8}))
        >>> "Nothing has been measured" in text, "| shapes | 8 |" in text
        (True, True)
    """
    parts = [_header(card), f"# {_line(card.name)}"]
    if card.summary:
        parts.append(card.summary.strip())
    parts += [_use(card), _training(card), _measured(card)]
    if card.limits:
        parts.append("## Limits\n\n" + "\n".join(f"- {_line(limit)}" for limit in card.limits))
    return "\n\n".join(parts) + "\n"


def write_card(card: Card, folder: Path) -> Path:
    """Write `README.md` into a checkpoint folder and return its path."""
    return atomic_write(folder / "README.md", render_card(card), what="the model card")


def card_of_run(facts: RunFacts, name: str, scores: tuple[Score, ...] = ()) -> Card:
    """Return the card of a contrastive run: its data, settings, seed and steps, and the given scores."""
    settings = facts.settings.model_dump(exclude={"spec", "embedder", "seed", "workers", "log_every", "lora"})
    shown: dict[str, Plain] = {
        key: value if isinstance(value, (str, int, float)) else json.dumps(value)
        for key, value in settings.items()
        if value not in (None, ())
    }
    if facts.settings.lora is not None:
        shown |= {f"lora {key}": value for key, value in facts.settings.lora.model_dump().items()}
    on_hub = facts.base_commit is not None
    dims = ", ".join(str(dim) for dim in facts.spec.matryoshka_dims)
    return Card(
        name=name,
        role="embedder",
        base=facts.base if on_hub else None,
        summary=f"An Embedder of the {facts.spec.family} family, trained contrastively on inputs with chains of "
        "thought (arXiv 2602.13823)." + (f" Its vectors can be cut to {dims} components." if dims else ""),
        data=facts.data,
        stages=(StageFact("contrastive", facts.steps, shown),),
        seeds=(facts.settings.seed,),
        scores=scores,
    )


def _header(card: Card) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="retrieval",
            dataset_type=score.dataset,
            dataset_name=score.dataset,
            metric_type=score.metric,
            metric_value=score.value,
            metric_name=f"{score.metric} ({score.how})" if score.how else score.metric,
        )
        for score in card.scores
    ]
    data = ModelCardData(
        license=card.license,
        base_model=card.base,
        library_name="sentence-transformers" if card.role == "embedder" else "transformers",
        pipeline_tag="feature-extraction" if card.role == "embedder" else "image-text-to-text",
        tags=["ume-retrieval", "embed-rl", card.role],
        model_name=card.name,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _use(card: Card) -> str:
    if card.role == "reasoner":
        return (
            "## Use\n\nIt writes the chains of thought that an Embedder reads.\n\n```python\n"
            "from ume_retrieval import ReasoningEmbedder\n\n"
            'model = ReasoningEmbedder.from_pretrained("EMBEDDER", reasoner="THIS FOLDER")\n```'
        )
    return (
        "## Use\n\n```python\nfrom ume_retrieval import ReasoningEmbedder\n\n"
        'model = ReasoningEmbedder.from_pretrained("THIS FOLDER", reasoner="REASONER")\n'
        'vector = model.encode_query("a red circle")\n```\n\n'
        "sentence-transformers loads the same folder and gives the direct vectors, without reasoning, of text and of "
        "messages with pictures. It does not break up control tokens in text: hand it no text that you do not trust."
    )


def _training(card: Card) -> str:
    lines = ["## Training"]
    if card.base:
        lines.append(f"Started from `{_line(card.base)}`.")
    if card.seeds:
        lines.append(f"Seeds: {', '.join(str(seed) for seed in card.seeds)}.")
    if card.data:
        rows = "\n".join(f"| {_cell(name)} | {pairs} |" for name, pairs in card.data.items())
        lines.append(f"| Data set | Pairs |\n|---|---|\n{rows}")
    for stage in card.stages:
        lines.append(f"### {_line(stage.name)}: {stage.steps} steps")
        if stage.settings:
            rows = "\n".join(f"| {_cell(key)} | {_cell(str(value))} |" for key, value in stage.settings.items())
            lines.append(f"| Setting | Value |\n|---|---|\n{rows}")
    return "\n\n".join(lines)


def _measured(card: Card) -> str:
    if not card.scores:
        return "## Measured\n\nNothing has been measured with these weights."
    rows = []
    for score in card.scores:
        spread = "" if score.std is None else f" ± {score.std:.3f}"
        cells = (
            _cell(score.dataset),
            _cell(score.how),
            _cell(score.metric),
            f"{score.value:.3f}{spread}",
            "" if score.queries is None else str(score.queries),
            ", ".join(str(seed) for seed in score.seeds),
        )
        rows.append(f"| {' | '.join(cells)} |")
    head = "| Data set | How | Metric | Value | Queries | Seeds |\n|---|---|---|---|---|---|"
    return "## Measured\n\n" + "\n".join([head, *rows])


def _line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")
