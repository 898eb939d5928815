"""Times rapt and its peers in one run: the same shapes, the same numbers of threads, turn by turn.

See bench/README.md for what the figures mean. Started by `bash bench/peers/run`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

import numpy as np
import table
from peer import STORED, Operands, stored
from shim import ENVIRONMENT, Shim
from turns import Absent, Turns
from worker import PEERS

from shapes import Shape, read_shapes

ROUNDS = 3  # at least
TURN = 0.08  # seconds that a variant computes in one round, if one run takes less
LOSING = 1.3  # a variant that much slower than its peer's best after two rounds is timed no more
BETWEEN = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}
"""Scores and weights, and c of a product, may be rounded to the storage type: most peers do, rapt does not."""
LONG = 4e9  # operations from which a shape gets three times the time of others, for enough runs


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/peers/run", description=__doc__.splitlines()[0])
    parser.add_argument("--shim", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--threads", default="1,all", help="numbers and 'all' (default: %(default)s)")
    parser.add_argument(
        "--shapes",
        nargs="+",
        default=[],
        metavar="WORD",
        help="shapes whose name contains one of these (without --tags: whatever their tags)",
    )
    parser.add_argument(
        "--tags",
        nargs="+",
        default=[],
        metavar="TAG",
        help="shapes that have one of these tags (default: peers; gemms is the list of products)",
    )
    parser.add_argument(
        "--types", nargs="+", choices=list(STORED), default=list(STORED), help="storage types (default: all of these)"
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=list(PEERS)[1:],
        default=list(PEERS)[1:],
        metavar="NAME",
        help="of " + ", ".join(list(PEERS)[1:]) + " (default: all)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=200,
        help="about how long to time altogether; preparing comes on top (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("build/report/peers.json"),
        help="where to write every figure, for bench/report (default: %(default)s)",
    )
    return parser.parse_args()


def make_operands(shape: Shape) -> Operands:
    random = np.random.default_rng(1)

    def normal(*extents: int) -> np.ndarray:
        return random.standard_normal(extents, np.float32)

    if shape.operation == "gemm":
        m, n, k = shape.sizes
        return {"a": stored(normal(m, k), shape.storage), "b": stored(normal(k, n), shape.storage)}
    if shape.operation == "layer":
        batch, seq, embedding, heads, depth = shape.sizes

        def he_normal(*extents: int) -> np.ndarray:
            return random.standard_normal(extents) * np.sqrt(2 / embedding)

        weights = {name: he_normal(heads, embedding, depth) for name in ("w_q", "w_k", "w_v")}
        return {"tokens": normal(batch, seq, embedding), **weights, "w_o": he_normal(heads, depth, embedding)}
    a = shape.attention
    q, kv = normal(a.batch, a.heads, a.seq_q, a.depth), normal(2, a.batch, a.kv_heads, a.seq_kv, a.depth)
    operands = {"q": stored(q, shape.storage), "kv": stored(kv, shape.storage)}
    return operands | {"dout": stored(normal(*q.shape), shape.storage)} if shape.has_gradients else operands


def has_peers(shape: Shape) -> bool:
    """Dense operands of a type that NumPy can hold are what peers are given."""
    if shape.operation == "attention":
        return False  # they are of programs: rapt-bench times them
    known = {"storage", "pass", "window", "softcap", "alibi"} if shape.has_gradients else {"storage"}
    return not set(shape.modifiers) - known and shape.storage in STORED


def prepare(workers: dict[str, Turns], shape: Shape, folder: Path) -> dict[str, dict]:
    """Gives every worker the operands, and checks what it makes of them. Returns, by peer, its variants with
    no times yet, or the reason why it has none. rapt comes first: it checks the others."""
    found: dict[str, dict] = {}
    for name, worker in workers.items():
        entry = found[name] = {"variants": {}}
        try:
            names = worker.call("prepare", shape.name, str(folder))
            if not names:
                entry["absent"] = "does not compute this"
            between = 0.0 if name == "rapt" else BETWEEN[shape.storage]
            for i, variant in enumerate(names):
                wrong = workers["rapt"].call("check", str(folder / f"result-{i}.npy"), between)
                if wrong:
                    entry["absent"] = f"{variant} is wrong: {wrong}"
                else:
                    entry["variants"][variant] = []
        except Absent as reason:
            entry["absent"] = str(reason)
    return found


def take_turns(workers: dict[str, Turns], found: dict[str, dict], seconds: float) -> dict[str, float]:
    """Adds the seconds of every run to `found`; returns the best that was seen of the machine's limits."""
    limits: dict[str, float] = {}
    end = time.monotonic() + seconds
    order = [name for name in found if found[name]["variants"]]
    rounds = 0
    while order and (rounds < ROUNDS or time.monotonic() < end):
        for name, value in workers["rapt"].call("limits", 0.02).items():
            limits[name] = max(limits.get(name, 0.0), value)
        for name in list(order):
            variants = found[name]["variants"]
            best = min((min(runs) for runs in variants.values() if runs), default=float("inf"))
            for variant, runs in variants.items():
                if rounds >= 2 and min(runs) > LOSING * best:
                    continue
                try:
                    runs += workers[name].call("time", variant, TURN)
                except Absent as reason:
                    found[name] = {"variants": {}, "absent": str(reason)}
                    order.remove(name)
                    break
        order = order[1:] + order[:1]  # nobody always follows the same neighbour
        rounds += 1
    return limits


def summary(runs: list[float]) -> dict[str, float]:
    return {"best": min(runs), "median": statistics.median(runs), "runs": len(runs)}


def measure(shape: Shape, threads: int, workers: dict[str, Turns], shim: Shim, folder: Path, seconds: float) -> dict:
    found = prepare(workers, shape, folder)
    if not found["rapt"]["variants"]:
        raise SystemExit(f"rapt on {shape.name}: {found['rapt']['absent']}")
    limits = take_turns(workers, found, seconds)
    for entry in found.values():
        entry["variants"] = {v: summary(runs) for v, runs in entry["variants"].items() if runs}
    return {
        "shape": shape.name,
        "tags": sorted(shape.tags),
        "threads": threads,
        "flops": shim.flops(shape),
        "streamed_bytes": shim.streamed_bytes(shape) or None,
        "limits": limits,
        "peers": found,
    }


def start(names: list[str], threads: int, log: Path) -> tuple[dict[str, Turns], dict[str, str], dict[str, str]]:
    """The workers that start, their versions, and why the others do not."""
    workers, versions, absent = {}, {}, {}
    for name in names:
        worker = Turns(name, threads, log)
        try:
            versions[name] = worker.call("version")
            workers[name] = worker
        except Absent as reason:
            absent[name] = str(reason)
            worker.end()
    return workers, versions, absent


def main() -> None:
    arguments = parse_arguments()
    os.environ[ENVIRONMENT] = str(arguments.shim)
    shim = Shim()
    all_threads = shim.all_threads()
    counts = list(dict.fromkeys(all_threads if n == "all" else int(n) for n in arguments.threads.split(",")))
    words = arguments.shapes
    tags = set(arguments.tags or ([] if words else ["peers"]))
    wanted = [
        s
        for s in read_shapes()
        if (not words or any(word in s.name for word in words)) and (not tags or s.tags & tags)
    ]
    shapes = [s for s in wanted if has_peers(s) and s.storage in arguments.types]
    skipped = [s.name for s in wanted if not has_peers(s)]
    if not wanted:
        raise SystemExit("no shape is called so: see bench/shapes.txt")
    if not shapes:
        raise SystemExit("no peer takes " + ", ".join(skipped))

    began = time.monotonic()
    weights = [3 if shim.flops(shape) > LONG else 1 for shape in shapes]
    seconds = arguments.seconds / sum(weights) / len(counts)
    records = []
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        log = Path(folder) / "log"
        workers, versions, absent = {}, {}, {}
        try:
            for threads in counts:
                workers[threads], versions, absent = start(["rapt", *arguments.peers], threads, log)
                if "rapt" in absent:
                    raise SystemExit(f"rapt: {absent['rapt']}")
            for shape, weight in zip(shapes, weights):
                for name, array in make_operands(shape).items():
                    np.save(Path(folder) / f"{name}.npy", array)
                for threads in counts:
                    table.progress(f"{shape.name}, {threads} threads")
                    turns = workers[threads]
                    records.append(measure(shape, threads, turns, shim, Path(folder), weight * seconds))
                for file in Path(folder).glob("*.npy"):
                    file.unlink()
        finally:
            for team in workers.values():
                for worker in team.values():
                    worker.end()
    table.progress("")

    run = {
        "cpu": table.cpu_model(),
        "system": platform.platform(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "seconds": round(time.monotonic() - began),
        "versions": versions,
        "absent": absent,
        "skipped": skipped,
        "results": records,
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(run, indent=1))
    print(table.render(run))


if __name__ == "__main__":
    main()
