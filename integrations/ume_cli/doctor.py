"""`ume doctor`: what is installed, which engine would run where, and the command that installs what is missing."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from rich.table import Table

from ume_cli.options import JsonOption
from ume_cli.output import command, plain


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: Name of the component.
        state: "ok", "missing" (only some features need it) or "broken".
        found: Its version or state.
        fix: The command or step that fixes it, or "".
    """

    name: str
    state: str
    found: str
    fix: str = ""


NEEDED = ("torch", "torchvision", "transformers", "av", "pypdfium2", "qdrant-client", "qdrant-edge-py")
OPTIONAL = {
    "sentence-transformers": "pip install 'ume-retrieval[sentence-transformers]'",
    "vllm": "pip install 'ume-retrieval[vllm]'",
}


def doctor(*, as_json: JsonOption = False) -> None:
    """Say what is installed, what would run, and what to do about the rest."""
    with command(as_json=as_json) as output:
        findings = examine()
        table = Table(box=None, pad_edge=False, show_header=False)
        colours = {"ok": "green", "missing": "yellow", "broken": "red"}
        for finding in findings:
            state = f"[{colours[finding.state]}]{finding.state}[/{colours[finding.state]}]"
            fix = f"[dim]{plain(finding.fix)}[/dim]"
            table.add_row(state, finding.name, plain(finding.found), fix)
        healthy = all(finding.state != "broken" for finding in findings)
        data = {"healthy": healthy, "findings": [asdict(finding) for finding in findings]}
        output.result(data, table, "ready" if healthy else "[red]not ready[/red]: see what is broken above")


def examine() -> list[Finding]:
    """Look at everything, without loading a model."""
    from ume_retrieval.pipeline.trace_cache import default_cache_path

    return [
        Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *(_package(name, "broken", f"pip install {name}") for name in NEEDED),
        *(_package(name, "missing", fix) for name, fix in OPTIONAL.items()),
        _torchvision(),
        _device(),
        _bundled_pair(),
        _catalogue(),
        Finding("trace cache", "ok", str(default_cache_path())),
    ]


def _package(name: str, state_if_absent: str, fix: str) -> Finding:
    try:
        return Finding(name, "ok", version(name))
    except PackageNotFoundError:
        return Finding(name, state_if_absent, "not installed", fix)


def _torchvision() -> Finding:
    """A torchvision built for another torch imports badly, and then no Qwen3-VL processor can be made."""
    try:
        import torch
        import torchvision
    except (ImportError, RuntimeError, OSError) as error:
        fix = "pip install --upgrade torch torchvision"
        return Finding("torch with torchvision", "broken", str(error).splitlines()[0], fix)
    return Finding("torch with torchvision", "ok", f"{torch.__version__} with {torchvision.__version__}")


def _device() -> Finding:
    try:
        import torch

        from ume_retrieval.engines.transformers.loading import choose_device, choose_dtype
    except (ImportError, OSError) as error:
        return Finding("device", "broken", str(error).splitlines()[0], "pip install torch")
    device = choose_device("auto")
    number = str(choose_dtype("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    found = f"engine transformers on {device} ({name}), {number}"
    if device.type == "cpu":
        return Finding("device", "missing", f"no GPU: {found}", "real models want a GPU; ume-tiny does not")
    return Finding("device", "ok", found)


def _catalogue() -> Finding:
    """Which models of the catalogue this machine has the memory for."""
    try:
        from ume_cli.models import fitting, rooms_here

        rooms = rooms_here()
    except (ImportError, OSError) as error:
        return Finding("models that fit", "broken", str(error).splitlines()[0], "pip install torch")
    from ume_retrieval.engines.memory import gigabytes
    from ume_retrieval.models.catalog import cards

    memory = ", ".join(f"{room.device} {gigabytes(room.capacity)}" for room, _ in rooms if room.capacity)
    large = [card.name for card in cards() if not fitting(card, rooms)]
    found = f"{len(cards()) - len(large)} of {len(cards())} ({memory or 'memory unknown'})"
    return Finding(
        "models that fit", "ok", f"{found}; too large: {', '.join(large)}" if large else found, "`ume models`"
    )


def _bundled_pair() -> Finding:
    from ume_retrieval.engines.registry import resolve_embedder, resolve_reasoner
    from ume_retrieval.errors import UmeError

    try:
        resolve_embedder("ume-tiny")
        resolve_reasoner("ume-tiny")
    except UmeError as error:
        return Finding("ume-tiny", "broken", error.message, error.hint)
    return Finding("ume-tiny", "ok", "weights are there")
