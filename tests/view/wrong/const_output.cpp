// What is only read cannot be written to.
// error: View
#include "rapt/attention.hpp"

void wrong(rapt::View<const float, rapt::axis::Head, rapt::axis::Query, rapt::axis::DepthV> out) {
  rapt::OutView view = out;
  (void)view;
}
