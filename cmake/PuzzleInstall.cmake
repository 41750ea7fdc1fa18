# Installs the program, the layers with their headers, and a relocatable CMake package.
# The program finds libtorch and HiGHS where they lay when it was built.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(layer_targets GLOBAL PROPERTY PUZZLE_LAYER_TARGETS)
install(TARGETS ${layer_targets} EXPORT puzzleTargets
        INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
foreach(layer IN LISTS PUZZLE_LAYERS)
  install(DIRECTORY "${PROJECT_SOURCE_DIR}/src/puzzle/${layer}"
          DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/puzzle"
          FILES_MATCHING PATTERN "*.h" PATTERN gloo_declarations EXCLUDE)
endforeach()
if(TARGET puzzle)
  install(TARGETS puzzle)
endif()

set(package "${CMAKE_INSTALL_LIBDIR}/cmake/puzzle")
configure_package_config_file(cmake/puzzleConfig.cmake.in puzzleConfig.cmake
                              INSTALL_DESTINATION "${package}")
# Before 1.0 a minor version may change everything.
write_basic_package_version_file(puzzleConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT puzzleTargets NAMESPACE puzzle:: DESTINATION "${package}")
install(FILES "${PROJECT_BINARY_DIR}/puzzleConfig.cmake"
              "${PROJECT_BINARY_DIR}/puzzleConfigVersion.cmake"
              cmake/PuzzleDependencies.cmake cmake/FindLibtorch.cmake cmake/FindHighs.cmake
        DESTINATION "${package}")
