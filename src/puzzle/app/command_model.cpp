// inspect, generate, solve: verbs on single files.
#include <cstdio>
#include <filesystem>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "puzzle/app/commands.h"
#include "puzzle/arch/inspect.h"
#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/formats/gguf.h"
#include "puzzle/formats/safetensors.h"
#include "puzzle/mip/highs_solver.h"
#include "puzzle/mip/problem_file.h"
#include "puzzle/model/checkpoint.h"
#include "puzzle/stages/generate.h"
#include "puzzle/tensor/device.h"

namespace puzzle {
namespace {

void print_text(const std::string& text) { std::fputs(text.c_str(), stdout); }

std::vector<PartSize> stored_parts(const std::filesystem::path& path, const ModelSpec& spec) {
  if (path.extension() == ".gguf") {
    return part_sizes(GgufFile(path).tensors());
  }
  if (std::filesystem::is_directory(path) &&
      (std::filesystem::exists(path / "model.safetensors") ||
       std::filesystem::exists(path / "model.safetensors.index.json"))) {
    std::vector<StoredTensor> tensors;
    const SafetensorsModel model(path);
    for (const auto& [name, tensor] : model.tensors()) {
      tensors.push_back(tensor);
    }
    return part_sizes(tensors);
  }
  return part_sizes(spec, ExportTarget::kNative, WeightTypes{});
}

void add_inspect(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto path = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand(
      "inspect", "Architecture, parameters and bytes per part of a model, or of a config.json");
  verb->add_option("model", *path, "A .gguf file, a Hugging Face folder, or a llama2.c .bin file")
      ->required();
  verb->callback([path, &global, &selected] {
    selected = [path, &global] {
      const ModelSpec spec = load_model_spec(*path);
      const std::vector<PartSize> parts = stored_parts(*path, spec);
      print_text(global.json ? describe_json(spec, parts).dump(2) + "\n" : describe(spec, parts));
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

void run_generate(const GenerateArguments& arguments, const GlobalOptions& global) {
  set_num_threads(arguments.threads);
  const LoadedModel model =
      open_model(arguments.model, parse_device(arguments.device), c10::ScalarType::Float);
  const std::string prompt =
      arguments.chat ? chat_prompt(*model.tokenizer, arguments.prompt) : arguments.prompt;
  const GenerateResult result =
      generate(model, prompt, arguments.options, [&](const std::string& piece) {
        if (!global.json) {
          print_text(piece);
          std::fflush(stdout);
        }
      });
  if (global.json) {
    const Json answer = {{"text", result.text},
                         {"prompt_tokens", result.prompt_tokens},
                         {"generated_tokens", result.generated_tokens},
                         {"prefill_s", result.prefill_s},
                         {"generation_s", result.generation_s}};
    print_text(answer.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  } else {
    print_text("\n");
  }
}

void add_generate(CLI::App& app, GlobalOptions& global, Action& selected) {
  auto arguments = std::make_shared<GenerateArguments>();
  CLI::App* verb = app.add_subcommand("generate", "Let a parent or a child write");
  verb->add_option("model", arguments->model, "A .gguf file or a Hugging Face folder")->required();
  verb->add_option("--prompt", arguments->prompt, "Text to continue")->required();
  verb->add_flag("--chat", arguments->chat, "Put the prompt into the model's chat format (ChatML)");
  verb->add_option("--max-tokens", arguments->options.max_tokens, "Tokens to generate at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--temperature", arguments->options.temperature, "0 is greedy")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  verb->add_option("--top-p", arguments->options.top_p,
                   "Keep the likeliest tokens with this much probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--seed", arguments->options.seed, "Seed of the sampling")
      ->capture_default_str();
  verb->add_option("--device", arguments->device, "cpu, cuda or cuda:N")->capture_default_str();
  verb->add_option("--threads", arguments->threads, "0 uses all cores")->capture_default_str();
  verb->callback([arguments, &global, &selected] {
    selected = [arguments, &global] { run_generate(*arguments, global); };
  });
}

void add_solve(CLI::App& app, Action& selected) {
  auto path = std::make_shared<std::string>();
  auto options = std::make_shared<SolveOptions>();
  CLI::App* verb = app.add_subcommand(
      "solve", "Solve a stand-alone problem file (docs/formats.md) and print a solution file");
  verb->add_option("problem", *path, "A puzzle-problem .json file")->required();
  verb->add_option("--time-limit", options->time_limit_s, "Seconds per solution")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->callback([path, options, &selected] {
    selected = [path, options] {
      const Problem problem = load_problem(*path);
      const SolveResult result = HighsSolver().solve(problem, *options);
      print_text(result_json(problem, result).dump(2) + "\n");
      if (result.status == SolveStatus::kInfeasible) {
        fail(ErrorKind::kInfeasible, "{}: {}", *path, describe(*result.infeasibility));
      }
    };
  });
}

}  // namespace

void add_model_commands(CLI::App& app, GlobalOptions& global, Action& selected) {
  add_inspect(app, global, selected);
  add_generate(app, global, selected);
  add_solve(app, selected);
}

}  // namespace puzzle
