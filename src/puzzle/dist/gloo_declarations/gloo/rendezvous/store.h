// Base of c10d's GlooStore, which is all inline. Never make a GlooStore here: its vtable has to be
// the one in libtorch_cpu, made from gloo's real declaration. tests/dist checks that no vtable of
// ProcessGroupGloo or GlooStore gets into our binaries.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace gloo::rendezvous {

class Store {
 public:
  virtual ~Store() = default;
  virtual void set(const std::string& key, const std::vector<char>& value) = 0;
  virtual std::vector<char> get(const std::string& key) = 0;
  virtual void wait(const std::vector<std::string>& keys) = 0;
  virtual void wait(const std::vector<std::string>& keys,
                    const std::chrono::milliseconds& timeout) = 0;
};

}  // namespace gloo::rendezvous
