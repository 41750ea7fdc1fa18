#include "puzzle/engine/chat_template.h"

#include <nlohmann/json.hpp>

#include "puzzle/base/error.h"
#include "puzzle/base/json.h"
#include "puzzle/engine/chat_script.h"
#include "puzzle/engine/python_script.h"

namespace puzzle {
namespace {

constexpr double kMaxRenderingSeconds = 30.0;
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

}  // namespace

std::string render_chat(const ChatTemplate& chat, const std::vector<ChatMessage>& messages,
                        const std::string& python) {
  const PythonScript script = {.source = chat_script(),
                               .time_limit_s = kMaxRenderingSeconds,
                               .without = "nothing renders the chat template",
                               .silent = "renders no chat template",
                               .needed = "which renders the chat template",
                               .advice = kChatAdvice};
  const Json answer = run_python_script(script, make_chat_request(chat, messages), python);
  if (answer.contains("late")) {
    fail(ErrorKind::kFormat, "the chat template: not rendered after {} s", kMaxRenderingSeconds);
  }
  if (const auto error = answer.find("error"); error != answer.end()) {
    fail(ErrorKind::kFormat, "the chat template: {}; give the whole prompt as plain text",
         error->get<std::string>());
  }
  return json_string(answer, "text", "the chat template's rendering");
}

}  // namespace puzzle
