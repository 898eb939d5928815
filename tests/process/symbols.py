"""The kernels' object files may offer no function that the rest of the program could pick up by name: compiled for the
newest instructions, it would run on CPUs without them (B48).

    symbols.py NM LIBRARY.a
"""

import re
import subprocess
import sys

nm, library = sys.argv[1:]
listing = subprocess.run([nm, "--demangle", library], check=True, capture_output=True, text=True).stdout
# Those that are compiled for every target are the .cc files.
objects = [part for part in listing.split("\n\n") if re.search(r"kernels_\w+\.cc\.o:", part)]
weak = re.compile(r"^[0-9a-f]+ [VWu] (.*)$", re.MULTILINE).findall("\n".join(objects))
# Highway compiles each target in a namespace of its name, N_AVX2; DW.ref is a pointer of the compiler's.
shared = [name for name in weak if not re.search(r"\bN_[A-Z0-9_]+::|^DW\.ref\.", name)]
print(f"{len(objects)} object files, {len(weak)} weak symbols")
for name in shared:
    print("outside the namespaces of the targets:", name)
sys.exit(bool(shared) or not weak or len(objects) != 3)
