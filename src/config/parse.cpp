// The text of a config header <-> Config. One table for each operation drives both directions.
//
//     RAPT_ROW(attention, AVX2, f32, d=64, tile=6x2, block_q=192, block_kv=256, short_rows=8,
//              split_kv=512)
//
// The compiler reads the same text when the header is built in, so what it would read differently
// is refused here: a comment that ends in a backslash swallows the next line, a carriage return is
// not an end of line to everyone. Digits and letters are compared as bytes: the locale has no say.
#include <algorithm>
#include <iterator>
#include <utility>

#include "config/config.hpp"
#include "rapt/error.hpp"

namespace rapt::config {
namespace {

// Highway's names (hwy/targets.h, TargetName), all of them and not only this machine's, so that one
// header can serve several machines.
constexpr std::string_view kTargets[] = {
    // clang-format off
    "EMU128", "SCALAR",
    "SSE2", "SSSE3", "SSE4", "AVX2", "AVX3", "AVX3_DL", "AVX3_ZEN4", "AVX3_SPR", "AVX10_2",  // x86
    "SVE2_128", "SVE_256", "SVE2", "SVE", "NEON_BF16", "NEON", "NEON_WITHOUT_AES",           // Arm
    "PPC8", "PPC9", "PPC10", "Z14", "Z15",                                                   // IBM
    "WASM", "WASM_EMU256", "RVV", "LSX", "LASX",
    // clang-format on
};

// One field of a row, name=value. A null `number` is the register tile, written rows x vectors.
template <class Row>
struct Field {
  std::string_view name;
  std::int64_t least, most;
  std::int64_t Row::* number;
};

// A block this long fills the last cache of any machine we know, and keeps a worker's workspace far
// from what an allocator refuses.
constexpr std::int64_t kMaxBlock = 8192;
// Registers number 32 at most; vectors may be groups of them (RVV), hence the room.
constexpr std::int64_t kMaxTileRows = 32, kMaxTileVectors = 16;

constexpr Field<AttentionRow> kAttentionFields[] = {
    {"d", kHeadSizes.front(), kHeadSizes.back(), &AttentionRow::head_size},
    {"tile", 0, 0, nullptr},
    {"block_q", 1, kMaxBlock, &AttentionRow::block_q},
    {"block_kv", 1, kMaxBlock, &AttentionRow::block_kv},
    {"short_rows", 0, kMaxBlock, &AttentionRow::short_rows},
    {"split_kv", 1, kMaxBlock, &AttentionRow::split_kv},
};

constexpr Field<GemmRow> kGemmFields[] = {
    {"tile", 0, 0, nullptr},
    {"block_m", 1, kMaxBlock, &GemmRow::block_m},
    {"block_n", 1, kMaxBlock, &GemmRow::block_n},
    {"block_k", 1, kMaxBlock, &GemmRow::block_k},
    {"direct_rows", 0, kMaxBlock, &GemmRow::direct_rows},
    {"packed_kib", 0, kMostPackedKib, &GemmRow::packed_kib},
};

// A piece of the text as an error message shows it: short, and harmless to a terminal.
std::string quoted(std::string_view piece, std::size_t most = 40) {
  std::string shown = "'";
  for (char c : piece.substr(0, most)) shown += c >= ' ' && c <= '~' ? c : '?';
  return shown + (piece.size() > most ? "...'" : "'");
}

[[noreturn]] void fail(std::int64_t line, const std::string& reason) {
  throw Error(ErrorCode::bad_config, "config line " + std::to_string(line) + ": " + reason);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) {
  return is_digit(c) || c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

// The text of one line, eaten from the left.
struct Cursor {
  std::string_view rest;
  std::int64_t line;

  void skip_blanks() {
    while (!rest.empty() && (rest[0] == ' ' || rest[0] == '\t')) rest.remove_prefix(1);
  }

  bool take(char c) {
    skip_blanks();
    if (rest.empty() || rest[0] != c) return false;
    rest.remove_prefix(1);
    return true;
  }

  void expect(char c, const char* where) {
    if (!take(c)) fail(line, std::string("expected '") + c + "' " + where + ", found " + found());
  }

  std::string found() const { return rest.empty() ? "the end of the line" : quoted(rest); }

  std::string_view word() {
    skip_blanks();
    const auto end = std::find_if_not(rest.begin(), rest.end(), is_word);
    const std::string_view word = rest.substr(0, static_cast<std::size_t>(end - rest.begin()));
    rest.remove_prefix(word.size());
    return word;
  }
};

// Decimal digits without sign or leading zeros; a range is checked by the caller's least and most.
std::int64_t number(std::string_view digits, std::int64_t least, std::int64_t most,
                    std::string_view name, std::int64_t line) {
  // 9 digits fit, so no step below overflows.
  const bool plain = !digits.empty() && digits.size() <= 9 &&
                     std::all_of(digits.begin(), digits.end(), is_digit) &&
                     (digits[0] != '0' || digits.size() == 1);
  std::int64_t value = 0;
  if (plain) {
    for (char c : digits) value = value * 10 + (c - '0');
  }
  if (!plain || value < least || value > most) {
    fail(line, std::string(name) + " is " + quoted(digits) + ", but must be a whole number from " +
                   std::to_string(least) + " to " + std::to_string(most));
  }
  return value;
}

Tile tile(std::string_view text, std::int64_t line) {
  const std::size_t x = text.find('x');
  if (x == std::string_view::npos) {
    fail(line, "tile is " + quoted(text) + ", but must be rows x vectors, e.g. 6x2");
  }
  return {
      static_cast<int>(number(text.substr(0, x), 1, kMaxTileRows, "rows of tile", line)),
      static_cast<int>(number(text.substr(x + 1), 1, kMaxTileVectors, "vectors of tile", line))};
}

// ", name=value" for every field of the table, each once, in any order, up to the closing ')'.
template <class Row, std::size_t kFields>
Row fields(Cursor& cursor, const Field<Row> (&table)[kFields]) {
  Row row;
  bool given[kFields] = {};
  while (cursor.take(',')) {
    const std::string_view name = cursor.word();
    const auto field = std::find_if(std::begin(table), std::end(table),
                                    [name](const Field<Row>& f) { return f.name == name; });
    if (field == std::end(table)) fail(cursor.line, "unknown field " + quoted(name));
    bool& seen = given[field - std::begin(table)];
    if (seen) fail(cursor.line, "field " + std::string(name) + " is given twice");
    seen = true;
    cursor.expect('=', ("after " + std::string(name)).c_str());
    const std::string_view value = cursor.word();
    if (field->number == nullptr) {
      row.tile = tile(value, cursor.line);
    } else {
      row.*(field->number) = number(value, field->least, field->most, name, cursor.line);
    }
  }
  cursor.expect(')', "or a comma after a field");
  for (std::size_t i = 0; i < kFields; ++i) {
    if (!given[i]) fail(cursor.line, "field " + std::string(table[i].name) + " is missing");
  }
  return row;
}

// The rows of a target, made when it is met first.
TargetRows& rows_of(Config& config, std::string_view target) {
  for (TargetRows& rows : config.targets) {
    if (rows.target == target) return rows;
  }
  config.targets.push_back({std::string(target), {}, std::nullopt});
  return config.targets.back();
}

void add(TargetRows& rows, const AttentionRow& row, std::int64_t line) {
  if (std::find(kHeadSizes.begin(), kHeadSizes.end(), row.head_size) == kHeadSizes.end()) {
    std::string classes;
    for (std::int64_t d : kHeadSizes) classes += (classes.empty() ? "" : ", ") + std::to_string(d);
    fail(line, "d is " + std::to_string(row.head_size) + ", but must be one of " + classes);
  }
  const auto at = std::lower_bound(
      rows.attention.begin(), rows.attention.end(), row.head_size,
      [](const AttentionRow& r, std::int64_t head_size) { return r.head_size < head_size; });
  if (at != rows.attention.end() && at->head_size == row.head_size) {
    fail(line, "a second row for attention, " + rows.target +
                   ", f32, d=" + std::to_string(row.head_size));
  }
  rows.attention.insert(at, row);
}

void add(TargetRows& rows, const GemmRow& row, std::int64_t line) {
  if (rows.gemm) fail(line, "a second row for gemm, " + rows.target + ", f32");
  rows.gemm = row;
}

void parse_row(Cursor cursor, Config& config) {
  if (const std::string_view macro = cursor.word(); macro != "RAPT_ROW") {
    fail(cursor.line, "expected RAPT_ROW(...), a // comment or nothing, found " +
                          (macro.empty() ? cursor.found() : quoted(macro)));
  }
  cursor.expect('(', "after RAPT_ROW");
  const std::string_view operation = cursor.word();
  if (operation != "attention" && operation != "gemm") {
    fail(cursor.line, "unknown operation " + quoted(operation) + ", expected attention or gemm");
  }
  cursor.expect(',', "after the operation");
  const std::string_view target = cursor.word();
  if (std::find(std::begin(kTargets), std::end(kTargets), target) == std::end(kTargets)) {
    fail(cursor.line,
         "unknown target " + quoted(target) + ", expected a name of Highway's, e.g. AVX2");
  }
  cursor.expect(',', "after the target");
  const std::string_view element = cursor.word();
  if (element != "f32") fail(cursor.line, "unknown element " + quoted(element) + ", expected f32");

  TargetRows& rows = rows_of(config, target);
  if (operation == "attention") {
    add(rows, fields(cursor, kAttentionFields), cursor.line);
  } else {
    add(rows, fields(cursor, kGemmFields), cursor.line);
  }
  cursor.skip_blanks();
  if (!cursor.rest.empty())
    fail(cursor.line, "unexpected " + quoted(cursor.rest) + " after the row");
}

// A comment above the first row that says which CPU the rows are for; there may be several.
constexpr std::string_view kCpuLine = "// CPU: ";

void parse_line(std::string_view text, std::int64_t line, Config& config) {
  for (char c : text) {
    if (c == '\r') fail(line, "a carriage return; lines end in a line feed alone");
    const auto byte = static_cast<unsigned char>(c);
    if ((byte < ' ' && c != '\t') || byte == 0x7f) {
      fail(line, "a control character, byte " + std::to_string(byte));
    }
  }
  Cursor cursor{text, line};
  cursor.skip_blanks();
  if (cursor.rest.empty()) return;
  if (cursor.rest.starts_with("//")) {
    cursor.rest = cursor.rest.substr(0, cursor.rest.find_last_not_of(" \t") + 1);
    if (cursor.rest.back() == '\\') fail(line, "a comment that ends in a backslash");
    if (config.targets.empty() && cursor.rest.starts_with(kCpuLine))
      config.cpus.emplace_back(cursor.rest.substr(kCpuLine.size()));
    return;
  }
  parse_row(cursor, config);
}

template <class Row, std::size_t kFields>
void append(std::string& text, std::string_view operation, std::string_view target, const Row& row,
            const Field<Row> (&table)[kFields]) {
  text.append("RAPT_ROW(").append(operation).append(", ").append(target).append(", f32");
  for (const Field<Row>& field : table) {
    text.append(", ").append(field.name).append("=");
    text += field.number == nullptr
                ? std::to_string(row.tile.rows) + "x" + std::to_string(row.tile.vectors)
                : std::to_string(row.*(field.number));
  }
  text += ")\n";
}

}  // namespace

Config parse(std::string_view text) {
  if (text.size() > kMaxTextBytes) {
    throw Error(ErrorCode::bad_config, "config line 1: the text has " +
                                           std::to_string(text.size()) + " bytes, but at most " +
                                           std::to_string(kMaxTextBytes) + " are read");
  }
  Config config;
  std::int64_t line = 1;
  while (true) {
    const std::size_t end = text.find('\n');
    parse_line(text.substr(0, end), line, config);
    if (end == std::string_view::npos) return config;
    text.remove_prefix(end + 1);
    ++line;
  }
}

std::string misfit(const Config& config) {
  return "is for " + quoted(config.cpus.front(), 100) +
         (config.cpus.size() > 1 ? " and others" : "") + ", and this CPU is '" + cpu_name() + "'";
}

std::string format(const Config& config) {
  std::string text;
  for (const std::string& cpu : config.cpus) text.append(kCpuLine).append(cpu).append("\n");
  for (const TargetRows& rows : config.targets) {
    for (const AttentionRow& row : rows.attention) {
      append(text, "attention", rows.target, row, kAttentionFields);
    }
    if (rows.gemm) append(text, "gemm", rows.target, *rows.gemm, kGemmFields);
  }
  return text;
}

}  // namespace rapt::config
