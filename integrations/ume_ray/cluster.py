"""The cluster that a run goes on: one that is there, or one on this machine for as long as the run lasts."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ume_ray.failures import missing_ray, own_error

LOCAL: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}
"""A local Ray tells nobody that it runs, leaves the variables that name GPUs alone, and keeps workers that wait: it
would end them after a second, and starting one takes longer than most tasks."""


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use the Ray that this process has, or connect to one, or start one here; what was begun here is ended here.

    Args:
        address: "auto", host:port or ray://…; None takes `RAY_ADDRESS`, or starts one on this machine.

    Raises:
        MissingExtra: When Ray is not installed.
        WorkersLost: When there is no cluster at the address.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise missing_ray() from error
    if ray.is_initialized():
        yield
        return
    for name, value in LOCAL.items():
        os.environ.setdefault(name, value)
    try:
        local: dict[str, Any] = {"include_dashboard": False} if not (address or os.environ.get("RAY_ADDRESS")) else {}
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise own_error(error) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def quiet_data() -> Iterator[None]:
    """Ray Data without bars and lines of its own; the caller's settings come back afterwards."""
    from ray.data import DataContext

    context = DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])
