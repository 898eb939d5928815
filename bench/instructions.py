"""Counts the instructions of the micro kernels' hot loops: prints a Markdown table, and the tiles that spill.

usage: python3 bench/instructions.py build/clang/src/librapt.so build/aarch64/tests/test_kernels ...

Of each ISA target in the files (programs or libraries, with their symbols; any architecture that llvm-objdump reads).
A hot loop is the shortest that has the products of its tile. The numbers are of one step: one k of a register tile, one
vector of k of a dot product, one key of a value product, one vector of scores of a softmax step.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

CLASSES = ("fma", "mul, add", "load", "broadcast", "store", "spill", "other")

# What a class is made of, first match wins: patterns of "mnemonic operands", x86 in Intel's syntax.
PATTERNS = (
    ("spill", r"\S+ .*(\[(rsp|rbp|sp|x29)\b|\(sp\))|v[ls][1248]r\S* "),  # RVV addresses its stack through a register
    ("broadcast", r"v?broadcast|v?movddup|ld1rq?w |ld1r |vfmv\.v\.f|(v?movss|flw|ldr +s\d) |dup |mov +[vz]\S+, "),
    ("fma", r"v?f(n?m(add|sub)|ml[as]|mad|n?msb)\S* |vfn?m(acc|sac|add|sub)\."),
    ("mul, add", r"v?(mul|add|sub|max)ps |f(mul|add|sub|max|max?nm) |vf(mul|add|sub|max|rsub)\."),
    ("store", r"v?mov[au]ps \S* ptr|v?mov[au]p[sd] \[|st[1p]?w? |str |stp |vse\d\S* "),
    ("load", r"v?mov[au]ps \S+ \S* ?ptr|ld[1pn]\S* |ldr +[qz]|vle\d\S* "),
)

CALLS = ("call", "bl", "jal")


@dataclass
class Loop:
    target: str
    function: str
    counts: Counter[str]

    @property
    def products(self) -> float:
        """Multiply-adds; without such an instruction, pairs."""
        return self.counts["fma"] or self.counts["mul, add"] / 2


def classify(instruction: str) -> str:
    return next((name for name, pattern in PATTERNS if re.match(pattern, instruction)), "other")


def objdump() -> str:
    return next(tool for tool in ("llvm-objdump-19", "llvm-objdump") if shutil.which(tool))


def loops_of(file: str) -> list[Loop]:
    """What a branch closes, in every kernel: its loops, innermost or not."""
    text = subprocess.run(
        [objdump(), "-d", "-C", "--no-show-raw-insn", "--x86-asm-syntax=intel", "--mattr=+all", file],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    found = []
    for block in text.split("\n\n"):
        head = re.match(r"\s*[0-9a-f]+ <(?:\S+ )?rapt::kernels::N_(\w+)::(.*)\(.*>:\n", block)
        if not head:
            continue
        lines = re.findall(r"^\s*([0-9a-f]+):\s+(\S+)[ \t]*(.*)$", block[head.end() :], re.M)
        at = {int(address, 16): i for i, (address, _, _) in enumerate(lines)}
        for i, (_, name, operands) in enumerate(lines):
            to = re.search(r"0x([0-9a-f]+) <", operands)
            if not to or (first := at.get(int(to[1], 16), len(lines))) > i or name in CALLS:
                continue
            counts = Counter(classify(f"{name} {operands}") for _, name, operands in lines[first : i + 1])
            counts["all"] = i + 1 - first
            found.append(Loop(head[1], re.sub(r"rapt::(kernels::N_\w+::)?", "", head[2]), counts))
    return found


def hottest(loops: list[Loop], function: str, products: int) -> tuple[Loop, float] | None:
    """The shortest loop of a function that has these products or a multiple of them, and which multiple."""
    fused = any(x.counts["fma"] for x in loops)
    own = [x for x in loops if re.match(function, x.function) and x.products and fused == bool(x.counts["fma"])]
    found = [(x, x.products / products) for x in own if x.products % products == 0]
    return min(found, key=lambda each: each[0].counts["all"] / each[1], default=None)


def steps_of(loops: list[Loop]) -> dict[str, tuple[Loop, float]]:
    """By name: a hot loop of a target, and how many steps an iteration is."""
    wide = any(x.function.startswith("RegisterTile<14,") for x in loops)  # 32 registers
    rows, vectors, columns = (10, 2, 4) if wide else (6, 2, 3)  # of many rows
    value_rows, value_vectors = (8, 3) if wide else (4, 2)
    kernels = (
        (f"k of a tile {rows}x{vectors}, a strided", rf"RegisterTile<{rows}, {vectors}, .*1, float>::Run", rows * vectors),
        (f"k of a tile {rows}x{vectors}, a adjacent", rf"RegisterTile<{rows}, {vectors}, .*0, float>::Run", rows * vectors),
        ("k of a tile 12x1, a paired", r"RegisterTile<12, 2, .*2, float>::Run", 12),
        (f"vector of k of 4x{columns} dot products", rf"DotTile<float, float, 4, {columns}l?>", 4 * columns),
        (
            f"key of {value_rows} rows x {value_vectors} vectors of values",
            rf"ValueTile<OneKey<float>, {value_rows}, {value_vectors}>|ValuesOf<OneKey<float>>",
            value_rows * value_vectors,
        ),
    )
    return {name: found for name, function, products in kernels if (found := hottest(loops, function, products))}


def softmax(loops: list[Loop]) -> Counter[str] | None:
    """Of one vector of scores: its share of the two loops, which take four."""
    own = [x for x in loops if x.function == "OnlineStep<EachLane, (Weights)0>"]
    own = own or [x for x in loops if x.function == "SoftmaxLanes"]  # where it is inlined
    exponentials = hottest(own, "", 4 * 7) or hottest(own, "", 4 * 9)  # with and without multiply-adds
    maxima = next((x for x in own if x.counts["fma"] == 0 and x.counts["mul, add"] == 4), None)
    if not exponentials or not maxima:
        return None
    return Counter({name: n / 4 for name, n in (exponentials[0].counts + maxima.counts).items()})


def number(count: float) -> str:
    return f"{count:.0f}" if count >= 100 else f"{count:.3g}"


def report(loops: list[Loop]) -> list[str]:
    lines = [f"| target | one step | {' | '.join(CLASSES)} | all |", "|" + "---|" * (len(CLASSES) + 3)]
    for target in dict.fromkeys(x.target for x in loops):
        own = [x for x in loops if x.target == target]
        counts = {
            name: Counter({kind: n / steps for kind, n in loop.counts.items()})
            for name, (loop, steps) in steps_of(own).items()
        }
        if step := softmax(own):
            counts["vector of scores in the softmax"] = step
            tiles = [c for name, c in counts.items() if "tile" in name]
            tiles = tiles[2:] * 2 or tiles
            if len(tiles) == 2:  # q k^T with a strided, p v with a adjacent; or paired both. Of d = 128 and all lanes
                each = [128 / (c["fma"] or c["mul, add"] / 2) for c in tiles]
                whole = Counter(
                    {kind: sum(t[kind] * n for t, n in zip(tiles, each)) + step[kind] for kind in (*CLASSES, "all")}
                )
                counts["vector of scores of a prefill, d = 128"] = whole
        if len(counts) < 6:
            print(f"{target}: no hot loops but of: {', '.join(counts)}", file=sys.stderr)
        for name, count in counts.items():
            lines.append(f"| {target} | {name} | {' | '.join(number(count[kind]) for kind in (*CLASSES, 'all'))} |")
    return lines


def spills(loops: list[Loop]) -> dict[str, float]:
    """Of every compiled tile that is called and uses the stack in its hot loop: how often in a step."""
    wide = any(x.function.startswith("RegisterTile<14,") for x in loops)
    found = {}
    for function in dict.fromkeys(x.function for x in loops):
        types = r"(?:[A-Za-z][\w:<> ]*, )*"
        tile = re.match(rf"(RegisterTile|DotTile|ValueTile)<{types}(\d+), (\d+)", function)
        if not tile:
            continue
        rows, columns = int(tile[2]), int(tile[3])
        if tile[1] == "DotTile" and not wide and rows > 2 and columns == 4:
            continue  # 16 registers: three columns are taken instead
        if re.search("Pair|TwoKeys", function) and not re.search("ZEN4|SPR|BF16", loops[0].target):
            continue  # an emulation, for tests
        if "(Rows)2" in function:
            columns = 1  # paired: one vector after the other
        hot = hottest(loops, re.escape(function), rows * columns)
        if hot and hot[0].counts["spill"]:
            found[function.removesuffix("::Run")] = hot[0].counts["spill"] / hot[1]
    return found


def main() -> None:
    loops = [loop for file in sys.argv[1:] for loop in loops_of(file)]
    print("\n".join(report(loops)))
    print("\nTiles whose hot loop uses the stack, and how often in a step:")
    for target in dict.fromkeys(x.target for x in loops):
        found = spills([x for x in loops if x.target == target])
        print(f"{target}: " + (", ".join(f"{name} {n:.3g}" for name, n in found.items()) or "none"))


if __name__ == "__main__":
    main()
