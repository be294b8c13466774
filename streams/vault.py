"""The vault: from a pseudonym back to the account, for the desk, for a reason, on record.

It is a compacted topic of its own: key = the pseudonym, value = the account under AES-256-GCM, with a key that is not the
pseudonym key. Whoever can hash cannot read back; whoever reads the topic without the key learns nothing. This module makes
and reads the bytes; whoever has the Kafka clients sends and fetches them.

    key     8 bytes, big endian: the pseudonym
    value   1 (version) · length of the key id · key id · 12 bytes nonce · ciphertext and tag
    bound   the pseudonym, version and key id are authenticated: a value does not open under another pseudonym

Nonces are random. One key is good for 2^32 records; give it a successor long before (`VaultKeys`).
"""

from __future__ import annotations

import binascii
import logging
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from streams.pseudonyms import normalise

log = logging.getLogger(__name__)

VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 12
REMEMBERED = 1 << 18
"""Pseudonyms that a writer remembers having written: about 40 MB."""

_KEY_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")


class VaultError(Exception):
    """A key or record that cannot be used. The text holds neither keys nor accounts."""


class VaultRecord(NamedTuple):
    """One message of the vault topic. No value: the pseudonym is erased."""

    key: bytes
    value: bytes | None


class VaultKeys:
    """The keys of a vault by id: all of them open, the last one seals. Shows only the ids."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        if not keys:
            raise VaultError("a vault needs at least one key")
        for key_id, secret in keys:
            if not _KEY_ID.fullmatch(key_id):
                raise VaultError(
                    "the id of a vault key is 1 to 32 lower-case letters, digits, dots and hyphens"
                )
            if len(secret) != KEY_BYTES:
                raise VaultError(f"vault key {key_id} has {len(secret)} bytes, not {KEY_BYTES}")
        self._keys = {key_id: AESGCM(secret) for key_id, secret in keys}
        if len(self._keys) != len(keys):
            raise VaultError("two vault keys have the same id")
        self.current = keys[-1][0]

    def __repr__(self) -> str:
        return f"VaultKeys({', '.join(self._keys)})"

    @classmethod
    def load(cls, path: str | Path, *, unlike: bytes = b"") -> VaultKeys:
        """From a file of lines `id:64 hexadecimal digits`, the oldest key first. Blank lines and `#` lines do not count.

        `unlike` is the pseudonym key: using it here too would let everyone who hashes read back, so it is refused.
        """
        keys = []
        for number, line in enumerate(
            Path(path).read_text(encoding="ascii", errors="replace").splitlines(), 1
        ):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            key_id, _, digits = line.strip().partition(":")
            try:
                secret = binascii.unhexlify(digits.strip())
            except (binascii.Error, ValueError):
                secret = b""
            if len(secret) != KEY_BYTES:
                raise VaultError(
                    f"line {number}: a vault key is written id:{2 * KEY_BYTES} hexadecimal digits"
                )
            if secret == unlike:
                raise VaultError(f"line {number}: this is the pseudonym key; the vault needs one of its own")
            keys.append((key_id.strip(), secret))
        return cls(keys)

    def seal(self, pseudonym: int, account: str) -> VaultRecord:
        """The record that says which account a pseudonym is."""
        head = bytes([VERSION, len(self.current)]) + self.current.encode()
        nonce = os.urandom(NONCE_BYTES)
        key = pseudonym.to_bytes(8, "big")
        sealed = self._keys[self.current].encrypt(nonce, account.encode(), key + head)
        return VaultRecord(key, head + nonce + sealed)

    def open(self, key: bytes, value: bytes) -> str:
        """The account of a record. Raises `VaultError` for one that is damaged, moved, or under an unknown key."""
        if len(value) < 2 or value[0] != VERSION:
            raise VaultError("a vault record of another version")
        head = value[: 2 + value[1]]
        key_id = head[2:].decode("ascii", errors="replace")
        nonce = value[len(head) : len(head) + NONCE_BYTES]
        sealed = value[len(head) + NONCE_BYTES :]
        cipher = self._keys.get(key_id)
        if cipher is None:
            raise VaultError(f"no vault key {key_id!r}: it may have been retired too early")
        try:
            return cipher.decrypt(nonce, sealed, key + head).decode()
        except (InvalidTag, ValueError):
            raise VaultError("a vault record that is damaged or belongs to another pseudonym") from None


def tombstone(pseudonym: int) -> VaultRecord:
    """The record that erases a pseudonym from the vault, once the topic is compacted."""
    return VaultRecord(pseudonym.to_bytes(8, "big"), None)


class VaultWriter:
    """Seals each pseudonym once, as far as it remembers; one that it forgot is sealed again, which does no harm.

    A pseudonym that comes with a second account is a collision (docs/adr/0003-sixty-four-bit-ids.md): the second one is not
    sealed, and the operator is told: a log line, and `collided` once for each such pseudonym.
    """

    def __init__(
        self,
        keys: VaultKeys,
        *,
        remembered: int = REMEMBERED,
        collided: Callable[[], None] = lambda: None,
    ) -> None:
        self._keys = keys
        self._limit = remembered
        self._collided = collided
        self._written: OrderedDict[int, int] = OrderedDict()
        """Pseudonym → hash of its account, in this process only."""
        self._sealed: dict[int, int] = {}
        self.collisions: set[int] = set()

    def seal(self, pairs: Iterable[tuple[int, str]]) -> list[VaultRecord]:
        """Records of the pairs that are not known to be in the topic. Call `written` when they are acknowledged."""
        records = []
        if len(self._sealed) >= self._limit:
            self._sealed.clear()
        for pseudonym, account in pairs:
            mark = hash(normalise(account))
            known = self._written.get(pseudonym, self._sealed.get(pseudonym))
            if known is not None and known != mark:
                self._tell(pseudonym)
            elif pseudonym not in self._written:
                self._sealed[pseudonym] = mark
                records.append(self._keys.seal(pseudonym, account))
        return records

    def _tell(self, pseudonym: int) -> None:
        if pseudonym in self.collisions:
            return
        self.collisions.add(pseudonym)
        self._collided()
        # Neither the pseudonym nor an account: docs/runbooks/pseudonym-collision.md says how to find them.
        log.critical("two accounts have one pseudonym", extra={"count": len(self.collisions)})

    def written(self, records: Iterable[VaultRecord]) -> None:
        """These are in the topic. What was sealed and is not among them counts as not sealed."""
        for record in records:
            pseudonym = int.from_bytes(record.key, "big")
            if record.value is None:
                self._written.pop(pseudonym, None)
            elif (mark := self._sealed.get(pseudonym)) is not None:
                self._written[pseudonym] = mark
                self._written.move_to_end(pseudonym)
                if len(self._written) > self._limit:
                    self._written.popitem(last=False)
        self._sealed.clear()


class Reading(NamedTuple):
    """What the audit is told before anything is shown."""

    pseudonym: int
    who: str
    reason: str


class VaultReader:
    """The desk's side: keeps the topic's ciphertexts and opens one at a time, after the audit has been told."""

    def __init__(self, keys: VaultKeys, audit: Callable[[Reading], None]) -> None:
        self._keys = keys
        self._audit = audit
        self._records: dict[bytes, bytes] = {}
        self.collisions: set[int] = set()
        """Pseudonyms under which the topic holds two accounts: neither is shown."""

    def absorb(self, key: bytes, value: bytes | None) -> None:
        """Take in one message of the topic, in offset order."""
        if value is None:
            self._records.pop(key, None)
            return
        old = self._records.get(key)
        if old is not None and normalise(self._keys.open(key, old)) != normalise(self._keys.open(key, value)):
            self.collisions.add(int.from_bytes(key, "big"))
        self._records[key] = value

    def reveal(self, pseudonym: int, *, who: str, reason: str) -> str | None:
        """The account, or None when the vault does not have it. If the audit raises, nothing is shown."""
        if not who.strip() or not reason.strip():
            raise VaultError("the vault is opened by somebody, for a reason")
        self._audit(Reading(pseudonym, who, reason))
        if pseudonym in self.collisions:
            raise VaultError("two accounts have this pseudonym: neither is shown")
        key = pseudonym.to_bytes(8, "big")
        value = self._records.get(key)
        return None if value is None else self._keys.open(key, value)
