"""A few invented frames that run everything a step runs, so that all of it is compiled before the group is joined."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from detectors.model import DAY, HOUR, LEG, MINUTE, PPM, Channel, Frame, Kind, PartyClass, Side
from streams import ledger
from streams.folding import Fold
from streams.formats import canonical
from streams.formats.plain import PlainReader
from streams.payment import DecodeContext, Party, Payment
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms

_START = 20_000 * DAY
_PAYERS = 40


def frames() -> Iterator[Frame]:
    """Legs of an account that collects from many and passes it on, decoded as ledger messages are."""
    for offset in range(3):
        for message in ledger.encode_rows(
            Kind.LEGS, _legs(offset), sources=("warm-up/0",), banks=("warm-up",)
        ):
            yield ledger.decode(message, offset=offset)


def warm_up(fold: Fold) -> None:
    """Compile, or load from the cache, everything that reading, judging, packing and loading runs."""
    payment = Payment("warm-up", "t", _START, 1, "EUR", Party("A", "warm-up"), Party("B", "warm-up"))
    reader = PlainReader(
        DecodeContext(bank="warm-up"), Pseudonyms(PUBLIC_KEY, memo=16, remember_new=True), {"EUR": PPM}
    )
    reader.read([canonical.encode(payment)], np.zeros(1, np.int64), np.array([_START]))
    state = fold.new_state(0)
    for frame in frames():
        fold.step(state, [frame])
    subjects = state.touched()
    blobs = state.pack(subjects)
    loaded = fold.new_state(0)
    loaded.load_head(state.pack_head())
    fold.load_control(loaded, state.pack_control())
    loaded.load_many(subjects.tolist(), blobs)


def _legs(number: int) -> np.ndarray:
    rows = np.zeros(2 * _PAYERS, LEG)
    at = np.arange(len(rows))
    incoming = at % 2 == 0
    rows["subject"] = 1
    rows["leg"] = 2 * (number * len(rows) + at + 1) + np.where(incoming, Side.CREDIT, Side.DEBIT)
    rows["party"] = np.where(incoming, 100 + at, 7)
    rows["time"] = _START + number * DAY + at * 5 * MINUTE
    rows["received"] = rows["time"] + HOUR
    rows["amount"] = rows["amount_u"] = np.where(incoming, 90_000, 85_000)
    rows["coordinate"] = ((number * len(rows) + at) << 20) + 1
    rows["currency"] = b"EUR"
    rows["party_class"] = PartyClass.PERSONAL
    rows["channel"] = Channel.INSTANT
    return rows
