"""The canonical transaction: one JSON object a payment, or an array of them.

Published as `docs/schemas/transaction.v1.schema.json`, generated from the types below. Amounts are **decimal strings in
the currency's major unit** (`"12.30"`), as ISO 20022 writes them: a JSON number becomes a binary float in most
producers, and an integer of minor units hides a wrong exponent (yen, dinar) until it has scored something. Types are
strict, nothing is coerced; fields that are not listed here are dropped unread, names, addresses, birth data and
identity numbers among them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from detectors.model import ClassSource, Purpose, Status, TimePrecision
from streams.currencies import EXPONENTS, BadAmount, decimal_text, minor_units
from streams.formats.codes import (
    CHANNELS,
    CLASS_SOURCES,
    CLASSES,
    PURPOSES,
    by_slug,
    complete,
    held_by,
    merchant_class,
)
from streams.payment import DecodeContext, Party, Payment, Reason, Rejected

SCHEMA_ID = "https://safehold.example/schemas/transaction.v1.schema.json"

PartyType = Literal[
    "unknown", "personal", "merchant", "biller", "employer", "government", "psp", "charity", "remitter", "vasp", "cash",
    "own", "bank", "business", "sensitive",
]  # fmt: skip
TypeSource = Literal["unknown", "bank-master", "mcc", "directory", "learned", "mapping"]
ChannelName = Literal[
    "other", "transfer", "instant", "card", "atm", "cash-deposit", "cash-counter", "direct-debit", "cheque", "fee",
]  # fmt: skip
PrecisionName = Literal["exact", "minute", "hour", "day"]
StatusName = Literal["booked", "returned", "reversed", "pending", "rejected"]

_Id = Annotated[str, Meta(min_length=1, max_length=140)]
_OptionalId = Annotated[str, Meta(max_length=140)]


class PartyMessage(msgspec.Struct, gc=False, omit_defaults=True):
    """One end of the payment."""

    account: Annotated[
        str,
        Meta(
            max_length=140,
            description="IBAN, or an identifier that is unique over all feeds: write a national account number as "
            "BANK/number. Empty for cash and for an unknown end.",
        ),
    ] = ""
    agent: Annotated[
        str,
        Meta(max_length=64, description="Code of the bank that holds the account, for example its BIC. "
             "Needed for the reporting bank's own accounts."),
    ] = ""  # fmt: skip
    type: Annotated[
        PartyType, Meta(description="What the account holder is. `own`: same holder as the other end.")
    ] = "unknown"
    type_source: Annotated[TypeSource, Meta(description="Who says so.")] = "unknown"
    external: Annotated[
        bool,
        Meta(
            description="True for something that is not an account of any bank served, whatever `agent` says."
        ),
    ] = False


class Transaction(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """One payment, cash movement or card event, as one bank reports it."""

    transaction_id: Annotated[
        _Id, Meta(description="The reporting bank's own id: the same one on every resend.")
    ]
    acceptance_date_time: Annotated[
        datetime, Meta(tz=True, description="When it happened (not when it was sent), with offset.")
    ]
    amount: Annotated[
        str,
        Meta(
            description="Major units as a decimal string, never negative: money flows debtor → creditor.",
            extra_json_schema={"pattern": r"^[0-9]{1,18}(\.[0-9]{1,18})?$", "examples": ["12.30"]},
        ),
    ]
    debtor: PartyMessage
    creditor: PartyMessage
    currency: Annotated[
        str, Meta(description="ISO 4217. May be left out where the feed declares one.",
                  extra_json_schema={"pattern": "^[A-Z]{3}$"})
    ] = ""  # fmt: skip
    reporting_bank: Annotated[
        str, Meta(max_length=64, description="Needed only on a topic that several banks share.")
    ] = ""
    time_precision: Annotated[
        PrecisionName,
        Meta(description="How finely the time is known. A date is written as 00:00:00Z with `day`."),
    ] = "exact"
    status: Annotated[
        StatusName,
        Meta(description="Only booked payments count. `returned` and `reversed` undo the payment that "
             "`original_transaction_id` names, and repeat its sides and amount."),
    ] = "booked"  # fmt: skip
    original_transaction_id: _OptionalId = ""
    reported_side: Annotated[
        Literal["both", "debit", "credit"],
        Meta(description="Of a report of one account's entry: whose it is."),
    ] = "both"
    channel: ChannelName = "other"
    purpose: Annotated[str, Meta(max_length=4, description="ISO 20022 purpose code, for example SALA.")] = ""
    category_purpose: Annotated[str, Meta(max_length=4)] = ""
    uetr: Annotated[
        str, Meta(max_length=36, description="Unique end-to-end transaction reference (UUID).")
    ] = ""
    end_to_end_id: _OptionalId = ""
    merchant_category_code: Annotated[str, Meta(max_length=4, description="ISO 18245, of the creditor.")] = ""
    town: Annotated[
        str, Meta(max_length=140, description="Town of the cash machine or counter. Hashed at once.")
    ] = ""
    remittance_information: Annotated[
        str, Meta(description="Free text. Only lexicon hits leave the decoder; the text ends there.")
    ] = ""


_PRECISIONS = by_slug(TimePrecision)
_SIDES = {"both": -1, "debit": 0, "credit": 1}
_STATUS = {"booked": int(Status.BOOKED), "returned": int(Status.RETURNED), "reversed": int(Status.REVERSED)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UETR = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_one = msgspec.json.Decoder(Transaction)
_many = msgspec.json.Decoder(list[Transaction])
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_encoder = msgspec.json.Encoder()


def decode(value: bytes, context: DecodeContext) -> list[Payment | Rejected]:
    """One message: one transaction, or an array of them. A bad one costs only itself."""
    if len(value) > context.max_bytes:
        return [Rejected(Reason.OVERSIZED, f"more than {context.max_bytes} bytes")]
    try:
        if value[:1] == b"{" or value.lstrip(b" \t\r\n")[:1] != b"[":
            return [payment_of(_one.decode(value), context, 0)]
        transactions = _many.decode(value)
    except (msgspec.ValidationError, UnicodeDecodeError):
        return _one_by_one(value, context)
    except (msgspec.DecodeError, RecursionError) as error:
        return [Rejected(Reason.UNDECODABLE, explain(error))]
    if len(transactions) > context.max_transactions:
        return [Rejected(Reason.OVERSIZED, f"more than {context.max_transactions} transactions")]
    return [payment_of(transaction, context, index) for index, transaction in enumerate(transactions)]


def _one_by_one(value: bytes, context: DecodeContext) -> list[Payment | Rejected]:
    """The slow way, when something in the message is not valid."""
    try:
        raws: list[Any] = _raws.decode(value) if value.lstrip()[:1] == b"[" else [value]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return [Rejected(Reason.UNDECODABLE, explain(error))]
    if len(raws) > context.max_transactions:
        return [Rejected(Reason.OVERSIZED, f"more than {context.max_transactions} transactions")]
    items: list[Payment | Rejected] = []
    for index, raw in enumerate(raws):
        try:
            items.append(payment_of(_one.decode(raw), context, index))
        except msgspec.ValidationError as error:
            items.append(_invalid(error, index))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            items.append(Rejected(Reason.UNDECODABLE, explain(error), index))
    return items


def payment_of(message: Transaction, context: DecodeContext, index: int) -> Payment | Rejected:
    currency = message.currency or context.currency
    exponent = EXPONENTS.get(currency)
    if exponent is None:
        return Rejected(Reason.UNKNOWN_CURRENCY, "currency: not a code of ISO 4217", index)
    try:
        amount = minor_units(message.amount, exponent)
    except BadAmount as error:
        return Rejected(Reason.INVALID_AMOUNT, f"amount: {error}", index)
    status = _STATUS.get(message.status)
    if status is None:
        return Rejected(Reason.NOT_BOOKED, "status: only booked payments count", index)
    if status and not message.original_transaction_id:
        return Rejected(Reason.NO_ORIGINAL, "original_transaction_id: missing", index)
    bank = context.bank
    if message.reporting_bank and message.reporting_bank != bank:
        bank = held_by(message.reporting_bank, context)
    if bank != context.bank and not context.system_wide:
        return Rejected(Reason.WRONG_BANK, "reporting_bank: this feed belongs to another bank", index)
    debtor, creditor = _party(message.debtor, context), _party(message.creditor, context)
    if not (debtor.account or creditor.account):
        return Rejected(Reason.MISSING_ACCOUNT, "debtor.account, creditor.account: both empty", index)
    if not (debtor.bank or creditor.bank or context.system_wide):
        return Rejected(
            Reason.INVALID, "debtor.agent, creditor.agent: one must say which bank holds its account", index
        )
    if message.merchant_category_code and message.creditor.type == "unknown":
        creditor.cls = merchant_class(message.merchant_category_code)
        creditor.class_source = ClassSource.MCC
    channel = CHANNELS[message.channel]
    if not (debtor.account and creditor.account):
        complete(debtor, creditor, channel)
    uetr, end_to_end_id = message.uetr, message.end_to_end_id
    if uetr and not _UETR.fullmatch(uetr):
        return Rejected(Reason.INVALID, "uetr: not a UUID", index)
    text = message.remittance_information
    since = message.acceptance_date_time - _EPOCH
    return Payment(
        bank,
        message.transaction_id,
        (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds,
        amount,
        currency,
        debtor,
        creditor,
        _PRECISIONS[message.time_precision],
        channel,
        PURPOSES.get(message.purpose) or PURPOSES.get(message.category_purpose, 0),
        status,
        message.original_transaction_id if status else "",
        uetr.lower(),
        "" if end_to_end_id == "NOTPROVIDED" else end_to_end_id,
        message.town,
        context.lexicon(text) if context.lexicon is not None and text else 0,
        _SIDES[message.reported_side],
    )


def _party(message: PartyMessage, context: DecodeContext) -> Party:
    cls, source, agent = CLASSES[message.type], CLASS_SOURCES[message.type_source], message.agent
    if cls == 0 and source == 0 and message.account and not message.external:
        cls, source = context.party_class, context.class_source
    if agent and agent != context.bank:  # nearly always one of the two: spare the call
        agent = held_by(agent, context)
    return Party(message.account.strip(), agent, cls, source, message.external)


# -- problems, without the values that caused them ------------------------------------------------------------------------

_PATH = re.compile(r" - at `\$([A-Za-z_.\[\]0-9]*)`$")
_SAFE = re.compile(
    r"(Expected `[a-z| ]+`(?:, got `[a-z]+`)?|Expected `[a-z]+` (?:of length|with) [a-z<>= 0-9]+"
    r"|Object missing required field `[a-z_]+`|Invalid RFC3339 encoded datetime|JSON is malformed: [a-z ,']+"
    r"|Input data was truncated)"
)


def explain(error: BaseException) -> str:
    """What msgspec says, as far as it says nothing of the content."""
    if not isinstance(error, msgspec.DecodeError):
        return "nested too deeply" if isinstance(error, RecursionError) else "not UTF-8"
    text = str(error)
    place = _PATH.search(text)
    field = place[1].lstrip(".") if place else ""
    head = _SAFE.match(text)
    what = head[1].strip() if head else "invalid value"
    return f"{field}: {what}" if field else what


def _invalid(error: msgspec.ValidationError, index: int) -> Rejected:
    detail = explain(error)
    if "acceptance_date_time" in detail:
        return Rejected(Reason.MISSING_TIME if "missing" in detail else Reason.INVALID_TIME, detail, index)
    if "transaction_id" in detail and "original" not in detail:
        return Rejected(Reason.MISSING_ID, detail, index)
    if detail.startswith("amount"):
        return Rejected(Reason.INVALID_AMOUNT, detail, index)
    return Rejected(Reason.INVALID, detail, index)


# -- the way back ---------------------------------------------------------------------------------------------------------

_CHANNEL_NAMES: tuple[ChannelName, ...] = get_args(ChannelName)
_CLASS_NAMES: tuple[PartyType, ...] = get_args(PartyType)
_SOURCE_NAMES: tuple[TypeSource, ...] = get_args(TypeSource)
_PRECISION_NAMES: tuple[PrecisionName, ...] = get_args(PrecisionName)
_STATUS_NAMES: tuple[StatusName, ...] = get_args(StatusName)


def encode(payment: Payment) -> bytes:
    """A payment as a canonical message: what `replay` and the simulated bank send."""
    return _encoder.encode(
        Transaction(
            transaction_id=payment.tx_id,
            acceptance_date_time=_EPOCH + timedelta(microseconds=payment.time),
            amount=decimal_text(payment.amount, EXPONENTS[payment.currency]),
            currency=payment.currency,
            debtor=_party_message(payment.debtor),
            creditor=_party_message(payment.creditor),
            reporting_bank=payment.bank,
            time_precision=_PRECISION_NAMES[payment.precision],
            status=_STATUS_NAMES[payment.status],
            original_transaction_id=payment.refers_to,
            reported_side="both" if payment.only_side < 0 else "credit" if payment.only_side else "debit",
            channel=_CHANNEL_NAMES[payment.channel],
            purpose=Purpose(payment.purpose).name if payment.purpose else "",
            uetr=payment.uetr,
            end_to_end_id=payment.end_to_end_id,
            town=payment.place,
        )
    )


def _party_message(party: Party) -> PartyMessage:
    return PartyMessage(
        party.account, party.bank, _CLASS_NAMES[party.cls], _SOURCE_NAMES[party.class_source], party.external
    )
