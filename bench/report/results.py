"""The JSON of rapt-bench as rows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(.*)/([^/]+)/threads:(\d+)")


@dataclass(frozen=True)
class Row:
    """One benchmark: a shape on a target with a number of threads."""

    shape: str  # operation/sizes/modifiers
    target: str
    threads: int
    gflops: float
    peak: float  # GFLOP/s of multiply-adds of this target, in the same minute
    intensity: float  # flops for each byte that must be moved
    gbytes: float | None  # where reading may be the limit: GB/s of K and V, or of b,
    read: float | None  # and at what rate the same bytes can be read
    against: float | None  # turn by turn: its speed over that with the config of --against,
    vs: float | None  # and over that of a shape that does the same in another way,
    other: str  # which is called so

    @property
    def operation(self) -> str:
        return self.shape.split("/")[0]

    @property
    def sizes(self) -> str:
        return self.shape.removeprefix(self.operation + "/")

    @property
    def share(self) -> float:
        """Of the FMA peak, or of what reading leaves of it."""
        return self.rate / self.limit

    @property
    def rate(self) -> float:
        """What this operation is judged by: GFLOP/s, for decode GB/s."""
        return self.gbytes if self.operation == "decode" else self.gflops

    @property
    def limit(self) -> float:
        """The most that the machine allows, in the unit of rate."""
        if not self.read:
            return self.peak
        per_byte = self.gflops / self.gbytes
        gflops = min(self.peak, self.read * per_byte)
        return gflops / per_byte if self.operation == "decode" else gflops

    @property
    def key(self) -> tuple[str, str, int]:
        return self.shape, self.target, self.threads


@dataclass(frozen=True)
class Results:
    context: dict[str, str]
    rows: list[Row]
    errors: list[str]

    @property
    def threads(self) -> list[int]:
        return sorted({r.threads for r in self.rows})

    @property
    def targets(self) -> list[str]:
        """Best first, as rapt lists them."""
        return list(dict.fromkeys(r.target for r in self.rows))

    @property
    def machine(self) -> str:
        return f"{self.context.get('cpu', 'unknown CPU')}, {self.context.get('date', '')[:10]}"


def read_results(path: Path) -> Results:
    """Of repetitions the fastest counts."""
    text = json.loads(path.read_text())
    rows: dict[tuple[str, str, int], Row] = {}
    errors = []
    for run in text["benchmarks"]:
        if run.get("run_type") != "iteration":
            continue
        if run.get("error_occurred"):
            errors.append(f"{run['name']}: {run['error_message']}")
            continue
        shape, target, threads = _NAME.match(run["name"]).groups()
        row = Row(
            shape,
            target,
            int(threads),
            run["GFLOP/s"],
            run["peak"],
            run["flop/byte"],
            run.get("GB/s"),
            run.get("read"),
            run.get("against"),
            run.get("vs"),
            run.get("label", "").removeprefix("vs "),
        )
        if row.key not in rows or row.gflops > rows[row.key].gflops:
            rows[row.key] = row
    return Results(text["context"], list(rows.values()), errors)
