#!/bin/sh
# examples/train_toy as a program: it learns, twice the same. Usage: train_toy_program_test.sh <train_toy>
set -eu
train_toy=$1
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

"$train_toy" --csv "$directory/one.csv" >"$directory/said" 2>"$directory/progress" || fail "a run"
[ "$(wc -l <"$directory/one.csv")" -eq 1001 ] || fail "the csv has not a line for each step"
awk -F, 'NR == 2 { first = $2 } END { exit !($2 > 0 && first > 100 * $2) }' "$directory/one.csv" ||
  fail "the loss falls by less than 100 x: $(cat "$directory/said")"
[ ! -s "$directory/progress" ] || fail "a progress bar in a log"

"$train_toy" --csv "$directory/two.csv" >"$directory/said"
cmp "$directory/one.csv" "$directory/two.csv" || fail "another run gives other bits"
"$train_toy" --serial --csv "$directory/two.csv" >"$directory/said"
cmp "$directory/one.csv" "$directory/two.csv" || fail "one thread gives other bits"

# The other form of the layer, other sizes, parameters in f32.
"$train_toy" --type f32 --embedding 5 --d-model 0 --heads 2 --d-k 3 --d-v 7 --csv "$directory/two.csv" >"$directory/said"
awk -F, 'NR == 2 { first = $2 } END { exit !($2 > 0 && first > 100 * $2) }' "$directory/two.csv" ||
  fail "in f32, without the first projection, the loss falls by less than 100 x: $(cat "$directory/said")"

"$train_toy" --rate 1000 >"$directory/said" 2>"$directory/error" && fail "a loss that is not finite"
grep -q -- --rate "$directory/error" || fail "the error does not name --rate"
"$train_toy" --steps 3 --csv "$directory/missing/loss.csv" >"$directory/said" 2>"$directory/error" && fail "no directory"
grep -q missing "$directory/error" || fail "the error does not name the file"
