"""`ume index` and `ume enrich`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, TypeAlias, TypedDict

import typer

from ume_cli.option_groups import FilterOptions, LayoutOptions, ModelOptions, StoreOptions, grouped
from ume_cli.options import DecoderOption, IsolateOption, JsonOption, limits_of
from ume_cli.output import Output, command
from ume_retrieval.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ume_qdrant.reports import Progress as Step
    from ume_qdrant.stores.layout import Layout


When: TypeAlias = Literal["later", "always", "never"]
"""When to reason over indexed items."""

WorkersName: TypeAlias = Literal["here", "ray"]
"""Where the work is done: in this process, or by the workers of a Ray cluster."""


class IndexSettings(TypedDict):
    """Settings that one process and a cluster share."""

    reasoning: When
    segment_s: float
    overlap_s: float
    strict: bool
    layout: Layout | None


StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first item that fails.")]


@grouped
def index(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files and folders; with --remote or --workers ray also addresses (s3://…).", show_default=False
        ),
    ],
    *,
    place: StoreOptions,
    reasoning: Annotated[When, typer.Option(help="later: searchable soon; `ume enrich` reasons.")] = "later",
    segment: Annotated[float | None, typer.Option(help="Seconds of a video segment.", show_default=False)] = None,
    overlap: Annotated[float | None, typer.Option(help="Seconds that segments overlap.", show_default=False)] = None,
    layout: LayoutOptions,
    strict: StrictOption = False,
    relative_to: Annotated[
        Path | None,
        typer.Option(help="Name files relative to this folder instead of by absolute paths.", show_default=False),
    ] = None,
    metadata: Annotated[
        str | None,
        typer.Option(
            help="Your metadata: a .csv, .jsonl or .json file with a row for each file (column file_name), "
            "or sidecars: ume-metadata.csv, .jsonl or .json in the folders.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Metadata of all files, as name=value.", show_default=False),
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Fetch addresses of object stores (s3://…).")] = False,
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
    models: ModelOptions,
    isolate: IsolateOption = False,
    decoder: DecoderOption = "pyav",
    as_json: JsonOption = False,
) -> None:
    """Index images, videos, PDF pages and texts; a repeated run only processes changes."""
    with command(as_json=as_json) as output:
        from ume_qdrant import Sharding
        from ume_qdrant import index as index_paths
        from ume_qdrant.stores.filters import EVERYTHING
        from ume_retrieval.media import OVERLAP_S, SEGMENT_S

        spread = Sharding(shards, replicas) if shards or replicas else None
        settings = IndexSettings(
            reasoning=reasoning,
            segment_s=SEGMENT_S if segment is None else segment,
            overlap_s=OVERLAP_S if overlap is None else overlap,
            strict=strict,
            layout=layout.layout(),
        )
        if workers == "here" and ray_address:
            raise InputError("--ray-address goes with --workers ray")
        if workers == "ray" and relative_to:
            raise InputError("--relative-to goes with --workers here")
        given = given_metadata(metadata, set_ or [])
        if workers == "ray" and metadata is not None:
            raise InputError("--metadata goes with --workers here", hint="--set works with both")
        if workers == "ray":
            from ume_ray import Models, StoreAddress
            from ume_ray import index as index_on_ray

            pair = Models.named(
                models.model,
                reasoner=None if models.reasoner == "none" else models.reasoner,
                engine=models.engine,
                device=models.device,
                prompts=models.prompts,
                profile=models.profile,
                limits=limits_of(isolate=isolate, decoder=decoder),
            )
            address = StoreAddress(place.store, place.collection, sharding=spread)
            with Bars(output) as bars:
                report = index_on_ray(
                    pair,
                    address,
                    paths,
                    address=ray_address,
                    metadata=given if isinstance(given, dict) else None,
                    on_progress=bars.step,
                    **settings,
                )
        else:
            with place.open(spread) as opened, Bars(output) as bars:
                if opened.exists():
                    opened.count(EVERYTHING)  # fails before models are loaded if it is damaged or cannot be shared
                embedder = models.load(isolate=isolate, decoder=decoder)
                report = index_paths(
                    embedder,
                    opened,
                    paths,
                    relative_to=relative_to,
                    metadata=given,
                    remote=remote,
                    on_progress=bars.step,
                    **settings,
                )
        kept = f"{report.unchanged} unchanged" + (f" ({report.relabelled} relabelled)" if report.relabelled else "")
        words = f"[bold]{report.indexed}[/bold] indexed, {kept}, {report.removed} removed, "
        cost = f"{len(report.failed)} failed in {report.seconds:.1f} s with {report.model_calls} model calls"
        output.result(report.to_dict(), words + cost)
        output.failures(report.failed)
        output.warnings(report.warnings)
        if reasoning == "later" and report.indexed:
            root = f"UME_MEDIA_ROOT={shlex.quote(str(relative_to))} " if relative_to else ""
            chosen = {"--store": place.store, "--collection": place.collection, **models.changed()}
            options = [*(word for option in chosen.items() for word in option), *(["--isolate"] if isolate else [])]
            options += ["--decoder", decoder] if decoder != "pyav" else []
            output.note(f"search works now; `{root}{shlex.join(['ume', 'enrich', *options])}` adds reasoning")


@grouped
def enrich(
    *,
    place: StoreOptions,
    filters: FilterOptions,
    retry_failed: Annotated[bool, typer.Option(help="Retry items that failed before.")] = False,
    budget: Annotated[
        int | None,
        typer.Option(
            help="Approximate tokens to spend; the most ambiguous items come first.", show_default=False, min=1
        ),
    ] = None,
    strict: StrictOption = False,
    remote: Annotated[bool, typer.Option("--remote", help="Fetch addresses of object stores again.")] = False,
    models: ModelOptions,
    isolate: IsolateOption = False,
    decoder: DecoderOption = "pyav",
    as_json: JsonOption = False,
) -> None:
    """Reason over what was indexed without; can be stopped and resumed."""
    with command(as_json=as_json) as output:
        from ume_qdrant import enrich as enrich_points
        from ume_qdrant.stores.filters import for_all_tenants

        with place.open() as opened, Bars(output) as bars:
            where = for_all_tenants(filters.filter())
            opened.count(where)  # fails before models are loaded if it is missing, damaged or cannot be shared
            embedder = models.load(isolate=isolate, decoder=decoder)
            report = enrich_points(
                embedder,
                opened,
                where=where,
                retry_failed=retry_failed,
                budget=budget,
                strict=strict,
                remote=remote,
                on_progress=bars.step,
            )
        words = f"[bold]{report.enriched}[/bold] enriched, {report.remaining} remaining, {len(report.failed)} failed "
        output.result(report.to_dict(), words + f"in {report.seconds:.1f} s with {report.model_calls} model calls")
        output.failures(report.failed)


def given_metadata(table: str | None, pairs: Sequence[str]) -> str | dict[str, str | int | float | bool] | None:
    """Return the metadata that the options give: a table, values for all files, or None.

    Raises:
        InputError: If both are given, or a pair is not name=value.
    """
    from ume_qdrant.indexing.tables import plain_value

    if table is not None and pairs:
        raise InputError("--metadata and --set exclude each other", hint="add a column to the table")
    values: dict[str, str | int | float | bool] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not name or not sign:
            raise InputError(f"--set {pair} is not name=value", hint="write it like --set owner=ann")
        values[name] = plain_value(value)
    return table if table is not None else values or None


class Bars:
    """One progress bar per stage of indexing."""

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
        """Update the bar of the step's stage."""
        if self._progress is None:
            return
        if step.stage not in self._bars:
            self._bars[step.stage] = self._progress.add_task(step.stage, total=step.total)
        rates = "".join(f"  {stage} {rate:.1f}/s" for stage, rate in step.rates.items())
        self._progress.update(
            self._bars[step.stage], completed=step.done, total=step.total, description=step.stage + rates
        )
