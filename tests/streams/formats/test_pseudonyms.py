"""Keyed hashes: one spelling, separate kinds, bounded memory, a key that never shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.keyed import Seen
from streams.pseudonyms import PUBLIC_KEY, BadKey, Memo, PseudonymKey, Pseudonyms, normalise, qualify

KEY = PseudonymKey("k1", bytes(range(32)))


def test_an_iban_has_one_spelling() -> None:
    p = Pseudonyms(KEY)
    assert p.account("de89 3704 0044 0532 0130 00") == p.account("DE89370400440532013000")
    assert p.account("C12") != p.account("c12")
    assert p.account(" C12 ") == p.account("C12")


def test_known_values_stay() -> None:
    """Stored state depends on them: a change here is a new ledger generation."""
    p = Pseudonyms(KEY)
    assert p.account("DE89370400440532013000") == 13960115977210549965
    assert p.transaction("bank", "tx-1") == 2228343403484075166
    assert p.payment("8a562c67-ca16-48ba-b074-65581be6f001", "", 0, "", 0) == 15335931365222895188
    assert p.place("Town") == p.place(" town ") == 138645701
    assert p.customer("C1") == 17534940193765532674
    assert p.account("") == 0
    assert p.place("") == 0
    assert p.payment("", "", 1, "EUR", 0) == 0


def test_kinds_are_unrelated() -> None:
    p = Pseudonyms(KEY)
    assert len({p.account("x"), p.customer("x"), p.payment("x", "", 0, "", 0), p.transaction("", "x")}) == 4


def test_another_key_gives_other_numbers() -> None:
    assert Pseudonyms(KEY).account("x") != Pseudonyms(PseudonymKey("k2", bytes(32))).account("x")


@given(st.text(), st.text())
def test_leg_ids_leave_the_lowest_bit_to_the_side(bank: str, tx_id: str) -> None:
    leg = Pseudonyms(KEY).transaction(bank.replace("\0", ""), tx_id.encode(errors="replace").decode())
    assert leg % 2 == 0
    assert 0 <= leg < 1 << 64


def test_banks_do_not_share_transaction_ids() -> None:
    p = Pseudonyms(KEY)
    assert p.transaction("a", "1") != p.transaction("b", "1")
    assert p.transaction("a", "b1") != p.transaction("ab", "1")


def test_payment_identity_prefers_the_uetr() -> None:
    p = Pseudonyms(KEY)
    one = p.payment("8A562C67-CA16-48BA-B074-65581BE6F001", "x", 1, "EUR", 0)
    assert one == p.payment("8a562c67-ca16-48ba-b074-65581be6f001", "y", 2, "USD", 10**15)
    assert p.payment("", "x", 1, "EUR", 5) == p.payment("", "x", 1, "EUR", 6)
    assert p.payment("", "x", 1, "EUR", 5) != p.payment("", "x", 2, "EUR", 5)


def test_the_memo_is_bounded() -> None:
    calls: list[str] = []

    def compute(text: str) -> int:
        calls.append(text)
        return len(text)

    memo = Memo(compute, 10)
    for n in range(1000):
        assert memo["x" * (n % 25)] == n % 25
        assert len(memo) <= 10
    memo["y"], memo["y"]
    assert calls.count("y") == 1


def test_new_accounts_are_told_once_for_the_vault() -> None:
    p = Pseudonyms(KEY, remember_new=True)
    subject = p.account("A")
    p.account("A")
    assert p.take_new() == [(subject, "A")]
    assert p.take_new() == []
    assert Pseudonyms(KEY).take_new() == []


def test_national_numbers_are_qualified_and_ibans_are_not() -> None:
    assert qualify("de89370400440532013000", "X") == "DE89370400440532013000"
    assert qualify(" 123 ", "DEUTDEFF") == "DEUTDEFF/123"
    assert qualify("123", "") == "123"
    assert qualify("", "X") == ""
    assert normalise("12 34") == "12 34"


def test_a_key_file_and_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY.line())
    assert PseudonymKey.load(file).reveal() == KEY.reveal()
    found = PseudonymKey.from_environment({"SAFEHOLD_PSEUDONYM_KEY": KEY.line()})
    assert found is not None
    assert found.id == "k1"
    assert PseudonymKey.from_environment({}) is None


@pytest.mark.parametrize(
    "text", ["", "k1", "k1:zz", "k1:" + "00" * 31, "K 1:" + "00" * 32, "a" * 40 + ":" + "00" * 32]
)
def test_a_bad_key_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(BadKey) as caught:
        PseudonymKey.parse(text, "file")
    assert "00" * 8 not in str(caught.value)


def test_a_key_does_not_show_itself() -> None:
    assert KEY.reveal().hex() not in repr(KEY)
    assert "********" in f"{KEY}"


@given(
    st.lists(
        st.one_of(st.text(max_size=8), st.from_regex(r"[A-Z]{2}[0-9 ]{14,20}", fullmatch=True)), max_size=8
    )
)
def test_a_column_of_accounts_is_hashed_as_each_alone(accounts: list[str]) -> None:
    one, many = (Pseudonyms(PUBLIC_KEY, remember_new=True) for _ in range(2))
    found, plain = many.columns.subjects(accounts)
    for account, subject, written in zip(accounts, found.tolist(), plain.tolist(), strict=True):
        assert subject == (one.account(account) if written else 0)
    visible = [
        all("!" <= c <= "~" and not "a" <= c <= "z" for c in account) and account != ""
        for account in accounts
    ]
    assert plain.tolist() == visible
    assert dict(many.take_new()) == {
        one.account(a): a for a, seen in zip(accounts, visible, strict=True) if seen
    }
    many.columns.subjects(accounts)
    assert many.take_new() == []


@given(st.lists(st.lists(st.integers(1, 40), max_size=20)), st.sampled_from([1, 8, 64]))
def test_what_was_seen_is_not_new(batches: list[list[int]], limit: int) -> None:
    seen, known = Seen(limit), set()
    for batch in batches:
        new = [batch[n] for n in seen.add(np.array(batch, np.uint64)).tolist()]
        # Of each value the first one; what was forgotten may be new again, what was never seen always is.
        assert len(new) == len(set(new))
        assert set(batch) - known <= set(new) <= set(batch)
        if limit == 64:  # never full
            assert set(new) == set(batch) - known
        known |= set(batch)
