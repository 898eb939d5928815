"""Turns the JSON of rapt-bench into a table on the terminal and plots.

Started by `bash bench/report/run`; see bench/README.md for how to read the plots.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import goals
import plots
from results import Results, read_results


def table(results: Results) -> str:
    """One block for each number of threads: shapes down, targets across, each with its share of the limit."""
    lines = [
        f"{results.machine}; config: {results.context.get('config', 'unknown')}; {results.context.get('compiler', '')}"
    ]
    rows = {r.key: r for r in results.rows}
    shapes = list(dict.fromkeys(r.shape for r in results.rows))
    for threads in results.threads:
        lines += [
            "",
            f"{threads} thread{'s' if threads > 1 else ''}: GFLOP/s (decode: GB/s of K and V) and share of the limit, "
            "the FMA peak or what reading leaves of it",
            f"{'':34}" + "".join(f"{t:>17}" for t in results.targets),
        ]
        for shape in shapes:
            cells = []
            for target in results.targets:
                row = rows.get((shape, target, threads))
                cells.append(f"{row.rate:10.1f} ({row.share:4.0%})" if row else f"{'':17}")
            lines.append(f"{shape:34}" + "".join(cells).rstrip())
        peaks = [max(r.peak for r in results.rows if r.target == t and r.threads == threads) for t in results.targets]
        lines.append(f"{'FMA peak':34}" + "".join(f"{peak:10.1f}       " for peak in peaks).rstrip())
    return "\n".join(lines)


def comparison(results: Results) -> str:
    gains = [(r.against, r) for r in results.rows if r.against]
    mean = math.exp(sum(math.log(gain) for gain, _ in gains) / len(gains))
    worst, best = min(gains, key=lambda g: g[0]), max(gains, key=lambda g: g[0])
    lines = [f"Tuned over default, turn by turn, {len(gains)} benchmarks: geometric mean {mean:.3f}"]
    for word, (gain, row) in (("best", best), ("worst", worst)):
        lines.append(
            f"  {word:5} {gain:.3f}  {row.shape}, {row.target}, {row.threads} thread{'s' if row.threads > 1 else ''}"
        )
    return "\n".join(lines)


def pairs(results: Results) -> str:
    lines = ["Pairs, turn by turn: the speed of the first over that of the second (median of all turns)"]
    for row in (r for r in results.rows if r.vs):
        threads = f"{row.threads} thread{'s' if row.threads > 1 else ''}"
        lines.append(f"  {row.vs:6.3f}  {row.shape}, {row.target}, {threads}; {row.other}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/report/run", description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="?", help="JSON of rapt-bench (--benchmark_out=...)")
    parser.add_argument("--goals", type=Path, metavar="JSON", help="of bench/peers/run --all")
    parser.add_argument("--peers", type=Path, metavar="JSON", help="of bench/peers/run --json: also plots the peers")
    parser.add_argument(
        "--out", type=Path, default=Path("build/report"), help="folder of the plots (default: %(default)s)"
    )
    arguments = parser.parse_args()

    figures = {}
    if arguments.results:
        results = read_results(arguments.results)
        print(table(results))
        for error in results.errors:
            print(f"not timed, wrong: {error}")
        figures = {"by-isa": plots.by_isa(results), "roofline": plots.roofline(results)}
        if any(r.against for r in results.rows):
            print("\n" + comparison(results))
            figures["tuned"] = plots.tuned(results)
        if any(r.vs for r in results.rows):
            print("\n" + pairs(results))
            figures["pairs"] = plots.pairs(results)
    if arguments.goals:
        run = json.loads(arguments.goals.read_text())
        figures["goals"] = goals.reached(run)
        figures["products"] = goals.products(run)
    if arguments.peers:
        run = json.loads(arguments.peers.read_text())
        for name, operations in (
            ("gemm", ("gemm",)),
            ("attention", ("prefill", "causal", "layer")),
            ("decode", ("decode",)),
        ):
            figures[f"peers-{name}"] = plots.peers(run, operations)

    arguments.out.mkdir(parents=True, exist_ok=True)
    print()
    for name, figure in figures.items():
        if figure is not None:
            path = arguments.out / f"{name}.png"
            figure.savefig(path)
            print(path)


if __name__ == "__main__":
    main()
