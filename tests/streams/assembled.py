"""A worker's parts, put together as the worker does it, without anything running."""

from __future__ import annotations

from pathlib import Path

from detectors.config import demo_config
from streams import app
from streams.board import MemoryBoard
from streams.controls import Controls
from streams.metrics import Metrics
from streams.pseudonyms import PseudonymKey, Pseudonyms
from streams.settings import load
from streams.state.memory import MemoryStore

ENVIRONMENT = {
    "SAFEHOLD_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "SAFEHOLD_TOPICS": "[{name: bank-a.payments, bank: bank-a}]",
    "SAFEHOLD_MEMBER_ID": "w1",
    "SAFEHOLD_STORE": "memory",
    "SAFEHOLD_PSEUDONYM_KEY_FILE": "key",
    "SAFEHOLD_LEDGER_PARTITIONS": "2",
}


def assembled(folder: Path, **environment: str) -> app.Parts:
    """The parts of a worker with these settings, in memory and connected to nothing."""
    settings = load(None, ENVIRONMENT | environment)
    key = PseudonymKey("k1", bytes(32))
    lengths = app.fold_settings(settings, key.id)
    pseudonyms = Pseudonyms(key)
    return app.assemble(
        settings,
        store=MemoryStore(app.store_meta(settings, key.id)),
        board=MemoryBoard(),
        pseudonyms=pseudonyms,
        fold=app.make_fold(settings.ledger_partitions, lengths, demo_config()),
        controls=Controls(pseudonyms, lambda chosen: chosen.digest(engine="1", tzdata=lengths.tzdata)),
        folder=str(folder),
        metrics=Metrics(),
    )
