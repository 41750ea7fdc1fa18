# Finds everything outside the project and says which package brings it where it is missing.

find_program(PUZZLE_CCACHE ccache)
if(PUZZLE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
      "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}" CCACHE_NOHASHDIR=1
      # Without these ccache leaves out whatever uses a precompiled header.
      "CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime"
      "${PUZZLE_CCACHE}")
endif()
find_program(PUZZLE_LLD ld.lld)
if(PUZZLE_LLD)
  add_link_options(-fuse-ld=lld)
endif()

find_package(Threads REQUIRED)

# puzzle_find_header(<target> <header> <apt package>): the target puzzle_dep_<target>.
function(puzzle_find_header target header package)
  find_path(PUZZLE_${target}_INCLUDE "${header}")
  if(NOT PUZZLE_${target}_INCLUDE)
    message(FATAL_ERROR "${header} not found: apt-get install ${package}")
  endif()
  add_library(puzzle_dep_${target} INTERFACE)
  target_include_directories(puzzle_dep_${target} SYSTEM INTERFACE "${PUZZLE_${target}_INCLUDE}")
endfunction()

# puzzle_find_library(<target> <header> <library> <apt package>): the same with a library.
function(puzzle_find_library target header library package)
  puzzle_find_header(${target} "${header}" ${package})
  find_library(PUZZLE_${target}_LIBRARY "${library}")
  if(NOT PUZZLE_${target}_LIBRARY)
    message(FATAL_ERROR "lib${library} not found: apt-get install ${package}")
  endif()
  target_link_libraries(puzzle_dep_${target} INTERFACE "${PUZZLE_${target}_LIBRARY}")
endfunction()

# puzzle_find_package(<name> <apt package>): a CMake package.
macro(puzzle_find_package name package)
  find_package(${name} QUIET)
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "CMake package ${name} not found: apt-get install ${package}")
  endif()
endmacro()

puzzle_find_library(yaml yaml-cpp/yaml.h yaml-cpp libyaml-cpp-dev)
puzzle_find_library(xxhash xxhash.h xxhash libxxhash-dev)
puzzle_find_library(sqlite sqlite3.h sqlite3 libsqlite3-dev)
puzzle_find_library(pcre2 pcre2.h pcre2-8 libpcre2-dev)
puzzle_find_library(utf8proc utf8proc.h utf8proc libutf8proc-dev)
puzzle_find_library(zstd zstd.h zstd libzstd-dev)
puzzle_find_header(json nlohmann/json.hpp nlohmann-json3-dev)
puzzle_find_header(cli11 CLI/CLI.hpp libcli11-dev)

find_package(Libtorch REQUIRED)
find_package(Highs REQUIRED)

# fmt comes from torch's headers everywhere, so that both sides of the torch line agree on one
# version; a folder with nothing but that link keeps torch itself out of reach above the line.
file(MAKE_DIRECTORY "${CMAKE_BINARY_DIR}/fmt_include")
file(CREATE_LINK "${PUZZLE_TORCH_DIR}/include/fmt" "${CMAKE_BINARY_DIR}/fmt_include/fmt" SYMBOLIC)
add_library(puzzle_dep_fmt INTERFACE)
target_include_directories(puzzle_dep_fmt SYSTEM INTERFACE "${CMAKE_BINARY_DIR}/fmt_include")
target_compile_definitions(puzzle_dep_fmt INTERFACE FMT_HEADER_ONLY=1)

if(PUZZLE_BUILD_TESTS)
  puzzle_find_package(GTest "libgtest-dev libgmock-dev")
endif()
