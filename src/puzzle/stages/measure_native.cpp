// The native engine: every sub-block of our own decoder is timed alone, in stacks, with a KV cache.
#include <algorithm>
#include <chrono>
#include <functional>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/log.h"
#include "puzzle/base/progress.h"
#include "puzzle/model/decoder.h"
#include "puzzle/stages/measure.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

struct NativeCase {
  Phase phase;
  std::int64_t batch;
  std::int64_t context;
};

double timed_s(const c10::Device& device, std::int64_t calls, const std::function<void()>& call) {
  synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < calls; ++i) {
    call();
  }
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() /
         static_cast<double>(calls);
}

MeasuredCost as_row(const std::string& name, const NativeCase& query, const Timing& timing) {
  return {name,         query.phase,  query.batch,   query.context, timing.median_s,
          timing.p10_s, timing.p90_s, timing.samples};
}

// Times do not depend on values, so any weights of the right shape serve.
at::Tensor values_like(const NamedShape& wanted, const at::Tensor& like) {
  return at::full(wanted.shape, 0.01, like.options());
}

class NativeTimer {
 public:
  NativeTimer(const LoadedModel& parent, const MeasureOptions& options)
      : parent_(parent), options_(options), device_(parent.weights.embedding.device()) {}

  MeasuredCost attention(const AttentionSpec& spec, const NativeCase& query) const {
    const auto& like = parent_.weights.embedding;
    const AttentionWeights weights =
        make_attention(parent_.weights.spec, spec,
                       [&](const NamedShape& wanted) { return values_like(wanted, like); });
    const std::int64_t tokens = query.phase == Phase::kPrefill ? query.context : 1;
    const std::int64_t cached = query.phase == Phase::kPrefill ? 0 : query.context;
    const at::Tensor x = input(query, tokens);
    const PassContext pass = make_pass(parent_.geometry, tokens, x.scalar_type(), device_, cached);
    LayerCache cache;
    if (spec.kind == AttentionKind::kGqa) {
      const std::vector<std::int64_t> shape = {query.batch, spec.kv_heads, cached + tokens,
                                               parent_.geometry.head_dim};
      cache = {at::zeros(shape, like.options()), at::zeros(shape, like.options())};
    }
    return time(subblock_name(spec), query, [&] {
      (void)apply_attention(weights, parent_.geometry, x, pass,
                            spec.kind == AttentionKind::kGqa ? &cache : nullptr, cached);
    });
  }

  MeasuredCost ffn(const FfnSpec& spec, const NativeCase& query) const {
    const FfnWeights weights = make_ffn(parent_.weights.spec, spec, [&](const NamedShape& wanted) {
      return values_like(wanted, parent_.weights.embedding);
    });
    const at::Tensor x = input(query, query.phase == Phase::kPrefill ? query.context : 1);
    return time(subblock_name(spec), query, [&] { (void)apply_ffn(weights, parent_.geometry, x); });
  }

  MeasuredCost fixed(const NativeCase& query) const {
    const std::int64_t length = query.phase == Phase::kPrefill ? query.context : 1;
    const at::Tensor tokens =
        at::zeros({query.batch, length}, at::TensorOptions(device_).dtype(at::kLong));
    return time(std::string(kFixedSubblock), query, [&] {
      const at::Tensor x = embed(parent_.weights, tokens).narrow(1, length - 1, 1);
      (void)at::linear(final_hidden(parent_.weights, x), parent_.weights.head).argmax(-1);
    });
  }

 private:
  [[nodiscard]] at::Tensor input(const NativeCase& query, std::int64_t tokens) const {
    return at::full({query.batch, tokens, parent_.weights.spec.hidden_size}, 0.1,
                    parent_.weights.embedding.options());
  }

  [[nodiscard]] MeasuredCost time(const std::string& name, const NativeCase& query,
                                  const std::function<void()>& call) const {
    const Timing timing = measure_seconds(
        [&] { return timed_s(device_, options_.stack_layers, call); }, options_.timing);
    return as_row(name, query, timing);
  }

  const LoadedModel& parent_;
  const MeasureOptions& options_;
  c10::Device device_;
};

}  // namespace

std::vector<MeasuredCost> measure_native(const LoadedModel& parent, const SearchSpace& space,
                                         const Scenario& scenario, const MeasureOptions& options) {
  const c10::NoGradGuard no_grad;
  const DistinctSubblocks distinct = distinct_subblocks(space);
  std::vector<NativeCase> queries;
  for (const std::int64_t batch : scenario.batch) {
    for (const std::int64_t tokens : measured_contexts(scenario, options)) {
      queries.push_back({Phase::kPrefill, batch, tokens});
      queries.push_back({Phase::kGenerate, batch, tokens});
    }
  }
  log_info("measure: native on {}", describe_device(parent.weights.embedding.device()));
  const NativeTimer timer(parent, options);
  std::vector<MeasuredCost> rows;
  Progress progress(
      "measure",
      std::ssize(queries) * (std::ssize(distinct.attention) + std::ssize(distinct.ffn) + 1),
      "timings");
  const auto add = [&](MeasuredCost row) {
    rows.push_back(std::move(row));
    progress.advance();
  };
  for (const NativeCase& query : queries) {
    add(timer.fixed(query));
    for (const AttentionSpec& attention : distinct.attention) {
      if (attention.kind != AttentionKind::kNone) {
        add(timer.attention(attention, query));
      }
    }
    for (const FfnSpec& ffn : distinct.ffn) {
      if (ffn.kind != FfnKind::kNone) {
        add(timer.ffn(ffn, query));
      }
    }
  }
  return rows;
}

}  // namespace puzzle
