// One number for each row is not a row.
// error: AxisMismatch<rapt::axis::Depth, void>
#include "rapt/rope.hpp"

void wrong(rapt::LseView lse) {
  rapt::AnyRows rows = lse;
  (void)rows;
}
