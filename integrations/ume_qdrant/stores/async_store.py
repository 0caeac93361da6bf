"""Stores for async code: derived from blocking ones, and run without an event loop where callers block."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial, update_wrapper
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from ume_qdrant.stores.base import Point, RenamedMethods, Store, VectorName
from ume_qdrant.stores.filters import Filter

P = ParamSpec("P")
T = TypeVar("T")

THREAD_PAGE: Final = 500
"""Points that `scroll` fetches per blocking call."""


def _awaited(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[AsyncStore, P], Coroutine[Any, Any, T]]:
    """Derive the async form of a method of `Store`, with the same parameters."""

    async def call(self: AsyncStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._run(partial(getattr(self._store, method.__name__), *args, **kwargs))
        return result

    update_wrapper(call, method)
    return call


class AsyncStore(RenamedMethods):
    """`Store` for async code: the same methods with the same arguments and errors, awaited.

    Each method is derived from a blocking store. `ThreadStore` calls it in a worker thread; `AsyncClientStore`
    implements the methods itself.

    Args:
        store: A blocking store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    @property
    def location(self) -> str:
        """Directory or server address, for messages; never contains a secret."""
        return self._store.location

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._store.collection

    exists = _awaited(Store.exists)
    create = _awaited(Store.create)
    meta = _awaited(Store.meta)
    layout = _awaited(Store.layout)
    set_metadata = _awaited(Store.set_metadata)
    upsert = _awaited(Store.upsert)
    update = _awaited(Store.update)
    delete = _awaited(Store.delete)
    retrieve = _awaited(Store.retrieve)
    search = _awaited(Store.search)
    count = _awaited(Store.count)
    create_index = _awaited(Store.create_index)
    indexes = _awaited(Store.indexes)
    aliases = _awaited(Store.aliases)
    set_alias = _awaited(Store.set_alias)
    drop_alias = _awaited(Store.drop_alias)
    drop = _awaited(Store.drop)
    optimize = _awaited(Store.optimize)
    close = _awaited(Store.close)

    async def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> AsyncIterator[Point]:
        """Read every point that matches, ordered by id."""
        points = await self._run(partial(self._store.scroll, where, vectors=vectors, fields=fields))
        while page := await self._run(lambda: list(islice(points, THREAD_PAGE))):
            for point in page:
                yield point

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _run(self, call: Callable[[], T]) -> T:
        """Make a blocking call; here at once, for `run_inline`."""
        return call()


def _blocking(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[BlockingStore, P], T]:
    """Derive the blocking form of a method of `AsyncStore`, with the parameters of that of `Store`."""

    def call(self: BlockingStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = self.wait(getattr(self._store, method.__name__)(*args, **kwargs))
        return result

    update_wrapper(call, method)
    return call


class BlockingStore:
    """An async store for blocking code in another thread: a `Store` whose calls run in the async store's event loop.

    Args:
        store: The async store.
        loop: The running event loop that uses it, in another thread.
    """

    def __init__(self, store: AsyncStore, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the event loop and return its result."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    @property
    def location(self) -> str:
        """Directory or server address, for messages; never contains a secret."""
        return self._store.location

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self._store.collection

    create = _blocking(Store.create)
    meta = _blocking(Store.meta)
    layout = _blocking(Store.layout)
    set_metadata = _blocking(Store.set_metadata)
    upsert = _blocking(Store.upsert)
    update = _blocking(Store.update)
    delete = _blocking(Store.delete)
    retrieve = _blocking(Store.retrieve)
    optimize = _blocking(Store.optimize)

    def scroll(
        self, where: Filter | None = None, *, vectors: Sequence[VectorName] = (), fields: Sequence[str] | None = None
    ) -> Iterator[Point]:
        """Read every point that matches, ordered by id."""
        yield from drawn(self._store.scroll(where, vectors=vectors, fields=fields), self._loop)


def drawn(values: AsyncIterable[T], loop: asyncio.AbstractEventLoop) -> Iterator[T]:
    """Draw the values of an async iterable one by one, from another thread than its event loop's."""
    waiting = aiter(values)
    while True:
        try:
            yield asyncio.run_coroutine_threadsafe(_following(waiting), loop).result()
        except StopAsyncIteration:
            return


async def _following(values: AsyncIterator[T]) -> T:
    return await anext(values)


class ThreadStore(AsyncStore):
    """Any store as an async one: its calls are made one after the other in a worker thread.

    Used for `EdgeStore`, whose engine runs in this process and blocks.

    Args:
        store: The store; closed together with this one.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._worker = _new_worker()

    async def __aexit__(self, *exc: object) -> None:
        await self.close()
        self._worker.shutdown(wait=False)
        self._worker = _new_worker()  # starts its thread at its first use

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)


def _new_worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ume-store")


def run_inline(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that only awaits calls which return at once, without an event loop.

    So code is written once, with `await`, and blocking callers run it on a blocking client or store.

    Raises:
        RuntimeError: If the coroutine suspends.

    Example:
        >>> async def double(number: int) -> int:
        ...     return 2 * number
        >>> run_inline(double(4))
        8
    """
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError("a blocking call must not suspend")
