#include "puzzle/data/token_split.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include "puzzle/base/error.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/strings.h"
#include "puzzle/data/random_order.h"
#include "puzzle/text/corpus.h"

namespace puzzle {
namespace {

constexpr std::size_t kNumParts = 5;
// In the order in which they take their windows.
constexpr std::array<const char*, kNumParts> kPartNames = {"test", "validation", "scoring",
                                                           "calibration", "train"};
constexpr std::size_t kTrainPart = 4;

// The windows of one source that are not in a part yet, in the order in which they will be.
struct WindowRow {
  std::string name;
  double weight = 1.0;
  std::vector<std::int64_t> starts;
  std::size_t next = 0;

  [[nodiscard]] std::int64_t remaining() const {
    return std::ssize(starts) - static_cast<std::int64_t>(next);
  }
};

std::vector<std::int64_t> shuffled_starts(std::int64_t first_token, std::int64_t num_tokens,
                                          std::uint64_t seed, const DataOptions& options) {
  const std::int64_t num_windows = num_tokens / options.window;
  const std::int64_t group = options.group_windows;
  std::vector<std::int64_t> starts;
  starts.reserve(static_cast<std::size_t>(num_windows));
  for (const std::int64_t g : random_order((num_windows + group - 1) / group, seed)) {
    for (std::int64_t w = g * group; w < std::min((g + 1) * group, num_windows); ++w) {
      starts.push_back(first_token + w * options.window);
    }
  }
  return starts;
}

std::vector<WindowRow> make_window_rows(const TokenFile& file, const DataOptions& options) {
  const auto run_seed = static_cast<std::uint64_t>(options.seed);
  std::vector<WindowRow> rows;
  for (const std::string& source : options.sources) {
    if (options.mixture != "weights" && parse_corpus_source(source).weight != 1.0) {
      fail(ErrorKind::kUsage,
           "data.sources: {} has a weight, but data.mixture is {}; set it to weights", source,
           options.mixture);
    }
  }
  if (options.mixture == "stream") {
    const std::uint64_t seed = derive_seed(run_seed, "data/split/stream");
    rows.push_back({join(options.sources, ", "), 1.0,
                    shuffled_starts(0, std::ssize(file.tokens()), seed, options), 0});
    return rows;
  }
  PUZZLE_CHECK(file.sources().size() == options.sources.size(),
               "{} holds {} sources, the options name {}", file.path().string(),
               file.sources().size(), options.sources.size());
  for (std::size_t i = 0; i < options.sources.size(); ++i) {
    const TokenSource& source = file.sources()[i];
    const std::uint64_t seed = derive_seed(run_seed, fmt::format("data/split/source {}", i));
    WindowRow row{options.sources[i], 1.0,
                  shuffled_starts(source.first_token, source.num_tokens, seed, options), 0};
    row.weight = options.mixture == "weights" ? parse_corpus_source(options.sources[i]).weight
                                              : static_cast<double>(row.starts.size());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::int64_t total_remaining(const std::vector<WindowRow>& rows) {
  return std::accumulate(
      rows.begin(), rows.end(), std::int64_t{0},
      [](std::int64_t sum, const WindowRow& row) { return sum + row.remaining(); });
}

// Largest remainders: whole numbers that add up to `count` and follow the weights, ties going to
// the earlier source; then one window at least for each source that has any, if there are enough.
std::vector<std::int64_t> ideal_shares(std::int64_t count, const std::vector<WindowRow>& rows) {
  double total = 0.0;
  for (const WindowRow& row : rows) {
    total += row.weight;
  }
  std::vector<std::int64_t> shares(rows.size(), 0);
  if (!(total > 0.0)) {
    return shares;
  }
  std::vector<std::pair<double, std::size_t>> remainders;
  std::int64_t given = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double exact = static_cast<double>(count) * (rows[i].weight / total);
    shares[i] = static_cast<std::int64_t>(std::floor(exact));
    given += shares[i];
    remainders.emplace_back(static_cast<double>(shares[i]) - exact, i);
  }
  std::sort(remainders.begin(), remainders.end());
  for (std::size_t i = 0; given < count; ++i, ++given) {
    ++shares[remainders[i % remainders.size()].second];
  }
  if (count >= std::ssize(rows)) {
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (shares[i] == 0 && !rows[i].starts.empty()) {
        --*std::max_element(shares.begin(), shares.end());
        shares[i] = 1;
      }
    }
  }
  return shares;
}

// With weights a source that runs out is an error, since the mixture was asked for. Otherwise
// rounding may ask a small source for one window more than it has, and the others fill in.
std::vector<std::int64_t> attainable_shares(const char* part, std::int64_t count,
                                            const std::vector<WindowRow>& rows,
                                            const DataOptions& options) {
  std::vector<std::int64_t> shares = ideal_shares(count, rows);
  std::int64_t missing = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t over = std::max<std::int64_t>(0, shares[i] - rows[i].remaining());
    if (over > 0 && options.mixture == "weights") {
      fail(
          ErrorKind::kUsage,
          "data.{}_tokens: the mixture takes {} windows of {} tokens from {}, but {} of its {} are "
          "left; lower its weight or the part's size, or add text",
          part, shares[i], options.window, rows[i].name, rows[i].remaining(),
          rows[i].starts.size());
    }
    shares[i] -= over;
    missing += over;
  }
  for (std::size_t i = 0; i < rows.size() && missing > 0; ++i) {
    const std::int64_t more = std::min(missing, rows[i].remaining() - shares[i]);
    shares[i] += more;
    missing -= more;
  }
  PUZZLE_CHECK(missing == 0, "{} windows too few for {}", missing, part);
  return shares;
}

// Windows that are left for training: all, or with weights as many as keep the mixture.
std::int64_t rest_for_training(const std::vector<WindowRow>& rows, const DataOptions& options) {
  if (options.mixture != "weights") {
    return total_remaining(rows);
  }
  double total_weight = 0.0;
  for (const WindowRow& row : rows) {
    total_weight += row.weight;
  }
  double most = static_cast<double>(total_remaining(rows));
  for (const WindowRow& row : rows) {
    most = std::min(most, static_cast<double>(row.remaining()) * total_weight / row.weight);
  }
  auto count = static_cast<std::int64_t>(most);
  const auto fits = [&](std::int64_t n) {
    const std::vector<std::int64_t> shares = ideal_shares(n, rows);
    return std::equal(
        shares.begin(), shares.end(), rows.begin(),
        [](std::int64_t share, const WindowRow& row) { return share <= row.remaining(); });
  };
  while (count > 0 && !fits(count)) {
    --count;
  }
  return count;
}

// Takes the shares from the rows, the sources alternating in proportion.
std::vector<std::int64_t> take_windows(const std::vector<std::int64_t>& shares,
                                       std::vector<WindowRow>& rows) {
  struct Turn {
    double when;
    std::size_t row;
    bool operator<(const Turn& other) const {
      return when != other.when ? when < other.when : row < other.row;
    }
  };
  std::vector<Turn> turns;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (std::int64_t k = 0; k < shares[i]; ++k) {
      turns.push_back({(static_cast<double>(k) + 0.5) / static_cast<double>(shares[i]), i});
    }
  }
  std::sort(turns.begin(), turns.end());
  std::vector<std::int64_t> starts;
  starts.reserve(turns.size());
  for (const Turn& turn : turns) {
    starts.push_back(rows[turn.row].starts[rows[turn.row].next++]);
  }
  return starts;
}

std::array<std::int64_t, kNumParts> part_windows(const DataOptions& options) {
  const std::array<std::int64_t, kNumParts> tokens = {
      options.test_tokens, options.validation_tokens, options.scoring_tokens,
      options.calibration_tokens, options.train_tokens};
  std::array<std::int64_t, kNumParts> windows{};
  std::transform(tokens.begin(), tokens.end(), windows.begin(), [&](std::int64_t n) {
    return n / options.window + (n % options.window != 0 ? 1 : 0);
  });
  return windows;
}

void check_enough_windows(const std::array<std::int64_t, kNumParts>& needed, std::int64_t available,
                          const DataOptions& options) {
  const std::int64_t total = std::accumulate(needed.begin(), needed.end(), std::int64_t{0});
  if (total <= available) {
    return;
  }
  std::vector<std::string> takes;
  for (std::size_t p = 0; p < kNumParts; ++p) {
    if (needed[p] > 0) {
      takes.push_back(fmt::format("{} {}", kPartNames[p], needed[p] * options.window));
    }
  }
  fail(ErrorKind::kUsage,
       "data.sources: {} hold {} tokens in whole windows of {}, expected at least {} ({}); add "
       "text, "
       "or lower data.*_tokens or data.window",
       join(options.sources, ", "), available * options.window, options.window,
       total * options.window, join(takes, ", "));
}

}  // namespace

TokenParts split_tokens(const std::shared_ptr<const TokenFile>& file, const DataOptions& options) {
  PUZZLE_CHECK(options.window >= 2 && options.group_windows >= 1, "window {}, group {}",
               options.window, options.group_windows);
  std::vector<WindowRow> rows = make_window_rows(*file, options);
  std::array<std::int64_t, kNumParts> windows = part_windows(options);
  check_enough_windows(windows, total_remaining(rows), options);

  std::vector<TokenPart> parts;
  for (std::size_t p = 0; p < kNumParts; ++p) {
    const bool takes_rest = p == kTrainPart && options.train_tokens == 0;
    const std::int64_t count = takes_rest ? rest_for_training(rows, options) : windows[p];
    // Without weights the rest is everything, whatever its proportions.
    std::vector<std::int64_t> shares;
    if (takes_rest && options.mixture != "weights") {
      for (const WindowRow& row : rows) {
        shares.push_back(row.remaining());
      }
    } else {
      shares = attainable_shares(kPartNames[p], count, rows, options);
    }
    parts.emplace_back(kPartNames[p], file, take_windows(shares, rows),
                       TokenPart::Layout{options.window, options.cross_documents, options.sources});
  }
  return {std::move(parts[4]), std::move(parts[3]), std::move(parts[2]), std::move(parts[1]),
          std::move(parts[0])};
}

}  // namespace puzzle
