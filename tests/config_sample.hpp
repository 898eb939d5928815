// A config header as the compiler sees it: config_test.cpp includes this file the way the library
// includes the header that the Meson option `config` names.

RAPT_ROW(attention, AVX2, f32, d = 64, tile = 6x2, block_q = 192, block_kv = 256, short_rows = 8,
         split_kv = 512)
RAPT_ROW(gemm, AVX2, f32, direct_rows = 6, block_k = 384, block_n = 1024, block_m = 336, tile = 6x2,
         packed_kib = 1024)
// The last line has no row.
