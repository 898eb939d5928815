// d_k is not d_v, in a call of attention itself.
// error: AxisMismatch<rapt::axis::DepthV, rapt::axis::DepthK>
#include "rapt/attention.hpp"

void wrong(rapt::QView q, rapt::KView k, rapt::OutView out) { rapt::attention(q, k, k, out); }
