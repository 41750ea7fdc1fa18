#include "puzzle/results/comparison.h"

#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "puzzle/results/run_db.h"
#include "results/made_up_comparison.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

using test::made_up_comparison;

// r = Σa/Σb has the variance Σ (a_u − r b_u)² · n/(n − 1) / (Σb)².
TEST(Comparison, RatiosArePairedUnitByUnit) {
  const Comparison comparison = made_up_comparison();
  EXPECT_DOUBLE_EQ(comparison.cells[0].kl().value, 15.0 / 40.0);
  const SumRatio ratio = comparison.cells[1].kl_ratio_to(comparison.cells[0]).value();
  EXPECT_DOUBLE_EQ(ratio.value, 2.0);
  const double squares = 1.0 * 1.0 + 1.0 * 1.0 + 0.0;  // 9 − 8, 17 − 18, 4 − 4
  EXPECT_NEAR(ratio.standard_error, std::sqrt(squares * 3.0 / 2.0) / 15.0, 1e-12);
  EXPECT_EQ(ratio_text(comparison, comparison.cells[0]), "1");
  EXPECT_EQ(ratio_text(comparison, comparison.cells[1]), "2.000 [1.503, 2.497]")
      << "Student's t, 2 degrees";
  EXPECT_EQ(ratio_text(comparison, comparison.cells[2]), "–");
  ComparedCell elsewhere = comparison.cells[1];
  elsewhere.unit_tokens[0] = 11.0;
  EXPECT_FALSE(elsewhere.kl_ratio_to(comparison.cells[0]).has_value());
  ComparedCell other_text = comparison.cells[1];
  other_text.text = "another corpus, as long";
  EXPECT_FALSE(other_text.kl_ratio_to(comparison.cells[0]).has_value());
}

TEST(Comparison, ACellMayHaveAReferenceOfItsOwn) {
  Comparison comparison = made_up_comparison();
  comparison.cells[0].reference = "other";
  comparison.cells[1].reference = "other";
  EXPECT_EQ(ratio_text(comparison, comparison.cells[1]), "1");
  EXPECT_EQ(ratio_text(comparison, comparison.cells[0]).substr(0, 6), "0.500 ");
  EXPECT_EQ(comparison.reference_of(comparison.cells[2])->name, "ours");
  // One that is not made yet.
  comparison.cells[0].reference = "later";
  EXPECT_EQ(comparison.reference_of(comparison.cells[0]), nullptr);
  EXPECT_EQ(ratio_text(comparison, comparison.cells[0]), "–");
}

TEST(Comparison, ComesBackFromTheDatabase) {
  const test::TempDir folder;
  RunDb db(folder / "run.db");
  EXPECT_TRUE(load_comparisons(db).empty());
  const Comparison put = made_up_comparison();
  put_comparison(db, {.name = "another", .reference = "x", .cells = {}});
  put_comparison(db, {.name = "made-up", .reference = "is replaced", .cells = {}});
  put_comparison(db, put);
  ASSERT_EQ(load_comparisons(db).size(), 2U);
  EXPECT_EQ(load_comparisons(db)[0].name, "another");
  const Comparison got = load_comparisons(db)[1];
  EXPECT_EQ(got.name, "made-up");
  EXPECT_EQ(got.title, "Made up");
  EXPECT_EQ(got.about, "Three cells.");
  EXPECT_EQ(got.settings, "threads=2");
  EXPECT_EQ(got.reference, "ours");
  ASSERT_EQ(got.cells.size(), 3U);
  EXPECT_EQ(got.cells[0].kl_sums, put.cells[0].kl_sums);
  EXPECT_EQ(got.cells[0].unit_tokens, put.cells[0].unit_tokens);
  EXPECT_EQ(got.cells[0].metrics, put.cells[0].metrics);
  EXPECT_EQ(got.cells[0].parent_metrics, put.cells[0].parent_metrics);
  EXPECT_EQ(got.cells[0].made_by, "this build");
  EXPECT_EQ(got.cells[0].settings, "seed=1");
  EXPECT_EQ(got.cells[0].key, "key of ours");
  EXPECT_EQ(got.cells[1].reference, "ours");
  EXPECT_EQ(got.cells[0].folder, "children/ours");
  EXPECT_EQ(got.cells[0].budget, "parameters <= 0.8x");
  EXPECT_EQ(got.cells[0].parameters, 0.75);
  EXPECT_EQ(got.cells[0].used, put.cells[0].used);
  EXPECT_EQ(used_text(got.cells[0]), "generation_s 0.500, parameters 0.760");
  EXPECT_EQ(used_text(got.cells[1]), "–");
  EXPECT_EQ(got.cells[0].predicted, 0.5);
  EXPECT_EQ(got.cells[1].predicted, std::nullopt);
  EXPECT_EQ(got.cells[0].seconds, 7.0);
  EXPECT_TRUE(got.cells[2].kl_sums.empty());
  const std::string head = R"({"title": "", "about": "", "settings": "", "reference": "a")";
  for (const std::string& broken : {std::string("[]"), std::string("{}"), head + "}",
                                    head + R"(, "cells": [{"name": "a"}]})"}) {
    db.put_meta("comparison/made-up", broken);
    EXPECT_PUZZLE_ERROR((void)load_comparisons(db), ErrorKind::kFormat, "meta comparison/made-up");
  }
}

}  // namespace
}  // namespace puzzle
