"""Parquet, CSV and JSONL through a mapping: batches of payments, or `LEG` rows at once.

Both ways read the same `Columns`, so they cannot differ in what a row means, and are tested to give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from detectors.model import COUNT, DAY, LEG, MAX_AMOUNT, ClassSource
from streams.formats.codes import CLASSES, complete
from streams.formats.columns import Coded, ColumnReader, Columns
from streams.formats.mapping import Mapping
from streams.formats.tables import BATCH, BadFile, json_lines, json_parts, open_tables, wanted_columns
from streams.legs import COORDINATE_BITS, HAS_LEG, to_u
from streams.payment import Party, Payment, Reason, Rejected
from streams.pseudonyms import Pseudonyms
from streams.rows import partitions_of

__all__ = ["BadFile", "LegRows", "MappedDecoder", "read_columns", "read_file"]

_CASH = CLASSES["cash"]
_HAS_LEG = np.array(HAS_LEG)


class LegRows(NamedTuple):
    """`LEG` rows of one batch of a file."""

    first: int
    """Number of the batch's first row in the file."""
    rows: np.ndarray
    """`LEG`, in the order of the file, debit before credit. Their coordinate is the row number << 20 | side + 1."""
    counts: np.ndarray
    """`COUNT`, one a day of event time."""
    transactions: list[str]
    """The file's transaction ids, one a row of the file. `rows["coordinate"] >> 20` minus `first` is the index."""
    refused: list[Rejected]
    sources: tuple[str, ...]
    banks: tuple[str, ...]

    def split(self, partitions: int) -> dict[int, np.ndarray]:
        """Ledger partition → its rows."""
        where = partitions_of(self.rows["subject"], partitions)
        return {int(p): self.rows[where == p] for p in np.unique(where)}


def read_file(
    path: str | Path, mapping: Mapping, *, batch: int = BATCH
) -> Iterator[list[Payment | Rejected]]:
    """A whole file as payments, in its order. `Rejected.index` is the row's number in the file, from 0."""
    reader = _Reader(mapping)
    for table, first, broken in open_tables(Path(path), mapping, batch):
        yield reader.payments(reader.columns(table, first), broken)


def read_columns(
    path: str | Path,
    mapping: Mapping,
    pseudonyms: Pseudonyms,
    rates: MappingType[str, int],
    *,
    batch: int = BATCH,
) -> Iterator[LegRows]:
    """A whole file as `LEG` rows: the same rows as `read_file` through `LegBuilder`, at several times the speed.

    A file has no append time: each row counts as received when it happened.
    """
    reader = _Reader(mapping)
    source = f"{Path(path).name}/0"
    for table, first, broken in open_tables(Path(path), mapping, batch):
        yield reader.legs(reader.columns(table, first), broken, pseudonyms, rates, source)


class MappedDecoder:
    """JSON messages of a topic through a mapping: an object a message, or an array of them."""

    def __init__(self, mapping: Mapping) -> None:
        self._reader = _Reader(mapping)
        self._mapping = mapping

    def decode(self, value: bytes, max_bytes: int = 16 * 1024 * 1024) -> list[Payment | Rejected]:
        """One message. A bad item costs only itself."""
        if len(value) > max_bytes:
            return [Rejected(Reason.OVERSIZED, f"more than {max_bytes} bytes")]
        try:
            raws = json_parts.decode(value) if value.lstrip()[:1] == b"[" else [msgspec.Raw(value)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return [Rejected(Reason.UNDECODABLE, "not JSON")]
        table, broken = json_lines([bytes(raw) for raw in raws], 0, wanted_columns(self._mapping))
        return self._reader.payments(self._reader.columns(table, 0), broken)


class _Reader(ColumnReader):
    """Columns → payments, and columns → rows."""

    def __init__(self, mapping: Mapping) -> None:
        super().__init__(mapping)
        self.banks: dict[str, int] = {}

    def payments(self, columns: Columns, broken: dict[int, Rejected]) -> list[Payment | Rejected]:
        """One batch as payments."""
        refused = columns.refused | broken
        items: list[Payment | Rejected] = []
        bank, system_wide = self.mapping.bank, self.mapping.system_wide
        texts = columns.texts
        empty = [""] * columns.size
        sides = [
            zip(
                getattr(columns, side).list(),
                getattr(columns, f"{side}_bank").list(),
                getattr(columns, f"{side}_class").tolist(),
                getattr(columns, f"{side}_source").tolist(),
                getattr(columns, f"{side}_external").tolist(),
                getattr(columns, f"{side}_nameless").tolist(),
                strict=True,
            )
            for side in ("debtor", "creditor")
        ]
        rows = zip(
            columns.tx_ids, columns.time.tolist(), columns.amount.tolist(), columns.currency.list(), *sides,
            columns.channel.tolist(), columns.purpose.tolist(), columns.status.tolist(),
            texts.get("refers_to", empty), texts.get("uetr", empty), texts.get("end_to_end_id", empty),
            texts.get("place", empty), columns.only_side.tolist(),
            strict=True,
        )  # fmt: skip
        for row, (
            tx_id, time, amount, currency, debtor, creditor, channel, purpose, status, refers_to, uetr, end_to_end_id, place,
            only_side,
        ) in enumerate(rows):  # fmt: skip
            if row in refused:
                items.append(refused[row])
                continue
            payer, payee = _party(debtor, system_wide), _party(creditor, system_wide)
            if not (payer.account and payee.account):
                complete(payer, payee, channel)
            items.append(
                Payment(
                    bank, tx_id, time, amount, currency, payer, payee, self.precision, channel, purpose, status,
                    refers_to if status else "", uetr.lower(), "" if end_to_end_id == "NOTPROVIDED" else end_to_end_id,
                    place, 0, only_side,
                )
            )  # fmt: skip
        return items

    def legs(
        self,
        columns: Columns,
        broken: dict[int, Rejected],
        pseudonyms: Pseudonyms,
        rates: MappingType[str, int],
        source: str,
    ) -> LegRows:
        """One batch as rows. The rules are those of `LegBuilder.add`, on whole columns."""
        size, m = columns.size, self.mapping
        refused = columns.refused | broken
        u_micro = np.array([rates.get(code, 0) for code in columns.currency.values], np.int64)[
            columns.currency.codes
        ]
        payer, payer_party, payer_class = _subjects(
            columns.debtor, columns.debtor_nameless, columns.debtor_class, pseudonyms
        )
        payee, payee_party, payee_class = _subjects(
            columns.creditor, columns.creditor_nameless, columns.creditor_class, pseudonyms
        )
        payer_class, payee_class = _completed(columns, payer, payee, payer_class, payee_class)
        amount = columns.amount
        columns.refused = refused
        columns.refuse_where(amount > MAX_AMOUNT, Reason.ABSURD_AMOUNT, "amount: above 10^12 minor units")
        columns.refuse_where(
            u_micro == 0, Reason.NO_RATE, "currency: no rate to u in this deployment's table"
        )
        small = np.where((amount > MAX_AMOUNT) | (amount < 0), 0, amount)
        amount_u = to_u(small, u_micro)
        columns.refuse_where(amount_u > MAX_AMOUNT, Reason.ABSURD_AMOUNT, "amount: above 10^12 u-cents")
        good = np.ones(size, np.bool_)
        good[list(refused)] = False
        effect = good & (amount != 0) & (payer != payee)
        legs = []
        banks = {side: self._bank_index(getattr(columns, f"{side}_bank")) for side in ("debtor", "creditor")}
        for side, subject, cls, external in (
            ("debtor", payer, payer_class, columns.debtor_external),
            ("creditor", payee, payee_class, columns.creditor_external),
        ):
            held = (
                np.ones(size, np.bool_)
                if m.system_wide
                else getattr(columns, f"{side}_bank").where(lambda b: b == m.bank)
            )
            only = columns.only_side != (1 if side == "debtor" else 0)
            legs.append(effect & (subject != 0) & (external == 0) & held & _HAS_LEG[cls] & only)
        has_debit, has_credit = legs
        rows = np.zeros(size * 2, LEG)
        makes = np.zeros(size * 2, np.bool_)
        makes[0::2], makes[1::2] = has_debit, has_credit
        either = np.flatnonzero(has_debit | has_credit)
        transaction = np.zeros(size, np.uint64)
        hasher = pseudonyms.transaction_of(m.bank)
        refers = columns.texts.get("refers_to")
        ids = columns.tx_ids
        if refers is not None and columns.status.any():
            ids = [refers[row] if status else ids[row] for row, status in enumerate(columns.status.tolist())]
        transaction[either] = np.fromiter(
            (hasher(ids[row]) for row in either.tolist()), np.uint64, len(either)
        )
        payment = self._payments_of(columns, either, pseudonyms)
        places = columns.texts.get("place")
        place = (
            np.zeros(size, np.uint32)
            if places is None
            else np.array([pseudonyms.places[p] for p in places], np.uint32)
        )
        codes = np.array([code.encode() for code in columns.currency.values], "S3")[columns.currency.codes]
        for bit, subject, party, cls, party_source, bank in (
            (0, payer, payee_party, payee_class, columns.creditor_source, banks["debtor"]),
            (1, payee, payer_party, payer_class, columns.debtor_source, banks["creditor"]),
        ):
            half = rows[bit::2]
            half["subject"] = subject
            half["leg"] = transaction | np.uint64(bit)
            half["party"] = np.where(cls == _CASH, np.uint64(0), party)
            half["time"] = half["received"] = columns.time
            half["amount"], half["amount_u"] = small, np.minimum(amount_u, MAX_AMOUNT)
            half["payment"] = payment
            half["coordinate"] = (np.arange(size, dtype=np.int64) + columns.first) << COORDINATE_BITS | (
                bit + 1
            )
            half["place"], half["currency"], half["bank"] = place, codes, bank
            half["party_class"] = cls
            half["class_source"] = np.where(
                (party_source == 0) & (cls != 0), ClassSource.MAPPING, party_source
            )
            half["channel"], half["purpose"], half["status"] = (
                columns.channel,
                columns.purpose,
                columns.status,
            )
            half["precision"] = self.precision
        no_leg = np.where(good, 2 - has_debit.astype(np.int64) - has_credit, 0)
        return LegRows(
            columns.first,
            rows[makes],
            _counts(columns, good, effect, no_leg),
            columns.tx_ids,
            [refused[row] for row in sorted(refused)],
            (source,),
            tuple(self.banks),
        )

    def _bank_index(self, coded: Coded) -> np.ndarray:
        indices = [
            self.banks.setdefault(value or self.mapping.bank, len(self.banks)) for value in coded.values
        ]
        return np.array(indices, np.uint16)[coded.codes]

    def _payments_of(self, columns: Columns, rows: np.ndarray, pseudonyms: Pseudonyms) -> np.ndarray:
        payment = np.zeros(columns.size, np.uint64)
        uetrs, references = columns.texts.get("uetr"), columns.texts.get("end_to_end_id")
        if uetrs is None and references is None:
            return payment
        currencies, amounts, times = columns.currency.list(), columns.amount.tolist(), columns.time.tolist()
        for row in rows.tolist():
            reference = references[row] if references is not None else ""
            payment[row] = pseudonyms.payment(
                uetrs[row].lower() if uetrs is not None else "",
                "" if reference == "NOTPROVIDED" else reference,
                amounts[row],
                currencies[row],
                times[row],
            )
        return payment


def _party(side: tuple[str, str, int, int, int, int], system_wide: bool) -> Party:
    account, bank, cls, source, external, nameless = side
    return Party("" if nameless else account, bank, cls, source, bool(external))


def _subjects(
    accounts: Coded, nameless: np.ndarray, cls: np.ndarray, pseudonyms: Pseudonyms
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    memo = pseudonyms.accounts
    hashes = np.fromiter((memo[a] if a else 0 for a in accounts.values), np.uint64, len(accounts.values))[
        accounts.codes
    ]
    subject = np.where(nameless != 0, np.uint64(0), hashes)
    return subject, subject, cls


def _completed(
    columns: Columns, payer: np.ndarray, payee: np.ndarray, payer_class: np.ndarray, payee_class: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`codes.complete` on the few rows that it can concern."""
    lacking = ((payer == 0) & (payer_class == 0)) | ((payee == 0) & (payee_class == 0))
    if not lacking.any():
        return payer_class, payee_class
    payer_class, payee_class = payer_class.copy(), payee_class.copy()
    for row in np.flatnonzero(lacking).tolist():
        debtor = Party("x" if payer[row] else "", "", int(payer_class[row]))
        creditor = Party("x" if payee[row] else "", "", int(payee_class[row]))
        complete(debtor, creditor, int(columns.channel[row]))
        payer_class[row], payee_class[row] = debtor.cls, creditor.cls
    return payer_class, payee_class


def _counts(columns: Columns, good: np.ndarray, effect: np.ndarray, no_leg: np.ndarray) -> np.ndarray:
    days = np.where(good, columns.time, columns.time[good].max() if good.any() else 0) // DAY
    found, first, inverse = np.unique(days, return_index=True, return_inverse=True)
    counts = np.zeros(len(found), COUNT)
    if len(found):
        counts["coordinate"] = (first + columns.first) << COORDINATE_BITS
        counts["day"] = found
        for name, values in (
            ("accepted", good), ("rejected", ~good), ("no_effect", good & ~effect), ("no_leg", no_leg),
        ):  # fmt: skip
            counts[name] = np.bincount(inverse, weights=values, minlength=len(found)).astype(np.uint32)
    return counts
