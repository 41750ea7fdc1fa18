// inspect, generate, solve: verbs on single files; engines: what becomes of them.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/app/engines_page.h"
#include "puzzle/arch/hf_config.h"
#include "puzzle/arch/inspect.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/mip/problem_file.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/generate.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

namespace fs = std::filesystem;

// Checks of a number, as CLI11's but with messages of ours: its own print all 310 digits of a
// double's range, and call a word out of range. `name` stands in the help.
CLI::Validator number_check(const char* name, const char* expected, bool (*holds)(double)) {
  return CLI::Validator(
      [expected, holds](const std::string& text) -> std::string {
        const auto value = parse_number<double>(text);
        if (!value || !std::isfinite(*value)) {
          return fmt::format("'{}' is not a number, expected {}", text, expected);
        }
        return holds(*value) ? "" : fmt::format("{}, expected {}", text, expected);
      },
      name);
}

CLI::Validator positive_number() {
  return number_check("POSITIVE", "a number above 0", [](double value) { return value > 0.0; });
}

CLI::Validator non_negative_number() {
  return number_check("NONNEGATIVE", "a number of 0 or more",
                      [](double value) { return value >= 0.0; });
}

bool is_config_file(const fs::path& path) {
  return path.extension() == ".json" && fs::is_regular_file(path);
}

ModelSpec inspected_spec(const fs::path& path) {
  if (!is_config_file(path)) {
    return load_model_spec(path);
  }
  return path.filename() == "config.json" ? load_hf_config(fs::absolute(path).parent_path())
                                          : parse_hf_config(load_json(path), path.string());
}

// Bytes of a configuration without weights: as it says they are stored.
std::vector<PartSize> configured_parts(const fs::path& path, const ModelSpec& spec) {
  const fs::path config = fs::is_directory(path) ? path / "config.json" : path;
  WeightTypes types;
  if (fs::exists(config) && config.extension() == ".json") {
    types.matrix = dtype_of_torch_name(hf_config_dtype(load_json(config), config.string()));
    types.embedding = types.vector = types.matrix;
  }
  return part_sizes(spec, ExportTarget::kNative, types);
}

std::vector<PartSize> stored_parts(const fs::path& path, const ModelSpec& spec) {
  if (path.extension() == ".gguf") {
    return part_sizes(GgufFile(path).tensors());
  }
  if (fs::is_directory(path) && (fs::exists(path / "model.safetensors") ||
                                 fs::exists(path / "model.safetensors.index.json"))) {
    std::vector<StoredTensor> tensors;
    const SafetensorsModel model(path);
    for (const auto& [name, tensor] : model.tensors()) {
      tensors.push_back(tensor);
    }
    return part_sizes(tensors);
  }
  return configured_parts(path, spec);
}

void add_inspect(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto path = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand(
      "inspect", "Architecture, parameters and bytes per part of a model, or of a config.json");
  CLI::Option* model = verb->add_option(
      "model", *path,
      "A .gguf file, a Hugging Face folder (its config.json is enough), a config.json, "
      "or a llama2.c .bin file");
  refuse_empty(*model->required(), "a model");
  verb->callback([path, &global, &selected] {
    selected.run = [path, &global] {
      const ModelSpec spec = inspected_spec(*path);
      const std::vector<PartSize> parts = stored_parts(*path, spec);
      if (global.json) {
        print_json(global, describe_json(spec, parts));
      } else {
        print_text(describe(spec, parts));
      }
    };
  });
}

struct GenerateArguments {
  std::string model;
  std::string prompt;
  std::string device = "cpu";
  std::int64_t threads = 0;
  bool chat = false;
  GenerateOptions options;
};

void run_generate(const GenerateArguments& arguments, GlobalOptions& global) {
  set_num_threads(arguments.threads);
  const LoadedModel model =
      open_model(arguments.model, parse_device(arguments.device), c10::ScalarType::Float);
  const std::string prompt =
      arguments.chat ? chat_prompt(*model.tokenizer, arguments.prompt) : arguments.prompt;
  GenerateOptions options = arguments.options;
  options.adds_special = !arguments.chat;  // the template writes BOS itself
  const GenerateResult result = generate(model, prompt, options, [&](const std::string& piece) {
    if (!global.json) {
      print_text(piece);
      std::fflush(stdout);
    }
  });
  if (global.json) {
    print_json(global, {{"text", result.text},
                        {"prompt_tokens", result.prompt_tokens},
                        {"generated_tokens", result.generated_tokens},
                        {"prefill_s", result.prefill_s},
                        {"generation_s", result.generation_s}});
  } else {
    print_text("\n");
  }
}

void add_generate(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* verb = app.add_subcommand("generate", "Let a parent or a child write");
  CLI::Option* model = verb->add_option(
      "model", arguments->model, "A .gguf file, a Hugging Face folder, or a llama2.c .bin file");
  refuse_empty(*model->required(), "a model");
  verb->add_option("--prompt", arguments->prompt, "Text to continue")->required();
  verb->add_flag(
      "--chat", arguments->chat,
      "Put the prompt into the model's own chat template, which Python's Jinja2 renders");
  verb->add_option("--max-tokens", arguments->options.max_tokens, "Tokens to generate at most")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--temperature", arguments->options.temperature, "0 is greedy")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--top-p", arguments->options.top_p,
                   "Keep the likeliest tokens with this much probability")
      ->check(number_check("FLOAT in [0 - 1]", "a number from 0 to 1",
                           [](double value) { return value >= 0.0 && value <= 1.0; }))
      ->capture_default_str();
  verb->add_option("--seed", arguments->options.seed, "Seed of the sampling")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--device", arguments->device, "cpu, cuda or cuda:N")->capture_default_str();
  verb->add_option("--threads", arguments->threads, "0 uses all cores")
      ->check(number_check("INT in [0 - 4096]", "a number from 0 to 4096",
                           [](double value) { return value >= 0.0 && value <= 4096.0; }))
      ->capture_default_str();
  verb->callback([arguments, &global, &selected] {
    selected.run = [arguments, &global] { run_generate(*arguments, global); };
  });
}

void add_solve(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto path = std::make_shared<std::string>();
  auto options = std::make_shared<SolveOptions>();
  CLI::App* verb = app.add_subcommand(
      "solve", "Solve a stand-alone problem file (docs/formats.md) and print a solution file");
  verb->add_option("problem", *path, "A puzzle-problem .json file")->required();
  verb->add_option("--time-limit", options->time_limit_s, "Seconds per solution")
      ->check(positive_number())
      ->capture_default_str();
  verb->callback([path, options, &global, &selected] {
    selected.run = [path, options, &global] {
      const Problem problem = load_problem(*path);
      const SolveResult result = HighsSolver().solve(problem, *options);
      Json answer = result_json(problem, result);
      const std::optional<SolveFailure> failure = solve_failure(result, *options);
      const std::string why = failure ? fmt::format("{}: {}", *path, failure->why) : "";
      if (failure && global.json) {
        answer["error"] = error_json(failure->kind, why);
      }
      print_json(global, answer);  // a solution file is JSON in any case
      if (failure) {
        fail_with(failure->kind, why);
      }
    };
  });
}

void add_engines(CLI::App& app, GlobalOptions& global, Action& selected) {
  CLI::App* verb = app.add_subcommand(
      "engines",
      "What each export format makes of each kind of block, and who reads it, as Markdown");
  verb->callback([&global, &selected] {
    selected.run = [&global] {
      if (global.json) {
        print_json(global, {{"cells", engines_json()}});
      } else {
        print_text(engines_page());
      }
    };
  });
}

}  // namespace

void add_model_commands(CLI::App& app, GlobalOptions& global, Action& selected) {
  add_inspect(app, global, selected);
  add_generate(app, global, selected);
  add_solve(app, global, selected);
  add_engines(app, global, selected);
}

}  // namespace puzzle
