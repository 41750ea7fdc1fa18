// What a run records, one struct per table of run.db.
//
// Every row has a `key`: the content key (base/hash.h) of the work that made it. Rows of equal
// primary key (marked PK) replace each other. Doubles are kept bit by bit; infinities are allowed,
// NaN is refused. An unset optional and a standard error of 0 mean "not known". Texts ending in
// _json hold a JSON value. Times are in seconds, sizes in bytes, damage in nats per token.
//
// Model names ("parent", "child", …) tie ModelRow, EvaluationRow and ThroughputRow together.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace puzzle {

// "The work with this content key is done."
struct StageRecord {
  std::string key{};               // PK
  std::string stage{};             // the verb, e.g. "score"
  std::string what{};              // the part, e.g. "layer 7"; for people
  double seconds = 0.0;            // wall time
  std::string finished_at{};       // UTC, "2026-10-31T12:00:00Z"; filled in by put() if empty
  std::string detail_json = "{}";  // members named *_s, *_at and *_per_s are times
};

// Damage of one variant in one layer; lower is better for kl and lm_loss.
struct ScoreRow {
  std::string key{};       // PK
  std::int64_t layer = 0;  // PK
  std::string block{};     // PK; "kv3/w768". A sub-block variant has the parent's other half
  std::string method{};    // PK; "replace-one", …
  std::string metric{};    // PK; "kl", "lm_loss" (increase over the parent), "top1" (agreement),
                           // "downstream" (accuracy lost on questions); of method "gradient" also
                           // what "kl" is made of (score_gradient.h)
  double value = 0.0;
  double standard_error = 0.0;
  std::int64_t tokens = 0;
};

// Seconds of one sub-block, or of the fixed rest, in one engine.
struct CostRow {
  std::string key{};         // PK
  std::string engine{};      // PK; "native", "llama-server", "table", "roofline"
  std::string subblock{};    // PK; "attention/kv3", "ffn/w768", "fixed"
  std::string phase{};       // PK; "prefill" or "generate"
  std::int64_t batch = 1;    // PK
  std::int64_t context = 0;  // PK; prefill: prompt length; generate: tokens in the cache
  double seconds = 0.0;      // as in MeasuredCost; of the prompt, or of one step
  double p10_s = 0.0;
  double p90_s = 0.0;
  std::int64_t samples = 0;
  std::string detail_json = "{}";
};

// One point of a training curve.
struct CurveRow {
  std::string key{};        // PK; of the training the curve belongs to
  std::string stage{};      // PK; "distill-blocks", "distill-child"
  std::string series{};     // PK; "layer 7/ffn/w768" (a variant as in VariantRow), a child's name
  std::string metric{};     // PK; "loss", "kl", "heldout_kl", "heldout_error", "learning_rate", …
  std::int64_t step = 0;    // PK; optimiser steps taken
  std::int64_t tokens = 0;  // trained on until here
  double value = 0.0;
};

// One answer of the search.
struct ArchitectureRow {
  std::string key{};          // PK
  std::string name{};         // "child", "uniform", "sweep-1.3x"; unique in a run
  std::string method{};       // "mip", "greedy", "uniform", "depth-only", …, "rounds", "local"
  std::int64_t solution = 0;  // PK; 0 = best of several diverse ones
  std::vector<std::string> blocks{};  // one per layer, "kv3/w768"
  double objective = 0.0;             // sum of scores, predicted
  std::string costs_json = "{}";  // predicted sums by cost name: {"parameters": …, "weight_bytes":
                                  // …, "generation_tokens_per_s": …}; *_s seconds, *_bytes bytes,
                                  // *_mib MiB, *_per_s rates, else counts
  std::string budget{};           // for people, e.g. "generation_tokens_per_s >= 1.3x parent"
  double gap = 0.0;               // proven relative gap; 0 for methods without a bound
  // "batch"; "swept_cost", "curve" (a point of a sweep); "measured_kl", "measured_kl_se",
  // "measured_minus_child", "measured_minus_child_se", "measured_tokens" (measured as assembled)
  std::string detail_json = "{}";
};

// One variant of the library: its quality on held-out tokens before and after training.
struct VariantRow {
  std::string key{};          // PK
  std::int64_t layer = 0;     // PK
  std::string variant{};      // PK; "attention/kv1", "ffn/w768"; coupled pairs "block/kv1/w768"
  std::string stage{};        // PK; "init-library" or "distill-blocks"
  std::string init{};         // "least-squares", "paper", "parent"
  double error_before = 0.0;  // residual-free, MSE(out) / MSE(0); 1 = as bad as "none"
  std::optional<double> error_after{};  // unset where nothing was trained
  std::optional<double> loss_before{};  // training loss on held-out tokens
  std::optional<double> loss_after{};
  std::int64_t tokens = 0;  // calibrated or trained on
  std::string kept{};       // "before" or "after"
};

inline constexpr const char* kParentModel = "parent";  // ModelRow::name and role of the parent

// A model the run looked at: the parent, the child, the children it is compared with.
struct ModelRow {
  std::string key{};    // PK
  std::string name{};   // PK; "parent", "child", "uniform", …
  std::string role{};   // "parent"; "child" = the run's result; "before" = an earlier state of it;
                        // "baseline" = another child at the same budget
  std::string label{};  // for people: "Our child", "Paper's initialisation"
  std::string architecture{};  // ArchitectureRow::name; empty for the parent
  std::int64_t parameters = 0;
  std::int64_t weight_bytes = 0;             // as computed with in evaluation
  std::optional<std::int64_t> file_bytes{};  // of the export named in detail_json "file"
  std::optional<std::int64_t> kv_bytes_per_token{};
  std::string detail_json = "{}";
};

// One number about one model. Fractions are in [0, 1].
struct EvaluationRow {
  std::string key{};    // PK
  std::string model{};  // PK; ModelRow::name
  std::string task{};   // PK; "held-out text", "blimp", …
  // PK; lower is better: "kl", "loss", "perplexity", "bits_per_byte"; higher is better: "top1",
  // "accuracy", "accuracy_norm", …. A metric "X_minus_parent" is the paired difference to the
  // parent, with its own (smaller) error.
  std::string metric{};
  double value = 0.0;
  double standard_error = 0.0;
  std::int64_t count = 0;  // tokens or questions
};

// Predicted next to measured speed of one model in one engine.
struct ThroughputRow {
  std::string key{};                  // PK
  std::string model{};                // PK; ModelRow::name
  std::string engine{};               // PK
  std::int64_t batch = 1;             // PK
  std::int64_t prompt_tokens = 0;     // PK; per sequence
  std::int64_t generated_tokens = 0;  // PK; per sequence
  std::optional<double> predicted_prefill_s{};
  std::optional<double> measured_prefill_s{};          // median, as the next one
  std::optional<double> predicted_generation_per_s{};  // tokens/s of generation, over the batch
  std::optional<double> measured_generation_per_s{};
  std::optional<double> prefill_p10_s{};
  std::optional<double> prefill_p90_s{};
  std::optional<double> generation_p10_per_s{};
  std::optional<double> generation_p90_per_s{};
  std::int64_t samples = 0;
};

// A fact about the run; well-known names are in facts.h.
struct MetaRow {
  std::string name{};  // PK; *_at and *_s are times
  std::string value{};
};

}  // namespace puzzle
