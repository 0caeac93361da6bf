"""Rollouts with their rewards as files that people read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ume_retrieval.chat import TextPart
from ume_training.egrl.rollouts import Prompted
from ume_training.egrl.scoring import RolloutScores
from ume_training.egrl.settings import EgrlSettings

PAIRS_SHOWN = 3


def write_samples(
    folder: Path,
    step: int,
    *,
    prompted: Sequence[Prompted],
    texts: Sequence[str],
    scores: RolloutScores,
    settings: EgrlSettings,
) -> Path:
    """Write the first pairs of a batch, best rollouts first, as Markdown; returns the file."""
    totals = scores.total(settings)
    shown = list(dict.fromkeys(one.pair for one in prompted))[:PAIRS_SHOWN]
    lines = [f"# Step {step}", "", "Reward = format, process and outcome, weighted as in the settings.", ""]
    for pair in shown:
        for side in ("query", "corpus"):
            rows = [i for i, one in enumerate(prompted) if one.pair == pair and one.side == side]
            if not rows:
                continue
            lines += [
                f"## Pair {pair} of {prompted[rows[0]].dataset}, {side}",
                "",
                *_quoted(_asked(prompted[rows[0]])),
                "",
            ]
            lines += ["| reward | format | process | outcome | reply |", "|---|---|---|---|---|"]
            for i in sorted(rows, key=lambda i: -totals[i]):
                figures = (totals[i], scores.format[i], scores.process[i], scores.outcome[i])
                lines.append(f"| {' | '.join(f'{f:.3f}' for f in figures)} | {_cell(texts[i])} |")
            lines.append("")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:06d}.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _asked(one: Prompted) -> str:
    words = " ".join(part.text for message in one.chat for part in message.parts if isinstance(part, TextPart))
    pictures = [f"{one.images} image(s)"] * bool(one.images) + [f"{one.frames} frames"] * bool(one.frames)
    return f"{words} [{', '.join(pictures)}]" if pictures else words


def _quoted(text: str) -> list[str]:
    return [f"> {line}" for line in text.splitlines()]


def _cell(text: str) -> str:
    return "`" + " ".join(text.split()).replace("|", "\\|").replace("`", "'") + "`"
