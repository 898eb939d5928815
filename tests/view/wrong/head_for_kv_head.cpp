// Query heads are not KV heads.
// error: AxisMismatch<rapt::axis::KvHead, rapt::axis::Head>
#include "rapt/attention.hpp"

void wrong(rapt::View<const float, rapt::axis::Head, rapt::axis::Key, rapt::axis::DepthK> k) {
  rapt::KView view = k;
  (void)view;
}
