"""python -m rapt doctor: what this machine is, what rapt makes of it, and whether it computes right.

Where the command `rapt` is installed, it answers, and measures the machine as well.
"""

import shutil
import subprocess
import sys

import numpy as np

import rapt

# Of each ISA target: heads that share keys, sizes that fill no vector, few rows and many.
SIZES = [(4, 2, 37, 53, 40), (4, 2, 1, 300, 64), (2, 2, 70, 70, 128)]


def error_of(target: str) -> float:
    """The largest difference from the reference, which computes in float64."""
    rapt.set_target(target)
    worst = 0.0
    for heads, kv_heads, seq_q, seq_kv, depth in SIZES:
        random = np.random.default_rng(depth)
        q, k, v = (
            random.standard_normal((1, n, seq, depth), dtype=np.float32)
            for n, seq in ((heads, seq_q), (kv_heads, seq_kv), (kv_heads, seq_kv))
        )
        weights = rapt.salience_map(q, k, causal=True).astype(np.float64)
        want = weights @ v.repeat(heads // kv_heads, axis=1)
        worst = max(worst, float(np.abs(rapt.attention(q, k, v, causal=True) - want).max()))
    return worst


def doctor() -> int:
    if command := shutil.which("rapt"):
        return subprocess.call([command, "doctor"])
    q = np.zeros((1, 1, 1, 64), np.float32)
    print(f"rapt         {rapt.__version__}, {rapt.__file__}")
    print(f"ISA targets  {', '.join(rapt.targets())}; {rapt.target()} is used")
    print(f"config       {str(rapt.config_report()).strip()}")
    print(str(rapt.explain(q, q, q)).strip())
    chosen, errors = rapt.target(), {}
    for target in rapt.targets():
        errors[target] = error_of(target)
        print(f"self-check   {target}: within {errors[target]:.1e} of float64")
    rapt.set_target(chosen)
    # Rounding of float32 leaves some 1e-6 here; a lost key or a wrong row leaves 1e-2 and more.
    wrong = [target for target, error in errors.items() if not error < 1e-5]
    print(f"trouble      wrong results on {', '.join(wrong)}" if wrong else "no trouble was found")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:] != ["doctor"]:
        sys.exit("usage: python -m rapt doctor")
    sys.exit(doctor())
