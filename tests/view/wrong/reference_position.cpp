// In the reference, a position along one axis is not a position along another.
// error: this view has no such axis
#include "reference/reference.hpp"

namespace rapt::reference {
float wrong(QView q, At<Head> h, At<Key> j, At<DepthK> d) { return at(q, h, j, d); }
}  // namespace rapt::reference
