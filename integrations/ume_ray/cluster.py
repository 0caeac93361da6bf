"""Connect to a Ray cluster or start one on this machine, and convert Ray's errors."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from ume_retrieval.errors import MissingExtra, UmeError
from ume_retrieval.media import display_name

LOCAL: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "600000",
}
"""A local Ray sends no usage statistics, keeps the variables that name GPUs, and keeps idle workers, which it would end
after a second, although starting one takes longer than most tasks."""

_RAISED: Final = re.compile(r"[\w.]+(?:Error|Exception|Lost): .")


class WorkersLost(UmeError):
    """Workers died repeatedly at the same work, or the cluster is unreachable."""

    code = "workers_lost"


def own_error(error: BaseException) -> UmeError:
    r"""Return the error that a worker raised, or a `WorkersLost` with Ray's message.

    Example:
        >>> own_error(RuntimeError("the node died\nmany lines of logs")).message
        'Ray: RuntimeError: the node died'
    """
    for cause in _causes(error):
        if isinstance(cause, UmeError) and type(cause).__module__ != "ray.exceptions":
            return cause
    lines = str(error).strip().splitlines() or [""]
    # The last line of a traceback counts; Ray's advice follows it.
    said = next((line for line in reversed(lines) if _RAISED.match(line)), lines[0])
    return WorkersLost(
        f"Ray: {type(error).__name__}: {display_name(said)[:300]}",
        hint="see the workers' logs; the same call resumes",
        retryable=True,
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, innermost first, since Ray's wrapper takes on the class of its cause."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = getattr(error, "cause", None) or error.__cause__
    yield from reversed(chain)


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Use this process's Ray connection, connect to a cluster, or start a local Ray; closes only what it opened.

    Args:
        address: "auto", host:port or ray://…; None takes `RAY_ADDRESS`, or starts Ray on this machine.

    Raises:
        MissingExtra: When Ray is not installed.
        WorkersLost: When the address does not lead to a cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("ray is not installed", hint="pip install 'ume-retrieval[ray]'") from error
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
    """Disable Ray Data's progress bars and logs; restores the settings afterwards."""
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
