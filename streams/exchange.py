"""The service that tells other processes how far this one is, and hears of them."""

from __future__ import annotations

import logging
import time
from typing import Any

from mode import Service

from streams.board import Board, Progress

log = logging.getLogger(__name__)

EVERY_SECONDS = 0.1
BUSY_SECONDS = 0.02
"""While several processes move: each waits for the others every few hours of event time, so what one does not hear in time
is time in which nobody reads."""


class Exchange(Service):
    """Posts to the board and reads it, a few times a second. Without news intake only waits."""

    def __init__(self, progress: Progress, board: Board, every: float = EVERY_SECONDS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._progress = progress
        self._board = board
        self._every = every
        self.turned_at = time.monotonic()

    @Service.task
    async def _run(self) -> None:
        failing = False
        while not self.should_stop:
            self.turned_at = time.monotonic()
            moving = False
            try:
                moving = await self._progress.exchange(self._board)
                failing = False
            except Exception as problem:  # noqa: BLE001 - whatever it is, the answer is to try again
                if not failing:
                    log.warning("progress could not be exchanged", extra={"problem": type(problem).__name__})
                failing = True
            await self.sleep(min(self._every, BUSY_SECONDS) if moving else self._every)
