"""What the docs say is true: see the functions below, one for each WHAT.

usage: docs_test.py WHAT SOURCE_ROOT BUILD_ROOT [ARGUMENT...]
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

what, source, build, *arguments = sys.argv[1:]
source, build = pathlib.Path(source), pathlib.Path(build)
temporary = tempfile.TemporaryDirectory(prefix="rapt-docs-")
work = pathlib.Path(temporary.name)
pages = [source / "README.md", source / "CHANGELOG.md", *sorted((source / "docs").glob("*.md"))]
environment = os.environ | {"LD_LIBRARY_PATH": str(build / "src"), "PKG_CONFIG_PATH": str(build / "packaging")}
failures = 0


def report(ok, text, why=""):
    global failures
    failures += not ok
    print("ok  " if ok else "FAIL", text)
    if not ok and why:
        print(why)


def run(text, *command, **how):
    done = subprocess.run([str(word) for word in command], env=environment, text=True, check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)
    report(done.returncode == 0, text, done.stdout)
    return done.returncode == 0


def blocks_of(page):
    """(line, words after the fence, code) of each fenced block."""
    lines, start = page.read_text().splitlines(), None
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            continue
        if start is None:
            start, words = number, line[3:].split()
        else:
            yield start, words, lines[start:number - 1]
            start = None
    if start is not None:
        report(False, f"{page.name}:{start}: a block without an end")


def tool(name):
    """rapt's own program, where it is built."""
    return next((build / room / name for room in ("tune", "bench") if (build / room / name).exists()), None)


def program(blocks, preamble, void, after):
    """One program of fragments: each a function, its includes and usings before all of them, a check after each."""
    head, body, calls = [f'#include "{preamble}"'], [], []
    for line, _, code in blocks:
        outside = re.compile(r"#include |using namespace ")
        head += [text for text in code if outside.match(text)]
        inside = ["" if outside.match(text) else text for text in code]
        body += [f"static void line_{line}({void}) {{", f"#line {line + 1}", *inside, "}"]
        calls += [f'  puts("line {line}");', "  fflush(stdout);", f"  line_{line}();", after]
    return "\n".join([*head, *body, f"int main({void}) {{", "  fill_data();", *calls, "}"]) + "\n"


def blocks():
    """Blocks of C++ and C compile, link and run, those of a page as one program; bash is parsed, scripts
    and options that it names are there, and it is run where it says so (```bash run), from a place that looks like the
    project's root; rows of a config are taken by rapt-tune; Python runs where the package is installed.
    Arguments: the commands of the C and the C++ compiler."""
    cc, cxx = arguments
    here = pathlib.Path(__file__).parent
    compilers = {
        "cpp": (".cpp", "preamble.hpp", "", "", [*cxx.split(), "-std=c++20"]),
        "c": (".c", "preamble.h", "void", "  if (rapt_last_error()[0]) return 1;", [*cc.split(), "-std=c99", "-pedantic"]),
    }
    checked = 0
    for page in pages:
        found = list(blocks_of(page))
        for line, words, _ in found:
            if words[:1] not in (["cpp"], ["c"], ["bash"], ["python"], ["config"]):
                report(False, f"{page.name}:{line}: nothing checks the language {words}")
        checked += len(found)
        for language, (suffix, *parts, compiler) in compilers.items():
            fragments = [block for block in found if block[1][:1] == [language]]
            if not fragments:
                continue
            name = f"{page.name}: {language} of lines {', '.join(str(block[0]) for block in fragments)}"
            file, binary = work / (page.stem + suffix), work / (page.stem + "_" + language)
            file.write_text(program(fragments, *parts))
            if run(f"{name} compile", *compiler, "-Wall", "-Wno-unused", "-Werror", f"-I{source / 'include'}", f"-I{here}",
                   file, f"-L{build / 'src'}", "-lrapt", "-pthread", "-o", binary):
                run(f"{name} run", binary)
        for line, words, code in found:
            script = "set -e\n" + "\n".join(code)
            if words == ["bash"]:
                run(f"{page.name}:{line}: bash is parsed", "bash", "-n", "-c", script)
                for script_file in re.findall(r"^bash (\S+)", script, re.MULTILINE):
                    report((source / script_file).is_file(), f"{page.name}:{line}: {script_file} is there")
                for name, options in re.findall(r"^(rapt[\w-]*) ([^#\n]*)", script, re.MULTILINE):
                    if not tool(name):
                        print(f"skip {page.name}:{line}: {name} is not built")
                        continue
                    known = subprocess.run([tool(name), "--help"], text=True, capture_output=True, check=False).stdout
                    for option in re.findall(r"(?:^| )(--\w[\w-]*)", options):
                        report(re.search(rf"{option}\b", known) is not None, f"{page.name}:{line}: {name} has {option}", known)
            elif words == ["bash", "run"]:
                root = work / f"{page.stem}-{line}"
                root.mkdir()
                for entry in source.iterdir():
                    (root / entry.name).symlink_to(entry)
                run(f"{page.name}:{line}: bash runs", "bash", "-c", script, cwd=root)
            elif words[:1] == ["config"]:
                config = work / f"{page.stem}-{line}.hpp"
                config.write_text("\n".join(code) + "\n")
                if tool("rapt-tune"):
                    run(f"{page.name}:{line}: a config", tool("rapt-tune"), "--check", config)
                else:
                    print(f"skip {page.name}:{line}: rapt-tune is not built")
            elif words[:1] == ["python"]:
                if subprocess.run([sys.executable, "-c", "import rapt"], capture_output=True, check=False).returncode == 0:
                    run(f"{page.name}:{line}: python runs", sys.executable, "-c", script.removeprefix("set -e\n"))
                else:
                    print(f"skip {page.name}:{line}: there is no Python package rapt here")
    report(checked > 0, f"{checked} blocks")


def links():
    """Every relative link of a Markdown file of the project leads to a file, and its # to a heading; every page of docs
    can be reached from docs/README.md. The version that the change log begins with is the project's, which is the
    argument."""
    def anchors(page):
        for heading in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE):
            yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

    listed = [path for path in source.rglob("*.md")
              if not {"build", "subprojects", ".git", "node_modules"} & set(path.relative_to(source).parts)
              and not any(part.startswith((".", "build")) for part in path.relative_to(source).parts)]
    reached, checked = set(), 0
    for page in listed:
        text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            ok = file.exists() and (not anchor or file.suffix != ".md" or anchor in anchors(file))
            checked += 1
            if page == source / "docs" / "README.md":
                reached.add(file)
            if not ok:
                report(False, f"{page.relative_to(source)}: {target} leads nowhere")
    report(checked > 0, f"{checked} links")
    for page in (source / "docs").glob("*.md"):
        report(page.name == "README.md" or page.resolve() in reached, f"docs/README.md leads to {page.name}")
    version = re.search(r"^## \[?([0-9]+\.[0-9]+\.[0-9]+)", (source / "CHANGELOG.md").read_text(), re.MULTILINE)
    report(version is not None and version[1] == arguments[0],
           f"CHANGELOG.md begins with the project's version, {arguments[0]}", version and version[0])


def masks():
    """The pictures of the masks are those that the library draws now. Argument: the program that draws them."""
    subprocess.run([arguments[0], work], check=True)
    drawn, kept = {file.name: file.read_text() for file in work.iterdir()}, {
        file.name: file.read_text() for file in (source / "docs" / "masks").iterdir()}
    report(drawn.keys() == kept.keys() and len(drawn) > 0, "the same pictures", f"{sorted(drawn)}\n{sorted(kept)}")
    for name in sorted(drawn.keys() & kept.keys()):
        report(drawn[name] == kept[name], f"{name} is up to date", "draw again: ninja -C build masks")
    for name in sorted(kept):
        shown = f"masks/{name}" in (source / "docs" / "concepts.md").read_text()
        report(shown, f"docs/concepts.md shows {name}")


def reference():
    """Doxygen has nothing to say against the public headers, and writes what they say. Arguments: doxygen, the version."""
    environment.update(RAPT_SOURCE=str(source), RAPT_REFERENCE=str(work), RAPT_VERSION=arguments[1])
    run("doxygen without warnings", arguments[0], source / "docs" / "Doxyfile")
    for page, text in {"attention_8hpp": "one pass over the keys", "structrapt_1_1AttentionOptions": "scores stay within",
                       "rapt_8h": "Never fails"}.items():
        file = work / "html" / f"{page}.html"
        report(file.exists() and text in file.read_text(), f"its page {page} says: {text}")


{"blocks": blocks, "links": links, "masks": masks, "reference": reference}[what]()
sys.exit(failures != 0)
