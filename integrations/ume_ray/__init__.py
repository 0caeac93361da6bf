"""Indexing on a Ray cluster: the stages of `ume_qdrant.index` as Ray Data operators, with Ray's fault tolerance.

`index` is `ume_qdrant.index` with two differences in what it takes: `Models` say how workers load the pair, and a
`StoreAddress` says where the collection is, because neither can travel to another machine.
"""

from __future__ import annotations

from ume_qdrant.stores.layout import Sharding
from ume_ray.failures import WorkersLost
from ume_ray.ingest import index
from ume_ray.models import Models
from ume_ray.stores import StoreAddress
from ume_ray.workers import Workers

__all__ = ["Models", "Sharding", "StoreAddress", "Workers", "WorkersLost", "index"]
