"""Whether the weights of models fit the memory of a device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Room:
    """Memory of one device.

    Attributes:
        device: The torch name, such as "cuda:0" or "cpu".
        what: What it is called in a message.
        capacity: Bytes that weights may take: free bytes of a GPU, all bytes of a machine. None where the system does
            not say.
    """

    device: str
    what: str
    capacity: int | None

    def holds(self, size: int) -> bool:
        """Whether weights of `size` bytes fit; True where the capacity is unknown.

        Example:
            >>> Room("cuda", "this GPU", 24 * 10**9).holds(6 * 10**9), Room("cpu", "this machine", None).holds(10**15)
            (True, True)
        """
        return self.capacity is None or size <= self.capacity


def room_of(device: torch.device) -> Room:
    """Measure the memory of a device.

    Of a machine all memory counts and not what is free: caches of files give way, and programs may end.

    Args:
        device: A GPU, or the processor. On Apple's chips both share one memory.
    """
    if device.type != "cuda":
        return Room(device.type, "this machine", machine_bytes())
    import torch

    free, _ = torch.cuda.mem_get_info(device)
    return Room(str(device), f"{torch.cuda.get_device_name(device)} ({device})", free)


def machine_bytes() -> int | None:
    """Memory of this machine in bytes, or None where the system does not say."""
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= names.keys():
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gigabytes(size: int) -> str:
    """Write a number of bytes as gigabytes of 10^9 bytes.

    Example:
        >>> gigabytes(4_255_064_064), gigabytes(10_198_016)
        ('4.3 GB', '0.01 GB')
    """
    return f"{size / 1e9:.2f} GB" if size < 10**8 else f"{size / 1e9:.1f} GB"
