"""Metadata and tenants of files: given for all, by a function, by a table, or by tables in the folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Final, TypeAlias

from ume_qdrant.indexing.tables import Table, read_table
from ume_qdrant.stores.base import Point
from ume_qdrant.stores.metadata import META_FIELD, Metadata, clean_metadata
from ume_retrieval.errors import Failure, InputError, TenantRequired, UmeError
from ume_retrieval.util.files import display_name

FileMetadata: TypeAlias = "Metadata | Callable[[str], Metadata | None] | Path | str"
"""Metadata of files: one mapping for all, a function from path to mapping or None, a table, or "sidecars"."""

SIDECARS: Final = "sidecars"

SIDECAR_NAMES: Final = ("ume-metadata.json", "ume-metadata.jsonl", "ume-metadata.csv")
"""Names of tables inside folders."""


@dataclass(frozen=True, slots=True)
class Label:
    """Metadata of a file.

    Attributes:
        meta: The metadata; None keeps those of its points.
        tenant: Its tenant, or None in a collection without tenants.
    """

    meta: dict[str, Any] | None = None
    tenant: str | None = None

    def merged(self, points: Iterable[Point]) -> dict[str, Any]:
        """Return the metadata to write, given the points that the file has."""
        if self.meta is not None:
            return self.meta
        return next((dict(point.payload[META_FIELD]) for point in points if point.payload.get(META_FIELD)), {})


@dataclass(slots=True)
class Labels:
    """The metadata of the files of one run.

    Args:
        given: What the caller gave; None keeps what points have.
        tenant_key: Name of the metadata that holds the tenant, or None.
        roots: Folders and files, absolute; names in a table are relative to them.

    Attributes:
        tenants: Tenants of which files were seen; {None} in a collection without tenants.

    Raises:
        InputError: If `given` has another type, or a table cannot be read.
        TenantRequired: If the collection has tenants, and `given` cannot name one.
    """

    given: FileMetadata | None
    tenant_key: str | None
    roots: Sequence[str]
    tenants: set[str | None] = field(default_factory=set)
    _fixed: dict[str, Any] | None = None
    _table: Table | None = None
    _sidecars: dict[str, Table | None] = field(default_factory=dict)
    _used: set[tuple[str, str]] = field(default_factory=set)
    _failures: list[Failure] = field(default_factory=list)

    def __post_init__(self) -> None:
        match self.given:
            case None:
                tenant_value(self.tenant_key, {})
            case Mapping():
                self._fixed = clean_metadata(self.given)
                self.tenants.add(tenant_value(self.tenant_key, self._fixed))
            case str() | Path() if self.given != SIDECARS:
                self._table = read_table(Path(self.given))
            case _ if not callable(self.given) and self.given != SIDECARS:
                raise InputError(
                    f"metadata cannot be a {type(self.given).__name__}",
                    hint="give a mapping, a function of the path, a .csv, .json or .jsonl file, or 'sidecars'",
                )
        if self.tenant_key is None:
            self.tenants.add(None)

    def of(self, path: str) -> Label:
        """Return the label of a file.

        Args:
            path: Its absolute path, or its address.

        Raises:
            InputError: If the function fails, or what it returns is not metadata.
            TenantRequired: If the file has no tenant in a collection with tenants.
        """
        if self.given is None:
            return Label()
        meta = self._fixed if self._fixed is not None else self._look_up(path)
        if meta is None:  # its row may be one that cannot be read: nothing is removed
            tenant_value(self.tenant_key, {})
            return Label()
        label = Label(meta, tenant_value(self.tenant_key, meta))
        self.tenants.add(label.tenant)
        return label

    def note(self, path: str) -> None:
        """Mark the row of a file that exists but cannot be used, so that it does not count as one without a file."""
        if isinstance(self.given, (str, Path)):
            self._look_up(path)

    def failures(self) -> list[Failure]:
        """Return the rows that cannot be used, and those that name no file of this run."""
        tables = [table for table in (self._table, *self._sidecars.values()) if table is not None]
        unknown = [
            Failure(0, where, InputError.code, f"{name} was not found", "correct the name, or remove the row")
            for table in tables
            for name, where in table.places.items()
            if (table.source, name) not in self._used
        ]
        return [*self._failures, *(failure for table in tables for failure in table.failures), *unknown]

    def _look_up(self, path: str) -> dict[str, Any] | None:
        if callable(self.given):
            return self._call(self.given, path)
        broken = False
        for table, base in self._tables(path):
            if table is not None and (found := self._row(table, path, base)) is not None:
                return found
            broken = broken or table is None or bool(table.failures)
        return None if broken else {}

    def _tables(self, path: str) -> Iterator[tuple[Table | None, str]]:
        """Yield tables that may hold a file, each with the folder that its names are relative to; None if broken."""
        if self._table is not None:
            for root in self.roots:
                yield self._table, root if root != path else os.path.dirname(root)  # noqa: PTH120  # or an address
            yield self._table, ""
            return
        for folder in self._folders(path):
            if folder not in self._sidecars:
                self._sidecars[folder] = self._sidecar(folder)
            table = self._sidecars[folder]
            if table is None or table.source:
                yield table, folder

    def _row(self, table: Table, path: str, base: str) -> dict[str, Any] | None:
        """Return the row of a file by its name relative to a folder; "" is the absolute name."""
        head = base.rstrip("/" + os.sep) + "/" if base else ""
        plain = path.replace(os.sep, "/")
        if not plain.startswith(head):
            return None
        name = plain[len(head) :]
        for spelled in (name, f"./{name}"):
            if spelled in table.rows:
                self._used.add((table.source, spelled))
                return table.rows[spelled]
        return None

    def _folders(self, path: str) -> Iterator[str]:
        """Yield the folders of a file, up to the indexed one."""
        for folder in PurePath(path).parents:
            yield str(folder)
            if str(folder) in self.roots or path in self.roots:
                return

    def _sidecar(self, folder: str) -> Table | None:
        """Read the table of a folder: an empty one without a source if it has none, None if it is broken."""
        there = [Path(folder) / name for name in SIDECAR_NAMES if (Path(folder) / name).is_file()]
        try:
            return _only_table(there)
        except InputError as error:
            self._failures.append(Failure.of(error, index=0, source=display_name(there[0])))
            return None

    def _call(self, function: Callable[[str], Metadata | None], path: str) -> dict[str, Any]:
        try:
            made = function(path)
        except UmeError:
            raise
        except Exception as error:
            raise InputError(
                f"the function that makes metadata failed: {type(error).__name__}: {error}",
                hint="let it return a mapping, or None",
            ) from error
        return {} if made is None else clean_metadata(made)


def _only_table(there: Sequence[Path]) -> Table:
    if len(there) > 1:
        names = " and ".join(display_name(path) for path in there)
        raise InputError(f"a folder holds {names}", hint="keep one of them")
    return read_table(there[0]) if there else Table("")


def tenant_value(key: str | None, meta: Metadata) -> str | None:
    """Return the tenant that metadata name, or None in a collection without tenants.

    Args:
        key: Name of the metadata that holds the tenant, or None.
        meta: The metadata.

    Raises:
        TenantRequired: If the collection has tenants and the metadata name none.
    """
    if key is None:
        return None
    value = meta.get(key)
    if not isinstance(value, str) or not value:
        raise TenantRequired(
            f"the collection has tenants ({key}), and the metadata name none",
            hint=f"give metadata with {key!r}, a text",
        )
    return value
