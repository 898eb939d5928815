"""A public header as Doxygen wants it. usage: doxygen-filter.py HEADER

A comment becomes one of Doxygen's: `///` before a declaration, `///<` behind one, and of the file where it stands at its
top. Lines that are set in by hand (formulas, shapes, examples) stay as they are laid out.
"""

import pathlib
import re
import sys

header = pathlib.Path(sys.argv[1])
behind = None  # the column of the comment behind the declaration above: it may go on in the next line
laid_out = False

print(f"/// @file rapt/{header.name}", "///", sep="\n")
for line in header.read_text().splitlines():
    comment = re.match(r"( *)//(?!/) ?(.*)$", line)
    trailing = None if comment else re.match(r"(.*[;,{})] *)// (?!NOLINT)(.*)$", line)
    if comment is None:
        print(line if trailing is None else f"{trailing[1]}///< {trailing[2]}")
        behind, laid_out = trailing and len(trailing[1]), False
        continue
    indent, text = comment.groups()
    if behind == len(indent) and text:
        print(f"{indent}///< {text}")
        continue
    behind = None
    if re.match("-{10}|clang-format", text):  # a rule between sections
        print()
        continue
    if text.startswith("  ") != laid_out and text:
        laid_out = not laid_out
        print(f"{indent}///")
    print(f"{indent}/// {'    ' if laid_out else ''}{text}")
