"""Draws the results of `encode`, `pipeline`, `scale` and `corpus_budget` into `docs/images`: `make plots`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PICTURES = HERE.parent / "docs" / "images"

OURS, THEIRS, QUIET = "#1f4e8c", "#b9c4d4", "#777777"


def read(name: str) -> dict[str, Any]:
    """A result as its benchmark wrote it."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return result


def speed(picture: Path) -> None:
    """Items a second beside those of the peers at their best batch sizes."""
    from matplotlib import pyplot as plt

    encode, pipeline = read("encode")["cases"], read("pipeline")
    panels = [
        ("direct embedding, ume-tiny", encode["tiny"]["items_per_s"]),
        ("direct embedding, 66 M", encode["middle"]["items_per_s"]),
        ("reasoning too, ume-tiny", pipeline["items_per_s"]),
    ]
    names = {
        "ume": "ume-retrieval",
        "sentence_transformers": "sentence-transformers",
        "padded": "padded batches",
        "generate": "generate, then embed",
        "http": "HTTP to vLLM, then embed",
    }
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 2.6), dpi=150)
    for panel, (title, rates) in zip(axes, panels, strict=True):
        rows = list(reversed(rates.items()))
        bars = panel.barh(
            [names[name] for name, _ in rows],
            [rate for _, rate in rows],
            color=[OURS if name == "ume" else THEIRS for name, _ in rows],
            height=0.62,
        )
        panel.bar_label(bars, fmt="%.3g", padding=3, color=QUIET, fontsize=8)
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_xlim(0, 1.18 * max(rates.values()))
        panel.set_xlabel("items a second", color=QUIET, fontsize=8)
        panel.tick_params(labelsize=8)
        _bare(panel)
    _save(figure, picture)


def scale(picture: Path) -> None:
    """Cost of an item and latency of a search by the size of the collection."""
    from matplotlib import pyplot as plt

    rows = read("scale")["sizes"]
    sizes = [row["items"] for row in rows]
    figure, (cost, latency) = plt.subplots(1, 2, figsize=(9, 3), dpi=150)
    cost.plot(sizes, [row["ms_per_item"] for row in rows], "o-", color=OURS)
    cost.plot(sizes, [row["embed_ms_per_item"] for row in rows], "o--", color=QUIET, ms=4)
    cost.set_title("milliseconds to index a text (dashed: embedding)", fontsize=9, loc="left")
    latency.plot(sizes, [row["search_ms"] for row in rows], "o-", color=OURS, label="search_vectors")
    latency.plot(
        sizes, [row["raw_search_ms"] for row in rows], "o--", color=QUIET, ms=4, label="the engine's own query"
    )
    latency.set_title("milliseconds of a search", fontsize=9, loc="left")
    latency.legend(frameon=False, fontsize=8, loc="lower right")
    for panel in (cost, latency):
        panel.set_xscale("log")
        panel.set_ylim(0, 1.15 * panel.get_ylim()[1])
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel("items", color=QUIET, fontsize=8)
        panel.tick_params(labelsize=8)
        _bare(panel)
    _save(figure, picture)


def budget(picture: Path) -> None:
    """hit@1 by the share of a corpus that is reasoned over, for two orders."""
    from matplotlib import pyplot as plt

    result = read("corpus_budget")
    figure, axes = plt.subplots(figsize=(6.4, 3.6), dpi=150)
    looks = {"crowded": (OURS, "o-", "what looks most like others first"), "chance": (QUIET, "o--", "by chance")}
    for name, (colour, style, label) in looks.items():
        axes.plot(result["shares"], result["hit@1"][name], style, color=colour, ms=4, label=label)
    axes.set_xlabel("share of the corpus that is reasoned over", color=QUIET)
    axes.set_ylabel("hit@1", color=QUIET)
    axes.set_title(f"Shapes, level {result['level']}, {result['queries']:,} held-out queries", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9)
    _bare(axes)
    _save(figure, picture)


def _bare(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Any, picture: Path) -> None:
    from matplotlib import pyplot as plt

    figure.tight_layout()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    plt.close(figure)


if __name__ == "__main__":
    import matplotlib as mpl

    mpl.use("Agg")
    for draw in (speed, scale, budget):
        draw(PICTURES / f"{draw.__name__}.png")
