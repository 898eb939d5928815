// What most files include of the standard library, parsed once for all of them (Meson's cpp_pch). A
// file still includes what it uses: the test embed_subproject compiles without this. Nothing of
// rapt, or a change there would compile the kernels again.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
