// The part of HTTP/1.1 that talking to a server on this machine takes: one request per connection,
// bodies with a length, chunked, or up to the end of the connection.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace puzzle {

struct HttpRequest {
  std::int64_t port = 0;  // on 127.0.0.1
  std::string_view method = "GET";
  std::string_view path = "/";
  std::string_view body = {};  // JSON; sent if not empty
  double timeout_s = 60.0;
};

struct HttpResponse {
  int status = 0;
  std::string body;
};

// Nothing if nobody listens on the port. `while_waiting` is called several times a second and may
// throw to give up. Throws Error(kIo), `place` first: time limit, connection cut, or an answer that
// is not HTTP.
[[nodiscard]] std::optional<HttpResponse> http_request(const HttpRequest& request,
                                                       const std::string& place,
                                                       const std::function<void()>& while_waiting);

}  // namespace puzzle
