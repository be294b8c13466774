"""Streams of several accounts, drawn by chance from a printed seed, and orders in which they arrive.

A `World` holds records, not an order: `arrival` draws an order in which each leg comes no more than the
lateness behind the greatest event time before it. `smallest` removes records from a failing order for as long
as it keeps failing, and `picture` prints what is left.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec
from hypothesis import Phase
from hypothesis import strategies as st

from detectors.config import demo_config
from detectors.model import (
    DAY,
    HOUR,
    MAX_AMOUNT,
    MINUTE,
    Baselines,
    Channel,
    ConfigRecord,
    Control,
    Customer,
    Decision,
    Fact,
    Flag,
    FlagState,
    Kind,
    PartyClass,
    Status,
    TimePrecision,
)
from tests.core.twin_rows import Leg

START = 19_000 * DAY
U = 100
EVERYWHERE = (Flag,)
LATENESS = 6 * HOUR


@dataclass(frozen=True)
class Entry:
    """One record on its way: a leg of a subject, or a control record."""

    time: int
    subject: int = 0
    leg: Leg | None = None
    control: Control | None = None

    @property
    def kind(self) -> Kind:
        """Kind of the frame that carries it."""
        if self.leg is not None:
            return Kind.LEGS
        kinds: dict[str, Kind] = {
            "Fact": Kind.FACTS,
            "Flag": Kind.FLAGS,
            "Decision": Kind.DECISIONS,
            "ConfigRecord": Kind.CONFIG,
            "Baselines": Kind.BASELINES,
            "Rates": Kind.RATES,
            "Barrier": Kind.BARRIER,
        }
        return kinds[type(self.control).__name__]

    @property
    def of_one_account(self) -> bool:
        """Whether it goes to its subject's partition only."""
        return self.leg is not None or isinstance(self.control, Fact | Decision)


@dataclass(frozen=True)
class Mix:
    """What a world is made of."""

    accounts: int = 3
    scenes: int = 12
    parties: int = 10
    gaps: bool = True  # silences of months
    months: bool = True  # regular payments over months
    coarse: float = 0.3  # share of accounts whose times are not exact
    unknown: float = 0.12  # share of legs of unknown class
    own: float = 0.06
    repeats: float = 0.08  # share of legs that come twice
    conflicts: float = 0.04
    returns: float = 0.06
    returned_after: int = 2 * DAY  # longest time from a leg to its return
    burst: int = 0  # legs of one dense bucket
    facts: bool = True
    flags: bool = True
    configs: bool = False  # a configuration and baselines that come into force on the way
    scale: int = 1  # of amounts, up to the greatest one


@dataclass
class World:
    """All records of some accounts."""

    seed: int
    subjects: list[int]
    entries: list[Entry] = field(default_factory=list)

    def records(self, subject: int) -> list[Leg]:
        """Leg records of one account."""
        return [entry.leg for entry in self.entries if entry.leg is not None and entry.subject == subject]

    def facts(self, subject: int) -> list[Fact]:
        """Its facts."""
        return [c for entry in self.entries if isinstance(c := entry.control, Fact) and c.subject == subject]

    def flags(self) -> list[Flag]:
        """All records of all flags."""
        return [c for entry in self.entries if isinstance(c := entry.control, Flag)]


class Life:
    """Draws one account's legs, scene by scene."""

    def __init__(self, rng: random.Random, mix: Mix, pool: Sequence[tuple[int, int]]) -> None:
        self.rng = rng
        self.mix = mix
        self.pool = pool
        self.now = START + rng.randrange(20 * DAY)
        self.legs: list[Leg] = []
        self.taken: set[int] = set()
        coarse = rng.random() < mix.coarse
        self.precisions = (
            [rng.choice([*TimePrecision]) for _ in range(rng.choice([1, 3]))]
            if coarse
            else [TimePrecision.EXACT]
        )

    def identity(self, side: int) -> int:
        """A new leg id; small ones too, so that ties are broken both ways."""
        while True:
            number = self.rng.randrange(1, 2**63) if self.rng.random() < 0.7 else self.rng.randrange(1, 5_000)
            if number not in self.taken:
                self.taken.add(number)
                return number << 1 | side

    def person(self) -> tuple[int, int]:
        """Somebody: from the pool, or new."""
        if self.rng.random() < 0.6:
            return self.rng.choice(self.pool)
        return self.rng.randrange(1, 2**64), PartyClass.PERSONAL

    def add(
        self, side: int, u: float, who: tuple[int, int] | None = None, *, after: int = 0, **more: int
    ) -> None:
        """One leg `after` µs from now; the clock of the life moves with it."""
        rng = self.rng
        self.now += after
        party, cls = self.person() if who is None else who
        precision = rng.choice(self.precisions)
        if rng.random() < self.mix.unknown:
            cls = PartyClass.UNKNOWN
        elif rng.random() < self.mix.own:
            cls = rng.choice([PartyClass.OWN, PartyClass.SENSITIVE])
        time = self.now
        if precision == TimePrecision.DAY and rng.random() < 0.8:
            time = time // DAY * DAY
        amount = min(max(int(u * U), 1) * self.mix.scale, MAX_AMOUNT)
        self.legs.append(
            Leg(
                leg=self.identity(side),
                time=time,
                amount=amount,
                amount_u=amount if rng.random() < 0.9 else min(amount * 11 // 10, MAX_AMOUNT),
                party=party,
                party_class=more.pop("cls", cls),
                precision=precision,
                **more,
            )
        )

    def step(self, most: int) -> int:
        """A pause: often none at all, so that times tie."""
        return 0 if self.rng.random() < 0.2 else self.rng.randrange(1, most)

    def pass_through(self) -> None:
        """Money in, most of it out, near the share and the horizon."""
        rng = self.rng
        u = rng.choice([299.99, 300, 300.01, 400, 1000])
        self.add(
            1, u, after=self.step(6 * HOUR), cls=rng.choice([PartyClass.PERSONAL] * 3 + [PartyClass.BUSINESS])
        )
        if rng.random() < 0.3:
            self.add(1, rng.choice([50, 400]), after=self.step(3 * HOUR))
        share = rng.choice([0.7, 0.85, 0.9, 0.95, 1.0, 1.1])
        parts = rng.choice([1, 1, 2, 3])
        for _ in range(parts):
            where = rng.choice([None, None, (rng.randrange(1, 2**64), PartyClass.VASP), (0, PartyClass.CASH)])
            pause = rng.choice([self.step(HOUR), self.step(8 * HOUR), 24 * HOUR])
            channel = Channel.ATM if where is not None and where[1] == PartyClass.CASH else Channel.INSTANT
            self.add(0, u * share / parts, where, after=pause, channel=channel)

    def cash_out(self) -> None:
        """Money in, out in cash."""
        u = self.rng.choice([199.99, 200, 500])
        self.add(1, u, after=self.step(HOUR))
        share = self.rng.choice([0.69, 0.7, 1.0])
        pause = self.rng.choice([self.step(12 * HOUR), 12 * HOUR, 13 * HOUR])
        self.add(0, u * share, (0, PartyClass.CASH), after=pause, channel=Channel.ATM)

    def crowd(self, side: int) -> None:
        """Many people on one side."""
        for _ in range(self.rng.randrange(2, 9)):
            u = self.rng.choice([20, 50, 50, self.rng.randrange(1, 400)])
            self.add(side, u, after=self.step(self.rng.choice([MINUTE, 6 * HOUR, DAY])))

    def collect(self) -> None:
        """Many people in, one payment out."""
        before = len(self.legs)
        self.crowd(1)
        total = sum(leg.amount for leg in self.legs[before:]) / U
        self.add(0, total * self.rng.choice([0.5, 0.9, 1.0]), after=self.step(10 * HOUR))

    def deposits(self) -> None:
        """Cash just below a limit."""
        for _ in range(self.rng.randrange(1, 4)):
            u = self.rng.choice([7999.99, 8000, 9500, 9999.99, 10_000])
            who = self.rng.choice(
                [None, (0, PartyClass.CASH), (self.rng.randrange(1, 2**64), PartyClass.BANK)]
            )
            self.add(1, u, who, after=self.step(2 * DAY), channel=Channel.CASH_DEPOSIT)

    def bills(self) -> None:
        """Wage, shop, fee."""
        self.add(1, 2000, (1001, PartyClass.EMPLOYER), after=self.step(DAY))
        self.add(0, self.rng.randrange(5, 900), (1002, PartyClass.MERCHANT), after=self.step(DAY))
        self.add(0, 3, (1003, PartyClass.BANK), after=self.step(DAY), channel=Channel.FEE)

    def regular(self) -> None:
        """The same person every three weeks or so."""
        who = self.rng.choice(self.pool)
        side = self.rng.randrange(2)
        for _ in range(self.rng.randrange(3, 6)):
            self.add(side, 350, who, after=self.rng.choice([15, 20, 30]) * DAY + self.step(HOUR))
        if self.rng.random() < 0.5:
            self.add(1, 400, after=self.step(DAY))
            self.add(0, 400, who, after=self.step(DAY))

    def silence(self) -> None:
        """Nothing, for days or months."""
        rng = self.rng
        days = (
            rng.choice([1, 3, 7, 8, 14, 33])
            if rng.random() < 0.7
            else rng.choice([60, 179, 180, 400, 401, 420])
        )
        self.now += days * DAY + rng.choice([0, self.step(DAY)])

    def live(self) -> list[Leg]:
        """All scenes."""
        scenes: list[Callable[[], None]] = [
            self.pass_through,
            self.pass_through,
            self.cash_out,
            lambda: self.crowd(1),
            lambda: self.crowd(0),
            self.collect,
            self.deposits,
            self.bills,
        ]
        scenes += [self.silence, self.silence] if self.mix.gaps else []
        scenes += [self.regular] if self.mix.months else []
        scenes += self.rng.sample(scenes, 2) * 3  # what this account does most
        for _ in range(self.mix.scenes):
            self.rng.choice(scenes)()
            self.now += self.step(12 * HOUR)
        if self.mix.burst:
            bucket = self.now // LATENESS * LATENESS + LATENESS
            for _ in range(self.mix.burst):
                self.now = bucket + self.rng.randrange(LATENESS)
                self.add(self.rng.randrange(2), 10)
            self.now = bucket + LATENESS + self.step(HOUR)
            self.crowd(1)
        return self.legs


def world(seed: int, mix: Mix | None = None) -> World:
    """The world of a seed."""
    mix = mix or Mix()
    rng = random.Random(seed)
    classes = [PartyClass.PERSONAL] * 6 + [PartyClass.BUSINESS, PartyClass.REMITTER, PartyClass.VASP]
    pool = [(rng.randrange(1, 2**64), rng.choice(classes)) for _ in range(mix.parties)]
    out = World(seed, [rng.randrange(1, 2**64) for _ in range(mix.accounts)])
    pool += [(subject, PartyClass.PERSONAL) for subject in out.subjects]
    for subject in out.subjects:
        for leg in Life(rng, mix, pool).live():
            copies = [leg]
            if rng.random() < mix.repeats:
                copies.append(leg)
            if rng.random() < mix.conflicts:
                copies.append(conflicting(rng, leg))
            if rng.random() < mix.returns:
                later = rng.choice([0, 0, HOUR, 2 * DAY, rng.randrange(mix.returned_after)])
                status = rng.choice([Status.RETURNED, Status.REVERSED])
                copies.append(replace(leg, status=status, time=leg.time + later))
            out.entries += [Entry(copy.time, subject, leg=copy) for copy in copies]
        if mix.facts:
            out.entries += [Entry(f.effective_at, subject, control=f) for f in facts_of(rng, subject, pool)]
    ends = max((entry.time for entry in out.entries), default=START)
    if mix.configs:
        out.entries += [Entry(c.effective_at, control=c) for c in configs_of(rng, ends)]
    if mix.flags:
        out.entries += [Entry(f.effective_at, control=f) for f in flags_of(rng, pool, ends)]
    return out


def conflicting(rng: random.Random, leg: Leg) -> Leg:
    """The same id with other content."""
    return rng.choice(
        [
            replace(leg, amount=leg.amount + rng.choice([-1, 1]) if leg.amount > 1 else 2),
            replace(leg, time=leg.time + rng.choice([-1, 1]) * rng.randrange(1, HOUR)),
            replace(leg, party=leg.party ^ 1),
        ]
    )


def facts_of(rng: random.Random, subject: int, pool: Sequence[tuple[int, int]]) -> list[Fact]:
    """No, one or two facts; a second one takes the place of the first in the middle of the stream."""
    out = []
    for i in range(rng.choice([0, 1, 1, 2])):
        at = START - DAY if i == 0 else START + rng.randrange(60 * DAY)
        out.append(
            Fact(
                record_id=f"fact-{subject}-{i}",
                effective_at=at,
                subject=subject,
                entity="bank",
                opened=rng.choice([None, START - 2000 * DAY, START - 80 * DAY, START]),
                household=tuple(rng.sample([party for party, _ in pool], rng.choice([0, 0, 1, 2]))),
                observed_since=rng.choice([None, None, START - 90 * DAY, START]),
                customers=(Customer(customer=rng.randrange(1, 2**64)),),
            )
        )
    return out


def configs_of(rng: random.Random, ends: int) -> list[Control]:
    """A configuration or two and a limit for hubs, each from some time in the middle of the stream."""

    def middle() -> int:
        return START + rng.randrange(max(ends - START, 1))

    out: list[Control] = []
    for i in range(rng.choice([1, 2])):
        config = demo_config()
        scoring = config.scoring | {"monitor": rng.choice([1, 2, 3]) * 1_000_000}
        changed = msgspec.structs.replace(config, version=f"config-{i}", scoring=scoring)
        out.append(
            ConfigRecord(
                record_id=f"config-{i}",
                effective_at=middle(),
                version=changed.version,
                digest=f"digest {i}",
                document=changed.canonical(),
            )
        )
    out.append(
        Baselines(
            record_id="b", effective_at=middle(), version="b", hub_counterparties=rng.choice([100, 200])
        )
    )
    return out


def flags_of(rng: random.Random, pool: Sequence[tuple[int, int]], ends: int) -> list[Flag]:
    """Flags on some of the pool, some of them ended."""
    out = []
    for i in range(rng.choice([1, 3, 6])):
        party = rng.choice(pool)[0]
        at = START + rng.randrange(max((ends - START) // 2, 1))
        states = [(FlagState.PROPOSED, at - HOUR), (FlagState.CONFIRMED, at)]
        expires = rng.choice([None, None, at + 40 * DAY])
        if rng.random() < 0.5:
            states.append(
                (rng.choice([FlagState.WITHDRAWN, FlagState.DISPUTED]), at + rng.randrange(1, 50 * DAY))
            )
        elif expires is not None:
            states.append((FlagState.EXPIRED, expires))
        for j, (state, when) in enumerate(states):
            out.append(
                Flag(
                    record_id=f"flag-{i}-{j}",
                    effective_at=when,
                    flag_id=f"flag-{i}",
                    party=party,
                    state=state,
                    source="partner",
                    expires=expires,
                    confirmed_by=("one", "two"),
                )
            )
    return out


def arrival(entries: Iterable[Entry], rng: random.Random, lateness: int = LATENESS) -> list[Entry]:
    """An order in which no leg comes more than the lateness behind the greatest time before it.

    Control records may come days after their time, and long before it.
    """
    keyed = []
    for entry in entries:
        delay = rng.randrange(lateness + 1)
        if entry.leg is None:
            delay = rng.choice([delay, delay, rng.randrange(3 * DAY), -rng.randrange(30 * DAY)])
        keyed.append((entry.time + delay, rng.random(), entry))
    return [entry for _, _, entry in sorted(keyed, key=lambda item: item[:2])]


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Canonical order: control records first among equal times."""
    return sorted(
        entries, key=lambda entry: (entry.time, entry.leg is not None, entry.leg.leg if entry.leg else 0)
    )


def smallest(entries: Sequence[Entry], fails: Callable[[list[Entry]], bool], tries: int = 400) -> list[Entry]:
    """Remove stretches of a failing order for as long as the rest still fails."""
    kept = list(entries)
    size = max(len(kept) // 2, 1)
    while tries > 0:
        at, removed = 0, False
        while at < len(kept) and tries > 0:
            tries -= 1
            shorter = kept[:at] + kept[at + size :]
            if shorter and fails(shorter):
                kept, removed = shorter, True
            else:
                at += size
        if size == 1 and not removed:
            break
        size = max(size // 2, 1)
    return kept


def picture(entries: Sequence[Entry]) -> str:
    """The records of an order, one a line, in the order of arrival."""
    lines = []
    for entry in entries:
        day, rest = divmod(entry.time - START, DAY)
        clock = f"d{day:>4} {rest / HOUR:7.3f} h"
        if entry.leg is None:
            lines.append(f"{clock}  {entry.control}")
            continue
        leg = entry.leg
        way = "in " if leg.credit else "out"
        lines.append(
            f"{clock}  {entry.subject:x}  {way} {leg.u / U:>9.2f} u  party {leg.party:x} "
            f"{PartyClass(leg.party_class).name} {Channel(leg.channel).name} "
            f"{TimePrecision(leg.precision).name} {Status(leg.status).name} leg {leg.leg:x} t={leg.time}"
        )
    return "\n".join(lines)


seeds = st.integers(0, 2**32 - 1)
"""A world is drawn from a seed, so that a printed seed is enough to see it again."""

WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A smaller seed is not a smaller world: `smallest` shrinks records instead."""
