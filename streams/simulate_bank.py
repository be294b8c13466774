"""A small invented bank for the demo: lawful life for a few months, and two planted rings.

Everything follows from one seed. Nobody in it exists. What is true (who belongs to a ring, who only looks like it) is
kept apart from the stream: `SimulatedBank.truth` is never sent anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from detectors.model import DAY, HOUR, MINUTE, SECOND, AccountKind, Channel, ClassSource, PartyClass, Purpose
from streams.payment import Party, Payment

BANK = "demo-bank"
ELSEWHERE = "another-bank"
CURRENCY = "EUR"
FIRST_DAY = datetime(2024, 9, 2, tzinfo=UTC)
"""A Monday that lies behind every clock: a payment from the future would be refused."""

START = int(FIRST_DAY.timestamp()) * SECOND
DISORDER = 10 * MINUTE
"""How far the stream is out of order, as a real feed is."""


class End(NamedTuple):
    """One end of a payment."""

    account: str
    kind: PartyClass
    bank: str | None


class Move(NamedTuple):
    """One payment, cash movement or card event. Amounts in cents, times in µs UTC."""

    tx_id: str
    time: int
    debtor: End
    creditor: End
    amount: int
    channel: Channel
    purpose: Purpose


class Account(NamedTuple):
    """What the bank knows of one of its accounts."""

    account: str
    kind: AccountKind
    opened: int


@dataclass(frozen=True, slots=True)
class Ring:
    """A planted ring: who is in it and which payments are its own."""

    name: str
    story: str
    main: str
    members: tuple[str, ...]
    transactions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LookAlike:
    """A lawful account that resembles a ring in some way."""

    account: str
    story: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What only the demo's last page may read."""

    rings: tuple[Ring, ...]
    look_alikes: tuple[LookAlike, ...]


@dataclass(frozen=True, slots=True)
class SimulatedBank:
    """The stream in arrival order, the bank's account list, and the truth."""

    moves: tuple[Move, ...]
    accounts: tuple[Account, ...]
    truth: Truth
    days: int


@dataclass(slots=True)
class _Plan:
    """What a ring or a look-alike leaves behind while it is built."""

    name: str
    story: str
    main: str
    members: list[str] = field(default_factory=list)
    indexes: list[int] = field(default_factory=list)


class _Town:
    """The bank while it is being built. Every routine below draws from the one random source, in a fixed order."""

    def __init__(self, seed: int, days: int) -> None:
        self.rng = random.Random(seed)
        self.days = days
        self.drafts: list[Move] = []
        self.accounts: list[Account] = []
        self.rings: list[_Plan] = []
        self.look_alikes: list[LookAlike] = []
        self.employers = [self.outside("EMPLOYER", n, PartyClass.EMPLOYER) for n in range(24)]
        self.shops = [self.outside("SHOP", n, PartyClass.MERCHANT) for n in range(120)]
        self.grocers = [self.outside("GROCER", n, PartyClass.MERCHANT) for n in range(16)]
        self.billers = [self.outside("BILLER", n, PartyClass.BILLER) for n in range(18)]
        self.remitters = [self.outside("REMITTER", n, PartyClass.REMITTER) for n in range(3)]
        self.suppliers = [self.outside("SUPPLIER", n, PartyClass.BUSINESS) for n in range(10)]
        self.lenders = [self.outside("LENDER", n, PartyClass.BANK) for n in range(4)]
        self.strangers = 0

    # -- people and places ------------------------------------------------------------------------------------------

    def outside(self, what: str, number: int, kind: PartyClass) -> End:
        """A counterparty that is not a customer of this bank."""
        return End(f"{ELSEWHERE}/{what}-{number:03}", kind, ELSEWHERE)

    def stranger(self) -> End:
        """A person with an account at another bank."""
        self.strangers += 1
        return End(f"{ELSEWHERE}/{self.strangers:05}", PartyClass.PERSONAL, ELSEWHERE)

    def customer(self, *, opened: int | None = None, kind: AccountKind = AccountKind.PERSONAL) -> End:
        """A new customer; without a day of opening, one who has been here for years."""
        day = -self.rng.randrange(500, 5000) if opened is None else opened
        account = f"{BANK}/{len(self.accounts) + 1:05}"
        self.accounts.append(Account(account, kind, START + day * DAY))
        return End(account, PartyClass.PERSONAL, BANK)

    # -- moving money -----------------------------------------------------------------------------------------------

    def move(
        self,
        time: int,
        debtor: End,
        creditor: End,
        amount: int,
        channel: Channel = Channel.INSTANT,
        purpose: Purpose = Purpose.NONE,
    ) -> int:
        """Book one payment and return its place in the drafts; one after the last day is not booked (−1)."""
        if time >= START + self.days * DAY or amount <= 0:
            return -1
        self.drafts.append(Move("", time, debtor, creditor, amount, channel, purpose))
        return len(self.drafts) - 1

    def at(self, day: int, first_hour: float, last_hour: float) -> int:
        """Some moment of a day between two hours."""
        return START + day * DAY + int(self.rng.uniform(first_hour, last_hour) * 3600) * SECOND

    def cents(self, low: float, high: float, step: int = 1) -> int:
        """An amount between two, in cents, on a step."""
        return self.rng.randrange(int(low * 100) // step, int(high * 100) // step + 1) * step

    def months(self, day_of_month: int) -> Iterator[int]:
        """The days of the simulation on which a day of the month falls."""
        for day in range(self.days):
            if (FIRST_DAY + timedelta(days=day)).day == day_of_month:
                yield day

    def card(self, day: int, who: End, where: End, amount: int) -> None:
        """A card payment."""
        self.move(self.at(day, 8, 21), who, where, amount, Channel.CARD)

    def withdraw(self, time: int, who: End, amount: int) -> int:
        """Cash from a machine."""
        return self.move(time, who, End("CASH", PartyClass.CASH, None), amount, Channel.ATM)

    def look_alike(self, who: End, story: str) -> None:
        """Remember that this account is lawful and looks otherwise."""
        self.look_alikes.append(LookAlike(who.account, story))


# -- lawful life ------------------------------------------------------------------------------------------------------


def spending(town: _Town, who: End, first_day: int = 0, pace: float = 1.0) -> None:
    """Groceries, cards, a little cash."""
    rng = town.rng
    grocers = rng.sample(town.grocers, 2)
    for day in range(first_day, town.days):
        if rng.random() < 0.30 * pace:
            town.card(day, who, rng.choice(grocers), town.cents(12, 95))
        if rng.random() < 0.45 * pace:
            town.card(day, who, rng.choice(town.shops), town.cents(3, 60))
        if rng.random() < 0.05 * pace:
            town.withdraw(town.at(day, 9, 20), who, town.cents(20, 120, 1000))


def wage(town: _Town, who: End, low: float = 1600, high: float = 3400, first_day: int = 0) -> int:
    """A monthly wage; returns its usual amount."""
    employer, day_of_month, usual = (
        town.rng.choice(town.employers),
        town.rng.randrange(25, 29),
        town.cents(low, high),
    )
    for day in town.months(day_of_month):
        if day >= first_day:
            amount = usual + town.rng.randrange(-2000, 6001)
            town.move(town.at(day, 3, 6), employer, who, amount, Channel.TRANSFER, Purpose.SALA)
    return usual


def bills(town: _Town, who: End, first_day: int = 0) -> None:
    """Direct debits in the first days of the month."""
    for biller in town.rng.sample(town.billers, town.rng.randrange(2, 5)):
        usual = town.cents(15, 140)
        for day in town.months(town.rng.randrange(1, 7)):
            if day >= first_day:
                town.move(town.at(day, 2, 7), who, biller, usual, Channel.DIRECT_DEBIT)


def home(town: _Town, who: End) -> None:
    """Rent to a person or a firm, or a mortgage."""
    payee = town.rng.choice([town.stranger(), town.rng.choice(town.suppliers), town.rng.choice(town.lenders)])
    usual, day_of_month = town.cents(480, 1150, 500), town.rng.randrange(1, 5)
    purpose = Purpose.NONE if payee.kind is PartyClass.BANK else Purpose.RENT
    for day in town.months(day_of_month):
        town.move(town.at(day, 5, 9), who, payee, usual, Channel.TRANSFER, purpose)


def friends(town: _Town, circle: list[End], per_week: float = 0.6) -> None:
    """A circle of friends who settle small debts with each other."""
    for day in range(town.days):
        for payer in circle:
            if town.rng.random() < per_week / 7:
                payee = town.rng.choice([friend for friend in circle if friend is not payer])
                town.move(town.at(day, 10, 23), payer, payee, town.cents(4, 55))


def household(town: _Town) -> End:
    """One ordinary customer."""
    who = town.customer()
    wage(town, who)
    bills(town, who)
    home(town, who)
    spending(town, who)
    return who


def payday_bill_run(town: _Town) -> None:
    """Nearly all of a wage is gone within a day: rent, bills, debts, all to firms."""
    who = town.customer()
    usual = wage(town, who, 1500, 1900)
    for day in town.months(28):
        spent = 0
        for payee in town.rng.sample(town.billers, 5):
            amount = usual * 17 // 100
            spent += amount
            town.move(town.at(day, 8, 20), who, payee, amount, Channel.TRANSFER)
    spending(town, who, pace=0.3)
    town.look_alike(who, "payday bill run: a wage is gone within the day, to billers")


def remittance_family(town: _Town) -> None:
    """Supports relatives abroad out of a wage, and forwards what two cousins add."""
    who = town.customer()
    wage(town, who, 1500, 2100)
    bills(town, who)
    spending(town, who, pace=0.7)
    cousins = [town.stranger() for _ in range(2)]
    remitter = town.rng.choice(town.remitters)
    for day in town.months(29):
        added = 0
        for cousin in cousins:
            amount = town.cents(120, 250, 1000)
            added += amount
            town.move(town.at(day, 9, 12), cousin, who, amount, purpose=Purpose.FAMI)
        town.move(
            town.at(day, 15, 20),
            who,
            remitter,
            added + town.cents(200, 400, 1000),
            Channel.TRANSFER,
            Purpose.FAMI,
        )
    town.look_alike(who, "remittance family: relatives' money collected and sent on the same day")


def student_house(town: _Town) -> None:
    """Five students pay one of them, who pays the landlord the day after."""
    lead, landlord = town.customer(), town.stranger()
    mates = [town.customer() for _ in range(4)]
    for person in (lead, *mates):
        for day in town.months(5):
            town.move(town.at(day, 6, 8), town.lenders[0], person, town.cents(780, 990), Channel.TRANSFER)
        spending(town, person, pace=0.8)
    share = town.cents(340, 430, 500)
    for day in town.months(7):
        for mate in mates:
            town.move(town.at(day, 9, 18), mate, lead, share, purpose=Purpose.RENT)
        town.move(town.at(day + 1, 10, 18), lead, landlord, share * 5, Channel.TRANSFER, Purpose.RENT)
    friends(town, [lead, *mates], 1.2)
    town.look_alike(lead, "shared student house: collects the rent and pays the landlord a day later")


def club_treasurer(town: _Town) -> None:
    """Collects for a trip or a gift four times, then pays the whole of it out."""
    who = household(town)
    members = [town.stranger() for _ in range(10)] + [town.customer() for _ in range(6)]
    for start in (18, 47, 76, 101):
        paid = town.rng.sample(members, 13)
        share = town.cents(20, 45, 500)
        for member in paid:
            town.move(town.at(start + town.rng.randrange(5), 9, 22), member, who, share)
        payee = town.rng.choice([town.rng.choice(town.shops), town.stranger()])
        town.move(town.at(start + 6, 10, 16), who, payee, share * len(paid))
    town.look_alike(who, "club treasurer: whip-rounds from a dozen people, paid out whole")


def event_treasurer(town: _Town) -> None:
    """Twenty guests pay for a party within a week; the hall, the cook and three musicians are paid out of it."""
    who = household(town)
    share = town.cents(45, 80, 500)
    for _ in range(20):
        town.move(town.at(62 + town.rng.randrange(6), 9, 22), town.stranger(), who, share)
    for payee in (town.rng.choice(town.suppliers), town.rng.choice(town.shops)):
        town.move(town.at(69, 10, 16), who, payee, share * 6, Channel.TRANSFER)
    for _ in range(3):
        town.move(town.at(70, 18, 23), who, town.stranger(), share * 2)
    town.look_alike(who, "event treasurer: twenty strangers pay within a week, and it is all paid out")


def funeral(town: _Town) -> None:
    """Nine relatives pay within two days; the undertaker is paid the next morning."""
    who = household(town)
    paid = 0
    for _ in range(9):
        amount = town.cents(200, 420, 1000)
        paid += amount
        town.move(
            town.at(84 + town.rng.randrange(2), 9, 22), town.stranger(), who, amount, purpose=Purpose.FAMI
        )
    town.move(town.at(86, 8, 9), who, town.rng.choice(town.suppliers), paid, Channel.TRANSFER)
    town.look_alike(who, "funeral: nine relatives' money, passed on to the undertaker the next morning")


def landlord(town: _Town) -> None:
    """Eight tenants pay on the first days of the month; the mortgage leaves at once."""
    who = town.customer()
    tenants = [town.stranger() for _ in range(8)]
    rent = {tenant.account: town.cents(420, 690, 500) for tenant in tenants}
    for tenant in tenants:
        for day in town.months(town.rng.randrange(1, 4)):
            town.move(town.at(day, 7, 20), tenant, who, rent[tenant.account], Channel.TRANSFER, Purpose.RENT)
    for day in town.months(4):
        town.move(town.at(day, 6, 9), who, town.lenders[1], 310_000, Channel.DIRECT_DEBIT)
    spending(town, who)
    town.look_alike(who, "landlord: many people's rent, and a mortgage that takes it")


def market_trader(town: _Town) -> None:
    """Pays takings in as cash four times a week and buys stock with them."""
    who = town.customer()
    suppliers = town.rng.sample(town.suppliers, 3)
    cash = End("CASH", PartyClass.CASH, None)
    for day in range(town.days):
        if day % 7 in (1, 3, 5, 6):
            town.move(town.at(day, 17, 19), cash, who, town.cents(280, 820, 1000), Channel.CASH_DEPOSIT)
        if day % 7 == 0:
            town.move(
                town.at(day, 7, 10), who, town.rng.choice(suppliers), town.cents(900, 1500), Channel.TRANSFER
            )
    spending(town, who, pace=0.8)
    town.look_alike(who, "market trader: regular cash, spent on stock")


def newcomer(town: _Town, arrival: int) -> None:
    """The first ninety days of somebody new: a loan from cousins, a deposit, a first wage, money home."""
    who = town.customer(opened=arrival)
    for cousin in (town.stranger(), town.stranger()):
        town.move(town.at(arrival + 1, 10, 13), cousin, who, town.cents(450, 700, 5000), purpose=Purpose.FAMI)
    town.move(
        town.at(arrival + 1, 15, 19), who, town.stranger(), town.cents(800, 900, 5000), purpose=Purpose.RENT
    )
    wage(town, who, 1500, 2000, arrival + 10)
    bills(town, who, arrival + 20)
    spending(town, who, arrival + 1, 0.7)
    for day in town.months(27):
        if day > arrival + 14:
            amount = town.cents(150, 300, 1000)
            town.move(town.at(day, 11, 20), who, town.remitters[0], amount, Channel.TRANSFER, Purpose.FAMI)
    town.look_alike(who, "newcomer: a young account with borrowed money, a deposit and money sent home")


def savings_group(town: _Town) -> None:
    """Ten people pay one pot a month to each in turn, through the same treasurer."""
    people = [household(town) for _ in range(4)] + [town.stranger() for _ in range(6)]
    treasurer = people[0]
    for turn, day in enumerate(town.months(10)):
        for person in people[1:]:
            town.move(town.at(day + town.rng.randrange(2), 9, 20), person, treasurer, 15_000)
        town.move(town.at(day + 2, 12, 18), treasurer, people[1 + turn % 9], 150_000)
    town.look_alike(treasurer, "rotating savings group: everybody's share in, one pot out")


def second_hand_seller(town: _Town) -> None:
    """Clears out a house: many small first-time payers, and the money is spent in shops."""
    who = household(town)
    for day in range(40, 75):
        for _ in range(town.rng.choice((0, 1, 1, 2))):
            town.move(town.at(day, 9, 22), town.stranger(), who, town.cents(8, 70))
    town.look_alike(who, "second-hand seller: many strangers pay small amounts")


def childminder(town: _Town) -> None:
    """Nine families pay every week; rent and food take it."""
    who = town.customer()
    home(town, who)
    spending(town, who)
    for family in [town.stranger() for _ in range(9)]:
        weekly = town.cents(70, 110, 500)
        for week in range(town.days // 7):
            town.move(town.at(week * 7 + 4, 8, 20), family, who, weekly)
    town.look_alike(who, "childminder: nine families pay every Friday")


# -- the planted rings ------------------------------------------------------------------------------------------------


class _Sweeper:
    """Remembers when each mule was last paid: a ring that pays one twice a day mixes its own commission up."""

    def __init__(self, mules: list[End], apart: int) -> None:
        self.free_at = {mule.account: 0 for mule in mules}
        self.mules = mules
        self.apart = apart

    def take(self, time: int, wanted: int) -> list[End]:
        """The mules that have waited longest, at most `wanted` of them."""
        free = [mule for mule in self.mules if self.free_at[mule.account] <= time]
        free.sort(key=lambda mule: (self.free_at[mule.account], mule.account))
        chosen = free[:wanted]
        for mule in chosen:
            self.free_at[mule.account] = time + self.apart
        return chosen


def cash_out(town: _Town, who: End, time: int, amount: int, book: Callable[[int], None]) -> None:
    """Take nine tenths of an amount from machines within the hour; the rest is the pay."""
    left = round(amount * town.rng.uniform(0.90, 0.92) / 1000) * 1000
    moment = time + town.rng.randrange(9, 24) * MINUTE
    while left > 0:
        part = min(left, 50_000)
        book(town.withdraw(moment, who, part))
        left -= part
        moment += town.rng.randrange(3, 11) * MINUTE


def mule_ring(town: _Town, first_day: int) -> None:
    """Victims pay one young account; it splits each payment over mules, who draw it out and keep a tenth."""
    collector = town.customer(opened=first_day - 33)
    mules = [town.customer(opened=first_day - town.rng.randrange(8, 45)) for _ in range(12)]
    plan = _Plan(
        "mule-ring",
        "victims pay a collecting account, which splits the money over young mule accounts that draw it out as cash",
        collector.account,
        [collector.account, *(mule.account for mule in mules)],
    )
    town.rings.append(plan)
    for person in (collector, *mules):
        spending(town, person, max(0, first_day - 6), 0.15)
    sweeper = _Sweeper(mules, 26 * HOUR)
    for day in range(first_day, first_day + 8):
        for turn in range(6):
            time = town.at(day, 9 + turn * 1.5, 10 + turn * 1.5)
            amount = town.cents(900, 1900, 100)
            plan.indexes.append(town.move(time, town.stranger(), collector, amount))
            chosen = sweeper.take(time, 2)
            for place, mule in enumerate(chosen):
                part = amount * 96 // 100 // len(chosen) + (0 if place else town.rng.randrange(-3000, 3000))
                sent = time + town.rng.randrange(12, 40) * MINUTE
                plan.indexes.append(town.move(sent, collector, mule, part))
                cash_out(town, mule, sent, part, plan.indexes.append)


def recruitment_ring(town: _Town, first_day: int) -> None:
    """Job seekers pay a fee to one account for work that never comes; it goes out the same evening."""
    collector = town.customer(opened=first_day - 24)
    helpers = [town.customer(opened=first_day - town.rng.randrange(5, 40)) for _ in range(11)]
    plan = _Plan(
        "recruitment-scam",
        "many first-time payers pay a placement fee to one account, which scatters it to young accounts and cash",
        collector.account,
        [collector.account, *(helper.account for helper in helpers)],
    )
    town.rings.append(plan)
    for person in (collector, *helpers):
        spending(town, person, max(0, first_day - 5), 0.15)
    sweeper = _Sweeper(helpers, 20 * HOUR)
    for day in range(first_day, first_day + 9):
        taken = 0
        for _ in range(town.rng.randrange(5, 9)):
            amount = town.cents(180, 480, 500)
            taken += amount
            plan.indexes.append(town.move(town.at(day, 10, 18), town.stranger(), collector, amount))
        evening = town.at(day, 19, 20)
        cash = 20_000
        plan.indexes.append(town.withdraw(evening, collector, cash))
        chosen = sweeper.take(evening, max(1, min(len(helpers), (taken - cash) // 32_000)))
        for helper in chosen:
            evening += town.rng.randrange(2, 9) * MINUTE
            part = (taken * 95 // 100 - cash) // len(chosen)
            plan.indexes.append(town.move(evening, collector, helper, part))
            cash_out(town, helper, evening, part, plan.indexes.append)


# -- the whole --------------------------------------------------------------------------------------------------------


def simulate(seed: int = 7, *, days: int = 120, households: int = 420) -> SimulatedBank:
    """Build the bank. The same arguments give the same bank, payment for payment."""
    if days < 90:
        raise ValueError("the rings need at least 90 days around them")
    town = _Town(seed, days)
    circle: list[End] = []
    for _ in range(households):
        circle.append(household(town))
        if len(circle) == 5:
            friends(town, circle)
            circle = []
    for routine in (
        payday_bill_run, payday_bill_run, remittance_family, remittance_family, student_house, student_house,
        club_treasurer, event_treasurer, funeral, landlord, market_trader, savings_group, second_hand_seller, childminder,
    ):  # fmt: skip
        routine(town)
    for arrival in (12, 27):
        newcomer(town, arrival)
    mule_ring(town, 58)
    recruitment_ring(town, 74)
    return _finish(town)


def _finish(town: _Town) -> SimulatedBank:
    """Number the payments in the order of their time, then let them arrive a little out of order."""
    order = sorted(range(len(town.drafts)), key=lambda index: (town.drafts[index].time, index))
    names = {index: f"TX-{place:07}" for place, index in enumerate(order, 1)}
    moves = [town.drafts[index]._replace(tx_id=names[index]) for index in order]
    arrival = [move.time + town.rng.randrange(DISORDER) for move in moves]
    moves = [moves[place] for place in sorted(range(len(moves)), key=arrival.__getitem__)]
    rings = tuple(
        Ring(
            plan.name,
            plan.story,
            plan.main,
            tuple(plan.members),
            tuple(sorted(names[i] for i in plan.indexes if i >= 0)),
        )
        for plan in town.rings
    )
    return SimulatedBank(tuple(moves), tuple(town.accounts), Truth(rings, tuple(town.look_alikes)), town.days)


def payment(move: Move) -> Payment:
    """A move as the bank reports it. The bank knows what its counterparties are."""
    return Payment(
        bank=BANK,
        tx_id=move.tx_id,
        time=move.time,
        amount=move.amount,
        currency=CURRENCY,
        debtor=_party(move.debtor),
        creditor=_party(move.creditor),
        channel=move.channel,
        purpose=move.purpose,
    )


def _party(end: End) -> Party:
    return Party(end.account if end.bank else "", end.bank or "", end.kind, ClassSource.BANK_MASTER)
