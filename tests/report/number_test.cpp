#include "puzzle/report/number.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace puzzle {
namespace {

TEST(Number, KeepsSignificantDigits) {
  EXPECT_EQ(format_significant(0.012345), "0.0123");
  EXPECT_EQ(format_significant(139.94), "140");
  EXPECT_EQ(format_significant(1234567.0), "1234567");
  EXPECT_EQ(format_significant(-2.5, 2), "−2.5");
  EXPECT_EQ(format_significant(0.0), "0");
  EXPECT_EQ(format_significant(1.23456e-5), "1.23e-05");
  EXPECT_EQ(format_significant(3.21e9, 2), "3.2e+09");
  EXPECT_EQ(format_significant(std::numeric_limits<double>::infinity()), "∞");
  EXPECT_EQ(format_significant(-std::numeric_limits<double>::infinity()), "−∞");
  EXPECT_EQ(format_significant(std::nan("")), "–");
}

TEST(Number, TheErrorDecidesTheDigits) {
  EXPECT_EQ(format_with_error(0.213449, 0.00314), "0.213 ± 0.003");
  EXPECT_EQ(format_with_error(19.0, 0.31), "19.0 ± 0.3");
  EXPECT_EQ(format_with_error(1234.5, 67.0), "1234 ± 67");
  EXPECT_EQ(format_with_error(0.25, 0.0), "0.2500");
  EXPECT_EQ(format_with_error(-0.5, 0.1), "−0.50 ± 0.10");
  EXPECT_EQ(format_with_error(0.5, 0.0123), "0.500 ± 0.012");
  EXPECT_EQ(format_with_error(0.5, 0.0197), "0.50 ± 0.02");
}

TEST(Number, FractionsChangesAndRatios) {
  EXPECT_EQ(format_percent(0.971), "97.1 %");
  EXPECT_EQ(format_percent(0.9712, 0.0042), "97.1 ± 0.4 %");
  EXPECT_EQ(format_percent(1.0), "100 %");
  EXPECT_EQ(format_change(1.042), "+4.2 %");
  EXPECT_EQ(format_change(0.995), "−0.50 %");
  EXPECT_EQ(format_change(1.0), "0 %");
  EXPECT_EQ(format_change(1.042, 0.003), "+4.2 ± 0.3 %");
  EXPECT_EQ(format_ratio(1.4212), "1.42×");
  EXPECT_EQ(format_ratio(1.4212, 0.031), "1.42 ± 0.03×");
  EXPECT_EQ(format_ratio(std::numeric_limits<double>::infinity()), "∞");
}

}  // namespace
}  // namespace puzzle
