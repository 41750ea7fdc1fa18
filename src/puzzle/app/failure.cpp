#include "puzzle/app/failure.h"

#include <filesystem>
#include <new>

#include <c10/util/Exception.h>

#include "puzzle/tensor/with_place.h"

namespace puzzle {
Failure current_failure(const std::string& place) {
  const std::string opening = place.empty() ? "" : place + ": ";
  try {
    throw;
  } catch (const Error& error) {
    return {error.kind(), error.what(), ""};
  } catch (const c10::Error& error) {
    const LibtorchError mine = explained(error);
    return {mine.kind, opening + mine.message, error.what()};
  } catch (const std::bad_alloc& error) {
    const LibtorchError mine = explained(error);
    return {mine.kind, opening + mine.message, ""};
  } catch (const std::filesystem::filesystem_error& error) {
    return {ErrorKind::kIo, opening + error.what(), ""};
  } catch (const std::exception& error) {
    return {ErrorKind::kInternal, opening + error.what(), ""};
  } catch (...) {
    return {ErrorKind::kInternal, opening + "an exception of an unknown type", ""};
  }
}

}  // namespace puzzle
