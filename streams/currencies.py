"""ISO 4217: alphabetic codes and the exponent of their minor unit.

Source: ISO 4217:2015 list one ("current currency & funds codes"), with the amendments known when this table was
written (2025): BGN ends with 2025, ANG became XCG, ZWL became ZWG. Withdrawn codes stay, since history is judged too.
Metals, bond units and SDRs are no money that an account holds and are left out. `XTS`, the code that ISO reserves for
tests, has two decimals here and serves published data that name no currency.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

_TWO = """
AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
CNY COP COU CRC CUC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF
IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV
MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD
SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL
ATS BEF DEM ESP FIM FRF GRD IEP ITL NLG PTE CYP MTL SIT SKK EEK LVL LTL CSK XTS
"""
_ZERO = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"

EXPONENTS: dict[str, int] = {
    code: exponent
    for exponent, codes in ((2, _TWO), (0, _ZERO), (3, _THREE), (4, _FOUR))
    for code in codes.split()
}
"""Code → decimals of the minor unit."""

MAX_DIGITS = 18
"""Most digits of an amount as written; ISO 20022 allows as many."""


class BadAmount(ValueError):
    """Not an amount. The text names the rule, never the value."""


def minor_units(text: str, exponent: int) -> int:
    """`"12.3"` with two decimals → 1230, exactly. No sign, no exponent, no group separators; trailing zeros are free."""
    whole, _, fraction = text.partition(".")
    if len(fraction) != exponent:
        fraction = fraction.rstrip("0").ljust(exponent, "0")
        if len(fraction) > exponent:
            raise BadAmount(
                "finer than the minor unit" if fraction.isdecimal() else "not a plain decimal number"
            )
    digits = whole + fraction
    if not (whole and digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS + exponent):
        raise BadAmount("not a plain decimal number")
    if text[-1] == ".":
        raise BadAmount("not a plain decimal number")
    return int(digits)


def decimal_text(amount: int, exponent: int) -> str:
    """The way back: 1230 with two decimals → `"12.30"`."""
    if exponent == 0:
        return str(amount)
    digits = str(amount).rjust(exponent + 1, "0")
    return f"{digits[:-exponent]}.{digits[-exponent:]}"


def rate_per_million(currency: str, rate: str) -> int:
    """Worth of one unit of a currency in u, as a decimal text → u-cents per 10^6 minor units (halves to even)."""
    exponent = EXPONENTS[currency]
    try:
        value = Decimal(rate)
    except InvalidOperation:
        raise ValueError(f"rate of {currency}: not a decimal number") from None
    if not (value.is_finite() and value > 0):
        raise ValueError(f"rate of {currency}: must be above zero")
    per_million = int((value.scaleb(8 - exponent)).quantize(Decimal(1), rounding="ROUND_HALF_EVEN"))
    if per_million < 1:
        raise ValueError(f"rate of {currency}: too small to be held")
    return per_million
