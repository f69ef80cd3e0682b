"""Fetches slices of sealed chunks from datanodes and opens them. What comes out was verified; nothing is handed out
before its frames have opened.

How a slice is fetched depends on the layout (replica_fetch, fragment_fetch). A record may be older than a move of its
replicas or than another layout of its blob: what cannot be had by it is looked for once more by the record of now. The
pieces of an older layout stay for as long as a read is open that may have begun with it, so that this is rare.
"""

from __future__ import annotations

from cluster.chunk_slice import ChunkSlice, Layout, make_layout
from cluster.fetching import Attempt, Fetcher, ReadServices
from cluster.fragment_fetch import FragmentFetcher
from cluster.replica_fetch import ReplicaFetcher
from storage.base.errors import Corrupt, Unavailable
from storage.base.ids import ChunkId
from storage.crypto.customer import CustomerKey, mix_customer_key
from storage.crypto.envelope import (
    HEADER_BYTES,
    SEALED_FRAME_BYTES,
    Buffer,
    Cipher,
    Opener,
    open_single_frame,
    open_whole,
)
from storage.crypto.keyring import Keyring
from storage.crypto.keys import BlobKey, unwrap_first_key
from storage.metadata.interface import Metadata
from storage.model import Blob, Chunk

LAYOUTS_MAX = 4
"""that one fetch follows: a chunk does not move faster than it can be read"""


class ChunkReader:
    """One per worker."""

    def __init__(
        self, cluster_id: bytes, cipher: Cipher, keyring: Keyring, metadata: Metadata, services: ReadServices
    ) -> None:
        self._cluster_id = cluster_id
        self._cipher = cipher
        self._keyring = keyring
        self._metadata = metadata
        self._services = services
        self._replicas = ReplicaFetcher(services)
        self._fragments = FragmentFetcher(services)

    def opener(self, blob: Blob, chunk: Chunk, customer_key: CustomerKey | None = None) -> Opener:
        """For the frames of one chunk. SealBroken (also for another customer's key, or none), UnknownKeyId."""
        bucket_key = self._keyring.bucket_key(blob.bucket_key_id, blob.bucket_key_version)
        if customer_key is not None:
            bucket_key = mix_customer_key(bucket_key, self._cluster_id, customer_key)
        data_key = BlobKey(bucket_key, self._cluster_id, blob.blob_id).unwrap(chunk.index, chunk.wrapped_key)
        return Opener(self._cluster_id, ChunkId(blob.blob_id, chunk.index), data_key, self._cipher)

    def open_inline(self, blob: Blob, start: int, end: int, customer_key: CustomerKey | None = None) -> Buffer:
        """The plaintext [start, end) of an inline blob, which is opened whole. Corrupt, SealBroken."""
        if blob.inline is None or len(blob.chunks) != 1:
            raise Corrupt("an inline blob has one chunk and its bytes", blob_id=blob.blob_id.hex())
        chunk, sealed = blob.chunks[0], blob.inline
        plaintext: Buffer
        if customer_key is None and not chunk.index and len(sealed) <= HEADER_BYTES + SEALED_FRAME_BYTES:
            bucket_key = self._keyring.bucket_key(blob.bucket_key_id, blob.bucket_key_version)
            data_key = unwrap_first_key(bucket_key, self._cluster_id, blob.blob_id, chunk.wrapped_key)
            plaintext = open_single_frame(self._cluster_id, blob.blob_id, data_key, sealed, self._cipher)
        else:
            plaintext = open_whole(self.opener(blob, chunk, customer_key), sealed)
        if len(plaintext) != blob.size or end > blob.size:
            raise Corrupt(f"an inline blob of {len(plaintext)} bytes does not match its record")
        return plaintext if end - start == blob.size else memoryview(plaintext)[start:end]

    def open_at_once(self, blob: Blob, chunk: Chunk, start: int, end: int, room: memoryview) -> memoryview | None:
        """The plaintext [start, end) of a chunk, in a room for all its frames, if it is at hand in the memory of this
        machine. None: `fetch` says more. SealBroken (of the data key), UnknownKeyId, Corrupt."""
        layout = make_layout(blob.blob_id, chunk.index, blob.generation, blob.redundancy, chunk.nodes)
        if layout.redundancy.is_erasure or not chunk.nodes or not self._services.near:
            return None
        return self._replicas.open_at_once(layout, self.opener(blob, chunk), chunk, start, end, room)

    def open_at_hand(self, opener: Opener, piece: ChunkSlice) -> Buffer | None:
        """The plaintext of a slice whose replica is at hand in the memory of this machine, without waiting for anything
        and with nothing noted. None: `fetch` says more. Corrupt, of a record."""
        layout = piece.layout
        if layout.redundancy.is_erasure or not layout.nodes or not self._services.near:
            return None
        return self._replicas.open_at_hand(layout, opener, piece)

    async def fetch(self, opener: Opener, piece: ChunkSlice) -> Buffer:
        """The plaintext of a slice. Corrupt when too much of it is missing or damaged, Unavailable when pieces that
        cannot be reached may still have it."""
        attempt = Attempt(self._services)
        layout, served_bytes = piece.layout, 0
        try:
            for _ in range(LAYOUTS_MAX):
                try:
                    block = await self._fetcher(layout).fetch(layout, opener, piece, attempt)
                except (Corrupt, Unavailable):
                    newer = await self._read_layout(piece)
                    if newer is None or newer == layout:
                        raise
                    layout = newer
                else:
                    served_bytes = len(block)
                    return block
            raise Unavailable("a chunk moved again and again while it was read", chunk_id=str(layout.chunk_id))
        finally:
            attempt.close(layout.chunk_id, served_bytes)

    def _fetcher(self, layout: Layout) -> Fetcher:
        return self._fragments if layout.redundancy.is_erasure else self._replicas

    async def _read_layout(self, piece: ChunkSlice) -> Layout | None:
        """By the record of now; None when there is none any more."""
        places = await self._metadata.find_chunk_places([(piece.blob.blob_id, piece.chunk.index)])
        for place in places:
            return make_layout(place.blob_id, place.chunk_index, place.generation, place.redundancy, place.nodes)
        return None
