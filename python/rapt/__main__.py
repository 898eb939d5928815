"""python -m rapt doctor: what this machine is, what rapt makes of it, and whether it computes right."""

import argparse
import sys

import rapt

parser = argparse.ArgumentParser("python -m rapt", description="Attention for CPUs.")
parser.add_argument("--version", action="version", version=f"rapt {rapt.__version__}")
parser.add_argument("command", choices=["doctor"], help="some seconds; the exit status is 1 where a result was wrong")
parser.parse_args()
print("package     ", rapt.__file__, flush=True)
sys.exit(0 if rapt._core._doctor() else 1)
