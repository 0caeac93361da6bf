"""Options that commands share in groups: dataclasses whose fields Typer sees as single options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_type_hints

import typer

from ume_cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DecoderName,
    DeviceOption,
    EngineOption,
    ModelOption,
    ProfileOption,
    PromptsOption,
    ReasonerOption,
    StoreOption,
    load_embedder,
    open_named_store,
)

if TYPE_CHECKING:
    from ume_qdrant import Filter, Layout, Sharding, Store
    from ume_retrieval.pipeline.embedder import ReasoningEmbedder

QuantizationName: TypeAlias = Literal["scalar", "binary", "product"]
PlaceName: TypeAlias = Literal["memory", "disk"]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a group by the group's options.

    Example:
        >>> def show(name: str, *, place: StoreOptions) -> None:
        ...     print(name, place.collection)
        >>> list(inspect.signature(grouped(show)).parameters)
        ['name', 'store', 'collection']
        >>> grouped(show)(name="a", store="here", collection="films")
        a films
    """
    groups: dict[str, type[Any]] = {}
    shown: list[Parameter] = []
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        group = parameter.annotation
        if not is_dataclass(group):
            shown.append(parameter)
            continue
        assert isinstance(group, type)  # noqa: S101  # an annotation is a class, not an instance
        groups[name] = group
        hints = get_type_hints(group, include_extras=True)
        shown += [
            Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=hints[one.name])
            for one in fields(group)
        ]

    @wraps(command)
    def call(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{one.name: given.pop(one.name) for one in fields(group)})
        command(**given)

    call.__signature__ = Signature(shown)  # type: ignore[attr-defined]  # read by inspect.signature
    call.__annotations__ = {one.name: one.annotation for one in shown}
    return call


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The models of a command."""

    model: ModelOption = DEFAULT_MODEL
    reasoner: ReasonerOption = "auto"
    device: DeviceOption = "auto"
    engine: EngineOption = "auto"
    prompts: PromptsOption = None
    profile: ProfileOption = None

    def load(
        self, *, cache: Path | None = None, isolate: bool = False, decoder: DecoderName = "pyav"
    ) -> ReasoningEmbedder:
        """Load the models."""
        names = self.model, self.reasoner, self.device, self.engine
        return load_embedder(
            *names, prompts=self.prompts, profile=self.profile, cache=cache, isolate=isolate, decoder=decoder
        )

    def changed(self) -> dict[str, str]:
        """Return the options that differ from their defaults, without `--reasoner none`."""
        given = {f"--{one.name}": getattr(self, one.name) for one in fields(self)}
        defaults = {f"--{one.name}": one.default for one in fields(self)}
        return {name: str(value) for name, value in given.items() if value not in {defaults[name], "none"}}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The collection of a command."""

    store: StoreOption = DEFAULT_STORE
    collection: CollectionOption = DEFAULT_COLLECTION

    def open(self, sharding: Sharding | None = None) -> Store:
        """Open the collection."""
        return open_named_store(self.store, self.collection, sharding)


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Which points count: by your own metadata and the tenant."""

    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Only points with such metadata: 'owner=ann and year>=2020'; may be repeated, all must hold.",
            show_default=False,
        ),
    ] = None
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Tenant, in a collection with tenants.", show_default=False)
    ] = None

    def filter(self, **conditions: Any) -> Filter | None:
        """Return the filter with further conditions of `Filter`; None if nothing restricts it."""
        from ume_qdrant import And, Filter, parse_where

        parsed = tuple(map(parse_where, self.where or ()))
        meta = parsed[0] if len(parsed) == 1 else And(parsed) if parsed else None
        found = Filter(meta=meta, tenant=self.tenant, **conditions)
        return None if found == Filter() else found


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """How a new collection stores its points."""

    short: Annotated[
        int | None, typer.Option("--short", min=1, help="Compare vectors truncated to this many values first.")
    ] = None
    quantization: Annotated[
        QuantizationName | None, typer.Option("--quantization", help="Compare quantized vectors first.")
    ] = None
    full: Annotated[PlaceName | None, typer.Option("--full", help="Where full vectors are kept.")] = None
    tenant_key: Annotated[
        str | None,
        typer.Option("--tenant-key", help="Metadata that names each point's tenant.", show_default=False),
    ] = None

    def layout(self) -> Layout | None:
        """Return the layout, or None if no option was given."""
        from ume_qdrant import Layout

        if self == LayoutOptions():
            return None
        return Layout(self.short, self.quantization, on_disk=self.full == "disk", tenant=self.tenant_key)
