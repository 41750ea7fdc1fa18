// Chats as a model's own template writes them, rendered by Jinja2 in a Python process.
//
// Templates are programs in Jinja's language, written for Jinja2 itself, and Debian packages no C++
// library that reads it. Every Python with the torch package has Jinja2, which torch requires. It
// runs in Jinja2's sandbox: a template comes from whoever made the model.
#pragma once

#include <string>
#include <vector>

namespace puzzle {

struct ChatTemplate {
  std::string source;  // Jinja, not empty
  std::string bos;     // text of the tokens that templates may name; empty: the model has none
  std::string eos;
};

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

// The text of the chat, up to where the assistant's answer starts. Control tokens, BOS included,
// are spelled out where the template puts them: encode it without adding any. `python`: an
// interpreter's name or path; empty: the one the build was configured with, else python3. Throws
// Error(kFormat) with the template's complaint if it cannot be rendered, also if that takes more
// than half a minute; Error(kIo) where there is no Python with Jinja2.
[[nodiscard]] std::string render_chat(const ChatTemplate& chat,
                                      const std::vector<ChatMessage>& messages,
                                      const std::string& python = "");

}  // namespace puzzle
