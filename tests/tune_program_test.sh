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

# Installed: each of several at once tunes its own targets, and all of them are there in the end; one that is killed in
# between leaves a whole file. The tests' own config is not looked at.
export XDG_CACHE_HOME=$directory/cache
targets=$("$tune" --isa NOSUCH 2>&1 | sed 's/.*which runs //; s/,//g')
for target in $targets; do "$tune" --seconds 1 --isa "$target" --install >"$directory/$target" 2>&1 & done
timeout -s KILL 0.9 "$tune" --seconds 1 --isa best --install >/dev/null 2>&1 || true
wait
file=$(find "$XDG_CACHE_HOME/rapt" -name '*.hpp')
[ -f "$file" ] || fail "not one file: $file"
for target in $targets; do
  [ "$(grep -cE "^// (attention|gemm) $target( d=[0-9]*)?: " "$file")" -eq 7 ] || fail "rows of $target: $(cat "$file")"
done
grep -q '^// CPU: .' "$file" || fail "the file names no CPU"
"$tune" --check "$file" >"$directory/said" || fail "--check"
! grep -q '^unused\|^stale' "$directory/said" || fail "--check of what was just tuned: $(cat "$directory/said")"

# Each row by itself, and what is no config.
cat >"$directory/mixed.hpp" <<'ROWS'
RAPT_ROW(gemm, Z14, f32, tile=6x2, block_m=336, block_n=1024, block_k=384, direct_rows=6, packed_kib=1024)
ROWS
sed "s/Z14/$(echo "$targets" | cut -d' ' -f1)/; s/6x2/31x16/" "$directory/mixed.hpp" >>"$directory/mixed.hpp.2"
cat "$directory/mixed.hpp.2" >>"$directory/mixed.hpp"
"$tune" --check "$directory/mixed.hpp" >"$directory/said" || fail "--check"
grep -q '^unused .*Z14' "$directory/said" && grep -q '^stale .*31x16' "$directory/said" || fail "--check: $(cat "$directory/said")"
echo rubbish >>"$directory/mixed.hpp"
"$tune" --check "$directory/mixed.hpp" 2>"$directory/error" && fail "--check of rubbish"
grep -q "mixed.hpp: config line 3: " "$directory/error" || fail "--check: $(cat "$directory/error")"

# For a program.
printf 'attention/1,4,2,1,300,64,64  calls:9\ngemm/64,64,64/bias  calls:2\n' >"$directory/trace.txt"
"$tune" --from "$directory/trace.txt" --seconds 1 --isa best >"$directory/said" 2>/dev/null || fail "--from"
[ "$(grep -cE '^// (attention|gemm) .*: ' "$directory/said")" -eq 2 ] || fail "--from: $(cat "$directory/said")"
