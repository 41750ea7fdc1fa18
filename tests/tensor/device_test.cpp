#include "puzzle/tensor/device.h"

#include <ATen/Context.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace puzzle {
namespace {

TEST(Device, PlainCudaIsTheGpuOfTheRank) {
  EXPECT_EQ(parse_gpu_index("cuda", 0, 1), 0);
  EXPECT_EQ(parse_gpu_index("cuda", 3, 4), 3);
  EXPECT_EQ(parse_gpu_index("cuda", 5, 4), 1);  // more ranks than GPUs
  EXPECT_EQ(parse_gpu_index("cuda:2", 1, 4), 2);
}

TEST(Device, WhatIsNoneIsRefused) {
  const auto refused = [](const std::string& text, int num_gpus, const char* message) {
    EXPECT_PUZZLE_ERROR((void)parse_gpu_index(text, 0, num_gpus), ErrorKind::kUsage, message);
  };
  refused("gpu", 1, "device 'gpu': expected cpu, cuda or cuda:N");
  refused("cuda0", 1, "expected cpu, cuda or cuda:N");
  refused("cuda:", 1, "device 'cuda:': expected a number after cuda:");
  refused("cuda:x", 1, "expected a number after cuda:");
  refused("cuda:1234", 1, "expected a number after cuda:");
  refused("cuda:2", 2, "device 'cuda:2': there are 2 GPUs");
  refused("cuda", 0, "device 'cuda': this libtorch sees no CUDA GPU");
}

TEST(Device, IsNeverSilentlyTheCpu) {
  EXPECT_TRUE(parse_device("cpu").is_cpu());
  if (at::globalContext().hasCUDA()) {
    EXPECT_TRUE(parse_device("cuda").is_cuda());
  } else {
    EXPECT_PUZZLE_ERROR((void)parse_device("cuda"), ErrorKind::kUsage, "sees no CUDA GPU");
  }
}

TEST(Device, WarningsOfLibtorchAreSaidOnce) {
  c10::WarningHandler* const before = c10::WarningUtils::get_warning_handler();
  log_torch_warnings();
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    TORCH_WARN("a warning of the test");
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  c10::WarningUtils::set_warning_handler(before);
  EXPECT_THAT(said, ::testing::HasSubstr("libtorch: a warning of the test"));
  EXPECT_EQ(said.find("a warning of the test"), said.rfind("a warning of the test"));
}

}  // namespace
}  // namespace puzzle
