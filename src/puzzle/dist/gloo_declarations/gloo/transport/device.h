// Handles that live in libtorch_cpu and are only carried by pointer.
#pragma once

namespace gloo::transport {

class Device;

// Complete because unique_ptr members of c10d classes may destroy one.
class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

}  // namespace gloo::transport
