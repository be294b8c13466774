"""An invented bank of any size, from one seed: accounts with contacts, wages, shops and a few who pass money on.

10,000 accounts with 1.2 legs a day each are the shape of the synthetic sets that detectors are tried on. A larger bank is
copies of it under other pseudonyms, so that a million accounts with full windows are there in a minute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from detectors import window
from detectors.config import demo_config
from detectors.model import DAY, HOUR, LEG, Channel, Frame, Kind, PartyClass
from detectors.settings import FoldSettings
from detectors.state import PartitionState
from detectors.step import new_state, step
from streams.pseudonyms import PseudonymKey, Pseudonyms

KEY = PseudonymKey("k1", bytes(range(32)))
BANK = "demo-bank"
START = 19_900 * DAY
"""2024-06-26: behind every clock."""
SINCE = "2023-05-23"
ACCOUNTS = 10_000
LEGS_A_DAY = 1.2
DAYS = 100
CONTACTS = 8
EMPLOYERS = 200
SHOPS = 800
INTERNAL, SHOP, WAGE = 0, 1, 2
SHARES = (0.72, 0.18, 0.10)
MULES = 0.0006
"""Share of accounts that pass money on all the time: 0.15 % of the payments, as in the synthetic sets."""
FRAME_ROWS = 4_000
FILL_DAYS = 45
"""Days until every window is as full as it gets: 32 of look-back, 7¼ until a leg may close, and some."""


@dataclass(frozen=True)
class Moves:
    """Payments in the order of their time, by columns. Accounts are numbers; shops and employers have ranges of their own."""

    time: np.ndarray
    payer: np.ndarray
    payee: np.ndarray
    amount: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.time)

    def take(self, chosen: np.ndarray | slice) -> Moves:
        """Some of them."""
        return Moves(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


class Population:
    """The accounts of the bank, and what they do."""

    def __init__(self, accounts: int = ACCOUNTS, seed: int = 1, mules: float = MULES) -> None:
        rng = np.random.default_rng([seed, accounts])
        self.accounts = accounts
        self._seed = seed
        self._activity = np.cumsum(rng.lognormal(0.0, 0.6, accounts))
        self._contacts = rng.integers(0, accounts, (accounts, CONTACTS))
        self._employer = rng.integers(0, EMPLOYERS, accounts)
        self.mules = rng.choice(accounts, max(1, int(accounts * mules)), replace=False)

    def moves(self, first: float, days: float, *, legs_a_day: float = LEGS_A_DAY) -> Moves:
        """What happens from day `first` on."""
        rng = np.random.default_rng([self._seed, int(first * 1000), int(days * 1000)])
        n = int(self.accounts * legs_a_day * days / (2 * SHARES[0] + SHARES[1] + SHARES[2]))
        payer = self._drawn(rng, n)
        known = self._contacts[payer, rng.integers(0, CONTACTS, n)]
        payee = np.where(rng.random(n) < 0.85, known, rng.integers(0, self.accounts, n))
        payee = np.where(payee == payer, (payer + 1) % self.accounts, payee)
        kind = rng.choice(3, n, p=SHARES)
        amount = np.exp(rng.normal(8.6, 0.9, n)).astype(np.int64) + 100  # around 55.00
        wage = kind == WAGE
        amount[wage] = (rng.normal(180_000, 40_000, int(wage.sum())).clip(40_000)).astype(np.int64)
        payee = np.where(kind == SHOP, rng.integers(0, SHOPS, n), np.where(wage, payer, payee))
        payer = np.where(wage, self._employer[payer], payer)
        time = START + (first * DAY + rng.random(n) * days * DAY).astype(np.int64)
        parts = [Moves(time, payer, payee, amount, kind), self._passing(rng, first, days)]
        whole = Moves(*(np.concatenate([getattr(p, f) for p in parts]) for f in Moves.__dataclass_fields__))
        return whole.take(np.argsort(whole.time, kind="stable"))

    def _drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return np.asarray(np.searchsorted(self._activity, rng.random(n) * self._activity[-1]))

    def _passing(self, rng: np.random.Generator, first: float, days: float) -> Moves:
        """Every third day each mule gets money from three people and sends most of it on within hours."""
        rounds = rng.poisson(days / 3, len(self.mules))
        mule = np.repeat(self.mules, rounds)
        n = len(mule)
        begin = START + (first * DAY + rng.random(n) * max(days - 0.5, 0.01) * DAY).astype(np.int64)
        each = rng.integers(30_000, 90_000, n)
        rows = [(begin + k * HOUR // 2, rng.integers(0, self.accounts, n), mule, each) for k in range(3)]
        rows.append((begin + 4 * HOUR, mule, rng.integers(0, self.accounts, n), each * 28 // 10))
        time, payer, payee, amount = (np.concatenate(c) for c in zip(*rows, strict=True))
        payee = np.where(payee == payer, (payer + 1) % self.accounts, payee)
        return Moves(time, payer, payee, amount, np.zeros(len(time), np.int64))


def account_name(number: int) -> str:
    """The account as the bank writes it."""
    return f"SH{number:010d}"


def account_ids(first: int, until: int) -> np.ndarray:
    """Pseudonyms of accounts [first, until)."""
    hashed = Pseudonyms(KEY, memo=1).account
    return np.array([hashed(account_name(number)) for number in range(first, until)], np.uint64)


def outside_ids() -> tuple[np.ndarray, np.ndarray]:
    """Pseudonyms of the shops and of the employers."""
    hashed = Pseudonyms(KEY, memo=1).account
    return (
        np.array([hashed(f"SHOP{number:04d}") for number in range(SHOPS)], np.uint64),
        np.array([hashed(f"EMP{number:04d}") for number in range(EMPLOYERS)], np.uint64),
    )


def legs(moves: Moves, ids: np.ndarray, *, first_leg: int = 1, source: int = 0) -> np.ndarray:
    """`LEG` rows of these payments, in their order: one or two each."""
    shops, employers = outside_ids()
    n = len(moves)
    inside = moves.kind == INTERNAL
    payer = np.where(moves.kind == WAGE, 0, moves.payer)
    payee = np.where(inside | (moves.kind == WAGE), moves.payee, 0)
    payer_id = np.where(moves.kind == WAGE, employers[moves.payer % EMPLOYERS], ids[payer])
    payee_id = np.where(moves.kind == SHOP, shops[moves.payee % SHOPS], ids[payee])
    rows = np.zeros((n, 2), LEG)
    number = np.arange(first_leg, first_leg + n, dtype=np.uint64)
    scrambled = (number * np.uint64(0x9E3779B97F4A7C15)) << np.uint64(1)
    for side, (subject, party) in enumerate(((payer_id, payee_id), (payee_id, payer_id))):
        rows["subject"][:, side] = subject
        rows["party"][:, side] = party
        rows["leg"][:, side] = scrambled | np.uint64(side)
    for name in ("time", "received"):
        rows[name] = moves.time[:, None]
    rows["amount"] = rows["amount_u"] = moves.amount[:, None]
    rows["coordinate"] = (number.astype(np.int64)[:, None] << 20) + np.array([1, 2])
    rows["currency"] = b"EUR"
    rows["source"] = source
    cls = np.array([PartyClass.PERSONAL, PartyClass.MERCHANT, PartyClass.EMPLOYER], np.uint8)
    rows["party_class"] = cls[moves.kind][:, None]
    rows["channel"] = np.array([Channel.INSTANT, Channel.CARD, Channel.TRANSFER], np.uint8)[moves.kind][
        :, None
    ]
    has = np.stack([moves.kind != WAGE, moves.kind != SHOP], axis=1)
    return np.asarray(rows[has])


def delayed(rows: np.ndarray, share: float, most: int, seed: int = 3) -> np.ndarray:
    """The rows in the order in which they arrive when a share of them comes up to `most` µs late."""
    rng = np.random.default_rng(seed)
    late = rng.random(len(rows)) < share
    arrival = rows["time"] + np.where(late, (rng.random(len(rows)) * most).astype(np.int64), 0)
    found = rows[np.argsort(arrival, kind="stable")]
    found["coordinate"] = (np.arange(1, len(found) + 1) << 20) + 1
    return found


def frames(rows: np.ndarray, offset: int = 0, size: int = FRAME_ROWS) -> list[Frame]:
    """The rows as ledger frames."""
    return [
        Frame(
            kind=Kind.LEGS,
            offset=offset + number,
            appended=int(rows["received"][first]),
            sources=("bench/0",),
            banks=(BANK,),
            rows=rows[first : first + size],
        )
        for number, first in enumerate(range(0, len(rows), size))
    ]


def fold_settings() -> FoldSettings:
    """As a worker on this bank has them."""
    return FoldSettings(key_id=KEY.id, observed_since=int(np.datetime64(SINCE, "us").astype(np.int64)))


def empty_state(capacity: int = 1024) -> PartitionState:
    """One partition that holds every account."""
    return new_state(0, 1, fold_settings(), demo_config(), capacity)


class Copies:
    """Copies of a judged bank under other pseudonyms: account blobs of full windows, as a store holds them."""

    def __init__(self, population: Population, days: float) -> None:
        self.population = population
        self.days = days
        self.ids = account_ids(0, population.accounts)
        self.state = empty_state(population.accounts)
        for frame in frames(legs(population.moves(0, days), self.ids)):
            step(self.state, [frame])
        state = self.state
        state.mark_flushed()
        state.acc["applied"][: state.n_acc] = -1
        self._slots = state.n_acc
        self._number = self._numbers(state.acc["subject"][: state.n_acc], self.ids)
        self._row_party = state.rows["party"].copy()
        self._parties = state.parties.copy()

    @staticmethod
    def _numbers(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Number of each id; -1 for what is no account."""
        order = np.argsort(ids)
        at = np.searchsorted(ids[order], values).clip(0, len(ids) - 1)
        return np.where(ids[order][at] == values, order[at], -1)

    def blobs(self, copy: int) -> tuple[np.ndarray, list[bytes]]:
        """Subjects and blobs of the copy that holds accounts [copy · n, (copy + 1) · n)."""
        n = self.population.accounts
        ids = account_ids(copy * n, (copy + 1) * n)
        state = self.state
        acc = state.acc[: self._slots]
        acc["subject"] = ids[self._number]
        state.table[:] = -1
        window.rebuild_table(state.acc, state.n_acc, state.table)
        for target, party in ((state.rows, self._row_party), (state.parties, self._parties["party"])):
            number = self._numbers(party, self.ids)
            target["party"] = np.where(number >= 0, ids[number], party)
        self._sort_parties(acc)
        return acc["subject"].copy(), state.pack(acc["subject"])

    def _sort_parties(self, acc: np.ndarray) -> None:
        state = self.state
        count = acc["plen"].astype(np.int64)
        owner = np.repeat(np.arange(len(acc)), count)
        within = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        at = acc["poff"][owner] + within
        held = self._parties[at]
        held["party"] = state.parties["party"][at]
        state.parties[at] = held[np.lexsort((held["party"], owner))]

    def many(self, accounts: int) -> Iterator[tuple[np.ndarray, list[bytes]]]:
        """As many copies as hold so many accounts."""
        for copy in range(-(-accounts // self.population.accounts)):
            yield self.blobs(copy)


def spread(moves: Moves, copies: int, people: Population, seed: int = 5) -> Moves:
    """The same payments, each in a copy of the bank that is drawn uniformly; those of one mule stay together."""
    copy = np.random.default_rng(seed).integers(0, copies, len(moves))
    mule = np.zeros(people.accounts, np.int64)
    mule[people.mules] = 1 + np.arange(len(people.mules))
    inside = moves.kind == INTERNAL
    passing = np.where(inside, np.maximum(mule[moves.payer], mule[np.where(inside, moves.payee, 0)]), 0)
    copy = np.where(passing > 0, passing * 7919 % copies, copy) * people.accounts
    payer = np.where(moves.kind == WAGE, moves.payer, moves.payer + copy)
    payee = np.where(moves.kind == SHOP, moves.payee, moves.payee + copy)
    return Moves(moves.time, payer, payee, moves.amount, moves.kind)


def uniform(copies: Copies, accounts: int, payments: int, people: Population | None = None) -> Moves:
    """What happens after the copies' last day, by accounts drawn uniformly from a bank of this size, at its pace."""
    people = people or copies.population
    days = 1.1 * payments * sum(share * n for share, n in zip(SHARES, (2, 1, 1), strict=True))
    moves = people.moves(copies.days, days / (LEGS_A_DAY * people.accounts)).take(slice(payments))
    begin = START + int(copies.days * DAY)
    squeezed = begin + ((moves.time - begin) * (people.accounts / accounts)).astype(np.int64)
    moves = Moves(squeezed, moves.payer, moves.payee, moves.amount, moves.kind)
    return spread(moves, -(-accounts // people.accounts), people)


def messages(moves: Moves, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """Canonical messages as a bank would send them, and the number that places each in a source partition."""
    seconds = (moves.time // 1_000_000).astype("datetime64[s]").astype(str).tolist()
    micros = (moves.time % 1_000_000).tolist()
    columns = (moves.payer.tolist(), moves.payee.tolist(), moves.amount.tolist(), moves.kind.tolist())
    channels = ("instant", "card", "transfer")
    for number, (second, micro, payer, payee, amount, kind) in enumerate(
        zip(seconds, micros, *columns, strict=True), first
    ):
        debtor = (
            f'{{"account":"EMP{payer:04d}","type":"employer","type_source":"directory"}}'
            if kind == WAGE
            else f'{{"account":"SH{payer:010d}","agent":"{BANK}","type":"personal","type_source":"bank-master"}}'
        )
        creditor = (
            f'{{"account":"SHOP{payee:04d}","type":"merchant","type_source":"mcc"}}'
            if kind == SHOP
            else f'{{"account":"SH{payee:010d}","agent":"{BANK}","type":"personal","type_source":"bank-master"}}'
        )
        yield (
            payee if kind == WAGE else payer,
            f'{{"transaction_id":"t{number:012d}","acceptance_date_time":"{second}.{micro:06d}Z",'
            f'"amount":"{amount // 100}.{amount % 100:02d}","currency":"EUR","debtor":{debtor},"creditor":{creditor},'
            f'"reporting_bank":"{BANK}","channel":"{channels[kind]}"}}'.encode(),
        )
