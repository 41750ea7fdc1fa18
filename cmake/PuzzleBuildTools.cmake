# What only building puzzle itself uses: compiler cache, linker, packages of tests and benchmarks.

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

# puzzle_find_package(<name> <apt package>): a CMake package.
macro(puzzle_find_package name package)
  find_package(${name} QUIET)
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "CMake package ${name} not found: apt-get install ${package}")
  endif()
endmacro()

if(PUZZLE_BUILD_TESTS)
  puzzle_find_package(GTest "libgtest-dev libgmock-dev")
endif()
