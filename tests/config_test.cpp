// The config: its format, what loading does and does not do, and the formulas behind missing rows.
#include "config/config.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <clocale>
#include <cstdlib>
#include <locale>
#include <string>
#include <thread>
#include <vector>

#include "hwy/targets.h"
#include "kernels/kernels.hpp"
#include "rapt/config.hpp"
#include "rapt/error.hpp"

namespace rapt::config {
namespace {

const std::string kAttention =
    "RAPT_ROW(attention, AVX2, f32, d=64, tile=6x2, block_q=192, block_kv=256, short_rows=8, "
    "split_kv=512)\n";
const std::string kGemm =
    "RAPT_ROW(gemm, AVX2, f32, tile=6x2, block_m=336, block_n=1024, block_k=384, direct_rows=6, "
    "packed_kib=1024)\n";
// One of everything that a header may have.
const std::string kFile = "// why\n\n" + kAttention + "\t \n" + kGemm;

// "" when the text parses; otherwise what the error says.
std::string refusal(const std::string& text) {
  try {
    parse(text);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_config);
    return error.what();
  }
}

// The line that an error names, or 0.
std::int64_t line_of(const std::string& sentence) {
  const std::string before = "config line ";
  return sentence.starts_with(before) ? std::atoll(sentence.c_str() + before.size()) : 0;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at) + 1;
    lines.push_back(text.substr(at, end - at));
    at = end;
  }
  return lines;
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  const std::size_t at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  return text.replace(at, what.size(), with);
}

TEST(ConfigFormat, RoundTrips) {
  const Config config = parse(kFile);
  ASSERT_EQ(config.targets.size(), 1u);
  const TargetRows& rows = config.targets[0];
  EXPECT_EQ(rows.target, "AVX2");
  ASSERT_EQ(rows.attention.size(), 1u);
  EXPECT_EQ(rows.attention[0], (AttentionRow{64, {6, 2}, 192, 256, 8, 512}));
  EXPECT_EQ(rows.gemm, (GemmRow{{6, 2}, 336, 1024, 384, 6, 1024}));
  EXPECT_EQ(format(config), kAttention + kGemm);
  EXPECT_EQ(format(parse(format(config))), format(config));
}

TEST(ConfigFormat, TheHeadNamesCpus) {
  const std::string head = "// why\n// CPU: A 1, model 2\n//CPU: B\n// CPU: C \n// CPU:\n";
  const Config config = parse(head + kAttention + "// CPU: D\n");
  EXPECT_EQ(config.cpus, (std::vector<std::string>{"A 1, model 2", "C"}));
  EXPECT_FALSE(fits(config));
  EXPECT_EQ(format(config), "// CPU: A 1, model 2\n// CPU: C\n" + kAttention);
  EXPECT_TRUE(fits(parse(kAttention)));
  EXPECT_TRUE(fits(parse(head + "// CPU: " + cpu_name() + "\n" + kAttention)));
  // What others wrote does no harm in a terminal.
  const std::string phrase = misfit(parse("// CPU: \x80" + std::string(100000, 'a') + "\n"));
  EXPECT_LT(phrase.size(), 400u);
  EXPECT_EQ(phrase.find('\x80'), std::string::npos);
}

TEST(ConfigFormat, TheNameOfACpuIsOneLineAndOneFileName) {
  const std::string& name = cpu_name();
  EXPECT_FALSE(name.empty());
  EXPECT_TRUE(std::all_of(name.begin(), name.end(), [](char c) {
    return c >= ' ' && c <= '~' && c != '\\';
  })) << name;
  EXPECT_EQ(parse("// CPU: " + name + "\n").cpus, std::vector<std::string>{name});
  const std::string key = cpu_key();
  EXPECT_FALSE(key.empty());
  EXPECT_EQ(key.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-"), std::string::npos)
      << key;
}

TEST(ConfigFormat, CompilerAndLoaderReadTheSame) {
  const char included[] =
#define RAPT_ROW(...) "RAPT_ROW(" #__VA_ARGS__ ")\n"
#include "config_sample.hpp"
#undef RAPT_ROW
      "";
  EXPECT_EQ(format(parse(included)), kAttention + kGemm);
}

TEST(ConfigFormat, TakesRowsInAnyOrder) {
  const std::string d256 = replaced(kAttention, "d=64", "d=256");
  const std::string neon = replaced(kGemm, "AVX2", "NEON");
  EXPECT_EQ(format(parse(kGemm + neon + d256 + kAttention)), kAttention + d256 + kGemm + neon);
}

TEST(ConfigFormat, KnowsEveryTargetOfHighway) {
  for (int bit = 0; bit < 63; ++bit) {
    const std::string name = hwy::TargetName(std::int64_t{1} << bit);
    if (name == "Unknown") continue;
    EXPECT_EQ(refusal(replaced(kGemm, "AVX2", name)), "");
  }
}

TEST(ConfigFormat, NamesLineAndReason) {
  struct Case {
    std::string text;
    std::int64_t line;
    std::string reason;
  };
  const Case cases[] = {
      {"\n\nrow\n", 3, "expected RAPT_ROW(...), a // comment or nothing, found 'row'"},
      {"/ comment\n", 1, "found '/ comment'"},
      {"RAPT_ROW\n", 1, "expected '(' after RAPT_ROW, found the end of the line"},
      {replaced(kFile, "gemm", "gemv"), 5, "unknown operation 'gemv', expected attention or gemm"},
      {replaced(kFile, "attention", "Attention"), 3, "unknown operation 'Attention'"},
      {replaced(kFile, "AVX2", "AVX9"), 3, "unknown target 'AVX9'"},
      {replaced(kFile, "AVX2", "avx2"), 3, "unknown target 'avx2'"},
      {replaced(kFile, "f32", "f64"), 3, "unknown element 'f64', expected f32"},
      {replaced(kFile, "block_q", "block_m"), 3, "unknown field 'block_m'"},
      {replaced(kFile, "block_q", "block_kv"), 3, "field block_kv is given twice"},
      {replaced(kFile, ", block_q=192", ""), 3, "field block_q is missing"},
      {replaced(kFile, "d=64", "d=63"), 3, "d is 63, but must be one of 32, 64, 80, 96, 128, 256"},
      {replaced(kFile, "d=64", "d=512"), 3,
       "d is '512', but must be a whole number from 32 to 256"},
      {replaced(kFile, "=192", "=0"), 3,
       "block_q is '0', but must be a whole number from 1 to 8192"},
      {replaced(kFile, "=192", "=8193"), 3, "block_q is '8193'"},
      {replaced(kFile, "=192", "="), 3, "block_q is ''"},
      {replaced(kFile, "=192", " 192"), 3, "expected '=' after block_q, found '192"},
      {replaced(kFile, "6x2", "6"), 3, "tile is '6', but must be rows x vectors, e.g. 6x2"},
      {replaced(kFile, "6x2", "33x2"), 3, "rows of tile is '33'"},
      {replaced(kFile, "6x2", "6x17"), 3, "vectors of tile is '17'"},
      {replaced(kFile, "6x2", "6x2x2"), 3, "vectors of tile is '2x2'"},
      {replaced(kFile, ")", ""), 3, "expected ')' or a comma after a field, found the end"},
      {replaced(kFile, ")", ");"), 3, "unexpected ';' after the row"},
      {replaced(kFile, ")", ") // fast"), 3, "unexpected '// fast' after the row"},
      {kFile + kGemm, 6, "a second row for gemm, AVX2, f32"},
      {kFile + kAttention, 6, "a second row for attention, AVX2, f32, d=64"},
      {replaced(kFile, "why\n", "why\r\n"), 1, "a carriage return"},
      {replaced(kFile, "why", std::string("w\0y", 3)), 1, "a control character, byte 0"},
      {replaced(kFile, "why", "why \\ "), 1, "a comment that ends in a backslash"},
      {"\xef\xbb\xbf" + kFile, 1, "found '??\?// why'"},
      {std::string(kMaxTextBytes + 1, '\n'), 1, "1048577 bytes, but at most 1048576"},
  };
  for (const Case& c : cases) {
    const std::string sentence = refusal(c.text);
    EXPECT_EQ(line_of(sentence), c.line) << sentence;
    EXPECT_NE(sentence.find(c.reason), std::string::npos) << sentence << "\n  wanted: " << c.reason;
  }
  EXPECT_EQ(refusal(std::string(kMaxTextBytes, '\n')), "");
}

// Errors go to logs and terminals: no byte of the text may do harm there, or fill a screen.
TEST(ConfigFormat, QuotesHarmlessly) {
  const std::string sentence = refusal("\x80\xff" + std::string(100000, 'a') + "\n");
  EXPECT_LT(sentence.size(), 200u);
  EXPECT_TRUE(
      std::all_of(sentence.begin(), sentence.end(), [](char c) { return c >= ' ' && c <= '~'; }));
}

TEST(ConfigFormat, RefusesHostileNumbers) {
  const char* const hostile[] = {"-1",
                                 "+1",
                                 "-0",
                                 "00",
                                 "01",
                                 "1.0",
                                 "1e3",
                                 "0x10",
                                 "1'000",
                                 "1,000",
                                 "1 000",
                                 "nan",
                                 "inf",
                                 "2147483648",
                                 "4294967296",
                                 "4294967297",
                                 "9223372036854775807",
                                 "9223372036854775808",
                                 "18446744073709551615",
                                 "18446744073709551617",
                                 "99999999999999999999999999",
                                 "1u",
                                 "1L",
                                 "\xd9\xa1",
                                 "1_000",
                                 "(1)",
                                 "1)",
                                 "=1",
                                 "\"1\"",
                                 "1//",
                                 "8193",
                                 "999999999",
                                 "1000000000"};
  for (const char* value : hostile) {
    for (const char* field :
         {"block_q=192", "block_kv=256", "short_rows=8", "split_kv=512", "d=64", "tile=6x2"}) {
      const std::string name = std::string(field).substr(0, std::string(field).find('=') + 1);
      EXPECT_NE(refusal(replaced(kFile, field, name + value)), "") << name << value;
    }
    EXPECT_NE(refusal(replaced(kFile, "6x2", std::string("6x") + value)), "") << value;
    EXPECT_NE(refusal(replaced(kFile, "6x2", std::string(value) + "x2")), "") << value;
  }
}

TEST(ConfigFormat, IgnoresTheLocale) {
  // Whatever this machine has; a facet that groups digits needs no locale of the system.
  struct Grouping : std::numpunct<char> {
    char do_thousands_sep() const override { return '.'; }
    std::string do_grouping() const override { return "\1"; }
  };
  const std::locale before = std::locale::global(std::locale(std::locale(), new Grouping));
  for (const char* name : {"tr_TR.UTF-8", "de_DE.UTF-8", "C.UTF-8"}) std::setlocale(LC_ALL, name);
  EXPECT_EQ(format(parse(kFile)), kAttention + kGemm);
  EXPECT_EQ(line_of(refusal(std::string(1999, '\n') + "x")), 2000);
  std::setlocale(LC_ALL, "C");
  std::locale::global(before);
}

// Loads a damaged text. Either it is loaded, or the error names one of the lines where the damage
// can be and nothing has changed.
class ConfigDamage : public testing::Test {
 protected:
  void SetUp() override {
    load_config(kFile);
    intact_ = config_text();
  }
  void TearDown() override { load_config(""); }

  void load(const std::string& text, std::int64_t first_line, std::int64_t last_line) {
    try {
      load_config(text);
    } catch (const Error& error) {
      ++refused_;
      ASSERT_EQ(error.code(), ErrorCode::bad_config);
      const std::int64_t line = line_of(error.what());
      ASSERT_TRUE(line >= first_line && line <= last_line) << error.what() << "\n" << text;
      ASSERT_EQ(config_text(), intact_) << text;
      return;
    }
    ++loaded_;
    const std::string now = config_text();
    load_config(now);
    ASSERT_EQ(config_text(), now) << text;
    load_config(kFile);
  }

  std::string intact_;
  int loaded_ = 0, refused_ = 0;
};

TEST_F(ConfigDamage, EveryByteReplacedByEveryOther) {  // B18, R10
  std::int64_t line = 1;
  for (std::size_t at = 0; at < kFile.size(); ++at) {
    std::string text = kFile;
    for (int byte = 0; byte < 256; ++byte) {
      text[at] = static_cast<char>(byte);
      ASSERT_NO_FATAL_FAILURE(load(text, line, line + 1)) << "byte " << byte << " at " << at;
    }
    line += kFile[at] == '\n';
  }
  EXPECT_GT(loaded_, 256);  // comments, digits
  EXPECT_GT(refused_, 2 * loaded_);
}

TEST_F(ConfigDamage, EveryTruncation) {  // B18, R10
  for (std::size_t size = 0; size < kFile.size(); ++size) {
    const std::string text = kFile.substr(0, size);
    const std::int64_t last = 1 + std::count(text.begin(), text.end(), '\n');
    ASSERT_NO_FATAL_FAILURE(load(text, last, last)) << size;
  }
  EXPECT_GT(refused_, 100);
}

TEST_F(ConfigDamage, EveryLineDeletedDoubledSwapped) {  // B18, R10
  const std::vector<std::string> lines = lines_of(kFile);
  const auto joined = [](const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts) text += part;
    return text;
  };
  for (std::size_t i = 0; i < lines.size(); ++i) {
    std::vector<std::string> fewer = lines, more = lines;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    load(joined(fewer), 0, 0);
    more.insert(more.begin() + static_cast<std::ptrdiff_t>(i), lines[i]);
    load(joined(more), static_cast<std::int64_t>(i) + 2, static_cast<std::int64_t>(i) + 2);
    for (std::size_t j = 0; j < i; ++j) {
      std::vector<std::string> swapped = lines;
      std::swap(swapped[i], swapped[j]);
      load(joined(swapped), 0, 0);
    }
  }
  EXPECT_EQ(refused_, 2);  // the two rows, doubled
}

TEST(ConfigLoad, TakesEffectAndGoesBack) {
  const Registers registers{8, 16};
  const char* const target = "AVX2";
  load_config("");
  const std::string compiled_in = config_text();
  load_config(kFile);
  EXPECT_EQ(current_attention_row(target, registers, 64),
            (AttentionRow{64, {6, 2}, 192, 256, 8, 512}));
  EXPECT_EQ(current_gemm_row(target, registers), (GemmRow{{6, 2}, 336, 1024, 384, 6, 1024}));
  load_config("// nothing\n");
  EXPECT_EQ(current_attention_row(target, registers, 64),
            default_attention_row(machine_caches(), registers, 64));
  EXPECT_EQ(current_gemm_row(target, registers), default_gemm_row(machine_caches(), registers));
  EXPECT_EQ(current_gemm_row("AVX3", {16, 32}), default_gemm_row(machine_caches(), {16, 32}));
  load_config("");
  EXPECT_EQ(config_text(), compiled_in);
}

// Each row is used, stale (no kernel has its tile) or of a target that does not run here.
TEST(ConfigLoad, ReportsWhatBecomesOfTheRows) {
  const std::string best = targets().front();
  const std::string used = replaced(replaced(kGemm, "AVX2", best), "6x2", "31x16");
  const std::string elsewhere = replaced(kAttention, "AVX2", best == "LASX" ? "LSX" : "LASX");
  const ConfigReport report = load_config(used + elsewhere);
  EXPECT_EQ(report.source, "load_config");
  EXPECT_EQ(report.read, 2);
  EXPECT_EQ(report.used, 1);
  EXPECT_EQ(report.ignored, 1);
  EXPECT_EQ(
      report.reason, used.substr(0, used.size() - 1) +
                         ": no kernel of this build has the tile 31x16: its blocks are used "
                         "with " +
                         [] {
                           const auto& tile = kernels::all().list[0]->tiles[0];
                           return std::to_string(tile.rows) + "x" + std::to_string(tile.vectors);
                         }());
  EXPECT_EQ(config_report().text(), report.text());
  EXPECT_NE(load_config(elsewhere).reason.find("is not in this build, or not run by this CPU"),
            std::string::npos);

  const ConfigReport other = load_config("// CPU: Z1\n" + used);
  EXPECT_EQ(other.used, 0);
  EXPECT_EQ(other.ignored, 1);
  EXPECT_NE(other.reason.find(": is for 'Z1', and this CPU is '"), std::string::npos);
  EXPECT_EQ(gemm_row(*current(), best, {8, 16}), default_gemm_row(machine_caches(), {8, 16}));
  EXPECT_EQ(load_config(config_text()).ignored, 1);

  EXPECT_EQ(load_config("").source, "compiled in");
}

TEST(ConfigLoad, ConfigTextIsNeverEmpty) {
  load_config("// no row, which is not the same as the compiled-in config\n");
  EXPECT_FALSE(config_text().empty());
  load_config(config_text());
  EXPECT_TRUE(current()->targets.empty());
  load_config("");
}

TEST(ConfigLoad, SnapshotOutlivesTheNextLoad) {
  load_config(kFile);
  const std::shared_ptr<const Config> held = current();
  load_config("");
  load_config("//\n");
  EXPECT_EQ(format(*held), kAttention + kGemm);
  load_config("");
}

// Readers see one config or the other, whole, and never an older one than they saw loaded.
TEST(ConfigLoad, ThreadsReadWhileOthersLoad) {
  constexpr int kReaders = 4, kLoads = 2000;
  const std::string other = replaced(kAttention, "192", "64") + replaced(kGemm, "336", "120");
  const std::string a = format(parse(kFile)), b = format(parse(other));
  load_config(kFile);
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kReaders; ++i) {
    threads.emplace_back([&] {
      while (!stop.load()) {
        const std::string seen = format(*current());
        if (seen != a && seen != b) ++wrong;
      }
    });
  }
  for (int i = 0; i < kLoads; ++i) {
    load_config(i % 2 == 0 ? other : kFile);
    if (format(*current()) != (i % 2 == 0 ? b : a)) ++wrong;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  load_config("");
}

TEST(ConfigRows, AProblemTakesTheSmallestClassThatHoldsIt) {
  const Registers registers{8, 16};
  const Config config = parse(kFile);
  for (std::int64_t d : {33, 63, 64}) {
    EXPECT_EQ(attention_row(config, "AVX2", registers, d).block_q, 192) << d;
  }
  for (std::int64_t d : {1, 32, 65, 512}) {
    EXPECT_GE(attention_row(config, "AVX2", registers, d).head_size, d);
    EXPECT_NE(attention_row(config, "AVX2", registers, d).head_size, 64) << d;
  }
  EXPECT_EQ(attention_row(config, "SSE4", {4, 16}, 64),
            default_attention_row(machine_caches(), {4, 16}, 64));
  EXPECT_EQ(gemm_row(config, "SSE4", {4, 16}), default_gemm_row(machine_caches(), {4, 16}));
}

// Whatever the machine, the formulas give rows that the format takes, and blocks that fill register
// tiles.
TEST(ConfigFormulas, GiveLegalRowsOnEveryMachine) {
  const Caches machines[] = {machine_caches(),
                             {4 << 10, 4 << 10, 4 << 10},         // absurdly small
                             {32 << 10, 256 << 10, 8 << 20},      // a desktop of 2015
                             {48 << 10, 2 << 20, 105 << 20},      // a server of 2023
                             {128 << 10, 16 << 20, 16 << 20},     // a large Arm core
                             {4LL << 30, 4LL << 30, 4LL << 30}};  // absurdly large
  for (const Caches& caches : machines) {
    for (const int count : {16, 32}) {
      for (const int lanes : {1, 2, 4, 8, 16, 32, 64}) {
        TargetRows rows{"RVV", {}, default_gemm_row(caches, {lanes, count})};
        for (const std::int64_t d : kHeadSizes) {
          rows.attention.push_back(default_attention_row(caches, {lanes, count}, d));
          const AttentionRow& row = rows.attention.back();
          EXPECT_EQ(row.head_size, d);
          EXPECT_EQ(row.block_q % (row.tile.vectors * lanes), 0);
        }
        EXPECT_EQ(rows.gemm->block_m % rows.gemm->tile.rows, 0);
        EXPECT_EQ(rows.gemm->block_n % (rows.gemm->tile.vectors * lanes), 0);
        const Config config{{rows}};
        EXPECT_EQ(format(parse(format(config))), format(config));
      }
    }
  }
}

TEST(ConfigFormulas, CachesOfThisMachineAreSane) {
  const Caches& caches = machine_caches();
  EXPECT_GE(caches.l1, 4 << 10);
  EXPECT_GE(caches.l2, caches.l1);
  EXPECT_GE(caches.l3, caches.l2);
  EXPECT_EQ(&caches, &machine_caches());
}

}  // namespace
}  // namespace rapt::config
