#include "puzzle/dist/communicator.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "puzzle/dist/launch.h"
#include "puzzle/dist/single_communicator.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

int launch_role(const std::string& role, int num_ranks, const std::string& folder = "") {
  return launch({.num_ranks = num_ranks,
                 .arguments = {role, folder},
                 .program = PUZZLE_DIST_RANK,
                 .grace_s = 0.5});
}

struct PeerError {
  std::string kind;
  double seconds = -1;
  std::string message;
};

PeerError read_peer_error(const std::filesystem::path& path) {
  std::ifstream file(path);
  PeerError error;
  std::getline(file, error.kind);
  file >> error.seconds >> std::ws;
  std::getline(file, error.message);
  return error;
}

TEST(SingleCommunicator, LeavesEverythingAsItIs) {
  const auto group = make_communicator();
  EXPECT_EQ(group->rank(), 0);
  EXPECT_EQ(group->size(), 1);
  EXPECT_TRUE(group->is_first());
  at::Tensor values = at::arange(6, at::kFloat).view({2, 3});
  const at::Tensor before = values.clone();
  group->all_reduce_sum(values);
  group->broadcast(values, 0);
  group->barrier();
  EXPECT_TRUE(values.equal(before));
  EXPECT_EQ(group->all_reduce_sum(2.5), 2.5);
  EXPECT_EQ(group->all_reduce_max(-2.5), -2.5);
  EXPECT_EQ(group->all_gather_strings("a\0b"), std::vector<std::string>{"a"});
  EXPECT_EQ(group->broadcast_string("", 0), "");
  EXPECT_NO_THROW(group->agree("recipe", "x"));
}

TEST(SingleCommunicator, GathersCopies) {
  SingleCommunicator group;
  const at::Tensor part = at::ones({2, 3}, at::kFloat);
  const at::Tensor all = group.all_gather(part);
  EXPECT_EQ(all.sizes(), at::IntArrayRef({1, 2, 3}));
  all.fill_(5);
  EXPECT_EQ(part[0][0].item<float>(), 1.0F);
}

TEST(GlooCommunicator, ComputesEveryCollectiveWithTwoRanks) {
  EXPECT_EQ(launch_role("collectives", 2), 0);
}

TEST(GlooCommunicator, ComputesEveryCollectiveWithThreeRanks) {
  EXPECT_EQ(launch_role("collectives", 3), 0);
}

TEST(GlooCommunicator, RefusesDifferentSizesOnEveryRankAndGoesOn) {
  EXPECT_EQ(launch_role("mismatch", 2), 0);
  EXPECT_EQ(launch_role("mismatch", 3), 0);
}

TEST(GlooCommunicator, SaysWhichRankDisagrees) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(launch_role("disagree", 3), exit_code(ErrorKind::kUsage));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::HasSubstr("rank 0 has 'mine', but rank 1 has 'another'"));
}

TEST(GlooCommunicator, NoticesAKilledPeerWithinSeconds) {
  const test::TempDir folder;
  EXPECT_PUZZLE_ERROR((void)launch_role("killed", 3, folder.path().string()), ErrorKind::kPeer,
                      "rank 1");
  int told = 0;
  for (const char* name : {"rank-0.txt", "rank-2.txt"}) {
    const PeerError error = read_peer_error(folder / name);
    if (error.kind.empty()) {
      continue;  // ended by the launcher before it could write
    }
    ++told;
    EXPECT_LT(error.seconds, 5.0);
    if (error.kind == kind_name(ErrorKind::kPeer)) {
      EXPECT_THAT(error.message, testing::HasSubstr("all_reduce_sum of Float [1000] on rank "));
      EXPECT_THAT(error.message, testing::HasSubstr("the connection to another rank broke"));
    } else {
      EXPECT_EQ(error.kind, kind_name(ErrorKind::kInterrupted));  // the launcher was faster
    }
  }
  EXPECT_GT(told, 0);
}

TEST(GlooCommunicator, NoticesAHangingPeerAtTheTimeout) {
  const test::TempDir folder;
  EXPECT_EQ(launch_role("hanging", 2, folder.path().string()), exit_code(ErrorKind::kPeer));
  const PeerError error = read_peer_error(folder / "rank-0.txt");
  EXPECT_EQ(error.kind, kind_name(ErrorKind::kPeer));
  EXPECT_GT(error.seconds, 0.9);
  EXPECT_LT(error.seconds, 10.0);
  EXPECT_THAT(error.message, testing::HasSubstr("no answer from another rank within 1 s"));
}

// Our gloo declarations are only handles. A vtable made from them in our own code would be wrong.
TEST(GlooCommunicator, BringsNoVtableOfItsOwn) {
  const std::string command = "nm -C '" PUZZLE_DIST_RANK
                              "' | grep -E ' [^U] (main$|vtable for "
                              "(c10d::ProcessGroupGloo|gloo::))'";
  FILE* pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string found;
  char buffer[256];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) {
    found += buffer;
  }
  EXPECT_EQ(::pclose(pipe), 0);
  EXPECT_THAT(found, testing::EndsWith(" T main\n"));
  EXPECT_EQ(std::count(found.begin(), found.end(), '\n'), 1) << found;
}

}  // namespace
}  // namespace puzzle
