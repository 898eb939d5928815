// A matrix product whose b is listed by the wrong axes.
// error: AxisMismatch<rapt::axis::Column, rapt::axis::Row>
#include "rapt/gemm.hpp"

void wrong(rapt::View<const float, rapt::axis::Row, rapt::axis::Inner> a,
           rapt::View<float, rapt::axis::Row, rapt::axis::Column> c) {
  rapt::gemm(a, a, c);
}
