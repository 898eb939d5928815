"""The plots, one function each. Every one shows the limit that was measured beside the figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter
from results import Results, Row

plt.style.use(Path(__file__).with_name("rapt.mplstyle"))

OPERATIONS = ("gemm", "prefill", "causal", "decode", "layer", "attention")
COLORS = dict(zip(OPERATIONS, ("#0072B2", "#D55E00", "#CC79A7", "#009E73", "#7A6A00", "#56B4E9")))
MARKERS = dict(zip(OPERATIONS, "osD^PX"))
SHADES = ("#08306B", "#2171B5", "#6BAED6", "#BDD7E7", "#DCE6F0", "#EEF3F8")  # of the targets, best first
PEERS = {
    "rapt": "#D55E00",
    "torch": "#5B7FA6",
    "onnxruntime": "#8FB0A0",
    "openvino": "#B9A5C9",
    "mkl": "#A8A8A8",
    "openblas": "#D9C98B",
    "blis": "#C08A6A",
    "onednn": "#8A9A5B",
}
MARK = "#222222"  # the limit


def _threads(n: int) -> str:
    return "1 thread" if n == 1 else f"{n} threads"


def _bars(
    axes: Axes,
    groups: list[str],
    series: dict[str, str],
    value: Callable[[str, str], float | None],
    limit: Callable[[str, str], float | None],
) -> None:
    """Groups along x, in each a bar for every series (name: colour) that has a value. With a limit, that is a
    mark and the number at the bar is the share of it in percent; without one the number is the value."""
    left = 0.0
    ticks = []
    top = max(max(value(g, s) or 0, limit(g, s) or 0) for g in groups for s in series)
    for group in groups:
        present = [s for s in series if value(group, s) is not None]
        for i, name in enumerate(present):
            x = left + i
            height = at = value(group, name)
            most = limit(group, name)
            axes.bar(x, height, width=0.92, color=series[name])
            if most:
                axes.plot([x - 0.46, x + 0.46], [most, most], color=MARK, linewidth=1.6, solid_capstyle="butt")
                if most - height < 0.05 * top:  # no room for the number between bar and mark
                    at = max(height, most)
            number = height / most * 100 if most else height
            axes.text(x, at + 0.006 * top, f"{number:.0f}", ha="center", va="bottom", fontsize=7, color="#444444")
        ticks.append(left + (len(present) - 1) / 2)
        left += len(present) + 1.1
    axes.set_xlim(-1.1, left - 1.0)
    axes.set_xticks(ticks, [g.replace("/", "\n") for g in groups], fontsize=8)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)


def by_isa(results: Results) -> Figure:
    """The rate of each ISA target on the shapes that were timed for several, with its limit as a mark."""
    shades = dict(zip(results.targets, SHADES))
    timed = {s: {r.target for r in results.rows if r.shape == s} for s in dict.fromkeys(r.shape for r in results.rows)}
    several = [s for s, targets in timed.items() if len(targets) > 1] or list(timed)
    panels = [[s for s in several if not s.startswith("decode")], [s for s in several if s.startswith("decode")]]
    units = ("GFLOP/s", "GB/s of K and V")
    used = [(shapes, unit) for shapes, unit in zip(panels, units) if shapes]
    rows = {r.key: r for r in results.rows}
    figure, grid = plt.subplots(
        len(results.threads),
        len(used),
        figsize=(12.5, 3.6 * len(results.threads) + 0.6),
        squeeze=False,
        gridspec_kw={"width_ratios": [len(shapes) + 0.35 for shapes, _ in used]},
    )
    for line, threads in zip(grid, results.threads):
        for axes, (shapes, unit) in zip(line, used):

            def of(name: str, threads: int = threads) -> Callable[[str, str], float | None]:
                return lambda shape, target: getattr(rows.get((shape, target, threads)), name, None)

            _bars(axes, shapes, shades, of("rate"), of("limit"))
            axes.set_ylabel(unit)
            axes.set_title(_threads(threads) if axes is line[0] else "")
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in shades.values()] + [Line2D([], [], color=MARK)]
    figure.legend(
        handles,
        [*shades, "the target's limit: FMA peak, or reading K and V (numbers: % of it)"],
        ncols=len(shades) + 1,
        loc="outside lower center",
    )
    figure.suptitle(f"rapt by ISA target, and the share of each one's limit ({results.machine})", fontsize=12)
    return figure


def roofline(results: Results) -> Figure:
    """Share of the FMA peak against intensity, under the roof that bandwidth and peak form."""
    best = results.targets[0]
    figure, grid = plt.subplots(
        1, len(results.threads), figsize=(6.4 * len(results.threads), 5.2), squeeze=False, sharey=True
    )
    shares = [r.gflops / r.peak for r in results.rows if r.target == best]
    bottom, top = min(0.02, 0.7 * min(shares)), max(1.5, 1.4 * max(shares))  # products of bf16 pairs pass the peak
    for axes, threads in zip(grid[0], results.threads):
        rows = [r for r in results.rows if r.target == best and r.threads == threads]
        peak = max(r.peak for r in rows)
        low = min(r.intensity for r in rows) / 1.6
        high = max(r.intensity for r in rows) * 1.8
        axes.plot([low, high], [1, 1], color=MARK, linewidth=1.6)
        axes.text(high, 1.04, f"FMA peak {peak:.0f} GFLOP/s", ha="right", va="bottom", fontsize=8.5)
        _bandwidths(axes, [r for r in rows if r.read], peak, low)
        for operation in OPERATIONS:
            points = [r for r in rows if r.operation == operation]
            if not points:
                continue
            axes.scatter(
                [r.intensity for r in points],
                [r.gflops / r.peak for r in points],
                s=42,
                label=operation,
                color=COLORS[operation],
                marker=MARKERS[operation],
                edgecolor="white",
                linewidth=0.7,
                zorder=3,
            )
        _label_far_ones(axes, rows)
        axes.set(
            xscale="log",
            yscale="log",
            xlim=(low, high),
            ylim=(bottom, top),
            xlabel="flop per byte that must be moved",
            title=f"{_threads(threads)}, {best}",
        )
        axes.set_yticks([y * 10**e for e in (-3, -2, -1, 0, 1) for y in (1, 2, 5) if bottom <= y * 10**e <= top])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.legend(loc="lower right")
    grid[0][0].set_ylabel("share of the FMA peak")
    figure.suptitle(
        f"Roofline: what each operation reaches, and what the machine allows ({results.machine})", fontsize=12
    )
    return figure


def _bandwidths(axes: Axes, rows: list[Row], peak: float, low: float) -> None:
    """A slope for the slowest bandwidth that was measured (memory), and one for the fastest (nearer to a cache)."""
    slopes = sorted(rows, key=lambda r: r.read)[:: max(1, len(rows) - 1)]
    for row, style in zip(slopes, ("-", ":")):
        bend = peak / row.read  # flop per byte where the slope meets the peak
        axes.plot(
            [low, bend],
            [low / bend, 1],
            color=MARK,
            linewidth=1.4,
            linestyle=style,
            label=f"reading at {row.read:.0f} GB/s, as {row.shape}",
        )


def _label_far_ones(axes: Axes, rows: list[Row]) -> None:
    """Names the points that stand well under their roof; naming all would hide them, as would names on names."""
    named: list[float] = []
    for row in sorted(rows, key=lambda r: r.share):
        height = row.gflops / row.peak
        if len(named) == 4:
            break
        if any(0.85 < height / other < 1 / 0.85 for other in named):
            continue
        named.append(height)
        left = row.operation == "decode"  # the products lie to the right of it
        axes.annotate(
            row.sizes,
            (row.intensity, height),
            xytext=(-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=7.5,
            color="#555555",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
        )


def tuned(results: Results) -> Figure:
    """Speed with the tuned config over that with the default one, both of one run."""
    return _gains(
        results,
        {r.key: r.against for r in results.rows if r.against},
        lambda shape: shape,
        "faster than with the default config, %",
        "Tuned against default",
    )


def pairs(results: Results) -> Figure:
    """Speed of a shape over that of another one that does the same in another way, both of one run."""
    others = {r.shape: "/".join(r.other.split("/")[2:]) for r in results.rows if r.vs}
    return _gains(
        results,
        {r.key: r.vs for r in results.rows if r.vs},
        lambda shape: f"{shape} over {others[shape]}",
        "faster than the other, %",
        "Two ways to do the same, turn by turn",
    )


def _gains(
    results: Results,
    ratios: dict[tuple[str, str, int], float],
    label: Callable[[str], str],
    xlabel: str,
    title: str,
) -> Figure:
    """A bar for each shape of the best target: by how much a ratio of speeds, by Row.key, is above 1."""
    target = results.targets[0]
    threads = sorted({n for _, _, n in ratios})
    shapes = list(dict.fromkeys(s for s, t, _ in ratios if t == target))
    figure, grid = plt.subplots(
        1, len(threads), figsize=(5.8 * len(threads) + 0.6, 0.27 * len(shapes) + 1.5), sharey=True, squeeze=False
    )
    for axes, n in zip(grid[0], threads):
        for y, shape in enumerate(shapes):
            ratio = ratios.get((shape, target, n))
            if ratio is None:
                continue
            gain = ratio - 1
            axes.barh(y, gain * 100, color=COLORS[shape.split("/")[0]], height=0.72)
            axes.text(gain * 100, y, f" {gain:+.1%} ", va="center", fontsize=8, ha="left" if gain >= 0 else "right")
        axes.axvline(0, color=MARK, linewidth=1.2)
        axes.axvspan(-2, 2, color="#EFEFEF", zorder=0)
        axes.margins(x=0.22, y=0.01)
        axes.set(title=_threads(n), xlabel=xlabel)
        axes.grid(axis="y", visible=False)
    grid[0][0].set_yticks(range(len(shapes)), [label(s) for s in shapes], fontsize=8.5)
    grid[0][0].invert_yaxis()
    figure.suptitle(
        f"{title}, {target}\n({results.machine}; grey: within 2 %, as good as equal)", fontsize=11
    )
    return figure


def peers(run: dict, operations: tuple[str, ...]) -> Figure | None:
    """rapt among its peers, on the shapes of these operations (of one unit)."""
    records = [r for r in run["results"] if r["shape"].split("/")[0] in operations]
    if not records:
        return None
    decode = operations == ("decode",)
    threads = sorted({r["threads"] for r in records})
    by_key = {(r["shape"], r["threads"]): r for r in records}
    shapes = list(dict.fromkeys(r["shape"] for r in records))
    names = [p for p in PEERS if any(r["peers"].get(p, {}).get("variants") for r in records)]
    width = 0.22 * (len(names) + 1) * len(shapes) + 1.2
    figure, grid = plt.subplots(len(threads), 1, figsize=(max(6.5, width), 3.4 * len(threads) + 0.6), squeeze=False)
    for axes, n in zip(grid[:, 0], threads):

        def rate(shape: str, peer: str, n: int = n) -> float | None:
            record = by_key.get((shape, n))
            variants = record["peers"].get(peer, {}).get("variants", {}) if record else {}
            if not variants:
                return None
            return record["streamed_bytes" if decode else "flops"] / min(v["best"] for v in variants.values()) * 1e-9

        _bars(axes, shapes, {p: PEERS[p] for p in names}, rate, lambda *_: None)
        if decode:  # the bandwidth depends on how much is read
            for shape, tick in zip(shapes, axes.get_xticks()):
                record = by_key[shape, n]
                of_fma = record["limits"]["fma"] * record["streamed_bytes"] / record["flops"]
                limit = min(record["limits"]["read"], of_fma)
                half = sum(rate(shape, p) is not None for p in names) / 2 + 0.2
                axes.plot([tick - half, tick + half], [limit, limit], color=MARK, linewidth=1.4)
                axes.text(tick + half, limit, f"{limit:.0f}", ha="right", va="bottom", fontsize=8)
        else:
            limit = max(r["limits"]["fma"] for r in records if r["threads"] == n)
            axes.axhline(limit, color=MARK, linewidth=1.4)
            axes.text(axes.get_xlim()[1], limit, f"{limit:.0f}", ha="right", va="bottom", fontsize=8)
        axes.set(ylabel="GB/s of K and V" if decode else "GFLOP/s", title=_threads(n))
        axes.margins(y=0.1)
    handles = [plt.Rectangle((0, 0), 1, 1, color=PEERS[p]) for p in names] + [Line2D([], [], color=MARK)]
    labels = [f"{p} {run['versions'].get(p, '')}" for p in names]
    labels.append("reading, or what the FMA peak leaves of it" if decode else "FMA peak")
    figure.legend(handles, labels, ncols=min(len(labels), 3 if width < 11 else 7), loc="outside lower center")
    figure.suptitle(f"rapt and its peers: {', '.join(operations)} ({run['cpu']}, {run['date'][:10]})", fontsize=12)
    return figure
