#include "puzzle/engine/llama_server.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <optional>
#include <thread>

#include <nlohmann/json.hpp>

#include "puzzle/base/cores.h"
#include "puzzle/base/error.h"
#include "puzzle/base/free_port.h"
#include "puzzle/base/hash.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/options.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/child_process.h"
#include "puzzle/engine/http_client.h"
#include "puzzle/engine/xllamacpp_script.h"

namespace puzzle {
namespace {

using ServerClock = std::chrono::steady_clock;

constexpr std::string_view kPythonServer = "xllamacpp";
constexpr std::string_view kServerAdvice =
    "pip install xllamacpp, or put a llama-server of llama.cpp into PATH or name it in `program`";

std::string server_python(const std::string& wanted) {
  if (const auto path = wanted.empty() ? find_python() : find_program(wanted)) {
    return path->string();
  }
  fail(ErrorKind::kIo,
       "llama-server: not in PATH, and no Python to run xllamacpp with (looked for {}); {}",
       wanted.empty() ? PUZZLE_PYTHON " and python3" : wanted, kServerAdvice);
}

std::vector<std::string> find_server(const LlamaServerOptions& options) {
  if (options.program != kPythonServer) {
    const std::string name = options.program.empty() ? "llama-server" : options.program;
    if (const auto path = find_program(name)) {
      return {path->string()};
    }
    if (!options.program.empty()) {
      fail(ErrorKind::kIo, "{}: no such program; {}", name, kServerAdvice);
    }
  }
  return {server_python(options.python), "-c", xllamacpp_script()};
}

void add_server_arguments(std::vector<std::string>& arguments, const std::string& model,
                          const LlamaServerOptions& options, std::int64_t port,
                          LlamaServerMode mode) {
  const auto add = [&arguments](const char* name, std::int64_t value) {
    arguments.emplace_back(name);
    arguments.push_back(std::to_string(value));
  };
  const std::int64_t threads = options.threads > 0 ? options.threads : usable_cores();
  arguments.insert(arguments.end(), {"-m", model, "--host", "127.0.0.1"});
  add("--port", port);
  add("-c", options.context_tokens * options.parallel);
  add("-np", options.parallel);
  add("-t", threads);
  add("-tb", threads);
  if (options.gpu_layers >= 0) {
    add("-ngl", options.gpu_layers);
  }
  // Only what differs from llama.cpp's defaults: older servers spell some of these differently.
  if (options.cache_type != "f16") {
    arguments.insert(arguments.end(), {"-ctk", options.cache_type, "-ctv", options.cache_type});
  }
  if (options.flash_attention != "auto") {
    arguments.insert(arguments.end(), {"-fa", options.flash_attention});
  }
  if (mode == LlamaServerMode::kHiddenStates) {
    // Embeddings of a sequence must come out of one physical batch.
    arguments.insert(arguments.end(), {"--embeddings", "--pooling", "none"});
    add("-b", options.context_tokens);
    add("-ub", options.context_tokens);
  } else if (options.parallel > 1) {
    // All prompts of a batch in one pass: none waits for room while others already generate.
    add("-b", std::max<std::int64_t>(2048, options.context_tokens * options.parallel));
  }
}

// What a server says is wrong, or the beginning of what it sent.
std::string server_message(const std::string& body) {
  const Json answer = Json::parse(body, nullptr, false);
  if (answer.is_object() && answer.contains("error")) {
    const Json& error = answer["error"];
    if (error.is_object() && error.contains("message") && error["message"].is_string()) {
      return error["message"].get<std::string>();
    }
  }
  return body.empty() ? "nothing" : body.substr(0, 200);
}

}  // namespace

void LlamaServerOptions::visit(OptionList& list) {
  list.add(
      "program", program,
      "llama-server by name or path; `xllamacpp`: the Python package's; empty: llama-server from "
      "PATH if there is one, else the Python package's.");
  list.add("python", python,
           "Interpreter that has xllamacpp; empty: the one the build was configured with.");
  list.add("threads", threads, Range<std::int64_t>{0, 4096}, "Threads; 0: all usable cores.");
  list.add("context_tokens", context_tokens, Range<std::int64_t>{16, 1 << 24},
           "Context length of a slot.");
  list.add("parallel", parallel, Range<std::int64_t>{1, 4096}, "Slots: sequences at once.");
  list.add("gpu_layers", gpu_layers, Range<std::int64_t>{-1, 10000},
           "Layers on the GPU; -1: the server decides.");
  list.add("flash_attention", flash_attention, Choices{{"auto", "on", "off"}},
           "llama.cpp's flash attention kernels; off with an f32 cache for exact numbers.");
  list.add("port", port, Range<std::int64_t>{0, 65535}, "Port on 127.0.0.1; 0: a free one.");
  list.add("start_timeout_s", start_timeout_s, Range<double>{0.1, 86400.0},
           "Seconds until the server must be ready.");
  list.add("request_timeout_s", request_timeout_s, Range<double>{0.1, 86400.0},
           "Seconds until a request must be answered.");
  list.add("log_file", log_file, "File for the server's output; empty: memory.");
}

void add_to_key(KeyBuilder& key, const LlamaServerOptions& options) {
  key.add("threads", options.threads > 0 ? options.threads : usable_cores());
  key.add("context_tokens", options.context_tokens).add("parallel", options.parallel);
  key.add("gpu_layers", options.gpu_layers).add("cache_type", options.cache_type);
  key.add("flash_attention", options.flash_attention);
}

LlamaServerOptions numbered_server(const LlamaServerOptions& options, std::int64_t index) {
  LlamaServerOptions numbered = options;
  if (options.port > 0) {
    numbered.port = options.port + index;
    if (numbered.port > 65535) {
      fail(ErrorKind::kUsage,
           "llama_server.port: {} for the first of {} servers at once; name a lower one, or 0",
           options.port, index + 1);
    }
  }
  if (!options.log_file.empty() && index > 0) {
    numbered.log_file += fmt::format(".{}", index);
  }
  return numbered;
}

std::string find_llama_server_version(const LlamaServerOptions& options) {
  std::vector<std::string> arguments = find_server(options);
  arguments.emplace_back("--version");
  const ChildProcess child({arguments, {"PYTHONUNBUFFERED=1"}, ""});
  const auto start = ServerClock::now();
  while (!child.ended() && std::chrono::duration<double>(ServerClock::now() - start).count() <
                               options.start_timeout_s) {
    throw_if_interrupted();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  constexpr std::string_view kProgramVersion = "version: ";
  for (const std::string& line : split(child.log(), '\n')) {
    if (line.starts_with(kPythonServer)) {
      return line;
    }
    if (line.starts_with(kProgramVersion)) {
      return "llama-server " + line.substr(kProgramVersion.size());
    }
  }
  if (child.log().find("no xllamacpp: ") != std::string::npos) {
    fail(ErrorKind::kIo, "llama-server: {}; {}", child.log_tail(1), kServerAdvice);
  }
  return arguments.front() + " of unknown version";
}

struct LlamaServer::Process {
  explicit Process(const ChildProcessOptions& options) : child(options) {}

  ChildProcess child;
};

LlamaServer::LlamaServer(const std::filesystem::path& model, const LlamaServerOptions& options,
                         LlamaServerMode mode)
    : options_(options), mode_(mode), place_("llama-server on " + model.filename().string()) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(model, ignored)) {
    fail(ErrorKind::kIo, "{}: no such file", model.string());
  }
  if (mode == LlamaServerMode::kHiddenStates) {
    options_.parallel = 1;
  }
  std::vector<std::string> arguments = find_server(options_);
  port_ = options_.port > 0 ? options_.port : find_free_port();
  add_server_arguments(arguments, model.string(), options_, port_, mode_);
  // In the environment, since older servers refuse an argument that they do not know.
  process_ = std::make_unique<Process>(ChildProcessOptions{
      arguments, {"LLAMA_ARG_CACHE_RAM=0", "PYTHONUNBUFFERED=1"}, options_.log_file});
  wait_until_ready(options_.start_timeout_s);
  check_model(model);
}

LlamaServer::~LlamaServer() = default;

std::int64_t LlamaServer::process_id() const { return process_->child.id(); }

std::string LlamaServer::log_tail(std::int64_t lines) const {
  return process_->child.log_tail(lines);
}

void LlamaServer::check_alive() const {
  throw_if_interrupted();
  if (const std::optional<std::string> how = process_->child.ended()) {
    const std::string log = log_tail();
    const std::string_view advice = log.find("no xllamacpp: ") != std::string::npos
                                        ? kServerAdvice
                                        : "is it a file that this llama.cpp reads?";
    fail(ErrorKind::kIo, "{}: ended with {}; {}; it printed last:\n{}", place_, *how, advice, log);
  }
}

// A dying server closes its connections a moment before the kernel reports its end.
void LlamaServer::check_alive_for_a_while() const {
  for (int i = 0; i < 50; ++i) {
    check_alive();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

void LlamaServer::wait_until_ready(double timeout_s) {
  const auto start = ServerClock::now();
  for (;;) {
    check_alive();
    const double left_s =
        timeout_s - std::chrono::duration<double>(ServerClock::now() - start).count();
    if (left_s <= 0.0) {
      fail(ErrorKind::kIo, "{}: not ready after {}; raise start_timeout_s; it printed last:\n{}",
           place_, human_seconds(timeout_s), log_tail());
    }
    const std::optional<HttpResponse> response =
        http_request({.port = port_, .path = "/health", .timeout_s = std::max(left_s, 0.05)},
                     place_, [this] { check_alive(); });
    if (response && response->status == 200) {
      return;
    }
    if (response && response->status != 503) {  // 503: the model is being loaded
      fail(ErrorKind::kIo, "{}: /health answers with status {}: {}", place_, response->status,
           server_message(response->body));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

// Makes sure that it is our server which listens on the port.
void LlamaServer::check_model(const std::filesystem::path& model) const {
  const Json properties = request("GET", "/props", "");
  const std::string path = json_string(properties, "model_path", place_ + "/props", "");
  if (!path.empty() && path != model.string()) {
    fail(ErrorKind::kIo, "{}: the server on port {} has loaded {}; name another port or 0", place_,
         port_, path);
  }
}

Json LlamaServer::request(std::string_view method, const std::string& path,
                          const std::string& body) const {
  const std::string place = place_ + " " + path;
  std::optional<HttpResponse> response;
  try {
    response = http_request({port_, method, path, body, options_.request_timeout_s}, place,
                            [this] { check_alive(); });
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kIo) {
      check_alive_for_a_while();
    }
    throw;
  }
  if (!response) {
    check_alive_for_a_while();
    fail(ErrorKind::kIo, "{}: nobody listens on port {} any more; it printed last:\n{}", place,
         port_, log_tail());
  }
  if (response->status != 200) {
    fail(ErrorKind::kIo, "{}: status {}: {}", place, response->status,
         server_message(response->body));
  }
  Json answer = Json::parse(response->body, nullptr, false);
  if (answer.is_discarded()) {
    fail(ErrorKind::kIo, "{}: found '{}' where JSON is expected", place,
         response->body.substr(0, 80));
  }
  return answer;
}

}  // namespace puzzle
