// The columns of every table, once: schema, insert, select and dump are made from these lists.
// Private to this layer. The primary key is every kAbout column and then `key`.
#pragma once

#include "puzzle/results/rows.h"

namespace puzzle {

enum class ColumnRole {
  kAbout,  // part of the primary key
  kKey,    // the content key
  kValue,
  kJson,  // text that holds JSON
  kTime,  // differs between two equal runs
};

template <class Row>
struct Table;

template <>
struct Table<StageRecord> {
  using R = StageRecord;
  static constexpr const char* kName = "stages";
  static constexpr const char* kOrder = "rowid";
  template <class V>
  static void visit(V&& column) {
    column("key", &R::key, ColumnRole::kKey);
    column("stage", &R::stage, ColumnRole::kValue);
    column("what", &R::what, ColumnRole::kValue);
    column("seconds", &R::seconds, ColumnRole::kTime);
    column("finished_at", &R::finished_at, ColumnRole::kTime);
    column("detail", &R::detail_json, ColumnRole::kJson);
  }
};

template <>
struct Table<ScoreRow> {
  using R = ScoreRow;
  static constexpr const char* kName = "scores";
  static constexpr const char* kOrder = "layer, block, method, metric, key";
  template <class V>
  static void visit(V&& column) {
    column("layer", &R::layer, ColumnRole::kAbout);
    column("block", &R::block, ColumnRole::kAbout);
    column("method", &R::method, ColumnRole::kAbout);
    column("metric", &R::metric, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("value", &R::value, ColumnRole::kValue);
    column("standard_error", &R::standard_error, ColumnRole::kValue);
    column("tokens", &R::tokens, ColumnRole::kValue);
  }
};

template <>
struct Table<CostRow> {
  using R = CostRow;
  static constexpr const char* kName = "costs";
  static constexpr const char* kOrder = "engine, subblock, phase, batch, context, key";
  template <class V>
  static void visit(V&& column) {
    column("engine", &R::engine, ColumnRole::kAbout);
    column("subblock", &R::subblock, ColumnRole::kAbout);
    column("phase", &R::phase, ColumnRole::kAbout);
    column("batch", &R::batch, ColumnRole::kAbout);
    column("context", &R::context, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("seconds", &R::seconds, ColumnRole::kValue);
    column("p10_s", &R::p10_s, ColumnRole::kValue);
    column("p90_s", &R::p90_s, ColumnRole::kValue);
    column("samples", &R::samples, ColumnRole::kValue);
    column("detail", &R::detail_json, ColumnRole::kJson);
  }
};

template <>
struct Table<CurveRow> {
  using R = CurveRow;
  static constexpr const char* kName = "curves";
  static constexpr const char* kOrder = "stage, series, metric, step, key";
  template <class V>
  static void visit(V&& column) {
    column("stage", &R::stage, ColumnRole::kAbout);
    column("series", &R::series, ColumnRole::kAbout);
    column("metric", &R::metric, ColumnRole::kAbout);
    column("step", &R::step, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("tokens", &R::tokens, ColumnRole::kValue);
    column("value", &R::value, ColumnRole::kValue);
  }
};

template <>
struct Table<ArchitectureRow> {
  using R = ArchitectureRow;
  static constexpr const char* kName = "architectures";
  static constexpr const char* kOrder = "name, solution, key";
  template <class V>
  static void visit(V&& column) {
    column("name", &R::name, ColumnRole::kAbout);
    column("solution", &R::solution, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("method", &R::method, ColumnRole::kValue);
    column("blocks", &R::blocks, ColumnRole::kValue);
    column("objective", &R::objective, ColumnRole::kValue);
    column("costs", &R::costs_json, ColumnRole::kJson);
    column("budget", &R::budget, ColumnRole::kValue);
    column("gap", &R::gap, ColumnRole::kValue);
    column("detail", &R::detail_json, ColumnRole::kJson);
  }
};

template <>
struct Table<VariantRow> {
  using R = VariantRow;
  static constexpr const char* kName = "variants";
  static constexpr const char* kOrder = "layer, variant, stage, key";
  template <class V>
  static void visit(V&& column) {
    column("layer", &R::layer, ColumnRole::kAbout);
    column("variant", &R::variant, ColumnRole::kAbout);
    column("stage", &R::stage, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("init", &R::init, ColumnRole::kValue);
    column("error_before", &R::error_before, ColumnRole::kValue);
    column("error_after", &R::error_after, ColumnRole::kValue);
    column("loss_before", &R::loss_before, ColumnRole::kValue);
    column("loss_after", &R::loss_after, ColumnRole::kValue);
    column("tokens", &R::tokens, ColumnRole::kValue);
    column("kept", &R::kept, ColumnRole::kValue);
  }
};

template <>
struct Table<ModelRow> {
  using R = ModelRow;
  static constexpr const char* kName = "models";
  static constexpr const char* kOrder = "name, key";
  template <class V>
  static void visit(V&& column) {
    column("name", &R::name, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("role", &R::role, ColumnRole::kValue);
    column("label", &R::label, ColumnRole::kValue);
    column("architecture", &R::architecture, ColumnRole::kValue);
    column("parameters", &R::parameters, ColumnRole::kValue);
    column("weight_bytes", &R::weight_bytes, ColumnRole::kValue);
    column("file_bytes", &R::file_bytes, ColumnRole::kValue);
    column("kv_bytes_per_token", &R::kv_bytes_per_token, ColumnRole::kValue);
    column("detail", &R::detail_json, ColumnRole::kJson);
  }
};

template <>
struct Table<EvaluationRow> {
  using R = EvaluationRow;
  static constexpr const char* kName = "evaluations";
  static constexpr const char* kOrder = "model, task, metric, key";
  template <class V>
  static void visit(V&& column) {
    column("model", &R::model, ColumnRole::kAbout);
    column("task", &R::task, ColumnRole::kAbout);
    column("metric", &R::metric, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("value", &R::value, ColumnRole::kValue);
    column("standard_error", &R::standard_error, ColumnRole::kValue);
    column("count", &R::count, ColumnRole::kValue);
  }
};

template <>
struct Table<ThroughputRow> {
  using R = ThroughputRow;
  static constexpr const char* kName = "throughput";
  static constexpr const char* kOrder =
      "model, engine, batch, prompt_tokens, generated_tokens, key";
  template <class V>
  static void visit(V&& column) {
    column("model", &R::model, ColumnRole::kAbout);
    column("engine", &R::engine, ColumnRole::kAbout);
    column("batch", &R::batch, ColumnRole::kAbout);
    column("prompt_tokens", &R::prompt_tokens, ColumnRole::kAbout);
    column("generated_tokens", &R::generated_tokens, ColumnRole::kAbout);
    column("key", &R::key, ColumnRole::kKey);
    column("predicted_prefill_s", &R::predicted_prefill_s, ColumnRole::kValue);
    column("measured_prefill_s", &R::measured_prefill_s, ColumnRole::kTime);
    column("predicted_generation_per_s", &R::predicted_generation_per_s, ColumnRole::kValue);
    column("measured_generation_per_s", &R::measured_generation_per_s, ColumnRole::kTime);
    column("prefill_p10_s", &R::prefill_p10_s, ColumnRole::kTime);
    column("prefill_p90_s", &R::prefill_p90_s, ColumnRole::kTime);
    column("generation_p10_per_s", &R::generation_p10_per_s, ColumnRole::kTime);
    column("generation_p90_per_s", &R::generation_p90_per_s, ColumnRole::kTime);
    column("samples", &R::samples, ColumnRole::kTime);
  }
};

// Calls `visitor` with a null pointer of each row type, in the order of RunTable.
template <class V>
void visit_tables(V&& visitor) {
  visitor(static_cast<const StageRecord*>(nullptr));
  visitor(static_cast<const ScoreRow*>(nullptr));
  visitor(static_cast<const CostRow*>(nullptr));
  visitor(static_cast<const CurveRow*>(nullptr));
  visitor(static_cast<const ArchitectureRow*>(nullptr));
  visitor(static_cast<const VariantRow*>(nullptr));
  visitor(static_cast<const ModelRow*>(nullptr));
  visitor(static_cast<const EvaluationRow*>(nullptr));
  visitor(static_cast<const ThroughputRow*>(nullptr));
}

}  // namespace puzzle
