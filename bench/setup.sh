# Sourced by the commands of bench/: .ci/setup.sh, and the build that has rapt-bench.
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
