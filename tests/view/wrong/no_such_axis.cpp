// Asking a view for the extent of an axis that it has not.
// error: this view has no such axis
#include "rapt/attention.hpp"

long wrong(rapt::QView q) { return q.extent<rapt::axis::Key>(); }
