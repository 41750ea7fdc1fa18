#include "puzzle/dist/launcher_environment.h"

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/dist/communicator.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

using Variables = std::vector<std::pair<std::string, std::string>>;

// The launcher's variables as given, all others unset.
class ScopedVariables {
 public:
  explicit ScopedVariables(const Variables& values) {
    clear();
    for (const auto& [name, value] : values) {
      ::setenv(name.c_str(), value.c_str(), 1);
    }
  }
  ~ScopedVariables() { clear(); }
  ScopedVariables(const ScopedVariables&) = delete;
  ScopedVariables& operator=(const ScopedVariables&) = delete;

 private:
  static void clear() {
    for (const char* name :
         {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
          "TORCHELASTIC_USE_AGENT_STORE", "TORCHELASTIC_RESTART_COUNT", "GLOO_SOCKET_IFNAME"}) {
      ::unsetenv(name);
    }
  }
};

TEST(LauncherEnvironment, IsAbsentWithoutALauncher) {
  const ScopedVariables none(Variables{{"MASTER_ADDR", "ignored"}});
  EXPECT_FALSE(read_launcher_environment().has_value());
}

TEST(LauncherEnvironment, ReadsWhatTorchrunSets) {
  const ScopedVariables variables(Variables{{"RANK", "3"},
                                            {"WORLD_SIZE", "4"},
                                            {"LOCAL_RANK", "1"},
                                            {"LOCAL_WORLD_SIZE", "2"},
                                            {"MASTER_ADDR", "10.0.0.1"},
                                            {"MASTER_PORT", "29400"},
                                            {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                            {"TORCHELASTIC_RESTART_COUNT", "2"},
                                            {"GLOO_SOCKET_IFNAME", "eth1"}});
  const auto found = read_launcher_environment();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->rank, 3);
  EXPECT_EQ(found->world_size, 4);
  EXPECT_EQ(found->local_rank, 1);
  EXPECT_EQ(found->local_world_size, 2);
  EXPECT_EQ(found->master_address, "10.0.0.1");
  EXPECT_EQ(found->master_port, 29400);
  EXPECT_TRUE(found->agent_store);
  EXPECT_EQ(found->restart_count, "2");
  EXPECT_EQ(found->network_interface, "eth1");
}

TEST(LauncherEnvironment, RefusesWhatIsMissingOrOutOfRange) {
  const std::vector<std::pair<Variables, std::string>> cases = {
      {{{"RANK", "0"}}, "WORLD_SIZE is not set"},
      {{{"WORLD_SIZE", "2"}, {"MASTER_PORT", "1"}}, "RANK is not set"},
      {{{"RANK", "2"}, {"WORLD_SIZE", "2"}}, "RANK is '2', expected a whole number from 0 to 1"},
      {{{"RANK", "zero"}, {"WORLD_SIZE", "2"}}, "RANK is 'zero'"},
      {{{"RANK", "0x"}, {"WORLD_SIZE", "2"}}, "RANK is '0x'"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "0"}}, "WORLD_SIZE is '0'"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}}, "MASTER_PORT is not set"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}, "from 1 to 65535"},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "2"}, {"MASTER_PORT", "1"}},
       "LOCAL_RANK is '2'"},
  };
  for (const auto& [values, part] : cases) {
    const ScopedVariables variables(values);
    EXPECT_PUZZLE_ERROR((void)read_launcher_environment(), ErrorKind::kUsage, part);
  }
}

TEST(LauncherEnvironment, GivesUpOnAGroupThatDoesNotCome) {
  const ScopedVariables variables(Variables{
      {"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "127.0.0.1"}, {"MASTER_PORT", "1"}});
  EXPECT_PUZZLE_ERROR((void)make_communicator({.join_timeout_s = 1.0}), ErrorKind::kPeer,
                      "joining the group at 127.0.0.1:1 on rank 1 of 2");
}

}  // namespace
}  // namespace puzzle
