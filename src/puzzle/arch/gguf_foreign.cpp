#include "puzzle/arch/gguf_foreign.h"

#include <array>

#include <fmt/format.h>

#include "puzzle/base/error.h"

namespace puzzle {
namespace {

struct NeutralKey {
  const char* key;
  double neutral;
};
// Keys (below the architecture's name) that change the function computed unless they hold this.
constexpr std::array kNeutralKeys = {
    NeutralKey{"expert_count", 0.0},
    NeutralKey{"attention.clamp_kqv", 0.0},
    NeutralKey{"attention.scale", 0.0},
    NeutralKey{"logit_scale", 0.0},
    NeutralKey{"residual_scale", 0.0},
    NeutralKey{"embedding_scale", 0.0},
    NeutralKey{"attn_logit_softcapping", 0.0},
    NeutralKey{"final_logit_softcapping", 0.0},
    NeutralKey{"rope.scaling.yarn_log_multiplier", 0.0},
};

}  // namespace

void refuse_foreign_gguf_keys(const GgufFile& file, std::string_view architecture) {
  for (const NeutralKey& entry : kNeutralKeys) {
    const std::string key = fmt::format("{}.{}", architecture, entry.key);
    if (const double value = file.real_value(key, entry.neutral); value != entry.neutral) {
      fail(ErrorKind::kFormat, "{}: the key {} is {}, which is not supported; expected {}",
           file.path().string(), key, value, entry.neutral);
    }
  }
}

}  // namespace puzzle
