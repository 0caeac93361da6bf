"""Draws `results/egrl-shapes.json` as `docs/images/egrl-shapes.png`: `make plots`.

A dot is a seed, a bar the mean; the paper's figures stand beside their rows, on their own data and scale.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "egrl-shapes.json"
PICTURE = HERE.parent / "docs" / "images" / "egrl-shapes.png"

GROUPS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    ("EG-RL from two kinds of true T-CoTs", (("before", "before"), ("after", "after"))),
    ("from a lazy Reasoner", (("lazy_before", "before"), ("lazy_after", "after"))),
    ("from one taught the right kind", (("specialist_before", "before"), ("specialist_after", "after"))),
    (
        "ablations of the reward",
        (
            ("no_process_reward", "no process reward"),
            ("no_outcome_reward", "no outcome reward"),
            ("no_weighted_negatives", "no weighted negatives"),
        ),
    ),
    (
        "ablations of what the Embedder sees",
        (
            ("answer_only", "answer only"),
            ("no_crops_and_frames", "no crops, no frames"),
            ("raw_input", "raw input"),
            ("swapped", "T-CoTs swapped"),
        ),
    ),
)
"""Rows by group, with what people read."""

BAR, DOT, TEXT, QUIET = "#c9d6e8", "#1f4e8c", "#222222", "#777777"


def draw(result: dict[str, Any], picture: Path) -> None:
    """Draw every row that the result has."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6.2), dpi=150)
    place, ticks, names = 0.0, [], []
    for title, rows in GROUPS:
        axes.text(-0.005, place - 0.62, title, ha="right", va="center", fontsize=9, color=TEXT, weight="bold")
        for name, shown in rows:
            row = result["rows"].get(name)
            if row is None:
                continue
            axes.barh(place, row["hit@1"], height=0.62, color=BAR)
            axes.plot(row["by_seed"], [place] * len(row["by_seed"]), "o", color=DOT, markersize=4)
            spread = f" ± {statistics.stdev(row['by_seed']):.3f}" if row["seeds"] > 1 else ""
            right = max(row["hit@1"], *row["by_seed"])
            # The row's own mean is rounded already; rounded again, it could be off by one.
            shown_mean = statistics.mean(row["by_seed"])
            axes.text(right + 0.012, place, f"{shown_mean:.3f}{spread}", va="center", fontsize=9, color=TEXT)
            ticks.append(place)
            names.append(shown)
            place += 0.85
        place += 0.75
    queries = result["rows"]["before"]["queries"]
    seeds = result["rows"]["before"]["seeds"]
    axes.set_yticks(ticks, names, fontsize=9)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"hit@1 on held-out Shapes, level {result['level']}; {seeds} seeds, {queries} queries in all", color=QUIET
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text(encoding="utf-8")), PICTURE)
