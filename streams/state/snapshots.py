"""Snapshots of a partition in a folder: its head, control and every account blob, for when the state store is lost.

    <folder>/<generation>/p12/00000000000000001234.snap   data: a header, then records, then the SHA-256 of all before it
    <folder>/<generation>/p12/00000000000000001234.json   manifest: what it is, length, checksum. Without one, no snapshot.

The number is the applied offset of the head. A whole snapshot of that offset that is there already is kept as it is.

Steps of `write`, in this order; a crash after any of them leaves the folder
with the snapshots it had, or with the new one as well:

1. data to a temporary name · 2. fsync · 3. rename · 4. manifest to a temporary name, fsync · 5. rename · 6. fsync of the
folder · 7. all but the newest three, and what crashes left, are removed
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import struct
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from streams.state.base import Account, StateStore, StoreMeta, flush_accounts

MAGIC = b"safehold-snapshot-1\n"
KEEP = 3
_LENGTH = struct.Struct("<I")
_RECORD = struct.Struct("<QI")
_READ_CHUNK = 2_000
_DIGEST = hashlib.sha256().digest_size


class SnapshotError(Exception):
    """A snapshot that cannot be used, or none that can."""


class SnapshotGap(SnapshotError):
    """The ledger begins after the snapshot: records in between are gone."""

    def __init__(self, partition: int, applied: int, log_start: int) -> None:
        self.partition = partition
        self.missing = (applied + 1, log_start - 1)
        super().__init__(
            f"partition {partition}: the newest good snapshot ends at offset {applied}, the ledger begins at {log_start}; "
            f"{log_start - applied - 1} records are gone (safehold worker --accept-gap goes on without them and marks the accounts)"
        )


class SnapshotMoved(SnapshotError):
    """The partition was written to while it was read. Take the snapshot between two flushes."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What one snapshot is."""

    partition: int
    applied: int
    accounts: int
    size: int
    sha256: str
    meta: StoreMeta


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did."""

    manifest: Manifest
    epoch: int
    skipped: tuple[str, ...]
    """Why newer snapshots were not used."""
    gap: tuple[int, int] | None
    """First and last missing ledger offset, when a gap was accepted."""


class Snapshots:
    """The snapshots of every partition under one folder.

    `at_step` is called after each numbered step; tests crash there.
    """

    def __init__(
        self,
        folder: Path,
        meta: StoreMeta,
        *,
        keep: int = KEEP,
        at_step: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._folder = folder
        self._meta = meta
        self._keep = keep
        self._at_step = at_step

    # -- taking -----------------------------------------------------------------------------------------------------------

    async def take(self, partition: int, applied: int, store: StateStore, epoch: int) -> Manifest:
        """Copy a partition out of its store. `applied` is that of the stored head; nothing may be written meanwhile.

        Raises `FenceLost` when the partition is not ours any more, `SnapshotMoved` when it was written to by us.
        """
        head = await store.load_head(partition)
        if head is None:
            raise SnapshotError(f"partition {partition} has no head yet: there is nothing to keep")
        control = await store.load_control(partition)
        manifest = await self.write(
            partition,
            applied,
            head,
            control,
            store.load_accounts(partition),
            settled=_Settled(store, partition, epoch, head),
        )
        return manifest

    async def write(
        self,
        partition: int,
        applied: int,
        head: bytes,
        control: bytes | None,
        accounts: AsyncIterable[list[Account]],
        *,
        settled: _Settled | None = None,
    ) -> Manifest:
        """Write a snapshot from its parts, all as of `applied`. File work is done in threads."""
        folder = self._of(partition)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        data = folder / f"{applied:020}.snap"
        if (there := await asyncio.to_thread(self._whole, data)) is not None:
            return there
        writer = await asyncio.to_thread(
            _Writer, _temporary(data), partition, applied, self._meta, head, control
        )
        try:
            async for chunk in accounts:
                await asyncio.to_thread(writer.add, chunk)
            if settled is not None:
                await settled.check()
            await asyncio.to_thread(writer.finish)
        except BaseException:
            writer.abandon()
            raise
        self._at_step(1)
        manifest = Manifest(
            partition=partition,
            applied=applied,
            accounts=writer.accounts,
            size=writer.size,
            sha256=writer.sha256,
            meta=self._meta,
        )
        await asyncio.to_thread(self._publish, data, writer, manifest)
        return manifest

    def _publish(self, data: Path, writer: _Writer, manifest: Manifest) -> None:
        writer.sync()
        self._at_step(2)
        _temporary(data).replace(data)
        self._at_step(3)
        described = data.with_suffix(".json")
        with _temporary(described).open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._at_step(4)
        _temporary(described).replace(described)
        self._at_step(5)
        for parent in list(data.parents)[:3]:
            _sync_folder(parent)
        self._at_step(6)
        self._prune(data)
        self._at_step(7)

    def _prune(self, written: Path) -> None:
        """Remove old snapshots (manifest first, so that no manifest is ever without data) and what crashes left."""
        folder = written.parent
        kept = {path.stem for path in sorted(folder.glob("*.json"))[-self._keep :]} | {written.stem}
        for pattern in ("*.json", "*.snap", "*.tmp"):
            for path in folder.glob(pattern):
                if path.stem not in kept or pattern == "*.tmp":
                    path.unlink(missing_ok=True)

    def _whole(self, data: Path) -> Manifest | None:
        """The manifest of a snapshot that is there and is ours, if it is whole."""
        try:
            manifest = self._manifest(data.with_suffix(".json"))
            _verify(data, manifest)
        except SnapshotError:
            return None
        return None if self._meta.differences(manifest.meta) else manifest

    # -- using ------------------------------------------------------------------------------------------------------------

    def list(self, partition: int) -> list[Manifest]:
        """The snapshots of a partition, newest first. Their data is not read; an unreadable manifest is left out."""
        found = []
        for path in sorted(self._of(partition).glob("*.json"), reverse=True):
            with contextlib.suppress(SnapshotError):
                found.append(self._manifest(path))
        return found

    def newest_time(self, partition: int) -> float | None:
        """When the newest snapshot was finished, in seconds since 1970; None without one."""
        found = sorted(self._of(partition).glob("*.json"))
        try:
            return found[-1].stat().st_mtime if found else None
        except OSError:
            return None

    def newest(self, partition: int) -> tuple[Manifest, Path, tuple[str, ...]]:
        """The newest snapshot that is whole, and why newer ones are not used. Reads all of its data once."""
        skipped: list[str] = []
        for path in sorted(self._of(partition).glob("*.json"), reverse=True):
            try:
                manifest = self._manifest(path)
                _verify(path.with_suffix(".snap"), manifest)
            except SnapshotError as problem:
                skipped.append(f"{path.stem}: {problem}")
                continue
            if problems := self._meta.differences(manifest.meta):
                skipped.append(f"{path.stem}: {'; '.join(problems)}")
                continue
            return manifest, path.with_suffix(".snap"), tuple(skipped)
        why = "; ".join(skipped) or "there is none"
        raise SnapshotError(f"partition {partition}: no snapshot can be used: {why}")

    async def restore(
        self,
        partition: int,
        store: StateStore,
        *,
        log_start: int,
        accept_gap: bool = False,
        epoch: int | None = None,
    ) -> Restored:
        """Put the newest good snapshot into the store, whatever was there. The head comes last: until then there is none.

        `log_start` is the first offset that the ledger still holds. If it is beyond the snapshot's next one, `SnapshotGap`,
        before anything is touched, unless the gap is accepted; then whoever goes on from there marks the accounts
        (`PartitionState.accept_gap`).
        Without an `epoch` that the caller has claimed, this claims one.
        """
        manifest, path, skipped = await asyncio.to_thread(self.newest, partition)
        gap = None
        if log_start > manifest.applied + 1:
            if not accept_gap:
                raise SnapshotGap(partition, manifest.applied, log_start)
            gap = (manifest.applied + 1, log_start - 1)
        if epoch is None:
            epoch = await store.claim(partition)
        await store.clear_partition(partition, epoch)
        with path.open("rb") as file:
            head, control = _read_header(file, manifest)
            records = _read_records(file, manifest.accounts)
            while chunk := await asyncio.to_thread(lambda: [*_take(records, _READ_CHUNK)]):
                await flush_accounts(store, partition, epoch, chunk)
        if control is not None:
            await store.write_control(partition, epoch, control)
        await store.write_head(partition, epoch, None, manifest.applied, head)
        return Restored(manifest=manifest, epoch=epoch, skipped=skipped, gap=gap)

    def _of(self, partition: int) -> Path:
        return self._folder / self._meta.generation / f"p{partition}"

    @staticmethod
    def _manifest(path: Path) -> Manifest:
        try:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as problem:
            raise SnapshotError(f"its manifest cannot be read ({type(problem).__name__})") from None
        if path.stem != f"{manifest.applied:020}" or path.parent.name != f"p{manifest.partition}":
            raise SnapshotError("its manifest is that of another snapshot")
        return manifest


class _Settled:
    """Whether a partition is, after it was read, what it was before."""

    def __init__(self, store: StateStore, partition: int, epoch: int, head: bytes) -> None:
        self._store, self._partition, self._epoch, self._head = store, partition, epoch, head

    async def check(self) -> None:
        await self._store.confirm(self._partition, self._epoch)
        if await self._store.load_head(self._partition) != self._head:
            raise SnapshotMoved(f"partition {self._partition} was written to while it was read")


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    partition: int
    applied: int
    meta: StoreMeta
    head: bytes
    control: bytes | None


class _Writer:
    """The data file while it grows."""

    def __init__(
        self, path: Path, partition: int, applied: int, meta: StoreMeta, head: bytes, control: bytes | None
    ) -> None:
        self._path = path
        self._file: BinaryIO = path.open("wb")
        self._hash = hashlib.sha256()
        self.accounts = 0
        self.size = 0
        header = msgspec.msgpack.encode(
            _Header(partition=partition, applied=applied, meta=meta, head=head, control=control)
        )
        self._put(MAGIC + _LENGTH.pack(len(header)) + header)

    @property
    def sha256(self) -> str:
        """The checksum of everything before the checksum."""
        return self._hash.hexdigest()

    def add(self, chunk: list[Account]) -> None:
        """Append accounts."""
        self._put(b"".join(_RECORD.pack(subject, len(blob)) + blob for subject, blob in chunk))
        self.accounts += len(chunk)

    def finish(self) -> None:
        """Append the checksum."""
        digest = self._hash.digest()
        self._file.write(digest)
        self.size += len(digest)
        self._file.flush()

    def sync(self) -> None:
        """Make it durable, and close."""
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Remove what there is."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)


def _verify(path: Path, manifest: Manifest) -> None:
    """Raise `SnapshotError` unless the data is exactly what the manifest says."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != manifest.size:
                raise SnapshotError(f"its data is {size} bytes long, not {manifest.size}")
            digest = hashlib.sha256()
            left = size - _DIGEST
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
            if digest.hexdigest() != manifest.sha256 or file.read() != digest.digest():
                raise SnapshotError("its data does not have its checksum")
            file.seek(0)
            _read_header(file, manifest)
    except OSError as problem:
        raise SnapshotError(f"its data cannot be read ({type(problem).__name__})") from None


def _read_header(file: BinaryIO, manifest: Manifest) -> tuple[bytes, bytes | None]:
    if file.read(len(MAGIC)) != MAGIC:
        raise SnapshotError("its data has another format")
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    header = msgspec.msgpack.decode(file.read(length), type=_Header)
    if (header.partition, header.applied, header.meta) != (
        manifest.partition,
        manifest.applied,
        manifest.meta,
    ):
        raise SnapshotError("its data is that of another snapshot")
    return header.head, header.control


def _read_records(file: BinaryIO, accounts: int) -> Iterator[Account]:
    for _ in range(accounts):
        subject, length = _RECORD.unpack(file.read(_RECORD.size))
        yield subject, file.read(length)


def _take(records: Iterator[Account], n: int) -> Iterator[Account]:
    for _, record in zip(range(n), records, strict=False):
        yield record


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
