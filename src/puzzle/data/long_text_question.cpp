#include <algorithm>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "puzzle/base/strings.h"
#include "puzzle/data/long_text_draws.h"
#include "puzzle/data/long_text_words.h"

namespace puzzle {
namespace {

namespace words = long_text_words;

constexpr std::int64_t kFacts = 4;  // sentences about a person

struct Person {
  std::string name;
  std::string town;
};

// People and towns are numbered by the combinations of their names' parts, in an order by seed.
class People {
 public:
  explicit People(const Draws& draws)
      : draws_(draws),
        names_(draws.order("people", kNames)),
        towns_(draws.order("towns", kTowns)) {}

  // Person 0 alone has that name and lives in that town.
  [[nodiscard]] Person operator[](std::size_t i) const {
    const auto name = static_cast<std::size_t>(names_[i == 0 ? 0 : 1 + (i - 1) % (kNames - 1)]);
    const std::size_t place =
        i == 0 ? 0 : 1 + draws_.below(fmt::format("town of {}", i), kTowns - 1);
    const auto town = static_cast<std::size_t>(towns_[place]);
    const std::size_t surname = name / words::kFirstNames.size();
    return {fmt::format("{} {}{}", words::kFirstNames[name % words::kFirstNames.size()],
                        words::kSurnameStarts[surname % words::kSurnameStarts.size()],
                        words::kSurnameEnds[surname / words::kSurnameStarts.size()]),
            fmt::format("{}{}", words::kTownStarts[town % words::kTownStarts.size()],
                        words::kTownEnds[town / words::kTownStarts.size()])};
  }

  // Fact 0 is where the person lives.
  [[nodiscard]] std::string fact(std::size_t i, std::int64_t fact) const {
    const Person person = (*this)[i];
    switch (fact) {
      case 0:
        return fmt::format("{} lives in {}.", person.name, person.town);
      case 1:
        return fmt::format(
            "{} works as a {}.", person.name,
            words::kJobs[draws_.below(fmt::format("job of {}", i), words::kJobs.size())]);
      case 2:
        return fmt::format("{} was born in {}.", person.name,
                           1900 + draws_.below(fmt::format("year of {}", i), 100));
      default:
        return fmt::format(
            "{} keeps a {}.", person.name,
            words::kPets[draws_.below(fmt::format("pet of {}", i), words::kPets.size())]);
    }
  }

 private:
  static constexpr std::size_t kNames =
      words::kFirstNames.size() * words::kSurnameStarts.size() * words::kSurnameEnds.size();
  static constexpr std::size_t kTowns = words::kTownStarts.size() * words::kTownEnds.size();

  const Draws& draws_;
  std::vector<std::int64_t> names_;
  std::vector<std::int64_t> towns_;
};

}  // namespace

LongTextDraft draft_question(const Draws& draws, std::int64_t units) {
  const People people(draws);
  const Person asked = people[0];
  LongTextDraft draft;
  draft.expected = {asked.town};
  draft.answer = " " + asked.town;
  std::vector<std::string> about;
  for (std::int64_t fact = 0; fact < kFacts; ++fact) {
    about.push_back(people.fact(0, fact));
  }
  // Between two people, not within one.
  const std::int64_t others = (units + kFacts - 1) / kFacts;
  const std::int64_t before = std::min(
      units,
      kFacts * static_cast<std::int64_t>(draws.unit("depth") * static_cast<double>(others + 1)));
  const double depth = units == 0 ? 0.0 : static_cast<double>(before) / static_cast<double>(units);
  draft.needles = {{join(about, " "), depth}};
  std::string text;
  for (std::int64_t unit = 0; unit <= units; ++unit) {
    if (unit == before) {
      text += (unit == 0 ? "" : "\n") + draft.needles[0].text;
    }
    if (unit < units) {
      const bool is_new = unit % kFacts == 0;
      text += is_new ? (unit == 0 && before != 0 ? "" : "\n") : " ";
      text += people.fact(1 + static_cast<std::size_t>(unit / kFacts), unit % kFacts);
    }
  }
  draft.prompt = fmt::format(
      "Answer the question based on the given facts.\n{}\nQuestion: In which town does {} live? "
      "Answer: {} lives in",
      text, asked.name, asked.name);
  return draft;
}

}  // namespace puzzle
