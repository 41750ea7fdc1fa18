// Which text a run uses and how it is divided, as a recipe says it under `data`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "puzzle/base/options.h"

namespace puzzle {

inline constexpr std::int64_t kMaxDataTokens = std::int64_t{1} << 40;

struct DataOptions {
  std::vector<std::string> sources;  // as parse_corpus_source (text/corpus.h) takes them

  // Text to tokens.
  std::string split = "file";            // what a document of a .txt file is
  std::string marker = "<|endoftext|>";  // for split = "marker"
  std::string document_start = "auto";   // "auto", "none", "bos" or a token's spelling
  std::string document_end = "auto";     // "auto", "none", "eos" or a token's spelling
  bool parse_special = false;            // special tokens written out in the text count as such

  // Tokens to windows, windows to parts. Sizes in tokens are rounded up to whole windows.
  std::int64_t window = 512;
  bool cross_documents = true;
  std::string mixture = "tokens";
  std::int64_t group_windows = 8;
  std::int64_t train_tokens = 0;  // 0: all that the other parts leave
  std::int64_t calibration_tokens = 65'536;
  std::int64_t scoring_tokens = 16'384;
  std::int64_t validation_tokens = 16'384;
  std::int64_t test_tokens = 32'768;
  std::int64_t seed = 0;

  void visit(OptionList& list) {
    const Range<std::int64_t> tokens{0, kMaxDataTokens};
    list.add("sources", sources,
             "Corpora: path, path:field, path@weight or path:field@weight; .txt, .jsonl, either as "
             ".zst, or a folder of them.");
    list.add(
        "split", split, Choices{{"file", "blank_line", "marker"}},
        "What ends a document in a .txt file: its end, empty lines, or lines equal to marker.");
    list.add("marker", marker, "The line that ends a document where split is marker.");
    list.add("document_start", document_start,
             "Token before each document: none, bos, a token's spelling, or auto (bos where the "
             "tokenizer puts one).");
    list.add("document_end", document_end,
             "Token after each document: none, eos, a token's spelling, or auto (the vocabulary's "
             "end-of-text token, else eos).");
    list.add("parse_special", parse_special,
             "Whether special tokens spelled out in the text become those tokens.");
    list.add("window", window, Range<std::int64_t>{2, 1 << 20}, "Tokens per window.");
    list.add("cross_documents", cross_documents,
             "Whether attention and next-token labels may cross a document's end inside a window.");
    list.add("mixture", mixture, Choices{{"tokens", "weights", "stream"}},
             "How parts share out the sources: by the tokens each has, by the weights given with "
             "@, or not at all (one stream of all text).");
    list.add(
        "group_windows", group_windows, Range<std::int64_t>{1, 1 << 20},
        "Neighbouring windows that go to the same part; larger values keep parts further apart.");
    list.add("train_tokens", train_tokens, tokens,
             "Tokens for training; 0 takes all that the other parts leave.");
    list.add("calibration_tokens", calibration_tokens, tokens,
             "Tokens for the closed-form initialisation.");
    list.add("scoring_tokens", scoring_tokens, tokens, "Tokens for scoring variants.");
    list.add("validation_tokens", validation_tokens, tokens,
             "Tokens for choices during the run: keep-best, checkpoints.");
    list.add("test_tokens", test_tokens, tokens, "Tokens for reporting only.");
    list.add("seed", seed, Range<std::int64_t>{0, INT64_MAX}, "Decides which window goes where.");
  }
};

}  // namespace puzzle
