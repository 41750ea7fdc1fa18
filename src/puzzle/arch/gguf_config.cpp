#include "puzzle/arch/gguf_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "puzzle/arch/gguf_foreign.h"
#include "puzzle/arch/gguf_lowered.h"
#include "puzzle/base/error.h"

namespace puzzle {
namespace {

// Mistral is written as llama.
constexpr std::array<std::string_view, 5> kArchitectures = {"llama", "deci", "openelm", "qwen2",
                                                            "qwen3"};

class ConfigReader {
 public:
  ConfigReader(const GgufFile& file, std::string architecture)
      : file_(file), architecture_(std::move(architecture)), place_(file.path().string()) {}

  ModelSpec read();

 private:
  [[nodiscard]] std::string key(std::string_view name) const {
    return fmt::format("{}.{}", architecture_, name);
  }
  [[nodiscard]] bool is_openelm() const { return architecture_ == "openelm"; }
  [[nodiscard]] bool has(std::string_view name) const { return file_.has(key(name)); }
  [[nodiscard]] double real(std::string_view name, double fallback) const;
  [[nodiscard]] bool has_tensor(std::int64_t layer, std::string_view part) const {
    return file_.find_tensor(fmt::format("blk.{}.{}", layer, part)) != nullptr;
  }

  void refuse_foreign_tensors(const ModelSpec& spec) const;
  void add_tensor_names(const ModelSpec& spec, std::int64_t layer,
                        std::set<std::string, std::less<>>& names) const;
  void read_sizes(ModelSpec& spec) const;
  void read_vocabulary(ModelSpec& spec) const;
  void read_layers(ModelSpec& spec) const;
  void read_head_dim(ModelSpec& spec) const;
  [[nodiscard]] BlockSpec written_block(std::int64_t layer) const;
  [[nodiscard]] RopeSpec read_rope(const ModelSpec& spec) const;
  void read_yarn(const ModelSpec& spec, RopeSpec& rope) const;
  void read_frequency_divisors(const ModelSpec& spec, RopeSpec& rope) const;
  void read_optional_tensors(ModelSpec& spec) const;
  template <class IsMeant>
  bool read_tensor_set(const ModelSpec& spec, std::initializer_list<const char*> parts,
                       IsMeant&& is_meant) const;
  void read_sliding_window(ModelSpec& spec) const;

  const GgufFile& file_;
  std::string architecture_;
  std::string place_;
  std::vector<std::int64_t> heads_, kv_heads_, widths_;  // per layer, as written
};

// f32 keys hold decimal numbers that people chose: 1e-05, not 9.99999974737875e-06.
double ConfigReader::real(std::string_view name, double fallback) const {
  const GgufValue* value = file_.find_value(key(name));
  const float* single = value == nullptr ? nullptr : std::get_if<float>(value);
  if (single == nullptr || !std::isfinite(*single)) {
    return file_.real_value(key(name), fallback);
  }
  const std::string text = fmt::format("{}", *single);
  double decimal = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), decimal);
  return decimal;
}

void ConfigReader::read_sizes(ModelSpec& spec) const {
  spec.name = file_.string_value("general.name", file_.path().stem().string());
  spec.hidden_size = file_.int_value(key("embedding_length"));
  spec.context_length = file_.int_value(key("context_length"));
  if (!has("attention.layer_norm_rms_epsilon")) {
    fail(ErrorKind::kFormat, "{}: the key {} is missing", place_,
         key("attention.layer_norm_rms_epsilon"));
  }
  spec.rms_norm_eps = real("attention.layer_norm_rms_epsilon", 0.0);
}

void ConfigReader::read_vocabulary(ModelSpec& spec) const {
  const StoredTensor& embedding = file_.tensor("token_embd.weight");
  if (embedding.shape.size() != 2 || embedding.shape[1] != spec.hidden_size) {
    fail(ErrorKind::kFormat, "{}: tensor token_embd.weight is [{}], expected rows of {} from {}",
         place_, fmt::join(embedding.shape, ", "), spec.hidden_size, key("embedding_length"));
  }
  spec.vocab_size = file_.int_value(key("vocab_size"), embedding.shape[0]);
  if (spec.vocab_size != embedding.shape[0]) {
    fail(ErrorKind::kFormat, "{}: {} is {}, but token_embd.weight has {} rows", place_,
         key("vocab_size"), spec.vocab_size, embedding.shape[0]);
  }
  spec.tie_embeddings = is_openelm() || file_.find_tensor("output.weight") == nullptr;
  spec.bos_token = file_.int_value("tokenizer.ggml.bos_token_id", -1);
  for (const char* name : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const std::int64_t token = file_.int_value(name, -1);
    const bool known =
        std::find(spec.eos_tokens.begin(), spec.eos_tokens.end(), token) != spec.eos_tokens.end();
    if (token >= 0 && !known) {
      spec.eos_tokens.push_back(token);
    }
  }
}

BlockSpec ConfigReader::written_block(std::int64_t layer) const {
  const auto i = static_cast<std::size_t>(layer);
  BlockSpec block;
  if (kv_heads_[i] > 0) {
    block.attention = AttentionSpec::gqa(kv_heads_[i]);
  } else if (heads_[i] > 0) {
    block.attention = AttentionSpec::linear();
  }
  if (widths_[i] > 0) {
    block.ffn = FfnSpec::swiglu(widths_[i]);
  }
  return block;
}

void ConfigReader::read_layers(ModelSpec& spec) const {
  const bool is_deci = architecture_ == "deci";
  spec.num_heads = *std::max_element(heads_.begin(), heads_.end());
  for (std::size_t i = 0; i < heads_.size(); ++i) {
    if (heads_[i] < 0 || kv_heads_[i] < 0 || widths_[i] < 0 || widths_[i] > kMaxFfnWidth) {
      fail(ErrorKind::kFormat, "{}: layer {} has {} heads, {} KV heads and FFN width {}", place_, i,
           heads_[i], kv_heads_[i], widths_[i]);
    }
    const auto layer = static_cast<std::int64_t>(i);
    const BlockSpec written = written_block(layer);
    spec.layers.push_back(written);
    if (is_deci || is_openelm()) {
      spec.layers.back() = undo_lowering(parse_export_target(architecture_), file_, layer,
                                         spec.hidden_size, written);
    }
    // In openelm the heads of an attention that is none are no part of the model.
    const bool has_own_heads =
        is_openelm() && spec.layers.back().attention == AttentionSpec::none();
    const bool has_all =
        (has_own_heads || heads_[i] == spec.num_heads) && kv_heads_[i] > 0 && widths_[i] > 0;
    if (!is_deci && !has_all) {
      fail(ErrorKind::kFormat,
           "{}: layer {} has {} heads, {} KV heads and FFN width {}, but architecture {} has all "
           "parts in every layer",
           place_, i, heads_[i], kv_heads_[i], widths_[i], architecture_);
    }
    if (heads_[i] != 0 && heads_[i] != spec.num_heads && !has_own_heads) {
      fail(ErrorKind::kFormat, "{}: layer {} has {} heads and others {}; expected one number",
           place_, i, heads_[i], spec.num_heads);
    }
    if (heads_[i] == 0 && kv_heads_[i] != 0) {
      fail(ErrorKind::kFormat, "{}: layer {} has {} KV heads but no heads", place_, i,
           kv_heads_[i]);
    }
  }
}

void ConfigReader::read_head_dim(ModelSpec& spec) const {
  if (spec.num_heads < 1) {
    fail(ErrorKind::kFormat, "{}: no layer has attention heads", place_);
  }
  spec.head_dim = file_.int_value(key("attention.key_length"), spec.hidden_size / spec.num_heads);
  for (const char* name : {"attention.value_length", "rope.dimension_count"}) {
    if (const std::int64_t other = file_.int_value(key(name), spec.head_dim);
        other != spec.head_dim) {
      fail(ErrorKind::kFormat, "{}: {} is {}, expected the head width {}", place_, key(name), other,
           spec.head_dim);
    }
  }
}

void ConfigReader::read_yarn(const ModelSpec& spec, RopeSpec& rope) const {
  rope.original_context =
      file_.int_value(key("rope.scaling.original_context_length"), spec.context_length);
  rope.beta_fast = real("rope.scaling.yarn_beta_fast", rope.beta_fast);
  rope.beta_slow = real("rope.scaling.yarn_beta_slow", rope.beta_slow);
  // llama.cpp multiplies its own 0.1 ln(factor) + 1 by this number.
  if (const double scale = real("rope.scaling.attn_factor", 1.0); scale != 1.0) {
    rope.attention_factor = scale * (0.1 * std::log(rope.factor) + 1.0);
  }
}

void ConfigReader::read_frequency_divisors(const ModelSpec& spec, RopeSpec& rope) const {
  const StoredTensor& tensor = file_.tensor("rope_freqs.weight");
  const std::vector<std::int64_t> expected = {spec.head_dim / 2};
  if (tensor.dtype != DType::kF32 || tensor.shape != expected) {
    fail(ErrorKind::kFormat, "{}: tensor rope_freqs.weight is {} [{}], expected F32 [{}]", place_,
         dtype_name(tensor.dtype), fmt::join(tensor.shape, ", "), spec.head_dim / 2);
  }
  rope.kind = RopeKind::kLlama3;
  rope.frequency_divisors.resize(static_cast<std::size_t>(spec.head_dim / 2));
  std::memcpy(rope.frequency_divisors.data(), tensor.bytes.data(), tensor.bytes.size());
  find_llama3_settings(rope, spec.head_dim);
}

RopeSpec ConfigReader::read_rope(const ModelSpec& spec) const {
  RopeSpec rope;
  rope.theta = real("rope.freq_base", rope.theta);
  // llama.cpp: the older key is the fallback of the newer, and a factor without a type is linear.
  const double factor = real("rope.scaling.factor", real("rope.scale_linear", 1.0));
  const bool scaled = factor != 0.0 && factor != 1.0;
  const std::string type = file_.string_value(key("rope.scaling.type"), scaled ? "linear" : "none");
  if (type == "yarn") {
    rope.kind = RopeKind::kYarn;
    rope.factor = factor;
    read_yarn(spec, rope);
  } else if (type == "linear") {
    rope.kind = scaled ? RopeKind::kLinear : RopeKind::kDefault;
    rope.factor = scaled ? factor : 1.0;
  } else if (type != "none") {
    fail(ErrorKind::kFormat, "{}: {} is '{}', expected none, linear or yarn", place_,
         key("rope.scaling.type"), type);
  }
  if (rope.kind != RopeKind::kYarn && real("rope.scaling.attn_factor", 1.0) != 1.0) {
    fail(ErrorKind::kFormat, "{}: {} without yarn is not supported", place_,
         key("rope.scaling.attn_factor"));
  }
  if (file_.find_tensor("rope_freqs.weight") != nullptr) {
    if (rope.kind != RopeKind::kDefault) {
      fail(ErrorKind::kFormat, "{}: both rope_freqs.weight and {} scaling, expected one", place_,
           rope_kind_name(rope.kind));
    }
    read_frequency_divisors(spec, rope);
  }
  return rope;
}

// True if the layers that are meant hold all of the tensors, false if they hold none.
template <class IsMeant>
bool ConfigReader::read_tensor_set(const ModelSpec& spec, std::initializer_list<const char*> parts,
                                   IsMeant&& is_meant) const {
  std::string present;
  std::string missing;
  for (std::size_t i = 0; i < spec.layers.size(); ++i) {
    for (const char* part : parts) {
      if (is_meant(spec.layers[i])) {
        const auto layer = static_cast<std::int64_t>(i);
        (has_tensor(layer, part) ? present : missing) = fmt::format("blk.{}.{}", i, part);
      }
    }
  }
  if (!present.empty() && !missing.empty()) {
    fail(ErrorKind::kFormat,
         "{}: tensor {} is there, but {} is not; expected such tensors in all layers or in none",
         place_, present, missing);
  }
  return !present.empty();
}

void ConfigReader::read_optional_tensors(ModelSpec& spec) const {
  const auto is_gqa = [](const BlockSpec& b) { return b.attention.kind == AttentionKind::kGqa; };
  const auto is_swiglu = [](const BlockSpec& b) { return b.ffn.kind == FfnKind::kSwiglu; };
  spec.attention_bias =
      read_tensor_set(spec, {"attn_q.bias", "attn_k.bias", "attn_v.bias"}, is_gqa);
  spec.attention_output_bias = read_tensor_set(spec, {"attn_output.bias"}, is_gqa);
  spec.mlp_bias =
      read_tensor_set(spec, {"ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"}, is_swiglu);
  if (architecture_ == "qwen3" || is_openelm()) {  // in the others such tensors are foreign
    spec.qk_norm = read_tensor_set(spec, {"attn_q_norm.weight", "attn_k_norm.weight"}, is_gqa);
    if (!spec.qk_norm) {
      fail(ErrorKind::kFormat, "{}: architecture {} without attn_q_norm.weight in any layer",
           place_, architecture_);
    }
  }
}

// llama.cpp itself ignores the key in these architectures; the models it came from do not.
void ConfigReader::read_sliding_window(ModelSpec& spec) const {
  const std::int64_t window = file_.int_value(key("attention.sliding_window"), 0);
  if (window < 0) {
    fail(ErrorKind::kFormat, "{}: {} is {}, expected at least 0", place_,
         key("attention.sliding_window"), window);
  }
  if (window > 0 && window < spec.context_length) {
    limit_context(spec, window, kSlidingWindowLimit);
  }
}

// What the layer holds as written, before a rewrite was undone.
void ConfigReader::add_tensor_names(const ModelSpec& spec, std::int64_t layer,
                                    std::set<std::string, std::less<>>& names) const {
  const auto add = [&](std::initializer_list<const char*> parts, const char* suffix) {
    for (const char* part : parts) {
      names.insert(fmt::format("blk.{}.{}.{}", layer, part, suffix));
    }
  };
  const BlockSpec written = written_block(layer);
  if (written.attention.kind == AttentionKind::kGqa) {
    add({"attn_norm", "attn_output"}, "weight");
    if (is_openelm()) {
      add({"attn_qkv"}, "weight");
    } else {
      add({"attn_q", "attn_k", "attn_v"}, "weight");
    }
    if (spec.attention_bias) {
      add({"attn_q", "attn_k", "attn_v"}, "bias");
    }
    if (spec.attention_output_bias) {
      add({"attn_output"}, "bias");
    }
    if (spec.qk_norm) {
      add({"attn_q_norm", "attn_k_norm"}, "weight");
    }
  } else if (written.attention.kind == AttentionKind::kLinear) {
    add({"attn_norm", "attn_output"}, "weight");
  }
  if (written.ffn.kind == FfnKind::kSwiglu) {
    add({"ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}, "weight");
    const FfnKind kind = spec.layers[static_cast<std::size_t>(layer)].ffn.kind;
    if (kind == FfnKind::kLinear) {
      add({"ffn_gate"}, "bias");
    } else if (kind == FfnKind::kSwiglu && spec.mlp_bias) {
      add({"ffn_gate", "ffn_up", "ffn_down"}, "bias");
    }
  }
}

// A tensor that no part of the model reads would change what the file's own engine computes.
void ConfigReader::refuse_foreign_tensors(const ModelSpec& spec) const {
  std::set<std::string, std::less<>> names = {"token_embd.weight", "output_norm.weight"};
  if (!is_openelm()) {
    names.insert({"output.weight", "rope_freqs.weight"});
  }
  for (std::int64_t i = 0; i < spec.num_layers(); ++i) {
    add_tensor_names(spec, i, names);
  }
  for (const StoredTensor& tensor : file_.tensors()) {
    if (!names.contains(tensor.name)) {
      fail(ErrorKind::kFormat,
           "{}: tensor {} is not supported in architecture {} with these keys; it would be ignored",
           place_, tensor.name, architecture_);
    }
  }
}

ModelSpec ConfigReader::read() {
  ModelSpec spec;
  refuse_foreign_gguf_keys(file_, architecture_);
  read_sizes(spec);
  read_vocabulary(spec);
  const std::int64_t num_layers = file_.int_value(key("block_count"));
  if (num_layers < 1 || num_layers > kMaxLayers) {
    fail(ErrorKind::kFormat, "{}: {} is {}, expected 1 … {}", place_, key("block_count"),
         num_layers, kMaxLayers);
  }
  heads_ = file_.int_list(key("attention.head_count"), num_layers);
  kv_heads_ = has("attention.head_count_kv")
                  ? file_.int_list(key("attention.head_count_kv"), num_layers)
                  : heads_;
  widths_ = file_.int_list(key("feed_forward_length"), num_layers);
  read_layers(spec);
  read_head_dim(spec);
  spec.rope = read_rope(spec);
  read_optional_tensors(spec);
  read_sliding_window(spec);
  check_model_spec(spec, place_);
  refuse_foreign_tensors(spec);
  return spec;
}

}  // namespace

ModelSpec read_gguf_config(const GgufFile& file) {
  const std::string& architecture = file.string_value("general.architecture");
  if (std::find(kArchitectures.begin(), kArchitectures.end(), architecture) ==
      kArchitectures.end()) {
    fail(ErrorKind::kFormat, "{}: architecture '{}' is not supported, expected {}",
         file.path().string(), architecture, fmt::join(kArchitectures, ", "));
  }
  return ConfigReader(file, architecture).read();
}

bool has_fused_attention(const GgufFile& file) {
  return file.string_value("general.architecture") == "openelm";
}

bool has_interleaved_rotary_rows(const GgufFile& file) {
  const std::string& architecture = file.string_value("general.architecture");
  return architecture == "llama" || architecture == "deci";
}

}  // namespace puzzle
