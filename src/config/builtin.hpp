// The config that is compiled in when the Meson option `config` names no other. It has no rows: the
// formulas of defaults.cpp answer, from the caches of the machine that runs. A header written by
// rapt-tune looks like this one, with rows:
//
// RAPT_ROW(attention, AVX2, f32, d=64, tile=6x2, block_q=192, block_kv=256, short_rows=8,
// split_kv=512)
