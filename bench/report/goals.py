"""The plots of bench/peers/run --all: what was reached, and the products shape by shape."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from plots import MARK, PEERS

REACHED, MISSED = "#009E73", "#D55E00"
CLIP = 2.0  # a bar that is longer says so with its number


def reached(run: dict) -> Figure:
    """A bar for each line that has a goal: at the mark, and beyond it, the goal is reached."""
    lines = [line for line in run["lines"] if line["goal"] is not None]
    figure, axes = plt.subplots(figsize=(10.5, 0.235 * len(lines) + 1.4))
    for y, line in enumerate(lines):
        ratio = line["found"] / line["goal"]
        if line["less"]:
            ratio = CLIP if line["found"] <= 0 else 1 / ratio
        axes.barh(y, min(ratio, CLIP), color=REACHED if line["reached"] else MISSED, height=0.72)
        sign = "<" if line["less"] else ""
        text = f"{_text(line, line['found'])} ({sign}{_text(line, line['goal'])})"
        patch = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}
        axes.text(min(ratio, CLIP) + 0.015, y, text, va="center", fontsize=7.5, bbox=patch)
    axes.axvline(1, color=MARK, linewidth=1.4)
    axes.set_yticks(range(len(lines)), [line["what"] for line in lines], fontsize=7.5)
    axes.set(xlim=(0, CLIP * 1.15), xlabel="found / to reach (in brackets: to reach)")
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.grid(axis="y", visible=False)
    met = sum(line["reached"] for line in lines)
    figure.suptitle(f"{met} of {len(lines)} goals reached ({_machine(run)})", fontsize=12)
    return figure


def products(run: dict) -> Figure | None:
    """rapt's speed over the best peer's on every product of the list."""
    records = [r for r in run.get("peers", {}).get("results", []) if "gemms" in r["tags"]]
    ratios: dict[tuple[str, int], float] = {}
    for record in records:
        best = {
            name: min(v["best"] for v in entry["variants"].values())
            for name, entry in record["peers"].items()
            if entry["variants"]
        }
        peers = [seconds for name, seconds in best.items() if name in ("mkl", "openblas", "blis", "onednn")]
        if peers:
            ratios[record["shape"].removeprefix("gemm/"), record["threads"]] = min(peers) / best["rapt"]
    if not ratios:
        return None
    shapes = list(dict.fromkeys(shape for shape, _ in ratios))
    counts = sorted({threads for _, threads in ratios})
    figure, axes = plt.subplots(figsize=(11, 4.2))
    for i, threads in enumerate(counts):
        x = [at + 0.2 * (i - (len(counts) - 1) / 2) for at in range(len(shapes))]
        y = [ratios.get((shape, threads)) for shape in shapes]
        label = "1 thread" if threads == 1 else f"{threads} threads"
        axes.scatter(x, y, s=40, color=(PEERS["rapt"], "#0072B2")[i % 2], marker="os"[i % 2], label=label, zorder=3)
    axes.axhline(1, color=MARK, linewidth=1.4)
    axes.axhline(0.95, color=MARK, linewidth=0.9, linestyle=":")
    axes.set_xticks(range(len(shapes)), shapes, rotation=55, ha="right", fontsize=8)
    axes.set(ylabel="speed over the best peer's", yscale="log")
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axes.yaxis.set_minor_formatter(lambda y, _: f"{y:.1g}" if f"{y:g}"[-1] in "23578" else "")
    axes.legend()
    figure.suptitle(
        f"Products m,n,k: rapt over the best of MKL, OpenBLAS, BLIS and oneDNN, shape by shape ({_machine(run)})",
        fontsize=11,
    )
    return figure


def _machine(run: dict) -> str:
    return f"{run['machine']['cpu']}, {run['machine']['date'][:10]}"


def _text(line: dict, number: float) -> str:
    return f"{number:.0%}" if line["unit"] == "%" else f"{number:.3g} {line['unit']}"
