#include "puzzle/app/engines_page.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/engine_table.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/stages/hf_export.h"

namespace puzzle {
namespace {

struct FormatColumn {
  std::string name;  // of export_child.formats
  ExportTarget target;
};

std::vector<FormatColumn> format_columns() {
  std::vector<FormatColumn> columns = {{"gguf", ExportTarget::kDeci},
                                       {"gguf-openelm", ExportTarget::kOpenElm}};
  for (const HfFormat& format : hf_formats()) {
    columns.push_back({std::string(format.name), format.target});
  }
  return columns;
}

std::string_view cell_kind_name(CellKind kind) {
  switch (kind) {
    case CellKind::kNative:
      return "native";
    case CellKind::kLowered:
      return "lowered";
    case CellKind::kRefused:
      break;
  }
  return "refused";
}

std::string cell_text(const EngineCell& cell) {
  const std::string kind(cell_kind_name(cell.kind));
  return cell.words.empty()
             ? kind
             : fmt::format("{}: {}", cell.kind == CellKind::kRefused ? "**refused**" : kind,
                           cell.words);
}

std::string table_row(const std::vector<std::string>& cells) {
  return "| " + join(cells, " | ") + " |\n";
}

std::string table_head(const std::vector<std::string>& names) {
  return table_row(names) + table_row(std::vector<std::string>(names.size(), "---"));
}

std::string model_table() {
  std::vector<std::string> head = {"model", "what is particular"};
  for (const FormatColumn& column : format_columns()) {
    head.push_back("`" + column.name + "`");
  }
  std::string text = table_head(head);
  for (const EngineModel& model : engine_models()) {
    std::vector<std::string> cells = {std::string(model.name), std::string(model.words)};
    for (const FormatColumn& column : format_columns()) {
      const auto reason = refusal(column.target, model.spec);
      cells.push_back(reason ? "**refused**: " + *reason : "yes");
    }
    text += table_row(cells);
  }
  return text + "\n";
}

// The formats that hold the model itself.
std::vector<FormatColumn> columns_for(const EngineModel& model) {
  std::vector<FormatColumn> columns = format_columns();
  std::erase_if(columns, [&](const FormatColumn& column) {
    return refusal(column.target, model.spec).has_value();
  });
  return columns;
}

// Positions at which every format does the same stand in one row.
std::string block_rows(const EngineModel& model, const std::vector<FormatColumn>& columns,
                       const BlockSpec& block) {
  std::vector<std::pair<std::vector<std::string>, std::vector<std::string>>> rows;
  for (const LayerPosition position : kLayerPositions) {
    std::vector<std::string> cells;
    for (const FormatColumn& column : columns) {
      cells.push_back(cell_text(engine_cell(column.target, model.spec, position, block)));
    }
    const std::string name(layer_position_name(position));
    if (!rows.empty() && rows.back().second == cells) {
      rows.back().first.push_back(name);
    } else {
      rows.push_back({{name}, cells});
    }
  }
  std::string text;
  for (auto& [positions, cells] : rows) {
    std::vector<std::string> row = {
        engine_block_words(block.attention), engine_block_words(block.ffn),
        positions.size() == std::size(kLayerPositions) ? "any" : join(positions, ", ")};
    row.insert(row.end(), cells.begin(), cells.end());
    text += table_row(row);
  }
  return text;
}

std::string block_table(const EngineModel& model) {
  const std::vector<FormatColumn> columns = columns_for(model);
  std::vector<std::string> head = {"attention", "FFN", "position"};
  for (const FormatColumn& column : columns) {
    head.push_back("`" + column.name + "`");
  }
  std::string text = table_head(head);
  for (const BlockSpec& block : engine_blocks()) {
    text += block_rows(model, columns, block);
  }
  return text + "\n";
}

constexpr const char* kOpening = R"(# Engines: what becomes of a child in each format

Written by `puzzle engines`; a test compares this page with the program. The tables of models and blocks are computed
by the code that the exporters ask (`src/puzzle/arch/lowering.h`), and `tests/stages/engines_test.cpp` goes through all
their cells: a small random model with that block at that place is exported in that format and run in llama.cpp or
transformers, and its log-probabilities equal the native decoder's; what is refused throws before anything is written.

| format | what it is | rewrites |
| --- | --- | --- |
| `gguf` | llama.cpp, architecture `deci` | what llama.cpp would compute wrongly or not load |
| `gguf-openelm` | llama.cpp, architecture `openelm`, for norms of q and k | zeros for what is left out |
| `hf` | a transformers folder, `nemotron-nas`, with its own code | none |
| `hf-padded` | a uniform Llama, Mistral, Qwen2 or Qwen3 that stock transformers loads | all: it computes the same and saves nothing |
| `hf-anymodel` | the weights of `hf` with Puzzletron's `block_configs` in the config of the parent's own class | none |

"native": as the child is; "lowered": an exact rewrite, named in the cell; "refused": by the recipe's check, before
anything runs, where the search space holds it; for `gguf-openelm` the search itself, whose target it is, passes it over.
llama.cpp needs a layer with GQA attention among at most 512.

## Models

)";

constexpr const char* kLlamaOpening = R"(## Blocks of a Llama

In the formats that hold one; Qwen2 and a Llama with biases are the same, but a padded Qwen2 that has something linear is
of Llama's class, with zeros for the bias on o. "narrower" is a width that no `ffn_mult` gives (no multiple of 256).

)";

constexpr const char* kQwenOpening = R"(## Blocks of a tied Qwen3

)";

constexpr const char* kReaders = R"(## Who reads it

Beyond the tables: what each engine does with such files. "run": by the tests named above, with xllamacpp (llama.cpp)
and transformers 4.57, on CPU; "read": from the engine's source, not run by this project.

| engine | format | reads | how known |
| --- | --- | --- | --- |
| llama.cpp | `gguf`, `gguf-openelm` | every cell above | run |
| node-llama-cpp, LM Studio, Ollama | the same | what the llama.cpp in them reads | read |
| transformers | `hf` (`trust_remote_code=True`) | every cell above | run |
| transformers | `hf-padded`, no code | every cell above | run |
| transformers' own modules, put together as `block_configs` says | `hf-anymodel` | every cell above; plain `from_pretrained` reads the config and builds layers that do not fit the weights | run |
| vLLM, `nemotron_nas` | `hf` | KV heads per layer, no-ops but not attention none in the first layer, any width, biases; nothing linear, no norms of q and k | read |
| TensorRT-LLM, PyTorch | `hf` | everything, linear too; widths by `ffn_mult` only, no biases | read |
| TensorRT-LLM, AutoDeploy | `hf` | widths by `ffn_mult` only, a key more is an error; nothing linear; head width D / H | read |
| SGLang | `hf` | one number of KV heads for all layers, widths by `ffn_mult` only; nothing linear | read |
| MLX-LM | `hf` | widths by `ffn_mult` only, a key more is an error; linear weights are looked for under other names | read |
| ExLlamaV3 | `hf` | widths by `ffn_mult` only; nothing linear | read |
| Megatron-Core, NeMo | `block_configs` of `hf` | everything | read |
| llama.cpp's converter | `hf` | Llama-3's vocabulary or SentencePiece only; no linear FFN; use `gguf` | read |
| vLLM, SGLang, TGI, … of the plain class | `hf-padded` | as any Llama, Mistral, Qwen2, Qwen3; what is linear needs their `mlp_bias` | read |
| Model-Optimizer (Puzzletron) | `hf-anymodel` | KV heads, widths, no-ops anywhere | read |
| vLLM with AnyModel (a fork and an open pull request) | `hf-anymodel` | the same | read |

**One config.json for both readers of `hf-anymodel`.** `architectures` is `["AnyModel"]` and `base_architecture` the
parent's class, which vLLM's AnyModel goes by; `model_type` stays the parent's, by which transformers' AutoConfig and
Model-Optimizer resolve the class (that looks for the name in `architectures` in transformers, finds no AnyModel there,
and falls back). Later commits of both keep the layers in other keys (`subblock_configs`, `per_layer_config`) and derive
one from the other; `per_layer_config` is not written, since transformers from 5.15 on refuses to read a global value
that it overrides. This program reads all but `subblock_configs`.

**Widths for engines that read `ffn_mult` only.** It stands for multiples of 256. `search_space.ffn_multiple: 256` rounds
every fraction to one; `step256` and `w…` multiples do the same by name. Where a width is none, `hf` writes
`intermediate_size` in its place, and the model card says which engines read that.
)";

}  // namespace

std::string engines_page() {
  return kOpening + model_table() + kLlamaOpening + block_table(find_engine_model("Llama")) +
         kQwenOpening + block_table(find_engine_model("Qwen3, tied")) + kReaders;
}

Json engines_json() {
  Json cells = Json::array();
  for (const char* name : {"Llama", "Qwen3, tied"}) {
    const EngineModel& model = find_engine_model(name);
    for (const BlockSpec& block : engine_blocks()) {
      for (const LayerPosition position : kLayerPositions) {
        for (const FormatColumn& column : format_columns()) {
          const EngineCell cell = engine_cell(column.target, model.spec, position, block);
          cells.push_back({{"model", name},
                           {"attention", engine_block_words(block.attention)},
                           {"ffn", engine_block_words(block.ffn)},
                           {"position", layer_position_name(position)},
                           {"format", column.name},
                           {"kind", cell_kind_name(cell.kind)},
                           {"words", cell.words}});
        }
      }
    }
  }
  return cells;
}

}  // namespace puzzle
