#include "puzzle/text/line_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include <zstd.h>

#include "puzzle/base/error.h"
#include "puzzle/base/strings.h"
#include "puzzle/text/unicode.h"

namespace puzzle {
namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 18;

}  // namespace

// The file's bytes, decompressed if need be.
class LineReader::Source {
 public:
  explicit Source(const std::filesystem::path& path)
      : path_(path.string()), file_(std::fopen(path_.c_str(), "rb")) {
    if (file_ == nullptr) {
      fail(ErrorKind::kIo, "{}: cannot be opened: {}", path_, std::strerror(errno));
    }
    if (lower(path.extension().string()) == ".zst") {
      stream_.reset(ZSTD_createDStream());
      PUZZLE_CHECK(stream_ != nullptr, "ZSTD_createDStream: out of memory");
      compressed_.resize(kReadBytes);
    }
  }

  // Appends some bytes; false at the end.
  bool read(std::string& buffer) {
    const std::size_t before = buffer.size();
    buffer.resize(before + kReadBytes);
    const std::size_t count = stream_ == nullptr ? read_file(buffer.data() + before, kReadBytes)
                                                 : decompress(buffer.data() + before, kReadBytes);
    buffer.resize(before + count);
    return count > 0;
  }

 private:
  struct FileCloser {
    void operator()(std::FILE* file) const { (void)std::fclose(file); }
  };

  struct StreamFreer {
    void operator()(ZSTD_DStream* stream) const { ZSTD_freeDStream(stream); }
  };

  std::size_t read_file(char* to, std::size_t bytes) {
    const std::size_t count = std::fread(to, 1, bytes, file_.get());
    if (count < bytes && std::ferror(file_.get()) != 0) {
      fail(ErrorKind::kIo, "{}: reading fails: {}", path_, std::strerror(errno));
    }
    return count;
  }

  std::size_t decompress(char* to, std::size_t bytes) {
    ZSTD_outBuffer output{.dst = to, .size = bytes, .pos = 0};
    while (output.pos == 0) {
      if (input_.pos == input_.size) {
        input_ = {.src = compressed_.data(),
                  .size = read_file(compressed_.data(), compressed_.size()),
                  .pos = 0};
        if (input_.size == 0 && frame_left_ != 0) {
          fail(ErrorKind::kFormat, "{}: the zstd stream ends early; is the file cut off?", path_);
        }
        if (input_.size == 0) {
          return 0;
        }
      }
      frame_left_ = ZSTD_decompressStream(stream_.get(), &output, &input_);
      if (ZSTD_isError(frame_left_) != 0) {
        fail(ErrorKind::kFormat, "{}: damaged zstd stream: {}", path_,
             ZSTD_getErrorName(frame_left_));
      }
    }
    return output.pos;
  }

  std::string path_;
  std::unique_ptr<std::FILE, FileCloser> file_;
  std::unique_ptr<ZSTD_DStream, StreamFreer> stream_;
  std::vector<char> compressed_;
  ZSTD_inBuffer input_{.src = nullptr, .size = 0, .pos = 0};
  std::size_t frame_left_ = 0;  // 0: between two frames
};

LineReader::LineReader(const std::filesystem::path& path)
    : source_(std::make_unique<Source>(path)) {}
LineReader::~LineReader() = default;
LineReader::LineReader(LineReader&&) noexcept = default;
LineReader& LineReader::operator=(LineReader&&) noexcept = default;

bool LineReader::fill() {
  buffer_.erase(0, at_);
  at_ = 0;
  return source_->read(buffer_);
}

bool LineReader::next(std::string& line, std::size_t max_bytes) {
  std::size_t length = 0;  // of what is known to hold no newline
  bool has_newline = false;
  for (;;) {
    const std::size_t newline = buffer_.find('\n', at_ + length);
    if (newline != std::string::npos) {
      length = newline + 1 - at_;
      has_newline = true;
      break;
    }
    length = buffer_.size() - at_;
    if (length > max_bytes || !fill()) {
      break;
    }
  }
  if (length == 0) {
    return false;
  }
  if (length > max_bytes) {
    length = max_bytes;
    has_newline = false;
    const std::string_view part = std::string_view(buffer_).substr(at_, length);
    const std::size_t unfinished = unfinished_utf8_suffix(part);
    length -= unfinished < length ? unfinished : 0;
  }
  line.assign(buffer_, at_, length);
  at_ += length;
  line_number_ += inside_line_ ? 0 : 1;
  inside_line_ = !has_newline;
  return true;
}

}  // namespace puzzle
