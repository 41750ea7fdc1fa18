#include "puzzle/arch/cost.h"

#include <limits>

#include <gtest/gtest.h>

#include "arch/naive_tensors.h"
#include "puzzle/arch/gguf_config.h"
#include "puzzle/formats/gguf.h"
#include "support/expect_error.h"
#include "support/shared_data.h"

namespace puzzle {
namespace {

using test::NaiveTensor;
using test::small_spec;

// Bytes by the block layouts of ggml, written out here.
std::int64_t naive_bytes(DType dtype, std::int64_t elements) {
  switch (dtype) {
    case DType::kF32:
      return 4 * elements;
    case DType::kF16:
    case DType::kBF16:
      return 2 * elements;
    case DType::kQ8_0:
      return elements / 32 * 34;
    case DType::kQ4_0:
      return elements / 32 * 18;
    case DType::kQ4_1:
      return elements / 32 * 20;
    case DType::kQ5_0:
      return elements / 32 * 22;
    case DType::kQ4_K:
      return elements / 256 * 144;
    case DType::kQ6_K:
      return elements / 256 * 210;
    default:
      ADD_FAILURE() << "no layout for " << dtype_name(dtype);
      return 0;
  }
}

// Vectors and rows that fill no block of 32 fall back as cost.h says.
std::int64_t naive_bytes(const std::vector<NaiveTensor>& tensors, const WeightTypes& types) {
  std::int64_t sum = 0;
  for (const NaiveTensor& tensor : tensors) {
    const bool is_vocabulary = tensor.name.find("embd") != std::string::npos ||
                               tensor.name.find("embed") != std::string::npos ||
                               tensor.name.find("lm_head") != std::string::npos ||
                               tensor.name == "output.weight";
    DType dtype = is_vocabulary ? types.embedding : types.matrix;
    if (tensor.shape.size() == 1) {
      dtype = types.vector;
    } else if (dtype == DType::kQ4_K && tensor.shape[1] % 256 != 0 && tensor.shape[1] % 32 == 0) {
      dtype = DType::kQ5_0;
    } else if (dtype == DType::kQ6_K && tensor.shape[1] % 256 != 0 && tensor.shape[1] % 32 == 0) {
      dtype = DType::kQ8_0;
    } else if (tensor.shape[1] % 32 != 0 && dtype != DType::kF32 && dtype != DType::kBF16) {
      dtype = DType::kF16;
    }
    sum += naive_bytes(dtype, tensor.elements());
  }
  return sum;
}

std::int64_t naive_kv_elements(const ModelSpec& spec) {
  std::int64_t sum = 0;
  for (const BlockSpec& block : spec.layers) {
    sum += block.attention.kind == AttentionKind::kGqa
               ? 2 * block.attention.kv_heads * spec.head_dim
               : 0;
  }
  return sum;
}

std::vector<WeightTypes> weight_types() {
  return {{.kv = DType::kF16},
          {.matrix = DType::kF16, .embedding = DType::kF16, .kv = DType::kF32},
          {.matrix = DType::kBF16, .embedding = DType::kBF16, .vector = DType::kBF16},
          {.matrix = DType::kQ8_0, .embedding = DType::kQ8_0},
          {.matrix = DType::kQ4_1, .embedding = DType::kQ8_0},
          {.matrix = DType::kQ4_0, .embedding = DType::kF16},
          {.matrix = DType::kQ4_K, .embedding = DType::kQ6_K}};
}

// A child with the block first, second, last, and behind a dropped layer.
std::vector<Architecture> positions(const BlockSpec& block) {
  const BlockSpec anchor = parse_block("kv2/w96");
  const BlockSpec empty = parse_block("none/none");
  return {{block, anchor}, {anchor, block}, {empty, block, anchor}, {anchor, empty, block, block}};
}

void expect_costs_of_naive_lists(const ModelSpec& spec) {
  const std::vector<NaiveTensor> hf = test::naive_hf_tensors(spec);
  const std::vector<NaiveTensor> deci = test::naive_deci_tensors(spec);
  for (const WeightTypes& types : weight_types()) {
    for (const ExportTarget target :
         {ExportTarget::kNative, ExportTarget::kNemotronNas, ExportTarget::kDeci}) {
      if (target == ExportTarget::kDeci && spec.qk_norm) {
        continue;  // which it refuses
      }
      const std::vector<NaiveTensor>& tensors = target == ExportTarget::kDeci ? deci : hf;
      const PartCost cost = model_cost(spec, target, types);
      EXPECT_EQ(cost.parameters, total_elements(tensors));
      EXPECT_EQ(cost.weight_bytes, naive_bytes(tensors, types));
      EXPECT_EQ(cost.kv_bytes_per_token, naive_bytes(types.kv, naive_kv_elements(spec)));
      // The sum of what the search adds up.
      PartCost sum = fixed_cost(spec, types, target);
      std::int64_t kept = 0;
      for (const BlockSpec& block : spec.layers) {
        sum += block_cost(spec, kept, block, target, types);
        kept += target == ExportTarget::kDeci && block.name() == "none/none" ? 0 : 1;
      }
      EXPECT_EQ(sum, cost);
    }
  }
}

TEST(Cost, EveryBlockInEveryPositionAndTarget) {
  for (const BlockSpec& block : test::all_small_blocks()) {
    for (const Architecture& layers : positions(block)) {
      ModelSpec spec = small_spec(layers);
      SCOPED_TRACE(block.name());
      expect_costs_of_naive_lists(spec);
      spec.head_dim = 32;  // H * E = 2 D
      spec.tie_embeddings = true;
      expect_costs_of_naive_lists(spec);
      spec.attention_bias = true;
      spec.mlp_bias = true;
      expect_costs_of_naive_lists(spec);
      spec.attention_output_bias = true;
      expect_costs_of_naive_lists(spec);
      spec.qk_norm = true;
      expect_costs_of_naive_lists(spec);
    }
  }
}

TEST(Cost, SubBlocksOfSmolLm2ByHand) {
  ModelSpec spec = small_spec({parse_block("kv3/w1536")});
  spec.hidden_size = 576;
  spec.num_heads = 9;
  spec.head_dim = 64;
  const WeightTypes types;
  const PartCost attention = attention_cost(spec, AttentionSpec::gqa(3), types);
  EXPECT_EQ(attention.parameters, 576 * (576 + 192 + 192 + 576) + 576);
  EXPECT_EQ(attention.kv_bytes_per_token, 2 * 192 * 2);
  EXPECT_EQ(ffn_cost(spec, FfnSpec::swiglu(1536), types).parameters, 3 * 576 * 1536 + 576);
  EXPECT_EQ(ffn_cost(spec, FfnSpec::linear(), types).parameters, 576 * 576 + 576);
  EXPECT_EQ(attention_cost(spec, AttentionSpec::none(), types), PartCost{});
  EXPECT_EQ(ffn_cost(spec, FfnSpec::none(), types), PartCost{});
  // deci: 3 D² + gate bias + norm; the first layer's missing attention D² + norm.
  const BlockSpec block = parse_block("none/linear");
  EXPECT_EQ(block_cost(spec, 1, block, ExportTarget::kDeci, types).parameters,
            3 * 576 * 576 + 2 * 576);
  EXPECT_EQ(block_cost(spec, 0, block, ExportTarget::kDeci, types).parameters,
            4 * 576 * 576 + 3 * 576);
  EXPECT_EQ(block_cost(spec, 0, block, ExportTarget::kNative, types).parameters, 576 * 576 + 576);
}

TEST(Cost, RopeFrequenciesAreBytesButNoParameters) {
  ModelSpec spec = small_spec();
  const PartCost plain = fixed_cost(spec, {}, ExportTarget::kDeci);
  spec.rope = {.kind = RopeKind::kLlama3, .factor = 8.0, .original_context = 64};
  const PartCost scaled = fixed_cost(spec, {}, ExportTarget::kDeci);
  EXPECT_EQ(scaled.parameters, plain.parameters);
  EXPECT_EQ(scaled.weight_bytes, plain.weight_bytes + 8 * 4);
  EXPECT_EQ(fixed_cost(spec, {}).weight_bytes, plain.weight_bytes);
}

TEST(Cost, TheRealParent) {
  PUZZLE_REQUIRE_FILE(test::parent_gguf());
  const GgufFile file(test::parent_gguf());
  const ModelSpec spec = read_gguf_config(file);
  std::int64_t elements = 0;
  std::int64_t bytes = 0;
  for (const StoredTensor& tensor : file.tensors()) {
    elements += static_cast<std::int64_t>(num_elements(tensor.shape, tensor.name));
    bytes += static_cast<std::int64_t>(tensor.bytes.size());
  }
  const WeightTypes types{.matrix = DType::kQ4_1, .embedding = DType::kQ8_0};
  for (const ExportTarget target : {ExportTarget::kNative, ExportTarget::kDeci}) {
    const PartCost cost = model_cost(spec, target, types);
    EXPECT_EQ(cost.parameters, 134515008);
    EXPECT_EQ(num_parameters(spec), 134515008);
    EXPECT_EQ(cost.parameters, elements);
    EXPECT_EQ(cost.weight_bytes, bytes);
    EXPECT_EQ(cost.kv_bytes_per_token, 30 * 2 * 192 * 2);
  }
}

TEST(Cost, SuperBlocksByHand) {
  ModelSpec spec = small_spec({parse_block("kv4/w768")});
  spec.hidden_size = 256;
  const WeightTypes types{.matrix = DType::kQ4_K, .embedding = DType::kQ6_K};
  // gate, up: rows of 256; down: rows of 768; the norm.
  EXPECT_EQ(ffn_cost(spec, FfnSpec::swiglu(768), types).weight_bytes, 3 * 768 * 144 + 256 * 4);
  EXPECT_EQ(ffn_cost(spec, FfnSpec::swiglu(96), types).weight_bytes,
            2 * 96 * 144 + 256 * 3 * 22 + 256 * 4);
  EXPECT_EQ(fixed_cost(spec, types).weight_bytes, 2 * 96 * 210 + 256 * 4);
}

TEST(Cost, OpenElmPaysOneHeadForMissingAttention) {
  ModelSpec spec = small_spec();
  spec.qk_norm = spec.tie_embeddings = true;
  const WeightTypes types;
  const PartCost cost =
      block_cost(spec, 1, parse_block("none/none"), ExportTarget::kOpenElm, types);
  EXPECT_EQ(cost, PartCost{});
  const PartCost head = block_cost(spec, 1, parse_block("none/w96"), ExportTarget::kOpenElm, types);
  // norm; q, k, v and o of one head of 16; norms of q and k; the FFN with its norm.
  EXPECT_EQ(head.parameters, 64 + 4 * 16 * 64 + 2 * 16 + 64 + 3 * 64 * 96);
  EXPECT_EQ(head.kv_bytes_per_token, 2 * 16 * 2);
  EXPECT_EQ(block_cost(spec, 1, parse_block("kv2/none"), ExportTarget::kOpenElm, types).parameters,
            block_cost(spec, 1, parse_block("kv2/none"), ExportTarget::kNative, types).parameters +
                64 + 3 * 64 * 32);
}

TEST(Cost, RowsThatFillNoBlockHaveAnotherType) {
  EXPECT_EQ(stored_dtype(DType::kQ4_1, 768), DType::kQ4_1);
  EXPECT_EQ(stored_dtype(DType::kQ4_1, 50), DType::kF16);
  EXPECT_EQ(stored_dtype(DType::kQ4_K, 768), DType::kQ4_K);
  EXPECT_EQ(stored_dtype(DType::kQ4_K, 576), DType::kQ5_0);
  EXPECT_EQ(stored_dtype(DType::kQ6_K, 576), DType::kQ8_0);
  EXPECT_EQ(stored_dtype(DType::kQ4_K, 50), DType::kF16);
  EXPECT_EQ(stored_dtype(DType::kQ6_K, 50), DType::kF16);
  EXPECT_EQ(stored_dtype(DType::kBF16, 7), DType::kBF16);
}

TEST(Cost, KvTypesMustFitTheHead) {
  ModelSpec spec = small_spec();
  spec.head_dim = 32;
  const WeightTypes types{.kv = DType::kQ8_0};
  EXPECT_EQ(attention_cost(spec, AttentionSpec::gqa(2), types).kv_bytes_per_token, 2 * 2 * 34);
  spec.head_dim = 16;
  EXPECT_PUZZLE_ERROR(static_cast<void>(attention_cost(spec, AttentionSpec::gqa(2), types)),
                      ErrorKind::kUsage, "head width 16 is no multiple of its block of 32");
}

// Multiplications and additions of really nested loops.
struct NaiveFlops {
  const FlopsQuery& query;
  std::int64_t count = 0;

  void matrix(std::int64_t rows, std::int64_t columns, std::int64_t tokens_per_sequence) {
    for (std::int64_t b = 0; b < query.batch; ++b) {
      for (std::int64_t t = 0; t < tokens_per_sequence; ++t) {
        for (std::int64_t r = 0; r < rows; ++r) {
          count += 2 * columns;
        }
      }
    }
  }
  void attention(std::int64_t heads, std::int64_t head_dim) {
    for (std::int64_t b = 0; b < query.batch; ++b) {
      for (std::int64_t t = 0; t < query.new_tokens; ++t) {
        for (std::int64_t seen = 0; seen <= query.cached_tokens + t; ++seen) {
          for (std::int64_t h = 0; h < heads; ++h) {
            count += 2 * head_dim;  // score
            count += 2 * head_dim;  // weighted value
          }
        }
      }
    }
  }
};

std::int64_t naive_block_flops(const ModelSpec& spec, const BlockSpec& block,
                               const FlopsQuery& query) {
  NaiveFlops naive{query};
  const std::int64_t d = spec.hidden_size;
  const std::int64_t q = spec.num_heads * spec.head_dim;
  if (block.attention.kind == AttentionKind::kGqa) {
    const std::int64_t kv = block.attention.kv_heads * spec.head_dim;
    naive.matrix(q, d, query.new_tokens);
    naive.matrix(kv, d, query.new_tokens);
    naive.matrix(kv, d, query.new_tokens);
    naive.attention(spec.num_heads, spec.head_dim);
    naive.matrix(d, q, query.new_tokens);
  } else if (block.attention.kind == AttentionKind::kLinear) {
    naive.matrix(d, d, query.new_tokens);
  }
  if (block.ffn.kind == FfnKind::kSwiglu) {
    naive.matrix(block.ffn.width, d, query.new_tokens);
    naive.matrix(block.ffn.width, d, query.new_tokens);
    naive.matrix(d, block.ffn.width, query.new_tokens);
  } else if (block.ffn.kind == FfnKind::kLinear) {
    naive.matrix(d, d, query.new_tokens);
  }
  return naive.count;
}

TEST(Flops, AgreeWithNestedLoops) {
  ModelSpec spec = small_spec(test::all_small_blocks());
  spec.head_dim = 8;
  for (const FlopsQuery& query :
       {FlopsQuery{}, FlopsQuery{.batch = 3, .new_tokens = 5, .cached_tokens = 7},
        FlopsQuery{.batch = 2, .new_tokens = 6, .logits_per_sequence = 1},
        FlopsQuery{.batch = 4, .cached_tokens = 31}, FlopsQuery{.new_tokens = 0}}) {
    NaiveFlops head{query};
    head.matrix(spec.vocab_size, spec.hidden_size,
                query.logits_per_sequence < 0 ? query.new_tokens : query.logits_per_sequence);
    EXPECT_EQ(head_flops(spec, query), head.count);
    std::int64_t sum = head.count;
    for (const BlockSpec& block : spec.layers) {
      const std::int64_t expected = naive_block_flops(spec, block, query);
      EXPECT_EQ(attention_flops(spec, block.attention, query) + ffn_flops(spec, block.ffn, query),
                expected)
          << block.name();
      sum += expected;
    }
    EXPECT_EQ(model_flops(spec, query), sum);
  }
}

TEST(Flops, StepsAddUpToOnePass) {
  const ModelSpec spec = small_spec();
  std::int64_t steps = 0;
  for (std::int64_t cached = 0; cached < 40; ++cached) {
    steps += model_flops(spec, {.batch = 2, .cached_tokens = cached});
  }
  EXPECT_EQ(steps, model_flops(spec, {.batch = 2, .new_tokens = 40}));
}

TEST(Flops, ResultsBeyond63BitsAreAnError) {
  ModelSpec spec = small_spec(Architecture(80, parse_block("kv8/w28672")));
  spec.hidden_size = 8192;
  spec.num_heads = 64;
  spec.head_dim = 128;
  EXPECT_GT(model_flops(spec, {.batch = 1000, .new_tokens = 8192}), std::int64_t{1} << 59);
  EXPECT_PUZZLE_ERROR(
      static_cast<void>(model_flops(spec, {.batch = std::int64_t{1} << 32, .new_tokens = 1 << 27})),
      ErrorKind::kUsage, "beyond 2^63 - 1");
  EXPECT_PUZZLE_ERROR(static_cast<void>(model_flops(spec, {.batch = -1})), ErrorKind::kUsage,
                      "batch is -1");
  EXPECT_PUZZLE_ERROR(static_cast<void>(head_flops(spec, {.logits_per_sequence = 2})),
                      ErrorKind::kUsage, "logits_per_sequence is 2, expected 0 … 1");
}

}  // namespace
}  // namespace puzzle
