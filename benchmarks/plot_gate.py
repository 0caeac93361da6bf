"""Draws `results/gate.json` as `docs/images/gate.png`: `make plots`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gate.json"
PICTURE = HERE.parent / "docs" / "images" / "gate.png"

LINE, MARK, QUIET = "#1f4e8c", "#b5452c", "#777777"


def draw(result: dict[str, Any], picture: Path) -> None:
    """hit@1 over the share of the Reasoner's tokens, the gate's own point marked."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=150)
    points = result["curve"]
    axes.plot([point["tokens"] for point in points], [point["hit@1"] for point in points], "o-", color=LINE, ms=4)
    gate = result["gate"]
    axes.plot(gate["tokens"], gate["hit@1"], "D", color=MARK, ms=8)
    said = f"the gate: {1 - gate['tokens']:.0%} of the tokens saved,\nhit@1 {gate['hit@1']:.3f}"
    axes.annotate(said, (gate["tokens"], gate["hit@1"]), xytext=(0.42, 0.895), color=MARK, fontsize=9)
    axes.axhline(result["always"]["hit@1"], color=QUIET, lw=0.8, ls="--")
    axes.text(
        1.0, result["always"]["hit@1"] + 0.003, f"always: {result['always']['hit@1']:.3f}", ha="right", color=QUIET
    )
    axes.set_ylim(0.8, 0.98)
    axes.set_xlabel("share of the Reasoner's tokens on queries", color=QUIET)
    axes.set_ylabel("hit@1", color=QUIET)
    axes.set_title(f"Shapes, level {result['level']}, {result['queries']} held-out queries", fontsize=10, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text(encoding="utf-8")), PICTURE)
