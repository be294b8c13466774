"""Two workers against one, by CPU: on two cores that broker and store share, wall time says nothing about a third process."""

from __future__ import annotations

import asyncio

from benchmarks import population, report, stream

ACCOUNTS = 100_000
PAYMENTS = 600_000
TARGET = 1.8


def run(quick: bool) -> report.Result:
    """The figure."""
    result = report.new("scale", "Two workers against one", quick)
    people = population.Population(1_000 if quick else population.ACCOUNTS)
    copies = population.Copies(people, 12 if quick else population.DAYS)
    accounts, payments = (2_000, 10_000) if quick else (ACCOUNTS, PAYMENTS)
    rows, most = [], []
    for workers in (1, 2):
        found = asyncio.run(stream.one(copies, accounts, payments, workers))
        each = sorted(spent for name, spent in found.cpu.items() if name.startswith("w"))
        most.append(each[-1])
        rows.append(
            [
                workers,
                f"{found.rate:,.0f}",
                " + ".join(f"{1e6 * spent / found.payments:.1f}" for spent in each),
                f"{1e6 * each[-1] / found.payments:.1f}",
                f"× {most[0] / each[-1]:.2f}",
            ]
        )
    factor = most[0] / most[1]
    result.figures["scale_by_cpu"] = round(factor, 2)
    result.add(
        f"{payments:,} payments, {accounts:,} accounts, four ledger partitions",
        ["workers", "payments/s", "CPU µs a payment, each worker", "the busier one", "to one worker"],
        rows,
    )
    result.note(
        f"two workers: × {factor:.2f} by the CPU of the busier one; target × {TARGET}: {report.against(factor, TARGET)}"
    )
    return result
