// The kernels that take longest to compile, as other files call them: their bodies are compiled in
// dot_products.cc and row_products.cc. Per-target header: see kernels.cc.
#include "kernels/vector-inl.h"

#if defined(RAPT_KERNELS_COMPILED_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef RAPT_KERNELS_COMPILED_INL_H_
#undef RAPT_KERNELS_COMPILED_INL_H_
#else
#define RAPT_KERNELS_COMPILED_INL_H_
#endif

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

void CompiledDotProduct(const DotProduct& p);
void CompiledValueProduct(const ValueProduct& p);
void CompiledRowProduct(const RowProduct& p);

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // toggle
