#!/bin/sh
# rapt-tune as a program: what it writes, and what it leaves when it is stopped. Usage: tune_program_test.sh <rapt-tune>
set -eu
tune=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
file=$directory/config.hpp
fail() { echo "FAILED: $*" >&2; exit 1; }
# A whole file says of each of the seven rows of a target that it is tuned or stays.
whole() { [ "$(grep -cE '^RAPT_ROW|the default stays;' "$1")" -eq 7 ]; }

"$tune" --help | grep -q -- --quick || fail "--help"
"$tune" --seconds 2 --isa best --out "$file" >"$directory/table" 2>"$directory/progress" || fail "a run of 2 seconds"
whole "$file" || fail "the file: $(cat "$file")"
[ -s "$directory/table" ] || fail "no table"
if LC_ALL=C grep -q "$(printf '[\r\033]')" "$directory/progress" "$directory/table"; then fail "control characters in a log"; fi

"$tune" --isa NOSUCH 2>"$directory/error" && fail "an unknown target was taken"
grep -q NOSUCH "$directory/error" || fail "the error does not name the target"
"$tune" --out "$directory/missing/config.hpp" 2>"$directory/error" && fail "a missing directory was taken"
grep -q missing "$directory/error" || fail "the error does not name the directory"

# Stopped politely: the old file, no temporary one, and a shell's exit status.
cp "$file" "$directory/before"
for signal in INT TERM; do
  status=0
  # A shell makes its background jobs ignore SIGINT; timeout does not, and sends it after a second.
  timeout --preserve-status -s "$signal" 1 "$tune" --seconds 20 --isa best --out "$file" 2>/dev/null || status=$?
  [ "$status" -eq "$([ "$signal" = INT ] && echo 130 || echo 143)" ] || fail "status $status after SIG$signal"
  cmp -s "$file" "$directory/before" || fail "the file changed after SIG$signal"
done
[ -z "$(find "$directory" -name '.rapt-tune-*')" ] || fail "a temporary file is left"

# Several at once, some of them killed: a whole file.
for i in 1 2 3 4; do "$tune" --seconds 1 --isa best --out "$file" >/dev/null 2>&1 & done
timeout -s KILL 0.9 "$tune" --seconds 1 --isa best --out "$file" >/dev/null 2>&1 || true
wait
whole "$file" || fail "the file after several tuners at once: $(cat "$file")"
