# libtorch from the Python wheel, without a CUDA toolkit (we compile no .cu, so torch's own CMake
# package asks for too much). Sets PUZZLE_TORCH_DIR and PUZZLE_TORCH_VERSION and defines the targets
# puzzle_dep_torch and puzzle_dep_fmt, or adds to PUZZLE_MISSING.

if(NOT PUZZLE_TORCH_DIR)
  execute_process(
    COMMAND "${PUZZLE_PYTHON}" -c
            "import importlib.util as u, os; print(os.path.dirname(u.find_spec('torch').origin))"
    OUTPUT_VARIABLE PUZZLE_TORCH_DIR_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(PUZZLE_TORCH_DIR "${PUZZLE_TORCH_DIR_FOUND}" CACHE PATH "Folder of the torch Python package" FORCE)
endif()
if(NOT EXISTS "${PUZZLE_TORCH_DIR}/include/ATen/ATen.h")
  list(APPEND PUZZLE_MISSING "no torch wheel for the Python '${PUZZLE_PYTHON}': name one that has it with \
-DPUZZLE_PYTHON, or the wheel's folder torch with -DPUZZLE_TORCH_DIR")
  return()
endif()
file(STRINGS "${PUZZLE_TORCH_DIR}/version.py" PUZZLE_TORCH_VERSION REGEX "^__version__")
string(REGEX REPLACE ".*'([^']+)'.*" "\\1" PUZZLE_TORCH_VERSION "${PUZZLE_TORCH_VERSION}")
if(TARGET puzzle_dep_torch)
  return()
endif()

add_library(puzzle_dep_torch INTERFACE IMPORTED GLOBAL)
target_include_directories(puzzle_dep_torch SYSTEM INTERFACE
  "${PUZZLE_TORCH_DIR}/include" "${PUZZLE_TORCH_DIR}/include/torch/csrc/api/include")
# Torch goes first on the link line: it exports BLAS symbols that must not come from elsewhere.
target_link_directories(puzzle_dep_torch INTERFACE "${PUZZLE_TORCH_DIR}/lib")
target_link_options(puzzle_dep_torch INTERFACE "LINKER:-rpath,${PUZZLE_TORCH_DIR}/lib")
target_link_libraries(puzzle_dep_torch INTERFACE
  "${PUZZLE_TORCH_DIR}/lib/libtorch.so" "${PUZZLE_TORCH_DIR}/lib/libtorch_cpu.so"
  "${PUZZLE_TORCH_DIR}/lib/libc10.so")
if(EXISTS "${PUZZLE_TORCH_DIR}/lib/libtorch_cuda.so")
  # Nothing refers to a symbol of libtorch_cuda: without this the linker would drop it.
  target_link_libraries(puzzle_dep_torch INTERFACE
    "-Wl,--no-as-needed" "${PUZZLE_TORCH_DIR}/lib/libtorch_cuda.so"
    "${PUZZLE_TORCH_DIR}/lib/libc10_cuda.so" "-Wl,--as-needed"
    "-Wl,--allow-shlib-undefined")
endif()

# fmt comes from torch's headers everywhere, so that both sides of the torch line agree on one
# version; a folder with nothing but that link keeps torch itself out of reach above the line.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt_include")
file(CREATE_LINK "${PUZZLE_TORCH_DIR}/include/fmt" "${CMAKE_BINARY_DIR}/fmt_include/fmt" SYMBOLIC)
add_library(puzzle_dep_fmt INTERFACE IMPORTED GLOBAL)
target_include_directories(puzzle_dep_fmt SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/fmt_include")
target_compile_definitions(puzzle_dep_fmt INTERFACE FMT_HEADER_ONLY=1)
