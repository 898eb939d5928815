"""One way to use rapt, as its users do: the programs of examples/embed, built outside of the project and run.

usage: embed_test.py WAY SOURCE_ROOT BUILD_ROOT CC CXX

All ways but `uninstalled`, `subproject` and `nix` start from `meson install` into a directory that is not the prefix, so the
installed tree must work wherever it lies; and pkg-config sees nothing but this tree, so no development files of rapt's
dependencies can be asked for.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

way, source, build, cc, cxx = sys.argv[1:]
source, build = pathlib.Path(source), pathlib.Path(build)
embed = source / "examples" / "embed"
temporary = tempfile.TemporaryDirectory(prefix="rapt-embed-")
work = pathlib.Path(temporary.name)
environment = os.environ | {"CC": cc, "CXX": cxx, "CFLAGS": "", "CXXFLAGS": "", "LDFLAGS": ""}
for name in ("PKG_CONFIG_PATH", "LD_LIBRARY_PATH", "CMAKE_PREFIX_PATH"):
    environment.pop(name, None)


def run(*command, fails=False, **where):
    done = subprocess.run([str(word) for word in command], env=environment, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **where)
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}\nstatus {done.returncode}")
    return done.stdout


def must_be(found, wanted, what):
    if found != wanted:
        sys.exit(f"{what}: {found!r}, not {wanted!r}")


def greets(*program):
    must_be(run(*program), "0\n0.5\n1\n1.5\n", f"the output of {program[-1]}")


def install():
    """The directory of the installed libraries."""
    environment["DESTDIR"] = str(work / "moved")
    run("meson", "install", "-C", build, "--no-rebuild")
    del environment["DESTDIR"]
    libraries = next((work / "moved").rglob("rapt.pc")).parent.parent
    environment["PKG_CONFIG_LIBDIR"] = str(libraries / "pkgconfig")
    environment["LD_LIBRARY_PATH"] = str(libraries)
    return libraries


def without_shared(libraries):
    for library in libraries.glob("librapt.so*"):
        library.unlink()


def compile_and_run(*options):
    """Both hello programs, with what pkg-config says."""
    flags = run("pkg-config", "--cflags", "--libs", *options, "rapt").split()
    run(*cc.split(), "-std=c99", "-pedantic", "-Werror", embed / "hello.c", *flags, "-o", work / "hello_c")
    run(*cxx.split(), "-std=c++20", embed / "hello.cpp", *flags, "-o", work / "hello")
    greets(work / "hello_c")
    greets(work / "hello")
    return run("ldd", work / "hello_c")


def cmake(*options):
    binary = work / ("cmake" + "".join(options))
    run("cmake", "-S", embed, "-B", binary, f"-DCMAKE_PREFIX_PATH={libraries.parent.parent}",
        f"-DCMAKE_LIBRARY_ARCHITECTURE={libraries.name}", *options)
    run("cmake", "--build", binary)
    greets(binary / "hello")
    greets(binary / "hello_c")
    return run("ldd", binary / "hello_c")


def meson(*options):
    run("meson", "setup", work / "meson", work / "project", *options)
    run("meson", "compile", "-C", work / "meson")
    greets(work / "meson" / "hello")
    greets(work / "meson" / "hello_c")


if way == "files":
    libraries = install()
    headers = next((work / "moved").rglob("rapt.hpp")).parent
    must_be(sorted(file.name for file in headers.iterdir()),
            sorted(file.name for file in (source / "include" / "rapt").iterdir()), "installed headers")
    others = {file.name for file in libraries.rglob("*") if not file.is_dir() and not file.name.startswith("librapt.")}
    must_be(others, {"rapt.pc", "rapt-config.cmake", "rapt-config-version.cmake"}, "beside the libraries")
    # Each header can be the only one, and in C the first one.
    for header in sorted(headers.iterdir()):
        language = [*cxx.split(), "-std=c++20", "-x", "c++"] if header.suffix == ".hpp" else [*cc.split(), "-std=c99"]
        (work / "one.c").write_text(f"#include <rapt/{header.name}>\nint unit;\n")
        run(*language, "-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only", f"-I{headers.parent}", work / "one.c")

elif way == "pkg-config":
    install()
    if "librapt.so" not in compile_and_run():
        sys.exit("not linked with the shared library")

elif way == "pkg-config-static":
    without_shared(install())
    if "librapt" in compile_and_run("--static"):
        sys.exit("linked with a shared library")

elif way == "uninstalled":
    environment["PKG_CONFIG_LIBDIR"] = str(build / "packaging")
    environment["LD_LIBRARY_PATH"] = str(build / "src")
    if str(build) not in compile_and_run():
        sys.exit("not linked with the library of the build directory")

elif way == "cmake":
    libraries = install()
    del environment["LD_LIBRARY_PATH"]  # CMake notes where the library is
    if "librapt.so" not in cmake():
        sys.exit("not linked with the shared library")
    if "librapt" in cmake("-Drapt_USE_STATIC_LIBS=ON"):
        sys.exit("linked with a shared library")
    # Which versions are refused.
    config = libraries / "cmake" / "rapt" / "rapt-config-version.cmake"
    script = work / "version.cmake"
    script.write_text(f"set(PACKAGE_FIND_VERSION ${{wanted}})\ninclude({config})\n"
                      "message(${PACKAGE_VERSION} ${PACKAGE_VERSION_COMPATIBLE})")
    major, minor, patch = map(int, run("pkg-config", "--modversion", "rapt").strip().split("."))
    version = f"{major}.{minor}.{patch}"
    for wanted, answer in [(version, "TRUE"), (f"{major}.{minor}", "TRUE"), (f"{major}.{minor}.{patch + 1}", "FALSE"),
                           (f"{major}.{minor + 1}", "FALSE"), (f"{major + 1}.0", "FALSE")]:
        must_be(run("cmake", f"-Dwanted={wanted}", "-P", script), version + answer + "\n", f"asked for {wanted}")
    without_shared(libraries)
    if "librapt" in cmake("-Dleft=static"):
        sys.exit("linked with a shared library")

elif way == "meson":
    install()
    shutil.copytree(embed, work / "project")
    meson()

elif way == "subproject":
    shutil.copytree(embed, work / "project")
    subprojects = work / "project" / "subprojects"
    subprojects.mkdir()
    (subprojects / "rapt").symlink_to(source)
    # One ISA target and no optimizer: this is about the build files, and that each file includes what it uses.
    meson("--force-fallback-for=rapt", "--buildtype=plain", "-Db_pch=false", "-Drapt:targets=scalar", "-Drapt:tbb=disabled")

elif way == "nix":
    said = run("nix-instantiate", "--store", "dummy://", "--eval", "--strict", "--json",
               source / "tests" / "embed" / "flake_test.nix")
    flake = json.loads(said.splitlines()[-1])
    wrap = dict(re.findall(r"^(source_\w+) = (.*)$", (source / "subprojects" / "highway.wrap").read_text(), re.MULTILINE))
    version = re.search("version: '(.*)'", (source / "meson.build").read_text())[1]
    options = re.findall(r"^option\('(\w+)'", (source / "meson_options.txt").read_text(), re.MULTILINE)
    for package in flake["packages"]:
        must_be(package["version"], version, "version")
        must_be(package["postPatch"].split()[3:],
                ["cp", wrap["source_url"], wrap["source_hash"], "\\", "subprojects/packagecache/" + wrap["source_filename"]],
                "Highway")
        unknown = {flag[2:].split("=")[0] for flag in package["mesonFlags"]} - set(options)
        must_be(unknown, set(), "options that Meson does not know")

elif way == "ctypes":
    install()
    greets(sys.executable, embed / "hello.py")

else:
    sys.exit(f"no such way: {way}")
