"""What decoding and leg building cost, in processor time per transaction: `python -m benchmarks.formats [FILE MAPPING]`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable

from streams.formats import canonical, iso20022
from streams.formats.files import read_columns, read_file
from streams.formats.mapping import load_mapping
from streams.legs import LegBuilder
from streams.payment import DecodeContext, Party, Payment
from streams.pseudonyms import PUBLIC_KEY, Pseudonyms
from streams.rates import load_rates
from tests.streams.formats.messages import camt054, details, entry, pacs008, transfer

COUNT = 40_000
RATES = load_rates().u_micro
CONTEXT = DecodeContext(bank="own", bank_codes=frozenset({"OWNBDEFF"}))


def best(what: str, run: Callable[[], object], transactions: int, times: int = 5) -> None:
    """The fastest of some runs."""
    costs = []
    for _ in range(times):
        started = time.process_time()
        run()
        costs.append(time.process_time() - started)
    print(f"{what:<46} {min(costs) / transactions * 1e6:7.2f} µs   {transactions / min(costs):>10,.0f}/s")


def payments(end_to_end: bool) -> list[Payment]:
    """Payments among 20,000 accounts of one bank."""
    return [
        Payment(
            "own", f"tx-{n}", 1_700_000_000_000_000 + n, 12_345, "EUR",
            Party(f"DE{n % 20_000:020}", "own", 1, 1), Party(f"DE{n * 7 % 20_000:020}", "own", 1, 1),
            end_to_end_id=f"e-{n}" if end_to_end else "",
        )
        for n in range(COUNT)
    ]  # fmt: skip


def main(arguments: list[str]) -> None:
    """All of them."""
    plain, referenced = payments(end_to_end=False), payments(end_to_end=True)
    messages = [canonical.encode(payment) for payment in plain]
    array = b"[" + b",".join(messages[:1000]) + b"]"
    transfers = pacs008(*(transfer(n % 256) for n in range(500)))
    entries = camt054(*(entry(details(), n=n) for n in range(500)))
    one = pacs008(transfer())
    best("canonical JSON, one a message", lambda: each(canonical.decode, messages), COUNT)
    best("canonical JSON, 1,000 a message", lambda: canonical.decode(array, CONTEXT), 1000)
    best("pacs.008, 500 a message", lambda: iso20022.decode(transfers, CONTEXT), 500)
    best("pacs.008, one a message", lambda: each(iso20022.decode, [one] * 500), 500)
    best("camt.054, 500 a message", lambda: iso20022.decode(entries, CONTEXT), 500)
    builder = LegBuilder(12, Pseudonyms(PUBLIC_KEY), RATES)
    for name, made in (("no reference", plain), ("with EndToEndId", referenced)):
        best(f"legs, two a payment, {name}, one a message", lambda made=made: single(builder, made), COUNT)  # type: ignore[misc]
        best(f"legs, two a payment, {name}, one message", lambda made=made: whole(builder, made), COUNT)  # type: ignore[misc]
    if arguments:
        file, mapping = arguments[0], load_mapping(arguments[1])
        rows = sum(len(batch) for batch in read_file(file, mapping))
        best("file as payments", lambda: drain(read_file(file, mapping)), rows, 2)
        best(
            "file as LEG rows",
            lambda: drain(read_columns(file, mapping, Pseudonyms(PUBLIC_KEY), RATES)),
            rows,
            2,
        )


def each(decode: Callable[[bytes, DecodeContext], object], values: list[bytes]) -> None:
    """Decode one by one."""
    for value in values:
        decode(value, CONTEXT)


def single(builder: LegBuilder, made: list[Payment]) -> None:
    """Each payment a message of its own."""
    for offset, payment in enumerate(made):
        builder.add((payment,), "t/0", offset, payment.time)
    builder.take()


def whole(builder: LegBuilder, made: list[Payment]) -> None:
    """All in one message."""
    builder.add(made, "t/0", 0, 1 << 60)
    builder.take()


def drain(batches: Iterable[object]) -> None:
    """Read to the end."""
    for _ in batches:
        pass


if __name__ == "__main__":
    main(sys.argv[1:])
