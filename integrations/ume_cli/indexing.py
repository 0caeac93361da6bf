"""`ume index` and `ume enrich`."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, TypedDict

import typer

from ume_cli.layout_options import FullOption, QuantizationOption, ShortOption, layout_of
from ume_cli.options import (
    DEFAULT_COLLECTION,
    DEFAULT_MODEL,
    DEFAULT_STORE,
    CollectionOption,
    DeviceOption,
    EngineOption,
    IsolateOption,
    JsonOption,
    ModelOption,
    PromptsOption,
    ReasonerOption,
    StoreOption,
    limits_of,
    load_embedder,
    open_named_store,
)
from ume_cli.output import Output, command
from ume_retrieval.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ume_qdrant.reports import Progress as Step
    from ume_qdrant.stores.layout import Layout


When: TypeAlias = Literal["later", "always", "never"]
"""When to reason over what is indexed."""

WorkersName: TypeAlias = Literal["here", "ray"]
"""Who does the work: this process, or the workers of a Ray cluster."""


class IndexSettings(TypedDict):
    """What is said alike to one process and to a cluster."""

    reasoning: When
    segment_s: float
    overlap_s: float
    strict: bool
    layout: Layout | None


StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first item that fails.")]


def index(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files and folders; with --workers ray also addresses (s3://…).", show_default=False),
    ],
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    reasoning: Annotated[When, typer.Option(help="later: searchable soon, `ume enrich` reasons.")] = "later",
    segment: Annotated[float | None, typer.Option(help="Seconds of a video segment.", show_default=False)] = None,
    overlap: Annotated[float | None, typer.Option(help="Seconds that segments overlap.", show_default=False)] = None,
    short: ShortOption = None,
    quantization: QuantizationOption = None,
    full: FullOption = None,
    strict: StrictOption = False,
    relative_to: Annotated[
        Path | None,
        typer.Option(help="Name files from this folder on, not by absolute paths.", show_default=False),
    ] = None,
    workers: Annotated[
        WorkersName, typer.Option(help="here: this process; ray: the workers of a Ray cluster (pip extra ray).")
    ] = "here",
    ray_address: Annotated[
        str | None,
        typer.Option(help="The cluster: auto, host:port or ray://…; else one on this machine.", show_default=False),
    ] = None,
    shards: Annotated[
        int | None, typer.Option(help="Shards of a new collection on a server.", min=1, show_default=False)
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Copies of each shard on a server.", min=1, show_default=False)
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    prompts: PromptsOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    isolate: IsolateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Index images, videos, PDF pages and texts; run it again after changes, only those are done."""
    with command(as_json=as_json) as output:
        from ume_qdrant import Sharding
        from ume_qdrant import index as index_paths
        from ume_retrieval.media import OVERLAP_S, SEGMENT_S

        spread = Sharding(shards, replicas) if shards or replicas else None
        settings = IndexSettings(
            reasoning=reasoning,
            segment_s=SEGMENT_S if segment is None else segment,
            overlap_s=OVERLAP_S if overlap is None else overlap,
            strict=strict,
            layout=layout_of(short, quantization, full),
        )
        if workers == "here" and ray_address:
            raise InputError("--ray-address goes with --workers ray")
        if workers == "ray" and relative_to:
            raise InputError("--relative-to goes with --workers here")
        if workers == "ray":
            from ume_ray import Models, StoreAddress
            from ume_ray import index as index_on_ray

            pair = Models.named(
                model,
                reasoner=None if reasoner == "none" else reasoner,
                engine=engine,
                device=device,
                limits=limits_of(isolate=isolate),
                prompts=prompts,
            )
            place = StoreAddress(store, collection, sharding=spread)
            with Bars(output) as bars:
                report = index_on_ray(pair, place, paths, address=ray_address, on_progress=bars.step, **settings)
        else:
            with open_named_store(store, collection, spread) as opened, Bars(output) as bars:
                if opened.exists():
                    opened.count()  # a store that another process holds shows before models are loaded
                embedder = load_embedder(model, reasoner, device, engine, prompts, isolate=isolate)
                report = index_paths(
                    embedder, opened, paths, relative_to=relative_to, on_progress=bars.step, **settings
                )
        words = f"[bold]{report.indexed}[/bold] indexed, {report.unchanged} unchanged, {report.removed} removed, "
        cost = f"{len(report.failed)} failed in {report.seconds:.1f} s with {report.model_calls} model calls"
        output.result(report.to_dict(), words + cost)
        output.failures(report.failed)
        if reasoning == "later" and report.indexed:
            root = f"UME_MEDIA_ROOT={shlex.quote(str(relative_to))} " if relative_to else ""
            chosen = {
                "--store": store,
                "--collection": collection,
                **_unusual(model, reasoner, device, engine),
            }
            if prompts:
                chosen["--prompts"] = str(prompts)
            options = [*(word for option in chosen.items() for word in option), *(["--isolate"] if isolate else [])]
            output.note(f"search works now; `{root}{shlex.join(['ume', 'enrich', *options])}` adds reasoning")


def _unusual(model: str, reasoner: str, device: str, engine: str) -> dict[str, str]:
    """The options that say something else than by default; without a Reasoner nothing could be enriched."""
    usual = {"--model": DEFAULT_MODEL, "--reasoner": "auto", "--device": "auto", "--engine": "auto"}
    said = dict(zip(usual, (model, reasoner, device, engine), strict=True))
    return {name: value for name, value in said.items() if value not in {usual[name], "none"}}


def enrich(
    *,
    store: StoreOption = DEFAULT_STORE,
    collection: CollectionOption = DEFAULT_COLLECTION,
    retry_failed: Annotated[bool, typer.Option(help="Try again what failed before.")] = False,
    budget: Annotated[
        int | None,
        typer.Option(
            help="Tokens to spend, about; what looks most like others comes first.", show_default=False, min=1
        ),
    ] = None,
    strict: StrictOption = False,
    model: ModelOption = DEFAULT_MODEL,
    reasoner: ReasonerOption = "auto",
    prompts: PromptsOption = None,
    device: DeviceOption = "auto",
    engine: EngineOption = "auto",
    isolate: IsolateOption = False,
    as_json: JsonOption = False,
) -> None:
    """Reason over what was indexed directly; stop and go on as you like."""
    with command(as_json=as_json) as output:
        from ume_qdrant import enrich as enrich_points

        with open_named_store(store, collection) as opened, Bars(output) as bars:
            opened.count()  # a collection that is missing or held shows before models are loaded
            embedder = load_embedder(model, reasoner, device, engine, prompts, isolate=isolate)
            report = enrich_points(
                embedder, opened, retry_failed=retry_failed, budget=budget, strict=strict, on_progress=bars.step
            )
        words = f"[bold]{report.enriched}[/bold] enriched, {report.remaining} remaining, {len(report.failed)} failed "
        output.result(report.to_dict(), words + f"in {report.seconds:.1f} s with {report.model_calls} model calls")
        output.failures(report.failed)


class Bars:
    """One progress bar a stage of indexing."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._stack = ExitStack()
        self._bars: dict[str, TaskID] = {}
        self._progress: Progress | None = None

    def __enter__(self) -> Self:
        self._progress = self._stack.enter_context(self._output.progress())
        return self

    def __exit__(self, *error: object) -> None:
        self._progress = None
        self._stack.close()

    def step(self, step: Step) -> None:
        """Move the bar of the step's stage."""
        if self._progress is None:
            return
        if step.stage not in self._bars:
            self._bars[step.stage] = self._progress.add_task(step.stage, total=step.total)
        rates = "".join(f"  {stage} {rate:.1f}/s" for stage, rate in step.rates.items())
        self._progress.update(
            self._bars[step.stage], completed=step.done, total=step.total, description=step.stage + rates
        )
