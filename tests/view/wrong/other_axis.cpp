// A view with an axis that the function does not take.
// error: AxisMismatch<rapt::axis::Query, rapt::axis::Key>
#include "rapt/attention.hpp"

void wrong(rapt::View<const float, rapt::axis::Head, rapt::axis::Key, rapt::axis::DepthK> keys) {
  rapt::QView q = keys;
  (void)q;
}
