"""Everything that rapt is to reach and that this machine can show: one table, one JSON.

See bench/README.md for what the lines mean. Started by `bash bench/peers/run --all`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BENCH = Path(__file__).resolve().parent.parent
sys.path.insert(1, str(BENCH))
sys.path.append(str(BENCH / "report"))  # last: it has a main.py of its own

import table
from main import make_operands
from results import Row, read_results
from shim import ENVIRONMENT, Shim

from shapes import parse_shape

PREFILL = {  # the least share of the FMA peak, one thread
    "prefill/1,8,2048,128": 0.90,
    "prefill/1,8,2048,64": 0.87,
    "causal/1,8,2048,128": 0.85,
    "causal/1,8,2048,64": 0.85,
    "prefill/1,16,512,64": 0.83,
    "prefill/8,12,128,64": 0.78,
}
BACKWARD = {  # the same of the five products of the gradients
    "prefill/1,8,2048,128/backward": 0.80,
    "prefill/1,8,2048,64/backward": 0.75,
    "causal/1,8,2048,128/backward": 0.72,
    "causal/1,8,2048,64/backward": 0.72,
}
DECODE = {"f32": 0.90, "bf16": 0.85, "f16": 0.85, "int8": 0.75, "int4": 0.60}  # of the bound, from memory
IN_CACHE = 0.60  # of f32, inside the last-level cache
CUBES = {"gemm/1024,1024,1024", "gemm/2048,2048,2048"}
TINY, ONE_HEAD = "prefill/64,12,32,64", "decode/1,1,1,131072,128"


@dataclass
class Line:
    """What was found beside what is to be reached; `less`: reached from below."""

    about: str
    what: str
    found: float
    unit: str
    goal: float | None = None
    less: bool = False
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.found <= self.goal if self.less else self.found >= self.goal

    def text(self, number: float) -> str:
        if self.unit == "%":
            return f"{number:.0%}"
        return f"{number:.3g} {self.unit}" if abs(number) < 100 else f"{number:.0f} {self.unit}"


class Goals:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.build, self.quick, self.out = arguments.build, arguments.quick, arguments.json.parent
        self.peers_file: Path | None = arguments.peers
        self.training_file: Path | None = arguments.training
        os.environ[ENVIRONMENT] = str(arguments.build / "bench/librapt_shim.so")
        self.shim = Shim()
        self.threads = self.shim.all_threads()
        self.lines: list[Line] = []
        self.parts: dict[str, object] = {}
        self.bench("machine", "--threads=1", "--case", "gemm 8,8,8")

    def add(self, *line, **more) -> None:
        self.lines.append(Line(*line, **more))

    # ---------------------------------------------------------------- what is run

    def bench(self, name: str, *words: str) -> list[Row]:
        """Rows of rapt-bench."""
        file = self.out / f"goals-{name}.json"
        seconds = 0.02 if self.quick else 0.15
        self._run(
            self.build / "bench/rapt-bench", *words, f"--benchmark_min_time={seconds}",
            f"--benchmark_out={file}", "--benchmark_out_format=json",
        )  # fmt: skip
        results = read_results(file)
        if results.errors:
            raise SystemExit("wrong results: " + "; ".join(results.errors))
        self.parts[name] = [asdict(row) for row in results.rows]
        self.compiler = results.context["compiler"]
        self.targets = results.context["targets"].split(", ")
        return results.rows

    def alone(self, *words: object) -> dict:
        return json.loads(self._run(sys.executable, BENCH / "peers/alone.py", *words))

    def _run(self, *words: object) -> str:
        table.progress(" ".join(str(word) for word in words)[:150])
        done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{words[0]}: {done.stderr[-1000:]}")
        return done.stdout

    # ---------------------------------------------------------------- the lines

    def peers(self) -> None:
        file = self.peers_file or self.out / "goals-peers.json"
        if not self.peers_file:
            native = has_flag("avx512_bf16") or has_flag("amx_bf16")  # else peers take minutes for bf16
            self._run(
                sys.executable, BENCH / "peers/main.py", "--shim", os.environ[ENVIRONMENT], "--json", file,
                "--tags", "goals", "gemms", "--shapes", "prefill", "causal", "gemm",
                "--types", "f32", *(["bf16"] if native else []), "--seconds", 60 if self.quick else 300,
            )  # fmt: skip
        run = self.parts["peers"] = json.loads(file.read_text())
        records = {(r["shape"], r["threads"]): r for r in run["results"]}
        peers = tuple(name for name in run["versions"] if name != "rapt")

        def against(record: dict) -> str:
            best = table.against_best(record, peers)
            return f"{best[0]:.2f} x {best[1]}" if best else "no peer"

        for shape, goal in PREFILL.items():
            one = records[shape, 1]
            self.add("prefill", f"{shape}, 1 thread, of FMA peak", table.share(one), "%", goal, note=against(one))
            if self.threads > 1:
                all_ = records[shape, self.threads]
                gain = table.rate(all_, "rapt") / table.rate(one, "rapt")
                what = f"{shape}, {self.threads} threads over 1"
                self.add("prefill", what, gain, "x", 0.95 * self.threads, note=against(all_))
        for threads, mean, least, worst, of in table.products(run):
            of_threads = on(threads)
            self.add("products", f"mean of {len(of)}, {of_threads}, over the best peer of each", mean, "x", 1.05)
            self.add("products", f"the worst of them, {of_threads}", least, "x", 0.95, note=worst)
            for record in of:
                if record["shape"] in CUBES:
                    share, goal = table.share(record), 0.92 if threads == 1 else 0.88
                    what = f"{record['shape']}, {of_threads}, of FMA peak"
                    self.add("products", what, share, "%", goal, note=against(record))
        for (shape, threads), record in records.items():
            of_threads = on(threads)
            if shape == TINY:
                found = table.against_best(record, peers)[0]
                self.add("small", f"{shape}, {of_threads}, over the best peer", found, "x", 1.5, note=against(record))
            elif shape.endswith("/bf16"):  # goals where the CPU has matrix tiles
                peer, goal = ("onednn", 0.9) if shape.startswith("gemm") else ("torch", 1.3)
                if table.rate(record, peer):
                    found = table.rate(record, "rapt") / table.rate(record, peer)
                    goal = goal if has_flag("amx_bf16") else None
                    self.add("bf16", f"{shape}, {of_threads}, over {peer}", found, "x", goal)

    def decode(self) -> None:
        rows = self.bench("types", "--tags", "goals", "--shapes", "decode", "/bf16", "/f16")
        rates = {}
        for row in rows:
            of_threads = on(row.threads)
            if row.operation == "decode":
                rates[row.shape, row.threads] = row.rate
                inside = self.shim.streamed_bytes(parse_shape(row.shape)) < max(data_caches().values(), default=0)
                storage = parse_shape(row.shape).storage
                goal = (IN_CACHE if storage == "f32" else None) if inside else DECODE[storage]
                note = f"{row.gbytes:.3g} of {row.limit:.3g} GB/s" + (", in cache" if inside else "")
                self.add("decode", f"{row.shape}, {of_threads}, of its bound", row.share, "%", goal, note=note)
            elif row.vs:
                self.add("bf16", f"{row.shape}, {of_threads}, over f32", row.vs, "x", 0.93)
        if self.threads > 1:
            gain = rates[ONE_HEAD, self.threads] / rates[ONE_HEAD, 1]
            self.add("decode", f"{ONE_HEAD}, {self.threads} threads over 1", gain, "x")

    def training(self) -> None:
        """Gradients: their share of the FMA peak; with attention before them beside PyTorch, which has no option for
        windows, softcap and ALiBi; and the memory of long sequences."""
        for row in self.bench("backward", "--threads=1", "--tags", "training", "--shapes", "/backward"):
            goal = BACKWARD.get(row.shape)
            note = f"{row.vs:.2f} x f32" if row.vs else ""
            self.add("training", f"{row.shape}, 1 thread, of FMA peak", row.share, "%", goal, note=note)
        file = self.training_file or self.out / "goals-training.json"
        if not self.training_file:
            native = has_flag("avx512_bf16") or has_flag("amx_bf16")  # else PyTorch takes minutes for bf16
            self._run(
                sys.executable, BENCH / "peers/main.py", "--shim", os.environ[ENVIRONMENT], "--json", file,
                "--tags", "training", "--shapes", "/training", "--peers", "torch",
                "--types", "f32", *(["bf16"] if native else []), "--seconds", 40 if self.quick else 120,
            )  # fmt: skip
        run = self.parts["training"] = json.loads(file.read_text())
        for record in run["results"]:
            shape, found = record["shape"], table.against_best(record, ("torch",))
            words = parse_shape(shape).modifiers
            if not found or words.get("pass") != "training":
                continue
            fallback = words.keys() & {"window", "softcap", "alibi"}
            causal = shape.startswith("causal")
            goal = 3 if fallback else 1.5 if "storage" in words else 1.4 if causal else 1.25
            note = f"{table.share(record):.0%} of FMA peak"
            self.add("training", f"{shape}, {on(record['threads'])}, over torch", found[0], "x", goal, note=note)
        found = self.alone("training", self.threads)
        what = f"{found['shape']}, {self.threads} threads, memory beyond arrays"
        self.add("training", what, found["bytes"] / 2**20, "MiB", 64, less=True)

    def small(self) -> None:
        """What a call of a plan costs on one thread beside its heads: the time of one head less an eighth of what eight
        heads more take."""
        for seq, depth in ((1, 8), (16, 64), (32, 64), (64, 64)):
            names = [f"prefill/1,{heads},{seq},{depth}" for heads in (1, 9)]
            operands = [make_operands(parse_shape(name)) for name in names]
            runs = [self.shim.stopwatch(parse_shape(n), x, 1, planned=True) for n, x in zip(names, operands)]
            best = [math.inf, math.inf]
            for _ in range(4 if self.quick else 20):
                best = [min(seconds, *run(0.02)) for seconds, (run, _out) in zip(best, runs)]
            one, nine = (seconds * 1e6 for seconds in best)
            note = f"1 head {one:.3g} us, 9 heads {nine:.3g} us"
            what = f"planned call, {names[0]}, 1 thread, overhead"
            self.add("small", what, one - (nine - one) / 8, "us", 2, less=True, note=note)

    def long(self) -> None:
        found = self.alone("long", self.threads)
        what = f"causal/1,2,32768,64, {self.threads} threads"
        self.add("long", f"{what}, memory beyond inputs and outputs", found["bytes"] / 2**20, "MiB", 64, less=True)
        self.add("long", f"{what}, speed over that of seq 4096", found["speed"], "x", 0.95)

    def tuned(self) -> None:
        """rapt-tune --quick over the default; and with the rows of another target in place of its own."""
        best, other = (self.targets + self.targets[:1])[:2]
        config, default = self.out / "goals-tuned.hpp", BENCH.parent / "src/config/builtin.hpp"
        isa = ",".join(dict.fromkeys((best, other)))
        self._run(self.build / "tune/rapt-tune", "--seconds", 20 if self.quick else 60, "--isa", isa, "--out", config)
        own = config.read_text()
        rows = {target: re.findall(rf"^RAPT_ROW\(\w+, {target},.*\n", own, re.M) for target in (best, other)}
        foreign = self.out / "goals-foreign.hpp"
        foreign.write_text("".join(row.replace(f" {other},", f" {best},") for row in rows[other]))

        def compare(what: str, target: str, used: Path, against: Path, goal: float | None) -> None:
            name = f"{target} {what}".replace(" ", "-")
            found = self.bench(name, "--tags", "tune", "--isa", target, "--config", used, "--against", against)
            gains = {f"{row.shape}, {on(row.threads)}": row.against for row in found}
            worst = min(gains, key=gains.get)
            self.add("tuned", f"{target}: {what}, mean of {len(gains)}", geometric_mean(gains.values()), "x")
            self.add("tuned", f"{target}: {what}, the worst", gains[worst], "x", goal, note=worst)

        for target in dict.fromkeys((best, other)):
            if rows[target]:
                compare("tuned over default", target, config, default, 0.98)
            else:
                self.add("tuned", f"{target}: rapt-tune found nothing better than the default", 1.0, "x")
        if rows[other] and other != best:
            compare(f"rows of {other} over its own", best, foreign, config, None)

    def isas(self) -> None:
        for row in self.bench("targets", "--isa=all", "--threads=1", "--every-shape", "--case", "prefill 1,8,2048,128"):
            goal = {"SSE4": 0.75, "SSSE3": None, "SSE2": None}.get(row.target, 0.85)
            note = f"{row.gflops:.0f} of {row.peak:.0f} GFLOP/s"
            self.add("targets", f"{row.target}, {row.shape}, of its FMA peak", row.share, "%", goal, note=note)

    def start_up(self) -> None:
        library = next(self.build.glob("src/librapt.so.*.*.*[0-9]"))
        stripped = shutil.copy(library, self.out / "librapt-stripped.so")
        self._run("strip", stripped)
        size = Path(stripped).stat().st_size / 2**20
        self.add("start-up", "librapt.so, stripped, all targets of the build", size, "MiB", 6, less=True)
        found = [self.alone("load", library) for _ in range(5)]
        milliseconds = {key: min(each[key] for each in found) for key in found[0]}
        self.add("start-up", "loading it, its own libraries loaded", milliseconds["load_ms"], "ms")
        self.add("start-up", "first call beyond later ones", milliseconds["first_ms"], "ms", 1, less=True)


def on(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def has_flag(name: str) -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and f" {name} " in cpuinfo.read_text()


def data_caches() -> dict[int, int]:
    """Bytes by level, those of CPU 0."""
    caches = {}
    for folder in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (folder / "type").read_text().strip() != "Instruction":
            size = (folder / "size").read_text().strip()  # 32K
            caches[int((folder / "level").read_text())] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
    return caches


def geometric_mean(numbers) -> float:
    numbers = list(numbers)
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def machine(goals: Goals) -> dict[str, str]:
    return {
        "cpu": table.cpu_model(),
        "threads": str(goals.threads),
        "targets": ", ".join(goals.targets),
        "caches": ", ".join(f"L{level} {size >> 10} KiB" for level, size in sorted(data_caches().items())),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": platform.platform(),
        "compiler": goals.compiler,
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def render(lines: list[Line], about: dict[str, str]) -> str:
    """Markdown, in columns for terminals too."""
    rows = [("", "what", "found", "to reach", "", "beside it")]
    last = ""
    for line in lines:
        goal = "" if line.goal is None else ("< " if line.less else "") + line.text(line.goal)
        mark = {None: "", True: "yes", False: "no"}[line.reached]
        rows.append((line.about if line.about != last else "", line.what, line.text(line.found), goal, mark, line.note))
        last = line.about
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    met = [line.reached for line in lines if line.goal is not None]
    return "\n".join(
        ["; ".join(f"{k} {v}" for k, v in about.items()), "", *text, "", f"{sum(met)} of {len(met)} goals reached"]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/peers/run --all", description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="half the time: figures to look at, not to quote")
    parser.add_argument("--json", type=Path, default=Path("build/report/goals.json"), help="default: %(default)s")
    parser.add_argument("--peers", type=Path, metavar="JSON", help="of bench/peers/run, measured before, is taken")
    parser.add_argument("--training", type=Path, metavar="JSON", help="and of its --tags training")
    steps = ("peers", "decode", "training", "small", "long", "isas", "tuned", "start_up")
    parser.add_argument("--only", nargs="+", choices=steps, default=steps, help="some of the steps (default: all)")
    arguments = parser.parse_args()
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    goals = Goals(arguments)
    began = time.monotonic()
    for step in arguments.only:
        getattr(goals, step)()
    table.progress("")
    order = list(dict.fromkeys(line.about for line in goals.lines))
    goals.lines.sort(key=lambda line: order.index(line.about))
    about = machine(goals)
    about["seconds"] = f"{time.monotonic() - began:.0f}"
    text = render(goals.lines, about)
    arguments.json.with_suffix(".md").write_text(text + "\n")
    lines = [asdict(line) | {"reached": line.reached} for line in goals.lines]
    arguments.json.write_text(json.dumps(goals.parts | {"machine": about, "lines": lines}, indent=1))
    print(text)


if __name__ == "__main__":
    main()
