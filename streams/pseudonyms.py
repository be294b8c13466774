"""Keyed hashes: what stands for accounts, transactions and payments everywhere behind intake.

BLAKE2b keyed with a secret of the deployment, one personalisation a kind, so that the same text as an account and as a
place gives unrelated numbers. Why 64 bits are enough, and where they are not: `docs/adr/0003-sixty-four-bit-ids.md`.
"""

from __future__ import annotations

import binascii
import os
import re
from collections.abc import Callable, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from detectors.model import DAY

if TYPE_CHECKING:
    from streams.pseudonym_columns import PseudonymColumns

KEY_BYTES = 32
KEY_VARIABLE = "SAFEHOLD_PSEUDONYM_KEY"
_KEY_ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")
_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_MASK_64 = (1 << 64) - 1
_Key = TypeVar("_Key", str, int)


class BadKey(ValueError):
    """A pseudonym key that cannot be used. The text never holds the key."""


class PseudonymKey:
    """A secret and its version. Shows only the version."""

    __slots__ = ("_secret", "id")

    def __init__(self, id: str, secret: bytes) -> None:  # noqa: A002
        if not _KEY_ID.fullmatch(id):
            raise BadKey("the id of a pseudonym key is 1 to 32 lower-case letters, digits, dots and hyphens")
        if len(secret) != KEY_BYTES:
            raise BadKey(f"a pseudonym key has {KEY_BYTES} bytes, not {len(secret)}")
        self.id = id
        self._secret = secret

    def reveal(self) -> bytes:
        """The secret itself."""
        return self._secret

    def __repr__(self) -> str:
        return f"PseudonymKey({self.id!r}, ********)"

    @classmethod
    def parse(cls, text: str, where: str) -> PseudonymKey:
        """`id:64 hexadecimal digits`."""
        name, colon, digits = text.strip().partition(":")
        try:
            secret = binascii.unhexlify(digits.strip())
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise BadKey(f"{where}: a pseudonym key is written id:{2 * KEY_BYTES} hexadecimal digits")
        return cls(name.strip(), secret)

    @classmethod
    def load(cls, path: str | Path) -> PseudonymKey:
        """From a file that holds one line."""
        return cls.parse(Path(path).read_text(encoding="ascii", errors="replace"), str(path))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> PseudonymKey | None:
        """From `SAFEHOLD_PSEUDONYM_KEY`; None when it is not set."""
        text = environment.get(KEY_VARIABLE, "")
        return cls.parse(text, KEY_VARIABLE) if text else None

    @classmethod
    def generate(cls, id: str) -> PseudonymKey:  # noqa: A002
        """A new one from the system's random source."""
        return cls(id, os.urandom(KEY_BYTES))

    def line(self) -> str:
        """What a key file holds."""
        return f"{self.id}:{self._secret.hex()}\n"


PUBLIC_KEY = PseudonymKey("public", b"safehold: not a secret, for data".ljust(KEY_BYTES, b"."))
"""For the demo and for judging published data. Hides nothing: a worker refuses it outside the demo."""


class Memo(dict[_Key, int]):
    """`memo[key]` computes once and remembers. Forgets everything when full: a recomputation costs a microsecond."""

    __slots__ = ("_compute", "_limit")

    def __init__(self, compute: Callable[[_Key], int], limit: int) -> None:
        super().__init__()
        self._compute: Callable[[_Key], int] = compute
        self._limit = limit

    def __missing__(self, key: _Key) -> int:
        if len(self) >= self._limit:
            self.clear()
        value = self._compute(key)
        self[key] = value
        return value


def normalise(account: str) -> str:
    """One spelling of an account: an IBAN without blanks and in capitals, anything else without outer blanks."""
    bare = account.replace(" ", "").upper()
    return bare if _IBAN.fullmatch(bare) else account.strip()


def qualify(account: str, bank: str) -> str:
    """An account identifier that is unique over banks: the IBAN itself, else `BANK/number` when the bank is known."""
    bare = account.replace(" ", "").upper()
    if _IBAN.fullmatch(bare):
        return bare
    bare = account.strip()
    return f"{bank}/{bare}" if bare and bank else bare


def payment_text(uetr: str, end_to_end_id: str, amount: int, currency: str, time: int) -> str:
    """What both banks' reports of one payment share: the UETR, else own reference + amount + date; empty = nothing."""
    if uetr:
        return uetr.lower()
    if end_to_end_id:
        return f"{end_to_end_id}\0{amount}\0{currency}\0{time // DAY}"
    return ""


class Pseudonyms:
    """All hashes of one deployment. Keep one: its memos make repeated accounts free."""

    def __init__(self, key: PseudonymKey, *, memo: int = 1 << 19, remember_new: bool = False) -> None:
        self.key_id = key.id
        secret = key.reveal()
        self._account = blake2b(digest_size=8, key=secret, person=b"account")
        self._transaction = blake2b(digest_size=8, key=secret, person=b"transaction")
        self._payment = blake2b(digest_size=8, key=secret, person=b"payment")
        self._place = blake2b(digest_size=4, key=secret, person=b"place")
        self._customer = blake2b(digest_size=8, key=secret, person=b"customer")
        self._new: list[tuple[int, str]] | None = [] if remember_new else None
        self._secret, self._limit = secret, memo
        self.accounts: Memo[str] = Memo(self._hash_account, memo)
        """account → subject, remembered. `accounts[text]` is the fast form of `account(text)`."""
        self.places: Memo[str] = Memo(self._hash_place, 1 << 16)

    def _hash_account(self, account: str) -> int:
        name = normalise(account)
        if not name:
            return 0
        state = self._account.copy()
        state.update(name.encode())
        # 0 means "none usable" in a leg.
        subject = int.from_bytes(state.digest(), "little") or 1
        if self._new is not None:
            self._new.append((subject, account))
        return subject

    def _hash_place(self, place: str) -> int:
        if not place:
            return 0
        state = self._place.copy()
        state.update(" ".join(place.casefold().split()).encode())
        return int.from_bytes(state.digest(), "little") or 1

    def account(self, account: str) -> int:
        """Subject of an account, 64 bits, never 0; 0 for an empty text."""
        return self.accounts[account] if account else 0

    @cached_property
    def columns(self) -> PseudonymColumns:
        """The same hashes, a column at a time."""
        from streams.pseudonym_columns import (
            PseudonymColumns,  # a command that hashes one account need not wait for numba
        )

        return PseudonymColumns(self._secret, self._new, self._limit)

    def customer(self, customer: str) -> int:
        """Keyed hash of a customer number."""
        state = self._customer.copy()
        state.update(customer.strip().encode())
        return int.from_bytes(state.digest(), "little") or 1

    def transaction_of(self, bank: str) -> Callable[[str], int]:
        """The function from a bank's transaction ids to leg ids of the debit side; `| 1` is the credit side.

        63 bits of (reporting bank, its transaction id), then the side.
        """
        start = self._transaction.copy()
        start.update(f"{bank}\0".encode())
        copy, make = start.copy, int.from_bytes

        def transaction(tx_id: str) -> int:
            state = copy()
            state.update(tx_id.encode())
            return (make(state.digest(), "little") << 1) & _MASK_64

        return transaction

    def transaction(self, bank: str, tx_id: str) -> int:
        """Leg id of the debit side of one transaction."""
        return self.transaction_of(bank)(tx_id)

    def payment(self, uetr: str, end_to_end_id: str, amount: int, currency: str, time: int) -> int:
        """Identity of a payment; 0 = none."""
        text = payment_text(uetr, end_to_end_id, amount, currency, time)
        if not text:
            return 0
        state = self._payment.copy()
        state.update(text.encode())
        return int.from_bytes(state.digest(), "little") or 1

    def place(self, place: str) -> int:
        """Place at city grain, 32 bits; 0 = unknown."""
        return self.places[place]

    def take_new(self) -> list[tuple[int, str]]:
        """(subject, account) of accounts hashed since the last call, for the vault; a forgotten one may come again."""
        if not self._new:
            return []
        taken = self._new.copy()
        self._new.clear()
        return taken
