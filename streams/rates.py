"""A table of rates from a file: currency → u-cents per 10^6 minor units, as `LegBuilder` and `model.Rates` hold it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from streams.currencies import EXPONENTS, rate_per_million
from streams.shipped import shipped


class RateTable(msgspec.Struct, frozen=True):
    """Rates of one version."""

    version: str
    source: str
    u_micro: dict[str, int]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    source: str
    rates: dict[str, str]


class BadRates(ValueError):
    """A table of rates that cannot be used. The text has one line a problem."""


def load_rates(path: str | Path | None = None) -> RateTable:
    """From a YAML file; None: the rounded table that ships."""
    path = shipped("rates.yaml") if path is None else Path(path)
    try:
        file = msgspec.yaml.decode(path.read_bytes(), type=_File)
    except msgspec.DecodeError as error:
        raise BadRates(f"{path}: {error}") from None
    table, problems = {}, []
    for currency, rate in file.rates.items():
        if currency not in EXPONENTS:
            problems.append(f"{path}: rates.{currency}: not a currency of ISO 4217")
            continue
        try:
            table[currency] = rate_per_million(currency, rate)
        except ValueError as error:
            problems.append(f"{path}: {error}")
    if problems:
        raise BadRates("\n".join(problems))
    return RateTable(file.version, file.source, table)
