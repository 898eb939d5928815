"""Counts single test cases: prints "passed failed skipped".

usage: count.py <build directory>   the GoogleTest cases of the last `meson test` run
       count.py <report.xml>        the cases of one run of pytest

A program that fails without a failed case (a crash, a sanitizer's report at exit, a time-out) counts as one
failed case, and a test that is no GoogleTest program counts as one case.
"""

import json
import pathlib
import re
import sys
import xml.etree.ElementTree as xml


def count(report, ok):
    """Cases, failures and skips in a report; ok: whether its program says that all went well."""
    cases = failures = skips = 0
    try:
        for case in xml.parse(report).iter("testcase"):
            if case.get("status") == "notrun":  # disabled: the helper of another case
                continue
            cases += 1
            failures += case.find("failure") is not None or case.find("error") is not None
            skips += case.find("skipped") is not None
    except (OSError, xml.ParseError):
        cases = failures = skips = 0  # it died before it wrote, or while it did
    if not ok and failures == 0:
        cases += 1
        failures += 1
    return cases, failures, skips


def programs(build):
    log = max((build / "meson-logs").glob("*.json"), key=lambda path: path.stat().st_mtime)
    for line in log.read_text().splitlines():
        program = json.loads(line)
        ok = program["result"] in ("OK", "EXPECTEDFAIL", "SKIP")
        # Meson 1.0 calls a test "rapt:suite / name", Meson 1.12 "suite - rapt:name".
        report = build / (re.split("[ :]", program["name"])[-1] + ".xml")
        if report.exists() or not ok:
            yield count(report, ok)
        else:
            yield 1, 0, program["result"] == "SKIP"


of = pathlib.Path(sys.argv[1])
cases, failures, skips = (sum(column) for column in zip(*(programs(of) if of.is_dir() else [count(of, of.exists())])))
print(cases - failures - skips, failures, skips)
