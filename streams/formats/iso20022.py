"""ISO 20022 XML: pacs.008 (credit transfer) and camt.054 (booked entries), versions .001.08 and later.

Read as a stream, many transactions a message. Only the elements in the two tables below are looked at; the rest of the
message, with the names and addresses in it, is never read. Document types and entities are refused before parsing. A
transaction with a bad value costs only itself; a message that is not well-formed is refused whole, so that its resend
is not half a duplicate.

Event time, best first. pacs.008: acceptance, settlement (credit, then debit) — exact; creation of a message with one
transaction — to the minute; creation or settlement date of a batch — to the day. camt.054: acceptance, card transaction,
booking — exact when they carry a time, else to the day. A bare date has no zone: it stands at 00:00 UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from lxml import etree

from detectors.model import DAY, Channel, ClassSource, PartyClass, Side, Status, TimePrecision
from streams.currencies import EXPONENTS, BadAmount, minor_units
from streams.formats.codes import PURPOSES, complete, held_by, merchant_class, own_code
from streams.payment import DecodeContext, Party, Payment, Reason, Rejected
from streams.pseudonyms import qualify
from streams.zones import microseconds, zone

FIRST_VERSION = 8
MAX_DEPTH = 64

Trie: TypeAlias = "dict[str, Trie | str]"

_ACCOUNT: Trie = {"Id": {"IBAN": "iban", "Othr": {"Id": "other"}}}
_AGENT: Trie = {"FinInstnId": {"BICFI": "bic", "ClrSysMmbId": {"MmbId": "member"}}}
_PAYMENT_TYPE: Trie = {
    "LclInstrm": {"Cd": "instrument", "Prtry": "instrument"},
    "SvcLvl": {"Cd": "service"},
    "CtgyPurp": {"Cd": "category"},
}


def _prefixed(trie: Trie, prefix: str) -> Trie:
    return {
        tag: f"{prefix}{node}" if isinstance(node, str) else _prefixed(node, prefix)
        for tag, node in trie.items()
    }


_GROUP_HEADER: Trie = {
    "MsgId": "message",
    "CreDtTm": "created",
    "NbOfTxs": "number",
    "IntrBkSttlmDt": "settled",
    "PmtTpInf": _PAYMENT_TYPE,
    "InstgAgt": _prefixed(_AGENT, "sender_"),
}
_TRANSFER: Trie = {
    "PmtId": {"InstrId": "instruction", "EndToEndId": "end_to_end", "TxId": "transaction", "UETR": "uetr"},
    "PmtTpInf": _PAYMENT_TYPE,
    "IntrBkSttlmAmt": "amount",
    "IntrBkSttlmDt": "settled",
    "SttlmTmIndctn": {"CdtDtTm": "credited", "DbtDtTm": "debited"},
    "AccptncDtTm": "accepted",
    "AddtlDtTm": {"AccptncDtTm": "accepted"},  # from .001.13 on
    "InstgAgt": _prefixed(_AGENT, "sender_"),
    "DbtrAcct": _prefixed(_ACCOUNT, "debtor_"),
    "DbtrAgt": _prefixed(_AGENT, "debtor_"),
    "CdtrAcct": _prefixed(_ACCOUNT, "creditor_"),
    "CdtrAgt": _prefixed(_AGENT, "creditor_"),
    "Purp": {"Cd": "purpose"},
    "RmtInf": {"Ustrd": "+text"},
}
_BANK_CODE: Trie = {"Domn": {"Cd": "domain", "Fmly": {"Cd": "family", "SubFmlyCd": "sub"}}}
_CARD: Trie = {"Tx": {"Indv": {"TxCtgy": "mcc", "TxId": {"TxDtTm": "card_time"}}, "Aggtd": {"TxCtgy": "mcc"}}}
_CARD_ENTRY: Trie = {"AggtdNtry": {"TxCtgy": "mcc"}}
_OWN_ACCOUNT: Trie = {**_ACCOUNT, "Svcr": _AGENT}
_ENTRY: Trie = {
    "Amt": "amount",
    "CdtDbtInd": "indicator",
    "RvslInd": "reversal",
    "Sts": {"": "status", "Cd": "status"},
    "BookgDt": {"Dt": "booked_day", "DtTm": "booked"},
    "ValDt": {"Dt": "value_day", "DtTm": "value"},
    "AcctSvcrRef": "reference",
    "BkTxCd": _BANK_CODE,
    "CardTx": _CARD_ENTRY,
}
_DETAILS: Trie = {
    "Refs": {
        "AcctSvcrRef": "detail_reference",
        "EndToEndId": "end_to_end",
        "TxId": "transaction",
        "UETR": "uetr",
    },
    "Amt": "amount",
    "CdtDbtInd": "indicator",
    "AmtDtls": {"TxAmt": {"Amt": "transaction_amount"}},
    "BkTxCd": _BANK_CODE,
    "RltdPties": {"DbtrAcct": _prefixed(_ACCOUNT, "debtor_"), "CdtrAcct": _prefixed(_ACCOUNT, "creditor_")},
    "RltdAgts": {"DbtrAgt": _prefixed(_AGENT, "debtor_"), "CdtrAgt": _prefixed(_AGENT, "creditor_")},
    "RltdDts": {"AccptncDtTm": "accepted", "TxDtTm": "transacted"},
    "RtrInf": {"": "returned", "Rsn": {"": "returned"}},
    "Purp": {"Cd": "purpose"},
    "CardTx": _CARD,
    "RmtInf": {"Ustrd": "+text"},
}

_NAMESPACE = re.compile(r"urn:iso:std:iso:20022:tech:xsd:(pacs\.008|camt\.054)\.001\.([0-9]{2})")
_UETR = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_FORBIDDEN = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_ENCODING = re.compile(rb"""^(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?encoding\s*=\s*["']([^"']*)["']""")
_NONE = frozenset({"", "NOTPROVIDED", "NOT PROVIDED", "NONREF"})

_CHANNELS = {
    ("CCRD", "CWDL"): Channel.ATM,
    ("CCRD", "CDPT"): Channel.CASH_DEPOSIT,
    ("MCRD", "CWDL"): Channel.ATM,
    ("CNTR", "CWDL"): Channel.CASH_COUNTER,
    ("CNTR", "CDPT"): Channel.CASH_DEPOSIT,
    ("CNTR", "FCDP"): Channel.CASH_DEPOSIT,
    ("CNTR", "FCWD"): Channel.CASH_COUNTER,
}
_FAMILIES = {
    "CCRD": Channel.CARD,
    "MCRD": Channel.CARD,
    "RCDT": Channel.TRANSFER,
    "ICDT": Channel.TRANSFER,
    "RRCT": Channel.INSTANT,
    "IRCT": Channel.INSTANT,
    "RDDT": Channel.DIRECT_DEBIT,
    "IDDT": Channel.DIRECT_DEBIT,
    "RCHQ": Channel.CHEQUE,
    "ICHQ": Channel.CHEQUE,
}
_FEES = frozenset({"CHRG", "COMM", "FEES", "INTR", "COAT", "TAXE"})
_INSTANT = frozenset({"INST", "IN", "RTP", "FPS", "CTP"})


class _Refused(Exception):
    """This transaction (or message) is refused."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@lru_cache(maxsize=64)
def _in_namespace(namespace: str, name: str) -> Trie:
    tries = {
        "header": _GROUP_HEADER,
        "transfer": _TRANSFER,
        "entry": _ENTRY,
        "details": _DETAILS,
        "own": _OWN_ACCOUNT,
    }

    def qualified(trie: Trie) -> Trie:
        return {
            f"{{{namespace}}}{tag}" if tag else "": node if isinstance(node, str) else qualified(node)
            for tag, node in trie.items()
        }

    return qualified(tries[name])


def _read(element: Any, trie: Trie, into: dict[str, str]) -> dict[str, str]:
    """The listed elements' text. The first of several counts; `+name` gathers all."""
    for child in element:
        node = trie.get(child.tag)
        if node is None:
            continue
        if isinstance(node, dict):
            if "" in node:
                into.setdefault(str(node[""]), (child.text or "").strip() or "-")
            _read(child, node, into)
            continue
        text = (child.text or "").strip()
        if node[0] == "+":
            into[node[1:]] = f"{into[node[1:]]} {text}" if node[1:] in into else text
        elif text and into.get(node, "-") == "-":
            into[node] = text
            if (currency := child.get("Ccy")) is not None:
                into[f"{node}_currency"] = currency
    return into


def decode(value: bytes, context: DecodeContext) -> list[Payment | Rejected]:
    """One message of either kind, told apart by its namespace."""
    try:
        _guard(value, context)
        items = []
        for item in _Message(context).items(value):
            items.append(item)
            if len(items) > context.max_transactions:
                raise _Refused(Reason.OVERSIZED, f"more than {context.max_transactions} transactions")
    except _Refused as refused:
        return [Rejected(refused.reason, refused.detail)]
    except etree.XMLSyntaxError as error:
        line, column = error.position
        return [Rejected(Reason.UNDECODABLE, f"not well-formed XML (line {line}, column {column})")]
    return items or [Rejected(Reason.UNSUPPORTED, "no transaction of pacs.008 or camt.054")]


def _guard(value: bytes, context: DecodeContext) -> None:
    if len(value) > context.max_bytes:
        raise _Refused(Reason.OVERSIZED, f"more than {context.max_bytes} bytes")
    # Another encoding could hide a document type from the search below; ISO 20022 prescribes UTF-8.
    if b"\0" in value[:8] or value[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Refused(Reason.UNDECODABLE, "not UTF-8")
    if (declared := _ENCODING.match(value[:512])) and declared[1].upper() not in (
        b"UTF-8",
        b"UTF8",
        b"US-ASCII",
        b"ASCII",
    ):
        raise _Refused(Reason.UNDECODABLE, "not UTF-8")
    if _FORBIDDEN.search(value):
        raise _Refused(Reason.FORBIDDEN_XML, "a document type or entity declaration")


class _Message:
    """State of one message while it streams by."""

    def __init__(self, context: DecodeContext) -> None:
        self.context = context
        self.zone: ZoneInfo = zone(context.zone)
        self.header: dict[str, str] = {}
        self.own: dict[str, str] = {}
        self.index = 0
        self.primary = own_code(context)

    def items(self, value: bytes) -> Iterator[Payment | Rejected]:
        events = etree.iterparse(
            BytesIO(value),
            events=("end",),
            tag=("{*}GrpHdr", "{*}CdtTrfTxInf", "{*}Acct", "{*}Ntry", "{*}Ntfctn", "{*}Document"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            dtd_validation=False,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        for _, element in events:
            namespace, _, tag = str(element.tag)[1:].rpartition("}")
            match = _NAMESPACE.fullmatch(namespace)
            if match is None:
                if tag == "Document":
                    raise _Refused(Reason.UNSUPPORTED, "neither pacs.008 nor camt.054")
                continue
            if int(match[2]) < FIRST_VERSION:
                raise _Refused(Reason.UNSUPPORTED, f"version .001.{match[2]}, before .001.{FIRST_VERSION:02}")
            parent = element.getparent()
            above = "" if parent is None else str(parent.tag).rpartition("}")[2]
            if tag == "GrpHdr":
                self.header = _read(element, _in_namespace(namespace, "header"), {})
            elif tag == "CdtTrfTxInf" and match[1] == "pacs.008":
                fields = _read(element, _in_namespace(namespace, "transfer"), {})
                yield self._guarded(self._transfer, fields)
                _forget(element)
            elif tag == "Acct" and above == "Ntfctn":
                self.own = _read(element, _in_namespace(namespace, "own"), {})
            elif tag == "Ntry" and above == "Ntfctn":
                yield from self._entry(element, namespace)
                _forget(element)
            elif tag == "Ntfctn":
                self.own = {}
                _forget(element)

    def _guarded(self, make: Any, fields: dict[str, str]) -> Payment | Rejected:
        index = self.index
        self.index += 1
        try:
            payment: Payment = make(fields)
        except _Refused as refused:
            return Rejected(refused.reason, refused.detail, index)
        if not (payment.debtor.account or payment.creditor.account):
            return Rejected(Reason.MISSING_ACCOUNT, "DbtrAcct, CdtrAcct: neither has an id", index)
        complete(payment.debtor, payment.creditor, payment.channel)
        return payment

    # -- pacs.008 -------------------------------------------------------------------------------------------------------

    def _transfer(self, fields: dict[str, str]) -> Payment:
        context, header = self.context, self.header
        uetr, end_to_end = _references(fields)
        sender = (fields.get("sender_bic") or header.get("sender_bic") or fields.get("debtor_bic") or "")[:8]
        own_id = fields.get("transaction") or fields.get("instruction") or ""
        if own_id in _NONE:
            own_id = ""
        # An id of the sending bank is unique at that bank only.
        tx_id = uetr or (f"{sender}/{own_id}" if own_id and sender else own_id)
        if not tx_id:
            raise _Refused(Reason.MISSING_ID, "PmtId: none of UETR, TxId, InstrId")
        amount, currency = self._amount(fields, "amount", "IntrBkSttlmAmt")
        time, precision = self._transfer_time(fields)
        instrument = fields.get("instrument") or header.get("instrument") or ""
        category = fields.get("category") or header.get("category") or ""
        return Payment(
            context.bank, tx_id, time, amount, currency,
            self._party(fields, "debtor_"), self._party(fields, "creditor_"),
            precision,
            Channel.INSTANT if instrument in _INSTANT else Channel.TRANSFER,
            PURPOSES.get(fields.get("purpose", "")) or PURPOSES.get(category, 0),
            Status.BOOKED, "", uetr, end_to_end, "", self._lexicon(fields),
        )  # fmt: skip

    def _transfer_time(self, fields: dict[str, str]) -> tuple[int, int]:
        for name, tag in (("accepted", "AccptncDtTm"), ("credited", "CdtDtTm"), ("debited", "DbtDtTm")):
            if name in fields:
                return self._moment(fields[name], tag), TimePrecision.EXACT
        settled = fields.get("settled") or self.header.get("settled")
        day = _day(settled, "IntrBkSttlmDt") if settled else None
        if "created" in self.header:
            created = self._moment(self.header["created"], "CreDtTm")
            if day is None or day == created - created % DAY:
                single = self.header.get("number") == "1"
                return created, TimePrecision.MINUTE if single else TimePrecision.DAY
        if day is None:
            raise _Refused(Reason.MISSING_TIME, "none of AccptncDtTm, SttlmTmIndctn, CreDtTm, IntrBkSttlmDt")
        return day, TimePrecision.DAY

    # -- camt.054 -------------------------------------------------------------------------------------------------------

    def _entry(self, element: Any, namespace: str) -> Iterator[Payment | Rejected]:
        entry = _read(element, _in_namespace(namespace, "entry"), {})
        trie = _in_namespace(namespace, "details")
        found = list(element.iterfind(f"{{{namespace}}}NtryDtls/{{{namespace}}}TxDtls"))
        if not found:
            yield self._guarded(self._booked, entry)
            return
        reference = entry.pop("reference", "")
        if len(found) > 1:
            entry.pop("amount", None)
        for number, details in enumerate(found):
            fields = _read(details, trie, {})
            # What the details say wins over the entry; whole codes only, so that halves are never combined.
            if "domain" in fields:
                entry_fields = {k: v for k, v in entry.items() if k not in ("domain", "family", "sub")}
            else:
                entry_fields = entry
            if "amount" not in fields and "transaction_amount" in fields and "amount" not in entry_fields:
                fields["amount"] = fields["transaction_amount"]
                fields["amount_currency"] = fields.get("transaction_amount_currency", "")
            if "amount" in fields:
                entry_fields = {k: v for k, v in entry_fields.items() if k != "amount_currency"}
            fields = {**entry_fields, **fields}
            if reference:
                fields["reference"] = f"{reference}#{number}" if len(found) > 1 else reference
            yield self._guarded(self._booked, fields)

    def _booked(self, fields: dict[str, str]) -> Payment:
        context = self.context
        if fields.get("status") != "BOOK":
            raise _Refused(Reason.NOT_BOOKED, "Sts: not BOOK")
        indicator = fields.get("indicator")
        if indicator not in ("CRDT", "DBIT"):
            raise _Refused(Reason.INVALID, "CdtDbtInd: neither CRDT nor DBIT")
        bank = held_by(self.own.get("bic", "").upper() or self.own.get("member", ""), context) or context.bank
        if bank != context.bank and context.bank_codes and not context.system_wide:
            raise _Refused(Reason.WRONG_BANK, "Svcr: this feed belongs to another bank")
        if not context.system_wide:
            bank = context.bank
        reversal = fields.get("reversal") in ("true", "1")
        returned = "returned" in fields
        # A reversal or return is booked on the other side than what it undoes.
        credit = (indicator == "CRDT") != (reversal or returned)
        uetr, end_to_end = _references(fields)
        detail_reference = fields.get("detail_reference", "")
        if detail_reference in _NONE:
            detail_reference = ""
        own_reference = detail_reference or fields.get("reference", "")
        refers_to = ""
        if reversal or returned:
            refers_to = uetr or detail_reference
            if not refers_to:
                raise _Refused(Reason.NO_ORIGINAL, "Refs: neither UETR nor AcctSvcrRef of what is undone")
        tx_id = uetr or own_reference or fields.get("transaction", "")
        if tx_id in _NONE:
            raise _Refused(Reason.MISSING_ID, "none of UETR, AcctSvcrRef, TxId")
        amount, currency = self._amount(fields, "amount", "Amt")
        time, precision = self._booked_time(fields)
        channel = _channel(fields)
        own = self._party(self.own, "")
        own.bank = bank
        other = self._party(fields, "debtor_" if credit else "creditor_")
        # What the entry says of the other end is better than the feed's default.
        if (mcc := fields.get("mcc")) and not credit:
            other.cls, other.class_source = merchant_class(mcc), ClassSource.MCC
        elif channel == Channel.FEE:
            other.cls, other.class_source = PartyClass.BANK, ClassSource.MAPPING
        if not own.account:
            raise _Refused(Reason.MISSING_ACCOUNT, "Ntfctn/Acct: no id")
        return Payment(
            bank, tx_id, time, amount, currency,
            other if credit else own, own if credit else other,
            precision, channel, PURPOSES.get(fields.get("purpose", ""), 0),
            Status.REVERSED if reversal else Status.RETURNED if returned else Status.BOOKED,
            refers_to, uetr, end_to_end, "", self._lexicon(fields),
            Side.CREDIT if credit else Side.DEBIT,
        )  # fmt: skip

    def _booked_time(self, fields: dict[str, str]) -> tuple[int, int]:
        for name, tag in (
            ("accepted", "AccptncDtTm"), ("card_time", "TxDtTm"), ("transacted", "TxDtTm"), ("booked", "BookgDt/DtTm"),
        ):  # fmt: skip
            if name in fields:
                return self._moment(fields[name], tag), TimePrecision.EXACT
        if "booked_day" in fields:
            return _day(fields["booked_day"], "BookgDt/Dt"), TimePrecision.DAY
        if "value" in fields:
            return self._moment(fields["value"], "ValDt/DtTm"), TimePrecision.DAY
        if "value_day" in fields:
            return _day(fields["value_day"], "ValDt/Dt"), TimePrecision.DAY
        raise _Refused(Reason.MISSING_TIME, "none of AccptncDtTm, TxDtTm, BookgDt, ValDt")

    # -- both -----------------------------------------------------------------------------------------------------------

    def _party(self, fields: dict[str, str], prefix: str) -> Party:
        context = self.context
        bic = fields.get(f"{prefix}bic", "").upper()
        code = bic[:8] if len(bic) in (8, 11) else fields.get(f"{prefix}member", "")
        bank = held_by(code, context)
        own = bank == context.bank or (not prefix and not code)
        account = fields.get(f"{prefix}iban", "")
        if account:
            account = qualify(account, "")
        else:
            account = qualify(fields.get(f"{prefix}other", ""), self.primary if own else code)
        cls = context.party_class if account else PartyClass.UNKNOWN
        return Party(account, bank, cls, context.class_source if cls else ClassSource.UNKNOWN)

    def _amount(self, fields: dict[str, str], name: str, tag: str) -> tuple[int, str]:
        text = fields.get(name)
        if text is None:
            raise _Refused(Reason.INVALID_AMOUNT, f"{tag}: missing")
        currency = fields.get(f"{name}_currency", "")
        exponent = EXPONENTS.get(currency)
        if exponent is None:
            raise _Refused(Reason.UNKNOWN_CURRENCY, f"{tag}/@Ccy: not a code of ISO 4217")
        # xs:decimal may be written ".5" or "5." or "+5"; nothing else that minor_units refuses is legal.
        text = text.removeprefix("+")
        if text[:1] == "." and text[1:2].isdigit():
            text = f"0{text}"
        try:
            return minor_units(text.removesuffix(".") if text.count(".") == 1 else text, exponent), currency
        except BadAmount as error:
            raise _Refused(Reason.INVALID_AMOUNT, f"{tag}: {error}") from None

    def _moment(self, text: str, tag: str) -> int:
        try:
            return microseconds(datetime.fromisoformat(text), self.zone)
        except (ValueError, OverflowError):
            raise _Refused(Reason.INVALID_TIME, f"{tag}: not a date and time") from None

    def _lexicon(self, fields: dict[str, str]) -> int:
        text = fields.get("text", "")
        return self.context.lexicon(text) if self.context.lexicon is not None and text else 0


def _references(fields: dict[str, str]) -> tuple[str, str]:
    uetr = fields.get("uetr", "")
    if uetr in _NONE:
        uetr = ""
    if uetr and not _UETR.fullmatch(uetr):
        raise _Refused(Reason.INVALID, "UETR: not a UUID")
    end_to_end = fields.get("end_to_end", "")
    return uetr.lower(), "" if end_to_end in _NONE else end_to_end


def _channel(fields: dict[str, str]) -> int:
    family, sub = fields.get("family", ""), fields.get("sub", "")
    if fields.get("domain") != "PMNT":
        return Channel.FEE if sub in _FEES else Channel.OTHER
    if sub in _FEES:
        return Channel.FEE
    return _CHANNELS.get((family, sub)) or _FAMILIES.get(family, Channel.OTHER)


def _day(text: str, tag: str) -> int:
    try:
        return (date.fromisoformat(text[:10]).toordinal() - _EPOCH_DAY) * DAY
    except ValueError:
        raise _Refused(Reason.INVALID_TIME, f"{tag}: not a date") from None


_EPOCH_DAY = date(1970, 1, 1).toordinal()


def _forget(element: Any) -> None:
    """Free what was read, the element and what stood before it."""
    element.clear()
    parent = element.getparent()
    if parent is not None:
        while element.getprevious() is not None:
            del parent[0]
