# puzzle_layer(<name> SOURCES <files> [DEPS <layers or puzzle_dep_* targets>] [TORCH])
#   Defines puzzle_<name>, a static library of one layer; TORCH where it lies below the torch line.
#   Other projects, beside the tree or with it installed, call it puzzle::<name>.
# puzzle_test(<layer> SOURCES <files> [DEPS …] [TORCH])
#   Defines puzzle_<layer>_test and its CTest entries: one per test case above the torch line; with
#   TORCH one per suite, since a process linked to libtorch takes most of a second to start.

# ATen.h once for all targets below the torch line: it is half of what compiling one of their units costs.
function(_puzzle_use_pch target)
  if(NOT PUZZLE_PCH)
    return()
  endif()
  if(NOT TARGET puzzle_pch)
    file(WRITE "${CMAKE_BINARY_DIR}/pch.cpp" "")
    add_library(puzzle_pch OBJECT "${CMAKE_BINARY_DIR}/pch.cpp")
    target_link_libraries(puzzle_pch PRIVATE puzzle_dep_torch puzzle_dep_fmt)
    target_precompile_headers(puzzle_pch PRIVATE <ATen/ATen.h> <fmt/format.h> <filesystem>
                              <functional> <map> <memory> <string> <vector>)
  endif()
  # For ccache, which compares preprocessed text.
  target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)
  target_precompile_headers(${target} REUSE_FROM puzzle_pch)
endfunction()

add_library(puzzle_warnings INTERFACE)
target_compile_options(puzzle_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion
                       -Wno-sign-conversion $<$<BOOL:${PUZZLE_WERROR}>:-Werror>
                       # g++ 12 reports "text" + string as overlapping copies (GCC bug 105651).
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(PUZZLE_SANITIZE)
  string(REPLACE ";" "," _puzzle_sanitizers "${PUZZLE_SANITIZE}")
  # gcc 12 takes what its sanitizers add to std::regex for reads of uninitialised memory (gcc bug
  # 105562); builds without them keep the warning.
  add_compile_options(-fsanitize=${_puzzle_sanitizers} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all -Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${_puzzle_sanitizers})
endif()

function(_puzzle_link target)
  foreach(dep IN LISTS ARGN)
    if(TARGET puzzle_${dep})
      target_link_libraries(${target} PUBLIC puzzle_${dep})
    else()
      target_link_libraries(${target} PUBLIC ${dep})
    endif()
  endforeach()
endfunction()

function(puzzle_layer name)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  add_library(puzzle_${name} STATIC ${ARG_SOURCES})
  add_library(puzzle::${name} ALIAS puzzle_${name})
  set_target_properties(puzzle_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY PUZZLE_LAYER_TARGETS puzzle_${name})
  target_compile_features(puzzle_${name} PUBLIC cxx_std_20)
  target_include_directories(puzzle_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>)
  _puzzle_link(puzzle_${name} ${ARG_DEPS})
  target_link_libraries(puzzle_${name} PRIVATE $<BUILD_INTERFACE:puzzle_warnings>)
  if(PUZZLE_UNITY)
    set_target_properties(puzzle_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  endif()
  if(ARG_TORCH)
    _puzzle_use_pch(puzzle_${name})
  endif()
endfunction()

function(puzzle_test layer)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  set(target puzzle_${layer}_test)
  add_executable(${target} ${ARG_SOURCES})
  # Position-independent like the layers, so that they can share one precompiled header.
  target_compile_options(${target} PRIVATE -fPIC)
  if(PUZZLE_UNITY)  # tests are compiled far more often than they spend time in their own code
    target_compile_options(${target} PRIVATE -O1)
  endif()
  if(TARGET puzzle_${layer})  # tests/e2e has no layer of its own
    list(PREPEND ARG_DEPS ${layer})
  endif()
  _puzzle_link(${target} ${ARG_DEPS})
  target_link_libraries(${target} PRIVATE puzzle_warnings GTest::gtest_main GTest::gmock)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(${target} PRIVATE
    PUZZLE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" PUZZLE_BINARY="${PROJECT_BINARY_DIR}/puzzle"
    PUZZLE_PYTHON="${PUZZLE_PYTHON}")
  if(PUZZLE_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
  endif()
  set(environment OMP_WAIT_POLICY=PASSIVE)
  if(ARG_TORCH)
    _puzzle_use_pch(${target})
    foreach(source IN LISTS ARG_SOURCES)
      file(STRINGS "${source}" suites REGEX "^TEST(_F|_P)?\\(")
      list(TRANSFORM suites REPLACE "^TEST(_F|_P)?\\(([A-Za-z0-9]+),.*" "\\2")
      list(REMOVE_DUPLICATES suites)
      foreach(suite IN LISTS suites)
        add_test(NAME ${layer}.${suite}
                 COMMAND ${target} --gtest_filter=${suite}.*:*/${suite}.*)
        set_tests_properties(${layer}.${suite} PROPERTIES ENVIRONMENT "${environment}"
                             FAIL_REGULAR_EXPRESSION "Running 0 tests" TIMEOUT 600)
      endforeach()
    endforeach()
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${ARG_SOURCES})
  else()
    gtest_discover_tests(${target} TEST_PREFIX ${layer}. DISCOVERY_TIMEOUT 60
                         PROPERTIES ENVIRONMENT "${environment}" TIMEOUT 120)
  endif()
endfunction()
