"""Rebuild a damaged collection on disk from what can be read and trusted."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Final

from ume_qdrant.admin.salvage import salvage
from ume_qdrant.admin.verify import edge_folder, fault, lacks_reasoning
from ume_qdrant.reports import OnProgress, Progress
from ume_qdrant.stores.base import Point, Store, batches
from ume_qdrant.stores.edge_engine import NEW_SHARD, EdgeEngine, create_shard, finish_replacement
from ume_qdrant.stores.edge_folder import META_FILE, SHARD, check_disk_space, parse_metadata
from ume_qdrant.stores.filters import EVERYTHING
from ume_qdrant.stores.layout import Layout
from ume_qdrant.stores.metadata import META_FIELD
from ume_qdrant.stores.schema import CollectionMeta, point_id
from ume_qdrant.stores.seal import FileState, Seal, copy_sparse, sealed_files, small_content, unseal
from ume_qdrant.stores.sharing import exclusive
from ume_retrieval.errors import StoreDamaged, StoreError
from ume_retrieval.util.files import atomic_write

BATCH: Final = 256

TRACE_FIELDS: Final = ("trace", "reasoner", "prompt_version")
"""Payload fields that go with a `reasoned` vector."""

OLD_SHARD: Final = ".shard.old"


@dataclass(slots=True)
class RepairReport:
    """Result of `repair`. Names are of files, or ids of points whose file is not known.

    Attributes:
        restored: Small files that were put back as they were.
        kept: Points of the collection now.
        requeued: Files of which points were removed; `index` writes them again.
        reasoning: Files of which `reasoned` vectors were removed; `enrich` makes them again, with T-CoTs from the trace
            cache where it has them.
        lost: Other points that were removed; their writer has to write them again.
        unnamed: Points that were removed and cannot even be named; None if nothing says how many points there were.
            `index` on the same folders writes those of files again.
    """

    restored: list[str] = field(default_factory=list)
    kept: int = 0
    requeued: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    unnamed: int | None = 0

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def repair(store: Store, *, on_progress: OnProgress | None = None) -> RepairReport:
    """Rebuild a collection on disk; no model is called. A point is kept only if all files that hold it are intact.

    Without a seal, after a killed process, a point is kept if it can be read and its vectors have length 1. The
    collection stays as it is until its replacement is complete, so there must be space for another two.

    Args:
        store: The collection; not in use anywhere.
        on_progress: Called after each page of points.

    Raises:
        CollectionNotFound: If the collection does not exist.
        StoreLocked: If a process has it open.
        StoreUnsupported: If the store is a server.
        StoreDamaged: If its metadata are lost too, so that nothing says which models made it.
    """
    folder = edge_folder(store)
    with exclusive(folder):
        check_disk_space(folder, folder.name)
        finish_replacement(folder)
        seal = Seal.read(folder)
        report = RepairReport()
        damaged = _restore(folder, seal, report)
        meta, layout = _metadata(folder)
        if seal is not None and not damaged:
            report.kept = seal.points
            return report
        with TemporaryDirectory(prefix=".repair-", dir=folder) as name:
            work = Path(name)
            fresh = work / folder.name
            fresh.mkdir()
            shutil.copyfile(folder / META_FILE, fresh / META_FILE)
            create_shard(fresh, meta, layout)
            engine = EdgeEngine(fresh)
            try:
                sorter = _Sorter(report, meta.dimension, layout.tenant)
                for points in sorter.keep(_groups(folder, seal, damaged, work), on_progress):
                    engine.upsert(points)
                for key, kind in ({} if seal is None else seal.indexes).items():
                    engine.create_index(key, kind)
                engine.optimize()
                report.kept = engine.count(EVERYTHING)
            finally:
                engine.close()
            report.unnamed = None if seal is None else max(0, seal.points - report.kept - len(sorter.removed))
            _replace(folder, fresh)
    for names in (report.requeued, report.reasoning, report.lost):
        names[:] = sorted(set(names))
    return report


@dataclass(frozen=True, slots=True)
class _Group:
    """Copies of files that are read together: a segment, or the whole collection without a seal.

    Attributes:
        folder: The copies.
        doubtful: Parts of the segment with damaged files, by the name of their folder or file.
    """

    folder: Path
    doubtful: frozenset[str]

    @property
    def points(self) -> bool:
        """Whether the points themselves may be damaged, not only their reasoned vectors."""
        return bool(self.doubtful - {"vector_storage-reasoned"})


@dataclass(slots=True)
class _Sorter:
    """Decides which points are kept, and notes the others in the report."""

    report: RepairReport
    dimension: int
    tenant_key: str | None
    removed: set[str] = field(default_factory=set)

    def keep(self, groups: Iterable[_Group], on_progress: OnProgress | None) -> Iterator[list[Point]]:
        """Yield the points to keep, in batches."""
        done = 0
        for group in groups:
            try:
                for page in salvage(group.folder):
                    yield from batches(self._kept(group, page), BATCH)
                    done += len(page)
                    if on_progress is not None:
                        on_progress(Progress("repair", done, None, ""))
            except StoreError:
                continue  # points that were not read are counted in the end

    def _kept(self, group: _Group, page: Iterable[Point]) -> Iterator[Point]:
        for point in page:
            if group.points or fault(point, self.dimension):
                self.removed.add(point.id)
                self._remove(point)
            elif lacks_reasoning(point) or (group.doubtful and "reasoned" in point.vectors):
                payload = {name: value for name, value in point.payload.items() if name not in TRACE_FIELDS}
                self.report.reasoning.append(point.payload["source"])
                yield replace(
                    point, vectors={"direct": point.vectors["direct"]}, payload={**payload, "reasoning": "later"}
                )
            else:
                yield point

    def _remove(self, point: Point) -> None:
        if _names_its_file(point, self.tenant_key):
            self.report.requeued.append(point.payload["source"])
        else:
            self.report.lost.append(point.id)


def _restore(folder: Path, seal: Seal | None, report: RepairReport) -> list[str]:
    """Put small damaged files back, and return the names of the others."""
    if seal is None:
        return []
    left = []
    for name in seal.damaged(folder, by_time=False):
        state = seal.files.get(name)
        content = None if state is None else small_content(state)
        if content is None:
            left.append(name)
        else:
            atomic_write(folder / name, content, what="a file of the collection")
            report.restored.append(name)
    return left


def _metadata(folder: Path) -> tuple[CollectionMeta, Layout]:
    try:
        stored = parse_metadata((folder / META_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise StoreDamaged(
            f"nothing says which models made collection {folder.name!r}: {META_FILE} and its copy in the seal are lost",
            hint="put the file back from a backup, restore a snapshot, or index again under another name",
        ) from error
    return CollectionMeta.from_dict(stored, folder.name), Layout.from_dict(stored, folder.name)


def _groups(folder: Path, seal: Seal | None, damaged: Iterable[str], work: Path) -> Iterator[_Group]:
    if seal is None:
        yield _Group(_copies(folder, dict.fromkeys(sealed_files(folder)), work / "whole"), frozenset())
        return
    bad = set(damaged)
    segments: dict[str, dict[str, FileState | None]] = {}
    for name, state in seal.files.items():
        parts = PurePosixPath(Path(name).as_posix()).parts
        if parts[:2] == (SHARD, "segments"):
            segments.setdefault(parts[2], {})[name] = state
    # After a clean close, all points are in the segments: the write-ahead log is not needed.
    for segment, files in segments.items():
        inside = {name: PurePosixPath(Path(name).as_posix()).parts[3:] for name in files}
        indexes = {inside[name][0] for name in files if name in bad and _is_derived(inside[name])}
        doubtful = {inside[name][0] for name in files if name in bad and not _is_derived(inside[name])}
        whole = {name: state for name, state in files.items() if inside[name][0] not in indexes}
        yield _Group(_copies(folder, whole, work / segment), frozenset(doubtful))


def _is_derived(parts: tuple[str, ...]) -> bool:
    """Whether a file of a segment can be made again from the others: indexes, and compact forms of vectors."""
    return parts[0].startswith(("payload_index", "vector_index")) or parts[0].endswith("_short")


def _copies(folder: Path, files: Mapping[str, FileState | None], target: Path) -> Path:
    """Copy files; what is missing of them becomes zeros."""
    for name, state in files.items():
        if (folder / name).is_file():
            copy_sparse(folder / name, target / name)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if state is not None:
            with (target / name).open("ab") as file:
                file.truncate(state.size)
    return target


def _names_its_file(point: Point, tenant_key: str | None) -> bool:
    """Whether a point was made by `index`, and its id proves the name of its file."""
    payload = point.payload
    if not isinstance(payload.get("parts"), int):
        return False
    try:
        place = {name: payload.get(name) for name in ("start_s", "end_s", "page")}
        tenant = payload[META_FIELD][tenant_key] if tenant_key else None
        return point_id(payload["source"], payload["file_digest"], **place, tenant=tenant) == point.id
    except (KeyError, TypeError, ValueError):
        return False


def _replace(folder: Path, fresh: Path) -> None:
    """Put the rebuilt engine's files in place of the damaged ones; `finish_replacement` completes a killed process."""
    shutil.rmtree(folder / OLD_SHARD, ignore_errors=True)
    shutil.rmtree(folder / NEW_SHARD, ignore_errors=True)
    seal = Seal.read(fresh)
    (fresh / SHARD).rename(folder / NEW_SHARD)
    unseal(folder)
    if (folder / SHARD).exists():
        (folder / SHARD).rename(folder / OLD_SHARD)
    finish_replacement(folder)
    if seal is not None:
        seal.write(folder)
    shutil.rmtree(folder / OLD_SHARD, ignore_errors=True)
