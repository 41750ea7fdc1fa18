// EXPECT_CLOSE(got, want, absolute tolerance): prints the first index that differs most, both
// values.
#pragma once

#include <sstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace puzzle::test {

inline ::testing::AssertionResult is_close(const at::Tensor& got, const at::Tensor& want,
                                           double tolerance) {
  if (got.sizes() != want.sizes()) {
    std::ostringstream text;
    text << "shape " << got.sizes() << ", expected " << want.sizes();
    return ::testing::AssertionFailure() << text.str();
  }
  if (got.numel() == 0) {
    return ::testing::AssertionSuccess();
  }
  const at::Tensor g = got.detach().to(at::kCPU, at::kDouble).reshape(-1);
  const at::Tensor w = want.detach().to(at::kCPU, at::kDouble).reshape(-1);
  const at::Tensor difference = (g - w).abs();
  const auto index = difference.nan_to_num(1e300).argmax().item<std::int64_t>();
  const double worst = difference[index].item<double>();
  if (worst <= tolerance) {
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure()
         << "element " << index << " of " << g.numel() << ": " << g[index].item<double>()
         << ", expected " << w[index].item<double>() << " (difference " << worst << ", allowed "
         << tolerance << ")";
}

}  // namespace puzzle::test

#define EXPECT_CLOSE(got, want, tolerance) \
  EXPECT_TRUE(::puzzle::test::is_close((got), (want), (tolerance)))
