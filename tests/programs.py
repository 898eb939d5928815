"""What a build directory must build for some suites: `meson introspect --tests DIR | programs.py DIR SUITE...`"""
import json
import pathlib
import sys

directory = pathlib.Path(sys.argv[1]).resolve()
wanted = set(sys.argv[2:])
programs = set()
for test in json.load(sys.stdin):
    if wanted & {suite.split(":")[-1] for suite in test["suite"]}:
        programs |= {pathlib.Path(word) for word in test["cmd"]}
print(*sorted(str(p.relative_to(directory)) for p in programs if p.is_relative_to(directory)))
