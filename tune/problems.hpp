// The problems that candidates are timed on, in one place.
//
// Those of the search are small, so that many candidates take many turns: a head or two where the
// benchmark has sixteen, because heads are tasks of their own and block sizes do not know how many
// there are. The final judgement is on others: those that bench/shapes.txt tags `tune`, and a few
// more for head sizes that it does not have.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/shapes.hpp"

namespace rapt::tune {

using bench::Shape;

std::vector<Shape> attention_search(std::int64_t head_size);
std::vector<Shape> attention_held_out(std::int64_t head_size,
                                      const std::vector<Shape>& bench_shapes);

std::vector<Shape> gemm_search();
std::vector<Shape> gemm_held_out(const std::vector<Shape>& bench_shapes);

// Of the problems that a program computed (RAPT_TRACE), those of a row of the config: attention
// with this head size, or gemm where it is 0. Problems that differ in their lengths by less than a
// factor of two are one, called as often as makes up for the others; the most costly come first.
std::vector<Shape> of_program(const std::vector<Shape>& traced, std::int64_t head_size);

// What a gain on a shape is worth that takes so many seconds: the time that the program spends on
// it, or 1 where that is not known.
double time_weight(const Shape& shape, double seconds);

// Where few rows become many: the numbers of rows that are tried, and the shapes with so many.
const std::vector<std::size_t>& few_rows();
std::vector<Shape> attention_with_rows(std::size_t rows, std::int64_t head_size);
std::vector<Shape> gemm_with_rows(std::size_t rows);

}  // namespace rapt::tune
