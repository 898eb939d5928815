// An attention case as one line of text, and back.
#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "support/attention_case.hpp"

namespace rapt::tests {
namespace {

// The names of an enum's values, in order.
std::vector<const char*> names(Pairs) {
  return {"none",          "random", "empty_rows", "first_keys_out", "middle_keys_out",
          "last_keys_out", "all_out"};
}
std::vector<const char*> names(Cache) { return {"full", "lengths", "packed", "paged"}; }
std::vector<const char*> names(Type) { return {"f32", "bf16", "f16", "int8", "int4"}; }
std::vector<const char*> names(RoundWeights) { return {"where_native", "never", "always"}; }
std::vector<const char*> names(Data) {
  return {"normal",       "large_queries", "value_mean_1", "rising",  "falling",
          "one_dominant", "equal",         "far_below",    "integers"};
}

template <class T>
void write(std::ostream& text, const T& value) {
  if constexpr (std::is_enum_v<T>) {
    text << names(value)[static_cast<std::size_t>(value)];
  } else {
    text << value;
  }
}
template <class T>
void write(std::ostream& text, const std::optional<T>& value) {
  if (value) text << *value;
}
void write(std::ostream& text, const std::vector<std::int64_t>& sizes) {
  for (std::size_t i = 0; i < sizes.size(); ++i) text << (i > 0 ? "x" : "") << sizes[i];
}

// Whether the whole text was a value.
template <class T>
bool read(const std::string& text, T& value) {
  if constexpr (std::is_enum_v<T>) {
    const auto all = names(value);
    const auto at = std::find(all.begin(), all.end(), text);
    value = static_cast<T>(at - all.begin());
    return at != all.end();
  } else {
    std::istringstream in(text);
    return in >> value && in.eof();
  }
}
template <class T>
bool read(const std::string& text, std::optional<T>& value) {
  return read(text, value.emplace());
}
bool read(const std::string& text, std::vector<std::int64_t>& sizes) {
  sizes.clear();
  for (std::size_t begin = 0, end = 0; end < text.size(); begin = end + 1) {
    end = std::min(text.find('x', begin), text.size());
    if (!read(text.substr(begin, end - begin), sizes.emplace_back())) return false;
  }
  return true;
}

}  // namespace

std::string AttentionCase::describe() const {
  std::ostringstream text;
  text.precision(9);  // floats come back as they were
  const AttentionCase plain;
  for_each_field(
      [&](const char* name, const auto& value, const auto& usual) {
        if (value == usual) return;
        text << (text.tellp() > 0 ? " " : "") << name << "=";
        write(text, value);
      },
      *this, plain);
  return text.str();
}

AttentionCase AttentionCase::parse(const std::string& text) {
  AttentionCase c;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    bool read_it = false;
    for_each_field(
        [&](const std::string& name, auto& value) {
          if (word.starts_with(name + "=")) read_it = read(word.substr(name.size() + 1), value);
        },
        c);
    if (!read_it) throw std::invalid_argument("no field of an attention case: " + word);
  }
  return c;
}

bool AttentionCase::valid() const {
  const bool sequences = packed_q || cache == Cache::packed || cache == Cache::paged;
  for (std::int64_t size : {heads, kv_heads, seq_q, seq_kv, d_k, d_v, page_size}) {
    if (size < 1) return false;
  }
  return heads % kv_heads == 0 && !(q_offset && q_offsets) && (!sequences || batch.size() == 1) &&
         (k_type != Type::int4 || d_k % Int4Group::kSize == 0) &&
         (v_type != Type::int4 || d_v % Int4Group::kSize == 0);
}

}  // namespace rapt::tests
