"""The async twins of an encoder: the same calls in a worker thread."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Literal, Unpack, overload

from ume_retrieval.encode_options import CorpusOptions, Inputs, QueryOptions, Vectors
from ume_retrieval.results import EncodeResult


class AsyncEncoding(ABC):
    """Gives `aencode_query` and `aencode_corpus` to what has `encode_query` and `encode_corpus`."""

    @abstractmethod
    def encode_query(self, *args: Any, **kwargs: Any) -> Any:
        """Encode what is searched with."""

    @abstractmethod
    def encode_corpus(self, *args: Any, **kwargs: Any) -> Any:
        """Encode what is to be found."""

    @overload
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[QueryOptions]
    ) -> Vectors: ...
    @overload
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[QueryOptions]
    ) -> EncodeResult: ...
    async def aencode_query(
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[QueryOptions]
    ) -> Vectors | EncodeResult:
        """`encode_query` in a worker thread, so that the event loop goes on."""
        encode = self.encode_query
        if return_traces:
            return await asyncio.to_thread(partial(encode, inputs, return_traces=True, **options))
        return await asyncio.to_thread(partial(encode, inputs, **options))

    @overload
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[False] = False, **options: Unpack[CorpusOptions]
    ) -> Vectors: ...
    @overload
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: Literal[True], **options: Unpack[CorpusOptions]
    ) -> EncodeResult: ...
    async def aencode_corpus(
        self, inputs: Inputs, *, return_traces: bool = False, **options: Unpack[CorpusOptions]
    ) -> Vectors | EncodeResult:
        """`encode_corpus` in a worker thread, so that the event loop goes on."""
        encode = self.encode_corpus
        if return_traces:
            return await asyncio.to_thread(partial(encode, inputs, return_traces=True, **options))
        return await asyncio.to_thread(partial(encode, inputs, **options))

    aencode_document = aencode_corpus
