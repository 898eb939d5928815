#!/bin/sh
# `rapt doctor` as a program: what it says, and the troubles that it finds.
# Usage: doctor_test.sh <rapt>, or python -m rapt
set -eu
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
fail() { echo "FAILED: $*" >&2; cat "$directory/said" >&2; exit 1; }
says() { grep -q -- "$1" "$directory/said" || fail "not said: $1"; }
export XDG_CACHE_HOME=$directory/cache
unset RAPT_CONFIG RAPT_TARGET RAPT_TRACE RAPT_VERBOSE

# On one CPU of those that this test may use, with a bad config, a name that is no variable of rapt's, and a trace.
one=$(taskset -cp $$ | sed 's/.*: *\([0-9]*\).*/\1/')
echo rubbish >"$directory/config.hpp"
RAPT_CONFIG=$directory/config.hpp RAPT_TRASE=1 RAPT_TRACE=$directory/trace.txt \
  taskset -c "$one" "$@" doctor >"$directory/said" || fail "it found a wrong result"
for about in rapt CPU 'ISA targets' caches threads config environment limits self-check; do says "^$about "; done
says '^threads  *1 by default: .* affinity leaves 1,'
says '^config  *compiled in: 0 rows'
says "installed  *$XDG_CACHE_HOME/rapt/.*not there"
says "^trouble  *config refused: RAPT_CONFIG=$directory/config.hpp: config line 1"
says '^trouble  *RAPT_TRASE is set, which rapt does not know'
says '^trouble  *RAPT_TRACE is set'
says '^limits  *1 thread: [1-9][0-9]* GFLOP/s of multiply-adds, [0-9.]* GB/s'
# Every target of this build that runs here was checked, at least once.
targets=$(sed -n 's/^ISA targets  *\(.*\) (of this build.*/\1/p' "$directory/said" | tr -d ,)
for target in $targets; do says "^self-check .* $target [1-9][0-9]*"; done
grep -q '^attention/2,4,2,37,53,48,40/causal  calls:' "$directory/trace.txt" || fail "the trace"

"$@" --version | grep -q '^rapt [0-9]' || fail "--version"
if "$@" >"$directory/said" 2>&1; then fail "no subcommand was taken"; fi
