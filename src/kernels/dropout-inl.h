// Dropout: which weights are kept, by a counter-based generator, the pair its counter. Per-target
// header: see kernels.cc.
//
// Philox 4x32-10 (Salmon et al. 2011): one counter gives four words, those of four neighbouring
// keys of a row; lanes are rows.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_DROPOUT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_DROPOUT_INL_H_
#undef RAPT_KERNELS_DROPOUT_INL_H_
#else
#define RAPT_KERNELS_DROPOUT_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

inline void DropOf(const Drop& p) {
  const F32 d;
  const hn::RebindToUnsigned<F32> du;
  const auto threshold = hn::Set(du, p.threshold);
  const V32 factor = hn::Set(d, p.factor);
  const auto a = hn::Set(du, 0xD2511F53u), b = hn::Set(du, 0xCD9E8D57u);
  const auto keep = [&](Index key, Index col, hn::Vec<decltype(du)> word) HWY_ATTR {
    if (key < p.first_key || key >= p.first_key + p.n) return;
    float* at = p.p + (key - p.first_key) * p.row + col;
    const auto kept = hn::RebindMask(d, hn::Ge(word, threshold));
    hn::StoreU(hn::IfThenElseZero(kept, hn::Mul(hn::LoadU(d, at), factor)), d, at);
  };
  for (Index col = 0; col < p.rows; col += Lanes()) {
    const auto query = hn::LoadU(du, p.query + col), stream = hn::LoadU(du, p.stream + col);
    for (Index key = p.first_key / 4 * 4; key < p.first_key + p.n; key += 4) {
      auto x0 = hn::Set(du, static_cast<std::uint32_t>(key / 4)), x1 = query, x2 = stream,
           x3 = hn::Set(du, p.offset);
      std::uint32_t key0 = p.seed[0], key1 = p.seed[1];
      for (int round = 0; round < 10; ++round) {
        const auto high0 = hn::MulHigh(x0, a), high2 = hn::MulHigh(x2, b);
        const auto low0 = hn::Mul(x0, a), low2 = hn::Mul(x2, b);
        x0 = hn::Xor3(high2, x1, hn::Set(du, key0));
        x1 = low2;
        x2 = hn::Xor3(high0, x3, hn::Set(du, key1));
        x3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
      }
      keep(key, col, x0);
      keep(key + 1, col, x1);
      keep(key + 2, col, x2);
      keep(key + 3, col, x3);
    }
  }
}

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
