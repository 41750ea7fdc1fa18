// Rank 0 decides, all ranks compute: for work whose next step depends on what only rank 0 knows.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include <nlohmann/json_fwd.hpp>

#include "puzzle/base/error.h"
#include "puzzle/dist/communicator.h"

namespace puzzle {

class RankLead {
 public:
  // Called on every rank with the same request; may use collectives. Its answer counts on rank 0.
  // An exception in it ends the group, as in any collective: what rank 0 can judge, `lead` judges.
  using Work = std::function<nlohmann::json(const nlohmann::json& request)>;

  RankLead(Communicator& communicator, Work work);

  // On all ranks: rank 0 runs `lead`, the others work at its requests until it returns. Its result
  // on every rank, or its Error.
  nlohmann::json run(const std::function<nlohmann::json()>& lead);

  // On rank 0, inside `lead`.
  nlohmann::json together(const nlohmann::json& request);

 private:
  void tell(const nlohmann::json& message);
  void tell_of(ErrorKind kind, const std::string& message);

  Communicator& communicator_;
  Work work_;
  bool is_broken_ = false;  // the others may not be listening any more
};

// What rank 0 calls now and then while it works alone: the others wait from one call to the next,
// each time at most communicator.timeout_s.
using KeepStep = std::function<void()>;

// On all ranks: rank 0 runs `work`, the others wait. Its Error is every rank's.
void lead_alone(Communicator& communicator, const std::function<void(const KeepStep&)>& work);

}  // namespace puzzle
