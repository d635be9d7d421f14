"""Run the benchmarks: `python -m benchmarks [--quick] [NAME ...]`."""

import argparse
import logging
import time
from collections.abc import Callable
from typing import Final

from benchmarks import cpu, durable, fleet, limiters, memory, outage, pacing, priority, results, startup, trouble
from benchmarks.figures import Report, number

_BENCHMARKS: Final[dict[str, Callable[[bool], Report]]] = {
    "cpu": cpu.run,
    "pacing": pacing.run,
    "limiters": limiters.run,
    "priority": priority.run,
    "trouble": trouble.run,
    "outage": outage.run,
    "memory": memory.run,
    "startup": startup.run,
    "durable": durable.run,
    "fleet": fleet.run,
}


def main() -> None:
    """Run those that are named, or all; print and write what they find."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(_BENCHMARKS)}; all when left out")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter samples, kept apart")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(_BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    logging.getLogger("respan_async").setLevel(logging.ERROR)  # here trouble is made on purpose
    for name in arguments.names or _BENCHMARKS:
        began = time.monotonic()
        report = _BENCHMARKS[name](arguments.quick)
        _print(report)
        for note in results.write(report, arguments.quick):
            print(f"  ({note})")
        print(f"  ({time.monotonic() - began:.0f} s)\n", flush=True)
    results.write_table(list(_BENCHMARKS), arguments.quick)


def _print(report: Report) -> None:
    print(f"{report.name}: {report.title}\n  {report.conditions}")
    width = max(len(figure.name) for figure in report.figures)
    for figure in report.figures:
        value = f"{number(figure.median)} {figure.unit}"
        spread = f"[{figure.spread}]" if figure.spread else ""
        rest = "  ".join(filter(None, (spread, figure.verdict, figure.note)))
        print(f"  {figure.name:{width}}  {value:>14}  {rest}".rstrip())


if __name__ == "__main__":
    main()
