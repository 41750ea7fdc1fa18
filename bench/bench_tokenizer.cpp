// Encoding and decoding by one thread, as the first pass over new text: every benchmark runs once,
// with a tokenizer whose cache is empty. bench/tokenizer_vs_hugging_face.py drives it in turn with
// Hugging Face's tokenizers.
//
//   bench_tokenizer MODEL TEXTS... [--benchmark_...]      TEXTS: a file of texts, each ended by NUL
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "puzzle/base/file.h"
#include "puzzle/text/pipeline_tokenizer.h"
#include "puzzle/text/tokenizer_files.h"

namespace puzzle {
namespace {

struct Texts {
  std::vector<std::string> texts;
  std::int64_t bytes = 0;
};

Texts load_texts(const std::filesystem::path& path) {
  Texts result;
  const std::string all = read_text_file(path);
  for (std::size_t at = 0; at < all.size(); at = all.find('\0', at) + 1) {
    result.texts.push_back(all.substr(at, all.find('\0', at) - at));
    result.bytes += static_cast<std::int64_t>(result.texts.back().size());
  }
  return result;
}

void encode(benchmark::State& state, const TokenizerSpec& spec, const Texts& texts) {
  const PipelineTokenizer tokenizer(spec);
  std::size_t num_ids = 0;
  for (auto _ : state) {
    for (const std::string& text : texts.texts) {
      num_ids += tokenizer.encode(text, {}).size();
    }
  }
  state.SetBytesProcessed(texts.bytes * state.iterations());
  state.counters["ids"] = static_cast<double>(num_ids);
}

void decode(benchmark::State& state, const TokenizerSpec& spec, const Texts& texts) {
  const PipelineTokenizer tokenizer(spec);
  std::vector<std::vector<std::int32_t>> ids;
  for (const std::string& text : texts.texts) {
    ids.push_back(tokenizer.encode(text, {}));
  }
  std::size_t num_bytes = 0;
  for (auto _ : state) {
    for (const std::vector<std::int32_t>& list : ids) {
      num_bytes += tokenizer.decode(list, {}).size();
    }
  }
  state.SetBytesProcessed(texts.bytes * state.iterations());
  state.counters["bytes"] = static_cast<double>(num_bytes);
}

}  // namespace
}  // namespace puzzle

int main(int argc, char** argv) {
  using namespace puzzle;  // NOLINT(google-build-using-namespace): a program
  benchmark::Initialize(&argc, argv);
  if (argc < 3) {
    std::fputs("usage: bench_tokenizer MODEL TEXTS... [--benchmark_...]\n", stderr);
    return 2;
  }
  const TokenizerSpec spec = load_tokenizer_spec(argv[1]);
  for (int i = 2; i < argc; ++i) {
    const std::string name = std::filesystem::path(argv[i]).stem();
    const auto texts = std::make_shared<const Texts>(load_texts(argv[i]));
    for (const auto& [verb, run] : {std::pair("encode", &encode), std::pair("decode", &decode)}) {
      benchmark::RegisterBenchmark(
          (std::string(verb) + "/" + name).c_str(),
          [&spec, texts, run = run](benchmark::State& state) { run(state, spec, *texts); })
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
    }
  }
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
