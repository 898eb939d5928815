# Sourced by the commands of bench/: .ci/setup.sh, the build that has rapt-bench, and Python environments.
source "$(dirname "${BASH_SOURCE[0]}")/../.ci/setup.sh"

# Builds rapt-bench and the shim, in the build directory that the tests use; sets bench_build. A directory
# that BENCH_BUILD names (set up with -Dbench=true) is taken instead, as for a build with a tuned config.
build_bench() {
  if [[ -n ${BENCH_BUILD:-} ]]; then
    bench_build=$BENCH_BUILD
  else
    bench_build=build/$default_compiler
    install_build
    configure "$bench_build" "$default_compiler" -Dbench=true -Dtune=true -Dexamples=true
  fi
  build "$bench_build" bench/rapt-bench bench/librapt_shim.so
}

# make_venv <name> <requirements>: sets venv. Each line of the file is installed by itself, once; a line
# that fails is tried again by the next run.
make_venv() {
  venv=build/venv-$1
  if [[ ! -x $venv/bin/pip ]]; then
    python3 -m venv "$venv" 2>/dev/null || { install python3-venv && python3 -m venv --clear "$venv"; }
  fi
  local line
  while read -r line; do
    if [[ -z $line || $line == '#'* ]] || grep -qxF "$line" "$venv/installed" 2>/dev/null; then continue; fi
    echo "installing $line" >&2
    # shellcheck disable=SC2086 # a line may name several packages
    if "$venv/bin/pip" install --quiet --disable-pip-version-check $line >"$venv/pip.log" 2>&1; then
      echo "$line" >>"$venv/installed"
    else
      echo "  does not install here: $(grep ERROR "$venv/pip.log" | tail -n 1)" >&2
    fi
  done <"$2"
}
