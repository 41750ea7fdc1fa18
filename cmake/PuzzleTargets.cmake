# puzzle_layer(<name> SOURCES <files> [DEPS <layers or puzzle_dep_* targets>])
#   Defines puzzle_<name>, a static library of one layer.
# puzzle_test(<layer> SOURCES <files> [DEPS …] [TORCH])
#   Defines puzzle_<layer>_test and its CTest entries: one per test case above the torch line; with
#   TORCH one per suite, since a process linked to libtorch takes most of a second to start.

add_library(puzzle_warnings INTERFACE)
target_compile_options(puzzle_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion
                       -Wno-sign-conversion $<$<BOOL:${PUZZLE_WERROR}>:-Werror>
                       # g++ 12 reports "text" + string as overlapping copies (GCC bug 105651).
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
if(PUZZLE_SANITIZE)
  string(REPLACE ";" "," _puzzle_sanitizers "${PUZZLE_SANITIZE}")
  add_compile_options(-fsanitize=${_puzzle_sanitizers} -fno-omit-frame-pointer
                      -fno-sanitize-recover=all)
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
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(puzzle_${name} STATIC ${ARG_SOURCES})
  target_include_directories(puzzle_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include>)
  _puzzle_link(puzzle_${name} ${ARG_DEPS})
  target_link_libraries(puzzle_${name} PRIVATE $<BUILD_INTERFACE:puzzle_warnings>)
  if(PUZZLE_UNITY)
    set_target_properties(puzzle_${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
  endif()
endfunction()

function(puzzle_test layer)
  cmake_parse_arguments(ARG "TORCH" "" "SOURCES;DEPS" ${ARGN})
  set(target puzzle_${layer}_test)
  add_executable(${target} ${ARG_SOURCES})
  _puzzle_link(${target} ${layer} ${ARG_DEPS})
  target_link_libraries(${target} PRIVATE puzzle_warnings GTest::gtest_main GTest::gmock)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/tests")
  target_compile_definitions(${target} PRIVATE
    PUZZLE_SOURCE_DIR="${PROJECT_SOURCE_DIR}" PUZZLE_BINARY="${PROJECT_BINARY_DIR}/puzzle"
    PUZZLE_PYTHON="${PUZZLE_PYTHON}")
  if(PUZZLE_UNITY)
    set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 4)
  endif()
  set(environment OMP_WAIT_POLICY=PASSIVE)
  if(ARG_TORCH)
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
