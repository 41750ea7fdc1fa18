#include "puzzle/mip/highs_model.h"

#include <limits>

#include <interfaces/highs_c_api.h>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"

namespace puzzle {
namespace {

static_assert(sizeof(HighsInt) == sizeof(int), "HiGHS is built with 32-bit indices");

// Far below HiGHS' defaults (1e-6): a budget row is scaled to a largest coefficient of about 1, so
// an answer oversteps it by less than 1e-9 of one choice, and mostly not at all.
constexpr double kRowTolerance = 1e-9;

void call_highs(HighsInt status, const char* what) {
  if (status == kHighsStatusError) {
    fail(ErrorKind::kNumeric, "HiGHS {}: refused: {}", Highs_version(), what);
  }
}

void stop_on_signal(int /*type*/, const char* /*message*/, const HighsCallbackDataOut* /*out*/,
                    HighsCallbackDataIn* in, void* /*user*/) {
  if (in != nullptr && interrupted()) {
    in->user_interrupt = 1;
  }
}

}  // namespace

HighsModel::HighsModel() : highs_(Highs_create()) {
  PUZZLE_CHECK(highs_ != nullptr, "HiGHS cannot be created");
  call_highs(Highs_setBoolOptionValue(highs_, "output_flag", 0), "output_flag");
  call_highs(Highs_setIntOptionValue(highs_, "threads", 1), "threads");
  call_highs(Highs_setStringOptionValue(highs_, "parallel", "off"), "parallel");
  call_highs(Highs_setIntOptionValue(highs_, "random_seed", 0), "random_seed");
  for (const char* option : {"mip_feasibility_tolerance", "primal_feasibility_tolerance",
                             "dual_feasibility_tolerance"}) {
    call_highs(Highs_setDoubleOptionValue(highs_, option, kRowTolerance), option);
  }
  call_highs(Highs_setCallback(highs_, stop_on_signal, nullptr), "callback");
  for (const HighsInt type : {kHighsCallbackMipInterrupt, kHighsCallbackSimplexInterrupt}) {
    call_highs(Highs_startCallback(highs_, type), "start of a callback");
  }
}

HighsModel::~HighsModel() { Highs_destroy(highs_); }

int HighsModel::add_binary(double objective) {
  call_highs(Highs_addCol(highs_, objective, 0.0, 1.0, 0, nullptr, nullptr), "a column");
  call_highs(Highs_changeColIntegrality(highs_, num_columns_, kHighsVarTypeInteger), "a binary");
  return num_columns_++;
}

void HighsModel::add_row(double lower, double upper, const std::vector<int>& columns,
                         const std::vector<double>& values) {
  PUZZLE_CHECK(columns.size() == values.size(), "{} columns, {} values", columns.size(),
               values.size());
  call_highs(Highs_addRow(highs_, lower, upper, static_cast<HighsInt>(columns.size()),
                          columns.data(), values.data()),
             "a row");
  ++num_rows_;
}

void HighsModel::change_row_bounds(int row, double lower, double upper) {
  call_highs(Highs_changeRowBounds(highs_, row, lower, upper), "bounds of a row");
}

HighsModel::Outcome HighsModel::run(double time_limit_s, double relative_gap) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  call_highs(Highs_setDoubleOptionValue(highs_, "mip_rel_gap", relative_gap), "mip_rel_gap");
  call_highs(Highs_setDoubleOptionValue(highs_, "mip_abs_gap", 0.0), "mip_abs_gap");
  // HiGHS counts the time of all runs of one instance.
  call_highs(
      Highs_setDoubleOptionValue(highs_, "time_limit", Highs_getRunTime(highs_) + time_limit_s),
      "time_limit");
  const HighsInt returned = Highs_run(highs_);
  throw_if_interrupted();
  const HighsInt status = Highs_getModelStatus(highs_);
  Outcome outcome;
  if (status == kHighsModelStatusInfeasible) {
    outcome.kind = Outcome::Kind::kInfeasible;
    return outcome;
  }
  if (status != kHighsModelStatusOptimal && status != kHighsModelStatusTimeLimit) {
    fail(ErrorKind::kNumeric, "HiGHS {} stopped with return code {} and model status {}",
         Highs_version(), returned, status);
  }
  outcome.kind =
      status == kHighsModelStatusOptimal ? Outcome::Kind::kOptimal : Outcome::Kind::kTimeLimit;
  outcome.bound = -kInfinity;
  double bound = 0.0;
  if (Highs_getDoubleInfoValue(highs_, "mip_dual_bound", &bound) == kHighsStatusOk) {
    outcome.bound = bound;
  }
  HighsInt solution = 0;
  call_highs(Highs_getIntInfoValue(highs_, "primal_solution_status", &solution), "solution status");
  if (solution == kHighsSolutionStatusFeasible) {
    outcome.values.resize(static_cast<std::size_t>(num_columns_));
    std::vector<double> duals(outcome.values.size());
    std::vector<double> rows(static_cast<std::size_t>(num_rows_));
    std::vector<double> row_duals(rows.size());
    call_highs(Highs_getSolution(highs_, outcome.values.data(), duals.data(), rows.data(),
                                 row_duals.data()),
               "the solution");
  }
  return outcome;
}

}  // namespace puzzle
