// The matrix product as a triple loop.
#include <cmath>

#include "reference/reference.hpp"

namespace rapt::reference {

Array<Row, Column> gemm(View<const float, Row, Inner> a, View<const float, Inner, Column> b,
                        View<const float, Row, Column> c, const GemmOptions& options) {
  Array<Row, Column> result(along<Row>(c), along<Column>(c));
  for (At<Row> i : along<Row>(c)) {
    for (At<Column> j : along<Column>(c)) {
      double sum = 0;  // over k
      for (At<Inner> p : along<Inner>(a)) sum += double{at(a, i, p)} * at(b, p, j);
      double x = options.alpha * sum;
      if (options.beta != 0) x += double{options.beta} * at(c, i, j);  // beta = 0: c is not read
      if (options.bias) x += at(options.bias, j);
      if (options.activation == Activation::relu) x = x < 0 ? 0 : x;  // NaN stays
      if (options.activation == Activation::gelu) x *= 0.5 * std::erfc(-x / std::sqrt(2.0));
      at(result, i, j) = x;
    }
  }
  return result;
}

}  // namespace rapt::reference
