// Loads the library, computes with it, and unloads it, a thousand times (B40).
//
//     load_test librapt.so
#include <dlfcn.h>

#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "rapt/rapt.h"

namespace {

constexpr std::int64_t kHeads = 4, kSeq = 96, kDepth = 32;

template <class Function>
Function* find(void* library, const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// Whether all went well.
bool once(const char* path, std::vector<float>& out) {
  void* const library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::printf("%s\n", dlerror()), false;
  const auto dense = find(library, "rapt_dense", &rapt_dense);
  const auto attention = find(library, "rapt_attention", &rapt_attention);
  std::vector<float> values(static_cast<std::size_t>(kHeads * kSeq * kDepth));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(i * 37 % 101) / 64 - 1;
  out.resize(values.size());
  const std::int64_t shape[] = {kHeads, kSeq, kDepth};
  const rapt_array q = dense(values.data(), RAPT_F32, 3, shape),
                   to = dense(out.data(), RAPT_F32, 3, shape);
  const rapt_status status = attention(&q, &q, &q, &to, nullptr);
  if (status != RAPT_OK) std::printf("status %d\n", static_cast<int>(status));
  return dlclose(library) == 0 && status == RAPT_OK;
}

}  // namespace

int main(int, char** arguments) {
  const char* const path = arguments[1];
  std::vector<float> expected;
  for (int i = 0; i < 1000; ++i) {
    std::vector<float> out;
    bool right = false;
    // Half of them on a thread that is gone afterwards.
    if (i % 2 == 0) {
      std::thread([&] { right = once(path, out); }).join();
    } else {
      right = once(path, out);
    }
    if (i == 0) expected = out;
    if (!right || std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)) != 0)
      return std::printf("round %d went wrong\n", i), 1;
  }
  return 0;
}
