// rapt: attention for CPUs. This one include is the whole public C++ API.
#pragma once

#include "rapt/attention.hpp"
#include "rapt/backward.hpp"
#include "rapt/cache.hpp"
#include "rapt/config.hpp"
#include "rapt/error.hpp"
#include "rapt/executor.hpp"
#include "rapt/gemm.hpp"
#include "rapt/layer.hpp"
#include "rapt/memory.hpp"
#include "rapt/merge.hpp"
#include "rapt/plan.hpp"
#include "rapt/quantize.hpp"
#include "rapt/rope.hpp"
#include "rapt/rows.hpp"
#include "rapt/types.hpp"
#include "rapt/view.hpp"
