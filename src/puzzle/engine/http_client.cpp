#include "puzzle/engine/http_client.h"

#include <algorithm>
#include <cerrno>
#include <chrono>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"

namespace puzzle {
namespace {

using HttpClock = std::chrono::steady_clock;

constexpr std::size_t kMaxHttpHeaderBytes = std::size_t{64} << 10;
constexpr std::size_t kMaxHttpBodyBytes = std::size_t{1} << 30;
constexpr int kHttpPollMilliseconds = 100;

sockaddr_in local_address(std::int64_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

class HttpConnection {
 public:
  HttpConnection(const HttpRequest& request, const std::string& place,
                 const std::function<void()>& while_waiting)
      : place_(place),
        while_waiting_(while_waiting),
        timeout_s_(request.timeout_s),
        deadline_(HttpClock::now() + std::chrono::duration_cast<HttpClock::duration>(
                                         std::chrono::duration<double>(request.timeout_s))),
        descriptor_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    if (descriptor_ < 0) {
      fail(ErrorKind::kIo, "{}: no socket: {}", place_, ::strerror(errno));
    }
    const int on = 1;
    ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  ~HttpConnection() { ::close(descriptor_); }
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  // False if nobody listens.
  bool connect(std::int64_t port) {
    const sockaddr_in address = local_address(port);
    int error = 0;
    if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      error = errno;
    }
    if (error == EINPROGRESS) {
      wait_for(POLLOUT);
      socklen_t size = sizeof error;
      ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    }
    if (error == ECONNREFUSED) {
      return false;
    }
    if (error != 0) {
      fail(ErrorKind::kIo, "{}: no connection to port {}: {}", place_, port, ::strerror(error));
    }
    return true;
  }

  void send_all(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count > 0) {
        bytes.remove_prefix(static_cast<std::size_t>(count));
      } else if (errno == EAGAIN || errno == EINTR) {
        wait_for(POLLOUT);
      } else {
        connection_failed();
      }
    }
  }

  // Appends what has arrived; false at the end of the connection.
  bool receive(std::string& buffer) {
    constexpr std::size_t kPiece = std::size_t{64} << 10;
    for (;;) {
      const std::size_t old_size = buffer.size();
      buffer.resize(old_size + kPiece);
      const ssize_t count = ::recv(descriptor_, buffer.data() + old_size, kPiece, 0);
      const int error = errno;
      buffer.resize(old_size + (count > 0 ? static_cast<std::size_t>(count) : 0));
      if (count >= 0) {
        return count > 0;
      }
      errno = error;
      if (error != EAGAIN && error != EINTR) {
        connection_failed();
      }
      wait_for(POLLIN);
    }
  }

 private:
  void wait_for(short events) {
    for (;;) {
      if (while_waiting_) {
        while_waiting_();
      }
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline_ - HttpClock::now())
              .count();
      if (left <= 0) {
        fail(ErrorKind::kIo, "{}: no answer within {}; raise the time limit if it is only slow",
             place_, human_seconds(timeout_s_));
      }
      pollfd waiting{descriptor_, events, 0};
      const int limit = static_cast<int>(std::min<std::int64_t>(left, kHttpPollMilliseconds));
      if (::poll(&waiting, 1, limit) > 0) {
        return;
      }
    }
  }

  [[noreturn]] void connection_failed() {
    const int error = errno;
    if (while_waiting_) {
      while_waiting_();  // knows better where the server has died
    }
    fail(ErrorKind::kIo, "{}: connection lost: {}", place_, ::strerror(error));
  }

  const std::string& place_;
  const std::function<void()>& while_waiting_;
  double timeout_s_;
  HttpClock::time_point deadline_;
  int descriptor_;
};

struct HttpHeader {
  int status = 0;
  std::optional<std::size_t> content_length;
  bool is_chunked = false;
};

[[noreturn]] void http_mistake(const std::string& place, std::string_view found) {
  fail(ErrorKind::kIo, "{}: the answer is not HTTP: found '{}'; does another program use the port?",
       place, found.substr(0, 60));
}

HttpHeader parse_http_header(std::string_view text, const std::string& place) {
  HttpHeader header;
  const std::vector<std::string> lines = split(text, '\n');
  const std::string_view first = trim(lines.front());
  const std::optional<int> status = first.size() >= 12 && first.starts_with("HTTP/1.")
                                        ? parse_number<int>(first.substr(9, 3))
                                        : std::nullopt;
  if (!status) {
    http_mistake(place, first);
  }
  header.status = *status;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const std::string_view line = trim(lines[i]);
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos) {
      continue;
    }
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trim(line.substr(colon + 1));
    if (name == "content-length") {
      header.content_length = parse_number<std::size_t>(value);
      if (!header.content_length) {
        http_mistake(place, line);
      }
    } else if (name == "transfer-encoding") {
      header.is_chunked = lower(value) == "chunked";
    }
  }
  return header;
}

// The body of a chunked message, or nothing while its last chunk is not there.
std::optional<std::string> decode_chunks(std::string_view text, const std::string& place) {
  std::string body;
  for (;;) {
    const std::size_t line_end = text.find("\r\n");
    if (line_end == std::string_view::npos) {
      return std::nullopt;
    }
    const std::string_view size_text = trim(text.substr(0, std::min(line_end, text.find(';'))));
    const std::optional<std::size_t> size = parse_number<std::size_t>(size_text, 16);
    if (!size || *size > kMaxHttpBodyBytes) {
      http_mistake(place, size_text);
    }
    if (*size == 0) {
      return body;
    }
    if (text.size() < line_end + *size + 4) {
      return std::nullopt;
    }
    body += text.substr(line_end + 2, *size);
    text.remove_prefix(line_end + *size + 4);
  }
}

[[noreturn]] void cut_short(const std::string& place, const std::function<void()>& while_waiting) {
  if (while_waiting) {
    while_waiting();
  }
  fail(ErrorKind::kIo, "{}: the connection ended in the middle of an answer", place);
}

HttpResponse read_response(HttpConnection& connection, const std::string& place,
                           const std::function<void()>& while_waiting) {
  std::string buffer;
  std::size_t header_end = std::string::npos;
  while ((header_end = buffer.find("\r\n\r\n")) == std::string::npos) {
    if (buffer.size() > kMaxHttpHeaderBytes) {
      http_mistake(place, buffer);
    }
    if (!connection.receive(buffer)) {
      cut_short(place, while_waiting);
    }
  }
  const HttpHeader header =
      parse_http_header(std::string_view(buffer).substr(0, header_end), place);
  buffer.erase(0, header_end + 4);
  for (;;) {
    if (header.is_chunked) {
      if (buffer.ends_with("\r\n\r\n")) {
        if (std::optional<std::string> body = decode_chunks(buffer, place)) {
          return {header.status, std::move(*body)};
        }
      }
    } else if (header.content_length && buffer.size() >= *header.content_length) {
      buffer.resize(*header.content_length);
      return {header.status, std::move(buffer)};
    }
    if (buffer.size() > kMaxHttpBodyBytes) {
      fail(ErrorKind::kIo, "{}: the answer is longer than {}", place,
           human_bytes(static_cast<double>(kMaxHttpBodyBytes)));
    }
    if (!connection.receive(buffer)) {
      if (header.is_chunked || header.content_length) {
        cut_short(place, while_waiting);
      }
      return {header.status, std::move(buffer)};
    }
  }
}

}  // namespace

std::optional<HttpResponse> http_request(const HttpRequest& request, const std::string& place,
                                         const std::function<void()>& while_waiting) {
  HttpConnection connection(request, place, while_waiting);
  if (!connection.connect(request.port)) {
    return std::nullopt;
  }
  std::string head = fmt::format("{} {} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n",
                                 request.method, request.path, request.port);
  if (!request.body.empty()) {
    head += fmt::format("Content-Type: application/json\r\nContent-Length: {}\r\n",
                        request.body.size());
  }
  connection.send_all(head + "\r\n" + std::string(request.body));
  return read_response(connection, place, while_waiting);
}

}  // namespace puzzle
