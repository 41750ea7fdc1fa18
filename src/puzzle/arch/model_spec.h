// A Llama-type model as data: what its tensors are shaped like and what it computes. Parent and
// child are the same type; a parent's layers are merely all alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "puzzle/arch/block_spec.h"

namespace puzzle {

class KeyBuilder;

enum class RopeKind { kDefault, kLinear, kLlama3, kYarn };

// Rotary position embedding (docs/formats.md). Fields beyond `theta` matter only to the
// kinds that use them.
struct RopeSpec {
  RopeKind kind = RopeKind::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                 // linear, llama3, yarn
  double low_frequency_factor = 1.0;   // llama3
  double high_frequency_factor = 4.0;  // llama3
  std::int64_t original_context = 0;   // llama3, yarn; tokens
  double beta_fast = 32.0;             // yarn
  double beta_slow = 1.0;              // yarn
  double attention_factor = 0.0;       // yarn; 0 = 0.1 ln(factor) + 1
  bool truncate = true;                // yarn: floor/ceil of the ramp's ends
  // llama3: what each of the E/2 frequencies is divided by, where a file gives the numbers
  // themselves (GGUF's rope_freqs.weight). They win over the four fields above, which may then be 0
  // if no setting of them gives these numbers.
  std::vector<float> frequency_divisors = {};

  bool operator==(const RopeSpec&) const = default;
};

struct ModelSpec {
  std::string family = "llama";  // what is computed; Mistral and Qwen are fields of it below
  std::string name;              // for people: general.name or the folder's name
  std::int64_t hidden_size = 0;  // D
  std::int64_t num_heads = 0;    // H, query heads of every attention
  std::int64_t head_dim = 0;     // E; H * E need not equal D
  std::int64_t vocab_size = 0;   // V, rows of the embedding; may exceed the tokenizer's count
  std::int64_t context_length = 0;
  // Why this is exact only up to context_length and the file promises more (a sliding window,
  // dynamic rotary scaling): for people; empty where the file promises no more.
  std::string context_limit;
  double rms_norm_eps = 1e-5;
  bool tie_embeddings = false;
  bool attention_bias = false;         // on q, k, v
  bool attention_output_bias = false;  // on o
  bool mlp_bias = false;               // on gate, up, down
  bool qk_norm = false;                // RMSNorm over E of each head of q and k, before rotation
  RopeSpec rope;
  std::int64_t bos_token = -1;  // -1 = none
  std::vector<std::int64_t> eos_tokens;
  Architecture layers;

  [[nodiscard]] std::int64_t num_layers() const { return static_cast<std::int64_t>(layers.size()); }
  bool operator==(const ModelSpec&) const = default;
};

// Checks that the numbers make a model (positive, KV heads divide heads, even head width, …) and
// are small enough that every count of cost.h fits into 63 bits. `place` opens the message. Throws
// Error(kFormat).
void check_model_spec(const ModelSpec& spec, const std::string& place);

// Largest sizes that check_model_spec accepts; readers check counts against them before allocating.
inline constexpr std::int64_t kMaxLayers = 4096;
inline constexpr std::int64_t kMaxHiddenSize = std::int64_t{1} << 20;  // also H * E
inline constexpr std::int64_t kMaxFfnWidth = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxVocabSize = std::int64_t{1} << 26;

// Name as files write it: "default", "linear", "llama3", "yarn".
[[nodiscard]] std::string_view rope_kind_name(RopeKind kind);

// Ends the context where `why` says that the model would become another function, and keeps that
// with what the file says in context_limit.
void limit_context(ModelSpec& spec, std::int64_t tokens, std::string_view why);
inline constexpr std::string_view kSlidingWindowLimit =
    "beyond it attention would slide a window, which this program lacks";

// The same model with other layers.
[[nodiscard]] ModelSpec with_layers(ModelSpec spec, Architecture layers);

// Everything that changes what the model computes; not its name or context_limit.
void add_model_spec_to_key(KeyBuilder& key, const ModelSpec& spec);

}  // namespace puzzle
