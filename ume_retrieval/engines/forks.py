"""Models in forked children: on the CPU they go on with one thread; elsewhere they raise instead of hanging."""

from __future__ import annotations

import os
from functools import cache

from ume_retrieval.errors import ModelError


class HomeProcess:
    """The process that a model was loaded in.

    Args:
        name: Name of the model.
        in_torch: Whether torch computes it on the CPU of this process. Then a forked child can use it, with one thread;
            a GPU, or an engine with processes of its own, does not survive a fork.
    """

    def __init__(self, name: str, *, in_torch: bool) -> None:
        self._name = name
        self._pid = os.getpid()
        self._in_torch = in_torch
        if in_torch:
            _calm_children()

    def require(self) -> None:
        """Check that the model can be used here.

        Raises:
            ModelError: In a process that was forked from that of the model.
        """
        if not self._in_torch and os.getpid() != self._pid:
            raise ModelError(
                f"{self._name} was loaded in another process, from which this one was forked",
                hint="load it after the fork, or start processes with multiprocessing's 'spawn'",
            )


@cache
def _calm_children() -> None:
    """Let torch compute with one thread in forked children, which would wait for the parent's pool of threads."""
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
