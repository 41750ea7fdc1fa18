# Finds everything outside the project and makes a target puzzle_dep_<name> of each. PUZZLE_MISSING
# lists what is not there and how to get it. Read by the build, and installed for find_package(puzzle).
# The targets are imported, so that installed layers name them instead of this machine's paths.

find_package(Threads REQUIRED)

set(PUZZLE_MISSING "")

# puzzle_find_header(<target> <header> <apt package>): the target puzzle_dep_<target>.
function(puzzle_find_header target header package)
  find_path(PUZZLE_${target}_INCLUDE "${header}")
  if(NOT PUZZLE_${target}_INCLUDE)
    set(PUZZLE_MISSING ${PUZZLE_MISSING} "${header} not found: apt-get install ${package}" PARENT_SCOPE)
  elseif(NOT TARGET puzzle_dep_${target})
    add_library(puzzle_dep_${target} INTERFACE IMPORTED GLOBAL)
    target_include_directories(puzzle_dep_${target} SYSTEM INTERFACE "${PUZZLE_${target}_INCLUDE}")
  endif()
endfunction()

# puzzle_find_library(<target> <header> <library> <apt package>): the same with a library.
function(puzzle_find_library target header library package)
  puzzle_find_header(${target} "${header}" ${package})
  find_library(PUZZLE_${target}_LIBRARY "${library}")
  if(NOT PUZZLE_${target}_LIBRARY)
    list(APPEND PUZZLE_MISSING "lib${library} not found: apt-get install ${package}")
  elseif(TARGET puzzle_dep_${target})
    set_property(TARGET puzzle_dep_${target} PROPERTY INTERFACE_LINK_LIBRARIES
                 "${PUZZLE_${target}_LIBRARY}")
  endif()
  set(PUZZLE_MISSING ${PUZZLE_MISSING} PARENT_SCOPE)
endfunction()

puzzle_find_library(yaml yaml-cpp/yaml.h yaml-cpp libyaml-cpp-dev)
puzzle_find_library(xxhash xxhash.h xxhash libxxhash-dev)
puzzle_find_library(sqlite sqlite3.h sqlite3 libsqlite3-dev)
puzzle_find_library(pcre2 pcre2.h pcre2-8 libpcre2-dev)
puzzle_find_library(utf8proc utf8proc.h utf8proc libutf8proc-dev)
puzzle_find_library(zstd zstd.h zstd libzstd-dev)
puzzle_find_header(json nlohmann/json.hpp nlohmann-json3-dev)
puzzle_find_header(cli11 CLI/CLI.hpp libcli11-dev)

include("${CMAKE_CURRENT_LIST_DIR}/FindLibtorch.cmake")
include("${CMAKE_CURRENT_LIST_DIR}/FindHighs.cmake")
