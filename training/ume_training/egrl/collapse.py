"""Collapse has signs: the form goes, the KL divergence runs away, the entropy dies. Then training stops and says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ume_training.egrl.settings import WatchSettings
from ume_training.run_folder import rewind_log

NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "rewards/format/mean": "format",
    "rewards/process/mean": "process",
    "rewards/outcome/mean": "outcome",
    "egrl/accuracy": "accuracy",
    "egrl/margin": "margin",
    "egrl/unusable": "unusable",
    "egrl/words": "words",
    "egrl/evidence/keywords": "keywords",
    "egrl/evidence/boxes": "boxes",
    "egrl/evidence/key_frames": "key_frames",
    "completions/mean_length": "tokens",
    "completions/clipped_ratio": "cut_off",
    "frac_reward_zero_std": "groups_all_alike",
    "kl": "kl",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "step_time": "seconds",
    "egrl/generate_seconds": "generate_seconds",
    "egrl/score_seconds": "score_seconds",
}
"""TRL's names, and ours in the log."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """Why a run was stopped.

    Attributes:
        step: When.
        reason: The sign, in words.
    """

    step: int
    reason: str


@dataclass(slots=True)
class CollapseMonitor:
    """Looks at each step's figures.

    Attributes:
        settings: The bounds.
        bad_steps: Steps in a row outside a bound.
        good_step: Last step inside all bounds, 0 before any.

    Example:
        >>> watch = CollapseMonitor(WatchSettings(patience=2))
        >>> watch.look(1, {"format": 0.1}), watch.look(2, {"format": 0.1})
        (None, Collapse(step=2, reason='only 10% of replies follow the form (at least 30% must)'))
    """

    settings: WatchSettings
    bad_steps: int = 0
    good_step: int = 0

    def look(self, step: int, figures: Mapping[str, float]) -> Collapse | None:
        """Take a step's figures; returns the collapse when patience is over."""
        reason = self._reason(figures)
        if reason is None:
            self.bad_steps, self.good_step = 0, step
            return None
        self.bad_steps += 1
        return Collapse(step, reason) if self.bad_steps >= self.settings.patience else None

    def _reason(self, figures: Mapping[str, float]) -> str | None:
        bounds = self.settings
        form, kl, entropy = (figures.get(name) for name in ("format", "kl", "entropy"))
        if form is not None and form < bounds.min_format:
            return f"only {form:.0%} of replies follow the form (at least {bounds.min_format:.0%} must)"
        if kl is not None and not kl <= bounds.max_kl:
            return f"the KL divergence from the start is {kl:.2f} (at most {bounds.max_kl:.2f} may be)"
        if entropy is not None and entropy < bounds.min_entropy:
            return f"the entropy is {entropy:.4f} (at least {bounds.min_entropy:.4f} must be)"
        return None


def resume_monitor(settings: WatchSettings, folder: Path, step: int) -> CollapseMonitor:
    """Build a monitor from the log up to a checkpoint, and remove the lines after it."""
    watch = CollapseMonitor(settings)
    for figures in rewind_log(folder, step):
        watch.look(figures["step"], figures)
    return watch


def read_figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return a step's figures out of TRL's log, under our names."""
    return {
        ours: round(float(logs[theirs]), 6)
        for theirs, ours in NAMES.items()
        if isinstance(logs.get(theirs), int | float)
    }
