// Compiles dot_product for every ISA target, as kernels.cc does most kernels.
#include "kernels/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/dot_products.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// The body, for the current target.
#include "kernels/compiled-inl.h"
#include "kernels/dot_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

void CompiledDotProduct(const DotProduct& p) { DotProductOf(p); }

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
