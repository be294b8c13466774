"""`make docs`: writes every generated page and file, each from the objects that the program uses."""

from __future__ import annotations

from scripts import grafana

if __name__ == "__main__":
    grafana.BOARD.write_text(grafana.text(), encoding="utf-8")
    print("wrote deploy/grafana/safehold.json")
