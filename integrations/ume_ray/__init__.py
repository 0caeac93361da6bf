"""Index on a Ray cluster: the stages of `ume_qdrant.index` as Ray Data operators, with Ray's fault tolerance.

`index` takes `Models` and a `StoreAddress`, since a loaded model or an open store cannot be sent to another machine.
"""

from __future__ import annotations

import warnings
from typing import Any

from ume_qdrant.stores.layout import Sharding
from ume_ray.cluster import WorkersLost
from ume_ray.ingest import index
from ume_ray.models import Models
from ume_ray.stores import StoreAddress
from ume_ray.workers import WorkerPools

__all__ = ["Models", "Sharding", "StoreAddress", "WorkerPools", "WorkersLost", "index"]


def __getattr__(name: str) -> Any:
    if name != "Workers":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn("ume_ray.Workers is now ume_ray.WorkerPools", DeprecationWarning, stacklevel=2)
    return WorkerPools
