#include "puzzle/stages/rank_lead.h"

#include <exception>
#include <utility>

#include <nlohmann/json.hpp>

#include "puzzle/base/json.h"

namespace puzzle {

RankLead::RankLead(Communicator& communicator, Work work)
    : communicator_(communicator), work_(std::move(work)) {}

void RankLead::tell(const Json& message) {
  (void)communicator_.broadcast_string(message.dump(), 0);
}

void RankLead::tell_of(ErrorKind kind, const std::string& message) {
  if (!is_broken_) {
    tell({{"error", message}, {"kind", static_cast<int>(kind)}});
  }
}

Json RankLead::together(const Json& request) {
  is_broken_ = true;
  tell({{"request", request}});
  Json answer = work_(request);
  is_broken_ = false;
  return answer;
}

Json RankLead::run(const std::function<Json()>& lead) {
  if (communicator_.is_first()) {
    try {
      Json result = lead();
      tell({{"result", result}});
      return result;
    } catch (const Error& error) {
      tell_of(error.kind(), error.what());
      throw;
    } catch (const std::exception& error) {  // out of memory, most of the time
      tell_of(ErrorKind::kIo, error.what());
      throw;
    }
  }
  while (true) {
    const Json message = parse_json(communicator_.broadcast_string("", 0), "rank 0's message");
    if (message.contains("error")) {
      fail_with(static_cast<ErrorKind>(message.at("kind").get<int>()),
                message.at("error").get<std::string>());
    }
    if (message.contains("result")) {
      return message.at("result");
    }
    (void)work_(message.at("request"));
  }
}

void lead_alone(Communicator& communicator, const std::function<void(const KeepStep&)>& work) {
  RankLead lead(communicator, [](const Json&) { return Json(); });
  (void)lead.run([&] {
    work([&] { (void)lead.together(Json()); });
    return Json();
  });
}

}  // namespace puzzle
