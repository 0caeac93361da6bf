"""One process or many: who does the work that only one may do, and how the others wait for it."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any, Self

from ume_retrieval.errors import MissingExtra

PATIENCE = timedelta(days=30)
"""How long processes wait while the main one makes a stage alone."""


def is_main_process() -> bool:
    """Whether this is the only process of a launch, or its first."""
    return os.environ.get("RANK", "0") == "0"


class Workers:
    """The processes of a launch.

    Attributes:
        main: Whether this is the first one, which alone writes stamps and runs the stages of a single process.
        count: How many there are.
    """

    def __init__(self, *, main: bool, count: int, waiting: Any) -> None:
        self.main, self.count, self._waiting = main, count, waiting

    @classmethod
    def joined(cls) -> Self:
        """Join the processes that `accelerate launch` or `torchrun` started; alone without them.

        The main process may work alone for hours while the others wait, longer than collectives on GPUs allow, so they
        wait in a group of their own, on the CPU.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls(main=True, count=1, waiting=None)
        try:
            from accelerate import PartialState
        except ImportError as error:
            raise MissingExtra(
                "several processes need accelerate", hint="pip install 'ume-retrieval[train]'"
            ) from error
        import torch.distributed

        state = PartialState()
        waiting = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        return cls(main=state.is_main_process, count=state.num_processes, waiting=waiting)

    def share(self, value: Any) -> Any:
        """What the main process says, in every process; all wait until it is said.

        Example:
            >>> Workers(main=True, count=1, waiting=None).share("go")
            'go'
        """
        if self.count == 1:
            return value
        import torch.distributed

        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, group=self._waiting)
        return box[0]

    def leave(self) -> None:
        """Part from the other processes, at the end."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.destroy_process_group()

    def meet(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier(group=self._waiting)
