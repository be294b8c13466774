"""The simulated bank: the same from the same seed, and true to what it says of itself."""

from __future__ import annotations

from collections import Counter

import pytest

from detectors.model import DAY, PartyClass
from streams.simulate_bank import BANK, DISORDER, START, SimulatedBank, simulate


@pytest.fixture(scope="module")
def bank() -> SimulatedBank:
    return simulate(7, households=60)


def test_the_same_seed_gives_the_same_bank(bank: SimulatedBank) -> None:
    assert simulate(7, households=60) == bank


def test_another_seed_gives_another_bank(bank: SimulatedBank) -> None:
    assert simulate(8, households=60).moves != bank.moves


def test_transaction_ids_are_unique_and_amounts_positive(bank: SimulatedBank) -> None:
    assert max(Counter(move.tx_id for move in bank.moves).values()) == 1
    assert all(move.amount > 0 for move in bank.moves)


def test_every_payment_touches_a_customer_inside_the_span(bank: SimulatedBank) -> None:
    for move in bank.moves:
        assert BANK in (move.debtor.bank, move.creditor.bank)
        assert START <= move.time < START + bank.days * DAY


def test_the_stream_is_out_of_order_but_not_by_much(bank: SimulatedBank) -> None:
    times = [move.time for move in bank.moves]
    newest, worst = 0, 0
    for time in times:
        worst = max(worst, newest - time)
        newest = max(newest, time)
    assert 0 < worst <= DISORDER


def test_no_account_does_anything_before_it_is_opened(bank: SimulatedBank) -> None:
    opened = {account.account: account.opened for account in bank.accounts}
    for move in bank.moves:
        for end in (move.debtor, move.creditor):
            if end.bank == BANK and end.kind is PartyClass.PERSONAL:
                assert move.time >= opened[end.account], (end.account, move)


def test_the_truth_is_kept_apart_from_the_stream(bank: SimulatedBank) -> None:
    names = {ring.name for ring in bank.truth.rings}
    words = {end.account for move in bank.moves for end in (move.debtor, move.creditor)}
    assert len(names) == 2
    assert not any(name in word.lower() for name in ("mule", "ring", "scam", "victim") for word in words)


def test_rings_and_look_alikes_do_not_overlap(bank: SimulatedBank) -> None:
    members = {account for ring in bank.truth.rings for account in ring.members}
    assert members.isdisjoint(look.account for look in bank.truth.look_alikes)
    assert len(bank.truth.look_alikes) >= 10


def test_a_ring_owns_the_payments_it_names(bank: SimulatedBank) -> None:
    by_id = {move.tx_id: move for move in bank.moves}
    for ring in bank.truth.rings:
        assert ring.main in ring.members
        for tx_id in ring.transactions:
            move = by_id[tx_id]
            assert {move.debtor.account, move.creditor.account} & set(ring.members)


def test_a_span_too_short_for_the_rings_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 90 days"):
        simulate(7, days=30)
