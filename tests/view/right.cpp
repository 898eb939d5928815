// The same calls as in wrong/, said right: this file must compile, or the others fail for another
// reason.
#include "rapt/rapt.hpp"
#include "reference/reference.hpp"

void right(rapt::View<const float, rapt::axis::Query, rapt::axis::Head, rapt::axis::DepthK> q,
           rapt::KView k, rapt::VView v, rapt::OutView out,
           rapt::View<const float, rapt::axis::Row, rapt::axis::Inner> a,
           rapt::View<const float, rapt::axis::Column, rapt::axis::Inner> b_transposed,
           rapt::View<float, rapt::axis::Row, rapt::axis::Column> c) {
  rapt::attention(q, k, v, out);
  rapt::gemm(a, b_transposed, c);
  rapt::AnyRows queries = q, keys = k, values = rapt::AnyV(v);
  rapt::AnyRowsOut outputs = out;
  (void)queries, (void)keys, (void)values, (void)outputs;
}

namespace rapt::reference {
float right(QView q, At<Head> h, At<Query> i, At<DepthK> d) { return at(q, h, i, d); }
}  // namespace rapt::reference
