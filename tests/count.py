"""Counts single GoogleTest cases of the last `meson test` run: prints "passed failed skipped".

usage: count.py <build directory>

A program that fails without a failed case (a crash, a sanitizer's report at exit, a time-out) counts as one
failed case, and a test that is no GoogleTest program counts as one case.
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree as xml

build = pathlib.Path(sys.argv[1])
log = max((build / "meson-logs").glob("*.json"), key=lambda path: path.stat().st_mtime)
passed = failed = skipped = 0
for line in log.read_text().splitlines():
    program = json.loads(line)
    ok = program["result"] in ("OK", "EXPECTEDFAIL", "SKIP")
    # Meson 1.0 calls a test "rapt:suite / name", Meson 1.12 "suite - rapt:name".
    report = build / (re.split("[ :]", program["name"])[-1] + ".xml")
    cases = failures = skips = 0
    if report.exists():
        try:
            for case in xml.parse(report).iter("testcase"):
                if case.get("status") == "notrun":  # disabled: the helper of another case
                    continue
                cases += 1
                failures += case.find("failure") is not None
                skips += case.find("skipped") is not None
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
