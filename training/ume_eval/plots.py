"""Plots of a run: a radar of the groups, and what reasoning gains against what it takes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ume_eval.published import Published, means_beside
from ume_eval.results import RunResult, TaskResult, group_means
from ume_eval.tasks import MMEB_GROUPS, UVRB_GROUPS
from ume_retrieval.errors import MissingExtra
from ume_retrieval.util.files import atomic_write

INK, QUIET = "#222222", "#777777"
OURS: Final = {"direct": "#8aa7c7", "reasoned": "#1f4e8c", "fused": "#b5452c"}
OTHERS: Final = ("#6b9e5b", "#c79a3a", "#8d6ab0", "#4aa3a3")
LEAST_AXES: Final = 3
MOST_NAMED: Final = 10
"""Points of the gain plot that are named, those with the largest gain or loss."""

NAME_WIDTH, NAME_HEIGHT = 0.2, 0.045
"""What a name takes of the plot, as shares."""


def draw_plots(result: RunResult, folder: Path, others: Sequence[Published] = ()) -> tuple[Path, ...]:
    """Draw `radar.png`, when three groups or more ran, and `gain.png`, when direct and reasoned ran.

    Raises:
        MissingExtra: Without matplotlib.
        InputError: When one cannot be written.
    """
    plot = _pyplot()
    drawn = []
    lines = radar_lines(result, others)
    if lines and len(next(iter(lines.values()))) >= LEAST_AXES:
        drawn.append(_radar(plot, result, lines, folder / "radar.png"))
    if any(task.gain is not None and task.query_cost for task in result.tasks):
        drawn.append(_gain(plot, result, folder / "gain.png"))
    return tuple(drawn)


def radar_lines(result: RunResult, others: Sequence[Published] = ()) -> dict[str, dict[str, float]]:
    """Means by group for each line of the radar; groups that did not run have no axis.

    Another model is drawn where each of its means may stand beside the run's.
    """
    names = [name for groups in MMEB_GROUPS.values() for name in groups]
    order = names if result.benchmark == "mmeb-v2" else list(UVRB_GROUPS)
    lines: dict[str, dict[str, float]] = {}
    for mode in result.modes:
        means = group_means(result.benchmark, result.scores(mode))
        lines[mode] = {name: means[name].value for name in order if name in means}
    axes = next(iter(lines.values()), {})
    for other in others:
        theirs = means_beside(result, other)
        if theirs.keys() >= axes.keys():
            lines[other.model] = {name: theirs[name] for name in axes}
    return lines


def _radar(plot: Any, result: RunResult, lines: Mapping[str, Mapping[str, float]], path: Path) -> Path:
    import numpy as np

    axes_names = list(next(iter(lines.values())))
    angles = np.linspace(0, 2 * np.pi, len(axes_names), endpoint=False).tolist()
    figure, axes = plot.subplots(figsize=(7.4, 6.6), dpi=150, subplot_kw={"projection": "polar"})
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    spare = iter(OTHERS * (1 + len(lines)))
    for name, values in lines.items():
        colour = OURS.get(name) or next(spare)
        heights = [values[axis] for axis in axes_names]
        style = "-" if name in OURS else "--"
        axes.plot([*angles, angles[0]], [*heights, heights[0]], style, color=colour, lw=1.8, label=name)
        if name == "fused" or len(lines) == 1:
            axes.fill([*angles, angles[0]], [*heights, heights[0]], color=colour, alpha=0.08)
    labels = [name.replace(" ", "\n", 1) for name in axes_names]
    axes.set_xticks(angles, labels, fontsize=9, color=INK)
    axes.tick_params(axis="x", pad=12)
    axes.set_ylim(0, 100)
    axes.set_yticks([20, 40, 60, 80, 100], ["20", "40", "60", "80", "100"], fontsize=7, color=QUIET)
    axes.set_rlabel_position(180 / len(axes_names))
    axes.grid(color="#dddddd")
    axes.spines["polar"].set_color("#cccccc")
    axes.set_title(f"{result.benchmark}, percent by group", fontsize=11, color=INK, pad=24)
    axes.legend(loc="upper left", bbox_to_anchor=(1.06, 1.1), frameon=False, fontsize=9)
    return _save(plot, figure, path)


def _gain(plot: Any, result: RunResult, path: Path) -> Path:
    figure, axes = plot.subplots(figsize=(7.4, 4.6), dpi=150)
    groups = list(dict.fromkeys(task.groups[0].partition(" ")[0] for task in result.tasks))
    colours = dict(zip(groups, ("#1f4e8c", "#b5452c", "#6b9e5b", "#8d6ab0") * len(groups), strict=False))
    shown = [task for task in result.tasks if task.gain is not None and task.query_cost]
    for group in groups:
        tasks = [task for task in shown if task.groups[0].partition(" ")[0] == group]
        if not tasks:
            continue
        axes.errorbar(
            [task.query_cost.tokens for task in tasks if task.query_cost],
            [task.gain or 0.0 for task in tasks],
            yerr=[task.gain_error or 0.0 for task in tasks],
            fmt="o",
            ms=5,
            lw=0.8,
            color=colours[group],
            label=group,
        )
    axes.margins(x=0.14, y=0.12)
    _name_points(axes, shown)
    axes.axhline(0, color=QUIET, lw=0.8)
    axes.set_xlabel("tokens that the Reasoner wrote a query", color=QUIET)
    axes.set_ylabel("reasoned - direct, percent", color=QUIET)
    axes.set_title(f"{result.benchmark}: what reasoning gains, with standard errors", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return _save(plot, figure, path)


def _name_points(axes: Any, tasks: Sequence[TaskResult]) -> None:
    """Name the points with the largest gain or loss, as far as the names do not cover one another."""
    left, right = axes.get_xlim()
    low, high = axes.get_ylim()
    taken: list[tuple[float, float]] = []
    for task in sorted(tasks, key=lambda task: abs(task.gain or 0.0), reverse=True):
        if not task.gain or not task.query_cost or len(taken) == MOST_NAMED:
            continue
        x, y = (task.query_cost.tokens - left) / (right - left), (task.gain - low) / (high - low)
        if any(abs(x - there[0]) < NAME_WIDTH and abs(y - there[1]) < NAME_HEIGHT for there in taken):
            continue
        taken.append((x, y))
        spot = (task.query_cost.tokens, task.gain)
        axes.annotate(task.name, spot, xytext=(6, 4), textcoords="offset points", fontsize=7, color=QUIET)


def _save(plot: Any, figure: Any, path: Path) -> Path:
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", bbox_inches="tight")
    plot.close(figure)
    return atomic_write(path, encoded.getvalue(), what="a plot")


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtra("plots need matplotlib", hint="pip install 'ume-retrieval[eval]'") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt
