#include "puzzle/results/machine.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(Machine, DescribesThisOne) {
  const MachineFacts machine = read_machine();
  EXPECT_FALSE(machine.cpu.empty());
  EXPECT_GE(machine.cores, 1);
  EXPECT_LE(machine.cores, sysconf(_SC_NPROCESSORS_CONF));
  const std::int64_t bytes =
      static_cast<std::int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  EXPECT_NEAR(static_cast<double>(machine.memory_bytes), static_cast<double>(bytes),
              0.02 * static_cast<double>(bytes));
  EXPECT_FALSE(machine.kernel.empty());
}

TEST(Machine, SurvivesJson) {
  const MachineFacts machine{"A \"fast\" CPU", 96, 1LL << 40, "Debian", "Linux 6.1 x86_64"};
  EXPECT_EQ(parse_machine(to_json(machine), "run.db"), machine);
  MachineFacts with_gpus = machine;
  with_gpus.gpus = "NVIDIA H200, NVIDIA H200";
  EXPECT_EQ(parse_machine(to_json(with_gpus), "run.db"), with_gpus);
  EXPECT_PUZZLE_ERROR((void)parse_machine(nlohmann::json::object(), "run.db"), ErrorKind::kFormat,
                      "run.db: \"cpu\" is missing");
}

TEST(Machine, DatesAreUtcInIsoForm) {
  const std::string now = utc_now();
  ASSERT_EQ(now.size(), 20U) << now;
  EXPECT_EQ(now[4], '-');
  EXPECT_EQ(now[10], 'T');
  EXPECT_EQ(now.back(), 'Z');
}

}  // namespace
}  // namespace puzzle
