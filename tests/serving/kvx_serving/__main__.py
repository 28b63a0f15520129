"""`python -m kvx_serving SCENARIO...`: plays the scenarios, with the interpreter's own vLLM or
SGLang."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from kvx_serving import isolation, rows, scenarios
from kvx_serving.play import Setting


def main() -> int:
    """The exit status: 0 if all was played, whether it held or not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("scenarios", nargs="+", choices=list(scenarios.SCENARIOS))
    parser.add_argument("--engine", choices=["kvx", "real"], default="kvx")
    parser.add_argument("--examples", type=Path, required=True, help="examples/serving")
    parser.add_argument("--model", type=Path, required=True, help="the folder of the tiny model")
    parser.add_argument("--logs", type=Path, required=True, help="where servers leave their logs")
    options = parser.parse_args()
    isolation.end_with_parent()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, give_up)
    os.environ.update(NO_PROXY="*", no_proxy="*")
    options.logs.mkdir(parents=True, exist_ok=True)
    isolation.bring_loopback_up()
    setting = Setting(options.engine, options.examples, options.model, options.logs)
    try:
        scenarios.play_all(options.scenarios, setting)
    finally:
        isolation.end_descendants()
    return 0


def give_up(signal_number: int, _: FrameType | None) -> None:
    """Ends by an exception, so that the servers are ended on the way out, undisturbed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    rows.note(f"ended by signal {signal_number}")
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
