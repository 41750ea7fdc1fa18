#include "puzzle/engine/chat_template.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/interrupt.h"
#include "puzzle/base/json.h"
#include "puzzle/base/strings.h"
#include "puzzle/engine/chat_script.h"
#include "puzzle/engine/child_process.h"

namespace puzzle {
namespace {

// Linux takes up to 128 KiB in one argument.
constexpr std::size_t kMaxArgumentBytes = 100'000;
constexpr std::chrono::seconds kMaxRendering{30};
constexpr const char* kChatAdvice =
    "pip install jinja2 for it, or give the whole prompt as plain text";

Json make_chat_request(const ChatTemplate& chat, const std::vector<ChatMessage>& messages) {
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
  }
  // Templates ask `if bos_token is defined`.
  Json variables = Json::object();
  if (!chat.bos.empty()) {
    variables["bos_token"] = chat.bos;
  }
  if (!chat.eos.empty()) {
    variables["eos_token"] = chat.eos;
  }
  return {{"template", chat.source}, {"messages", list}, {"variables", variables}};
}

std::vector<std::string> chat_arguments(const std::string& python, const Json& request) {
  std::vector<std::string> arguments = {python, "-c", chat_script()};
  const std::string text =
      request.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  for (std::size_t at = 0; at < text.size(); at += kMaxArgumentBytes) {
    arguments.push_back(text.substr(at, kMaxArgumentBytes));
  }
  return arguments;
}

// All that the process prints.
std::string run_to_end(const std::vector<std::string>& arguments) {
  const ChildProcess child({arguments, {"PYTHONUNBUFFERED=1"}, ""});
  const auto end = std::chrono::steady_clock::now() + kMaxRendering;
  while (!child.ended()) {
    throw_if_interrupted();
    if (std::chrono::steady_clock::now() > end) {
      fail(ErrorKind::kFormat, "the chat template: not rendered after {} s", kMaxRendering.count());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return child.log();
}

Json parse_chat_answer(const std::string& log, const std::string& python) {
  const std::vector<std::string> lines = split(trim(log), '\n');
  Json answer = Json::parse(lines.empty() ? "" : lines.back(), nullptr, /*allow_exceptions=*/false);
  if (!answer.is_object()) {
    fail(ErrorKind::kIo, "{}: renders no chat template, but says {}; {}", python, trim(log),
         kChatAdvice);
  }
  return answer;
}

}  // namespace

std::string render_chat(const ChatTemplate& chat, const std::vector<ChatMessage>& messages,
                        const std::string& python) {
  const auto program = python.empty() ? find_python() : find_program(python);
  if (!program) {
    fail(ErrorKind::kIo, "{}: no such program, so nothing renders the chat template; {}",
         python.empty() ? "python3" : python, kChatAdvice);
  }
  const Json answer = parse_chat_answer(
      run_to_end(chat_arguments(program->string(), make_chat_request(chat, messages))), *program);
  if (const auto missing = answer.find("missing"); missing != answer.end()) {
    fail(ErrorKind::kIo, "{}: {}, which renders the chat template; {}", program->string(),
         missing->get<std::string>(), kChatAdvice);
  }
  if (const auto error = answer.find("error"); error != answer.end()) {
    fail(ErrorKind::kFormat, "the chat template: {}; give the whole prompt as plain text",
         error->get<std::string>());
  }
  return answer.at("text").get<std::string>();
}

}  // namespace puzzle
