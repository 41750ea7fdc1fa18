// The native engine: stacks of one sub-block of our own decoder, each with weights and a KV cache
// of its own (or a second call would find them in the processor's cache), at two depths, whose
// difference is free of what a measurement costs by itself.
#include <chrono>
#include <functional>
#include <memory>
#include <optional>

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "puzzle/base/log.h"
#include "puzzle/model/decoder.h"
#include "puzzle/stages/measure_engines.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

// Short stacks are repeated until a sample is this long, or the clock would count too much.
constexpr double kShortestSample = 5e-3;

// Runs the copy of that index once.
using CopyCall = std::function<void(std::int64_t copy)>;

class NativeTimer {
 public:
  NativeTimer(const LoadedModel& parent, const DistinctSubblocks& distinct,
              std::vector<StackPoint> points, std::int64_t depth)
      : parent_(parent),
        points_(std::move(points)),
        depth_(depth),
        device_(parent.weights.embedding.device()) {
    const auto add = [&](const std::string& name, std::function<CopyCall(std::size_t)> prepare) {
      subblocks_.push_back({name, std::move(prepare)});
    };
    add(std::string(kFixedSubblock), [this](std::size_t point) { return rest(point); });
    for (const AttentionSpec& spec : distinct.attention) {
      if (spec.kind != AttentionKind::kNone) {
        add(subblock_name(spec),
            [this, spec](std::size_t point) { return attention(spec, point); });
      }
    }
    for (const FfnSpec& spec : distinct.ffn) {
      if (spec.kind != FfnKind::kNone) {
        add(subblock_name(spec), [this, spec](std::size_t point) { return ffn(spec, point); });
      }
    }
  }

  // Two stacks per sub-block: all copies, and half of them.
  [[nodiscard]] StackPlan plan() const {
    StackPlan plan{{}, points_, "overhead"};
    for (const Subblock& subblock : subblocks_) {
      plan.counts.push_back({{subblock.name, depth_}});
      plan.counts.push_back({{subblock.name, depth_ / 2}});
    }
    return plan;
  }

  std::vector<double> time(std::size_t stack) {
    const std::int64_t copies = stack % 2 == 0 ? depth_ : depth_ / 2;
    if (stack % 2 == 0) {  // the second stack takes the first one's weights
      calls_.clear();
      weights_.reset();
      for (std::size_t p = 0; p < points_.size(); ++p) {
        calls_.push_back(subblocks_[stack / 2].prepare(p));
      }
    }
    std::vector<double> seconds;
    for (const CopyCall& call : calls_) {
      seconds.push_back(timed_s(call, copies));
    }
    return seconds;
  }

 private:
  struct Subblock {
    std::string name;
    std::function<CopyCall(std::size_t point)> prepare;
  };
  struct Weights {
    std::vector<AttentionWeights> attention;
    std::vector<FfnWeights> ffn;
  };

  [[nodiscard]] double timed_s(const CopyCall& call, std::int64_t copies) const {
    synchronize(device_);
    const auto start = std::chrono::steady_clock::now();
    double passed_s = 0.0;
    std::int64_t runs = 0;
    while (runs == 0 || passed_s < kShortestSample) {
      for (std::int64_t copy = 0; copy < copies; ++copy) {
        call(copy);
      }
      synchronize(device_);
      ++runs;
      passed_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return passed_s / static_cast<double>(runs);
  }

  // Times do not depend on values, so any weights of the right shape serve.
  [[nodiscard]] TensorSource constants() const {
    return [this](const NamedShape& wanted) {
      return at::full(wanted.shape, 0.01, parent_.weights.embedding.options());
    };
  }

  // Made once for all points.
  template <class Make>
  const Weights& weights(const Make& make) {
    if (!weights_) {
      weights_.emplace();
      for (std::int64_t copy = 0; copy < depth_; ++copy) {
        make(*weights_);
      }
    }
    return *weights_;
  }

  CopyCall attention(const AttentionSpec& spec, std::size_t point) {
    const Weights& all = weights([&](Weights& w) {
      w.attention.push_back(make_attention(parent_.weights.spec, spec, constants()));
    });
    const bool is_prefill = points_[point].phase == Phase::kPrefill;
    const std::int64_t cached = is_prefill ? 0 : points_[point].context;
    const at::Tensor x = input(point);
    const PassContext pass =
        make_pass(parent_.geometry, x.size(1), x.scalar_type(), device_, cached);
    auto caches = std::make_shared<std::vector<LayerCache>>();
    for (std::int64_t copy = 0; spec.kind == AttentionKind::kGqa && copy < depth_; ++copy) {
      const std::vector<std::int64_t> shape = {x.size(0), spec.kv_heads, cached + x.size(1),
                                               parent_.geometry.head_dim};
      caches->push_back({at::zeros(shape, x.options()), at::zeros(shape, x.options())});
    }
    return [this, &all, caches, pass, x, cached](std::int64_t copy) {
      const auto i = static_cast<std::size_t>(copy);
      (void)apply_attention(all.attention[i], parent_.geometry, x, pass,
                            caches->empty() ? nullptr : &(*caches)[i], cached);
    };
  }

  CopyCall ffn(const FfnSpec& spec, std::size_t point) {
    const Weights& all = weights(
        [&](Weights& w) { w.ffn.push_back(make_ffn(parent_.weights.spec, spec, constants())); });
    return [this, &all, x = input(point)](std::int64_t copy) {
      (void)apply_ffn(all.ffn[static_cast<std::size_t>(copy)], parent_.geometry, x);
    };
  }

  // Embedding, head and the choice of a token; only one copy, which is larger than any cache.
  [[nodiscard]] CopyCall rest(std::size_t point) const {
    const std::int64_t length = new_tokens(point);
    const at::Tensor tokens =
        at::zeros({points_[point].batch, length}, at::TensorOptions(device_).dtype(at::kLong));
    return [this, tokens, length](std::int64_t /*copy*/) {
      const at::Tensor x = embed(parent_.weights, tokens).narrow(1, length - 1, 1);
      (void)at::linear(final_hidden(parent_.weights, x), parent_.weights.head).argmax(-1);
    };
  }

  [[nodiscard]] std::int64_t new_tokens(std::size_t point) const {
    return points_[point].phase == Phase::kPrefill ? points_[point].context : 1;
  }

  [[nodiscard]] at::Tensor input(std::size_t point) const {
    return at::full({points_[point].batch, new_tokens(point), parent_.weights.spec.hidden_size},
                    0.1, parent_.weights.embedding.options());
  }

  const LoadedModel& parent_;
  std::vector<StackPoint> points_;
  std::int64_t depth_;
  c10::Device device_;
  std::vector<Subblock> subblocks_;
  std::optional<Weights> weights_;  // of the sub-block that is being timed
  std::vector<CopyCall> calls_;     // of the same, per point
};

}  // namespace

StackCosts measure_native(const LoadedModel& parent, const SearchSpace& space,
                          const Scenario& scenario, const MeasureOptions& options,
                          const TimingPolicy& timing, const KeepStep& keep_step) {
  const c10::NoGradGuard no_grad;
  std::vector<StackPoint> points;
  for (const std::int64_t batch : scenario.batch) {
    for (const std::int64_t tokens : measured_contexts(scenario, options)) {
      points.push_back({Phase::kPrefill, batch, tokens});
      points.push_back({Phase::kGenerate, batch, tokens});
    }
  }
  log_info("measure: native on {}", describe_device(parent.weights.embedding.device()));
  NativeTimer timer(parent, timed_subblocks(space, options), points, options.stack_layers);
  return measure_stacks(timer.plan(), timing,
                        {.time = [&timer](std::size_t stack) { return timer.time(stack); },
                         .after_pass = [&](const StackSamples&) { keep_step(); }});
}

}  // namespace puzzle
