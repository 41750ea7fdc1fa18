#include "puzzle/engine/http_client.h"

#include <chrono>
#include <string>
#include <thread>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "puzzle/base/free_port.h"
#include "support/expect_error.h"

namespace puzzle {
namespace {

// Answers one connection with fixed bytes, in pieces, and keeps what was asked.
class CannedServer {
 public:
  explicit CannedServer(std::string answer, std::size_t piece = 1 << 20)
      : answer_(std::move(answer)), piece_(piece) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), size);
    ::listen(listener_, 1);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~CannedServer() {
    thread_.join();
    ::close(listener_);
  }

  [[nodiscard]] std::int64_t port() const { return port_; }
  [[nodiscard]] const std::string& request() const { return request_; }

 private:
  void serve() {
    const int connection = ::accept(listener_, nullptr, nullptr);
    char buffer[4096];
    // Every request of these tests that has a body ends with a brace.
    while (!request_.ends_with("\r\n\r\n") && !request_.ends_with("}")) {
      const ssize_t count = ::recv(connection, buffer, sizeof buffer, 0);
      if (count <= 0) {
        break;
      }
      request_.append(buffer, static_cast<std::size_t>(count));
    }
    for (std::size_t begin = 0; begin < answer_.size(); begin += piece_) {
      const std::string piece = answer_.substr(begin, piece_);
      ::send(connection, piece.data(), piece.size(), MSG_NOSIGNAL);
      if (piece_ < answer_.size()) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
    ::close(connection);
  }

  std::string answer_;
  std::size_t piece_;
  int listener_ = -1;
  std::int64_t port_ = 0;
  std::string request_;
  std::thread thread_;
};

HttpResponse ask(const CannedServer& server) {
  return http_request({.port = server.port(), .path = "/x", .timeout_s = 20.0}, "place", {})
      .value();
}

TEST(HttpClient, SendsAPostWithItsBody) {
  std::string request;
  {
    CannedServer server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    const auto response = http_request({.port = server.port(),
                                        .method = "POST",
                                        .path = "/completion",
                                        .body = R"({"a": 1})",
                                        .timeout_s = 20.0},
                                       "place", {});
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->body, "{}");
    request = server.request();
  }
  EXPECT_THAT(request, testing::StartsWith("POST /completion HTTP/1.1\r\nHost: 127.0.0.1:"));
  EXPECT_THAT(request, testing::HasSubstr("\r\nContent-Length: 8\r\n"));
  EXPECT_THAT(request, testing::EndsWith("\r\n\r\n{\"a\": 1}"));
}

TEST(HttpClient, ReadsEveryKindOfBodyInAnyPieces) {
  const std::string body(300, 'b');
  for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1} << 20}) {
    SCOPED_TRACE(piece);
    CannedServer with_length("HTTP/1.1 404 Not Found\r\ncontent-length: 300\r\n\r\n" + body, piece);
    EXPECT_EQ(ask(with_length).status, 404);
    CannedServer to_the_end("HTTP/1.0 200 OK\r\n\r\n" + body, piece);
    EXPECT_EQ(ask(to_the_end).body, body);
    CannedServer chunked(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\r\nc\r\n12C;x=1\r\n" + body +
            "\r\n0\r\n\r\n",
        piece);
    EXPECT_EQ(ask(chunked).body, "ab\r\nc" + body);
    CannedServer empty("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", piece);
    EXPECT_EQ(ask(empty).body, "");
  }
}

TEST(HttpClient, RefusesAnswersThatAreNotHttp) {
  struct Case {
    const char* answer;
    const char* message;
  };
  const Case cases[] = {
      {"", "the connection ended in the middle"},
      {"HTTP/1.1 200 OK\r\n", "the connection ended in the middle"},
      {"SSH-2.0-OpenSSH\r\n\r\n", "place: the answer is not HTTP: found 'SSH-2.0-OpenSSH'"},
      {"HTTP/1.1 abc\r\n\r\n", "not HTTP"},
      {"HTTP/1.1\r\n\r\n", "not HTTP"},
      {"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "Content-Length: -5"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "Content-Length"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", "in the middle of an answer"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n\r\n", "found 'zz'"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffff\r\n\r\n\r\n", "not HTTP"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "in the middle"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.answer);
    CannedServer server(bad.answer);
    EXPECT_PUZZLE_ERROR((void)ask(server), ErrorKind::kIo, bad.message);
  }
}

TEST(HttpClient, TellsNobodyThereFromAnError) {
  EXPECT_FALSE(http_request({.port = find_free_port(), .timeout_s = 20.0}, "place", {}));
}

TEST(HttpClient, CallsBackWhileItWaits) {
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  // The kernel accepts the connection; nobody ever answers.
  const HttpRequest request{.port = ntohs(address.sin_port), .timeout_s = 0.35};
  int calls = 0;
  EXPECT_PUZZLE_ERROR((void)http_request(request, "place", [&calls] { ++calls; }), ErrorKind::kIo,
                      "place: no answer within");
  EXPECT_GE(calls, 3);
  EXPECT_PUZZLE_ERROR(
      (void)http_request(request, "place", [] { fail(ErrorKind::kInterrupted, "enough"); }),
      ErrorKind::kInterrupted, "enough");
  ::close(listener);
}

}  // namespace
}  // namespace puzzle
