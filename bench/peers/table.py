"""The figures of a run as text: one table for each number of threads, then the lines to read off."""

from __future__ import annotations

import math
import sys

# What the summary picks out: a shape, whether its share of the limit counts, and the peers to be held against.
_ATTENTION_PEERS = ("torch", "onnxruntime", "openvino")
_PRODUCT_PEERS = ("mkl", "openblas", "blis", "onednn")
_HEADLINES = (
    ("prefill/1,8,2048,64", _ATTENTION_PEERS),
    ("prefill/1,8,2048,128", _ATTENTION_PEERS),
    ("causal/1,8,2048,64", _ATTENTION_PEERS),
    ("causal/1,8,2048,128", _ATTENTION_PEERS),
    ("prefill/1,8,2048,128/bf16", _ATTENTION_PEERS),
    ("prefill/1,8,2048,128/training", ("torch",)),
    ("causal/1,8,2048,128/training", ("torch",)),
    ("decode/1,32,8,4096,128", _ATTENTION_PEERS),
    ("decode/1,32,8,4096,128/bf16", _ATTENTION_PEERS),
    ("gemm/1024,1024,1024", _PRODUCT_PEERS),
)


def progress(text: str) -> None:
    """One line that is written over, and only where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def seconds(record: dict, peer: str, statistic: str) -> float | None:
    """Of the peer's best variant."""
    entry = record["peers"].get(peer)
    return min((v[statistic] for v in entry["variants"].values()), default=None) if entry else None


def is_decode(record: dict) -> bool:
    return record["shape"].startswith("decode")


def rate(record: dict, peer: str, statistic: str = "best") -> float | None:
    """GFLOP/s; for decode GB/s of K and V."""
    time = seconds(record, peer, statistic)
    return record["streamed_bytes" if is_decode(record) else "flops"] / time * 1e-9 if time else None


def limit(record: dict) -> float:
    """The most that the machine allows, in the unit of rate(): the FMA peak, or what reading leaves of it."""
    fma = record["limits"]["fma"]
    if not record["streamed_bytes"]:
        return fma
    per_byte = record["flops"] / record["streamed_bytes"]
    gflops = min(fma, record["limits"]["read"] * per_byte)
    return gflops / per_byte if is_decode(record) else gflops


def share(record: dict) -> float:
    return rate(record, "rapt") / limit(record)


def against_best(record: dict, peers: tuple[str, ...], statistic: str = "best") -> tuple[float, str] | None:
    """rapt's speed over the fastest peer's, and who that is."""
    rates = {p: r for p in peers if (r := rate(record, p, statistic))}
    if not rates:
        return None
    best = max(rates, key=rates.get)
    return rate(record, "rapt", statistic) / rates[best], best


def products(run: dict) -> list[tuple[int, float, float, str, list[dict]]]:
    """Of the shapes tagged gemms, for each number of threads: the geometric mean of rapt's speed over the best peer's,
    shape by shape, the least of them and its shape, and the records."""
    found = []
    for threads in dict.fromkeys(r["threads"] for r in run["results"]):
        records = [r for r in run["results"] if r["threads"] == threads and "gemms" in r["tags"]]
        ratios = {r["shape"]: best[0] for r in records if (best := against_best(r, _PRODUCT_PEERS))}
        if ratios:
            mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
            worst = min(ratios, key=ratios.get)
            found.append((threads, mean, ratios[worst], worst, records))
    return found


def render(run: dict) -> str:
    peers = [name for name in run["versions"] if name != "rapt"]
    lines = [
        f"{run['cpu']}, {run['date']}, {run['seconds']} s",
        "rapt on " + run["versions"]["rapt"] + "; " + ", ".join(f"{p} {run['versions'][p]}" for p in peers),
    ]
    lines += [f"absent: {name} ({reason})" for name, reason in run["absent"].items()]
    lines += [f"not timed, because no peer is given such operands: {name}" for name in run["skipped"]]
    for threads in dict.fromkeys(r["threads"] for r in run["results"]):
        records = [r for r in run["results"] if r["threads"] == threads]
        lines += ["", *_table(records, peers, threads)]
    for record in run["results"]:
        for name, entry in record["peers"].items():
            reason = entry.get("absent")
            if reason and reason != "does not compute this":
                lines.append(f"{record['shape']}, {_threads(record)}: {name}: {reason}")
    for section in (_variants(run), _products(run), _headlines(run)):
        if section:
            lines += ["", *section]
    return "\n".join(lines)


def _threads(record: dict) -> str:
    return f"{record['threads']} thread{'s' if record['threads'] > 1 else ''}"


def _table(records: list[dict], peers: list[str], threads: int) -> list[str]:
    peak = max(r["limits"]["fma"] for r in records)
    width = max(28, *(len(r["shape"]) + 1 for r in records))
    lines = [
        f"{_threads(records[0])}: GFLOP/s (decode: GB/s of K and V), best of all runs; "
        f"in brackets rapt's speed over the peer's. FMA peak {peak:.0f} GFLOP/s",
        f"{'':{width}}{'rapt':>8}{'median':>8}{'limit':>8}{'share':>7}  "
        + "".join(f"{p:>16}" for p in peers)
        + f"{'vs best':>9}{'(median)':>10}",
    ]
    for r in records:
        row = f"{r['shape']:{width}}{rate(r, 'rapt'):8.1f}{rate(r, 'rapt', 'median'):8.1f}{limit(r):8.1f}{share(r):7.0%}  "
        for peer in peers:
            value = rate(r, peer)
            row += f"{value:9.1f} ({rate(r, 'rapt') / value:4.2f})" if value else f"{'-':>16}"
        best, median = (against_best(r, tuple(peers), s) for s in ("best", "median"))
        lines.append(row + (f"{best[0]:8.2f}x{median[0]:9.2f}x" if best else ""))
    return lines


def _variants(run: dict) -> list[str]:
    """Where a peer was tried in several ways: what each reached. The tables show the best."""
    lines = ["Ways that were tried (the tables have the best)"]
    for record in run["results"]:
        for name, entry in record["peers"].items():
            if len(entry["variants"]) > 1:
                work = record["streamed_bytes" if is_decode(record) else "flops"]
                rates = (f"{v} {work / times['best'] * 1e-9:.1f}" for v, times in entry["variants"].items())
                lines.append(f"  {record['shape']:28}{_threads(record):>10}: {name}: {', '.join(rates)}")
    return lines if len(lines) > 1 else []


def _products(run: dict) -> list[str]:
    return [
        f"{len(records)} products, {_threads(records[0])}: geometric mean {mean:.3f} x the best peer of each shape; "
        f"worst {least:.2f} x, {worst}"
        for _, mean, least, worst, records in products(run)
        if len(records) > 1
    ]


def _headlines(run: dict) -> list[str]:
    lines = ["In short"]
    for name, peers in _HEADLINES:
        for record in (r for r in run["results"] if r["shape"] == name):
            of_what = "of its limit" if record["streamed_bytes"] else "of the FMA peak"
            line = f"  {name:28}{_threads(record):>10}: {share(record):4.0%} {of_what}"
            if found := against_best(record, peers):
                median = against_best(record, peers, "median")
                line += f"; {found[0]:.2f} x {found[1]} (medians: {median[0]:.2f} x {median[1]})"
            lines.append(line)
    return lines if len(lines) > 1 else []
