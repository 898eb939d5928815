"""Mixing axes up is an error of the compiler, and its message names both axes.

usage: must_not_compile.py <include directories, comma-separated> <compiler and its words>...

Compiles right.cpp, which must pass, and every file of wrong/, which must fail with the text that stands after
"// error:" in it. The compiler that builds the project is given; the other one of GCC and Clang is tried too,
where it is installed.
"""

import pathlib
import re
import shutil
import subprocess
import sys

here = pathlib.Path(__file__).parent
includes = [f"-I{directory}" for directory in sys.argv[1].split(",")]
compilers = [sys.argv[2:]]
other = ["g++"] if "clang" in " ".join(sys.argv[2:]) else ["clang++-19", "clang++"]
compilers += [[found] for found in other if shutil.which(found)][:1]

failures = 0
for compiler in compilers:
    for source in [here / "right.cpp", *sorted((here / "wrong").glob("*.cpp"))]:
        run = subprocess.run(
            [*compiler, "-std=c++20", "-fsyntax-only", *includes, str(source)],
            capture_output=True, text=True, check=False)
        wanted = re.search("// error: (.*)", source.read_text())
        if wanted is None:
            ok = run.returncode == 0
        else:
            ok = run.returncode != 0 and wanted[1] in re.sub("struct |class ", "", run.stderr)
        print("ok  " if ok else "FAIL", compiler[-1], source.name)
        if not ok:
            failures += 1
            print(run.stderr[:3000], f"wanted: {wanted and wanted[1]}", sep="\n")
sys.exit(failures != 0)
