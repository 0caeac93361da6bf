"""Models in forked children: on the CPU they go on with one thread; elsewhere they raise instead of hanging."""

from __future__ import annotations

import os
from functools import cache

from ume_retrieval.errors import ModelError


class HomeProcess:
    """The process that a model was loaded in, for models that no forked child can use: on a GPU, or in vLLM.

    Args:
        name: Name of the model.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._pid = os.getpid()

    def require(self) -> None:
        """Check that the model can be used here.

        Raises:
            ModelError: In a process that was forked from that of the model.
        """
        if os.getpid() != self._pid:
            raise ModelError(
                f"{self._name} was loaded in another process, from which this one was forked",
                hint="load it after the fork, or start processes with multiprocessing's 'spawn'",
            )


def home_of(name: str, device: str) -> HomeProcess | None:
    """Return what a model of torch has to check before it is used, or None on the CPU, where children can use it.

    Args:
        name: Name of the model.
        device: Type of its device, such as "cuda".
    """
    if device != "cpu":
        return HomeProcess(name)
    _calm_children()
    return None


@cache
def _calm_children() -> None:
    """Let torch compute with one thread in forked children, which would wait for the parent's pool of threads."""
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
