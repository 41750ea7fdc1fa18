// Expected texts are written by hand after Jinja's documentation and what Hugging Face says that it
// gives to chat templates.
#include "puzzle/engine/chat_template.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "puzzle/base/file.h"
#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace puzzle {
namespace {

const std::vector<ChatMessage>& chat() {
  static const std::vector<ChatMessage> kChat = {{"system", "Be brief."},
                                                 {"user", "Is 1 < 2?\n\"é\" \U0001F600"}};
  return kChat;
}

std::string render(const std::string& source) {
  return render_chat({.source = source, .bos = "<s>", .eos = "</s>"}, chat());
}

// An executable that stands in for Python.
std::string make_program(const test::TempDir& folder, const std::string& script) {
  const std::filesystem::path path = folder / "python";
  write_text_file(path, "#!/bin/sh\n" + script + "\n");
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path.string();
}

TEST(ChatTemplate, WritesMessagesAndTheAnswersOpening) {
  EXPECT_EQ(
      render("{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m.content }}{{ "
             "eos_token }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"),
      "<s>[system] Be brief.</s>\n[user] Is 1 < 2?\n\"é\" \U0001F600</s>\n[assistant]");
}

TEST(ChatTemplate, HasWhatChatTemplatesExpect) {
  // Blocks take their line's indentation and end with them.
  EXPECT_EQ(render("  {% if true %}\nyes\n  {% endif %}\nend"), "yes\nend");
  EXPECT_EQ(render("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role "
                   "}}{% break %}{% endfor %}"),
            "user");
  EXPECT_EQ(render("{{ {'a': '<é>'} | tojson }}"), "{\"a\": \"<é>\"}");
  EXPECT_EQ(render("{% generation %}{{ eos_token }}{% endgeneration %}."), "</s>.");
  EXPECT_EQ(render("{{ strftime_now('%Y') | length }}"), "4");
  EXPECT_EQ(render("{{ tools is none }} {{ pad_token is defined }}"), "True False");
  EXPECT_EQ(render_chat({.source = "{{ bos_token is defined }}", .bos = "", .eos = ""}, {}),
            "False");
}

TEST(ChatTemplate, TakesLongMessages) {
  const std::string text(300'000, 'x');
  EXPECT_EQ(render_chat({.source = "{{ messages[0].content }}", .bos = "", .eos = ""},
                        {{.role = "user", .content = text}}),
            text);
}

TEST(ChatTemplate, PassesOnWhatATemplateComplainsOf) {
  EXPECT_PUZZLE_ERROR((void)render("{{ raise_exception('roles must alternate') }}"),
                      ErrorKind::kFormat,
                      "the chat template: TemplateError: roles must alternate; give the whole");
  EXPECT_PUZZLE_ERROR((void)render("{% for %}"), ErrorKind::kFormat, "TemplateSyntaxError");
  EXPECT_PUZZLE_ERROR((void)render("{{ messages[7].content | trim + none }}"), ErrorKind::kFormat,
                      "the chat template: ");
}

TEST(ChatTemplate, RunsTemplatesInASandbox) {
  EXPECT_PUZZLE_ERROR((void)render("{{ ''.__class__.__mro__ }}"), ErrorKind::kFormat,
                      "SecurityError");
  EXPECT_PUZZLE_ERROR((void)render("{{ messages.append(1) }}"), ErrorKind::kFormat,
                      "SecurityError");
  EXPECT_PUZZLE_ERROR((void)render("{{ range(10000000) | list | length }}"), ErrorKind::kFormat,
                      "OverflowError");
}

TEST(ChatTemplate, SaysWhatIsMissing) {
  const ChatTemplate any{.source = "{{ bos_token }}", .bos = "", .eos = ""};
  EXPECT_PUZZLE_ERROR((void)render_chat(any, chat(), "/nowhere/python"), ErrorKind::kIo,
                      "/nowhere/python: no such program");
  const test::TempDir folder;
  // Without its site-packages.
  const std::string bare = make_program(folder, "exec " PUZZLE_PYTHON " -S \"$@\"");
  EXPECT_PUZZLE_ERROR((void)render_chat(any, chat(), bare), ErrorKind::kIo,
                      "No module named 'jinja2', which renders the chat template; pip install");
  const std::string broken = make_program(folder, "echo cannot start >&2; exit 1");
  EXPECT_PUZZLE_ERROR((void)render_chat(any, chat(), broken), ErrorKind::kIo,
                      "renders no chat template, but ends with");
}

}  // namespace
}  // namespace puzzle
