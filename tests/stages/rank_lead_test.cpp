#include "puzzle/stages/rank_lead.h"

#include <new>
#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "support/thread_group.h"

namespace puzzle {
namespace {

// What every rank but rank 0 is told of a failure of rank 0's.
template <class Failure>
Error told_of(const Failure& failure) {
  std::optional<Error> told;
  test::ThreadGroup::run(2, [&](Communicator& communicator) {
    try {
      lead_alone(communicator, [&](const KeepStep& keep_step) {
        keep_step();
        throw failure;
      });
    } catch (const Error& error) {
      if (!communicator.is_first()) {
        told = error;
      }
    } catch (const std::exception&) {
      EXPECT_TRUE(communicator.is_first());
    }
  });
  return told.value();
}

TEST(RankLead, AnErrorIsEveryRanks) {
  const Error told = told_of(Error(ErrorKind::kNumeric, "not finite"));
  EXPECT_EQ(told.kind(), ErrorKind::kNumeric);
  EXPECT_STREQ(told.what(), "not finite");
}

TEST(RankLead, SoIsAnyOtherFailure) { EXPECT_EQ(told_of(std::bad_alloc()).kind(), ErrorKind::kIo); }

TEST(RankLead, TheResultIsEveryRanks) {
  test::ThreadGroup::run(3, [](Communicator& communicator) {
    RankLead lead(communicator, [&](const nlohmann::json& request) {
      return nlohmann::json(communicator.all_reduce_sum(request.get<double>()));
    });
    const nlohmann::json result = lead.run([&] { return lead.together(2.0); });
    EXPECT_EQ(result.get<double>(), 6.0);
  });
}

}  // namespace
}  // namespace puzzle
