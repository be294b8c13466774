"""The hashes of `streams.pseudonyms` for many accounts and transactions at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.keyed import Keyed, Seen, joined, written_plainly


class PseudonymColumns:
    """Made by `Pseudonyms.columns`, of the same key."""

    def __init__(self, secret: bytes, new: list[tuple[int, str]] | None, limit: int) -> None:
        """`new`: where (subject, account) of accounts is noted that were not seen before; `limit`: how many are remembered."""
        self._accounts = Keyed(secret, b"account")
        self._new = new
        self._seen = None if new is None else Seen(1 << (limit - 1).bit_length())
        self._transactions = Keyed(secret, b"transaction")
        self._payments = Keyed(secret, b"payment")

    def subjects(self, accounts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Subjects (u64) of accounts that are written as they are hashed, and which those are (bool); 0 for the others."""
        text, ends = joined(accounts)
        plain = written_plainly(text, ends)
        found = self._accounts.column(text, ends)
        found[found == 0] = 1
        found[~plain] = 0
        if self._seen is not None and self._new is not None:
            at = np.flatnonzero(plain)
            new = at[self._seen.add(found[at])]
            self._new += zip(found[new].tolist(), [accounts[n] for n in new.tolist()], strict=True)
        return found, plain

    def transactions(
        self, ids: Sequence[str], banks: tuple[bytes, ...], which: np.ndarray
    ) -> tuple[np.ndarray, list[int]]:
        """Leg ids of the debit side (u64), and the places of ids that are not ASCII: theirs are for `Pseudonyms`.

        `banks[which[n]]` (`which` i64) is the reporting bank's name of id n, with a zero byte behind it.
        """
        text, ends = joined(ids)
        return self._transactions.column(text, ends, banks, which) << np.uint64(1), _not_ascii(text, ids)

    def payments(self, texts: Sequence[str]) -> tuple[np.ndarray, list[int]]:
        """Identities (u64) of payments by their `payment_text`, none empty; and the places of those that are not ASCII."""
        text, ends = joined(texts)
        found = self._payments.column(text, ends)
        found[found == 0] = 1
        return found, _not_ascii(text, texts)


def _not_ascii(text: np.ndarray, texts: Sequence[str]) -> list[int]:
    if not (text == 0x7F).any():  # what stands for them
        return []
    return [n for n, each in enumerate(texts) if not each.isascii()]
