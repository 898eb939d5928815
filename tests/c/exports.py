"""librapt.so exports the C functions that exports.txt lists, of C++ what is in namespace rapt, and nothing else. Its
soname is the first line of exports.txt: a caller that was linked with it loads any library of that name.

    exports.py exports.txt NM READELF LIBRARY.so
"""

import pathlib
import re
import subprocess
import sys

wanted, nm, readelf, library = sys.argv[1:]
soname, *functions = [line for line in pathlib.Path(wanted).read_text().splitlines() if not line.startswith("#")]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# "rapt_rope" is one of C; "rapt::rope(...)" and "vtable for rapt::Error" are of C++.
names = re.findall(r"^[0-9a-f]* +[A-Za-z] (.*)$", run(nm, "-D", "--defined-only", "--demangle", library), re.MULTILINE)
cpp = re.compile(r"((typeinfo|typeinfo name|vtable) for )?rapt::")
exported = {name for name in names if not cpp.match(name)}
problems = [f"exported, but not in the list: {name}" for name in sorted(exported - set(functions))]
problems += [f"in the list, but not exported: {name}" for name in sorted(set(functions) - exported)]
found = re.search(r"Library soname: \[(.*)\]", run(readelf, "-d", library))
if found is None or found[1] != soname:
    problems.append(f"the soname is {found and found[1]}, not {soname}")
if not any(map(cpp.match, names)):
    problems.append("nothing of C++ is exported")
print(f"{len(exported)} C functions", *problems, sep="\n")
sys.exit(bool(problems))
