"""Counts single GoogleTest cases of one `meson test` run: prints "passed failed skipped".

usage: count.py <build directory> <name of the log>

A program that fails without a failed case (a crash, a sanitizer's report at exit, a time-out) counts as one
failed case, and a test that is no GoogleTest program counts as one case.
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

build, log = pathlib.Path(sys.argv[1]), sys.argv[2]
passed = failed = skipped = 0
for line in (build / "meson-logs" / f"{log}.json").read_text().splitlines():
    program = json.loads(line)
    ok = program["result"] in ("OK", "EXPECTEDFAIL", "SKIP")
    # Meson 1.0 calls a test "rapt:suite / name", Meson 1.12 "suite - rapt:name".
    report = build / (re.split("[ :]", program["name"])[-1] + ".xml")
    cases = failures = skips = 0
    if report.exists():
        try:
            for case in xml.parse(report).iter("testcase"):
                cases += 1
                failures += case.find("failure") is not None
                skips += case.find("skipped") is not None or case.get("status") == "notrun"
        except xml.ParseError:
            cases = failures = skips = 0  # it died while it wrote
    elif ok:
        cases = 1
        skips = program["result"] == "SKIP"
    if not ok and failures == 0:
        cases += 1
        failures += 1
    passed += cases - failures - skips
    failed += failures
    skipped += skips
print(passed, failed, skipped)
