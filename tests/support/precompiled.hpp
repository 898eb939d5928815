// What most tests include, parsed once for all of them (Meson's cpp_pch). A test still includes
// what it uses.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "rapt/rapt.hpp"
#include "support/attention_case.hpp"
#include "support/backward_case.hpp"
#include "support/bounds.hpp"
#include "support/executors.hpp"
#include "support/gemm_case.hpp"
#include "support/ways.hpp"
