#include "puzzle/stages/model_card.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "puzzle/arch/lowering.h"
#include "puzzle/arch/padded_model.h"
#include "puzzle/base/file.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"

namespace puzzle {
namespace {

// A JSON string is a YAML string.
std::string card_quoted(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Model hubs take lower-case identifiers ("apache-2.0"); anything else goes under its own name.
bool is_license_id(const std::string& license) {
  return !license.empty() && std::all_of(license.begin(), license.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
}

bool is_distilled(const ModelCard& card) {
  return card.making.has_value() &&
         (card.making->blocks_trained ||
          std::ranges::find(card.making->steps, ChildStep::kDistillation) !=
              card.making->steps.end());
}

std::string front_matter(const ModelCard& card, std::string_view library) {
  std::string text = "---\n";
  if (is_license_id(card.license)) {
    text += "license: " + card.license + "\n";
  } else {
    text += "license: other\nlicense_name: " +
            card_quoted(card.license.empty() ? "unknown" : card.license) + "\n";
  }
  text += "base_model: " + card_quoted(card.parent.name) + "\n";
  text += fmt::format("library_name: {}\npipeline_tag: text-generation\n", library);
  return text + fmt::format("tags: [puzzle, pruning{}]\n---\n\n",
                            is_distilled(card) ? ", distillation" : "");
}

// The value of a top-level "key: value" line between the "---" lines that open a file.
std::string front_matter_value(const std::string& text, std::string_view key) {
  const std::vector<std::string> lines = split(text, '\n');
  if (lines.empty() || trim(lines.front()) != "---") {
    return "";
  }
  for (std::size_t i = 1; i < lines.size() && trim(lines[i]) != "---"; ++i) {
    const std::size_t colon = lines[i].find(':');
    if (colon != std::string::npos && lines[i].substr(0, colon) == key) {
      std::string_view value = trim(std::string_view(lines[i]).substr(colon + 1));
      const bool is_quoted = value.size() >= 2 && (value.front() == '"' || value.front() == '\'') &&
                             value.back() == value.front();
      return std::string(is_quoted ? value.substr(1, value.size() - 2) : value);
    }
  }
  return "";
}

std::string license_sentence(const ModelCard& card) {
  if (card.license.empty()) {
    return "The parent's files do not name a licence; the parent's terms apply to this model as "
           "well.\n\n";
  }
  return fmt::format("Licence: {}, that of the parent.\n\n", card.license);
}

std::string making_sentences(const ModelCard& card) {
  if (!card.making.has_value()) {
    return "";
  }
  std::string text = " The new attention and FFNs were made from the parent's weights";
  if (card.making->blocks_trained) {
    text += " and trained, layer by layer, to do what the parent's do";
  }
  const std::string steps = steps_text(card.making->steps);
  return text + (steps.empty() ? "." : "; then the whole was " + steps + ".");
}

std::string introduction(const ModelCard& card) {
  return fmt::format(
             "# {}\n\nA smaller version of **{}**, made by Puzzle: for every layer a cheaper "
             "attention and FFN was chosen by what it costs and by how much the model "
             "suffers.{}\n\n",
             card.name, card.parent.name, making_sentences(card)) +
         license_sentence(card);
}

std::string size_row(std::string_view what, std::int64_t parent, std::int64_t child) {
  return fmt::format("| {} | {} | {} ({:.0f} %) |\n", what,
                     human_count(static_cast<double>(parent)),
                     human_count(static_cast<double>(child)),
                     100.0 * static_cast<double>(child) / static_cast<double>(parent));
}

std::string sizes(const ModelCard& card) {
  const PartCost parent = model_cost(card.parent, ExportTarget::kNative, card.types);
  const PartCost child = model_cost(card.child, ExportTarget::kNative, card.types);
  std::string text = "| | parent | this model |\n|---|---|---|\n";
  text += size_row("parameters", parent.parameters, child.parameters);
  if (parent.kv_bytes_per_token > 0) {
    text += size_row("KV cache bytes per token (F16)", parent.kv_bytes_per_token,
                     child.kv_bytes_per_token);
  }
  text += fmt::format("| layers | {} | {} |\n", card.parent.num_layers(), card.child.num_layers());
  const ModelSpec& spec = card.child;
  text += fmt::format("| hidden size, heads × width | | {}, {} × {} |\n", spec.hidden_size,
                      spec.num_heads, spec.head_dim);
  text += fmt::format("| vocabulary, context | | {}, {} tokens |\n", spec.vocab_size,
                      spec.context_length);
  return text + fmt::format("| stored as | | {} |\n\n", dtype_name(card.types.matrix));
}

std::string attention_words(const AttentionSpec& attention) {
  switch (attention.kind) {
    case AttentionKind::kGqa:
      return fmt::format("{} KV heads", attention.kv_heads);
    case AttentionKind::kLinear:
      return "linear";
    case AttentionKind::kNone:
      break;
  }
  return "none";
}

std::string ffn_words(const FfnSpec& ffn) {
  switch (ffn.kind) {
    case FfnKind::kSwiglu:
      return fmt::format("width {}", ffn.width);
    case FfnKind::kLinear:
      return "linear";
    case FfnKind::kNone:
      break;
  }
  return "none";
}

std::string layer_table(const ModelCard& card) {
  std::string text =
      "## Layers\n\n\"linear\" is one matrix in place of the sub-block, \"none\" leaves it out.\n\n"
      "| layer | attention | FFN | parameters |\n|---|---|---|---|\n";
  for (std::int64_t i = 0; i < card.child.num_layers(); ++i) {
    const BlockSpec& block = card.child.layers[static_cast<std::size_t>(i)];
    const PartCost cost = block_cost(card.child, i, block, ExportTarget::kNative, card.types);
    text += fmt::format("| {} | {} | {} | {} |\n", i, attention_words(block.attention),
                        ffn_words(block.ffn), human_count(static_cast<double>(cost.parameters)));
  }
  return text + "\n";
}

// "- layer 3, layer 7: what was done", or nothing.
std::string rewrite_line(const std::vector<LoweredBlock>& lowered, bool LoweredBlock::* is_done,
                         std::string_view what) {
  std::vector<std::string> layers;
  for (std::size_t i = 0; i < lowered.size(); ++i) {
    if (lowered[i].*is_done) {
      layers.push_back(fmt::format("{}", i));
    }
  }
  return layers.empty() ? ""
                        : fmt::format("- {} {}: {}\n", layers.size() == 1 ? "layer" : "layers",
                                      join(layers, ", "), what);
}

std::string rewrites(ExportTarget target, const ModelSpec& child, std::string_view why) {
  const std::vector<LoweredBlock> lowered = lower_model(target, child);
  const bool is_padded = target == ExportTarget::kPadded;
  const std::string lines =
      rewrite_line(lowered, &LoweredBlock::dropped, "empty, left out of the file") +
      rewrite_line(lowered, &LoweredBlock::linear_attention_as_ffn,
                   "linear attention, stored as an FFN, in a layer inserted before this one unless "
                   "it has no FFN of its own") +
      rewrite_line(lowered, &LoweredBlock::zero_attention,
                   is_padded ? "no attention, or linear, stored as one of zeros"
                   : target == ExportTarget::kOpenElm
                       ? "no attention, stored as one head of zeros"
                       : "no attention, stored as a matrix of zeros") +
      rewrite_line(lowered, &LoweredBlock::zero_ffn,
                   is_padded ? "no FFN, stored as one of zeros"
                             : "no FFN, stored as a narrow one of zeros") +
      rewrite_line(lowered, &LoweredBlock::linear_ffn_as_swiglu,
                   "linear FFN, stored as a gated one whose gate is constant");
  return lines.empty() ? ""
                       : fmt::format("## Stored differently\n\n{} They compute the same:\n\n{}\n",
                                     why, lines);
}

std::string load_example(bool has_own_code) {
  return fmt::format(
      "```python\n"
      "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
      "folder = \".\"\n"
      "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
      "model = AutoModelForCausalLM.from_pretrained(folder{})\n"
      "inputs = tokenizer(\"Once upon a time\", return_tensors=\"pt\", "
      "return_token_type_ids=False)\n"
      "print(tokenizer.decode(model.generate(**inputs, max_new_tokens=64)[0]))\n```\n\n",
      has_own_code ? ", trust_remote_code=True" : "");
}

}  // namespace

std::string license_of(const std::filesystem::path& model) {
  const std::filesystem::path readme = model / "README.md";
  std::string license;
  if (model.extension() == ".gguf" && std::filesystem::is_regular_file(model)) {
    license = GgufFile(model).string_value("general.license", "");
  } else if (std::filesystem::is_regular_file(readme)) {
    const std::string text = read_text_file(readme);
    license = front_matter_value(text, "license");
    if (license == "other") {
      license = front_matter_value(text, "license_name");
    }
  }
  return license == "other" || license == "unknown" ? "" : license;
}

std::string make_gguf_card(const ModelCard& card, ExportTarget target) {
  const std::string file = card.name + ".gguf";
  return front_matter(card, "gguf") + introduction(card) + sizes(card) +
         fmt::format(
             "## Use\n\nIn llama.cpp, and what is built on it:\n\n```sh\n"
             "llama-cli -m {0} -p \"Once upon a time\" -n 64\nllama-server -m {0}\n```\n\n",
             file) +
         layer_table(card) +
         rewrites(target, card.child, "llama.cpp needs some layers in another form.");
}

std::string make_hf_card(const ModelCard& card) {
  std::string text = front_matter(card, "transformers") + introduction(card) + sizes(card);
  text +=
      "## Use\n\nThe layers differ, so the model brings its own code (`configuration_decilm.py`, "
      "`modeling_decilm.py`):\n\n" +
      load_example(true);
  text += layer_table(card);
  const auto notes = portability_notes(ExportTarget::kNemotronNas, card.child);
  if (!notes.empty()) {
    text += "## Other engines\n\n";
    for (const std::string& note : notes) {
      text += "- " + note + "\n";
    }
  }
  return text;
}

std::string make_padded_card(const ModelCard& card) {
  const ModelSpec plain = padded_spec(card.child);
  const PartCost cost = model_cost(plain, ExportTarget::kNative, card.types);
  std::string text = front_matter(card, "transformers") + introduction(card) + sizes(card);
  text += fmt::format(
      "## Use\n\n**This folder trades what was saved for a plain model**: all {} layers have {} KV "
      "heads and an FFN of width {}, filled up with zeros, {} parameters in all. It computes what "
      "the smaller model computes and loads wherever a model of its class does, without code of "
      "its own:\n\n",
      plain.num_layers(), plain.layers.front().attention.kv_heads, plain.layers.front().ffn.width,
      human_count(static_cast<double>(cost.parameters)));
  return text + load_example(false) + layer_table(card) +
         rewrites(ExportTarget::kPadded, card.child,
                  "Beside KV heads that are repeated and FFNs that are filled up, these layers of "
                  "the table are in another form.");
}

std::string make_any_model_card(const ModelCard& card) {
  return front_matter(card, "modelopt") + introduction(card) + sizes(card) +
         "## Use\n\nThe layers differ: `config.json` says how in `block_configs`, in the schema of "
         "NVIDIA's Model-Optimizer (Puzzletron). It is read by that, by vLLM builds that have "
         "`AnyModel` (`architectures` names it, `base_architecture` the class of the layers), and "
         "by Puzzle. transformers alone reads the configuration but builds layers that are all "
         "alike, which do not fit the weights.\n\n```sh\nvllm serve .    # of a build with "
         "AnyModel\n```\n\n" +
         layer_table(card);
}

}  // namespace puzzle
