"""The vault opens only with its key, only for the right pseudonym, and never without the audit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from streams.app import make_vault
from streams.metrics import Metrics
from streams.pseudonyms import PseudonymKey
from streams.vault import (
    Reading,
    VaultError,
    VaultKeys,
    VaultReader,
    VaultRecord,
    VaultWriter,
    tombstone,
)

ONE, TWO = ("2026-01", bytes(range(32))), ("2026-02", bytes(range(1, 33)))
KEYS = VaultKeys([ONE])
SUBJECTS = st.integers(0, 2**64 - 1)


@given(SUBJECTS, st.text(max_size=60))
def test_what_is_sealed_opens_again(pseudonym: int, account: str) -> None:
    record = KEYS.seal(pseudonym, account)
    assert record.key == pseudonym.to_bytes(8, "big")
    assert record.value is not None
    assert KEYS.open(record.key, record.value) == account


@given(st.data())
def test_a_changed_byte_is_noticed(data: st.DataObject) -> None:
    key, value = KEYS.seal(7, "XX00 0000 0001")
    assert value is not None
    at = data.draw(st.integers(0, len(value) - 1))
    changed = bytearray(value)
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VaultError):
        KEYS.open(key, bytes(changed))
    with pytest.raises(VaultError):
        KEYS.open(key, value[:at])


def test_a_record_does_not_open_under_another_pseudonym() -> None:
    _, value = KEYS.seal(7, "account")
    assert value is not None
    with pytest.raises(VaultError, match="another pseudonym"):
        KEYS.open((8).to_bytes(8, "big"), value)


def test_the_account_is_nowhere_in_the_record_and_no_two_are_alike() -> None:
    records = [KEYS.seal(7, "account-in-clear") for _ in range(20)]
    assert len({record.value for record in records}) == 20
    assert all(b"account-in-clear" not in (record.value or b"") for record in records)


def test_old_records_open_after_the_key_was_followed_by_another() -> None:
    old = KEYS.seal(7, "account")
    both = VaultKeys([ONE, TWO])
    assert both.current == "2026-02"
    new = both.seal(7, "account")
    assert old.value is not None
    assert new.value is not None
    assert both.open(*old) == both.open(*new) == "account"  # type: ignore[arg-type]
    with pytest.raises(VaultError, match="no vault key '2026-02'"):
        KEYS.open(new.key, new.value)


def test_keys_show_only_their_ids() -> None:
    assert repr(VaultKeys([ONE, TWO])) == "VaultKeys(2026-01, 2026-02)"


def test_a_key_file(tmp_path: Path) -> None:
    path = tmp_path / "vault.key"
    path.write_text(f"# rotated yearly\n2026-01:{ONE[1].hex()}\n\n 2026-02 : {TWO[1].hex().upper()} \n")
    keys = VaultKeys.load(path)
    assert keys.current == "2026-02"
    assert keys.open(*KEYS.seal(1, "a")) == "a"  # type: ignore[arg-type]


def test_the_line_of_a_pseudonym_key_file_is_a_vault_key_but_not_the_same_key(tmp_path: Path) -> None:
    key = PseudonymKey.generate("k1")
    path = tmp_path / "vault.key"
    path.write_text(key.line())
    assert VaultKeys.load(path).current == "k1"
    with pytest.raises(VaultError, match="one of its own"):
        VaultKeys.load(path, unlike=key.reveal())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "k1\n",
        "k1:00\n",
        f"k1:{'g' * 64}\n",
        f"K 1:{'0' * 64}\n",
        f"k1:{'0' * 64}\nk1:{'1' * 64}\n",
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vault.key"
    path.write_text(text)
    with pytest.raises(VaultError) as refused:
        VaultKeys.load(path)
    assert "0000000" not in str(refused.value)


def test_a_pseudonym_is_sealed_once_it_was_acknowledged() -> None:
    writer = VaultWriter(KEYS, remembered=3)
    first = writer.seal([(1, "a"), (2, "b")])
    assert [record.key[-1] for record in first] == [1, 2]
    assert len(writer.seal([(1, "a"), (2, "b")])) == 2, "not acknowledged yet"
    writer.written(first)
    assert writer.seal([(1, "a"), (2, "b")]) == []
    writer.written(writer.seal([(3, "c"), (4, "d")]))
    assert [record.key[-1] for record in writer.seal([(1, "a"), (2, "b"), (3, "c"), (4, "d")])] == [1]
    writer.written([tombstone(4)])
    assert [record.key[-1] for record in writer.seal([(4, "d")])] == [4]


def test_reading_is_for_somebody_with_a_reason_and_on_record_first() -> None:
    told: list[Reading] = []
    reader = VaultReader(KEYS, told.append)
    reader.absorb(*KEYS.seal(7, "account"))
    assert reader.reveal(7, who="reviewer-4", reason="case 12") == "account"
    assert reader.reveal(8, who="reviewer-4", reason="case 12") is None
    assert told == [Reading(7, "reviewer-4", "case 12"), Reading(8, "reviewer-4", "case 12")]
    for who, reason in (("", "case 12"), ("reviewer-4", " ")):
        with pytest.raises(VaultError, match="for a reason"):
            reader.reveal(7, who=who, reason=reason)
    assert len(told) == 2


def test_without_the_audit_nothing_is_shown() -> None:
    def broken(_: Reading) -> None:
        raise OSError("the audit log is full")

    reader = VaultReader(KEYS, broken)
    reader.absorb(*KEYS.seal(7, "account"))
    with pytest.raises(OSError, match="full"):
        reader.reveal(7, who="reviewer-4", reason="case 12")


def test_the_latest_record_counts_and_a_tombstone_erases() -> None:
    reader = VaultReader(KEYS, lambda _: None)
    reader.absorb(*KEYS.seal(7, "de89 3704 0044 0532 0130 00"))
    reader.absorb(*KEYS.seal(7, "DE89370400440532013000"))
    assert reader.reveal(7, who="w", reason="r") == "DE89370400440532013000"
    reader.absorb(*tombstone(7))
    assert reader.reveal(7, who="w", reason="r") is None
    assert tombstone(7) == VaultRecord(KEYS.seal(7, "x").key, None)


def test_a_second_account_under_one_pseudonym_is_not_sealed_but_reported() -> None:
    writer = VaultWriter(KEYS)
    records = writer.seal([(1, "a"), (1, "b"), (2, "c"), (1, " a ")])
    assert [KEYS.open(key, value or b"") for key, value in records] == ["a", "c", " a "]
    assert writer.collisions == {1}
    writer.written(records)
    assert writer.seal([(1, "b"), (2, "d"), (2, "c")]) == []
    assert writer.collisions == {1, 2}


def test_a_collision_is_counted_and_logged_once_without_naming_anybody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = PseudonymKey.generate("k1")
    path = tmp_path / "vault.key"
    path.write_text(f"v1:{ONE[1].hex()}\n")
    metrics = Metrics()
    writer = make_vault(SimpleNamespace(vault_key_file=str(path)), key, metrics)  # type: ignore[arg-type]
    assert writer is not None
    pseudonym = 0x1234_5678_9ABC_DEF0
    for account in ("first-account", "second-account", "second-account", "third-account"):
        writer.written(writer.seal([(pseudonym, account)]))
    assert b"safehold_pseudonym_collisions_total 1.0" in metrics.render()
    (line,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    text = f"{line.getMessage()} {line.__dict__}"
    assert all(word not in text for word in (str(pseudonym), f"{pseudonym:x}", "-account"))


def test_two_accounts_under_one_pseudonym_are_not_shown() -> None:
    reader = VaultReader(KEYS, lambda _: None)
    reader.absorb(*KEYS.seal(7, "one"))
    reader.absorb(*KEYS.seal(7, "other"))
    reader.absorb(*KEYS.seal(8, "mine"))
    assert reader.collisions == {7}
    with pytest.raises(VaultError, match="two accounts"):
        reader.reveal(7, who="w", reason="r")
    assert reader.reveal(8, who="w", reason="r") == "mine"
