# HiGHS as the C library inside the highsbox wheel. Defines the target puzzle_dep_highs, or adds to
# PUZZLE_MISSING.
# Only interfaces/highs_c_api.h is used: the wheel is built with the old std::string ABI.

if(NOT PUZZLE_HIGHS_DIR)
  execute_process(
    COMMAND "${PUZZLE_PYTHON}" -c "import highsbox; print(highsbox.highs_dist_dir())"
    OUTPUT_VARIABLE PUZZLE_HIGHS_DIR_FOUND OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(PUZZLE_HIGHS_DIR "${PUZZLE_HIGHS_DIR_FOUND}" CACHE PATH "Root of the HiGHS library" FORCE)
endif()
find_path(PUZZLE_HIGHS_INCLUDE interfaces/highs_c_api.h
          PATHS "${PUZZLE_HIGHS_DIR}/include/highs" NO_DEFAULT_PATH)
find_library(PUZZLE_HIGHS_LIBRARY highs
             PATHS "${PUZZLE_HIGHS_DIR}/lib" "${PUZZLE_HIGHS_DIR}/lib64" NO_DEFAULT_PATH)
if(NOT PUZZLE_HIGHS_INCLUDE OR NOT PUZZLE_HIGHS_LIBRARY)
  list(APPEND PUZZLE_MISSING "no HiGHS (pip package highsbox) for the Python '${PUZZLE_PYTHON}': name one that \
has it with -DPUZZLE_PYTHON, or the library's root with -DPUZZLE_HIGHS_DIR")
elseif(NOT TARGET puzzle_dep_highs)
  get_filename_component(PUZZLE_HIGHS_LIBDIR "${PUZZLE_HIGHS_LIBRARY}" DIRECTORY)
  add_library(puzzle_dep_highs INTERFACE IMPORTED GLOBAL)
  target_include_directories(puzzle_dep_highs SYSTEM INTERFACE "${PUZZLE_HIGHS_INCLUDE}")
  target_link_libraries(puzzle_dep_highs INTERFACE "${PUZZLE_HIGHS_LIBRARY}")
  target_link_options(puzzle_dep_highs INTERFACE "LINKER:-rpath,${PUZZLE_HIGHS_LIBDIR}")
endif()
