"""Former places of documented modules, importable for one more release with a `DeprecationWarning`."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

MOVED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ume_retrieval.cache": "ume_retrieval.pipeline.trace_cache",
        "ume_retrieval.embedder": "ume_retrieval.engines",
        "ume_retrieval.embedder.base": "ume_retrieval.engines.base",
        "ume_retrieval.embedder.families": "ume_retrieval.engines.families",
        "ume_retrieval.embedder.sentence_transformers": "ume_retrieval.engines.sentence_transformers",
        "ume_retrieval.embedder.server": "ume_retrieval.engines.server.embedder",
        "ume_retrieval.embedder.transformers": "ume_retrieval.engines.transformers.embedder",
        "ume_retrieval.embedder.vllm": "ume_retrieval.engines.vllm.embedder",
        "ume_retrieval.flow": "ume_retrieval.pipeline.run",
        "ume_retrieval.reasoner": "ume_retrieval.engines",
        "ume_retrieval.reasoner.base": "ume_retrieval.engines.base",
        "ume_retrieval.reasoner.server": "ume_retrieval.engines.server.reasoner",
        "ume_retrieval.reasoner.transformers": "ume_retrieval.engines.transformers.reasoner",
        "ume_retrieval.reasoner.vllm": "ume_retrieval.engines.vllm.reasoner",
        "ume_retrieval.registry": "ume_retrieval.engines.registry",
        "ume_retrieval.retry": "ume_retrieval.util.retry",
        "ume_retrieval.server": "ume_retrieval.engines.server",
        "ume_retrieval.server.options": "ume_retrieval.engines.server.options",
    }
)
"""Former name: today's name."""


class FormerModules:
    """Finds and loads a module by its former name; the alias passes every attribute on from today's module.

    It does not inherit from `importlib.abc`, whose import loads 25 modules.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  # the protocol's
        target: ModuleType | None = None,  # noqa: ARG002  # the protocol's
    ) -> ModuleSpec | None:
        """Return a spec for a former name, and None for every other one."""
        if fullname not in MOVED:
            return None
        return ModuleSpec(
            fullname, cast("Loader", self), is_package=any(name.startswith(fullname + ".") for name in MOVED)
        )

    def create_module(self, spec: ModuleSpec) -> None:  # the protocol's
        """Leave the creation of the alias to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill the alias, and warn."""
        name = MOVED[module.__name__]
        warnings.warn(f"{module.__name__} is now {name}", DeprecationWarning, stacklevel=2)
        moved = import_module(name)
        module.__dict__.update({"__doc__": moved.__doc__, "__getattr__": lambda attribute: getattr(moved, attribute)})


def install() -> None:
    """Let former names be imported; a second call changes nothing."""
    if not any(isinstance(finder, FormerModules) for finder in sys.meta_path):
        sys.meta_path.append(FormerModules())
