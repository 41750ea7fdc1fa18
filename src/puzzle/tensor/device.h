// Device and thread choice, in one place.
#pragma once

#include <cstdint>
#include <string>

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace puzzle {

// "cpu", "cuda:N", or "cuda": the GPU of this process among those of its machine, local_rank modulo
// their number; tensors "on CUDA" go there from here on. Throws Error(kUsage) for another text, or
// for CUDA where this libtorch has none or sees no such GPU: there is no silent fallback.
[[nodiscard]] c10::Device parse_device(const std::string& text, int local_rank = 0);

// The index that "cuda" or "cuda:N" means where there are `num_gpus`. Throws Error(kUsage).
[[nodiscard]] int parse_gpu_index(const std::string& text, int local_rank, int num_gpus);

// The type in which the device multiplies matrices fastest without losing range: bfloat16 on GPUs
// and on CPUs with instructions for it (AVX512-BF16, AMX), else float32.
[[nodiscard]] c10::ScalarType fastest_type(const c10::Device& device);

// Threads of one operator; 0 = all cores. Call once, before any tensor work.
void set_num_threads(std::int64_t threads);
[[nodiscard]] std::int64_t num_threads();

// Lets the allocator keep up to half a GiB of freed memory. By default glibc gives the memory of
// every large tensor back to the kernel and the next tensor pays for its pages again, which is a
// twentieth to a tenth of a forward pass. Call once, before any tensor work; call it in programs.
void keep_freed_memory();

// Makes repeated runs bit-identical on one machine and thread count.
void make_deterministic();

// Warnings of libtorch become warnings of ours, each once. Call once; call it in programs.
void log_torch_warnings();

// Gives a GPU's memory that freed tensors left in libtorch's cache back, for other programs;
// nothing on the CPU.
void release_cached_memory(const c10::Device& device);

// Waits for queued work of a GPU; nothing on the CPU. Used around timings.
void synchronize(const c10::Device& device);

// "cpu, 2 threads, OMP_WAIT_POLICY=PASSIVE" or "cuda:0", printed with every timing.
[[nodiscard]] std::string describe_device(const c10::Device& device);

// Highest resident memory of this process so far, bytes.
[[nodiscard]] std::int64_t peak_resident_bytes();

}  // namespace puzzle
