"""What a training tells while it runs: history.csv, log lines, a progress bar."""

from __future__ import annotations

import csv
import io
import logging
import sys
import time
from pathlib import Path

from tqdm import tqdm

from schnet.files import write_text

log = logging.getLogger("schnet")
LOG_INTERVAL = 10  # seconds between lines where there is no terminal


def write_history(path: Path, history: list[dict]) -> None:
    """Write rows of validation results as CSV, numbers with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]))
    writer.writeheader()
    for row in history:
        shown = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        writer.writerow(shown)
    write_text(path, text.getvalue())


class Recorder:
    """Shows the progress of one training; a context manager, which closes the bar."""

    def __init__(self, file: Path, steps: int, first_step: int):
        """Args: history.csv to write; steps of the whole training and those already done."""
        self.file, self.steps = file, steps
        self.terminal = sys.stderr.isatty()
        self.bar = tqdm(
            total=steps, initial=first_step, unit="step", disable=not self.terminal, smoothing=0.05
        )
        self.last_line = time.monotonic()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def advance(self) -> None:
        """One step is done."""
        self.bar.update(1)

    def validated(self, history: list[dict], selected: str) -> None:
        """A row was added to the history; ``selected``: the kind of weights to show."""
        write_history(self.file, history)
        row = history[-1]
        prefix = f"{selected}_"
        shown = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
        message = ", ".join(f"{k} {v:.4g}" for k, v in shown.items())
        self.bar.set_postfix_str(message)
        if not self.terminal and time.monotonic() - self.last_line > LOG_INTERVAL:
            self.last_line = time.monotonic()
            log.info("step %s of %s: %s", f"{row['step']:,}", f"{self.steps:,}", message)
