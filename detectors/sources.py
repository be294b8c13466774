"""Publications that detectors cite, and how each was read. Page numbers are given only where the page was seen."""

from __future__ import annotations

from typing import Final

from detectors.spec import Read, Source

_WORKS: Final[dict[str, tuple[str, str, int, Read]]] = {
    "AMLSIM": ("IBM", "AMLSim, paramFiles/*/alertPatterns.csv", 2019, Read.REPOSITORY),
    "AMLT": ("Amlyze", "AMLTRIX knowledge base", 2025, Read.REPOSITORY),
    "AMLW": (
        "Altman and others",
        "Realistic synthetic financial transactions for AML models",
        2023,
        Read.EXCERPT,
    ),
    "AU24": (
        "AUSTRAC",
        "Combating the exploitation of international students as money mules",
        2024,
        Read.EXCERPT,
    ),
    "AUT": ("AUSTRAC", "Case: Thai trafficking syndicate", 2021, Read.EXCERPT),
    "FC14": ("FinCEN", "FIN-2014-A008, human smuggling and human trafficking", 2014, Read.EXCERPT),
    "FC20": ("FinCEN", "FIN-2020-A008, supplemental advisory on human trafficking", 2020, Read.EXCERPT),
    "FC20M": ("FinCEN", "FIN-2020-A003, imposter scams and money mule schemes", 2020, Read.EXCERPT),
    "FC23H": ("FinCEN", "Alert on human smuggling along the southwest border", 2023, Read.SECONDARY),
    "FC25S": ("FinCEN", "FIN-2025-NTC2, financially motivated sextortion", 2025, Read.SECONDARY),
    "FCA24M": ("FCA", "Multi-firm reviews of money mule controls", 2024, Read.EXCERPT),
    "FT19": ("FINTRAC", "FINTRAC-2019-OA001, romance fraud", 2019, Read.EXCERPT),
    "LN24": ("LexisNexis Risk Solutions", "Metro Bank case study", 2024, Read.EXCERPT),
    "MITS": ("Pay.UK and Vocalink", "Mule insights tactical solution", 2018, Read.EXCERPT),
    "NATCEN24": (
        "NatCen International and University of Westminster",
        "Double Edged Swords",
        2024,
        Read.FULL,
    ),
    "NECC23": ("NECC and UKFIU", "Money mule account indicators", 2023, Read.EXCERPT),
    "TAZ": ("Tazama", "Product documentation", 2024, Read.REPOSITORY),
}


def cite(key: str, section: str, note: str) -> Source:
    """A source of a detector: where in the work, and what it says there in our words."""
    publisher, title, year, read = _WORKS[key]
    return Source(key=key, publisher=publisher, title=title, year=year, section=section, read=read, note=note)
