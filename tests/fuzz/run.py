"""Fuzzes one target, guided by coverage: `run.py TARGET RUNS CORPUS`; see the session `fuzz`."""

import logging
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["kie_cover_async", "email", "json"]):
    import targets


def main() -> None:
    name, runs, corpus = sys.argv[1:]
    # Each value that is left out of a record is logged, and these would be too many lines.
    logging.getLogger("kie_cover_async").addHandler(logging.NullHandler())
    for number, seed in enumerate(targets.SEEDS[name]):
        (Path(corpus) / f"seed-{number}").write_bytes(seed)
    options = [f"-runs={runs}", "-max_len=2048", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], *options, corpus], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
