#include "puzzle/arch/gguf_lowered.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "puzzle/arch/lowering.h"
#include "puzzle/formats/gguf_quant.h"

namespace puzzle {
namespace {

// Calls visit(row index, values) for each row of the tensor until it returns false; true if it
// never did. False for types that cannot be decoded.
template <class Visit>
bool all_rows(const StoredTensor& tensor, Visit&& visit) {
  if (!can_dequantize(tensor.dtype) || tensor.shape.empty() || tensor.shape.back() <= 0) {
    return false;
  }
  std::vector<float> row(static_cast<std::size_t>(tensor.shape.back()));
  const std::size_t row_bytes = byte_size(tensor.dtype, row.size(), tensor.name);
  for (std::size_t begin = 0, index = 0; begin < tensor.bytes.size(); begin += row_bytes, ++index) {
    dequantize(tensor.dtype, tensor.bytes.subspan(begin, row_bytes), row);
    if (!visit(index, row)) {
      return false;
    }
  }
  return true;
}

bool is_zero_tensor(const StoredTensor* tensor) {
  return tensor != nullptr && all_rows(*tensor, [](std::size_t, const std::vector<float>& row) {
           return std::all_of(row.begin(), row.end(), [](float x) { return x == 0.0F; });
         });
}

// The c of c·I, or 0.
float diagonal_value(const StoredTensor* tensor) {
  float value = 0.0F;
  const auto is_row_of_diagonal = [&](std::size_t index, const std::vector<float>& row) {
    value = index == 0 ? row[0] : value;
    for (std::size_t column = 0; column < row.size(); ++column) {
      if (row[column] != (column == index ? value : 0.0F)) {
        return false;
      }
    }
    return true;
  };
  return tensor != nullptr && all_rows(*tensor, is_row_of_diagonal) ? value : 0.0F;
}

// The one value that fills a bias, or 0.
float constant_value(const StoredTensor& tensor) {
  float value = 0.0F;
  const bool constant = all_rows(tensor, [&](std::size_t, const std::vector<float>& row) {
    value = row[0];
    return std::all_of(row.begin(), row.end(), [&](float x) { return x == value; });
  });
  return constant ? value : 0.0F;
}

struct LoweredReader {
  const GgufFile& file;
  std::int64_t layer;

  [[nodiscard]] const StoredTensor* find(std::string_view part) const {
    return file.find_tensor(fmt::format("blk.{}.{}", layer, part));
  }
  [[nodiscard]] bool has_ffn_bias() const {
    return find("ffn_gate.bias") != nullptr || find("ffn_up.bias") != nullptr ||
           find("ffn_down.bias") != nullptr;
  }
};

bool is_linear_ffn(const LoweredReader& reader) {
  const StoredTensor* bias = reader.find("ffn_gate.bias");
  if (bias == nullptr || reader.find("ffn_up.bias") != nullptr ||
      reader.find("ffn_down.bias") != nullptr) {
    return false;
  }
  // From 32 on, silu is the identity to within float32.
  const float gate_bias = constant_value(*bias);
  return gate_bias >= 32.0F && is_zero_tensor(reader.find("ffn_gate.weight")) &&
         std::abs(gate_bias * diagonal_value(reader.find("ffn_down.weight")) - 1.0F) < 1e-6F;
}

}  // namespace

BlockSpec undo_lowering(ExportTarget target, const GgufFile& file, std::int64_t layer,
                        std::int64_t hidden_size, const BlockSpec& written) {
  const LoweredReader reader{file, layer};
  BlockSpec block = written;
  const bool may_be_none = target == ExportTarget::kOpenElm
                               ? written.attention == AttentionSpec::gqa(1)
                               : layer == 0 && written.attention.kind == AttentionKind::kLinear;
  if (may_be_none && is_zero_tensor(reader.find("attn_output.weight"))) {
    block.attention = AttentionSpec::none();
  }
  if (written.ffn == FfnSpec::swiglu(kZeroFfnWidth) && !reader.has_ffn_bias() &&
      is_zero_tensor(reader.find("ffn_down.weight"))) {
    block.ffn = FfnSpec::none();
  } else if (written.ffn == FfnSpec::swiglu(hidden_size) && is_linear_ffn(reader)) {
    block.ffn = FfnSpec::linear();
  }
  return block;
}

}  // namespace puzzle
