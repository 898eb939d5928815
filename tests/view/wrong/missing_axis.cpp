// One axis too few.
// error: AxisMismatch<rapt::axis::Head, void>
#include "rapt/attention.hpp"

void wrong(rapt::View<const float, rapt::axis::Query, rapt::axis::DepthK> q) {
  rapt::QView view = q;
  (void)view;
}
