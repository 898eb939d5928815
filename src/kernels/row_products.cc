// Compiles the products that read the rows of an operand whole, value_product and row_product, for
// every ISA target, as kernels.cc does most kernels.
#include "kernels/targets.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/row_products.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// The bodies, for the current target.
#include "kernels/compiled-inl.h"
#include "kernels/row_product-inl.h"
#include "kernels/value_product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace rapt::kernels::HWY_NAMESPACE {

void CompiledValueProduct(const ValueProduct& p) { ValueProductOf(p); }
void CompiledRowProduct(const RowProduct& p) { RowProductOf(p); }

}  // namespace rapt::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
